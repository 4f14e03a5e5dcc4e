#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Agents that lie about the log of their main command: endless, huge, garbage, never. T53.

Each costs its own sandbox its log, and nobody else anything: the sandbox ends with its exit status, at once or when
the time for the log is over, and the daemon holds no more than the log's bound.
"""
import http.client
import json
import os
import sys
import time

import aviary_test
from aviary_test import contains, equal, ok, wait_for

S = "/v1/sandboxes"
LIES = ("flood", "garbage", "huge", "stall")
KIB = 96  # of each log, by an option


def ended(d, sandbox):
    def is_over():
        now = d.expect(200, "GET", f"{S}/{sandbox}").json()
        return now if "stopped_at" in now else None
    return wait_for(is_over, 20, "it has ended")


def works(d):
    sandbox = d.create(command="echo fine; exit 5")["id"]
    equal(ended(d, sandbox)["exit_code"], 5, "another sandbox")
    equal(d.expect(200, "GET", f"{S}/{sandbox}/logs").body, b"fine\n", "and its log")


def test_what_is_saved(d):
    before = d.rss_kib()
    made = {lie: [d.create(command=f"echo {lie}; exit 4")["id"] for _ in range(4)] for lie in LIES}
    for lie, sandboxes in made.items():
        for sandbox in sandboxes:
            now = ended(d, sandbox)
            equal((now["reason"], now["exit_code"]), ("exited", 4), f"{lie}: its end")
            body = d.expect(200, "GET", f"{S}/{sandbox}/logs").body
            ok(len(body) <= KIB * 1024, f"{lie}: {len(body)} bytes")
            ok(lie != "flood" or len(body) > KIB * 1024 // 2, f"{lie}: as much as there may be, {len(body)} bytes")
            ok(lie not in ("garbage", "huge") or body == b"", f"{lie}: nothing of it counts: {body[:40]!r}")
    d.memory_within(before, 30000)
    works(d)


def test_what_is_read(d):
    before = d.rss_kib()
    for lie in LIES[:3]:
        sandbox = d.create(command=f"echo {lie}; sleep 600")["id"]
        time.sleep(0.2)
        c = d.connection(timeout=20)
        c.request("GET", f"{S}/{sandbox}/logs?follow=true&format=json", headers={"X-API-Key": d.key})
        r = c.getresponse()
        if lie == "flood":
            for _ in range(64):
                equal(len(r.read(65536)), 65536, "it goes on")
            c.close()
        else:
            try:
                last = json.loads(r.read().splitlines()[-1])
                equal((last["type"], last["error"]["code"]), ("error", "agent_error"), f"{lie}: {last}")
                contains(last["error"]["message"], "protocol", lie)
            except http.client.HTTPException as error:
                ok(False, f"{lie}: {error!r}")
        d.delete(sandbox)
    never = d.create(command="echo flood; sleep 600")["id"]
    readers = []
    for _ in range(8):  # who ask and never read
        c = d.connection(timeout=20)
        c.request("GET", f"{S}/{never}/logs?follow=true", headers={"X-API-Key": d.key})
        readers.append(c)
    time.sleep(1)
    d.memory_within(before, 60000)
    works(d)
    d.delete(never)
    for c in readers:
        c.close()


if os.geteuid() != 0:
    print("1..0 # SKIP needs root's worker")
    sys.exit(0)
AGENT = os.path.abspath(os.path.join(os.environ["AVIARY_BUILD"], "tests", "fault", "lying_agent"))
aviary_test.main(dict(globals()), args=["--main-log", f"{KIB}K"], spawn_options=f"--agent {AGENT}")
