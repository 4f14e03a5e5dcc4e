#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What sandboxes used over time: points of one, loads and days of the team, sums for Prometheus."""

import datetime
import os
import signal
import time

from aviary_test import contains, equal, main, ok, wait_for


def points(d, sandbox_id, query=""):
    r = d.expect(200, "GET", f"/v1/capsules/{sandbox_id}/metrics{query}").json()
    equal(r["sandbox_id"], sandbox_id, "whose they are")
    return r["points"]


def test_points_of_a_busy_sandbox(d):
    sb = d.create(cpus=0.2, memory_mb=128)["id"]
    equal(points(d, sb), [], "none yet")
    d.exec(sb, "head -c 40000000 /dev/zero > /dev/shm/x")
    d.expect(202, "POST", f"/v1/sandboxes/{sb}/exec",
             {"cmd": "/bin/sh", "args": ["-c", "while :; do :; done"], "background": True})
    wait_for(lambda: any(p["cpu_pct"] > 50 and p["mem_bytes"] >= 40000000 for p in points(d, sb)), 30,
             "a busy loop and its memory are seen")
    for p in points(d, sb):
        ok(0 <= p["cpu_pct"] <= 100, f"{p['cpu_pct']} % of all its processors")
        ok(p["mem_bytes"] <= 128 << 20, "memory within its limit")
        ok(isinstance(p["timestamp_unix"], int) and abs(p["timestamp_unix"] - time.time()) < 120, "when")
        ok(isinstance(p["disk_bytes"], int), "disk")
    for name, step in (("5m", 1), ("10m", 1), ("1h", 30), ("2h", 30), ("6h", 300), ("12h", 300), ("24h", 300)):
        r = d.expect(200, "GET", f"/v1/sandboxes/{sb}/metrics?range={name}").json()
        equal(r["range"], name, "range")
        stamps = [p["timestamp_unix"] for p in r["points"]]
        equal(stamps, sorted(set(stamps)), f"{name}: in order, one a step")
        ok(stamps and all(t % step == 0 for t in stamps), f"{name}: steps of {step} s")
    d.delete(sb)
    d.expect(200, "GET", f"/v1/sandboxes/{sb}/metrics")


def test_points_go_on_in_a_new_daemon(d):
    sb = d.create()["id"]
    wait_for(lambda: len(points(d, sb)) >= 2, 30, "points")
    os.kill(d.pids()["daemon"], signal.SIGKILL)
    begun = time.time()
    wait_for(lambda: _ready(d), 30, "the next daemon")
    wait_for(lambda: [p for p in points(d, sb) if p["timestamp_unix"] > begun], 30, "new points")
    d.delete(sb)


def _ready(d):
    try:
        return d.request("GET", "/ready", key=False).status == 200
    except OSError:
        return False


