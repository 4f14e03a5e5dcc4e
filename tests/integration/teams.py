#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Teams and members as their people use them, what goes with a team, and what administrators of the Aviary may."""
import os
import signal

import death
import people
from aviary_test import contains, equal, main, ok, wait_for

ALL = {}


def test_people(d):
    ann, bob, cid = people.add(d, "ann", "bob", "cid")
    ALL.update(ann=ann, bob=bob, cid=cid)


def test_a_team(d):
    ann = ALL["ann"]
    teams = ann.expect(200, "GET", "/v1/teams").json()
    equal([(t["name"], t["role"]) for t in teams], [("ann's Team", "owner")], "her own team")
    made = ann.expect(201, "POST", "/v1/teams", {"name": "Work_1 - @ann's"}).json()
    equal((made["role"], made["is_byoc"]), ("owner", False), "another")
    ok(len(made["slug"]) == 13 and made["slug"][6] == "-", f"its slug: {made['slug']}")
    for name in ("", "a/b", "x" * 129, "emoji \U0001F426", None, 5):
        equal(ann.ask("POST", "/v1/teams", {"name": name}).status, 400, f"no name: {name!r}")
    ALL["team"] = made["id"]
    equal(ann.ask("GET", f"/v1/teams/{made['id']}").status, 403, "in a session of the other team")
    detail = ann.expect(200, "GET", f"/v1/teams/{made['id']}", team=made["id"]).json()
    equal([m["email"] for m in detail["members"]], ["ann@example.com"], "who is in it")
    ann.expect(204, "PATCH", f"/v1/teams/{made['id']}", {"name": "work"}, team=made["id"])
    equal(ann.expect(200, "GET", f"/v1/teams/{made['id']}", team=made["id"]).json()["team"]["name"], "work", "renamed")
    equal(ann.ask("GET", "/v1/teams/nonsense").status, 400, "no id")
    equal(ALL["bob"].ask("GET", f"/v1/teams/{made['id']}").status, 403, "somebody else's, as one that is not there")


def test_members(d):
    ann, bob, cid, team = ALL["ann"], ALL["bob"], ALL["cid"], ALL["team"]
    path = f"/v1/teams/{team}/members"
    added = ann.expect(201, "POST", path, {"email": "BOB@example.com"}, team=team).json()
    equal((added["user_id"], added["role"], added["email"]), (bob.user, "member", bob.email), "Bob is added")
    equal(ann.ask("POST", path, {"email": bob.email}, team=team).status, 400, "once")
    equal(ann.ask("POST", path, {"email": "nobody@example.com"}, team=team).status, 404, "nobody is not")
    sandbox = bob.expect(201, "POST", "/v1/sandboxes", {}, team=team).json()["id"]
    d.ids.add(sandbox)
    equal([s["id"] for s in ann.expect(200, "GET", "/v1/sandboxes", team=team).json()], [sandbox], "what is the team's")
    equal(ann.expect(200, "GET", "/v1/sandboxes").json(), [], "is not of her other team")
    equal(bob.ask("POST", path, {"email": cid.email}, team=team).status, 403, "a member adds nobody")
    ann.expect(204, "PATCH", f"{path}/{bob.user}", {"role": "admin"}, team=team)
    bob.expect(201, "POST", path, {"email": cid.email}, team=team)
    equal([m["role"] for m in bob.expect(200, "GET", path, team=team).json()], ["owner", "admin", "member"], "in order")
    for role in ("owner", "boss", None):
        equal(bob.ask("PATCH", f"{path}/{cid.user}", {"role": role}, team=team).status, 400, f"no role: {role}")
    equal(bob.ask("PATCH", f"{path}/{ann.user}", {"role": "member"}, team=team).status, 403, "the owner stays that")
    equal(bob.ask("DELETE", f"{path}/{ann.user}", team=team).status, 403, "and stays")
    equal(ann.ask("POST", f"/v1/teams/{team}/leave", team=team).status, 403, "also of her own will")
    equal(bob.ask("DELETE", f"/v1/teams/{team}", team=team).status, 403, "only she deletes it")
    bob.expect(204, "DELETE", f"{path}/{cid.user}", team=team)
    equal(cid.ask("GET", "/v1/sandboxes", team=team).status, 401, "who was removed is out")
    equal(bob.ask("DELETE", f"{path}/{cid.user}", team=team).status, 404, "and not there")


