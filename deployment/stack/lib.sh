# shellcheck shell=bash
# Which stack, and by which Compose: the one authority for make and for the scripts beside this file, which source it from the
# top of the checkout.
#
# The stack is what Compose itself would take: COMPOSE_FILE and COMPOSE_PROJECT_NAME of the environment, else of .env. Only
# where nobody names files they are chosen here: docker-compose.yml alone, and the file for development beside it while a stack
# of development runs.

# Where the settings are that the environment does not have.
env_file=${STACK_ENV_FILE:-.env}

# setting NAME [DEFAULT]: as Compose reads it. What is in the environment wins, even empty; an empty value takes the default.
setting() {
  local value=
  if [ -n "${!1+set}" ]; then
    value=${!1}
  elif [ -f "$env_file" ]; then
    value=$(sed -n -E "s/^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=[[:space:]]*//p" "$env_file" | tail -n 1)
    value=${value%$'\r'}
    value=${value%"${value##*[![:space:]]}"}
    case $value in
      \"*\") value=${value#\"} value=${value%\"} ;;
      \'*\') value=${value#\'} value=${value%\'} ;;
    esac
  fi
  printf '%s\n' "${value:-${2-}}"
}

# How Compose is called. COMPOSE says it, should neither way be right.
find_compose() {
  if [ -n "${COMPOSE:-}" ]; then
    read -r -a compose <<<"$COMPOSE"
  elif docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
  else
    compose=(docker-compose)
  fi
  [ "$env_file" = .env ] || compose+=(--env-file "$env_file")
}

# stack KIND: `"${compose[@]}"` is that stack from now on. KIND is staging; dev, which has all that staging has; or running,
# whichever of the two is there.
stack() {
  find_compose
  [ -z "$(setting COMPOSE_FILE)" ] || return 0
  local kind=$1 container
  local staging=("${compose[@]}" -f docker-compose.yml)
  if [ "$kind" = running ]; then
    kind=staging
    for container in $("${staging[@]}" ps -a -q email-service 2>/dev/null); do
      # The stack of development runs programs of its own making.
      case $(docker inspect --format '{{.Config.Image}}' "$container") in *-dev:*) kind=dev ;; esac
    done
  fi
  compose=("${staging[@]}")
  [ "$kind" = staging ] || compose+=(-f docker-compose.override.yml)
}
