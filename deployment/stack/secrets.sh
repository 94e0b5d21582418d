#!/bin/bash
# secrets.sh [FOLDER]: makes the secrets that docker-compose.yml mounts and that are missing; keeps those that are there.
# Without FOLDER it is SECRETS_DIR of the environment or of .env, else deployment/secrets.
#
# The folder is for you alone. The files in it can be read by anyone who gets past it, because each is mounted by itself
# into containers that run as different users.
set -euo pipefail

if [ $# -gt 0 ]; then
  dir=$1
else
  cd "$(dirname "${BASH_SOURCE[0]}")/../.."
  # shellcheck source=deployment/stack/lib.sh
  . deployment/stack/lib.sh
  dir=$(setting SECRETS_DIR deployment/secrets)
fi
mkdir -p "$dir"
chmod 700 "$dir"
# Nothing in here is for git, wherever the folder is.
[ -e "$dir/.gitignore" ] || echo '*' >"$dir/.gitignore"

made=()
# keep NAME: standard input becomes the secret, unless there is one.
keep() {
  if [ -s "$dir/$1" ]; then
    cat >/dev/null
    return
  fi
  cat >"$dir/$1.new"
  chmod 444 "$dir/$1.new"
  mv "$dir/$1.new" "$dir/$1"
  made+=("$1")
}
# Letters and digits only: these stand in addresses. 32 of them are 190 bits.
password() { openssl rand -base64 96 | tr -dc 'a-zA-Z0-9' | cut -c 1-32; }

keep postgres_password < <(password)
keep redis_password < <(password)
keep jwt_secret < <(openssl rand -base64 48)
keep encryption_key < <(openssl rand -base64 32)
keep database_owner_url < <(echo "postgres://emailclient:$(cat "$dir/postgres_password")@postgres:5432/emailclient_db")
keep database_url < <(echo "postgres://emailclient_app:$(password)@postgres:5432/emailclient_db")
keep database_system_url < <(echo "postgres://emailclient_system:$(password)@postgres:5432/emailclient_db")
keep redis_url < <(echo "redis://:$(cat "$dir/redis_password")@redis:6379/0")

if [ ${#made[@]} -gt 0 ]; then
  echo "made in $dir: ${made[*]}"
  echo "Keep a copy of encryption_key elsewhere: without it the stored mail passwords are lost."
else
  echo "all secrets are in $dir"
fi
