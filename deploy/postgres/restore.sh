#!/usr/bin/env bash
# Makes one empty database what a dump of backup.sh holds; roles.sql has made the roles before.
# Afterwards, and before the service may use it: python -m services.SERVICE after-restore
#
#   deploy/postgres/restore.sh FOLDER SERVICE [DATABASE]
set -euo pipefail
folder=${1:?a folder} service=${2:?a service} database=${3:-$2}
# In one transaction: a restore that dies leaves an empty database.
pg_restore --no-password --exit-on-error --single-transaction \
  --dbname="$database" "$folder/$service.dump"
