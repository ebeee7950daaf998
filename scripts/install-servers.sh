#!/usr/bin/env bash
# Installs the servers that tests start for themselves (PostgreSQL, RabbitMQ), where we may, and
# without starting the distribution's own. Where we may not, the tests say at their end what they
# left out and how to get it.
set -euo pipefail

missing=()
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
command -v rabbitmq-server >/dev/null || [ -x /usr/sbin/rabbitmq-server ] || missing+=(rabbitmq-server)
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  printf 'contentshop: tests that need them are left out; to run them: apt-get install %s\n' \
    "${missing[*]}" >&2
  exit 0
fi

printf 'contentshop: installing %s (not starting them)\n' "${missing[*]}" >&2
# Debian asks this file before it starts a service of a package; 101 means: do not.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
