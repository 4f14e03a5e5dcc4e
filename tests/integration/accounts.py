#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""People: sign-up, activation, login, teams, one's own account, and what administrators do with accounts."""

import base64
import email as email_parser
import hashlib
import hmac
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.parse

import github
import ws
from aviary_test import Daemon, contains, equal, main, ok, program, wait_for

AUTH, ME, USERS = "/v1/auth", "/v1/me", "/v1/admin/users"
PASSWORD = "correct horse battery"
serial = [0]
HUB = github.GitHub()


def address():
    serial[0] += 1
    return f"p{serial[0]}@example.com"


def bearer(login):
    return {"Authorization": "Bearer " + (login if isinstance(login, str) else login["token"])}


def post(d, status, path, body, session=None, **kw):
    r = d.expect(status, "POST", path, body, key=False, headers=bearer(session) if session else None, **kw)
    return r.json() if r.body else None


def token_of(url):
    return urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)["token"][0]


def logged_link(d, email):
    """The newest link that was logged for this address."""
    lines = [line for line in d.log_text().splitlines() if f'email="{email}"' in line and "link=" in line]
    ok(lines, f"a link for {email} is in the log")
    return re.search(r'link="([^"]+)"', lines[-1]).group(1)


def user(d, email=None, password=PASSWORD):
    """Somebody who has signed up and is active: the login."""
    email = email or address()
    post(d, 201, AUTH + "/signup", {"email": email, "password": password})
    return post(d, 200, AUTH + "/activate", {"token": token_of(logged_link(d, email))})


def test_sign_up_activate_log_in(d):
    made = post(d, 201, AUTH + "/signup", {"email": " Ada@Example.COM ", "password": PASSWORD, "name": "Ada"})
    for name in ("message", "token", "user_id", "team_id", "email", "name"):
        ok(made[name], f"{name} is in the answer")
    equal((made["email"], made["name"]), ("ada@example.com", "Ada"), "address and name")
    r = d.request("GET", ME, key=False, headers=bearer(made))
    equal((r.status, r.code), (403, "account_not_activated"), "the token does not work yet")
    r = d.request("POST", AUTH + "/login", {"email": "ada@example.com", "password": PASSWORD}, key=False)
    equal((r.status, r.code), (403, "account_not_activated"), "nor does the password")
    link = logged_link(d, "ada@example.com")
    ok(link.startswith(d.url + "/activate?token="), f"the link leads here: {link}")
    login = post(d, 200, AUTH + "/activate", {"token": token_of(link)})
    equal({k: login[k] for k in ("user_id", "team_id", "email", "name")},
          {k: made[k] for k in ("user_id", "team_id", "email", "name")}, "the same account")
    d.expect(200, "GET", ME, key=False, headers=bearer(made))
    r = d.request("POST", AUTH + "/activate", {"token": token_of(link)}, key=False)
    equal((r.status, r.code), (400, "already_activated"), "a second time")
    me = d.expect(200, "GET", ME, key=False, headers=bearer(login)).json()
    equal((me["name"], me["email"], me["has_password"], me["providers"], me["role"], me["is_admin"]),
          ("Ada", "ada@example.com", True, [], "owner", False), "me")
    again = post(d, 200, AUTH + "/login", {"email": "ADA@example.com", "password": PASSWORD})
    equal(again["team_id"], login["team_id"], "the same team")
    text = d.log_text()
    ok(PASSWORD not in text and made["token"] not in text and "argon2" not in text, "no secret is in the log")


def test_programs_of_both_older_shapes(d):
    # The older one: a token at once, no name; both headers with every request; a session where a key would do.
    email = address()
    made = post(d, 201, AUTH + "/signup", {"email": email, "password": PASSWORD})
    equal(made["name"], email.split("@")[0], "a name was made")
    post(d, 200, AUTH + "/activate", {"token": token_of(logged_link(d, email))})
    login = post(d, 200, AUTH + "/login", {"email": email, "password": PASSWORD})
    both = {**bearer(login), "X-API-Key": d.key}
    equal(d.expect(200, "GET", ME, headers=both, key=False).json()["email"], email, "who: the session")
    theirs = d.expect(201, "POST", "/v1/sandboxes", {}, headers=bearer(login), key=False).json()
    d.ids.add(theirs["id"])
    equal([s["id"] for s in d.expect(200, "GET", "/v1/sandboxes", headers=bearer(login), key=False).json()],
          [theirs["id"]], "capsules of the session's team")
    equal(d.request("GET", "/v1/sandboxes/" + theirs["id"]).status, 404, "another team's key sees nothing")
    r = d.request("GET", "/v1/sandboxes", headers={**bearer(login), "X-API-Key": "av_" + "0" * 40}, key=False)
    equal((r.status, r.code), (401, "unauthorized"), "a bad key decides alone")
    d.expect(204, "DELETE", "/v1/capsules/" + theirs["id"], headers=bearer(login), key=False)


