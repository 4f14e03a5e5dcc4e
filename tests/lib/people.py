# SPDX-License-Identifier: Apache-2.0
"""Users, teams and sessions for tests that are not about how one gets them: written into the database of a daemon
that is stopped for it, and tokens made with its own key. Needs to read the state directory."""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import sqlite3
import time


def make_id(prefix):
    return prefix + "".join("0123456789abcdefghijklmnopqrstuvwxyz"[b % 36] for b in os.urandom(25))


@contextlib.contextmanager
def database(d):
    """The database of a daemon that does not run."""
    path = os.path.join(d.state, "db", "aviary.db")
    owner = os.stat(path)
    db = sqlite3.connect(path, isolation_level=None)
    try:
        yield db
    finally:
        db.close()
        for name in (path, path + "-wal", path + "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.chown(name, owner.st_uid, owner.st_gid)


class Person:
    """Somebody who may do things in one team."""

    def __init__(self, d, user, team, email, role):
        self.d, self.user, self.team, self.email, self.role = d, user, team, email, role

    def token(self, team=None, ttl_s=3600):
        """A session."""
        with open(os.path.join(self.d.dir, "sign_key"), encoding="ascii") as f:
            sign_key = bytes.fromhex(f.read())
        key = hmac.new(sign_key, b"aviary session\0", hashlib.sha256).digest()
        now = int(time.time())
        head = b'{"alg":"HS256","kid":"aviary","typ":"JWT"}'
        payload = {"sub": self.user, "team_id": team or self.team, "role": self.role, "email": self.email, "name": "x",
                   "ses": 0, "iat": now, "exp": now + ttl_s}
        text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (head, json.dumps(payload).encode()))
        mac = hmac.new(key, text, hashlib.sha256).digest()
        return (text + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()

    def head(self, team=None):
        return {"Authorization": f"Bearer {self.token(team)}"}

    def ask(self, method, path, body=None, team=None):
        return self.d.request(method, path, body, headers=self.head(team), key=False)

    def expect(self, status, method, path, body=None, team=None):
        return self.d.expect(status, method, path, body, headers=self.head(team), key=False)


def owner(d):
    """Who made the first key, with a session; after add()."""
    key = d.expect(200, "GET", "/v1/api-keys").json()[-1]
    return Person(d, key["created_by"], key["team_id"], "", "owner")


def add(d, *names, status="active"):
    """Stops and starts the daemon; for each name somebody NAME@example.com with a team of their own."""
    d.stop()
    people = []
    with database(d) as db:
        sign_key = db.execute("SELECT value FROM settings WHERE name = 'sign_key'").fetchone()[0]
        with open(os.path.join(d.dir, "sign_key"), "w", encoding="ascii") as f:
            f.write(sign_key)
        now = int(time.time() * 1000)
        for name in names:
            user, team = make_id("us"), make_id("te")
            db.execute("INSERT INTO users (id, name, is_admin, created_ms, email, status) VALUES (?, ?, 0, ?, ?, ?)",
                       (user, name, now, f"{name}@example.com", status))
            db.execute("INSERT INTO teams (id, name, created_ms, slug) VALUES (?, ?, ?, ?)",
                       (team, f"{name}'s Team", now, f"{os.urandom(3).hex()}-{os.urandom(3).hex()}"))
            db.execute("INSERT INTO team_members (team_id, user_id, role, joined_ms, is_default) VALUES (?, ?, 'owner', ?, 1)",
                       (team, user, now))
            people.append(Person(d, user, team, f"{name}@example.com", "owner"))
    d.start()
    return people