def test_stats_and_usage_of_the_team(d):
    before = d.expect(200, "GET", "/v1/sandboxes/stats").json()
    equal(before["range"], "1h", "the range meant when none is given")
    made = [d.create(cpus=1.5, memory_mb=100)["id"] for _ in range(2)]
    stats = d.expect(200, "GET", "/v1/capsules/stats?range=5m").json()
    equal(stats["current"], {"running_count": 2, "vcpus_reserved": 3, "memory_mb_reserved": 200}, "now")
    ok(stats["peaks"]["running_count"] >= 2 and stats["peaks"]["vcpus"] >= 3 and
       stats["peaks"]["memory_mb"] >= 200, "peaks")
    series = stats["series"]
    equal({len(v) for v in series.values()}, {100}, "a hundred intervals of three seconds")
    ok(series["running"][-1] >= 2 and series["vcpus"][-1] >= 3 and series["memory_mb"][-1] >= 200, "the last one")
    for label in series["labels"]:
        ok(datetime.datetime.fromisoformat(label.replace("Z", "+00:00")).tzinfo, "labels are times")
    for name, n in (("1h", 120), ("6h", 120), ("24h", 120), ("30d", 120)):
        r = d.expect(200, "GET", f"/v1/sandboxes/stats?range={name}").json()
        equal((len(r["series"]["labels"]), r["series"]["running"][-1] >= 2), (n, True), name)
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    wait_for(lambda: d.expect(200, "GET", "/v1/sandboxes/usage").json()["points"], 10, "usage")
    usage = d.expect(200, "GET", "/v1/sandboxes/usage").json()
    ok(usage["points"][-1]["date"] in (today, usage["to"]), "today is there")
    ok(usage["points"][-1]["cpu_minutes"] > 0 and usage["points"][-1]["ram_mb_minutes"] > 0, "minutes")
    one = d.expect(200, "GET", "/v1/sandboxes/usage?from=2020-01-01&to=2020-01-31").json()
    equal(one, {"from": "2020-01-01", "to": "2020-01-31", "points": []}, "days without data")
    for sandbox in made:
        d.delete(sandbox)
    equal(d.expect(200, "GET", "/v1/sandboxes/stats").json()["current"]["running_count"], 0, "afterwards")
    ok(d.expect(200, "GET", "/v1/sandboxes/stats?range=5m").json()["series"]["running"][-1] <= 2, "series")


def test_usage_outlives_a_killed_daemon(d):
    sb = d.create(cpus=1)["id"]

    def minutes():
        return sum(p["cpu_minutes"] for p in d.expect(200, "GET", "/v1/sandboxes/usage").json()["points"])

    before = minutes()
    wait_for(lambda: "aviary_reserved_cpus" in d.metrics(), 5, "metrics")
    time.sleep(11)  # a write comes every ten seconds
    os.kill(d.pids()["daemon"], signal.SIGKILL)
    wait_for(lambda: _ready(d), 30, "the next daemon")
    wait_for(lambda: minutes() >= before + 11 / 60 * 0.8, 10, "what was reserved before is not forgotten")
    d.delete(sb)


test_usage_outlives_a_killed_daemon.timeout_s = 90


def test_wrong_questions(d):
    sb = d.create()["id"]
    for path, part in ((f"/v1/sandboxes/{sb}/metrics?range=3m", "10m, 5m, 1h"), ("/v1/sandboxes/stats?range=2h", "30d"),
                       ("/v1/sandboxes/stats?range=", "1h, 5m"), ("/v1/sandboxes/usage?from=yesterday", "YYYY-MM-DD"),
                       ("/v1/sandboxes/usage?from=2026-02-30", "YYYY-MM-DD"),
                       ("/v1/sandboxes/usage?to=1969-12-31", "1970-01-01"),
                       ("/v1/sandboxes/usage?from=2025-01-02&to=2025-01-01", "later day"),
                       ("/v1/sandboxes/usage?from=2025-01-01&to=2025-04-03", "at most 92")):
        r = d.expect(400, "GET", path)
        equal(r.code, "invalid_request", path)
        contains(r.message, part, path)
    d.expect(200, "GET", "/v1/sandboxes/usage?from=2025-01-01&to=2025-04-02")
    unknown = "sb" + "0" * 25
    d.expect(404, "GET", f"/v1/sandboxes/{unknown}/metrics")
    d.expect(400, "GET", "/v1/sandboxes/nonsense/metrics")
    d.expect(401, "GET", "/v1/sandboxes/stats", key=False)
    d.delete(sb)


def test_sums_without_labels(d):
    sb = d.create(memory_mb=64)["id"]
    wait_for(lambda: d.metrics()["aviary_sampled_sandboxes"] >= 1, 30, "a round")
    values = d.metrics()
    ok(values["aviary_sandboxes_memory_bytes"] > 0, "memory")
    equal(values["aviary_reserved_memory_bytes"], 64 << 20, "reserved")
    ok(not [name for name in values if "sb" + "0" in name or sb in name], "no sandbox is a label")
    d.delete(sb)


if __name__ == "__main__":
    main(dict(globals()))
