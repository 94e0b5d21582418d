"""Each service is restarted under light traffic, one at a time. Nothing that was accepted may be lost or come twice."""

import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field

from engine import Failed
from rest import NoAnswer

# One after another, those first on which most depends last.
ORDER = ["scheduler", "worker", "dovecot", "postfix", "redis", "postgres", "email-service"]
# What a client may see while a service restarts: `None` is a connection without an answer. The API does without Redis,
# and neither workers nor mail servers are in a request's way.
ALLOWED = {"postgres": {503}, "email-service": {None, 503}}
BETWEEN_SENDS_SECONDS = 0.7
BETWEEN_READS_SECONDS = 0.2


@dataclass
class Traffic:
    """One sender and one reader, until told to stop."""

    client: object
    find_url: object
    account: str
    recipient: str
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    phase: str = "before the restarts"
    accepted: list = field(default_factory=list)
    reads: int = 0
    failures: list = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def start(self):
        """Begins; `stop` waits for what is in hand."""
        self.threads = [threading.Thread(target=loop, daemon=True) for loop in (self._send, self._read)]
        for thread in self.threads:
            thread.start()

    def stop(self):
        """Ends both, after the last mail was accepted."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(120)
            if thread.is_alive():
                raise Failed("the traffic does not come to its end: the API accepts nothing any more")

    def _ask(self, *request, **options):
        """The answer, or `None` after a note of what was answered instead."""
        try:
            status, answer = self.client.ask(*request, **options)
        except NoAnswer as error:
            self.failures.append((self.phase, None, str(error)))
            # A restarted copy can have another port.
            self.client.url = self.find_url() or self.client.url
            return None
        if 200 <= status < 300:
            return answer
        self.failures.append((self.phase, status, str(answer)[:200]))
        return None

    def _insist(self, path, body, key):
        """As a careful client does: the same request under the same key until there is an answer."""
        while True:
            answer = self._ask("POST", path, body, headers={"Idempotency-Key": key})
            if answer is not None:
                return answer
            time.sleep(0.5)

    def _send(self):
        number = 0
        while not self.stopping.is_set():
            number += 1
            subject = f"restart {self.run} {number}"
            body = {"account_id": self.account, "to": [self.recipient], "subject": subject, "text": subject}
            draft = self._insist("/api/compose", body, f"{subject} draft")
            submission = self._insist(f"/api/compose/{draft['id']}/send", {}, f"{subject} send")
            self.accepted.append((subject, submission["id"]))
            self.stopping.wait(BETWEEN_SENDS_SECONDS)

    def _read(self):
        while not self.stopping.is_set():
            if self._ask("GET", f"/api/accounts/{self.account}/messages?limit=5") is not None:
                self.reads += 1
            self.stopping.wait(BETWEEN_READS_SECONDS)


def restart_each(stack, traffic):
    """Restarts all services in turn; gives back the seconds from the command until all was healthy."""
    took = {}
    for service in ORDER:
        traffic.phase = service
        began = time.monotonic()
        stack.compose("restart", service)
        stack.wait_healthy()
        took[service] = time.monotonic() - began
        # What the restart broke has been retried by then.
        time.sleep(3)
    traffic.phase = "after the restarts"
    return took


def check_failures(traffic):
    """Every error must be one of the service that was restarted at that moment."""
    wrong = [f for f in traffic.failures if f[1] not in ALLOWED.get(f[0], set())]
    if wrong:
        raise Failed("errors that no restart excuses:\n" + "\n".join(f"  {f}" for f in wrong[:20]))
    return Counter((phase, "no answer" if status is None else status) for phase, status, _ in traffic.failures)


def check_arrivals(traffic, mail, seconds=180):
    """Every accepted mail is in the recipient's inbox on the server, once."""
    wanted = {subject for subject, _ in traffic.accepted}
    until = time.monotonic() + seconds
    while True:
        there = Counter(s for s in mail.subjects(traffic.recipient) if s in wanted)
        missing = wanted - there.keys()
        if not missing:
            break
        if time.monotonic() > until:
            states = [
                (subject, traffic.client.call("GET", f"/api/submissions/{submission}"))
                for subject, submission in traffic.accepted
                if subject in missing
            ]
            raise Failed(f"{len(missing)} of {len(wanted)} accepted mails did not arrive: {states[:5]}")
        time.sleep(1)
    # Time for a second copy that was still under way.
    time.sleep(5)
    twice = {s: n for s, n in Counter(mail.subjects(traffic.recipient)).items() if s in wanted and n > 1}
    if twice:
        raise Failed(f"mails that arrived more than once: {twice}")


def check_states(traffic, seconds=60):
    """The submissions know it, too."""
    until = time.monotonic() + seconds
    waiting = dict(traffic.accepted)
    states = Counter()
    while waiting:
        for subject, submission in list(waiting.items()):
            state = traffic.client.call("GET", f"/api/submissions/{submission}")["state"]
            if state == "sent":
                states[state] += 1
                del waiting[subject]
            elif time.monotonic() > until:
                raise Failed(f"{subject} has arrived, but its submission is {state} after {seconds} s")
        time.sleep(0.5)
    return states
