#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""/metrics: read by a real parser; every row of the benchmark and every queue has one; nobody outside can add series; who may read it."""

import concurrent.futures
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import yaml

from aviary_test import IN_VM, Daemon, cmdline, contains, equal, main, ok, processes_of, wait_for

try:
    from prometheus_client.parser import text_string_to_metric_families
except ImportError:  # Debian's package, and a Python that is not Debian's
    sys.path.append("/usr/lib/python3/dist-packages")
    from prometheus_client.parser import text_string_to_metric_families

HOSTILE = 10000

# What `aviary bench` measures, and where the same is seen of a daemon in use.
BENCH_ROWS = {
    "create_first_byte_cold": 'aviary_operation_duration_seconds{operation="create_cold"}',
    "create_first_byte_pool": 'aviary_operation_duration_seconds{operation="create_pool"}',
    "create_internet": 'aviary_operation_duration_seconds{operation="create_internet"}',
    "delete_gone": 'aviary_operation_duration_seconds{operation="delete"}',
    "exec_true": 'aviary_operation_duration_seconds{operation="exec"}',
    "sdk_exec_overhead": 'aviary_operation_duration_seconds{operation="exec_start"}',
    "run_code_first": 'aviary_operation_duration_seconds{operation="run_code"}',
    "run_code_warm": 'aviary_operation_duration_seconds{operation="run_code"}',
    "creates_per_second": 'aviary_sandbox_creates_total{result="ok"}',
    "upload_1gib": 'aviary_operation_duration_seconds{operation="upload"}',
    "download_1gib": 'aviary_transfer_bytes_total{direction="out"}',
    "ws_stream_mb_s": 'aviary_stream_bytes_total{direction="out"}',
    "control_under_load": "aviary_loop_stall_seconds{}",
    "metrics_sampling_1000": "aviary_sampling_seconds_total{}",
    "idle_memory_mib": "aviary_sandboxes_memory_bytes{}",
    "agent_private_mib": "aviary_sandboxes_memory_bytes{}",
    "vm_create_first_byte": 'aviary_operation_duration_seconds{operation="create_vm"}',
    "vm_create_first_byte_pool": 'aviary_operation_duration_seconds{operation="create_vm_pool"}',
    "vm_exec_true": 'aviary_operation_duration_seconds{operation="exec"}',
    "vm_pause": 'aviary_operation_duration_seconds{operation="pause_vm"}',
    "vm_resume": 'aviary_operation_duration_seconds{operation="resume_vm"}',
    "vm_fork_source_stopped": 'aviary_operation_duration_seconds{operation="snapshot_stopped"}',
    "vm_idle_memory_mib": "aviary_sandboxes_memory_bytes{}",
    "daemon_rss_mib": "process_resident_memory_bytes{}",
}
QUEUES = ("store", "work", "trace_spans", "creates", "changes", "changes_waiting", "ending", "ending_retries", "stops", "account_changes", "passwords", "passwords_running", "audit", "audit_readers", "host_changes", "backups", "channels_waiting", "channels_sending", "outbound", "spawn_waiting",
          "spawn_sent", "worker_jobs", "worker_creating", "worker_destroying", "worker_snapshotting", "worker_freezing",
          "worker_trash")
TABLES = ("sandboxes", "templates", "users", "teams", "keys", "hosts", "channels", "throttled", "pool", "event_streams", "event_rings", "events_kept", "worker_slots")
BUFFERS = ("exec_output", "kernel_results", "events", "logs_saving", "logs_reading")


def page(d, **kw):
    return d.expect(200, "GET", "/metrics", **kw).body.decode()


def families(d):
    return list(text_string_to_metric_families(page(d)))


def samples(d):
    """Value by name and labels, buckets left out."""
    found = {}
    for family in families(d):
        for s in family.samples:
            if s.name.endswith("_bucket"):
                continue
            labels = ",".join(f'{k}="{v}"' for k, v in sorted(s.labels.items()))
            found[f"{s.name}{{{labels}}}"] = s.value
    return found


def series(d):
    return {line.rsplit(" ", 1)[0] for line in page(d).splitlines() if not line.startswith("#")}


