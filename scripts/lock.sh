#!/usr/bin/env bash
# Pins requirements/*.in with hashes, and no index address in the result.
set -euo pipefail
cd "$(dirname "$0")/.."
for name in base dev; do
  .venv/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
    "$@" --output-file "requirements/$name.txt" "requirements/$name.in"
done
if grep -n '://' requirements/*.txt; then
  echo "an address got into the lock files" >&2
  exit 1
fi
