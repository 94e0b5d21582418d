#!/bin/bash
# compose.sh ARGUMENT…: Compose on the stack that COMPOSE_FILE, COMPOSE_PROJECT_NAME and .env say, else on the one that is up.
# compose.sh --staging|--dev ARGUMENT…: the same, but where nobody names files that stack, whatever is up.
# compose.sh --setting NAME [DEFAULT]: what Compose takes for NAME. --api: the published address of each copy of the API.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=deployment/stack/lib.sh
. deployment/stack/lib.sh
case ${1:-} in
  --setting)
    setting "$2" "${3-}"
    exit
    ;;
  --api)
    stack running
    # Which copy has which port is not ordered.
    for container in $("${compose[@]}" ps -q email-service); do
      docker port "$container" 5000/tcp | head -n 1 | sed 's/^0\.0\.0\.0:/127.0.0.1:/'
    done
    exit
    ;;
esac
case ${1:-} in
  --staging | --dev)
    stack "${1#--}"
    shift
    ;;
  *) stack running ;;
esac
exec "${compose[@]}" "$@"
