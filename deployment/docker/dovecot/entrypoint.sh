#!/bin/bash
# Starts Dovecot in the foreground, configured from the environment:
#   MAIL_HOSTNAME      the name of this server, in its certificate
#   DELIVERY_HOST      the name of this container on the network that only Postfix shares: LMTP (24) and the log-ins of
#                      Postfix (12345) are served there alone, and on loopback. Without it, on every network
#   TLS_CERT_FILE, TLS_KEY_FILE  a mounted certificate instead of one of the private authority
# Mailboxes are lines of /var/lib/mail-users/users, a Dovecot passwd-file: `emailctl mailbox create` writes it. It is
# empty at first: there is no mailbox and no password that was not asked for.
set -euo pipefail

hostname=${MAIL_HOSTNAME:?MAIL_HOSTNAME is not set: the name of this mail server, such as mail.example.com}
certificate=$(certificates.sh dovecot dovecot "$hostname")
read -r cert key <<<"$certificate"
cat >/run/emailclient.conf <<CONF
hostname = $hostname
postmaster_address = postmaster@$hostname
ssl_cert = <$cert
ssl_key = <$key
CONF
if [ -n "${DELIVERY_HOST:-}" ]; then
  inner=
  # The engine's name server may know the name a moment later.
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    read -r inner _ < <(getent ahostsv4 "$DELIVERY_HOST") && break
    sleep 1
  done
  if [ -z "$inner" ]; then
    echo "DELIVERY_HOST=$DELIVERY_HOST: this name has no address here" >&2
    exit 1
  fi
  cat >>/run/emailclient.conf <<CONF
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1 $inner
  }
}
service auth {
  inet_listener postfix {
    address = 127.0.0.1 $inner
  }
}
CONF
fi
exec dovecot -F
