#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""People: sign-up, activation, login, teams, one's own account, and what administrators do with accounts."""

import base64
import hashlib
import hmac
import json
import os
import re
import signal
import time
import urllib.parse

from aviary_test import contains, equal, main, ok

AUTH, ME, USERS = "/v1/auth", "/v1/me", "/v1/admin/users"
PASSWORD = "correct horse battery"
serial = [0]


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
    d.expect(204, "DELETE", "/v1/sandboxes/" + sb, headers=bearer(login), key=False)


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
    # The first administrator can get an address, and with it a password.
    admin = d.expect(200, "GET", ME).json()["user_id"]
    d.expect(200, "PATCH", f"{USERS}/{admin}", {"email": "root@example.com"})
    d.expect(204, "PUT", f"{USERS}/{admin}/password", {"new_password": PASSWORD})
    ok(d.expect(200, "GET", ME, key=False, headers=bearer(
        post(d, 200, AUTH + "/login", {"email": "root@example.com", "password": PASSWORD}))).json()["is_admin"], "admin")


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


if __name__ == "__main__":
    main(dict(globals()))
