#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Programs of the two older client shapes against a real daemon: sign-up, login, keys, hosts, teams, channels, and everything
that they do with sandboxes. The clients (gen_a.py, gen_b.py) are written from what is known of the wire, not from theirs."""

import datetime
import os
import re
import sys
import urllib.parse

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import gen_a  # noqa: E402
import gen_b  # noqa: E402
from aviary_test import contains, equal, main, ok, wait_for  # noqa: E402
from wire import ApiError, StatusError  # noqa: E402

PASSWORD = "correct horse battery"


def fails(code, function, *args, **kw):
    try:
        function(*args, **kw)
    except ApiError as error:
        equal(error.code, code, f"{function.__name__}: {error}")
        return error
    raise AssertionError(f"{function.__name__} does not fail")


def base(d):
    return f"http://{d.host}:{d.port}/api"  # a prefix, as their default has one


def link(d, email):
    found = re.findall(rf'email="{re.escape(email)}".*?link="([^"]+)"', d.log_text())
    return urllib.parse.parse_qs(urllib.parse.urlsplit(found[-1]).query)["token"][0]


def a_person(d, email, generation=gen_b):
    """Who has signed up, activated and logged in: (client with session and key, login)."""
    url = base(d)
    if generation is gen_a:
        made = gen_a.WrennClient(base_url=url).auth.signup(email, PASSWORD)
        ok(made["token"], "it expects a token at once")
    else:
        ok(gen_b.WrennClient(base_url=url).auth.signup(email, PASSWORD, "A Person")["message"], "a message")
    fails("account_not_activated", generation.WrennClient(base_url=url).auth.login, email, PASSWORD)
    gen_b.WrennClient(base_url=url).auth.activate(link(d, email))
    login = generation.WrennClient(base_url=url).auth.login(email, PASSWORD)
    key = generation.WrennClient(token=login["token"], base_url=url).api_keys.create("mine")
    return generation.WrennClient(api_key=key["key"], token=login["token"], base_url=url), login


def keys(client, login):
    before = len(client.api_keys.list())
    made = client.api_keys.create("another")
    ok(made["key"].startswith(made["key_prefix"][:3]) and len(made["key_prefix"]) == 10, f"prefix {made['key_prefix']}")
    equal(made["team_id"], login["team_id"], "team")
    listed = client.api_keys.list()
    equal((len(listed), listed[0]["id"], "key" in listed[0], listed[0]["creator_email"]),
          (before + 1, made["id"], False, login["email"]), "newest first, without the secret")
    equal(client.api_keys.create()["name"], "Unnamed API Key", "no name")
    for one in client.api_keys.list()[:2]:
        client.api_keys.delete(one["id"])
    client.api_keys.delete(made["id"])  # again
    fails("invalid_request", client.api_keys.delete, "nonsense")
    equal(len(client.api_keys.list()), before, "gone")


def test_older_accounts_and_keys(d):
    client, login = a_person(d, "ann@example.com", gen_a)
    keys(client, login)
    fails("unauthorized", gen_a.WrennClient(base_url=base(d)).auth.login, "ann@example.com", "wrong password")
    fails("unauthorized", gen_a.WrennClient(api_key="wrn_" + "0" * 32, base_url=base(d)).sandboxes.list)
    only = gen_a.WrennClient(token=login["token"], base_url=base(d))
    box = only.sandboxes.create()
    equal(only.sandboxes.get(box.id)["id"], box.id, "with a session alone")
    box.destroy()
    fails("email_taken", client.auth.signup, "ann@example.com", PASSWORD)


def boxes(d, client, pool, make):
    """What both do with one sandbox. d.ids is for the test's last question."""
    with_limits = make(template="minimal", vcpus=1, memory_mb=512, timeout_sec=120)
    d.ids.add(with_limits.id)
    box = make()
    d.ids.add(box.id)
    box.wait_ready()
    contains([b["id"] for b in pool.list()], box.id, "list")
    r = box.exec("echo", ["hi"])  # a bare program, found in PATH
    equal((r["stdout"], r["exit_code"]), ("hi\n", 0), "exec")
    equal(box.exec("/bin/sh", ["-c", "echo e >&2; exit 3"])["exit_code"], 3, "exit code")
    contains(box.exec("printf", ["\\377x"])["stdout"], "x", "bytes")
    events = list(box.exec_stream("/bin/sh", ["-c", "echo one; echo two >&2; exit 5"]))
    equal([events[0]["type"], events[-1]["type"], events[-1]["exit_code"]], ["start", "exit", 5], "exec_stream")
    equal({e["data"] for e in events if e["type"] in ("stdout", "stderr")}, {"one\n", "two\n"}, "its output")
    files(box)
    terminals(box)
    box.ping()
    box.pause()
    equal(box.status, "paused", "pause")
    status_error(409, box.exec, "true")
    status_error(409, box.ping)
    box.resume()
    equal((box.status, box.wait_ready().status), ("running", "running"), "resume")
    with_limits.destroy()
    equal(pool.get(with_limits.id)["status"], "stopped", "after its end")
    fails_either(pool.get, "cl-nonexistent00000000000000000")
    return box


