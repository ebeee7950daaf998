#!/usr/bin/env bash
# Makes the secrets that docker-compose.yml reads, in ./secrets, once; run it before `up`.
# The database URLs carry the passwords, so they are secrets too.
set -euo pipefail
cd "$(dirname "$0")/../.."
umask 077
mkdir -p secrets
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
make() { [ -s "secrets/$1" ] || printf '%s' "$2" >"secrets/$1"; }

make db_superuser "$(random)"
for kind in owner app duty; do make "db_$kind" "$(random)"; done
make rabbitmq_password "$(random)"
make blob_access_key "$(random)"
make blob_secret_key "$(random)"
make auth_secret "$(random)$(random)"
make service_secret "$(random)$(random)"
make gemini_api_key "${GEMINI_API_KEY:-}"
for service in enqueue assets packager; do
  for kind in owner app duty; do
    make "${service}_${kind}_url" \
      "postgresql+psycopg://${service}_${kind}:$(cat "secrets/db_$kind")@postgres:5432/$service"
  done
done
make broker_url "amqp://contentshop:$(cat secrets/rabbitmq_password)@rabbitmq:5672/"
cat >secrets/rabbitmq.conf <<CONF
default_user = contentshop
default_pass = $(cat secrets/rabbitmq_password)
CONF
cat >secrets/s3.json <<CONF
{"identities": [{"name": "contentshop",
  "credentials": [{"accessKey": "$(cat secrets/blob_access_key)",
                   "secretKey": "$(cat secrets/blob_secret_key)"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
CONF
# The containers run as another user than the one who made these.
chmod 755 secrets
chmod 644 secrets/*
echo "secrets/ is ready: docker compose up --build"
