#!/bin/bash
# mailboxes.sh FILE: all mailboxes of our Dovecot, who may log in, and the private authority with its keys, as a tar for its owner
# alone. Maildir may be copied while mail arrives.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=deployment/stack/lib.sh
. deployment/stack/lib.sh
file=${1:?usage: $0 FILE}
stack running
dovecot=$("${compose[@]}" ps -q dovecot | head -n 1)
[ -n "$dovecot" ] || { echo "Dovecot does not run here; nothing was copied" >&2; exit 1; }
umask 077
mkdir -p "$(dirname "$file")"
# A copy that ended early must not be taken for one.
trap 'rm -f "$file.part"' EXIT
docker run --rm --volumes-from "$dovecot:ro" debian:bookworm-slim tar -C / -cz var/mail/vhosts var/lib/mail-users mail-tls >"$file.part"
mv "$file.part" "$file"
echo "$file: $(du -h "$file" | cut -f 1)"