def test_an_address_is_one_account(d):
    email = address()
    body = {"email": email, "password": PASSWORD}
    post(d, 201, AUTH + "/signup", body)
    r = d.request("POST", AUTH + "/signup", body, key=False)
    equal((r.status, r.code), (409, "signup_cooldown"), "not activated yet")
    post(d, 200, AUTH + "/activate", {"token": token_of(logged_link(d, email))})
    r = d.request("POST", AUTH + "/signup", {**body, "email": email.upper()}, key=False)
    equal((r.status, r.code), (409, "email_taken"), "taken")
    for wrong in ({"email": "x"}, {"email": "a@b@c"}, {"email": "a b@c"}, {"email": "@c"}, {"email": "a@"},
                  {"email": "a\r\nbcc: x@y@c"}, {"email": "a" * 300 + "@c"}, {"password": "1234567"},
                  {"password": "x" * 1025}, {"name": "n" * 101}, {"name": "a\tb"}, {"name": "  "}):
        r = d.request("POST", AUTH + "/signup", {"email": address(), "password": PASSWORD, **wrong}, key=False)
        equal((r.status, r.code), (400, "invalid_request"), str(wrong)[:60])
        contains(r.message, list(wrong)[0], "which one")


def test_wrong_passwords(d):
    """Unknown, wrong and without a password are one answer; then it takes a wait, and only for that place and account."""
    email = user(d)["email"]
    other = user(d)["email"]
    texts = set()
    for who in (email, "nobody@example.com"):
        r = d.request("POST", AUTH + "/login", {"email": who, "password": "wrong password"}, key=False)
        equal((r.status, r.code), (401, "unauthorized"), who)
        texts.add(r.message)
    equal(len(texts), 1, "nobody can tell which")
    for _ in range(8):
        r = d.request("POST", AUTH + "/login", {"email": email, "password": "wrong password"}, key=False)
        if r.status == 429:
            break
    equal((r.status, r.code), (429, "rate_limited"), "too many")
    wait = int(r.headers["Retry-After"])
    ok(0 < wait <= 4, f"a short wait at first: {wait}")
    contains(r.message, f"{wait} s", "the text says how long")
    equal(d.request("POST", AUTH + "/login", {"email": email, "password": PASSWORD}, key=False).status, 429,
          "the right one is not looked at meanwhile")
    post(d, 200, AUTH + "/login", {"email": other, "password": PASSWORD})
    time.sleep(wait + 0.2)
    post(d, 200, AUTH + "/login", {"email": email, "password": PASSWORD})
    for _ in range(3):
        r = d.request("POST", AUTH + "/login", {"email": email, "password": "wrong password"}, key=False)
        equal(r.status, 401, "success has reset the count")


