"""A client of the REST API that keeps apart what was answered and what never arrived."""

import http.client
import json
from urllib.parse import urlsplit

TENANT = "acme-corp"


class NoAnswer(Exception):
    """The connection was refused, or broke before there was an answer."""


class Client:
    """One person, logged in. `url` may change: a restarted copy can have another port."""

    def __init__(self, url):
        self.url = url
        self.token = None

    def ask(self, method, path, body=None, headers=(), seconds=20):
        """Status and body of one request on a connection of its own."""
        send = {"X-Tenant-ID": TENANT, "Content-Type": "application/json", **dict(headers)}
        if self.token:
            send["Authorization"] = f"Bearer {self.token}"
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=seconds)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), send)
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()
        if answer.headers.get_content_type().endswith("json"):
            return answer.status, json.loads(text)
        return answer.status, text

    def call(self, method, path, body=None, headers=()):
        """The body of an answer that must be a success."""
        status, answer = self.ask(method, path, body, headers)
        if not 200 <= status < 300:
            raise AssertionError(f"{method} {path}: {status} {answer}")
        return answer

    def log_in(self, email, password):
        """As the README does it: with `Accept: text/plain` the answer is the bare token."""
        body = {"email": email, "password": password}
        self.token = self.call("POST", "/auth/login", body, {"Accept": "text/plain"}).strip()
