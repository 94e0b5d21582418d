#!/bin/bash
# up.sh dev|staging: the stack in containers from a bare checkout, on a host that reaches an image registry or not.
#
#   dev      docker-compose.yml and docker-compose.override.yml: source mounted, debug logs, Mailpit
#   staging  docker-compose.yml alone, as in production
#
# Where COMPOSE_FILE names files, in the environment or in .env, those are the stack: `dev` refuses then, unless the file for
# development is among them.
# One copy of the API, on port 5000 unless API_PORTS says otherwise. Safe to repeat.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=deployment/stack/lib.sh
. deployment/stack/lib.sh
kind=${1:-}
case $kind in
  dev)
    case $(setting COMPOSE_FILE docker-compose.override.yml) in
      *docker-compose.override.yml*) ;;
      *)
        echo "dev: COMPOSE_FILE=$(setting COMPOSE_FILE) leaves out docker-compose.override.yml: \`make up\` starts that stack" >&2
        exit 1
        ;;
    esac
    ;;
  staging) ;;
  *)
    echo "usage: $0 dev|staging" >&2
    exit 2
    ;;
esac
stack "$kind"
say() { echo "$kind: $*"; }

# What the operator says wins over what is chosen here, as it does when Compose is called by hand.
[ -n "$(setting API_PORTS)" ] || export API_PORTS=5000

deployment/offline/base-images.sh
deployment/stack/secrets.sh

if [ "$kind" = dev ] && [ -z "$(setting MAIL_OUTSIDE)" ]; then
  mailpit=$(sed -n 's/^ *image: *\(axllent[^ ]*\).*/\1/p' docker-compose.override.yml)
  if docker image inspect "$mailpit" >/dev/null 2>&1 || docker pull --quiet "$mailpit" >/dev/null 2>&1; then
    export COMPOSE_PROFILES=mailpit MAIL_OUTSIDE='relay:[mailpit]:1025'
    say "mail that would leave is caught by Mailpit: http://127.0.0.1:$(setting MAILPIT_PORT 8025)"
  else
    say "Mailpit cannot be pulled here and is left out; mail that would leave ends in the mailbox catchall"
  fi
fi

# The other services have the image of email-service.
"${compose[@]}" build email-service postfix dovecot
if [ "$kind" = dev ]; then
  say "the programs are compiled from the source in the first container that starts: minutes at the first time, and what it says follows"
  # `up` returns when the services are healthy, and is silent until then. What the container said at an earlier start is not
  # of now.
  last_start() { docker inspect --format '{{.State.StartedAt}}' "$("${compose[@]}" ps -a -q migrate | head -n 1)" 2>/dev/null || true; }
  before=$(last_start)
  follow() {
    local began
    while began=$(last_start) && [[ $began == "$before" || $began != [1-9]* ]]; do sleep 1; done
    docker logs -f --since "$began" "$("${compose[@]}" ps -a -q migrate | head -n 1)" 2>&1 | sed -u 's/^/dev: /'
  }
  set -m
  follow &
  follower=$!
  set +m
  trap 'kill -- "-$follower" 2>/dev/null || true' EXIT
fi
"${compose[@]}" up -d
# The mailbox that catches what would leave has to be there; its password is printed the once that it is made.
if [ "$kind" = dev ] && [ -z "$(setting COMPOSE_PROFILES)" ]; then
  mailbox() { "${compose[@]}" run --rm -T emailctl mailbox "$@"; }
  catchall=catchall@$("${compose[@]}" exec -T postfix postconf -h virtual_mailbox_domains | cut -d ' ' -f 1)
  { mailbox list 2>/dev/null || true; } | grep -qx "$catchall" || mailbox create "$catchall"
fi
say "the API is at http://127.0.0.1:$("${compose[@]}" port email-service 5000 | cut -d : -f 2)"
