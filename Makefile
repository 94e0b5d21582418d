# Everything a developer or an operator runs. `make help` lists the targets. Those that run on this machine install what
# they need by `deps` first; those that run in containers need a Docker engine with Compose (1.29 or 2).

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
  kubernetes-client:/usr/bin/kubectl \
  ca-certificates:/usr/sbin/update-ca-certificates

# What the tests need beside those: a browser for the explorer's page, and Python, by which they install schemathesis.
TEST_PACKAGES := \
  chromium:/usr/bin/chromium \
  nodejs:/usr/bin/node \
  prometheus:/usr/bin/prometheus \
  python3-venv:/usr/lib/python3*/ensurepip/__init__.py

# BUILD=release builds what the demo runs with all optimisation, which takes minutes; measurements always are so.
# Unoptimised, every target builds the whole workspace, so that all share one set of artefacts. Optimised, the four
# programs are links to one, as in the image: what they share is optimised once.
BUILD ?= debug
BIN = $(or $(CARGO_TARGET_DIR),target)/$(BUILD)
PROGRAMS := emailclient-api emailclient-worker emailclient-scheduler emailctl
build_debug = $(CARGO) build --locked --workspace --bins
build_release = $(CARGO) build --locked --release -p emailclient -p devstack && for name in $(PROGRAMS); do ln -sf emailclient $(BIN)/$$name; done

# Containers. compose.sh chooses the stack (COMPOSE_FILE, COMPOSE_PROJECT_NAME, .env) and the Compose that is called, for
# everything here: see deployment/stack/lib.sh.
STACK := deployment/stack/compose.sh
EMAILCTL = $(STACK) run --rm -T emailctl
TAG ?= $(shell $(STACK) --setting TAG latest)
export TAG
IMAGES := email-service postfix dovecot
# Of development, and of the steps on the way to an image: not pushed.
OWN_IMAGES = $(IMAGES:%=emailclient/%:$(TAG)) emailclient/email-service-dev:$(TAG)
# Every copy of the API that runs.
API_URLS ?= $(shell $(STACK) --api)
BACKUPS ?= backups

# What cannot be undone asks, unless YES=1.
define ask
[ "$(YES)" = 1 ] || { read -r -p "$(1) [y/N] " answer </dev/tty && [[ "$$answer" == [yY]* ]]; } || { echo "nothing was done" >&2; exit 1; }
endef

##@ Run on this machine, without containers

.PHONY: demo
demo: servers ## The whole product with two filled mailboxes; prints curl lines to try.
	$(build_$(BUILD))
	$(BIN)/devstack demo $(ARGS)

##@ Run in containers

.PHONY: env-setup
env-setup: ## Makes .env and the secrets that are missing; keeps those that are there.
	@[ -e .env ] || { (umask 077 && sed -E '/change-me|^REDIS_URL=/s/^/# in deployment\/secrets: /' .env.example >.env) && echo "made .env"; }
	@deployment/stack/secrets.sh

.PHONY: dev
dev: ## The local stack: source mounted and rebuilt on change, debug logs, Mailpit where it can be pulled.
	deployment/stack/up.sh dev

.PHONY: up
up: ## The staging stack, as in production: images built, started, the API's address printed.
	deployment/stack/up.sh staging

.PHONY: stop
stop: ## Stops all containers; nothing is deleted.
	$(STACK) stop

.PHONY: restart
restart: ## Restarts the services, or one: SERVICE=worker.
	$(STACK) restart $(or $(SERVICE),email-service worker scheduler)

.PHONY: down
down: ## Removes the containers and the network; volumes stay.
	$(STACK) --dev down --remove-orphans

.PHONY: ps
ps: ## The containers and their health.
	@$(STACK) ps

.PHONY: health
health: ## What the API says of itself, its database and Redis.
	@[ -n "$(API_URLS)" ] || { echo "no API runs here"; exit 1; }
	@for url in $(API_URLS); do curl -fsS $$url/health && echo || exit 1; done

##@ Logs (they follow; Ctrl-C ends)

.PHONY: logs logs-email logs-worker logs-scheduler logs-db logs-redis logs-postfix logs-dovecot
logs: ## All containers.
	$(STACK) logs -f --tail=100
logs-email: ## The API.
	$(STACK) logs -f --tail=100 email-service
logs-worker: ## The workers.
	$(STACK) logs -f --tail=100 worker