def test_search(d):
    bob = ALL["bob"]
    found = bob.expect(200, "GET", "/v1/users/search?email=Ann%40exa").json()
    equal(found, [{"user_id": ALL["ann"].user, "email": "ann@example.com"}], "by the beginning of an address")
    for query in ("ann", "a@", "", "%40"):
        equal(bob.ask("GET", f"/v1/users/search?email={query}").status, 400, f"too little: {query}")
    equal(bob.expect(200, "GET", "/v1/users/search?email=zz%40").json(), [], "nobody")


def test_what_goes_with_a_team(d):
    """Its owner deletes it: sandboxes end, keys and templates are gone; a death just then changes nothing."""
    ann, bob, team = ALL["ann"], ALL["bob"], ALL["team"]
    sandbox = ann.expect(200, "GET", "/v1/sandboxes", team=team).json()[0]["id"]
    key = bob.expect(201, "POST", "/v1/api-keys", {}, team=team).json()["key"]
    ann.expect(201, "POST", "/v1/snapshots", {"sandbox_id": sandbox, "name": "theirs"}, team=team)
    more = ann.expect(201, "POST", "/v1/sandboxes", {"template": "theirs"}, team=team).json()["id"]
    d.ids.add(more)
    ann.expect(204, "DELETE", f"/v1/teams/{team}", team=team)
    os.kill(d.pids()["daemon"], signal.SIGKILL)
    death.ready(d)
    equal(d.request("GET", "/v1/sandboxes", headers={"X-API-Key": key}, key=False).status, 401, "its key")
    equal(ann.ask("GET", "/v1/sandboxes", team=team).status, 401, "its session")
    wait_for(lambda: not [i for i in os.listdir(d.run) if i in (sandbox, more)], 15, "its sandboxes are gone")
    wait_for(lambda: os.listdir(os.path.join(d.state, "templates")) == ["host"] or not [
        t for t in os.listdir(os.path.join(d.state, "templates")) if t.startswith("tp")], 15, "its template is")
    equal([t["name"] for t in ann.expect(200, "GET", "/v1/teams").json()], ["ann's Team"], "she has her own")


def test_administration(d):
    page = d.expect(200, "GET", "/v1/admin/teams").json()
    equal((page["total"], page["page"], page["total_pages"]), (4, 1, 1), "all teams")
    theirs = {t["name"]: t for t in page["teams"]}["bob's Team"]
    equal((theirs["owner_email"], theirs["member_count"], theirs["active_sandbox_count"]), ("bob@example.com", 1, 0), "Bob's")
    equal(d.expect(200, "GET", "/v1/admin/teams?page=2").json()["teams"], [], "behind the last page")
    path = f"/v1/admin/teams/{theirs['id']}"
    d.expect(204, "PUT", path + "/byoc", {"enabled": True})
    d.expect(400, "PUT", path + "/byoc", {"enabled": False})
    d.expect(204, "PUT", path + "/quota", {"sandboxes": 1})
    bob = ALL["bob"]
    own = bob.expect(200, "GET", f"/v1/teams/{bob.team}").json()["team"]
    equal((own["is_byoc"], own["quota"]["sandboxes"], own["quota"]["cpus"]), (True, 1, None), "Bob sees both")
    for method, rest, body in (("GET", "", None), ("PUT", f"/{bob.team}/quota", {}), ("DELETE", f"/{bob.team}", None)):
        r = bob.ask(method, "/v1/admin/teams" + rest, body)
        equal(r.status, 403, f"{method} is not for him")
        contains(r.message, "administrators", "and says for whom")
    sandbox = bob.expect(201, "POST", "/v1/sandboxes", {}).json()["id"]
    d.ids.add(sandbox)
    equal(bob.ask("POST", "/v1/sandboxes", {}).status, 429, "his quota holds")
    d.expect(204, "DELETE", path)
    wait_for(lambda: sandbox not in os.listdir(d.run), 15, "an administrator deleted his team with its sandbox")
    d.expect(404, "DELETE", path)


main(globals())