def use(d):
    """Something of everything, so that series which come with use are there."""
    sb = d.create()["id"]
    d.exec(sb, "echo x")
    d.expect(204, "PUT", f"/v1/sandboxes/{sb}/files?path=/tmp/f", body=b"x" * 1000)
    d.expect(200, "GET", f"/v1/sandboxes/{sb}/files?path=/tmp/f")
    d.request("POST", f"/v1/sandboxes/{sb}/pause")
    d.request("POST", f"/v1/sandboxes/{sb}/resume")
    d.request("POST", f"/v1/sandboxes/{sb}/run_code", {"code": "1+1"})
    d.delete(sb)


def test_a_parser_reads_it(d):
    use(d)
    r = d.expect(200, "GET", "/metrics")
    contains(r.headers["Content-Type"], "text/plain; version=0.0.4", "content type")
    names = set()
    for f in families(d):
        ok(f.name not in names, f"{f.name} comes once")
        names.add(f.name)
        ok(f.documentation, f"{f.name} has a HELP")
        ok(f.type in ("counter", "gauge", "histogram"), f"{f.name} has a TYPE")
        ok(f.samples, f"{f.name} has samples")
        ok(f.name.startswith(("aviary_", "process_")), f"{f.name} has our prefix")
        seen = set()
        for s in f.samples:
            key = (s.name, tuple(sorted(s.labels.items())))
            ok(key not in seen, f"{key} comes once")
            seen.add(key)
            if f.type == "counter":
                ok(s.name.endswith("_total"), f"{s.name}: counters end with _total")
        ok(not any(f.name.endswith(u) for u in ("_ms", "_us", "_milliseconds", "_kb", "_mib", "_percent")), f"{f.name}: base units")


def test_histograms_hold_together(d):
    for f in families(d):
        if f.type != "histogram":
            continue
        by_labels = {}
        for s in f.samples:
            labels = tuple(sorted((k, v) for k, v in s.labels.items() if k != "le"))
            h = by_labels.setdefault(labels, {"buckets": []})
            if s.name.endswith("_bucket"):
                h["buckets"].append((float(s.labels["le"]), s.value))
            elif s.name.endswith("_count"):
                h["count"] = s.value
            elif s.name.endswith("_sum"):
                h["sum"] = s.value
        for labels, h in by_labels.items():
            values = [v for _, v in h["buckets"]]
            equal(values, sorted(values), f"{f.name}{labels}: buckets add up")
            equal([b for b, _ in h["buckets"]], sorted(b for b, _ in h["buckets"]), f"{f.name}: bounds rise")
            equal(h["buckets"][-1], (float("inf"), h["count"]), f"{f.name}{labels}: the last bucket has all")
            ok(h["sum"] >= 0, f"{f.name}: sum")


def test_every_row_of_the_benchmark(d):
    found = samples(d)
    here = os.path.dirname(os.path.abspath(__file__))
    rows = set()
    for name in os.listdir(os.path.join(here, "../../src/cli")):
        if not name.startswith("bench") or not name.endswith(".c"):
            continue
        with open(os.path.join(here, "../../src/cli", name), encoding="utf-8") as f:
            text = f.read()
        for call in ("bench_add(b, \"", "bench_add_samples(b, \"", "bench_skip(b, \""):
            rows |= {part.split('"', 1)[0] for part in text.split(call)[1:]}
    rows = {r for r in rows if not r.startswith("peer_")}
    equal(rows - set(BENCH_ROWS), set(), "a row of the benchmark without a metric")
    for row, wanted in BENCH_ROWS.items():
        name, labels = wanted[:-1].split("{")
        ok(wanted in found or f"{name}_count{{{labels}}}" in found, f"{row}: {wanted}")


