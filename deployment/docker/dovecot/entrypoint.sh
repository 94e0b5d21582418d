#!/bin/bash
# Starts Dovecot in the foreground, configured from the environment:
#   MAIL_HOSTNAME      the name of this server, in its certificate
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
exec dovecot -F