logs-scheduler: ## The scheduler.
	$(STACK) logs -f --tail=100 scheduler
logs-db: ## PostgreSQL.
	$(STACK) logs -f --tail=100 postgres
logs-redis: ## Redis.
	$(STACK) logs -f --tail=100 redis
logs-postfix: ## Postfix.
	$(STACK) logs -f --tail=100 postfix
logs-dovecot: ## Dovecot.
	$(STACK) logs -f --tail=100 dovecot

##@ Shells in containers

.PHONY: shell-app shell-db shell-redis
shell-app: ## A shell beside the API, in its network and process namespaces: its own image has none.
	container=$$($(STACK) ps -q email-service | head -n 1); \
	docker run --rm -it --user 1000:1000 --volumes-from "$$container" --network "container:$$container" \
	  --pid "container:$$container" debian:bookworm-slim bash
shell-db: ## psql as the owner of the database.
	$(STACK) exec postgres psql -U emailclient emailclient_db
shell-redis: ## redis-cli, logged in.
	$(STACK) exec redis sh -c 'REDISCLI_AUTH="$$(cat /run/secrets/redis_password)" redis-cli'

##@ Check

.PHONY: test
test: deps ## All tests, against real PostgreSQL, Redis, Dovecot and Postfix. ARGS="…" goes to cargo test.
	$(build_debug)
	$(CARGO) test --locked --workspace --no-run
	$(or $(CARGO_TARGET_DIR),target)/debug/devstack run --no-fsync -- $(CARGO) test --locked --workspace $(ARGS)

.PHONY: test-readers
test-readers: build-deps ## Each reader of mail on random input for a minute, all at once; SECONDS= chooses how long.
	READER_SECONDS=$(or $(SECONDS),60) $(CARGO) test --locked -p emailclient-mail --lib readers:: -- --nocapture

.PHONY: test-random
test-random: deps ## A second mail client does 10,000 random things while a worker synchronises; STEPS= and SEED= choose others.
	$(build_debug)
	$(CARGO) test --locked --workspace --no-run
	RANDOM_STEPS=$(or $(STEPS),10000) $(if $(SEED),RANDOM_SEED=$(SEED)) $(or $(CARGO_TARGET_DIR),target)/debug/devstack run --no-fsync -- \
	  $(CARGO) test --locked --workspace --test sync random:: -- --nocapture

.PHONY: test-faults
test-faults: deps ## The same and our own user at once, over a line whose faults come and go, for an hour; MINUTES= and SEED= choose others.
	$(CARGO) build --locked --workspace --bins
	$(CARGO) test --locked --workspace --no-run
	FAULT_MINUTES=$(or $(MINUTES),60) $(if $(SEED),RANDOM_SEED=$(SEED)) $(or $(CARGO_TARGET_DIR),target)/debug/devstack run --no-fsync -- \
	  $(CARGO) test --locked --workspace --test sync faults:: -- --nocapture

.PHONY: test-doors
test-doors: deps ## 10,000 random changes beside workers that are killed and a PostgreSQL that crashes: stream, webhook and changes tell the same; STEPS= and SEED= choose others.
	$(build_debug)
	$(CARGO) test --locked --workspace --no-run
	DOOR_STEPS=$(or $(STEPS),10000) $(if $(SEED),RANDOM_SEED=$(SEED)) $(or $(CARGO_TARGET_DIR),target)/debug/devstack run --no-fsync -- \
	  $(CARGO) test --locked --workspace --test sync doors:: -- --nocapture

.PHONY: test-edits
test-edits: deps ## Our user's edits beside another client at random, in six modes, 200 plays of 300 steps each, AT_ONCE=4 of a mode at a time; SEEDS=, STEPS= and SEED= choose others.
	$(build_debug)
	$(CARGO) test --locked --workspace --no-run
	STEPS=$(or $(STEPS),300) SEEDS=$(or $(SEEDS),200) AT_ONCE=$(or $(AT_ONCE),4) $(if $(SEED),SEED=$(SEED)) \
	  $(or $(CARGO_TARGET_DIR),target)/debug/devstack run --no-fsync -- \
	  $(CARGO) test --locked --workspace --test sync plays:: -- --nocapture --test-threads 6

