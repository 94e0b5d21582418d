"""The README's tour, through the published port: each step is a request of a client, and what it must answer."""

import time
import uuid

from engine import Failed


def account(address, password, starttls=False):
    """An account on the servers of the stack, by their names in its network."""
    imap, smtp = ((143, 587) if starttls else (993, 465))
    security = "starttls" if starttls else "tls"
    login = {"security": security, "username": address, "password": password}
    return {
        "email": address,
        "name": address.partition("@")[0].title(),
        "imap": {"host": "dovecot", "port": imap, **login},
        "smtp": {"host": "postfix", "port": smtp, **login},
    }


def until(what, seconds, question):
    """The first true answer to `question`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = question()
        if answer:
            return answer
        time.sleep(0.3)
    raise Failed(f"{what}: not within {seconds} s")


def expect(fact, words):
    """Fails with `words` unless `fact`."""
    if not fact:
        raise Failed(words)


def _send(client, sender, recipient, subject):
    body = {"account_id": sender, "to": [recipient], "subject": subject, "text": "It works."}
    draft = client.call("POST", "/api/compose", body)
    submission = client.call("POST", f"/api/compose/{draft['id']}/send", {})
    return submission["id"]


def take(client, mail, filled):
    """Everything after the log-in, up to the arrival; gives back the id of Alice's account."""
    health = client.call("GET", "/health")
    expect(health["status"] == "ok", f"/health says {health}")
    me = client.call("GET", "/auth/me")
    expect(me["user"]["email"].startswith("admin@"), f"/auth/me says {me}")

    alice, bob = "alice@lab.test", "bob@lab.test"
    ids = [
        client.call("POST", "/api/accounts", account(alice, mail.passwords[alice]))["id"],
        client.call("POST", "/api/accounts", account(bob, mail.passwords[bob], starttls=True))["id"],
    ]
    status, answer = client.ask("POST", "/api/accounts", account("eve@lab.test", "not the password"))
    expect(status == 422, f"an account with a wrong password: {status} {answer}")

    for each in ids:
        client.call("POST", f"/api/sync/imap/{each}")
        until(
            "synchronisation",
            60,
            lambda each=each: client.call("GET", f"/api/sync/status/{each}")["run"]["state"] == "done",
        )
    roles = {box["role"] for box in client.call("GET", f"/api/accounts/{ids[0]}/mailboxes")["data"]}
    expect({"inbox", "sent", "drafts", "trash"} <= roles, f"the mailboxes have the roles {roles}")

    page = client.call("GET", f"/api/accounts/{ids[0]}/messages?role=inbox&limit=200")["data"]
    expect(len(page) == filled, f"{len(page)} messages in the list, {filled} on the server")
    message = client.call("GET", f"/api/messages/{page[0]['id']}")
    expect("budget of month" in message["text"], f"the text is {message['text']!r}")
    expect(message["attachments"][0]["filename"].endswith(".pdf"), f"{message['attachments']}")
    starred = client.call("PATCH", f"/api/messages/{page[0]['id']}", {"starred": True})
    expect(starred["starred"], "a message was starred and is not")
    found = until(
        "the search for a word of a body",
        60,
        lambda: client.call("GET", "/api/sync/search?query=budget%20has:attachment&limit=2")["data"],
    )
    expect("<mark>" in found[0]["snippet"], f"the snippet is {found[0]['snippet']!r}")

    subject = f"Hello {uuid.uuid4()}"
    submission = _send(client, ids[0], bob, subject)
    until("sending", 60, lambda: client.call("GET", f"/api/submissions/{submission}")["state"] == "sent")
    until(
        "the arrival in Bob's inbox, as the API shows it",
        60,
        lambda: any(
            m["subject"] == subject
            for m in client.call("GET", f"/api/accounts/{ids[1]}/messages?role=inbox&limit=5")["data"]
        ),
    )
    expect(mail.subjects(bob).count(subject) == 1, "the mail is not exactly once in Bob's inbox on the server")
    return ids[0]


def check_outside(mail):
    """Mail for a domain that is not ours does not leave this stack, where MAIL_OUTSIDE says `catch:`."""
    caught, subject = "catchall@lab.test", f"Outside {uuid.uuid4()}"
    with mail.smtps("bob@lab.test") as session:
        session.sendmail("bob@lab.test", ["someone@example.net"], f"Subject: {subject}\r\n\r\nHello\r\n")
    until("the mail for outside", 30, lambda: mail.subjects(caught).count(subject) == 1)
    expect(mail.pop3_count(caught) == 1, "POP3 shows another number of messages than IMAP")
