#!/bin/bash
# Starts Postfix in the foreground, configured from the environment:
#   MAIL_HOSTNAME      the name of this server, in its greeting and its certificate
#   MAIL_DOMAINS       domains whose mail is delivered to Dovecot, separated by commas
#   DELIVERY_HOST      the name of Dovecot on the network that only the two share; without it `dovecot`
#   MAIL_OUTSIDE       mail for other domains: `deliver` by MX, `relay:[host]:port`, `catch:NAME` (all of it into one
#                      mailbox of the first domain), `refuse`
#   RELAY_PASSWORD_FILE  for `relay:`, a file with the line `[host]:port user:password`. It is given only to a server
#                      whose certificate has that name and comes from a public authority, or from RELAY_CA_FILE
#   MESSAGE_MAX_BYTES  the largest message
#   TLS_CERT_FILE, TLS_KEY_FILE  a mounted certificate instead of one of the private authority
# /etc/postfix is a tmpfs, so that the root may be read-only and postqueue and the others still find their settings.
set -euo pipefail

hostname=${MAIL_HOSTNAME:?MAIL_HOSTNAME is not set: the name of this mail server, such as mail.example.com}
domains=${MAIL_DOMAINS:?MAIL_DOMAINS is not set: the domains that get mail here, separated by commas}
case $hostname$domains in
  *[!a-zA-Z0-9.,\ -]*) echo "MAIL_HOSTNAME and MAIL_DOMAINS take names of hosts only" >&2; exit 1 ;;
esac

# One blank between two, whatever was written.
domains=$(tr -s ', ' ' ' <<<"$domains")
domains=${domains# }
domains=${domains% }

certificate=$(certificates.sh postfix postfix "$hostname")
read -r cert key <<<"$certificate"

cp -r /usr/local/share/emailclient/. /etc/postfix/
settings=(
  "myhostname=$hostname"
  "virtual_mailbox_domains=$domains"
  "virtual_transport=lmtp:inet:${DELIVERY_HOST:-dovecot}:24"
  "smtpd_sasl_path=inet:${DELIVERY_HOST:-dovecot}:12345"
  "message_size_limit=${MESSAGE_MAX_BYTES:-52428800}"
  "smtpd_tls_cert_file=$cert"
  "smtpd_tls_key_file=$key"
)
case ${MAIL_OUTSIDE:-deliver} in
  deliver) ;;
  refuse) settings+=('default_transport=error:5.7.1 mail for other domains is not sent from here') ;;
  relay:*)
    settings+=("default_transport=smtp:${MAIL_OUTSIDE#relay:}")
    if [ -n "${RELAY_PASSWORD_FILE:-}" ]; then
      settings+=(
        smtp_sasl_auth_enable=yes smtp_sasl_security_options=noanonymous
        "smtp_sasl_password_maps=texthash:$RELAY_PASSWORD_FILE"
        smtp_tls_security_level=secure "smtp_tls_CAfile=${RELAY_CA_FILE:-/etc/ssl/certs/ca-certificates.crt}"
      )
    fi
    ;;
  catch:[a-z0-9]*)
    # Only what would leave is rewritten: dots are quoted and the domains joined to one expression.
    own=${domains// /|}
    printf 'if !/@(%s)$/\n/@/ %s@%s\nendif\n' "${own//./\\.}" "${MAIL_OUTSIDE#catch:}" "${domains%% *}" >/etc/postfix/outside
    settings+=(virtual_alias_maps=regexp:/etc/postfix/outside)
    ;;
  *) echo "MAIL_OUTSIDE=${MAIL_OUTSIDE}: deliver, refuse, relay:[host]:port or catch:NAME" >&2; exit 1 ;;
esac
postconf -e "${settings[@]}"
exec postfix start-fg
