"""The stack of docker-compose.yml as the test sees it: started, watched, measured, taken down."""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
PROJECT = "emailclient-test"
NETWORK = "emailclient-net"
# The names that docker-compose.yml gives the ports it publishes, and where it publishes them.
PORTS = {
    "API_PORTS": 5000,
    "POSTGRES_PORT": 5433,
    "REDIS_PORT": 6379,
    "SMTP_PORT": 25,
    "SUBMISSION_PORT": 587,
    "SUBMISSIONS_PORT": 465,
    "IMAP_PORT": 143,
    "IMAPS_PORT": 993,
    "POP3_PORT": 110,
    "POP3S_PORT": 995,
}


class Failed(Exception):
    """The stack is not as it should be; the words are for the person who ran the test."""


def run(*command, stdin=None, check=True, env=None, quiet=True):
    """Runs a command and gives back what it printed; its error output goes into the exception."""
    done = subprocess.run(
        [str(word) for word in command],
        input=stdin,
        text=True,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.PIPE if quiet else None,
        env=env,
        cwd=TOP,
        check=False,
    )
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout or "").strip()
        raise Failed(f"{' '.join(str(word) for word in command)} ended with {done.returncode}\n{said}")
    return done.stdout or ""


def settings_of_compose():
    """The names that the compose file and the services read: what an operator may have set for another stack."""
    names = set(re.findall(r"\$\{([A-Z_]+)", (TOP / "docker-compose.yml").read_text()))
    names |= set(re.findall(r"^#? ?([A-Z_]+)=", (TOP / ".env.example").read_text(), re.MULTILINE))
    return names


def environment(own):
    """This process's environment without what the operator says of a stack, and with what the test says of its own."""
    strange = settings_of_compose()
    kept = {n: v for n, v in os.environ.items() if n not in strange and not n.startswith("COMPOSE_")}
    return {**kept, **own}


def is_free(port):
    """Whether nobody listens on this port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def any_free():
    """A port that the kernel chooses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stack:
    """One project of its own, with secrets of its own in a temporary folder."""

    def __init__(self):
        self.secrets = Path(tempfile.mkdtemp(prefix="emailclient-secrets-"))
        self.ports = {name: port if is_free(port) else any_free() for name, port in PORTS.items()}
        self.command = [TOP / "deployment/stack/compose.sh"]
        # The operator's .env is for the operator's stack; this one has its own.
        self.env_file = self.secrets / "own.env"
        self.dot_env()
        self.env = environment(
            {
                **{name: str(port) for name, port in self.ports.items()},
                "STACK_ENV_FILE": str(self.env_file),
                "COMPOSE_FILE": "docker-compose.yml",
                "COMPOSE_PROJECT_NAME": PROJECT,
                "SECRETS_DIR": str(self.secrets),
                "MAIL_DOMAINS": "lab.test",
                "MAIL_HOSTNAME": "mail.lab.test",
                "MAIL_OUTSIDE": "catch:catchall",
                # What docker-compose.yml allows, and servers that a test puts beside them.
                "OUTBOUND_ALLOW": "dovecot:143,dovecot:993,postfix:465,postfix:587,172.25.0.0/16:993",
            }
        )

    def dot_env(self, **settings):
        """What the .env of this stack says, and nothing else."""
        self.env_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def prepare(self, build=True):
        """Base images, secrets, and our own images. The long part."""
        if run("docker", "network", "ls", "-q", "--filter", f"name=^{NETWORK}$").strip():
            raise Failed(f"the network {NETWORK} exists: another stack runs on this engine; take it down first")
        run(TOP / "deployment/stack/secrets.sh", self.secrets)
        if build:
            run(TOP / "deployment/offline/base-images.sh", quiet=False)
            # The other services have the image of email-service.
            run(*self.command, "build", "email-service", "postfix", "dovecot", env=self.env, quiet=False)

    def compose(self, *words, **options):
        """Any command of docker-compose on this project."""
        return run(*self.command, *words, env=self.env, **options)

    def ctl(self, *words, stdin=None):
        """`emailctl` in a container of its own, as an operator runs it."""
        return self.compose("run", "--rm", "-T", "emailctl", *words, stdin=stdin).strip()

    def database(self, *words):
        """database.sh, as `make db-backup` and `make db-restore` run it."""
        return run(TOP / "deployment/stack/database.sh", *words, env=self.env)

    def containers(self):
        """What the engine says of each container of the project."""
        ids = run("docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={PROJECT}").split()
        return json.loads(run("docker", "inspect", *ids)) if ids else []

    def services(self):
        """Pairs of a service's name and its container, those that `run` left aside."""
        for container in self.containers():
            labels = container["Config"]["Labels"]
            if labels.get("com.docker.compose.oneoff") != "True":
                yield labels["com.docker.compose.service"], container

    def wait_healthy(self, seconds=120):
        """Until every container is healthy and those without a check have ended well."""
        until = time.monotonic() + seconds
        while True:
            waiting = {}
            for name, container in self.services():
                state = container["State"]
                health = state.get("Health", {}).get("Status")
                if health is None and state["Status"] == "exited" and state["ExitCode"] == 0:
                    continue
                if state["Status"] != "running" or health != "healthy":
                    waiting[name] = f"{state['Status']}, {health}"
            if not waiting:
                return
            if time.monotonic() > until:
                logs = self.compose("logs", "--no-color", "--tail", "30", *waiting, check=False)
                raise Failed(f"not healthy after {seconds} s: {waiting}\n{logs}")
            time.sleep(0.3)

    def api_urls(self):
        """Where the copies of email-service are published, one address each."""
        urls = []
        for name, container in self.services():
            if name == "email-service":
                published = container["NetworkSettings"]["Ports"].get("5000/tcp") or []
                urls += [f"http://127.0.0.1:{entry['HostPort']}" for entry in published]
        return sorted(urls)

    def ca_certificate(self):
        """The private authority that the mail servers' certificates come from."""
        return self.compose("exec", "-T", "postfix", "cat", "/mail-tls/ca.pem")

    def images(self):
        """Pairs of an image's name and its size in bytes."""
        names = sorted({container["Config"]["Image"] for _, container in self.services()})
        return [(name, int(run("docker", "image", "inspect", "-f", "{{.Size}}", name))) for name in names]

    def memory(self):
        """Pairs of a container's name and its memory in use, as the engine words it."""
        running = [c["Id"] for _, c in self.services() if c["State"]["Running"]]
        lines = run("docker", "stats", "--no-stream", "--format", "{{.Name}}\t{{.MemUsage}}", *running)
        return [tuple(line.split("\t")) for line in sorted(lines.splitlines())]

    def down(self):
        """Containers, networks, volumes and secrets go; images stay, which makes the next start quick."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "10", check=False)
        shutil.rmtree(self.secrets, ignore_errors=True)
