"""Who reaches whom, and whose certificates are trusted: tried by strangers beside the containers of the stack."""

import uuid

from engine import NETWORK, run
from tour import account, expect, until

STORE, POST = "emailclient-store", "emailclient-post"
# On which network a stranger stands, whom it tries, and which ports must answer there, or must not answer at any address that
# one has. By address: that a name is not known elsewhere is no wall.
WAYS = [
    (NETWORK, "dovecot", {143: True, 993: True, 24: False, 12345: False}),
    (NETWORK, "postfix", {25: True, 465: True}),
    (NETWORK, "postgres", {5432: False}),
    (NETWORK, "redis", {6379: False}),
    (POST, "dovecot", {24: True, 12345: True}),
    (POST, "postgres", {5432: False}),
    (POST, "redis", {6379: False}),
    (POST, "email-service", {5000: False}),
    (STORE, "postgres", {5432: True}),
    (STORE, "redis", {6379: True}),
    (STORE, "dovecot", {24: False, 12345: False}),
]
# Published on loopback, so not on the gateway, which is this host as its containers see it.
ON_LOOPBACK = ("POSTGRES_PORT", "REDIS_PORT", "API_PORTS")


def _answering(network, image, places):
    """Those of the places, each an address and a port, that take a connection from a new container on the network."""
    attempt = "(timeout 5 bash -c '</dev/tcp/{0}/{1}' && echo {0} {1}) 2>/dev/null &"
    script = "\n".join([*(attempt.format(*place) for place in places), "wait"])
    told = run("docker", "run", "--rm", "--network", network, "--entrypoint", "bash", image, "-c", script)
    return {(host, int(port)) for host, port in (line.split() for line in told.splitlines())}


def _wanted(containers, standing):
    """Each place that a stranger on this network tries, whose it is, and whether it must answer."""
    wanted = {}
    for _, service, ports in (way for way in WAYS if way[0] == standing):
        on = containers[service]["NetworkSettings"]["Networks"]
        for port, right in ports.items():
            places = [on[standing]] if right else on.values()
            wanted.update({(place["IPAddress"], port): (service, right) for place in places})
    return wanted


def check_networks(stack):
    """Each network has what it is for, and no more."""
    containers = dict(stack.services())
    gateway = containers["email-service"]["NetworkSettings"]["Networks"][NETWORK]["Gateway"]
    wrong = []
    for standing in (NETWORK, POST, STORE):
        wanted = _wanted(containers, standing)
        wanted.update({(gateway, stack.ports[name]): (name, False) for name in ON_LOOPBACK})
        answering = _answering(standing, containers["postfix"]["Config"]["Image"], wanted)
        wrong += [
            f"from {standing} {name} at {place[0]}:{place[1]} {'does not answer' if right else 'answers'}"
            for place, (name, right) in wanted.items()
            if (place in answering) != right
        ]
    expect(not wrong, f"the networks do not part what they should: {'; '.join(wrong)}")


def check_authority(stack, client):
    """A server of another authority: refused, and taken once TLS_EXTRA_CA_FILE of .env names that authority."""
    body = account(f"nobody-{uuid.uuid4().hex[:8]}@lab.test", "nobody's password")
    body["imap"]["host"] = "elsewhere"

    def refused_for():
        return client.call("POST", "/api/accounts/verify", body)["imap"]

    # Without the volume of the stack a Dovecot makes an authority of its own.
    image = dict(stack.services())["dovecot"]["Config"]["Image"]
    name = f"elsewhere-{uuid.uuid4().hex[:8]}"
    place = ("--network", NETWORK, "--network-alias", "elsewhere", "-e", "MAIL_HOSTNAME=elsewhere")
    run("docker", "run", "-d", "--name", name, *place, image)
    try:
        greets = 'greets.sh 143 "* OK" "a LOGOUT" && echo yes'
        until("a second Dovecot", 60, lambda: run("docker", "exec", name, "bash", "-c", greets, check=False))
        why = refused_for()
        expect("certificate was not accepted" in (why["text"] or ""), f"a server of an unknown authority: {why}")
        file = stack.secrets / "elsewhere.pem"
        file.write_text(run("docker", "exec", name, "cat", "/mail-tls/ca.pem"))
        file.chmod(0o444)
        stack.dot_env(TLS_EXTRA_CA_FILE=file)
        stack.compose("up", "-d", "--no-deps", "email-service")
        stack.wait_healthy()
        client.url = stack.api_urls()[0]
        why = refused_for()
        expect(why["code"] == "upstream-auth-failed", f"a server of an authority that .env names: {why}")
    finally:
        run("docker", "rm", "-f", "-v", name, check=False)
