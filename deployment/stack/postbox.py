"""The mail servers seen from outside, on their published ports, with their certificates verified by name."""

import email.message
import imaplib
import poplib
import smtplib
import socket
import ssl


class _Imap(imaplib.IMAP4_SSL):
    def _create_socket(self, timeout):
        plain = imaplib.IMAP4._create_socket(self, timeout)  # pylint: disable=protected-access
        return self.ssl_context.wrap_socket(plain, server_hostname="dovecot")


class _Smtp(smtplib.SMTP_SSL):
    def _get_socket(self, host, port, timeout):
        return self.context.wrap_socket(socket.create_connection((host, port), timeout), server_hostname="postfix")


class _Pop(poplib.POP3_SSL):
    def _create_socket(self, timeout):
        plain = poplib.POP3._create_socket(self, timeout)  # pylint: disable=protected-access
        return self.context.wrap_socket(plain, server_hostname="dovecot")


class Mail:
    """The servers of one stack; `passwords` by address."""

    def __init__(self, ports, ca_certificate, passwords):
        self.ports = ports
        self.passwords = passwords
        self.context = ssl.create_default_context(cadata=ca_certificate)

    def imap(self, address):
        """A session on 993."""
        session = _Imap("127.0.0.1", self.ports["IMAPS_PORT"], ssl_context=self.context, timeout=20)
        session.login(address, self.passwords[address])
        return session

    def pop3_count(self, address):
        """How many messages 995 shows."""
        session = _Pop("127.0.0.1", self.ports["POP3S_PORT"], context=self.context, timeout=20)
        session.user(address)
        session.pass_(self.passwords[address])
        count = session.stat()[0]
        session.quit()
        return count

    def smtps(self, address):
        """A session on 465."""
        session = _Smtp("127.0.0.1", self.ports["SUBMISSIONS_PORT"], context=self.context, timeout=20)
        session.login(address, self.passwords[address])
        return session

    def smtp(self, name):
        """A session without login on the port of this name."""
        return smtplib.SMTP("127.0.0.1", self.ports[name], local_hostname="client.example.org", timeout=20)

    def fill(self, address, count):
        """Puts messages into the inbox, some of them read."""
        session = self.imap(address)
        for number in range(count):
            message = email.message.EmailMessage()
            message["From"] = "Carol <carol@example.org>"
            message["To"] = address
            message["Subject"] = f"Invoice {number}"
            message["Message-ID"] = f"<fill-{number}@example.org>"
            message.set_content(f"The budget of month {number} is attached.\n")
            name = f"invoice-{number}.pdf"
            message.add_attachment(b"\0" * 2000, maintype="application", subtype="pdf", filename=name)
            flags = r"(\Seen)" if number % 3 else None
            session.append("INBOX", flags, None, message.as_bytes())
        session.logout()

    def subjects(self, address):
        """Every subject in the inbox, as often as it is there."""
        session = self.imap(address)
        session.select("INBOX", readonly=True)
        _, found = session.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
        session.logout()
        lines = [part[1].decode() for part in found or [] if isinstance(part, tuple)]
        return [line.partition(":")[2].strip() for line in lines]

    def refuses(self):
        """What Postfix and Dovecot must not do for strangers; gives back what they did all the same."""
        done = []
        with self.smtp("SMTP_PORT") as session:
            session.ehlo()
            if session.has_extn("auth"):
                done.append("port 25 offers AUTH")
            session.mail("stranger@example.org")
            if session.rcpt("someone@example.net")[0] < 500:
                done.append("port 25 relays for a stranger")
            if session.rcpt("nobody-of-that-name@lab.test")[0] < 500:
                done.append("port 25 takes mail for a mailbox that is not there")
            for name in ("postmaster", "postmaster@lab.test", "abuse@lab.test", "root@[127.0.0.1]"):
                if session.rcpt(name)[0] < 500:
                    done.append(f"port 25 takes mail for {name}, which has no mailbox")
        with self.smtp("SUBMISSION_PORT") as session:
            session.ehlo()
            if session.has_extn("auth"):
                done.append("port 587 takes passwords without TLS")
        address = next(iter(self.passwords))
        with self.smtps(address) as session:
            session.mail("someone-else@lab.test")
            if session.rcpt(address)[0] < 500:
                done.append("a user may send under another address")
        with imaplib.IMAP4("127.0.0.1", self.ports["IMAP_PORT"], timeout=20) as session:
            if "LOGINDISABLED" not in session.capabilities:
                done.append("port 143 takes passwords without TLS")
        return done