def jwt(header, payload, key=b"secret", hash_=hashlib.sha256):
    parts = [base64.urlsafe_b64encode(json.dumps(p, separators=(",", ":")).encode()).rstrip(b"=")
             for p in (header, payload)]
    mac = hmac.new(key, b".".join(parts), hash_).digest() if key else b""
    return b".".join(parts + [base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()


def test_forged_sessions(d):
    token = user(d)["token"]
    head, payload, mac = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    equal(json.loads(base64.urlsafe_b64decode(head + "=="))["alg"], "HS256", "algorithm")
    equal(claims["exp"] - claims["iat"], 6 * 3600, "six hours")
    ok({"sub", "team_id", "role", "email", "name"} <= set(claims) and "is_admin" not in claims, "claims")
    admin = {**claims, "is_admin": True, "role": "owner"}
    raised = base64.urlsafe_b64encode(json.dumps(admin).encode()).rstrip(b"=").decode()
    for what, forged in {
            "alg none": jwt({"alg": "none", "typ": "JWT"}, admin, key=None),
            "alg none, our header": f"{head}.{raised}.",
            "HS512": jwt({"alg": "HS512", "typ": "JWT"}, admin, hash_=hashlib.sha512),
            "another key": jwt(json.loads(base64.urlsafe_b64decode(head + "==")), admin),
            "an empty key": jwt({"alg": "HS256", "kid": "aviary", "typ": "JWT"}, admin, key=b"\0"),
            "another payload": f"{head}.{raised}.{mac}",
            "a cut signature": token[:-4],
            "a longer one": token + "AAAA",
            "two of it": token + "." + token,
            "dots": "...", "much": head + "." + "A" * 5000 + "." + mac}.items():
        r = d.request("GET", ME, key=False, headers=bearer(forged))
        equal((r.status, r.code), (401, "unauthorized"), what)
    d.expect(200, "GET", ME, key=False, headers=bearer(token))
    d.expect(401, "GET", ME + "?token=" + token, key=False)
    d.expect(401, "GET", ME, key=False, headers={"Cookie": "wrenn_oauth_token=" + token})


def test_passwords_change(d):
    login = user(d)
    email = login["email"]
    for body, status, code in (({"new_password": "another password"}, 400, "invalid_request"),
                               ({"current_password": PASSWORD, "new_password": "short"}, 400, "invalid_request"),
                               ({"current_password": PASSWORD, "new_password": "another password", "confirm_password": "x"},
                                400, "invalid_request"),
                               ({"current_password": "not it", "new_password": "another password"}, 401, "wrong_password")):
        r = d.request("POST", ME + "/password", body, headers=bearer(login), key=False)
        equal((r.status, r.code), (status, code), str(body))
    post(d, 204, ME + "/password", {"current_password": PASSWORD, "new_password": "another password"}, login)
    r = d.request("GET", ME, headers=bearer(login), key=False)
    equal((r.status, r.code), (401, "unauthorized"), "the session has ended")
    equal(d.request("POST", AUTH + "/login", {"email": email, "password": PASSWORD}, key=False).status, 401, "the old one")
    login = post(d, 200, AUTH + "/login", {"email": email, "password": "another password"})

    post(d, 204, ME + "/password/reset", {"email": email.upper()})
    post(d, 204, ME + "/password/reset", {"email": "nobody@example.com"})
    ok("nobody@example.com" not in d.log_text(), "no link for nobody")
    token = token_of(logged_link(d, email))
    for wrong in (token[:-1], token + "0", "x", token.replace(".", "", 1), "." + token):
        r = d.request("POST", ME + "/password/reset/confirm", {"token": wrong, "new_password": PASSWORD}, key=False)
        equal((r.status, r.code), (400, "invalid_token"), wrong)
    r = d.request("POST", AUTH + "/activate", {"token": token}, key=False)
    equal((r.status, r.code), (400, "invalid_token"), "no link for something else")
    post(d, 204, ME + "/password/reset/confirm", {"token": token, "new_password": PASSWORD})
    r = d.request("POST", ME + "/password/reset/confirm", {"token": token, "new_password": PASSWORD}, key=False)
    equal((r.status, r.code), (400, "invalid_token"), "once")
    equal(d.request("GET", ME, headers=bearer(login), key=False).status, 401, "sessions have ended")
    post(d, 200, AUTH + "/login", {"email": email, "password": PASSWORD})


def test_pages_for_links(d):
    """A person with nothing but a browser."""
    email = address()
    post(d, 201, AUTH + "/signup", {"email": email, "password": PASSWORD})
    link = urllib.parse.urlsplit(logged_link(d, email))
    for _ in range(2):  # looking changes nothing
        page = d.expect(200, "GET", f"{link.path}?{link.query}", key=False)
    policy = page.headers["Content-Security-Policy"]
    contains(policy, "default-src 'none'", "policy")
    ok("unsafe" not in policy and "frame-ancestors 'none'" in policy, policy)
    style = re.search(rb"<style>(.*)</style>", page.body).group(1)
    contains(policy, base64.b64encode(hashlib.sha256(style).digest()).decode(), "the hash of the style")
    equal((page.headers["Cache-Control"], page.headers["Referrer-Policy"]), ("no-store", "no-referrer"), "kept nowhere")
    ok(b"//" not in page.body and b"<script" not in page.body, "nothing from elsewhere")
    nasty = d.request("GET", "/reset?token=%22%3E%3Cscript%3Ealert(1)%3C/script%3E", key=False)
    ok(b"<script" not in nasty.body, "text is no markup")
    token = re.search(rb'name="token" value="([^"]+)"', page.body).group(1)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    contains(d.expect(200, "POST", "/activate", b"token=" + token, headers=form, key=False).body, b"active", "done")
    r = d.expect(400, "POST", "/activate", b"token=" + token, headers=form, key=False)
    contains(r.body, b"active already", "says why")
    post(d, 200, AUTH + "/login", {"email": email, "password": PASSWORD})
    post(d, 204, ME + "/password/reset", {"email": email})
    token = token_of(logged_link(d, email)).encode()
    fields = b"token=" + token + b"&new_password=another+password%21&confirm_password="
    d.expect(400, "POST", "/reset", fields + b"x", headers=form, key=False)
    d.expect(200, "POST", "/reset", fields + b"another+password%21", headers=form, key=False)
    post(d, 200, AUTH + "/login", {"email": email, "password": "another password!"})
    r = d.request("POST", "/reset", b"x" * 20000, headers=form, key=False)
    equal(r.status, 413, "much")


def test_private_ports(d):
    """A session opens a private port of its team, and the server behind it does not see it."""
    login, other = user(d), user(d)
    sb = d.expect(201, "POST", "/v1/sandboxes", {}, headers=bearer(login), key=False).json()["id"]
    d.ids.add(sb)
    server = ("import http.server\nclass H(http.server.BaseHTTPRequestHandler):\n def do_GET(s):\n"
              "  b=str(s.headers).encode()\n  s.send_response(200)\n  s.send_header('Content-Length',str(len(b)))\n"
              "  s.end_headers()\n  s.wfile.write(b)\nhttp.server.HTTPServer(('127.0.0.1',8000),H).serve_forever()")
    d.expect(202, "POST", f"/v1/sandboxes/{sb}/exec", {"cmd": "python3", "args": ["-c", server], "background": True},
             headers=bearer(login), key=False)

    def ask(headers):
        return d.request("GET", "/", headers={"Host": f"8000-{sb}.localhost", **headers}, key=False)

    end = time.monotonic() + 20
    while ask(bearer(login)).status == 502 and time.monotonic() < end:
        time.sleep(0.1)
    for headers in (bearer(login), {"X-API-Key": login["token"]}, {**bearer(login), "X-Token": login["token"]}):
        r = ask(headers)
        equal(r.status, 200, f"opens: {r.body[:200]}")
        ok(login["token"].encode() not in r.body and login["token"].split(".")[1].encode() not in r.body, "not passed on")
    theirs = jwt({"alg": "HS256", "typ": "JWT"}, {"sub": "of the application"})
    contains(ask({"X-API-Key": login["token"], **bearer(theirs)}).body, theirs.encode(), "their own token is")
    equal(ask(bearer(other)).status, 404, "another team's")
    equal(ask({}).status, 401, "none")
    equal(ask(bearer(login["token"][:-3] + "AAA")).status, 401, "forged")
    for headers, first in ((bearer(login), []), ({}, [{"type": "auth", "token": login["token"]}])):
        with ws.WebSocket(d.host, d.port, f"/v1/capsules/{sb}/exec/stream", headers=headers) as s:
            for message in first + [{"type": "start", "cmd": "echo", "args": ["hello"]}]:
                s.send_json(message)
            types = []
            while "exit" not in types and "error" not in types:
                types.append(s.recv_json()["type"])
            equal(types, ["start", "stdout", "exit"], "a conversation")
    d.expect(204, "DELETE", "/v1/sandboxes/" + sb, headers=bearer(login), key=False)


def test_streams_end_with_the_session(d):
    for what in ("password", "deactivated", "key of somebody deactivated"):
        login = user(d)
        head = bearer(login)
        if what.startswith("key"):
            key = d.expect(201, "POST", "/v1/api-keys", {}, headers=head, key=False).json()["key"]
            head = {"X-API-Key": key}
        conn = d.connection(20)
        conn.request("GET", "/v1/events/stream", headers=head)
        answer = conn.getresponse()
        equal(answer.status, 200, what)
        if what == "password":
            post(d, 204, ME + "/password", {"current_password": PASSWORD, "new_password": "another password"}, login)
        else:
            d.expect(204, "PUT", f"{USERS}/{login['user_id']}/active", {"active": False})
        while answer.readline():  # to its end
            pass
        conn.close()


class Mail(threading.Thread):
    """A mail server that keeps what it gets."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.mails = self.listener.getsockname()[1], []
        self.start()

    def run(self):
        while True:
            s, _peer = self.listener.accept()
            s.settimeout(20)
            f, text = s.makefile("rwb"), None
            f.write(b"220 here\r\n")
            f.flush()
            for line in f:
                if text is not None and line != b".\r\n":
                    text += line
                    continue
                if text is not None:
                    self.mails.append(text.decode())
                word = line[:4].upper()
                text = b"" if word == b"DATA" else None
                f.write(b"354 go on\r\n" if word == b"DATA" else b"221 bye\r\n" if word == b"QUIT" else b"250 yes\r\n")
                f.flush()
                if word == b"QUIT":
                    break
            f.close()
            s.close()


def test_mail_open_and_proxies(_d):
    """A daemon with a mail server, open to all, behind a proxy."""
    server = Mail()
    d = Daemon(args=["--smtp-url", f"smtp://127.0.0.1:{server.port}", "--mail-from", "aviary@example.com", "--signup", "open",
                     "--trusted-proxies", "127.0.0.1", "--frontend-url", "https://app.example.com/x"]).start(ready=False)
    try:
        email = address()
        made = post(d, 201, AUTH + "/signup", {"email": email, "password": PASSWORD})
        equal(d.expect(200, "GET", ME, key=False, headers=bearer(made)).json()["email"], email, "active at once")
        equal(server.mails, [], "no link is needed")
        post(d, 204, ME + "/password/reset", {"email": email})
        wait_for(lambda: server.mails, 10, "a mail")
        mail = email_parser.message_from_string(server.mails[0])
        equal(mail["To"], email, "to whom")
        link = re.search(rb"https://app\.example\.com/x/reset\?token=[0-9a-z.]+", mail.get_payload(decode=True))
        ok(link, f"a link to the frontend: {mail}")
        ok("token=" not in d.log_text(), "it stands nowhere else")
        post(d, 204, ME + "/password/reset/confirm", {"token": token_of(link.group(0).decode()), "new_password": "another password"})

        def knock(who, password="wrong password"):
            return d.request("POST", AUTH + "/login", {"email": email, "password": password}, key=False,
                             headers={"X-Forwarded-For": "6.6.6.6, " + who})

        for _ in range(8):
            last = knock("192.0.2.1")
        equal(last.status, 429, "one client of the proxy")
        equal(knock("192.0.2.2", "another password").status, 200, "not the other one")
        bad = {"X-API-Key": "av_" + "0" * 40, "X-Forwarded-For": "192.0.2.3"}
        one = f"GET {ME} HTTP/1.1\r\nHost: x\r\n" + "".join(f"{k}: {v}\r\n" for k, v in bad.items())
        answers = d.raw((one + "\r\n").encode() * 1500 + (one + "Connection: close\r\n\r\n").encode(), timeout=40)
        ok(answers.count(b"HTTP/1.1 401 ") >= 1000, "many are looked at")
        r = d.request("GET", ME, headers=bad, key=False)
        equal((r.status, r.code), (429, "rate_limited"), "keys by the thousand")
        ok(int(r.headers["Retry-After"]) > 0, "when to try again")
        d.expect(200, "GET", ME, headers={"X-Forwarded-For": "192.0.2.3"})
        d.expect(401, "GET", ME, headers={"X-API-Key": bad["X-API-Key"], "X-Forwarded-For": "192.0.2.4"}, key=False)
        d.stop()
        d.args += ["--signup", "closed"]
        d.start(ready=False)
        r = d.request("POST", AUTH + "/signup", {"email": address(), "password": PASSWORD}, key=False)
        equal((r.status, r.code), (403, "forbidden"), "closed")
        contains(r.message, "aviary users create", "the cure")
        equal(knock("192.0.2.1", "another password").status, 200, "accounts are still there")
        d.stop()
    finally:
        d.sweep()
        d.remove_dir()


def test_an_account_ends(d):
    login = user(d)
    sb = d.expect(201, "POST", "/v1/sandboxes", {}, headers=bearer(login), key=False).json()["id"]
    d.ids.add(sb)
    r = d.request("DELETE", ME, {"confirmation": "x@example.com"}, headers=bearer(login), key=False)
    equal((r.status, r.code), (400, "invalid_request"), "the wrong address")
    d.expect(204, "DELETE", ME, {"confirmation": login["email"].upper()}, headers=bearer(login), key=False)
    equal(d.request("GET", ME, headers=bearer(login), key=False).status, 401, "its session")
    r = d.request("POST", AUTH + "/login", {"email": login["email"], "password": PASSWORD}, key=False)
    equal((r.status, r.code), (401, "unauthorized"), "login")
    user(d, login["email"])
    admin = d.expect(200, "GET", ME).json()
    r = d.request("DELETE", ME, {"confirmation": admin["user_id"]})
    equal((r.status, r.code), (409, "conflict"), "the last administrator stays")


def test_administration(d):
    email = address()
    made = d.expect(201, "POST", USERS, {"email": email, "name": "Bob"}).json()
    equal((made["status"], made["has_password"], made["link"]["kind"]), ("active", False, "reset"), "made")
    r = d.request("POST", AUTH + "/login", {"email": email, "password": PASSWORD}, key=False)
    equal((r.status, r.code), (401, "unauthorized"), "without a password")
    post(d, 204, ME + "/password/reset/confirm", {"token": token_of(made["link"]["url"]), "new_password": PASSWORD})
    login = post(d, 200, AUTH + "/login", {"email": email, "password": PASSWORD})
    path = f"{USERS}/{made['id']}"
    for method, p, body in (("GET", USERS, None), ("POST", USERS, {"email": address()}), ("PATCH", path, {"is_admin": True}),
                            ("PUT", path + "/active", {"active": True}), ("POST", path + "/link", None),
                            ("PUT", path + "/password", {"new_password": PASSWORD})):
        r = d.request(method, p, body, headers=bearer(login), key=False)
        equal((r.status, r.code), (403, "forbidden"), f"{method} {p} by somebody else")
    d.expect(204, "PUT", path + "/active", {"active": False})
    r = d.request("GET", ME, headers=bearer(login), key=False)
    equal(r.status, 401, "sessions end with the account")
    r = d.request("POST", AUTH + "/login", {"email": email, "password": PASSWORD}, key=False)
    equal((r.status, r.code), (403, "account_disabled"), "login")
    equal(d.request("POST", path + "/link").code, "account_disabled", "no link")
    d.expect(204, "PUT", path + "/active", {"active": True})
    equal(d.request("GET", ME, headers=bearer(login), key=False).status, 401, "its sessions stay ended")
    login = post(d, 200, AUTH + "/login", {"email": email, "password": PASSWORD})
    d.expect(200, "PATCH", path, {"is_admin": True})
    items = d.expect(200, "GET", USERS, headers=bearer(login), key=False).json()
    mine = [u for u in items["users"] if u["id"] == made["id"]][0]
    equal((mine["email"], mine["is_admin"], mine["teams_owned"], mine["status"]), (email, True, 1, "active"), "in the list")
    equal(items["total"], len(items["users"]), "total")
    r = d.request("PUT", path + "/active", {"active": False}, headers=bearer(login), key=False)
    equal((r.status, r.code), (409, "conflict"), "not oneself")
    d.expect(200, "PATCH", path, {"is_admin": False})
    equal(d.request("GET", USERS, headers=bearer(login), key=False).status, 403, "from the next request on")
    d.expect(404, "PATCH", f"{USERS}/us{'0' * 25}", {"name": "x"})
    # A key for administration alone does not become more.
    key = {"X-API-Key": d.expect(201, "POST", "/v1/api-keys", {"scopes": ["admin", "account"]}).json()["key"]}
    root = f"{USERS}/{d.expect(200, 'GET', ME).json()['user_id']}"
    for method, p, body in (("POST", root + "/link", None), ("PUT", root + "/password", {"new_password": PASSWORD}),
                            ("PATCH", root, {"email": "mine@example.com"}), ("PATCH", path, {"is_admin": True}),
                            ("POST", USERS, {"email": address(), "is_admin": True}), ("PATCH", ME, {"name": "x"}),
                            ("POST", ME + "/password", {"new_password": PASSWORD}),
                            ("POST", AUTH + "/switch-team", {"team_id": login["team_id"]})):
        r = d.request(method, p, body, headers=key, key=False)
        equal((r.status, r.code), (403, "forbidden"), f"{method} {p} with a narrow key")
    d.expect(201, "POST", path + "/link", headers=key, key=False)
    # The first administrator can get an address, and with it a password.
    admin = d.expect(200, "GET", ME).json()["user_id"]
    d.expect(200, "PATCH", f"{USERS}/{admin}", {"email": "root@example.com"})
    d.expect(204, "PUT", f"{USERS}/{admin}/password", {"new_password": PASSWORD})
    ok(d.expect(200, "GET", ME, key=False, headers=bearer(
        post(d, 200, AUTH + "/login", {"email": "root@example.com", "password": PASSWORD}))).json()["is_admin"], "admin")


def test_command_line(d):
    def run(*words, status=0, stdin=""):
        r = subprocess.run([program("aviary"), "users", *words], input=stdin, capture_output=True, text=True, timeout=30,
                           check=False, env={**os.environ, "AVIARY_URL": d.url, "AVIARY_API_KEY": d.key})
        equal(r.returncode, status, f"aviary users {words}: {r.stdout} {r.stderr}")
        return r.stdout + r.stderr

    email = address()
    made, link = run("create", email, "--name", "Cleo").split()
    post(d, 204, ME + "/password/reset/confirm", {"token": token_of(link), "new_password": PASSWORD})
    login = post(d, 200, AUTH + "/login", {"email": email, "password": PASSWORD})
    line = [row for row in run("ls").splitlines() if made in row]
    ok(line and email in line[0] and "Cleo" in line[0] and "active" in line[0], line)
    contains(run("ls", "-q").split(), made, "ids")
    run("deactivate", email)
    equal(d.request("GET", ME, headers=bearer(login), key=False).status, 401, "deactivated")
    contains(run("link", email, status=125), "deactivated", "no link")
    run("activate", made)
    run("password", email, stdin="battery staple\n")
    post(d, 200, AUTH + "/login", {"email": email, "password": "battery staple"})
    contains(run("password", email, stdin="short\n", status=125), "8 to 1024", "why not")
    contains(run("link", email), "/reset?token=", "a link")
    run("update", email, "--admin")
    equal(json.loads(run("update", email, "--no-admin", "--json"))["is_admin"], False, "and back")
    contains(run("link", "nobody@example.com", status=125), "nobody@example.com", "unknown")
    contains(run("link", "nonsense", status=125), "nonsense", "neither id nor address")
    run("fly", status=2)
    run("create", status=2)


def test_accounts_outlive_the_daemon(d):
    login = user(d)
    waiting = post(d, 201, AUTH + "/signup", {"email": address(), "password": PASSWORD})
    link = logged_link(d, waiting["email"])
    pid = d.pids()["daemon"]
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            if d.pids().get("daemon") not in (None, pid) and d.request("GET", "/ready", key=False).status == 200:
                break
        except OSError:
            pass
        time.sleep(0.1)
    d.expect(200, "GET", ME, key=False, headers=bearer(login))
    post(d, 200, AUTH + "/activate", {"token": token_of(link)})
    d.expect(200, "GET", ME, key=False, headers=bearer(waiting))


class Browser:
    """Keeps cookies for one host, and follows nothing by itself."""

    def __init__(self, d):
        self.d, self.cookies = d, {}

    def get(self, path, headers=None):
        head = {**(headers or {}), "Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())}
        r = self.d.request("GET", path, headers=head, key=False)
        for line in r.headers.get_all("Set-Cookie") or []:
            pair, *rest = line.split("; ")
            name, value = pair.split("=", 1)
            contains(rest, "Path=/auth/", name)
            contains(rest, "SameSite=Lax", name)
            ok(("HttpOnly" in rest) == (not name.startswith("wrenn_oauth_")), line)
            self.cookies.pop(name, None)
            if "Max-Age=0" not in rest:
                self.cookies[name] = value
        return r

    def go(self, intent, who):
        """All the way with GitHub: where it ends, as a path with a query."""
        r = self.get(f"/auth/oauth/github?intent={intent}")
        equal(r.status, 302, "to GitHub")
        return self.back(HUB.authorize(r.headers["Location"], who))

    def back(self, query):
        r = self.get("/auth/oauth/github/callback?" + query)
        equal(r.status, 302, f"to the page: {r.body[:200]}")
        ok(r.headers["Location"].startswith(self.d.url + "/auth/github/callback"), "no other place")
        self.d.expect(200, "GET", r.headers["Location"][len(self.d.url):], key=False)
        return r.headers["Location"].partition("/auth/github/callback")[2]


def test_github(d):
    email, browser = address(), Browser(d)
    who = github.person(serial[0], email, name="Gil Ünüm; x=y")
    equal(browser.go("login", who), "?error=no_account", "nobody yet")
    equal(browser.go("signup", github.person(serial[0], email, verified=False)), "?error=exchange_failed", "not verified")
    equal(browser.go("signup", who), "", "signed up")
    token = browser.cookies["wrenn_oauth_token"]
    equal(urllib.parse.unquote(browser.cookies["wrenn_oauth_name"]), "Gil Ünüm; x=y", "the name, whole")
    me = d.expect(200, "GET", ME, key=False, headers=bearer(token)).json()
    equal((me["email"], me["has_password"], me["providers"]), (email, False, ["github"]), "me")
    equal(browser.cookies["wrenn_oauth_user_id"], me["user_id"], "the id")
    ok("oauth_state" not in browser.cookies, "the state is used up")
    browser = Browser(d)
    equal(browser.go("login", {**who, "login": "renamed", "emails": []}), "", "known by the number")
    equal(browser.cookies["wrenn_oauth_user_id"], me["user_id"], "the same account")
    r = d.request("DELETE", ME + "/providers/github", headers=bearer(token), key=False)
    equal((r.status, r.code), (400, "last_login_method"), "the only way in")
    r = d.request("POST", AUTH + "/login", {"email": email, "password": ""}, key=False)
    equal(r.status, 400, "no password is no password")
    post(d, 204, ME + "/password", {"new_password": PASSWORD, "confirm_password": PASSWORD}, token)
    login = post(d, 200, AUTH + "/login", {"email": email, "password": PASSWORD})
    d.expect(204, "DELETE", ME + "/providers/github", headers=bearer(login), key=False)
    equal(d.request("DELETE", ME + "/providers/github", headers=bearer(login), key=False).status, 404, "twice")
    equal(Browser(d).go("login", who), "?error=no_account", "not connected any more")
    equal(Browser(d).go("signup", who), "?error=email_taken", "an address never opens an account")
    d.expect(204, "PUT", f"{USERS}/{me['user_id']}/active", {"active": True})


def test_github_connects(d):
    login, browser = user(d), Browser(d)
    who = github.person(900, login["email"])
    r = browser.get(ME + "/providers/github/connect", bearer(login))
    equal(browser.back(HUB.authorize(r.json()["auth_url"], who)), "?connected=github", "connected")
    ok("wrenn_oauth_token" not in browser.cookies, "no login")
    equal(d.expect(200, "GET", ME, key=False, headers=bearer(login)).json()["providers"], ["github"], "me")
    equal(Browser(d).go("login", who), "", "the way in")
    other = user(d)
    r = browser.get(ME + "/providers/github/connect", bearer(other))
    equal(browser.back(HUB.authorize(r.json()["auth_url"], who)), "?error=email_taken", "another's")
    r = browser.get(ME + "/providers/github/connect", bearer(other))
    query = HUB.authorize(r.json()["auth_url"], github.person(901, address()))
    browser.cookies["oauth_link_user_id"] = login["user_id"]
    equal(browser.back(query), "?error=invalid_state", "for another account than it was begun for")
    r = browser.get(ME + "/providers/github/connect", bearer(other))
    query = HUB.authorize(r.json()["auth_url"], github.person(902, address()))
    post(d, 204, ME + "/password", {"current_password": PASSWORD, "new_password": "another password"}, other)
    equal(browser.back(query), "?error=invalid_state", "begun by a session that a new password has ended")
    d.expect(204, "PUT", f"{USERS}/{login['user_id']}/active", {"active": False})
    equal(Browser(d).go("login", who), "?error=account_deactivated", "deactivated")
    equal(d.request("GET", ME + "/providers/github/connect").code, "forbidden", "not with a key")


def test_github_and_what_goes_wrong(d):
    who = github.person(950, address())
    for path in ("/auth/oauth/gitlab", "/auth/oauth/gitlab/callback?code=x&state=y"):
        r = d.request("GET", path, key=False)
        equal((r.status, r.code), (404, "provider_not_found"), path)
    equal(d.request("GET", "/auth/oauth/github?intent=x", key=False).status, 400, "intent")
    browser = Browser(d)
    start = browser.get("/auth/oauth/github?intent=signup").headers["Location"]
    query = HUB.authorize(start, who)
    equal(Browser(d).back(query), "?error=invalid_state", "another browser")
    mine = dict(browser.cookies)
    for what, state in (("login", mine["oauth_state"].replace("signup", "login")),
                        ("later", re.sub(r"\.(\d+)\.", lambda m: f".{int(m.group(1)) + 9}.", mine["oauth_state"]))):
        browser.cookies = {"oauth_state": state}
        equal(browser.back(query), "?error=invalid_state", what)
    for change, word in (({"error": "access_denied", "code": ""}, "access_denied"), ({"code": ""}, "missing_code"),
                         ({"code": "unknown"}, "exchange_failed"), ({"code": "x" * 3000}, "missing_code")):
        browser.cookies = dict(mine)
        fields = {**dict(urllib.parse.parse_qsl(query)), **change}
        equal(browser.back(urllib.parse.urlencode({k: v for k, v in fields.items() if v})), "?error=" + word, word)
    for broken in ((500, b"{}"), (200, b"{"), (200, b"[]"), (200, {"access_token": 5}), (200, {"access_token": "a\r\nb: c"}),
                   (200, b"x" * (1 << 20)), (302, b"{}")):
        HUB.broken = broken
        equal(Browser(d).go("signup", who), "?error=exchange_failed", str(broken)[:60])
    HUB.broken = None
    codes = len(HUB.asked)
    text = d.log_text()
    ok(github.SECRET not in text and "gho_" not in text, "no secret is in the log")
    ok(codes > 5, "it was asked")
    equal(Browser(d).go("signup", who), "", "and works after all of it")


if __name__ == "__main__":
    try:
        main(dict(globals()), args=HUB.options())
    finally:
        HUB.stop()
