#!/bin/bash
# database.sh backup FILE | restore FILE | reset | undo | forget: the database of the running stack.
#
# A restore fills a new database and has it migrated by the programs that are installed, all beside what runs. Only a database
# that came through takes the place of the old one, so a broken dump or one of a newer release changes nothing and stops nothing.
# A failure after that puts the old database back. Should this script be ended in between, the old data lie in
# emailclient_db_old: then `undo` makes them the database again, and `forget` deletes them; until one of the two nothing else is
# done. The stored mail passwords open only with the encryption_key that was in use when the dump was made.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=deployment/stack/lib.sh
. deployment/stack/lib.sh
stack running
name=emailclient_db
in_postgres() { "${compose[@]}" exec -T postgres "$@"; }
sql() { in_postgres env PGOPTIONS='-c client_min_messages=warning' psql -U emailclient -d postgres -v ON_ERROR_STOP=1 -qAt -c "$1"; }
there() { [ "$(sql "SELECT count(*) FROM pg_database WHERE datname = '$1'")" = 1 ]; }
services() { "${compose[@]}" "$@" email-service worker scheduler; }
migrate() { "${compose[@]}" run --rm -T migrate migrate "$@"; }
say() { echo "database: $*" >&2; }

# What is left to be put right when the script ends, in whichever way. In a trap `return` alone hands on the status of before it,
# so each names its own.
half_filled=
stopped=
swapped=
leave() {
  local status=$?
  trap - EXIT
  set +e
  if [ -n "$swapped" ]; then
    say "the old database is put back"
    put_back || say "that failed: the old data lie in ${name}_old; \`$0 undo\` tries again"
  fi
  [ -z "$half_filled" ] || sql "DROP DATABASE IF EXISTS ${name}_new WITH (FORCE)"
  [ -z "$stopped" ] || services start
  exit $status
}

claimed() {
  ! there "${name}_old" && return 0
  say "${name}_old is there: the data of before a restore or reset that did not come to its end. Nothing was done."
  say "\`$0 undo\` makes them the database again; \`$0 forget\` deletes them, when $name is what you want."
  exit 1
}

fresh_database() {
  half_filled=yes
  sql "DROP DATABASE IF EXISTS ${name}_new WITH (FORCE)"
  sql "CREATE DATABASE ${name}_new OWNER emailclient TEMPLATE template0"
}

# rename FROM TO: no session may be left in it, and the health check of a container may just have one.
rename() {
  local try
  for try in 1 2 3 4 5; do
    sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '$1'" >/dev/null
    sql "ALTER DATABASE $1 RENAME TO $2" && return 0
    sleep "$try"
  done
  return 1
}

# What has the name now came out of a restore, when there is an old one.
put_back() {
  there "${name}_old" || return 0
  if there "$name"; then
    sql "DROP DATABASE IF EXISTS ${name}_new WITH (FORCE)" || return 1
    half_filled=yes
    rename "$name" "${name}_new" || return 1
  fi
  rename "${name}_old" "$name"
}

# The services reconnect by themselves, but must not write between the two names.
swap_in() {
  stopped=yes
  services stop
  swapped=yes
  rename "$name" "${name}_old"
  rename "${name}_new" "$name"
  # As it is from now on: under its name, with the addresses of the services.
  migrate
  swapped=
  half_filled=
  sql "DROP DATABASE ${name}_old WITH (FORCE)"
  stopped=
  services start
}

# One at a time.
exec 8<"${BASH_SOURCE[0]}"
flock -n 8 || { say "another one is at work"; exit 1; }
trap leave EXIT
trap 'exit 130' INT TERM HUP

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
  [ -f "$2" ] && [ -r "$2" ] || { say "$2 cannot be read"; exit 1; }
  claimed
  fresh_database
  # The dump grants to roles, which a new server does not have yet.
  migrate --roles-only --database "${name}_new" >/dev/null
  in_postgres pg_restore -U emailclient --exit-on-error --dbname="${name}_new" <"$2" || { say "$2 cannot be read to its end; nothing was changed"; exit 1; }
  [ "$(in_postgres psql -U emailclient -d "${name}_new" -qAt -c "SELECT to_regclass('public._sqlx_migrations') IS NOT NULL")" = t ] ||
    { say "$2 is no dump of this product; nothing was changed"; exit 1; }
  migrate --database "${name}_new" || { say "the programs here cannot work with $2 (see above); nothing was changed"; exit 1; }
  swap_in
  echo "restored from $2"
  ;;
"reset ")
  claimed
  fresh_database
  migrate --database "${name}_new"
  swap_in
  echo "$name is empty"
  ;;
"undo ")
  there "${name}_old" || { say "${name}_old is not there; nothing was done"; exit 1; }
  stopped=yes
  services stop
  put_back
  sql "DROP DATABASE IF EXISTS ${name}_new WITH (FORCE)"
  migrate
  echo "$name is as it was"
  ;;
"forget ")
  there "$name" || { say "$name is not there, ${name}_old is all there is: \`$0 undo\` is what you want"; exit 1; }
  sql "DROP DATABASE IF EXISTS ${name}_old WITH (FORCE)"
  sql "DROP DATABASE IF EXISTS ${name}_new WITH (FORCE)"
  echo "the data of before are deleted"
  ;;
*)
  echo "usage: $0 backup FILE | restore FILE | reset | undo | forget" >&2
  exit 2
  ;;
esac
