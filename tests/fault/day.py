#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A day's operation, pressed together: many users of several teams make, use and delete sandboxes while things die,
hang and are attacked. Nobody may get a wrong answer, and at the end everything is as it was. T55, T49, T41.

    day.py [--users N] [--sandboxes N] [--seconds S]    default 6, 150, 25; the soak run: 50, 20,000, 600

The sandboxes are spread over that time; when the machine is slower, it takes longer.
"""
import collections
import glob
import http.client
import http.server
import json
import os
import random
import signal
import sys
import threading
import time
import uuid

import aviary_test
from aviary_test import Failure, equal, ok, short, wait_for


def option(name, default):
    if name not in sys.argv:
        return default
    at = sys.argv.index(name)
    value = int(sys.argv[at + 1])
    del sys.argv[at:at + 2]
    return value


USERS, SANDBOXES, SECONDS = option("--users", 6), option("--sandboxes", 150), option("--seconds", 25)
THREADS = 12
POOL = 8
SEED = int(os.environ.get("AVIARY_TEST_SEED", time.time_ns() % 10**6))
FAILURE_EVERY_S = max(3, SECONDS // 20)
# What a request may be answered with while daemon and worker die: the client tries again.
PASSING = {429, 500, 502, 503, 504}
PATIENCE_S = 60


class Receiver:
    """Takes webhooks; for a while it may refuse or hang."""

    def __init__(self):
        self.events, self.lock, self.mode = collections.Counter(), threading.Lock(), "take"
        self.told = collections.defaultdict(set)  # ids by event
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):  # pylint: disable=invalid-name
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if receiver.mode == "hang":
                    time.sleep(2)
                status = 500 if receiver.mode == "refuse" else 200
                if status == 200:
                    event = json.loads(body)
                    with receiver.lock:
                        receiver.events[event["event"]] += 1
                        receiver.told[event["event"]].add(event["resource"]["id"])
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args):  # pylint: disable=arguments-differ
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


class User:
    """Somebody with a key of their own, who works in their own team."""

    def __init__(self, d, number):
        self.d, self.number, self.has_channel = d, number, False
        email, password = f"user{number}@example.com", f"a long password {number}"
        r = d.expect(201, "POST", "/v1/auth/signup", {"email": email, "password": password, "name": f"User {number}"},
                     key=False)
        self.session = {"Authorization": f"Bearer {r.json()['token']}"}
        self.team = r.json()["team_id"]
        self.key = d.expect(201, "POST", "/v1/api-keys", {"name": "day"}, headers=self.session, key=False).json()["key"]

    def ask(self, method, path, body=None, good=(200, 201, 202, 204), headers=None):
        """Until there is an answer that means something: what dies meanwhile comes back."""
        end = time.monotonic() + PATIENCE_S
        head = {"X-API-Key": self.key, **(headers or {})}
        while True:
            try:
                r = self.d.request(method, path, body, headers=head, key=False, timeout=30)
                if r.status in good:
                    return r
                if r.status not in PASSING:
                    raise Failure(f"{method} {path}: {r.status} {short(r.body)}")
                last = f"{r.status} {short(r.body)}"
            except (OSError, http.client.HTTPException) as error:
                last = repr(error)
            if time.monotonic() > end:
                raise Failure(f"{method} {path}: for {PATIENCE_S} s only {last}")
            time.sleep(0.2)


class Day:
    def __init__(self, d):
        self.d, self.receiver, self.random = d, Receiver(), random.Random(SEED)
        self.failures, self.lock = [], threading.Lock()
        self.made = self.lost = 0
        self.done = threading.Event()
        self.began = time.monotonic()
        self.counts = collections.Counter()
        self.expected = set()  # sandboxes that the receiver is to be told of

    # -- what users do ----------------------------------------------------------------------------

    def create(self, user, **body):
        """Exactly one sandbox, however often it is asked for."""
        head = {"Idempotency-Key": uuid.uuid4().hex}
        made = user.ask("POST", "/v1/sandboxes", {"memory_mb": 128, "disk_mb": 64, **body}, headers=head).json()["id"]
        if user.has_channel:
            with self.lock:
                self.expected.add(made)
        return made

    def inside(self, user, sandbox, method, path, body=None, good=(200, 201, 202, 204)):
        """None when the sandbox is gone or does not run: an agent was killed, which ends it with a reason."""
        r = user.ask(method, f"/v1/sandboxes/{sandbox}{path}", body, good=(*good, 404, 409))
        if r.status in good:
            return r
        state = user.ask("GET", f"/v1/sandboxes/{sandbox}").json()
        ok(state["status"] in ("stopped", "error"), f"{path}: {r.status} {short(r.body)}, but {state['status']}")
        with self.lock:
            self.lost += 1
        return None

    def echo(self, user, sandbox, text):
        r = self.inside(user, sandbox, "POST", "/exec", {"cmd": "/bin/echo", "args": [text]})
        if r and r.json()["exit_code"] == 0:
            equal(r.json()["stdout"], f"{text}\n", "an echo")
        return r

    def life_short(self, user, sandbox):
        self.echo(user, sandbox, sandbox)

    def life_files(self, user, sandbox):
        data = os.urandom(20000)
        if self.inside(user, sandbox, "PUT", "/files?path=/root/x", data):
            r = self.inside(user, sandbox, "GET", "/files?path=/root/x")
            ok(r is None or r.body == data, "a file comes back as it was")

    def life_paused(self, user, sandbox):
        if self.inside(user, sandbox, "POST", "/pause", good=(200, 409)):
            self.inside(user, sandbox, "POST", "/resume", good=(200, 409))
            self.echo(user, sandbox, "again")

    def life_background(self, user, sandbox):
        self.inside(user, sandbox, "POST", "/exec", {"cmd": "/bin/sleep", "args": ["30"], "background": True})
        self.inside(user, sandbox, "GET", "/processes")

    def life_snapshot(self, user, sandbox):
        name = f"snap-{sandbox[2:20]}"
        r = user.ask("POST", "/v1/snapshots?overwrite=true", {"sandbox_id": sandbox, "name": name}, good=(201, 404, 409))
        if r.status == 201:
            copy = self.create(user, template=name)
            self.echo(user, copy, "copy")
            user.ask("DELETE", f"/v1/sandboxes/{copy}")
        user.ask("DELETE", f"/v1/snapshots/{name}", good=(204, 404))

    LIVES = [(life_short, 78), (life_files, 10), (life_paused, 6), (life_background, 4), (life_snapshot, 2)]

    def one(self, user, rnd):
        left_alone = rnd.random() < 0.03  # its lifetime ends it
        sandbox = self.create(user, **({"max_lifetime_sec": 5} if left_alone else {}))
        life = rnd.choices([f for f, _ in self.LIVES], [w for _, w in self.LIVES])[0]
        if left_alone:
            return
        life(self, user, sandbox)
        user.ask("DELETE", f"/v1/sandboxes/{sandbox}")

    def work(self, users, seed):
        rnd = random.Random(seed)
        while not self.failures:
            with self.lock:
                if self.made >= SANDBOXES:
                    return
                self.made += 1
                due = self.began + self.made * SECONDS / SANDBOXES
            time.sleep(max(0, due - time.monotonic()))
            try:
                self.one(rnd.choice(users), rnd)
            except Exception as error:  # pylint: disable=broad-except
                self.failures.append(error)

    # -- what goes wrong --------------------------------------------------------------------------

    def kill_daemon(self):
        os.kill(self.d.pids()["daemon"], signal.SIGKILL)

    def kill_worker(self):
        os.kill(self.d.pids()["worker"], signal.SIGKILL)

    def stall_daemon(self):
        pid = self.d.pids()["daemon"]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(1.5)
        os.kill(pid, signal.SIGCONT)

    def kill_agent(self):
        """Of a sandbox that somebody uses: it ends, with a reason."""
        agents = [p for p in aviary_test.processes_of(self.d) if aviary_test.cmdline(p).startswith(b"aviary-agent")]
        if agents:
            os.kill(self.random.choice(agents), signal.SIGKILL)

    def receiver_refuses(self):
        self.receiver.mode = "refuse"
        time.sleep(3)
        self.receiver.mode = "take"

    def receiver_hangs(self):
        self.receiver.mode = "hang"
        time.sleep(3)
        self.receiver.mode = "take"

    def attack(self):
        """Somebody tries passwords and keys, and sends garbage."""
        for i in range(50):
            try:
                self.d.request("POST", "/v1/auth/login", {"email": "user0@example.com", "password": f"guess {i}"}, key=False)
                self.d.request("GET", "/v1/sandboxes", headers={"X-API-Key": f"av_{i:040x}"}, key=False)
                self.d.raw(b"\x16\x03\x01" + os.urandom(64), timeout=2)
            except (OSError, http.client.HTTPException):
                pass

    def disturb(self):
        kinds = [self.kill_daemon, self.kill_worker, self.stall_daemon, self.receiver_refuses, self.receiver_hangs,
                 self.attack, self.kill_agent]
        while not self.done.wait(FAILURE_EVERY_S):
            kind = kinds[sum(self.counts.values()) % len(kinds)]
            try:
                kind()
                self.counts[kind.__name__] += 1
            except (OSError, KeyError):
                pass  # it was dead already


def census(d):
    pids = d.pids()
    status = {role: open(f"/proc/{pid}/status", encoding="ascii").read() for role, pid in pids.items()}
    rss = {role: int(text.split("VmRSS:")[1].split()[0]) for role, text in status.items()}
    size = sum(os.path.getsize(p) for p in glob.glob(os.path.join(d.state, "db", "*")))
    image = os.path.join(d.state, "disk.img")
    return {
        "descriptors of the daemon": len(os.listdir(f"/proc/{pids['daemon']}/fd")),
        "descriptors of the worker": len(os.listdir(f"/proc/{pids['worker']}/fd")),
        "entries of the run directory": len(os.listdir(d.run)),
        "entries of sandboxes/": len(os.listdir(os.path.join(d.state, "sandboxes"))),
        "mounts of the worker": sum(1 for _ in open(f"/proc/{pids['worker']}/mountinfo", "rb")),
        "cgroups": len(aviary_test.cgroups_of(d)),
        # What streams of events may still want of each team is bounded, and fills up.
        "rss of the daemon, KiB": rss["daemon"] - int(d.metrics()['aviary_buffer_bytes{buffer="events"}']) // 1024,
        "rss of the worker, KiB": rss["worker"],
        "database, KiB": size // 1024,
        "disk image, KiB": os.stat(image).st_blocks // 2 if os.path.exists(image) else 0,
    }


# What may be more than before: the pool is full or not, and what it has ready is open.
SLACK = {"rss of the daemon, KiB": 8192, "rss of the worker, KiB": 2048, "descriptors of the daemon": 12 + 2 * POOL,
         "descriptors of the worker": 6 * POOL, "entries of the run directory": POOL, "cgroups": 4 * POOL,
         "entries of sandboxes/": POOL,
         # History, audit log and events of what was done: bounded by number, not by time.
         "database, KiB": 8192 + SANDBOXES * 6, "disk image, KiB": 512 * 1024}


def everything_gone(d, users):
    for user in users:
        if user.ask("GET", "/v1/sandboxes").json():
            return False
    return True


def test_a_day(d):
    print(f"# seed {SEED}")
    day = Day(d)
    users = [User(d, n) for n in range(USERS)]
    for user in users[:5]:
        d.expect(201, "POST", "/v1/channels", {"name": "day", "provider": "webhook", "config": {"url": day.receiver.url},
                                               "events": ["capsule.created", "capsule.destroyed"]},
                 headers=user.session, key=False)
        user.has_channel = True
    for user in users:
        for _ in range(2):
            day.one(user, random.Random(SEED))
    wait_for(lambda: everything_gone(d, users), 30, "the end of the first ones")
    time.sleep(2)
    before = census(d)
    threads = [threading.Thread(target=day.work, args=(users, SEED + i)) for i in range(THREADS)]
    disturber = threading.Thread(target=day.disturb)
    for t in [*threads, disturber]:
        t.start()
    for t in threads:
        t.join()
    day.done.set()
    disturber.join()
    took = time.monotonic() - day.began
    print(f"# {day.made} sandboxes of {USERS} users in {took:.0f} s; {day.lost} times one was gone; {dict(day.counts)}; "
          f"webhooks {dict(day.receiver.events)}")
    if day.failures:
        raise day.failures[0]
    wait_for(lambda: everything_gone(d, users), 60, "no sandbox of anybody is left")
    told = day.receiver.told
    wait_for(lambda: day.expected <= told["capsule.created"] & told["capsule.destroyed"], 60,
             f"the receiver is told of all {len(day.expected)} sandboxes, not only of those that "
             f"{ {k: len(v) for k, v in told.items()} }")

    def settled():
        after = census(d)
        return all(after[k] <= before[k] + SLACK.get(k, 0) for k in before)

    try:
        wait_for(settled, 60, "everything as before")
    finally:
        after = census(d)
        for k, value in before.items():
            print(f"#   {k}: {value} -> {after[k]}")
    for user in users:
        stats = user.ask("GET", "/v1/sandboxes/stats").json()
        equal(stats["current"]["running_count"], 0, "nothing of the team is counted any more")


test_a_day.timeout_s = SECONDS * 3 + 300
if os.geteuid() != 0:
    print("1..0 # SKIP kills what belongs to root")
    sys.exit(0)
aviary_test.main(globals(), ["--signup", "open", "--webhook-private", "yes"], pool=POOL)
