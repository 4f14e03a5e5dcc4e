#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Who may do what: every operation of the API, asked by everybody who may not, about things of another team that
really exist.

What is expected follows from the columns auth and scope of routes.def, from what the path names, and from ROLES. A
route that these do not cover fails the test until it has a line here: nothing is let through because nobody thought
of it."""

import json
import os
import re
import urllib.parse

import openapi
import people
import yaml
from aviary_test import Failure, Response, equal, main, ok, short
from ws import HandshakeError, WebSocket

PLACES = {"unknown": {"provider": "github", "id": "sb" + "0" * 25, "selector": "none", "name": "no-such", "build": "x", "api_key": "ke" + "0" * 25,
                      "user": "us" + "0" * 25, "sandbox": "sb" + "0" * 25, "channel": "ch" + "0" * 25,
                      "host": "ho" + "0" * 25, "tag": "x",
                      "delivery": "00000000-0000-4000-8000-000000000000"}}

# What somebody of another team is told who names a thing of ours, by the parameter of the path that says which; the
# first one of the path counts.
FOREIGN = {"provider": {404}, "host": {404}, "id": {404}, "channel": {404}, "name": {404}, "api_key": {404}, "team": {403}}
# Exceptions, with the reason.
FOREIGN_ROUTES = {
    "DELETE /v1/api-keys/{api_key}": {204},  # a key that is not there is deleted already; it must go on working
    "POST /v1/auth/switch-team": {403},  # to ours
    "POST /v1/channels/test": {502},  # nobody has the name that is called
    "POST /v1/hosts": {403},  # of type regular, for all teams
}
# About the asker's own account and nothing else, and would end it or its sessions: not asked with something good.
OWN_ACCOUNT = {"POST /v1/me/password", "DELETE /v1/me"}
# The least role for what people do. Routes for administrators of this Aviary need no line.
ROLES = {
    "GET /v1/api-keys": "member",
    "POST /v1/api-keys": "member",
    "GET /v1/api-keys/{api_key}": "member",
    "PATCH /v1/api-keys/{api_key}": "member",
    "DELETE /v1/api-keys/{api_key}": "member",
    "POST /v1/api-keys/{api_key}/rotate": "member",
    "GET /v1/channels": "member",
    "POST /v1/channels": "admin",
    "POST /v1/channels/test": "admin",
    "GET /v1/channels/{channel}": "member",
    "PATCH /v1/channels/{channel}": "admin",
    "PUT /v1/channels/{channel}/config": "admin",
    "DELETE /v1/channels/{channel}": "admin",
    "GET /v1/channels/{channel}/deliveries": "member",
    "POST /v1/channels/{channel}/deliveries/{delivery}/redeliver": "admin",
    "GET /v1/teams": "member",
    "POST /v1/teams": "member",
    "GET /v1/teams/{team}": "member",
    "PATCH /v1/teams/{team}": "admin",
    "DELETE /v1/teams/{team}": "owner",
    "POST /v1/teams/{team}/leave": "last",
    "GET /v1/teams/{team}/members": "member",
    "POST /v1/teams/{team}/members": "admin",
    "PATCH /v1/teams/{team}/members/{user}": "admin",
    "DELETE /v1/teams/{team}/members/{user}": "admin",
    "GET /v1/users/search": "member",
    "POST /v1/auth/switch-team": "member",
    "GET /v1/me": "member",
    "PATCH /v1/me": "member",
    "DELETE /v1/me": "member",
    "POST /v1/me/password": "member",
    "GET /v1/me/providers/{provider}/connect": "member",
    "DELETE /v1/me/providers/{provider}": "member",
    "GET /v1/hosts": "member",
    "POST /v1/hosts": "admin",
    "GET /v1/hosts/{host}": "member",
    "DELETE /v1/hosts/{host}": "admin",
    "GET /v1/hosts/{host}/delete-preview": "admin",
    "POST /v1/hosts/{host}/token": "admin",
    "GET /v1/hosts/{host}/tags": "member",
    "POST /v1/hosts/{host}/tags": "admin",
    "DELETE /v1/hosts/{host}/tags/{tag}": "admin",
    "GET /v1/audit-logs": "member",  # of what is told to members; the test of the log asks for more
    "GET /v1/audit-logs/export": "member",
}
AUTHS = ("OPEN", "KEY", "USER", "FIRST", "TOKEN", "LOCAL", "HOST")


class Route:
    def __init__(self, method, path, auth, scope):
        self.method, self.path, self.auth = method, path, auth
        self.scope = scope.lower().replace("_", ":", 1) if scope != "NONE" else None
        self.name = f"{method} {path}"
        self.params = re.findall(r"\{(\w+)\}", path)
        self.op = openapi.DOC["paths"][path][method.lower()]

    def body(self):
        return openapi.body_for(self.op)


def load(d):
    openapi.DOC.update(yaml.safe_load(d.expect(200, "GET", "/openapi.yaml", key=False).body))
    with open(openapi.ROUTES, encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    found = re.findall(r'API_ROUTE\(\s*\w+,\s*(\w+),\s*"([^"]+)",\s*\w+,\s*(\w+),\s*(\w+),', text)
    equal(len(found), text.count("API_ROUTE("), "every route is understood")
    return [Route(*r) for r in found]


ROUTES = []
OURS = {}  # values of the parameters: what is ours
SEEN = []  # texts that nobody else may be shown
WHO = {}


def scopes_of(d):
    """Every scope that a route asks for."""
    return sorted({r.scope for r in ROUTES if r.scope})


def test_what_is_ours(d):
    """Two teams: ours has a sandbox with a process, a template, keys and a plain member; another has its owner."""
    ROUTES.extend(load(d))
    owner_key = d.key
    stranger, member = people.add(d, "stranger", "member")
    owner = people.owner(d)
    team = owner.team
    d.expect(201, "POST", f"/v1/teams/{team}/members", {"email": member.email})
    member.role, member.team = "member", team
    sb = d.create()["id"]
    tag = d.expect(202, "POST", f"/v1/sandboxes/{sb}/exec",
                   {"cmd": "sleep", "args": ["1000"], "background": True, "tag": "ours"}).json()["tag"]
    channel = d.expect(201, "POST", "/v1/channels",
                       {"name": "our-channel", "provider": "webhook", "config": {"url": "https://name.invalid/"},
                        "events": ["template.snapshot.created"]}).json()["id"]
    d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": sb, "name": "our-template"})
    delivery = d.expect(200, "GET", f"/v1/channels/{channel}/deliveries").json()["deliveries"][0]["id"]
    d.expect(200, "POST", f"/v1/sandboxes/{sb}/resume")
    d.expect(204, "PUT", f"/v1/admin/teams/{team}/byoc", {"enabled": True})
    host = d.expect(201, "POST", "/v1/hosts", {"type": "byoc", "team_id": team}).json()["host"]["id"]
    key = d.expect(201, "POST", "/v1/api-keys", {"name": "our-key"}).json()
    OURS.update(provider="github", id=sb, selector=tag, name="our-template", build="x", api_key=key["id"], team=team, user=owner.user,
                sandbox=sb, secret=key["key"], channel=channel, delivery=delivery, host=host, tag="x")
    SEEN.extend([sb, key["id"], key["key"], owner.user, "our-template", "our-key", channel, delivery, "our-channel",
                 host])
    expired = d.expect(201, "POST", "/v1/api-keys", {"scopes": ["*"]}).json()
    d.expect(201, "POST", f"/v1/api-keys/{expired['id']}/rotate", {})
    deleted = d.expect(201, "POST", "/v1/api-keys", {"scopes": ["*"]}).json()
    d.expect(204, "DELETE", f"/v1/api-keys/{deleted['id']}")
    foreign = stranger.expect(201, "POST", "/v1/api-keys", {"scopes": ["*"]}).json()
    WHO.update(owner=owner_key, stranger=stranger, member=member, foreign=foreign["key"], expired=expired["key"],
               deleted=deleted["key"], narrow={})
    every = scopes_of(d)
    for scope in every:
        made = d.expect(201, "POST", "/v1/api-keys", {"scopes": [s for s in every if s != scope]}).json()
        WHO["narrow"][scope] = made["key"]


def first_bytes(d, route, path, head):
    """The head and the beginning of an answer that has no end."""
    conn = d.connection()
    conn.request(route.method, path, headers=head)
    answer = conn.getresponse()
    data = answer.read1(65536)
    conn.close()
    return Response(answer.status, answer.headers, data)


def ask(d, route, head, values):
    path = re.sub(r"\{(\w+)\}", lambda m: urllib.parse.quote(values[m.group(1)]), route.path) + openapi.query_for(route.op)
    body, headers = route.body(), dict(head)
    if isinstance(body, dict) and "sandbox_id" in body:
        body["sandbox_id"] = values["id"]
    if isinstance(body, dict) and "team_id" in body:
        body["team_id"] = values["team"]
    if "multipart/form-data" in route.op.get("requestBody", {}).get("content", {}):
        body, more = openapi.form("/tmp/x", b"x")
        headers.update(more)
    if route.auth == "LOCAL":
        headers["X-Forwarded-For"] = "192.0.2.1"  # as if somebody else asked through a proxy
    if "text/event-stream" in route.op["responses"].get("200", {}).get("content", {}):
        return first_bytes(d, route, path, headers)
    return d.request(route.method, path, body, headers=headers, key=False)


def missing(route, params, table):
    unknown = [p for p in route.params if p not in params]
    if unknown:
        raise Failure(f"{route.name}: what {{{unknown[0]}}} is of ours is not known here; make one in "
                      f"test_what_is_ours and say in {table} what another team is told")


def each(check):
    """check(route) for all that ask for a key over HTTP; every failure is told, not just the first."""
    wrong = []
    for route in ROUTES:
        if route.auth not in AUTHS:
            wrong.append(f"{route.name}: nothing is expected here of auth {route.auth}")
        elif route.auth in ("KEY", "USER", "LOCAL"):
            try:
                check(route)
            except Failure as failure:
                wrong.append(str(failure))
    if wrong:
        raise Failure(f"{len(wrong)} routes: " + "\n".join(wrong))


def refused(response, status, code, what):
    equal((response.status, response.code), (status, code), f"{what}: {short(response.body)}")
    ok(len(response.message) > 20, f"{what}: a message that says what to do")


def key_head(secret):
    return {"X-API-Key": secret}


def test_without_a_good_key(d):
    heads = {
        "no key": {},
        "a key of nobody": key_head("av_" + "0" * 40),
        "an expired key": key_head(WHO["expired"]),
        "a deleted key": key_head(WHO["deleted"]),
        "no key at all": key_head("x"),
        "a session of another Aviary": {"Authorization": "Bearer " + WHO["member"].token()[:-4] + "AAAA"},
        "an expired session": {"Authorization": "Bearer " + WHO["member"].token(ttl_s=-1)},
    }

    def check(route):
        missing(route, OURS, "FOREIGN")
        for name, head in heads.items():
            refused(ask(d, route, head, OURS), 401, "unauthorized", f"{route.name} with {name}")
    each(check)


def test_keys_without_the_scope(d):
    def check(route):
        ok(route.scope, f"{route.name} asks for no scope")
        r = ask(d, route, key_head(WHO["narrow"][route.scope]), OURS)
        refused(r, 403, "forbidden", f"{route.name} with all scopes but {route.scope}")
        ok(route.scope in r.message, f"{route.name} names {route.scope}: {r.message}")
    each(check)


def test_another_team(d):
    def check(route):
        if route.name in OWN_ACCOUNT:
            return
        r = ask(d, route, key_head(WHO["foreign"]), OURS)
        what = f"{route.name} with a key of another team"
        if route.path.startswith("/v1/audit-logs"):
            # They named our things: that is in their log. Nothing of our log is.
            teams = set(re.findall(r'"team_id":"(\w+)"', r.body.decode()))
            equal(teams, {WHO["stranger"].team}, f"{what}: whose log it is")
            return
        for text in SEEN:
            ok(text not in r.body.decode(errors="replace") or r.status >= 400, f"{what} shows {text}: {short(r.body)}")
        if route.scope in ("admin", "metrics"):
            refused(r, 403, "forbidden", what)
        elif route.name in FOREIGN_ROUTES:
            ok(r.status in FOREIGN_ROUTES[route.name], f"{what}: {r.status} {short(r.body)}")
        elif route.params:
            if route.params[0] not in FOREIGN:
                raise Failure(f"{route.name}: FOREIGN does not say what another team is told")
            ok(r.status in FOREIGN[route.params[0]], f"{what}: {r.status} {short(r.body)}")
        elif isinstance(route.body(), dict) and "sandbox_id" in route.body():
            equal(r.status, 404, what)
        else:
            ok(r.status not in (401, 403) and r.status < 500, f"{what} is about their own: {r.status} {short(r.body)}")
    each(check)


def test_a_plain_member(d):
    """With a session, which has every scope: the role decides."""
    member = WHO["member"]
    none = {**PLACES["unknown"], "team": OURS["team"]}

    def check(route):
        what = f"{route.name} by a plain member"
        least = "member" if route.auth == "KEY" else ROLES.get(route.name)
        if route.scope in ("admin", "metrics"):
            least = "admin"
        if least is None:
            raise Failure(f"{route.name}: ROLES does not say who may")
        if least == "last" or route.name in OWN_ACCOUNT:
            return
        if least == "member":
            # Of what is not there: may one?
            r = ask(d, route, member.head(), none)
            ok(r.status not in (401, 403) and (r.status < 500 or r.status == 501), f"{what}: {r.status} {short(r.body)}")
            if r.status == 201 and route.path == "/v1/sandboxes":
                d.ids.add(r.json()["id"])
        else:
            refused(ask(d, route, member.head(), OURS), 403, "forbidden", what)
    each(check)


def test_other_members_keys(d):
    """A plain member sees, changes and deletes no key of somebody else."""
    member, one = WHO["member"], f"/v1/api-keys/{OURS['api_key']}"
    ok(OURS["api_key"] not in [k["id"] for k in member.expect(200, "GET", "/v1/api-keys").json()], "not listed")
    equal(member.ask("GET", one).status, 404, "not shown")
    equal(member.ask("PATCH", one, {"name": "x"}).status, 404, "not changed")
    equal(member.ask("POST", one + "/rotate", {}).status, 404, "not rotated")
    equal(member.ask("DELETE", one).status, 403, "not deleted")


def outcome(d, route, head):
    """What a WebSocket says to its first message: status of the handshake, or the message."""
    path = re.sub(r"\{(\w+)\}", lambda m: OURS[m.group(1)], route.path) + openapi.query_for(route.op)
    try:
        with WebSocket(d.host, d.port, path, headers=head) as ws:
            ws.send_json({"type": "start", "cmd": "/bin/true"})
            message = ws.recv_json()
            while message is not None and message.get("type") == "ping":
                message = ws.recv_json()
            return message
    except HandshakeError as error:
        return error.status


def test_web_sockets(d):
    for route in [r for r in ROUTES if r.auth == "FIRST"]:
        for name in ("expired", "deleted"):
            equal(outcome(d, route, key_head(WHO[name])), 401, f"{route.name} with {name} key")
        equal(outcome(d, route, key_head("av_" + "0" * 40)), 401, f"{route.name} with a key of nobody")
        if route.params:  # else it is about their own
            equal(outcome(d, route, key_head(WHO["foreign"])), 404, f"{route.name} of another team")
        equal(outcome(d, route, key_head(WHO["narrow"][route.scope])), 403, f"{route.name} without the scope")
        r = outcome(d, route, {})
        ok(isinstance(r, dict) and r["type"] == "error", f"{route.name} without a key: {r}")
        ok("auth" in json.dumps(r), f"{route.name} without a key says so: {r}")
        r = outcome(d, route, WHO["member"].head())
        ok(isinstance(r, dict) and r["type"] != "error", f"{route.name} by a member: {r}")


def test_urls_with_tokens(d):
    for route in [r for r in ROUTES if r.auth == "TOKEN"]:
        for head in ({}, key_head(WHO["foreign"]), key_head(WHO["owner"])):
            path = route.path.replace("{id}", OURS["id"]) + "?path=/etc/passwd&token=1.aa"
            r = d.request(route.method, path, b"" if route.method == "PUT" else None, headers=head, key=False)
            ok(r.status in (400, 403), f"{route.name} with a wrong token: {r.status} {short(r.body)}")


def test_tokens_of_hosts(d):
    for route in [r for r in ROUTES if r.auth == "HOST"]:
        for head in ({}, key_head(WHO["owner"]), {"X-Host-Token": WHO["owner"]}, WHO["member"].head(),
                     {"X-Host-Token": WHO["member"].token()}):
            r = d.request(route.method, route.path.replace("{host}", OURS["host"]), headers=head, key=False)
            refused(r, 401, "unauthorized", f"{route.name} without the token of a host")


def test_ports(d):
    """A private port, which nobody serves: who may is told so."""
    def status(head):
        r = d.request("GET", "/", headers={"Host": f"8000-{OURS['id']}.localhost:{d.port}", **head}, key=False)
        return r.status
    for name, head, expected in (("no key", {}, 401), ("a key of nobody", key_head("av_" + "0" * 40), 401),
                                 ("an expired key", key_head(WHO["expired"]), 401),
                                 ("a deleted key", key_head(WHO["deleted"]), 401),
                                 ("another team's", key_head(WHO["foreign"]), 404),
                                 ("no scope", key_head(WHO["narrow"]["sandboxes:write"]), 403),
                                 ("a member", WHO["member"].head(), 502), ("the owner", key_head(WHO["owner"]), 502)):
        equal(status(head), expected, f"a port with {name}")


def test_open_routes_tell_nothing(d):
    for route in [r for r in ROUTES if r.auth == "OPEN" and r.method == "GET"]:
        r = ask(d, route, {}, OURS)
        ok(r.status not in (401, 403), f"{route.name} is open")
        for text in [*SEEN, OURS["team"]]:
            ok(text not in r.body.decode(errors="replace"), f"{route.name} shows {text}")


def test_nothing_of_ours_was_changed(d):
    equal(d.expect(200, "GET", f"/v1/sandboxes/{OURS['id']}").json()["status"], "running", "the sandbox runs")
    processes = d.expect(200, "GET", f"/v1/sandboxes/{OURS['id']}/processes").json()["processes"]
    ok(OURS["selector"] in [p.get("tag") for p in processes], "its process does")
    equal(d.exec(OURS["id"], "ls /tmp/x 2>/dev/null")["stdout"], "", "nobody wrote into it")
    d.expect(200, "GET", "/v1/snapshots/our-template")
    d.expect(200, "GET", "/v1/sandboxes", headers=key_head(OURS["secret"]), key=False)
    detail = d.expect(200, "GET", f"/v1/teams/{OURS['team']}").json()
    equal({m["role"] for m in detail["members"]}, {"owner", "member"}, "the members are as they were")
    WHO["member"].expect(204, "POST", f"/v1/teams/{OURS['team']}/leave")
    equal(WHO["member"].ask("GET", "/v1/sandboxes").status, 401, "who left is out at once")


def test_the_other_team_goes_with_all_it_made(d):
    stranger = WHO["stranger"]
    stranger.expect(204, "DELETE", f"/v1/teams/{stranger.team}")
    equal(d.request("GET", "/v1/sandboxes", headers=key_head(WHO["foreign"]), key=False).status, 401, "its key is gone")
    for log in os.listdir(d.run):
        if log.startswith("sb"):
            d.ids.add(log)


main(globals())