def test_every_queue_beside_its_bound(d):
    found = samples(d)
    for label, names, length, limit in (("queue", QUEUES, "aviary_queue_length", "aviary_queue_limit"),
                                        ("table", TABLES, "aviary_table_entries", "aviary_table_limit"),
                                        ("buffer", BUFFERS, "aviary_buffer_bytes", "aviary_buffer_limit_bytes")):
        there = {k.split('"')[1] for k in found if k.startswith(length + "{")}
        equal(set(names) - there, set(), f"{length} has them all")
        for name in there:
            bound = found.get(f'{limit}{{{label}="{name}"}}')
            ok(bound is None or found[f'{length}{{{label}="{name}"}}'] <= bound, f"{name} is within its bound {bound}")
    for name in ("store", "work", "creates", "spawn_sent", "worker_jobs"):
        ok(found[f'aviary_queue_limit{{queue="{name}"}}'] > 0, f"{name} has a bound")
    equal(found["aviary_worker_up{}"], 1, "the worker answers")
    ok(found["aviary_worker_resident_memory_bytes{}"] > 1 << 20, "and says what it uses")
    for name in ("process_start_time_seconds{}", "aviary_worker_start_time_seconds{}"):
        ok(1.6e9 < found[name] < 1e10, f"{name}: seconds since 1970: {found[name]}")


def test_what_happens_is_counted(d):
    before = samples(d)
    use(d)
    after = samples(d)
    for name in ("create_vm" if IN_VM else "create_cold", "delete", "exec_start", "exec", "upload", "download", "delete_destroy"):
        key = f'aviary_operation_duration_seconds_count{{operation="{name}"}}'
        ok(after[key] > before[key], f"{name} is counted")
    for phase in ("record", "queue", "spawn", "worker", "child", "commit", "agent"):
        key = f'aviary_create_phase_duration_seconds_count{{phase="{phase}"}}'
        ok(after[key] > before[key], f"phase {phase} is counted")
    spent = {p: after[f'aviary_create_phase_duration_seconds_sum{{phase="{p}"}}'] for p in ("spawn", "worker", "child")}
    ok(spent["child"] <= spent["worker"] <= spent["spawn"], f"the parts of a spawn are in it: {spent}")
    for key in ('aviary_transfer_bytes_total{direction="in"}', 'aviary_transfer_bytes_total{direction="out"}'):
        equal(after[key] - before[key], 1000, key)
    ok(after["aviary_store_transaction_duration_seconds_count{}"] > before["aviary_store_transaction_duration_seconds_count{}"], "transactions")
    ok(after['aviary_store_bytes{file="database"}'] > 0, "the database has a size")
    d.expect(404, "GET", "/v1/sandboxes/sb" + "0" * 25)
    equal(samples(d)['aviary_api_errors_total{code="not_found"}'], after['aviary_api_errors_total{code="not_found"}'] + 1, "errors by code")


