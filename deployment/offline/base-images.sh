#!/bin/bash
# Makes the base images that the Dockerfiles and docker-compose.yml name, on a host that reaches no image registry.
#
# An image that is there is kept. One that can be pulled is pulled. Of the rest a stand-in is built under the very same
# name, from Debian's packages and the Rust toolchain of this host, so that nothing else has to know. README.md beside
# this file says what the stand-ins are and are not.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
# Stand-ins carry this label; `remove` takes away nothing else.
label=emailclient.stand-in

pull=yes
host_ca=auto
while [ $# -gt 0 ]; do
  case $1 in
    --no-pull) pull=no ;;
    --host-ca) host_ca=yes ;;
    --no-host-ca) host_ca=no ;;
    --remove) docker image ls -q --filter "label=$label" | sort -u | xargs -r docker image rm -f; exit ;;
    *)
      echo "usage: $0 [--no-pull] [--host-ca|--no-host-ca] [--remove]" >&2
      exit 2
      ;;
  esac
  shift
done

say() { echo "base images: $*"; }
die() { echo "base images: $*" >&2; exit 1; }

# The defaults of `ARG NAME_IMAGE=` and the `image:` lines are the only places where the names are written. Images of
# our own are built, not pulled.
wanted() {
  sed -n 's/^ARG [A-Z]*_IMAGE=//p' "$top"/deployment/docker/*/Dockerfile
  sed -n 's/^ *image: *\([a-z][a-z0-9.\/-]*:[a-z0-9.-]*\) *$/\1/p' "$top/docker-compose.yml"
}

there() { docker image inspect "$1" >/dev/null 2>&1; }

need() {
  command -v "$1" >/dev/null && return
  command -v apt-get >/dev/null || die "$1 is missing; install the package $2"
  say "installing the package $2"
  local sudo=
  [ "$(id -u)" = 0 ] || sudo="sudo -n"
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
}

# What Debian's own slim images leave out.
slim=(
  --dpkgopt=path-exclude=/usr/share/man/*
  --dpkgopt=path-exclude=/usr/share/doc/*
  --dpkgopt=path-include=/usr/share/doc/*/copyright
  --dpkgopt=path-exclude=/usr/share/info/*
  --dpkgopt=path-exclude=/usr/share/locale/*
  --dpkgopt=path-exclude=/usr/share/lintian/*
)

# debian_image NAME PACKAGES [OPTION…]: DEBIAN_MIRROR replaces deb.debian.org where a company has its own.
debian_image() {
  local name=$1 packages=$2
  shift 2
  need mmdebstrap mmdebstrap
  mmdebstrap --quiet --variant=minbase --include="$packages" "${slim[@]}" \
    --aptopt='APT::Install-Recommends "false"' "$@" bookworm - ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} |
    docker import -c "LABEL $label=true" -c 'CMD ["/bin/bash"]' -c 'ENV PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
      - "$name" >/dev/null
}

# Behind an inspecting proxy the builder must trust what this host trusts, or cargo fails with "self-signed certificate
# in certificate chain". Only the image that compiles gets it; nothing of it reaches the images that run.
host_ca_wanted() {
  case $host_ca in
    auto) compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null ;;
    *) [ "$host_ca" = yes ] ;;
  esac
}

rust_image() {
  local name=$1 version sysroot
  command -v rustc >/dev/null || die "$name: a Rust toolchain is needed on this host (rustup)"
  version=$(rustc --version | cut -d ' ' -f 2)
  case $name in
    rust:"${version%.*}"-*) ;;
    *) die "$name: this host has Rust $version; install the version of the name (rustup toolchain install)" ;;
  esac
  sysroot=$(rustc --print sysroot)
  local hooks=(
    --customize-hook="tar -C '$sysroot' --exclude=./share/doc --exclude=./share/man --exclude=./lib/rustlib/src -cf - . | tar -C \"\$1/usr/local\" --no-same-owner -xf -"
  )
  if host_ca_wanted; then
    say "$name: trusts the authorities of this host (leave them out with --no-host-ca)"
    # shellcheck disable=SC2016 # mmdebstrap's shell fills in $1, the root of the image
    hooks+=(--customize-hook='cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"')
  fi
  debian_image "$name" ca-certificates,gcc,libc6-dev,pkg-config "${hooks[@]}"
}

server_image() {
  there debian:bookworm-slim || debian_image debian:bookworm-slim ca-certificates
  docker build --quiet --label "$label=true" --tag "$1" "$here/$2" >/dev/null
}

provide() {
  local name=$1 began=$SECONDS how
  if there "$name"; then
    how="there already"
    [ -z "$(docker image ls -q --filter "label=$label" "$name")" ] || how="there already, a stand-in"
  elif [ "$pull" = yes ] && timeout "${PULL_TIMEOUT:-300}" docker pull --quiet "$name" >/dev/null 2>&1; then
    how=pulled
  else
    how="cannot be pulled; stand-in built from Debian's packages"
    case $name in
      debian:bookworm-slim) debian_image "$name" ca-certificates ;;
      rust:*-slim-bookworm) rust_image "$name" ;;
      postgres:*) server_image "$name" postgres ;;
      redis:*) server_image "$name" redis ;;
      *) die "$name: neither here, nor to be pulled, and there is no recipe for a stand-in" ;;
    esac
  fi
  say "$name: $how ($(docker image inspect --format '{{.Size}}' "$name" | awk '{ printf "%d MB", $1 / 1e6 }'), $((SECONDS - began)) s)"
}

docker version >/dev/null 2>&1 || die "no Docker engine answers; start it, or join the group docker"
while read -r name; do
  provide "$name"
done < <(wanted | sort -u)