def status_error(status, function, *args):
    try:
        function(*args)
    except StatusError as error:
        equal(error.status, status, function.__name__)
        return
    raise AssertionError(f"{function.__name__} does not fail")


def fails_either(function, what):
    try:
        function(what)
    except ApiError as error:
        ok(error.code in ("not_found", "invalid_request"), f"{what}: {error}")
        return
    raise AssertionError("it is there")


def files(box):
    blob = os.urandom(1 << 20)
    box.upload("/tmp/deep/a", blob)
    ok(box.download("/tmp/deep/a") == blob, "upload, download")
    box.stream_upload("/tmp/deep/b", [blob[:1000], blob[1000:]])
    ok(box.stream_download("/tmp/deep/b") == blob, "the same in a stream")
    equal({e["name"]: e["type"] for e in box.list_dir("/tmp/deep")}, {"a": "file", "b": "file"}, "list_dir")
    equal(box.mkdir("/tmp/deep/dir")["type"], "directory", "mkdir")
    equal(box.mkdir("/tmp/deep/dir")["name"], "dir", "mkdir of what is there")
    box.remove("/tmp/deep")
    status_error(404, box.download, "/tmp/deep/a")
    fails("not_found", box.list_dir, "/tmp/deep")
    fails("not_found", box.remove, "/tmp/deep")


def terminals(box):
    pty = box.pty(envs={"WHO": "older"})
    pty.resize(100, 30)
    pty.write(b"echo $WHO-$((40+2)); stty size\n")
    contains(pty.read_until(b"30 100"), b"older-42", "a terminal with its environment and size")
    ok(re.fullmatch("pty-[0-9a-f]{8}", pty.tag), pty.tag)
    pty.close()
    again = box.pty_connect(pty.tag)
    again.write(b"echo $((1+1))-again; exit 7\n")
    events = list(again.events())
    equal((events[-1]["type"], events[-1]["exit_code"]), ("exit", 7), "attached again by its tag")
    again.write(b"late")  # after the end: dropped
    again.close()


def snapshots(client, box):
    made = client.snapshots.create(box.id, "older")
    equal((made["name"], made["type"]), ("older", "snapshot"), "snapshot")
    box.resume()
    fails("conflict", client.snapshots.create, box.id, "older")
    client.snapshots.create(box.id, "older", overwrite=True)
    contains([t["name"] for t in client.snapshots.list("snapshot")], "older", "listed")
    equal(client.snapshots.list("no such type"), [], "an unknown type")
    contains([t["name"] for t in client.snapshots.list("base")], "host", "built in")
    client.snapshots.delete("older")
    fails("not_found", client.snapshots.delete, "older")
    fails("forbidden", client.snapshots.delete, "minimal")
    box.resume()


