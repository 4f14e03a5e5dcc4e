# SPDX-License-Identifier: Apache-2.0
"""One death at one failpoint: what the tests that kill daemon and worker step by step have in common."""
import concurrent.futures
import contextlib
import glob
import http.client
import os
import re
import time

from aviary_test import Failure, cgroups_of, ok, processes_of, wait_for

SRC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src")


def failpoints(layer):
    """Names of the failpoints that a layer documents."""
    names = []
    for path in glob.glob(os.path.join(SRC, layer, "failpoints.def")):
        with open(path, encoding="utf-8") as f:
            names += re.findall(r'^\w*FAILPOINT\w*\([^"\n]*"([a-z0-9_.]+)"', f.read(), re.M)
    return names


def ready(d, timeout_s=30):
    def probe():
        try:
            return d.request("GET", "/ready", key=False, timeout=5).status == 200
        except (OSError, http.client.HTTPException):
            return False
    wait_for(probe, timeout_s, "ready again")


def generation(d):
    """Who can die: pids by role."""
    return {r: p for r, p in d.pids().items() if r != "supervisor"}


def attempt(live, steps, *args):
    """Lives through what live does, as far as that goes; steps gets what was answered, and how it broke off."""
    try:
        live(*args)
    except (OSError, http.client.HTTPException) as error:
        steps.append(type(error).__name__)


def who_died(d, before):
    """When everything is back: the roles that are others now."""
    ready(d)
    time.sleep(0.1)
    ready(d)
    return [r for r, p in generation(d).items() if before.get(r) != p]


def stops_clean(d):
    d.stop()
    left = {"processes": processes_of(d), "cgroups": cgroups_of(d)}
    ok(not any(left.values()), f"left behind: {left}")


@contextlib.contextmanager
def dying(d, point):
    """Starts d, which will die at the point; shows its log when something is wrong, and leaves nothing."""
    try:
        d.start()
        yield
    except Failure:
        print(f"# log of the daemon that died at {point}:")
        for line in d.log_tail(25).splitlines():
            print(f"# {line}")
        raise
    finally:
        d.kill()
        d.remove_dir()


def tests(points, die_at, judge):
    """A test for each (point, of): die_at(point, of) in a thread, then judge(point, of, what it returned)."""
    pool, deaths = concurrent.futures.ThreadPoolExecutor(max_workers=4), {}

    def make(point, of):
        def test(_d):
            # Each death has a daemon of its own and mostly waits: all start with the first test of them.
            for p, o in points:
                if p not in deaths:
                    deaths[p] = pool.submit(die_at, p, o)
            judge(point, of, deaths[point].result())
        test.__name__ = f"test_death_at_{of}_{point}"
        test.timeout_s = 120
        return test
    made = [make(point, of) for point, of in points]
    return {t.__name__: t for t in made}
