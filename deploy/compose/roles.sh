#!/bin/sh
# Run once by the postgres image on an empty volume: makes the roles and databases.
set -eu
exec psql --no-psqlrc --username "$POSTGRES_USER" \
  --set=owner_password="$(cat /run/secrets/db_owner)" \
  --set=app_password="$(cat /run/secrets/db_app)" \
  --set=duty_password="$(cat /run/secrets/db_duty)" \
  --file=/contentshop/roles.sql
