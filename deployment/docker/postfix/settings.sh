#!/bin/bash
# settings.sh DIR CERT KEY: writes Postfix's settings into DIR, from the variables that entrypoint.sh lists. DIR holds main.cf and
# master.cf already.
set -euo pipefail

dir=$1 cert=$2 key=$3
hostname=${MAIL_HOSTNAME:?MAIL_HOSTNAME is not set: the name of this mail server, such as mail.example.com}
domains=${MAIL_DOMAINS:?MAIL_DOMAINS is not set: the domains that get mail here, separated by commas}
case $hostname$domains in
  *[!a-zA-Z0-9.,\ -]*) echo "MAIL_HOSTNAME and MAIL_DOMAINS take names of hosts only" >&2; exit 1 ;;
esac

# One blank between two, whatever was written.
domains=$(tr -s ', ' ' ' <<<"${domains,,}")
domains=${domains# }
domains=${domains% }
first=${domains%% *}

postmaster=${MAIL_POSTMASTER:-postmaster@$first}
case $postmaster in
  *@*@* | @* | *@ | *[!a-zA-Z0-9@._+=-]*) echo "MAIL_POSTMASTER=$postmaster: an address such as postmaster@$first is expected" >&2; exit 1 ;;
  *@*) ;;
  *) postmaster=$postmaster@$first ;;
esac

# RFC 5321 §4.5.1, RFC 2142. `postmaster` without a domain is turned into that of the first by smtpd_command_filter.
{
  echo "postmaster@${hostname,,} $postmaster"
  for domain in $domains; do
    for role in postmaster abuse; do
      [ "$role@$domain" = "${postmaster,,}" ] || echo "$role@$domain $postmaster"
    done
  done
} >"$dir/roles"
# A name without a domain is Postfix's to accept, whatever else is said, and would be bounced later (3.7, smtpd_check.c). Both are
# the same mailbox, so the command is read as the longer one, which can be refused.
# Every other spelling of it, by quoted pairs or a route, is read as a name that nobody has.
cat >"$dir/commands" <<CONF
/^RCPT[[:space:]]+TO:[[:space:]]*<[[:space:]]*"?postmaster"?[[:space:]]*>(.*)$/ RCPT TO:<postmaster@$first>\$1
/^RCPT[[:space:]]+TO:[[:space:]]*<[[:space:]]*(@[^:]*:)?[^@]*>/ RCPT TO:<nobody@invalid>
CONF
# Nobody of this container gets mail: root@[127.0.0.1] is refused in the dialogue.
printf '# none\n' >"$dir/nobody"

aliases=texthash:$dir/roles
settings=(
  "myhostname=$hostname"
  "virtual_mailbox_domains=$domains"
  "virtual_transport=lmtp:inet:${DELIVERY_HOST:-dovecot}:24"
  "smtpd_sasl_path=inet:${DELIVERY_HOST:-dovecot}:12345"
  "message_size_limit=${MESSAGE_MAX_BYTES:-52428800}"
  "smtpd_tls_cert_file=$cert"
  "smtpd_tls_key_file=$key"
  "smtpd_command_filter=regexp:$dir/commands"
  "local_recipient_maps=regexp:$dir/nobody"
  "smtpd_sender_login_maps=regexp:$dir/sender_login"
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
    # Only what would leave is rewritten: neither our domains nor this machine by its address, where nobody gets mail. Dots and
    # brackets are quoted and all joined to one expression.
    own=$domains
    for address in 127.0.0.1 $(hostname -I); do
      own+=" [$address]"
    done
    own=$(sed 's/[].[]/\\&/g; s/ /|/g' <<<"$own")
    printf 'if !/@(%s)$/\n/@/ %s@%s\nendif\n' "$own" "${MAIL_OUTSIDE#catch:}" "$first" >"$dir/outside"
    aliases+=" regexp:$dir/outside"
    ;;
  *) echo "MAIL_OUTSIDE=${MAIL_OUTSIDE}: deliver, refuse, relay:[host]:port or catch:NAME" >&2; exit 1 ;;
esac
postconf -c "$dir" -e "${settings[@]}" "virtual_alias_maps=$aliases"
