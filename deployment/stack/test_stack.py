#!/usr/bin/env -S python3 -B
"""make test-stack: the stack in containers, from nothing to its end.

On an engine without images the base images are pulled or, where no registry is reached, built by deployment/offline.
Then: the images, the start, who reaches whom, the README's tour through the published port, each service restarted under
traffic, a backup and its restore, the figures, two copies of the API and three workers, and everything taken down.
Needs Python 3.9, Docker, docker-compose.
"""

import argparse
import signal
import sys
import time

import backups
import restarts
import tour
import walls
from engine import Failed, Stack
from postbox import Mail
from rest import TENANT, Client

USER, PASSWORD = "admin@acme-corp.test", "correct-horse-battery-staple"
MAILBOXES = ("alice@lab.test", "bob@lab.test", "catchall@lab.test")
FILLED = 40
# What the issue of the images promises, in bytes.
LARGEST_IMAGE = 60_000_000


def say(text):
    """One line of the report, as it happens."""
    print(f"test-stack: {text}", flush=True)


def start(stack):
    """Up, and the time until every container is healthy."""
    began = time.monotonic()
    stack.compose("up", "-d")
    stack.wait_healthy()
    say(f"all healthy {time.monotonic() - began:.1f} s after `up`")


def log_in(stack):
    """A client of the API, logged in."""
    client = Client(stack.api_urls()[0])
    client.log_in(USER, PASSWORD)
    return client


def set_up(stack):
    """A tenant, a user and two mailboxes, by emailctl; gives back the logged-in client and the mailboxes."""
    stack.ctl("check")
    stack.ctl("tenant", "create", "--slug", TENANT, "--name", "Acme Corp")
    stack.ctl("tenant", "limits", TENANT, "--per-minute", "0", "--per-hour", "0")
    stack.ctl("user", "create", "--tenant", TENANT, "--email", USER, stdin=f"{PASSWORD}\n")
    passwords = {a: stack.ctl("mailbox", "create", a) for a in MAILBOXES}
    mail = Mail(stack.ports, stack.ca_certificate(), passwords)
    # Dovecot looks once a second whether the file of mailboxes has changed.
    time.sleep(1.5)
    mail.fill("alice@lab.test", FILLED)
    return log_in(stack), mail


def check_restarts(stack, client, mail, account):
    """Under traffic."""

    def url():
        return next(iter(stack.api_urls()), None)

    traffic = restarts.Traffic(client, url, account, "bob@lab.test")
    traffic.start()
    time.sleep(3)
    took = restarts.restart_each(stack, traffic)
    traffic.stop()
    for service, seconds in took.items():
        say(f"restarted {service}: all healthy again after {seconds:.1f} s")
    for (phase, what), count in sorted(restarts.check_failures(traffic).items(), key=str):
        say(f"errors while {phase} restarted: {count} × {what}")
    restarts.check_arrivals(traffic, mail)
    states = restarts.check_states(traffic)
    say(f"{len(traffic.accepted)} mails accepted, {states['sent']} sent, each arrived once; {traffic.reads} reads")


def check_scale(stack):
    """Copies beside each other, each reached on a port of its own, out of the range that docker-compose.yml has."""
    del stack.env["API_PORTS"]
    stack.compose("up", "-d", "--scale", "email-service=2", "--scale", "worker=3")
    stack.wait_healthy()
    urls = stack.api_urls()
    for url in urls:
        Client(url).call("GET", "/health/ready")
    if len(urls) != 2:
        raise Failed(f"two copies of email-service answer on {urls}")
    say(f"email-service=2 and worker=3: all healthy; {', '.join(urls)}")


def figures(stack):
    """Sizes and memory, and whether the image is as small as promised."""
    for name, size in stack.images():
        say(f"image {name}: {size / 1e6:.1f} MB")
    for name, memory in stack.memory():
        say(f"memory {name}: {memory}")
    size = max(size for name, size in stack.images() if "/email-service:" in name)
    if size > LARGEST_IMAGE:
        raise Failed(f"the image of the services has {size / 1e6:.1f} MB, more than {LARGEST_IMAGE / 1e6:.0f}")


def main():
    """Exit code 0 when all of it went well."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--no-build", action="store_true", help="the images are there; do not build them")
    parser.add_argument("--keep", action="store_true", help="leave the stack running at the end")
    arguments = parser.parse_args()
    # A polite kill takes the stack down, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stack = Stack()
    try:
        stack.prepare(build=not arguments.no_build)
        start(stack)
        client, mail = set_up(stack)
        wrong = mail.refuses()
        if wrong:
            raise Failed(f"the mail servers are not shut: {'; '.join(wrong)}")
        say("the mail servers refuse what they must")
        walls.check_networks(stack)
        say("each network has what it is for, and LMTP and the judging of log-ins are Postfix's alone")
        walls.check_authority(stack, client)
        say("a server of another authority was refused, until TLS_EXTRA_CA_FILE of .env named that authority")
        tour.check_outside(mail)
        say("mail for another domain ended in the mailbox that catches it; POP3 has it, too")
        account = tour.take(client, mail, FILLED)
        say("the tour went through")
        check_restarts(stack, client, mail, account)
        size = backups.check(stack, client, account, lambda: log_in(stack))
        say(f"a backup of {size} bytes was restored; half a dump stopped nothing; what was broken off was taken back")
        figures(stack)
        check_scale(stack)
        say("passed")
        return 0
    except (Failed, AssertionError) as error:
        say(f"FAILED: {error}")
        return 1
    finally:
        if arguments.keep:
            say(f"left running; COMPOSE_PROJECT_NAME=emailclient-test SECRETS_DIR={stack.secrets}")
        else:
            stack.down()


if __name__ == "__main__":
    sys.exit(main())