def test_older_sandboxes(d):
    client, _ = a_person(d, "abe@example.com", gen_a)
    box = boxes(d, client, client.sandboxes, client.sandboxes.create)
    try:
        snapshots(client, box)
    finally:
        box.destroy()
    coder = client.sandboxes.create(template="python-interpreter-v0-beta").wait_ready()
    d.ids.add(coder.id)
    code(coder)
    coder.destroy()


def code(box):
    equal(box.run_code("x = 6 * 7\nprint('out')\nx")["text"], "42", "run_code")
    r = box.run_code("print(x); import sys; print('err', file=sys.stderr)")
    equal((r["stdout"], r["stderr"], r["error"]), ("42\n", "err\n", None), "what was set is there")
    contains(box.run_code("1/0")["error"], "ZeroDivisionError", "an error")


def test_capsules(d):
    client, _ = a_person(d, "bea@example.com")
    box = boxes(d, client, client.capsules, client.capsules.create)
    tag = box.exec_background("/bin/sh", ["-c", "echo up; sleep 100"], tag="job")
    ok(tag["pid"] > 0 and tag["tag"] == "job", f"background: {tag}")
    wait_for(lambda: "job" in [p.get("tag") for p in box.processes()], 5, "it is listed")
    equal(next(box.process_stream("job"))["type"], "start", "attached")
    box.kill("job", "SIGKILL")
    wait_for(lambda: "job" not in [p.get("tag") for p in box.processes()], 5, "killed")
    fails("not_found", box.kill, "job")
    equal(client.capsules.stats("5m")["range"], "5m", "stats")
    fails("invalid_request", client.capsules.stats, "1y")
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    client.capsules.usage(today, today)
    equal(box.metrics("10m")["sandbox_id"], box.id, "metrics")
    try:
        snapshots(client, box)
    finally:
        box.destroy()
    coder = client.capsules.create(template="code-runner-beta").wait_ready()
    d.ids.add(coder.id)
    code(coder)
    coder.destroy()


def test_accounts_users_teams(d):
    client, login = a_person(d, "bob@example.com")
    other, other_login = a_person(d, "bill@example.com")
    keys(client, login)
    me = client.account.get()
    equal((me["email"], me["has_password"], me["providers"]), ("bob@example.com", True, []), "me")
    equal(client.account.rename("Bob B.")["name"], "Bob B.", "rename")
    equal([u["email"] for u in client.users.search("bill@")], ["bill@example.com"], "search")
    fails("invalid_request", client.users.search, "b")
    team = client.teams.create("A second team")
    equal(team["role"], "owner", "created")
    equal({t["name"] for t in client.teams.list()} >= {"A second team"}, True, "listed")
    fails("forbidden", client.teams.get, team["id"])  # not the session's
    moved = client.auth.switch_team(team["id"])
    second = gen_b.WrennClient(token=moved["token"], base_url=base(d))
    equal([m["role"] for m in second.teams.get(team["id"])["members"]], ["owner"], "members")
    equal(second.teams.add(team["id"], "bill@example.com")["role"], "member", "added")
    fails("invalid_request", second.teams.add, team["id"], "bill@example.com")
    fails("not_found", second.teams.add, team["id"], "nobody@example.com")
    second.teams.set_role(team["id"], other_login["user_id"], "admin")
    equal({m["email"]: m["role"] for m in second.teams.members(team["id"])},
          {"bob@example.com": "owner", "bill@example.com": "admin"}, "roles")
    fails("forbidden", second.teams.leave, team["id"])
    there = other.auth.switch_team(team["id"])
    theirs = gen_b.WrennClient(token=there["token"], base_url=base(d))
    theirs.teams.rename(team["id"], "Renamed")
    theirs.teams.leave(team["id"])
    fails("unauthorized", theirs.teams.list)
    second.teams.delete(team["id"])
    fails("not_found", client.auth.switch_team, team["id"])
    fails("wrong_password", client.account.password, current_password="no", new_password="another password")
    client.account.password(current_password=PASSWORD, new_password="another password")
    fails("unauthorized", client.account.get)
    again = client.auth.login("bob@example.com", "another password")
    gen_b.WrennClient(token=again["token"], base_url=base(d)).account.delete("BOB@example.com")
    fails("unauthorized", client.auth.login, "bob@example.com", "another password")


