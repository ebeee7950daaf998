#!/usr/bin/env bash
# Fails when gen/ is not what protos/ generates.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
scripts/generate-protos.sh "$fresh"
diff -r -x __pycache__ "$fresh/contentshop" gen/contentshop >/dev/null || {
  echo "gen/ is out of date: make protos" >&2
  exit 1
}