.PHONY: test-watch
test-watch: deps ## Runs tests again at every change, with the servers kept up: ARGS="-p tests --test api".
	@$(call install,entr:/usr/bin/entr)
	$(build_debug)
	$(or $(CARGO_TARGET_DIR),target)/debug/devstack run --no-fsync -- \
	  bash -c 'git ls-files crates tests migrations | entr -c sh -c "$(build_debug) && $(CARGO) test --locked $(or $(ARGS),--workspace)"'

.PHONY: test-health
test-health: ## Of the running stack: every container healthy, the API ready.
	@for container in $$($(STACK) ps -q); do \
	  docker inspect --format '{{.Name}} {{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}:{{.State.ExitCode}}{{end}}' "$$container"; \
	done | awk '{ print } $$2 !~ /^(healthy|exited:0)$$/ { bad = 1 } END { if (!NR || bad) { print "not all are healthy"; exit 1 } }'
	@[ -n "$(API_URLS)" ] || { echo "no API runs here"; exit 1; }
	@for url in $(API_URLS); do curl -fsS $$url/health/ready >/dev/null && echo "the API at $$url is ready" || exit 1; done

.PHONY: test-db
test-db: ## Of the running stack: settings, PostgreSQL, schema, walls between tenants, keys (emailctl check).
	@$(STACK) exec -T postgres pg_isready -h 127.0.0.1 -U emailclient -d emailclient_db
	@$(EMAILCTL) check

.PHONY: test-redis
test-redis: ## Of the running stack: Redis answers and evicts nothing.
	@$(STACK) exec -T redis sh -c 'REDISCLI_AUTH="$$(cat /run/secrets/redis_password)" redis-cli ping' | grep -x PONG
	@$(STACK) exec -T redis sh -c 'REDISCLI_AUTH="$$(cat /run/secrets/redis_password)" redis-cli info memory' | grep '^maxmemory_policy:noeviction'

.PHONY: test-stack
test-stack: ## Builds the images, starts the stack, runs the tour and restarts under traffic, measures, takes it down.
	deployment/stack/test_stack.py $(ARGS)

.PHONY: lint
lint: build-deps ## Formatting, clippy with every warning an error, cargo-deny: licences, bans and sources, advisories where their list is reached.
	@$(CARGO) clippy --version >/dev/null 2>&1 && $(CARGO) fmt --version >/dev/null 2>&1 || rustup component add clippy rustfmt
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked --quiet cargo-deny
	$(CARGO) fetch --locked --quiet
	$(CARGO) deny --log-level error --locked --offline check bans licenses sources
	@if timeout 120 $(CARGO) deny --log-level error fetch db >/dev/null 2>&1; then \
	  $(CARGO) deny --log-level error --locked check advisories; \
	else \
	  echo "the list of advisories is not reached from here: they were not checked"; \
	fi

.PHONY: bench
bench: BUILD = release
bench: servers ## Measurements against mbsync and by the clock, as tables and as JSON: half an hour (ARGS="--rows first-sync" for one row).
	$(build_$(BUILD))
	$(BIN)/devstack bench $(ARGS)

##@ Build

.PHONY: build build-email build-no-cache base-images binaries fmt clean
build: base-images ## All images of our own.
	$(STACK) --staging build
build-email: base-images ## The image of the API, the worker, the scheduler and emailctl.
	$(STACK) --staging build email-service
build-no-cache: base-images ## All images, from nothing.
	$(STACK) --staging build --no-cache
base-images: ## The images ours are made from: pulled, or stand-ins made here when no registry is reached.
	deployment/offline/base-images.sh
binaries: BUILD = release
binaries: build-deps ## All programs, optimised, into target/release.
	$(build_release)
fmt: ## Formats every source file.
	$(CARGO) fmt --all
clean: ## Removes the containers, if any run here, and deletes what was compiled. Volumes stay. Asks.
	@$(call ask,Remove the containers of the stack and delete what was compiled?)
	@if docker info >/dev/null 2>&1; then $(STACK) --dev down --remove-orphans; fi
	$(CARGO) clean

##@ Database of the running stack

.PHONY: db-migrate db-reset db-backup db-restore db-undo db-forget mail-backup
db-migrate: ## Brings roles and schema up to date.
	$(STACK) run --rm -T migrate
db-reset: ## Deletes all data of the database and starts with an empty schema. Asks.
	@$(call ask,Delete every tenant with all accounts and mail in emailclient_db?)
	deployment/stack/database.sh reset