def test_channels(d):
    client, _ = a_person(d, "bess@example.com")
    hook = {"url": "https://hooks.example.com/x"}
    made = client.channels.create("My Hook", "webhook", hook, ["capsule.created", "host.up"])
    equal((made["name"], len(made["secret"])), ("my-hook", 64), "created")
    equal(client.channels.get(made["id"]).get("secret"), None, "the secret once")
    fails("conflict", client.channels.create, "my-hook", "webhook", hook, ["host.up"])
    fails("invalid_request", client.channels.create, "x", "webhook", hook, ["no.such"])
    equal(client.channels.update(made["id"], "other", ["capsule.paused"])["events"], ["capsule.paused"], "update")
    client.channels.configure(made["id"], {"url": "https://hooks.example.com/y"})
    equal(len(client.channels.list()), 1, "list")
    client.channels.delete(made["id"])
    fails("not_found", client.channels.get, made["id"])


def hosts(d, client):
    """client is an administrator's."""
    local = [h for h in client.hosts.list() if h["status"] == "online"][0]
    equal(local["type"], "regular", "this machine")
    made = client.hosts.create("regular", provider="metal", availability_zone="cellar")
    h = made["host"]["id"]
    equal(made["host"]["status"], "pending", "pending")
    token = client.hosts.regenerate_token(h)["registration_token"]
    fails("unauthorized", client.hosts.register, made["registration_token"], "192.0.2.7:9000")
    given = client.hosts.register(token, "192.0.2.7:9000", arch="amd64", cpu_cores=4, memory_mb=8192, disk_gb=100)
    client.hosts.heartbeat(h, given["token"])
    given = client.hosts.refresh(given["refresh_token"])
    client.hosts.heartbeat(h, given["token"])
    equal((client.hosts.get(h)["status"], client.hosts.get(h)["address"]), ("online", "192.0.2.7:9000"), "registered")
    fails("invalid_request", client.hosts.regenerate_token, h)
    client.hosts.add_tag(h, "gpu")
    equal(client.hosts.list_tags(h), ["gpu"], "tags")
    client.hosts.remove_tag(h, "gpu")
    equal(client.hosts.list_tags(h), [], "none")
    client.hosts.delete(h)
    fails("not_found", client.hosts.get, h)
    fails("not_found", client.hosts.heartbeat, h, given["token"])
    return local["id"]


def test_hosts(d):
    # The first key is an administrator's.
    older = gen_a.WrennClient(api_key=d.key, base_url=base(d))
    local = hosts(d, older)
    box = d.create()["id"]
    error = fails("host_has_sandboxes", older.hosts.delete, local)
    equal(error.sandbox_ids, [box], "whose ids are read beside the error")
    d.delete(box)
    # This one sends no key to /v1/hosts, so it needs the session of an administrator.
    client, login = a_person(d, "root@example.com")
    d.expect(200, "PATCH", f"/v1/admin/users/{login['user_id']}", {"is_admin": True})
    local = hosts(d, client)
    box = d.create()["id"]
    equal(client.hosts.delete_preview(local)["sandbox_ids"], [box], "preview")
    equal(fails("host_has_sandboxes", client.hosts.delete, local).sandbox_ids, [box], "the ids")
    fails("invalid_state", client.hosts.delete, local, force=True)
    d.delete(box)
    plain, _ = a_person(d, "plain@example.com")
    equal(plain.hosts.list(), [], "not for everybody")
    fails("forbidden", plain.hosts.create, "regular")
    fails("not_found", plain.hosts.get, local)


for test in (test_older_sandboxes, test_capsules):
    test.timeout_s = 150

if __name__ == "__main__":
    main(dict(globals()))
