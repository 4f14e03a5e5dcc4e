# SPDX-License-Identifier: Apache-2.0
"""A stand-in for GitHub on loopback: what the daemon asks it, and what a browser does there."""

import atexit
import base64
import hashlib
import http.server
import json
import os
import pwd
import secrets
import tempfile
import threading
import urllib.parse

CLIENT, SECRET = "client-of-the-test", "secret of the test/+%"


class GitHub:
    def __init__(self):
        self.codes, self.tokens, self.asked = {}, {}, []
        self.broken = None  # what the token endpoint answers instead: (status, bytes)
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_args):
                pass

            def answer(self, status, value):
                body = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):  # pylint: disable=invalid-name
                form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                hub.asked.append(self.path)
                if hub.broken:
                    self.answer(*hub.broken)
                    return
                known = hub.codes.pop(form.get("code"), None)
                digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
                if (self.path != "/login/oauth/access_token" or not known or form["client_id"] != CLIENT
                        or form["client_secret"] != SECRET or form["redirect_uri"] != known["redirect_uri"]
                        or base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != known["challenge"]):
                    self.answer(200, {"error": "bad_verification_code"})
                    return
                token = "gho_" + secrets.token_hex(8)
                hub.tokens[token] = known["user"]
                self.answer(200, {"access_token": token, "token_type": "bearer", "scope": "user:email"})

            def do_GET(self):  # pylint: disable=invalid-name
                hub.asked.append(self.path)
                user = hub.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
                if not user:
                    self.answer(401, {"message": "Bad credentials"})
                elif self.path == "/user":
                    self.answer(200, {k: user[k] for k in ("id", "login", "name")})
                elif self.path == "/user/emails":
                    self.answer(200, user["emails"])
                else:
                    self.answer(404, {})

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_args: None  # the daemon hangs up on what is too much
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        # Read by the daemon's own user, not by everybody.
        fd, self.secret_file = tempfile.mkstemp(prefix="aviary-test-secret-")
        atexit.register(lambda: os.path.exists(self.secret_file) and os.unlink(self.secret_file))
        os.write(fd, SECRET.encode() + b"\n")
        if os.geteuid() == 0:
            try:
                uid = pwd.getpwnam("aviary").pw_uid
            except KeyError:
                uid = 0x70000000  # src/spawn has it for a daemon without a user of the system
            os.fchown(fd, uid, uid)
        os.close(fd)

    def options(self):
        return ["--github-client-id", CLIENT, "--github-client-secret-file", self.secret_file,
                "--github-url", self.url, "--github-api-url", self.url]

    def stop(self):
        self.server.shutdown()

    def authorize(self, url, user):
        """The user says yes to what the URL asks for: the query that the browser brings back."""
        parts = urllib.parse.urlsplit(url)
        asked = dict(urllib.parse.parse_qsl(parts.query))
        assert f"{parts.scheme}://{parts.netloc}" == self.url and parts.path == "/login/oauth/authorize", url
        assert asked["client_id"] == CLIENT and asked["code_challenge_method"] == "S256", asked
        code = secrets.token_hex(10)
        self.codes[code] = {"challenge": asked["code_challenge"], "redirect_uri": asked["redirect_uri"], "user": user}
        return urllib.parse.urlencode({"code": code, "state": asked["state"]})


def person(number, email, verified=True, name="Gil Hub"):
    return {"id": number, "login": f"user{number}", "name": name,
            "emails": [{"email": "other@example.org", "primary": False, "verified": False},
                       {"email": email, "primary": True, "verified": verified}]}
