#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Mail: links for activation and new passwords go through the mail server that is configured, and nowhere else;
bad configurations are refused; the password is told to nobody but that server."""

import base64
import email
import email.policy
import os
import re
import socket
import tempfile
import threading
import urllib.parse

from aviary_test import Daemon, Failure, contains, equal, main, ok, wait_for

PASSWORD = "mail-secret-0123456789"
FROM = "Aviary <aviary@example.com>"


class MailServer:
    """SMTP (RFC 5321) as far as needed. reply: what it says instead of 250, by command."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.mails, self.logins, self.lines, self.reply = [], [], [], {}
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            conn = self.listener.accept()[0]
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def serve(self, conn):
        with conn, conn.makefile("rb") as lines:
            def say(text):
                conn.sendall(text.encode() + b"\r\n")
            try:
                say("220 test ESMTP")
                mail = {}
                for line in lines:
                    line = line.rstrip(b"\r\n").decode()
                    self.lines.append(line)
                    verb = line.split(" ")[0].split(":")[0].upper()
                    if verb in self.reply:
                        say(self.reply[verb])
                    elif verb == "EHLO":
                        say("250-test\r\n250-8BITMIME\r\n250 AUTH PLAIN")
                    elif verb == "AUTH":
                        data = line.split(" ")[2] if line.count(" ") > 1 else self.ask(say, lines)
                        self.logins.append(base64.b64decode(data).split(b"\0")[1:])
                        say("235 welcome")
                    elif verb == "DATA":
                        say("354 go on")
                        data = b""
                        for part in lines:
                            if part == b".\r\n":
                                break
                            data += part[1:] if part.startswith(b".") else part
                        self.mails.append({**mail, "data": data})
                        say("250 taken")
                    elif verb == "QUIT":
                        say("221 bye")
                        return
                    else:
                        mail[verb] = line
                        say("250 fine")
            except OSError:
                pass

    @staticmethod
    def ask(say, lines):
        say("334 ")
        return lines.readline().rstrip(b"\r\n").decode()

    def next(self, n):
        """The n-th mail, parsed."""
        wait_for(lambda: len(self.mails) > n, 20, f"mail {n}")
        mail = self.mails[n]
        return mail, email.message_from_bytes(mail["data"], policy=email.policy.default)


SERVER = MailServer()
FILES = tempfile.TemporaryDirectory(prefix="aviary-mail-")  # pylint: disable=consider-using-with


def password_file(text=PASSWORD + "\n", mode=0o640):
    os.chmod(FILES.name, 0o755)
    fd, path = tempfile.mkstemp(dir=FILES.name)
    os.write(fd, text.encode())
    os.close(fd)
    os.chmod(path, mode)
    if os.geteuid() == 0:  # the daemon's user
        os.chown(path, 0x70000000, 0x70000000)
    return path


def link(message, path):
    text = message.get_content()
    found = re.findall(r"https?://\S+", text)
    equal(len(found), 1, f"one link in {text!r}")
    parts = urllib.parse.urlsplit(found[0])
    contains(parts.path, path, "where it leads to")
    return urllib.parse.parse_qs(parts.query)["token"][0]


def test_activation_and_reset(d):
    user = {"email": "ann@example.com", "password": "correct horse", "name": "Ann"}
    d.expect(201, "POST", "/v1/auth/signup", user, key=False)
    envelope, message = SERVER.next(0)
    equal((envelope["MAIL"].split(" ")[1], envelope["RCPT"]), ("FROM:<aviary@example.com>", "RCPT TO:<ann@example.com>"), "envelope")
    equal((message["From"], message["To"], message.get_content_type()), (FROM, "ann@example.com", "text/plain"), "head")
    ok(message["Date"] and message["Message-ID"] and message["Subject"], "the rest of it")
    token = link(message, "activate")
    d.expect(200, "POST", "/v1/auth/activate", {"token": token}, key=False)
    d.expect(200, "POST", "/v1/auth/login", user, key=False)
    d.expect(204, "POST", "/v1/me/password/reset", {"email": "ann@example.com"}, key=False)
    token = link(SERVER.next(1)[1], "reset")
    d.expect(204, "POST", "/v1/me/password/reset/confirm", {"token": token, "new_password": "battery staple"}, key=False)
    equal(SERVER.logins, [[b"aviary", PASSWORD.encode()]] * 2, "it logs in")
    ok(token not in d.log_text(), "links that are mailed are not in the log")
    d.expect(204, "POST", "/v1/me/password/reset", {"email": "nobody@example.com"}, key=False)
    equal(len(SERVER.mails), 2, "nobody else gets mail")


def test_a_server_that_refuses(d):
    """Who signs up is not told, the log says why, and nothing is sent twice."""
    for verb, reply in (("RCPT", "550 no such user"), ("AUTH", "535 no"), ("DATA", "554 no")):
        SERVER.reply = {verb: reply}
        before = d.log_text().count("a link was not mailed")
        d.expect(204, "POST", "/v1/me/password/reset", {"email": "ann@example.com"}, key=False)
        wait_for(lambda n=before: d.log_text().count("a link was not mailed") > n, 20, f"{verb}: the log says it")
    SERVER.reply = {}
    equal(len(SERVER.mails), 2, "nothing was taken")


def test_the_password_is_told_to_nobody(d):
    ok(PASSWORD not in d.log_text(), "log")
    for pid in [d.process.pid, *d.pids().values()]:
        for name in ("cmdline", "environ"):
            with open(f"/proc/{pid}/{name}", "rb") as f:
                ok(PASSWORD.encode() not in f.read(), f"{name} of {pid}")


def test_bad_configurations(_d):
    good = {"--smtp-url": "smtp://127.0.0.1:1", "--mail-from": "a@example.com"}
    for change, part in (
            ({"--smtp-url": "http://127.0.0.1"}, "smtp"), ({"--smtp-url": "smtp://user:pw@127.0.0.1"}, "user"),
            ({"--smtp-url": "nonsense"}, "smtp"), ({"--mail-from": "nobody"}, "sender"), ({"--mail-from": None}, "mail-from"),
            ({"--smtp-user": "x"}, "together"), ({"--smtp-user": "x", "--smtp-password-file": "/nonexistent"}, "cannot read"),
            ({"--smtp-user": "x", "--smtp-password-file": password_file(mode=0o644)}, "chmod"),
            ({"--smtp-user": "x", "--smtp-password-file": password_file("two\nlines\n")}, "one line"),
            ({"--smtp-url": None, "--mail-from": "a@example.com"}, "smtp-url"),
            ({"--webhook-private": "maybe"}, "webhook-private"), ({"--telegram-url": "x"}, "telegram-url")):
        options = [w for k, v in {**good, **change}.items() if v is not None for w in (k, v)]
        own = Daemon(args=options)
        try:
            own.start(ready=False)
            raise AssertionError(f"{options} was taken")
        except Failure as error:
            contains(str(error), part, f"{options}")
        finally:
            own.sweep()
            own.remove_dir()


test_bad_configurations.timeout_s = 120


main(globals(), args=["--signup", "activation", "--smtp-url", f"smtp://127.0.0.1:{SERVER.port}", "--smtp-user", "aviary",
                      "--smtp-password-file", password_file(), "--mail-from", FROM])
