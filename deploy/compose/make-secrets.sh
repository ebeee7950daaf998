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

# A private authority, and a certificate for each service and for who calls them from outside:
# every port asks for one. To renew them delete secrets/*_cert and run this again.
export OPENSSL_CONF=/dev/null
plain=$'[req]\ndistinguished_name=dn\n[dn]\n'
ec="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config /dev/stdin"
if [ ! -s secrets/tls_ca ]; then
  openssl req -x509 $ec -keyout secrets/tls_ca_key -out secrets/tls_ca -days 3650 \
    -subj "/CN=contentshop compose CA" -addext "basicConstraints=critical,CA:TRUE,pathlen:0" \
    -addext "keyUsage=critical,keyCertSign,cRLSign" <<<"$plain" 2>/dev/null
fi
certify() { # NAME USES
  [ -s "secrets/$1_cert" ] && return
  openssl req $ec -keyout "secrets/$1_key" -out secrets/request -subj "/CN=$1" <<<"$plain" 2>/dev/null
  openssl x509 -req -in secrets/request -CA secrets/tls_ca -CAkey secrets/tls_ca_key -days 825 \
    -set_serial "0x$(random)" -out "secrets/$1_cert" -extfile /dev/stdin 2>/dev/null <<CONF
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = $2
subjectAltName = DNS:$1, DNS:localhost, IP:127.0.0.1
CONF
  rm secrets/request
}
for service in enqueue assets packager worker; do certify $service serverAuth,clientAuth; done
certify gateway clientAuth

# The containers run as another user than the one who made these; only the authority's key and the
# gateway's, which no container reads, stay with their owner.
chmod 755 secrets
chmod 644 secrets/*
chmod 600 secrets/tls_ca_key secrets/gateway_key
echo "secrets/ is ready: docker compose up --build"