def test_who_may_read_it(d):
    page(d, key=False)
    for headers in ({"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}, {"Via": "1.1 proxy"},
                    {"X-Real-IP": "127.0.0.1"}, {"Host": "evil.example:7878"}, {"Host": "127.evil.example"}):
        d.expect(401, "GET", "/metrics", key=False, headers=headers)
        page(d, headers=headers)  # with the administrator's key
    d.expect(401, "GET", "/metrics", key=False, headers={"Via": "1.1 p", "X-API-Key": "av_" + "0" * 40})
    who = {"email": "ada@example.com", "password": "correct horse"}
    d.expect(201, "POST", "/v1/admin/users", {**who, "name": "Ada"})
    token = d.expect(200, "POST", "/v1/auth/login", who, key=False).json()["token"]
    d.expect(403, "GET", "/metrics", key=False, headers={"Via": "1.1 p", "Authorization": f"Bearer {token}"})
    ok(samples(d)["aviary_metrics_refused_total{}"] >= 7, "refusals are counted")


def test_nobody_makes_series(d):
    """10,000 paths, names, methods, hosts and headers of somebody hostile."""
    use(d)
    d.request("GET", "/nothing")
    d.request("BREW", "/v1/sandboxes")
    d.expect(400, "POST", "/v1/sandboxes", {"template": "a\"}\nb"})
    before = series(d)

    def ask(part):
        conn = http.client.HTTPConnection(d.host, d.port, timeout=30)
        for i in range(part, HOSTILE, 4):
            kind = i % 5
            body = None
            headers = {"X-API-Key": d.key}
            method, path = "GET", f"/{i}%22%7d%0aevil{{a=%22{i}%22}}"
            if kind == 1:
                path = f"/v1/sandboxes/sb{i:025d}/files/{i}"
            elif kind == 2:
                method = f"M{i}"
            elif kind == 3:
                headers = {"X-API-Key": f"av_{i:040x}", "User-Agent": f"a{i}", "X-Request-Id": f"r{i}",
                           "traceparent": f"00-{i + 1:032x}-{i + 1:016x}-01"}
                path = "/v1/sandboxes"
            elif kind == 4:
                method, path = "POST", "/v1/sandboxes"
                body = json.dumps({"template": f"no\"such{i}", "metadata": {f"k{i}": "v"}})
                headers["Content-Type"] = "application/json"
            try:
                conn.request(method, path, body, headers)
                conn.getresponse().read()
            except (http.client.HTTPException, OSError):
                conn.close()
        conn.close()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    new = series(d) - before
    # What a route that exists had not answered yet: a status, and its histogram.
    new = {s for s in new if not s.startswith(("aviary_http_requests_total{", "aviary_http_request_duration_seconds"))}
    equal(new, set(), "series")
    text = page(d)
    ok("evil" not in text and "such" not in text, "nothing of theirs is in it")
    for f in families(d):
        if f.name in ("aviary_http_requests", "aviary_http_request_duration_seconds"):
            for s in f.samples:
                ok(s.labels["route"] == "other" or s.labels["route"].startswith(("/", "{port}")), f"a route of ours: {s.labels}")
                ok(s.labels["method"] in ("GET", "POST", "PUT", "PATCH", "DELETE", "other"), f"a method of ours: {s.labels}")


PACKAGING = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../packaging")
# There only when something is configured.
CONDITIONAL = {"aviary_tls_certificate_expiry_seconds"}
PANELS = {"row", "timeseries", "stat", "bargauge", "heatmap"}
UNITS = {"short", "s", "bytes", "Bps", "ops", "reqps", "percentunit", "dateTimeFromNow"}


def check_query(found, query, where):
    """Every metric of a query is one that is served, with those labels and, where they are fixed, values."""
    names = re.findall(r"\b(?:aviary|process)_[a-z0-9_]+", re.sub(r'"[^"]*"', '""', query))
    ok(names, f"{where}: asks for a metric of ours: {query}")
    for name in names:
        ok(name in found or name in CONDITIONAL, f"{where}: {name} is served")
    for name, selector in re.findall(r"\b((?:aviary|process)_[a-z0-9_]+)\{([^}]*(?:\{[^}]*\}[^}]*)*)\}", query):
        for label, op, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"', selector):
            if label in ("instance", "job") or name in CONDITIONAL:
                continue
            # A bound of 0 is left out.
            there = {s.get(label) for s in found[name.replace("_limit", "_entries") if name == "aviary_table_limit" else name]}
            ok(there != {None}, f"{where}: {name} has a label {label}")
            if label in ("route", "code", "method"):
                continue  # these come with use
            wanted = [v for v in there if v is not None and re.fullmatch(value if "~" in op else re.escape(value), v)]
            ok(wanted, f"{where}: {name} has {label}{op}{value}; there are {sorted(v for v in there if v)}")
    depth = 0
    for c in re.sub(r'"[^"]*"', '""', query):
        depth += {"(": 1, ")": -1}.get(c, 0)
        ok(depth >= 0, f"{where}: parentheses of {query}")
    equal(depth, 0, f"{where}: parentheses of {query}")


def promtool(rules):
    """The real thing, where it is installed."""
    if not shutil.which("promtool"):
        return
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as f:
        yaml.safe_dump({"groups": [{"name": "test", "rules": rules}]}, f)
        f.flush()
        r = subprocess.run(["promtool", "check", "rules", f.name], capture_output=True, text=True, timeout=60, check=False)
        equal(r.returncode, 0, r.stdout + r.stderr)


def served(d):
    use(d)
    found = {}
    for f in families(d):
        for s in f.samples:
            found.setdefault(s.name, []).append(s.labels)
    return found


def test_the_dashboard(d):
    found = served(d)
    with open(os.path.join(PACKAGING, "grafana/aviary.json"), encoding="utf-8") as f:
        board = json.load(f)
    equal((board["uid"], board["id"]), ("aviary", None), "an import makes one, or updates it")
    ok(board["schemaVersion"] >= 36, "new enough for panels of Grafana 9 and later")
    names = {v["name"] for v in board["templating"]["list"]}
    ids, cells, queries = set(), {}, []
    for p in board["panels"]:
        where = f"panel {p['title']}"
        ok(p["id"] not in ids, f"{where}: an id of its own")
        ids.add(p["id"])
        ok(p["type"] in PANELS, f"{where}: type {p['type']}")
        g = p["gridPos"]
        ok(g["x"] >= 0 and g["w"] > 0 and g["h"] > 0 and g["x"] + g["w"] <= 24, f"{where}: within the grid")
        for x in range(g["x"], g["x"] + g["w"]):
            for y in range(g["y"], g["y"] + g["h"]):
                ok((x, y) not in cells, f"{where} lies over {cells.get((x, y))}")
                cells[(x, y)] = p["title"]
        if p["type"] == "row":
            continue
        ok(p["targets"] and len({t["refId"] for t in p["targets"]}) == len(p["targets"]), f"{where}: queries with names")
        unit = p["fieldConfig"]["defaults"].get("unit", "short")
        ok(unit in UNITS, f"{where}: unit {unit}")
        for t in p["targets"]:
            equal(t["datasource"]["uid"], "${datasource}", f"{where}: the chosen data source")
            for variable in re.findall(r"\$(?!__)\{?(\w+)", t["expr"] + t["datasource"]["uid"]):
                ok(variable in names, f"{where}: variable {variable}")
            check_query(found, t["expr"], where)
            queries.append(t["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*"))
    equal({p["type"] for p in board["panels"]}, PANELS, "types of panels")
    ok({"Overview", "Latency", "Pool", "Resources", "API and errors", "Queues and bounds", "Store", "Network and ports",
        "Events and channels"} <= {p["title"] for p in board["panels"] if p["type"] == "row"}, "rows")
    promtool([{"record": f"r:{i}", "expr": q} for i, q in enumerate(queries)])


def test_the_alerts(d):
    found = served(d)
    with open(os.path.join(PACKAGING, "prometheus/alerts.yml"), encoding="utf-8") as f:
        groups = yaml.safe_load(f)["groups"]
    rules = [r for g in groups for r in g["rules"]]
    equal(len({r["alert"] for r in rules}), len(rules), "each alert has a name of its own")
    for r in rules:
        where = r["alert"]
        ok(set(r) <= {"alert", "expr", "for", "labels", "annotations"}, f"{where}: {set(r)}")
        ok(r["labels"]["severity"] in ("critical", "warning"), f"{where}: severity")
        ok(r["annotations"]["summary"] and r["annotations"]["description"], f"{where}: says what to do")
        ok(re.fullmatch(r"\d+[smhd]", r.get("for", "1m")), f"{where}: for")
        equal(r["annotations"]["summary"].count("{{"), r["annotations"]["summary"].count("}}"), f"{where}: templates")
        check_query(found, r["expr"], where)
    promtool(rules)


def test_start_times_stand_still(d):
    """Counted as restarts, else."""
    names = ("process_start_time_seconds", "aviary_worker_start_time_seconds")
    first = {n: d.metrics()[n] for n in names}
    for _ in range(5):
        time.sleep(0.3)
        equal({n: d.metrics()[n] for n in names}, first, "start times")


def test_behind_a_name_nobody_is_local(d):
    """With a public URL a proxy may be in front, and all the world comes from 127.0.0.1."""
    for args, status in ((("--public-url", "https://aviary.example.com"), 401),
                         (("--public-url", "https://aviary.example.com", "--metrics-public"), 200)):
        own = Daemon(args=args)
        try:
            own.start(ready=False)
            own.expect(status, "GET", "/metrics", key=False)
            page(own)
        finally:
            own.stop()
            own.remove_dir()


def test_without_its_worker(d):
    """A worker that stands still costs half a second and what only it knows."""
    worker = [p for p in processes_of(d) if b"--worker" in cmdline(p)]
    worker = min(worker)  # the other one is its sweeper
    os.kill(worker, signal.SIGSTOP)
    try:
        wait_for(lambda: d.metrics()["aviary_worker_up"] == 0, 10, "it is told to be silent")
        ok("aviary_worker_open_fds" not in d.metrics(), "what only it knows is left out")
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_for(lambda: d.metrics()["aviary_worker_up"] == 1, 10, "it is back")


if __name__ == "__main__":
    main(dict(globals()))
