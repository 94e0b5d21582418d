# Everything a developer runs. `make help` lists the targets. Each installs what it needs by `deps` first.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -n)

# Debian's packages that the tests, the demo and the measurements start as private processes, and what proves each is
# there. The C compiler is for aws-lc and mimalloc, and links.
PACKAGES := \
  postgresql:/usr/lib/postgresql/*/bin/postgres \
  redis-server:/usr/bin/redis-server \
  dovecot-imapd:/usr/lib/dovecot/imap \
  dovecot-lmtpd:/usr/lib/dovecot/lmtp \
  postfix:/usr/sbin/postfix \
  isync:/usr/bin/mbsync \
  gcc:/usr/bin/gcc \
  libc6-dev:/usr/include/stdio.h \
  curl:/usr/bin/curl \
  ca-certificates:/usr/sbin/update-ca-certificates

# BUILD=release builds what the demo runs with all optimisation, which takes minutes; measurements always are so.
# Every target builds the whole workspace, so that all share one set of artefacts.
BUILD ?= debug
PROFILE_debug := dev
PROFILE_release := release
BIN = $(or $(CARGO_TARGET_DIR),target)/$(BUILD)

##@ Run

.PHONY: demo
demo: deps ## The whole product on this machine with two filled mailboxes; prints curl lines to try.
	$(CARGO) build --locked --profile $(PROFILE_$(BUILD)) --workspace --bins
	$(BIN)/devstack demo $(ARGS)

##@ Check

.PHONY: test
test: deps ## All tests, against real PostgreSQL, Redis, Dovecot and Postfix. ARGS="…" goes to cargo test.
	$(CARGO) build --locked --workspace --bins
	$(CARGO) test --locked --workspace --no-run
	$(or $(CARGO_TARGET_DIR),target)/debug/devstack run --no-fsync -- $(CARGO) test --locked --workspace $(ARGS)

.PHONY: lint
lint: build-deps ## Formatting, clippy with every warning an error, and cargo-deny where it is installed.
	@$(CARGO) clippy --version >/dev/null 2>&1 && $(CARGO) fmt --version >/dev/null 2>&1 || rustup component add clippy rustfmt
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
	  $(CARGO) deny --locked check; \
	else \
	  echo "cargo-deny is not installed: licences and advisories were not checked (cargo install cargo-deny)"; \
	fi

.PHONY: bench
bench: BUILD = release
bench: deps ## Measurements against mbsync and by the clock, as a table and as JSON. Release build: takes minutes.
	$(CARGO) build --locked --profile $(PROFILE_$(BUILD)) --workspace --bins
	$(BIN)/devstack bench $(ARGS)

##@ Build

.PHONY: build
build: build-deps ## All programs, optimised, into target/release.
	$(CARGO) build --locked --release --workspace --bins

.PHONY: fmt
fmt: ## Formats every source file.
	$(CARGO) fmt --all

.PHONY: clean
clean: ## Deletes what was built.
	$(CARGO) clean

##@ Set up

.PHONY: deps
deps: ## Installs the Debian packages that are missing; as root or through sudo; starts no daemon.
	@$(call install,$(PACKAGES))

# Building needs a compiler only, no servers.
.PHONY: build-deps
build-deps:
	@$(call install,$(filter gcc:% libc6-dev:%,$(PACKAGES)))

.PHONY: help
help: ## This list.
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo

# A package is missing when the file after its colon is. Packages start their daemons when installed, unless
# policy-rc.d says no: ours is put there for the time of the installation, and a foreign one is left alone.
define install
missing=; \
for entry in $(1); do \
  compgen -G "$${entry#*:}" >/dev/null || missing="$$missing $${entry%%:*}"; \
done; \
[ -n "$$missing" ] || exit 0; \
command -v apt-get >/dev/null || { echo "please install:$$missing" >&2; exit 1; }; \
[ -z "$(SUDO)" ] || command -v sudo >/dev/null || { echo "run as root, or install:$$missing" >&2; exit 1; }; \
echo "installing$$missing"; \
policy=/usr/sbin/policy-rc.d; \
if [ ! -e $$policy ]; then \
  trap '$(SUDO) rm -f '$$policy EXIT; \
  printf '#!/bin/sh\nexit 101\n' | $(SUDO) tee $$policy >/dev/null; \
  $(SUDO) chmod 755 $$policy; \
fi; \
printf 'postfix postfix/main_mailer_type select Local only\npostfix postfix/mailname string localhost\n' | \
  $(SUDO) debconf-set-selections 2>/dev/null || true; \
$(SUDO) apt-get update -qq || echo "apt-get update failed; trying with the lists that are there" >&2; \
$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing
endef
