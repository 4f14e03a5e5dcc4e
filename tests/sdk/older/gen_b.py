# SPDX-License-Identifier: Apache-2.0
"""A client of the shape between: /v1/capsules; the key for capsules and snapshots, the session for everything else; besides
what the older one had: accounts, users, teams, channels, processes, stats, usage and metrics."""

from wire import (AUTH, CHANNEL, ME, MEMBER, METRICS, PREVIEW, PROCESS, SANDBOX, STATS, STR, TEAM, USAGE, Box, Wire, many, parse)

import gen_a
from gen_a import ApiKeys, Part, Snapshots


class Capsule(Box):
    prefix = "/v1/capsules"

    def exec_background(self, cmd, args=None, tag=None):
        return self.wire.call("POST", self.at("/exec"), {"cmd": cmd, "args": args, "background": True, "tag": tag},
                           model={"pid": PROCESS["pid"], "tag": STR, "sandbox_id": STR, "cmd": STR})

    def processes(self):
        return self.wire.call("GET", self.at("/processes"), model={"processes": many(PROCESS)})["processes"]

    def kill(self, selector, signal=None):
        self.wire.call("DELETE", self.at(f"/processes/{selector}"), signal=signal)

    def process_stream(self, selector):
        with self.wire.socket(self.at(f"/processes/{selector}/stream")) as s:
            while True:
                event = s.recv_json()
                if event is None:
                    return
                yield event
                if event["type"] in ("exit", "error"):
                    return

    def metrics(self, range=None):
        return self.wire.call("GET", self.at("/metrics"), model=METRICS, range=range)


class Auth(gen_a.Auth):
    def signup(self, email, password, name):
        return self.wire.call("POST", "/v1/auth/signup", {"email": email, "password": password, "name": name},
                              model={"message": STR})

    def activate(self, token):
        return self.wire.call("POST", "/v1/auth/activate", {"token": token}, model=AUTH)

    def switch_team(self, team_id):
        return self.wire.call("POST", "/v1/auth/switch-team", {"team_id": team_id}, model=AUTH)


class Account(Part):
    def get(self):
        return self.wire.call("GET", "/v1/me", model=ME)

    def rename(self, name):
        return self.wire.call("PATCH", "/v1/me", {"name": name}, model=AUTH)

    def password(self, **given):
        self.wire.call("POST", "/v1/me/password", given)

    def delete(self, confirmation):
        self.wire.call("DELETE", "/v1/me", {"confirmation": confirmation})


class Users(Part):
    def search(self, email):
        return self.wire.call("GET", "/v1/users/search", rows={"user_id": STR, "email": STR}, email=email)


class Teams(Part):
    def list(self):
        return self.wire.call("GET", "/v1/teams", rows=TEAM)

    def create(self, name):
        return self.wire.call("POST", "/v1/teams", {"name": name}, model=TEAM)

    def get(self, team_id):
        return self.wire.call("GET", f"/v1/teams/{team_id}", model={"team": lambda v: parse(v, TEAM), "members": many(MEMBER)})

    def rename(self, team_id, name):
        self.wire.call("PATCH", f"/v1/teams/{team_id}", {"name": name})

    def delete(self, team_id):
        self.wire.call("DELETE", f"/v1/teams/{team_id}")

    def members(self, team_id):
        return self.wire.call("GET", f"/v1/teams/{team_id}/members", rows=MEMBER)

    def add(self, team_id, email):
        return self.wire.call("POST", f"/v1/teams/{team_id}/members", {"email": email}, model=MEMBER)

    def set_role(self, team_id, user_id, role):
        self.wire.call("PATCH", f"/v1/teams/{team_id}/members/{user_id}", {"role": role})

    def remove(self, team_id, user_id):
        self.wire.call("DELETE", f"/v1/teams/{team_id}/members/{user_id}")

    def leave(self, team_id):
        self.wire.call("POST", f"/v1/teams/{team_id}/leave")


class Channels(Part):
    def create(self, name, provider, config, events):
        return self.wire.call("POST", "/v1/channels", {"name": name, "provider": provider, "config": config, "events": events},
                              model=CHANNEL)

    def list(self):
        return self.wire.call("GET", "/v1/channels", rows=CHANNEL)

    def get(self, channel_id):
        return self.wire.call("GET", f"/v1/channels/{channel_id}", model=CHANNEL)

    def update(self, channel_id, name, events):
        return self.wire.call("PATCH", f"/v1/channels/{channel_id}", {"name": name, "events": events}, model=CHANNEL)

    def configure(self, channel_id, config):
        return self.wire.call("PUT", f"/v1/channels/{channel_id}/config", {"config": config}, model=CHANNEL)

    def delete(self, channel_id):
        self.wire.call("DELETE", f"/v1/channels/{channel_id}")


class Capsules(Part):
    def create(self, **given):
        return Capsule(self.wire, self.wire.call("POST", "/v1/capsules", given, model=SANDBOX))

    def list(self):
        return self.wire.call("GET", "/v1/capsules", rows=SANDBOX)

    def get(self, capsule_id):
        return self.wire.call("GET", f"/v1/capsules/{capsule_id}", model=SANDBOX)

    def destroy(self, capsule_id):
        self.wire.call("DELETE", f"/v1/capsules/{capsule_id}")

    def stats(self, range=None):
        return self.wire.call("GET", "/v1/capsules/stats", model=STATS, range=range)

    def usage(self, first=None, last=None):
        return self.wire.call("GET", "/v1/capsules/usage", model=USAGE, **{"from": first, "to": last})


class Hosts(gen_a.Hosts):
    def delete(self, host_id, force=False):
        self.wire.call("DELETE", f"/v1/hosts/{host_id}", force="true" if force else None)

    def delete_preview(self, host_id):
        return self.wire.call("GET", f"/v1/hosts/{host_id}/delete-preview", model=PREVIEW)


class WrennClient:
    def __init__(self, api_key=None, token=None, base_url=None):
        wire = Wire(base_url, api_key, token, both=False)
        self.auth, self.api_keys, self.capsules = Auth(wire), ApiKeys(wire), Capsules(wire)
        self.snapshots, self.hosts, self.account = Snapshots(wire), Hosts(wire), Account(wire)
        self.users, self.teams, self.channels = Users(wire), Teams(wire), Channels(wire)
