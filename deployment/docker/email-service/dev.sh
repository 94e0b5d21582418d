#!/bin/bash
# dev.sh PROGRAM [ARGUMENT…]: builds the mounted source in /src and runs the program of it; whenever the source changes,
# builds again and, when that went well, starts the program anew. A program whose name is emailctl runs once.
#
# The containers of a stack share /target and /cargo, and take turns: the first one builds, the others find it done.
set -euo pipefail

program=$1
shift
cd /src
export HOME=/target TMPDIR=/target/tmp
mkdir -p "$TMPDIR"
stamp=$(mktemp)
child=

build() {
  # Taken before: a change during the build is the next one's.
  touch "$stamp"
  flock /target/.turn cargo build --locked --bins -p emailclient-api -p emailclient-worker -p emailclient-scheduler -p emailctl
}
# The sources of devstack are in none of the four programs.
changed() {
  [ -n "$(find Cargo.toml Cargo.lock crates migrations -path crates/devstack -prune -o -newer "$stamp" -type f -print -quit)" ]
}
stop() {
  [ -z "$child" ] || kill "$child" 2>/dev/null || true
  [ -z "$child" ] || wait "$child" || true
  child=
}
start() {
  "/target/debug/$program" "$@" &
  child=$!
}
trap 'stop; exit 0' TERM INT

if [ "$program" = emailctl ]; then
  build
  exec "/target/debug/$program" "$@"
fi
while :; do
  if build; then
    stop
    start "$@"
  else
    echo "dev.sh: that did not build; the program from before runs on" >&2
  fi
  # A mounted folder tells of changes made on the host by their times only, so these are looked at.
  until changed; do
    sleep 1 &
    wait $!
    # As the restart policy would: a service ends when its database is not there at the start.
    if [ -n "$child" ] && ! kill -0 "$child" 2>/dev/null; then
      echo "dev.sh: $program has ended; starting it again" >&2
      start "$@"
    fi
  done
  echo "dev.sh: the source has changed" >&2
done
