#!/usr/bin/env bash
# Makes .venv and brings it up to date: `bootstrap.sh run` (what running needs) or `bootstrap.sh dev`
# (tests and linters too). Quick when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-run}

say() { printf 'contentshop: %s\n' "$*" >&2; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
    [ -n "$candidate" ] || continue
    command -v "$candidate" >/dev/null 2>&1 || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  say "Python 3.11 or later is needed: apt-get install python3 python3-venv"
  exit 1
}

make_venv() {
  local python
  python=$(find_python)
  if "$python" -m venv .venv >/dev/null 2>&1; then return; fi
  rm -rf .venv
  # Debian splits venv off; as root we can mend that.
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "installing python3-venv"
    apt-get update -qq >/dev/null && apt-get install -y -qq python3-venv >/dev/null
    "$python" -m venv .venv && return
  fi
  rm -rf .venv
  say "python3 -m venv does not work here; this mends it: apt-get install python3-venv"
  exit 1
}

[ -x .venv/bin/python ] || { say "making .venv"; make_venv; }

stamp=.venv/.installed-$what
wanted=$(cat requirements/base.txt pyproject.toml $([ "$what" = dev ] && echo requirements/dev.txt) | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null || true)" = "$wanted" ]; then exit 0; fi

say "installing the pinned packages ($what)"
files=(-r requirements/base.txt)
[ "$what" = dev ] && files+=(-r requirements/dev.txt)
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes "${files[@]}"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
printf '%s' "$wanted" >"$stamp"
