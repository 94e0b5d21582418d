#!/bin/bash
# database.sh backup FILE | restore FILE | reset: the database of the running stack.
#
# A restore fills a new database first and takes the place of the old one only when the dump was read to its end, so a
# broken dump changes nothing. The stored mail passwords open only with the encryption_key that was in use when the dump
# was made.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=emailclient_db
compose=(docker-compose)
command -v docker-compose >/dev/null || compose=(docker compose)
# The stack of development runs programs of its own making.
docker ps --filter label=com.docker.compose.service=email-service --format '{{.Image}}' | grep -q -e '-dev:' ||
  compose+=(-f docker-compose.yml)
in_postgres() { "${compose[@]}" exec -T postgres "$@"; }
sql() { in_postgres psql -U emailclient -d postgres -v ON_ERROR_STOP=1 -qAt -c "$1"; }
services() { "${compose[@]}" "$@" email-service worker scheduler; }

# The services reconnect by themselves, but must not write between the two names.
swap_in() {
  services stop
  sql "DROP DATABASE IF EXISTS ${name}_old WITH (FORCE)"
  sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '$name'" >/dev/null
  sql "ALTER DATABASE $name RENAME TO ${name}_old"
  sql "ALTER DATABASE ${name}_new RENAME TO $name"
  "${compose[@]}" run --rm -T migrate
  sql "DROP DATABASE ${name}_old WITH (FORCE)"
  services start
}

fresh_database() {
  sql "DROP DATABASE IF EXISTS ${name}_new WITH (FORCE)"
  sql "CREATE DATABASE ${name}_new OWNER emailclient TEMPLATE template0"
}

case "${1:-} ${2:-}" in
"backup "?*)
  mkdir -p "$(dirname "$2")"
  # A dump that ended early must not be taken for one.
  trap 'rm -f "$2.part"' EXIT
  (umask 077 && in_postgres pg_dump -U emailclient --format=custom --compress=6 "$name" >"$2.part")
  mv "$2.part" "$2"
  echo "$2: $(du -h "$2" | cut -f 1)"
  ;;
"restore "?*)
  # The dump grants to roles, which a new server does not have yet.
  "${compose[@]}" run --rm -T migrate
  fresh_database
  in_postgres pg_restore -U emailclient --exit-on-error --dbname="${name}_new" <"$2"
  swap_in
  echo "restored from $2"
  ;;
"reset ")
  fresh_database
  swap_in
  echo "$name is empty"
  ;;
*)
  echo "usage: $0 backup FILE | restore FILE | reset" >&2
  exit 2
  ;;
esac
