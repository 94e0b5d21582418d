#!/bin/bash
# Starts Postfix in the foreground, configured from the environment:
#   MAIL_HOSTNAME      the name of this server, in its greeting and its certificate
#   MAIL_DOMAINS       domains whose mail is delivered to Dovecot, separated by commas
#   MAIL_POSTMASTER    who gets the mail for postmaster@ and abuse@ of each of these domains: postmaster@ of the first. Until that
#                      mailbox is there, such mail is refused
#   DELIVERY_HOST      the name of Dovecot on the network that only the two share; without it `dovecot`
#   MAIL_OUTSIDE       mail for other domains: `deliver` by MX, `relay:[host]:port`, `catch:NAME` (all of it into one
#                      mailbox of the first domain), `refuse`
#   RELAY_PASSWORD_FILE  for `relay:`, a file with the line `[host]:port user:password`. It is given only to a server
#                      whose certificate has that name and comes from a public authority, or from RELAY_CA_FILE
#   MESSAGE_MAX_BYTES  the largest message
#   TLS_CERT_FILE, TLS_KEY_FILE  a mounted certificate instead of one of the private authority
# /etc/postfix is a tmpfs, so that the root may be read-only and postqueue and the others still find their settings.
set -euo pipefail

certificate=$(certificates.sh postfix postfix "${MAIL_HOSTNAME:?MAIL_HOSTNAME is not set: the name of this mail server, such as mail.example.com}")
read -r cert key <<<"$certificate"
cp -r /usr/local/share/emailclient/. /etc/postfix/
settings.sh /etc/postfix "$cert" "$key"
exec postfix start-fg
