#!/bin/sh
# Is this deployment fit to start? For people and for CI, on a host or in an image that has a shell; the runtime image
# has none and needs none: there it is `docker compose run --rm email-service emailctl check`, or the same by kubectl.
#
#   startup-checks.sh [ENV_FILE] [-- options of `emailctl check`, such as --json]
#
# Reads ENV_FILE (lines NAME=value, as compose reads them) over the environment when one is given. The status is that of
# `emailctl check`: 0 when nothing failed, 1 when something did; 127 when emailctl is not found, 66 without ENV_FILE.
# EMAILCTL names the program when it is not in PATH. Colours: on a terminal, in CI too; NO_COLOR switches them off.
set -eu

say() { printf 'startup-checks: %s\n' "$1" >&2; }

if [ $# -gt 0 ] && [ "$1" != -- ]; then
  if [ ! -r "$1" ]; then
    say "$1 cannot be read; copy .env.example and fill it in"
    exit 66
  fi
  # Values are taken as they stand: no expansion, no command of theirs is run. One pair of quotes around is removed.
  number=0
  while IFS= read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    line=${line%"$(printf '\r')"}
    case $line in
      '' | '#'*) continue ;;
      *=*) ;;
      *) say "$1: line $number is not NAME=value"; exit 66 ;;
    esac
    name=${line%%=*} value=${line#*=}
    case $name in
      '' | [0-9]* | *[!A-Za-z0-9_]*) say "$1: line $number does not begin with a name"; exit 66 ;;
    esac
    case $value in
      \"*\") value=${value#\"} value=${value%\"} ;;
      \'*\') value=${value#\'} value=${value%\'} ;;
    esac
    export "$name=$value"
  done <"$1"
  shift
fi
if [ "${1-}" = -- ]; then shift; fi

program=${EMAILCTL:-emailctl}
if ! command -v "$program" >/dev/null; then
  say "$program is not found; name it by EMAILCTL=/path/to/emailctl"
  exit 127
fi

# The logs of GitHub, GitLab and most others show colours though their output is no terminal.
color=auto
if [ -n "${CI-}" ] && [ -z "${NO_COLOR-}" ]; then color=always; fi

exec "$program" check --color "$color" "$@"
