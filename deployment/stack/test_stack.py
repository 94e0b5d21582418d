#!/usr/bin/env -S python3 -B
"""make test-stack: the stack in containers, from nothing to its end.

On an engine without images the base images are pulled or, where no registry is reached, built by deployment/offline.
Then: the images, the start, who reaches whom, the README's tour through the published port, each service restarted under traffic, two
copies of the API and three workers, the figures, and everything taken down. Needs Python 3.9, Docker, docker-compose.
"""

import argparse
import signal
import sys
import time

import restarts
import tour
from engine import Failed, Stack, run
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
    client = Client(stack.api_urls()[0])
    client.log_in(USER, PASSWORD)
    return client, mail


def check_walls(stack):
    """Who reaches whom, tried from a stranger on each network."""
    image = next(container["Config"]["Image"] for name, container in stack.services() if name == "postfix")

    def reaches(network, host, port):
        attempt = f"timeout 5 bash -c '</dev/tcp/{host}/{port}' 2>/dev/null && echo yes || echo no"
        told = run("docker", "run", "--rm", "--network", network, "--entrypoint", "bash", image, "-c", attempt)
        return told.strip() == "yes"

    wanted = {
        ("emailclient-net", "dovecot", 143): True,
        ("emailclient-net", "dovecot", 24): False,
        ("emailclient-net", "dovecot", 12345): False,
        ("emailclient-net", "postgres", 5432): False,
        ("emailclient-net", "redis", 6379): False,
        ("emailclient-post", "dovecot-delivery", 24): True,
        ("emailclient-post", "postgres", 5432): False,
        ("emailclient-store", "postgres", 5432): True,
        ("emailclient-store", "dovecot", 24): False,
    }
    wrong = [f"{way}: {not right}" for way, right in wanted.items() if reaches(*way) != right]
    if wrong:
        raise Failed(f"the networks do not part what they should: {'; '.join(wrong)}")


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


def check_backup(stack, client, account):
    """A dump, a change after it, the dump put back: what was before is there, what came later is not."""
    dump = stack.secrets / "backup.dump"
    messages = f"/api/accounts/{account}/messages?limit=200"
    ids = {message["id"] for message in client.call("GET", messages)["data"]}
    stack.database("backup", dump)
    stack.ctl("tenant", "create", "--slug", "later")
    broken = stack.secrets / "broken.dump"
    broken.write_bytes(dump.read_bytes()[: dump.stat().st_size // 2])
    try:
        stack.database("restore", broken)
        raise AssertionError("half a dump was restored")
    except Failed:
        client.call("GET", messages)
    stack.database("restore", dump)
    stack.wait_healthy()
    client = Client(stack.api_urls()[0])
    client.log_in(USER, PASSWORD)
    restored = {message["id"] for message in client.call("GET", messages)["data"]}
    if not ids <= restored:
        raise Failed(f"{len(ids - restored)} of {len(ids)} messages are not in the restored database")
    # The tenant of after the backup is gone, so its name is free.
    stack.ctl("tenant", "create", "--slug", "later")
    say(f"backup of {dump.stat().st_size} bytes and restore: {len(ids)} messages compared; half a dump changed nothing")


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
        check_walls(stack)
        say("each network has what it is for, and LMTP and the judging of log-ins are Postfix's alone")
        tour.check_outside(mail)
        say("mail for another domain ended in the mailbox that catches it; POP3 has it, too")
        account = tour.take(client, mail, FILLED)
        say("the tour went through")
        check_restarts(stack, client, mail, account)
        check_backup(stack, client, account)
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
