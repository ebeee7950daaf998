#!/usr/bin/env bash
# Generates Python and stubs from protos/ into the folder given.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?a folder}
rm -rf "${out:?}/contentshop"
mkdir -p "$out"
PATH=$PWD/.venv/bin:$PATH python -m grpc_tools.protoc -Iprotos \
  --python_out="$out" --grpc_python_out="$out" \
  --mypy_out=quiet,readable_stubs:"$out" --mypy_grpc_out=quiet,only_async:"$out" \
  $(find protos -name '*.proto' | sort)
