#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The machine's clock is set a year forth, two years back and right again, under a real daemon with sandboxes. T46.

Only where AVIARY_MAY_SET_CLOCK says that nobody else lives by that clock: in a virtual machine (tests/qemu).
What is told of the same by a clock of the test's own: unit/test_clock.
"""
import os
import sys
import time

from aviary_test import SLOW, equal, main, ok, wait_for

YEAR_S = 365 * 86400


def set_clock(seconds):
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)


def pages(d):
    """Ids of all there is and was, in pages of three."""
    seen, cursor = [], ""
    for _ in range(50):
        r = d.expect(200, "GET", f"/v1/sandboxes?status=all&limit=3{cursor}")
        seen += [s["id"] for s in r.json()]
        after = {k.lower(): v for k, v in r.headers.items()}.get("x-next-cursor")
        if not after:
            return seen
        cursor = f"&cursor={after}"
    return seen


def test_the_clock_is_set(d):
    forever = d.create()["id"]
    idle = d.create(timeout_sec=600)["id"]
    life = d.create(max_lifetime_sec=600)["id"]
    past = d.create()["id"]
    d.delete(past)
    known = {forever, idle, life, past}
    for jump in (YEAR_S, -2 * YEAR_S, YEAR_S):
        set_clock(jump)
        time.sleep(12)  # the daemon looks at its clocks every ten seconds
        for sandbox in (forever, idle, life):
            equal(d.exec(sandbox, "echo alive")["stdout"], "alive\n", f"{jump:+} s: it runs")
        other = d.create()["id"]
        d.delete(other)
        known.add(other)
        for sandbox in known:
            d.expect(200, "GET", f"/v1/sandboxes/{sandbox}")
        seen = pages(d)
        equal(sorted(seen), sorted(known), f"{jump:+} s: pages hold each once")
        d.expect(200, "GET", "/v1/sandboxes/usage")
    ok("the host's clock was set" in d.log_text(), "it is told")
    short = d.create(timeout_sec=60, on_timeout="delete")["id"]
    soon = d.create(max_lifetime_sec=5)["id"]
    set_clock(-YEAR_S)
    wait_for(lambda: d.expect(200, "GET", f"/v1/sandboxes/{soon}").json()["status"] == "stopped", 20 * SLOW,
             "a lifetime of five seconds is that long while the clock goes back")
    equal(d.expect(200, "GET", f"/v1/sandboxes/{short}").json()["status"], "running", "and another one is not over")
    set_clock(YEAR_S)


test_the_clock_is_set.timeout_s = 150

if __name__ == "__main__":
    if not os.environ.get("AVIARY_MAY_SET_CLOCK"):
        print("1..0 # SKIP would set this machine's clock (AVIARY_MAY_SET_CLOCK)")
        sys.exit(0)
    main(dict(globals()))