db-backup: ## Writes a dump into BACKUPS=backups, or to FILE=.
	deployment/stack/database.sh backup "$(or $(FILE),$(BACKUPS)/emailclient_db-$$(date -u +%Y%m%dT%H%M%SZ).dump)"
db-restore: ## Replaces the database by the dump FILE=. Asks.
	@[ -n "$(FILE)" ] && [ -f "$(FILE)" ] || { echo "usage: make db-restore FILE=backups/….dump" >&2; exit 1; }
	@$(call ask,Replace emailclient_db by $(FILE)?)
	deployment/stack/database.sh restore "$(FILE)"
db-undo: ## After a restore or reset that did not come to its end: the data of before are the database again.
	deployment/stack/database.sh undo
db-forget: ## After such a one: deletes the data of before. Asks.
	@$(call ask,Delete emailclient_db_old?)
	deployment/stack/database.sh forget
mail-backup: ## Copies the mailboxes of our Dovecot into BACKUPS=backups, or to FILE=.
	deployment/stack/mailboxes.sh "$(or $(FILE),$(BACKUPS)/mail-$$(date -u +%Y%m%dT%H%M%SZ).tgz)"

##@ Tenants, users, mailboxes of the running stack

.PHONY: tenant-create user-create mailbox-create
tenant-create: ## TENANT=acme-corp NAME="Acme Corporation"
	@$(EMAILCTL) tenant create --slug "$(TENANT)" --name "$(or $(NAME),$(TENANT))"
user-create: ## TENANT=acme-corp EMAIL=me@acme.example ROLE=owner (else a member); the password is read from standard input.
	@$(EMAILCTL) user create --tenant "$(TENANT)" --email "$(EMAIL)" --role "$(or $(ROLE),member)"
mailbox-create: ## EMAIL=me@lab.test: a mailbox on our Dovecot; prints the password it made.
	@$(EMAILCTL) mailbox create "$(EMAIL)"

##@ Prune (asks, unless YES=1)

.PHONY: prune-images prune-volumes prune-all
prune-images: ## Deletes our images and layers that nothing uses.
	@$(call ask,Delete the images $(OWN_IMAGES) and dangling layers?)
	@for image in $(OWN_IMAGES); do \
	  if docker image inspect $$image >/dev/null 2>&1; then docker image rm $$image; fi; \
	done
	docker image prune -f
prune-volumes: ## Removes the containers and deletes all their volumes: every mailbox, every database.
	@$(call ask,Delete all volumes of the stack with the database and all mail?)
	$(STACK) --dev down --volumes --remove-orphans
prune-all: ## Both.
	@$(call ask,Delete the stack with its volumes and its images?)
	@$(MAKE) --no-print-directory YES=1 prune-volumes prune-images

##@ Continuous integration

.PHONY: ci-build ci-test ci-push
ci-build: build ## The images, tagged TAG=.
ci-test: ## What every change must pass: .ci/run.
	.ci/run
ci-push: ## Tags the images for REGISTRY= and pushes them. Needs a registry and a login.
	@[ -n "$(REGISTRY)" ] || { echo "usage: make ci-push REGISTRY=registry.example/team TAG=1.2.3" >&2; exit 1; }
	for image in $(IMAGES); do \
	  docker tag "emailclient/$$image:$(TAG)" "$(REGISTRY)/$$image:$(TAG)"; \
	  docker push "$(REGISTRY)/$$image:$(TAG)"; \
	done

##@ Kubernetes

.PHONY: k8s-render
k8s-render: ## The manifests as they would be applied: OVERLAY=staging or production.
	@$(call install,$(filter kubernetes-client:%,$(PACKAGES)))
	@kubectl kustomize deployment/kubernetes/overlays/$(or $(OVERLAY),production)
.PHONY: k8s-test
k8s-test: deps ## The checks of the manifests alone (make test has them too); needs no cluster.
	$(CARGO) test --locked -p tests --test schema kubernetes

##@ Set up

.PHONY: deps servers
deps: ## Installs the Debian packages that are missing; as root or through sudo; starts no daemon.
	@$(call install,$(PACKAGES) $(TEST_PACKAGES))

# Measurements and the demo need no browser.
servers:
	@$(call install,$(PACKAGES))

# Building needs a compiler only, no servers.
.PHONY: build-deps
build-deps:
	@$(call install,$(filter gcc:% libc6-dev:%,$(PACKAGES)))

.PHONY: help
help: ## This list.
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
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
