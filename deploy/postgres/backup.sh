#!/usr/bin/env bash
# Copies the three databases into a folder, in the order that a restore wants: whatever a row names
# was there when the next database was copied. Then copy the blobs; docs/OPERATIONS.md, "Backups".
#
#   deploy/postgres/backup.sh FOLDER [SERVICE=DATABASE …]
#
# Connects as libpq does (PGHOST, PGPORT, PGUSER, PGPASSWORD): as a superuser, or as a role that
# bypasses row-level security.
set -euo pipefail
folder=${1:?a folder}
shift
umask 077
mkdir -p "$folder"
[ $# -gt 0 ] || set -- enqueue=enqueue packager=packager assets=assets
for pair in "$@"; do
  pg_dump --format=custom --no-password --dbname="${pair#*=}" --file="$folder/${pair%%=*}.dump.part"
  mv "$folder/${pair%%=*}.dump.part" "$folder/${pair%%=*}.dump"
done
