#!/bin/bash
# up.sh dev|staging: the stack in containers from a bare checkout, on a host that reaches an image registry or not.
#
#   dev      docker-compose.yml and docker-compose.override.yml: source mounted, debug logs, Mailpit
#   staging  docker-compose.yml alone, as in production
#
# One copy of the API, on port 5000 unless API_PORTS says otherwise. Safe to repeat.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
kind=${1:-}
compose=(docker-compose)
command -v docker-compose >/dev/null || compose=(docker compose)
case $kind in
  dev) ;;
  staging) compose+=(-f docker-compose.yml) ;;
  *)
    echo "usage: $0 dev|staging" >&2
    exit 2
    ;;
esac
say() { echo "$kind: $*"; }

# What `.env` says wins over what is chosen here, as it does when docker-compose is called by hand.
setting() { [ -n "${!1:-}" ] || { [ -f .env ] && grep -q "^$1=." .env; }; }
setting API_PORTS || export API_PORTS=5000

deployment/offline/base-images.sh
deployment/stack/secrets.sh

if [ "$kind" = dev ] && ! setting MAIL_OUTSIDE; then
  mailpit=$(sed -n 's/^ *image: *\(axllent[^ ]*\).*/\1/p' docker-compose.override.yml)
  if docker image inspect "$mailpit" >/dev/null 2>&1 || docker pull --quiet "$mailpit" >/dev/null 2>&1; then
    export COMPOSE_PROFILES=mailpit MAIL_OUTSIDE='relay:[mailpit]:1025'
    say "mail that would leave is caught by Mailpit: http://127.0.0.1:${MAILPIT_PORT:-8025}"
  else
    say "Mailpit cannot be pulled here and is left out; mail that would leave ends in the mailbox catchall"
  fi
fi

# The other services have the image of email-service.
"${compose[@]}" build email-service postfix dovecot
"${compose[@]}" up -d
# The mailbox that catches what would leave has to be there; its password is printed the once that it is made.
if [ "$kind" = dev ] && [ -z "${COMPOSE_PROFILES:-}" ]; then
  mailbox() { "${compose[@]}" run --rm -T emailctl mailbox "$@"; }
  catchall=catchall@$("${compose[@]}" exec -T postfix postconf -h virtual_mailbox_domains | cut -d ' ' -f 1)
  { mailbox list 2>/dev/null || true; } | grep -qx "$catchall" || mailbox create "$catchall"
fi
say "the API is at http://127.0.0.1:$("${compose[@]}" port email-service 5000 | cut -d : -f 2)"
