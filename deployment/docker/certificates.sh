#!/bin/bash
# certificates.sh NAME HOST…: a server certificate for the hosts, of a private authority in the volume /mail-tls.
#
# The first container to start makes the authority. Each start renews what ends within 60 days or has other hosts.
# TLS_CERT_FILE and TLS_KEY_FILE name mounted files that are used instead. Prints the paths of certificate and key.
set -euo pipefail

dir=/mail-tls
name=$1
shift
hosts=$(printf 'DNS:%s\n' "$@" | sort -u | paste -sd ,)

# The keys are for root alone; ca.pem is for every service (TLS_EXTRA_CA_FILE).
umask 077
exec 9>"$dir/.lock"
flock 9

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

if [ ! -s "$dir/ca.pem" ]; then
  key "$dir/ca.key"
  openssl req -x509 -new -key "$dir/ca.key" -days 3650 -subj '/CN=emailclient private CA' \
    -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
    -out "$dir/ca.pem.new"
  chmod 644 "$dir/ca.pem.new"
  mv "$dir/ca.pem.new" "$dir/ca.pem"
fi

if [ -n "${TLS_CERT_FILE:-}" ]; then
  for file in "$TLS_CERT_FILE" "${TLS_KEY_FILE:?TLS_CERT_FILE is set, so TLS_KEY_FILE must be}"; do
    [ -r "$file" ] || { echo "$file cannot be read by root without capabilities: chown root, or chmod 444" >&2; exit 1; }
  done
  echo "$TLS_CERT_FILE $TLS_KEY_FILE"
  exit
fi

cert=$dir/$name.pem
is_good() {
  [ "$(cat "$dir/$name.hosts" 2>/dev/null)" = "$hosts" ] &&
    openssl x509 -in "$cert" -noout -checkend $((60 * 86400)) >/dev/null 2>&1 &&
    openssl verify -CAfile "$dir/ca.pem" "$cert" >/dev/null 2>&1
}
if ! is_good; then
  key "$dir/$name.key"
  openssl req -new -key "$dir/$name.key" -subj "/CN=$1" -out "$dir/$name.csr"
  openssl x509 -req -in "$dir/$name.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 397 \
    -extfile <(printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\nsubjectAltName=%s\n' "$hosts") \
    -out "$cert" 2>/dev/null
  rm "$dir/$name.csr"
  echo "$hosts" >"$dir/$name.hosts"
  echo "certificate for $hosts made, valid until $(openssl x509 -in "$cert" -noout -enddate | cut -d = -f 2)" >&2
fi
echo "$cert $dir/$name.key"
