#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the daemon at every step of a main command and of a stop with grace. T49.

After each death: a create that was answered ends with its exit status and its log; one that was not can be asked
for again with its key; a stop that had begun comes to its end, with the exit status that the command gave.
"""
import os
import signal
import sys

import aviary_test
import death
from aviary_test import Daemon, Failure, cmdline, equal, ok, processes_of, wait_for
from death import failpoints

S = "/v1/sandboxes"
SHORT = {"command": "echo out; exit 3", "files": [{"path": "/tmp/x", "content": "x"}]}
LONG = {"command": "trap 'echo bye; exit 9' TERM; echo up >/tmp/up; while :; do sleep 0.05; done"}


def create(d, body, key):
    return d.request("POST", S, body, headers={"Idempotency-Key": key}, timeout=30)


def listens(d, sandbox):
    wait_for(lambda: d.exec(sandbox, "cat /tmp/up")["exit_code"] == 0, 20, "it listens")


def live_through(d, steps, made):
    r = create(d, SHORT, "short")
    steps.append(f"create {r.status}")
    made["short"] = r.json()["id"]
    ended(d, made["short"], "exited", 3)
    steps.append("ended")
    r = create(d, LONG, "long")
    made["long"] = r.json()["id"]
    listens(d, made["long"])
    steps.append("up")
    made["stopping"] = True
    steps.append(stop(d, made["long"]))


def stop(d, sandbox):
    return f"stop {d.request('POST', S + '/' + sandbox + '/stop', {'grace_sec': 30}, timeout=60).status}"


def ended(d, sandbox, reason, code):
    def is_over():
        now = d.expect(200, "GET", f"{S}/{sandbox}").json()
        return now if "stopped_at" in now else None
    now = wait_for(is_over, 30, "it has ended")
    equal((now["status"], now["reason"], now.get("exit_code")), ("stopped", reason, code), "what became of it")


def log_of(d, sandbox):
    return d.expect(200, "GET", f"{S}/{sandbox}/logs?stream=stdout").body


def die_at(point, _layer):
    d = Daemon(env={"AVIARY_FAILPOINT": f"{point}=kill@1"})
    with death.dying(d, point):
        before, steps, made = death.generation(d), [], {}
        death.attempt(live_through, steps, d, steps, made)
        died = death.who_died(d, before)
        if "short" not in made:
            made["short"] = create(d, SHORT, "short").json()["id"]
        ended(d, made["short"], "exited", 3)
        equal(log_of(d, made["short"]), b"out\n", "its log")
        if "long" in made:
            if "stopping" not in made:
                listens(d, made["long"])
            # Of what was asked for and not recorded nobody knows: asked again it is done, else it goes on by itself.
            if d.expect(200, "GET", f"{S}/{made['long']}").json().get("stopping") is None:
                stop(d, made["long"])
            ended(d, made["long"], "stopped", 9)
            equal(log_of(d, made["long"]), b"bye\n", "its log")
        fresh = d.create()["id"]
        equal(d.exec(fresh, "echo works")["stdout"], "works\n", "after the death")
        d.delete_all()
        death.stops_clean(d)
        return died, steps


def agent_of(d, sandbox):
    for pid in processes_of(d):
        words = cmdline(pid).split(b"\0")
        if len(words) > 1 and words[1] == sandbox.encode() and b"agent" in words[0]:
            return pid
    raise Failure(f"no agent of {sandbox}")


def test_daemon_and_agent_die_and_nobody_saw_the_end(d):
    """What the agent wrote last tells how its main command ended."""
    sandbox = d.create(command="while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 7")["id"]
    killed = d.create(command="sleep 600")["id"]
    d.exec(sandbox, "(sleep 0.7; touch /tmp/go) >/dev/null 2>&1 &")
    agent, other = agent_of(d, sandbox), agent_of(d, killed)
    pids = d.pids()
    os.kill(pids["supervisor"], signal.SIGSTOP)
    try:
        os.kill(pids["daemon"], signal.SIGKILL)
        wait_for(lambda: not children(agent), 20, "its main command has ended")
        os.kill(agent, signal.SIGKILL)
        os.kill(other, signal.SIGKILL)
    finally:
        os.kill(pids["supervisor"], signal.SIGCONT)
    death.ready(d)
    ended(d, sandbox, "exited", 7)
    now = d.expect(200, "GET", f"{S}/{killed}").json()
    equal((now["status"], now["reason"], now["command_state"]), ("stopped", "crash", "killed"), "one that ran")


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
            return f.read().split()
    except OSError:
        return []


def judge(point, _layer, outcome):
    died, steps = outcome
    print(f"# {point}: {', '.join(steps)}")
    ok(died, f"nobody died: the failpoint {point} was not passed")


POINTS = [(p, "control") for p in failpoints("control") if p.startswith(("main.", "stop."))]
if os.geteuid() != 0:
    print("1..0 # SKIP needs root's worker and cgroups")
    sys.exit(0)
names = {n: f for n, f in list(globals().items()) if n.startswith("test_")}
aviary_test.main({**names, **death.tests(POINTS, die_at, judge)})
