# SPDX-License-Identifier: Apache-2.0
"""run_code: Jupyter's kernel API on port 8888 of a sandbox, and run_code of the native API"""

import concurrent.futures
import http.client
import json
import socket
import time
import uuid

from aviary_test import contains, equal, jail_only, main, ok, vm_only, wait_for, Skip
from ws import WebSocket, HandshakeError

shared = {}
OK, PLAIN = "ok", {"shell": "plain"}


def sandbox(d):
    """One for the tests that leave it as it was."""
    if "id" not in shared:
        shared["id"] = d.create()["id"]
    return shared["id"]


def host(d, sandbox_id):
    return f"8888-{sandbox_id}.localhost:{d.port}"


def rest(d, sandbox_id, method, path, body=None, status=200, **kw):
    head = {"Host": host(d, sandbox_id), **kw.pop("headers", {})}
    answer = d.request(method, path, body, headers=head, **kw)
    equal(answer.status, status, f"{method} {path}: {answer.body[:300]!r}")
    return answer.json() if answer.body else None


def run(d, code, sandbox_id=None, **body):
    answer = d.request("POST", f"/v1/sandboxes/{sandbox_id or sandbox(d)}/run_code", {"code": code, **body})
    equal(answer.status, 200, f"run_code: {answer.body[:300]!r}")
    return answer.json()


def message(kind, content, channel="shell", **header):
    """As the clients of this API make it."""
    return {"header": {"msg_id": str(uuid.uuid4()), "msg_type": kind, "username": "wrenn-sdk", "session": str(uuid.uuid4()),
                       "date": "2026-01-01T00:00:00.000Z", "version": "5.3", **header},
            "parent_header": {}, "metadata": {}, "content": content, "buffers": [], "channel": channel}


def execute(code, **content):
    return message("execute_request", {"code": code, "silent": False, "store_history": True, "user_expressions": {},
                                       "allow_stdin": False, "stop_on_error": True, **content})


def channels(d, sandbox_id, kernel_id, **kw):
    return WebSocket("127.0.0.1", d.port, f"/api/kernels/{kernel_id}/channels", headers={"X-API-Key": d.key},
                     authority=host(d, sandbox_id), **kw)


def until_idle(ws, request):
    """All messages that answer the request."""
    got = []
    while True:
        m = ws.recv_json()
        if m["parent_header"].get("msg_id") != request["header"]["msg_id"]:
            continue
        equal(m["parent_header"], request["header"], "the request's header comes back")
        equal(m["header"]["msg_type"], m["msg_type"], "both types")
        got.append(m)
        if m["msg_type"] == "status" and m["content"]["execution_state"] == "idle":
            return got


def ask(ws, request):
    ws.send_json(request)
    return until_idle(ws, request)


def kernel(d, sandbox_id):
    return rest(d, sandbox_id, "POST", "/api/kernels", status=201)["id"]


def test_sdk_walk(d):
    """What the clients do, step by step."""
    sb = d.create()["id"]
    equal(rest(d, sb, "GET", "/api/kernels"), [], "no kernel at first")
    answer = d.request("POST", "/api/kernels", headers={"Host": host(d, sb)})
    equal(answer.status, 201, "a kernel without a body")
    kid = answer.json()["id"]
    equal(rest(d, sb, "GET", "/api/kernels")[0]["id"], kid, "the list")
    with channels(d, sb, kid) as ws:
        got = ask(ws, execute("x = 40\nprint('né')\nx + 2"))
        kinds = [m["msg_type"] for m in got]
        equal([k for k in kinds if k != "stream"],
              ["status", "execute_input", "execute_result", "execute_reply", "status"], "kinds of messages")
        equal([m["channel"] for m in got if m["msg_type"] == "execute_reply"], ["shell"], "the reply's channel")
        stream = [m["content"] for m in got if m["msg_type"] == "stream"]
        equal(stream, [{"name": "stdout", "text": "né\n"}], "output")
        result = [m["content"] for m in got if m["msg_type"] == "execute_result"][0]
        equal((result["data"]["text/plain"], result["execution_count"]), ("42", 1), "the value")
    with channels(d, sb, kid) as ws:
        got = ask(ws, execute("x"))
        equal([m["content"]["data"]["text/plain"] for m in got if m["msg_type"] == "execute_result"], ["40"],
              "state lasts from socket to socket")
        got = ask(ws, execute("1/0"))
        error = [m["content"] for m in got if m["msg_type"] == "error"][0]
        equal((error["ename"], error["evalue"]), ("ZeroDivisionError", "division by zero"), "an error")
        ok(len(error["traceback"]) > 1, "with a traceback")
        reply = [m["content"] for m in got if m["msg_type"] == "execute_reply"][0]
        equal((reply["status"], reply["ename"]), ("error", "ZeroDivisionError"), "and in the reply")
    d.delete(sb)


def test_rest(d):
    sb = sandbox(d)
    kid = kernel(d, sb)
    model = rest(d, sb, "GET", f"/api/kernels/{kid}")
    equal((model["id"], model["name"]), (kid, "python3"), "a kernel")
    equal(rest(d, sb, "GET", "/api/kernelspecs")["default"], "python3", "specs")
    ok(rest(d, sb, "GET", "/api/status")["kernels"] >= 1, "status")
    ok(rest(d, sb, "GET", "/api")["version"], "version")
    rest(d, sb, "POST", f"/api/kernels/{kid}/interrupt", status=204)
    equal(rest(d, sb, "POST", f"/api/kernels/{kid}/restart")["id"], kid, "restart")
    rest(d, sb, "DELETE", f"/api/kernels/{kid}", status=204)
    rest(d, sb, "DELETE", f"/api/kernels/{kid}", status=404)
    rest(d, sb, "GET", f"/api/kernels/{kid}", status=404)
    rest(d, sb, "GET", "/api/kernels/..%2f..", status=404)
    rest(d, sb, "GET", "/api/nothing", status=404)
    rest(d, sb, "PUT", "/api/kernels", b"", status=405)
    rest(d, sb, "POST", "/api/kernels", {"name": "cobol"}, status=404)
    named = rest(d, sb, "POST", "/api/kernels", {"name": "wrenn"}, status=201)
    equal([k["name"] for k in rest(d, sb, "GET", "/api/kernels") if k["id"] == named["id"]], ["wrenn"], "the name comes back")
    rest(d, sb, "POST", "/api/kernels", {"name": 7}, status=400)
    rest(d, sb, "POST", "/api/kernels", b"[]", status=400)
    contains(rest(d, sb, "GET", "/api/kernels/0/channels", status=404)["message"], "not found", "no such kernel")
    try:
        channels(d, sb, "0000")
        ok(False, "a socket of no kernel")
    except HandshakeError as error:
        equal(error.status, 404, "a socket of no kernel")
    equal(d.request("GET", "/api/kernels", headers={"Host": host(d, sb)}, key=False).status, 401, "without a key")
    contains(rest(d, "sb" + "0" * 25, "GET", "/api/kernels", status=404, headers={"Accept": "application/json"})["error"]["code"],
             "not_found", "no such sandbox")


def test_other_requests(d):
    sb = sandbox(d)
    with channels(d, sb, kernel(d, sb)) as ws:
        info = [m for m in ask(ws, message("kernel_info_request", {})) if m["msg_type"] == "kernel_info_reply"][0]
        equal((info["channel"], info["content"]["language_info"]["name"]), ("shell", "python"), "kernel_info")
        for kind in ("complete", "inspect", "is_complete", "history", "comm_info"):
            got = ask(ws, message(kind + "_request", {"code": "x", "cursor_pos": 1}))
            equal([m["msg_type"] for m in got], ["status", kind + "_reply", "status"], kind)
        ws.send_json(message("comm_open", {}))
        slow = execute("import time\nprint('on')\ntime.sleep(60)")
        ws.send_json(slow)
        while ws.recv_json()["msg_type"] != "stream":
            pass
        stop = message("interrupt_request", {}, channel="control")
        ws.send_json(stop)
        replies, names = [], []
        while len(replies) < 2:
            m = ws.recv_json()
            if m["msg_type"] in ("interrupt_reply", "execute_reply"):
                replies.append((m["msg_type"], m["channel"], m["content"]["status"]))
            if m["msg_type"] == "error":
                names.append(m["content"]["ename"])
        equal(sorted(replies), [("execute_reply", "shell", "error"), ("interrupt_reply", "control", "ok")], "an interrupt")
        equal(names, ["KeyboardInterrupt"], "reaches the code")
        got = ask(ws, message("shutdown_request", {"restart": True}, channel="control"))
        equal(got[1]["content"], {"status": "ok", "restart": True}, "a restart")
        ok("execute_result" in [m["msg_type"] for m in ask(ws, execute("7"))], "and on")


def test_bad_messages(d):
    sb = sandbox(d)
    kid = kernel(d, sb)
    header = {"msg_id": "1", "msg_type": "execute_request"}
    for bad in ("{", "[]", "{}", {"header": 1}, {"header": {}}, {"header": header}, {"header": header, "content": {"code": 1}},
                {"header": {**header, "x": "y" * 5000}, "content": {"code": "1"}}):
        with channels(d, sb, kid) as ws:
            ws.send_text(bad if isinstance(bad, str) else json.dumps(bad))
            ws.recv()
            equal(ws.close_code, 1008, f"closed for {str(bad)[:60]}")
    with channels(d, sb, kid) as ws:
        ws.send_binary(b"\0\1")
        ws.recv()
        equal(ws.close_code, 1003, "closed for a binary message")
    equal(run(d, "1", kernel_id=kid)["status"], OK, "the kernel has seen none of it")


def test_native(d):
    r = run(d, "import sys\nprint('out')\nprint('err', file=sys.stderr)\n[1, 'é']")
    equal((r["status"], r["stdout"], r["stderr"], r["error"], r["truncated"]), (OK, "out\n", "err\n", None, False), "run_code")
    equal(r["results"], [{"is_main_result": True, "data": {"text/plain": "[1, 'é']"}, "metadata": {},
                          "execution_count": r["execution_count"]}], "its result")
    equal(run(d, "raise KeyError('k')")["error"]["ename"], "KeyError", "an error is an answer")
    r = run(d, "import time\nprint('x', flush=True)\ntime.sleep(60)", timeout_sec=2)
    equal((r["status"], r["stdout"], r["error"]["ename"]), ("timeout", "x\n", "KeyboardInterrupt"), "a time-out")
    equal(run(d, "import os; os.environ['V']", envs={"V": "v"})["results"][0]["data"]["text/plain"], "'v'", "envs")
    ok("V" not in run(d, "print(list(os.environ))")["stdout"].split("'"), "and gone again")
    equal(run(d, "5", silent=True)["results"], [], "silent")
    answer = d.request("POST", f"/v1/sandboxes/{sandbox(d)}/run_code", {"code": "print(1)\ndisplay(2)\n3", "stream": True})
    lines = [json.loads(s) for s in answer.body.splitlines()]
    equal([s["type"] for s in lines], ["execute_input", "stream", "display_data", "execute_result", "finished"], "streamed")
    equal(lines[-1]["status"], OK, "and its end")
    for bad, status in (({}, 400), ({"code": 1}, 400), ({"code": "1", "kernel_id": "x"}, 404), ({"code": "1", "language": "cobol"}, 501),
                        ({"code": "1", "timeout_sec": -1}, 400), ({"code": "1", "figure_formats": ["gif"]}, 400),
                        ({"code": "1", "kernel_id": "x", "language": "python"}, 400), ({"code": "x" * (5 << 20)}, 413)):
        got = d.request("POST", f"/v1/sandboxes/{sandbox(d)}/run_code", bad)
        equal(got.status, status, f"{str(bad)[:60]}: {got.body[:200]!r}")


def test_rich(d):
    code = """
class A:
    def _repr_html_(self): return '<b>ü</b>'
    def _repr_svg_(self): return '<svg/>'
    def _repr_png_(self): return b'\\x89PNG\\0'
    def _repr_latex_(self): return '$x$'
    def _repr_json_(self): return {'a': [1, None, 'é\\u2028']}
    def _repr_markdown_(self): return '# m'
    def _repr_javascript_(self): return 'f()'
    def _repr_pdf_(self): return b'%PDF'
    def _repr_jpeg_(self): return b'\\xff\\xd8'
    def _repr_mimebundle_(self, include=None, exclude=None): return {'application/vnd.x+json': {'v': 1}, 'text/plain': 'A!'}
A()"""
    data = run(d, code)["results"][0]["data"]
    equal(data, {"text/html": "<b>ü</b>", "image/svg+xml": "<svg/>", "image/png": "iVBORwA=", "text/latex": "$x$",
                 "application/json": {"a": [1, None, "é\u2028"]}, "text/markdown": "# m", "application/javascript": "f()",
                 "application/pdf": "JVBERg==", "image/jpeg": "/9g=", "application/vnd.x+json": {"v": 1}, "text/plain": "A!"},
          "every representation")


def test_figures(d):
    if run(d, "import matplotlib")["status"] != OK:
        raise Skip("the machine has no matplotlib (python3-matplotlib)")
    r = run(d, "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nplt.figure(); plt.plot([2, 1]);",
            figure_formats=["png", "svg"], timeout_sec=120)
    equal(r["error"], None, "plots")
    pictures = [x["data"] for x in r["results"] if "image/png" in x["data"]]
    equal(len(pictures), 2, "one shown, one left at the end")
    ok(all(p["image/png"].startswith("iVBORw0KGgo") and "<svg" in p["image/svg+xml"] for p in pictures), "as PNG and SVG")
    r = run(d, "plt.plot([3])")
    ok(any("image/png" in x["data"] and "image/svg+xml" not in x["data"] for x in r["results"]), "PNG alone by default")


def test_parallel(d):
    sb = sandbox(d)
    ids = [kernel(d, sb) for _ in range(3)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda i: run(d, f"import time\ntime.sleep(0.2)\nx = {i}\nx", sb, kernel_id=ids[i % 3]), range(6)))
    equal([g["results"][0]["data"]["text/plain"] for g in got], [str(i) for i in range(6)], "each gets its own answer")
    for kid in ids:
        rest(d, sb, "DELETE", f"/api/kernels/{kid}", status=204)


def test_disconnect(d):
    """A client that goes away interrupts what it began, with either API."""
    sb = sandbox(d)
    kid = kernel(d, sb)
    for close in ("close", "abort"):
        ws = channels(d, sb, kid)
        ws.send_json(execute("import time\nprint('on')\nwhile True: time.sleep(1)"))
        while ws.recv_json()["msg_type"] != "stream":
            pass
        getattr(ws, close)()
        equal(run(d, "'free'", kernel_id=kid, timeout_sec=20)["status"], OK, f"after {close}")
    sock = socket.create_connection((d.host, d.port))
    body = json.dumps({"code": "while True: time.sleep(1)", "kernel_id": kid, "timeout_sec": 0}).encode()
    sock.sendall(f"POST /v1/sandboxes/{sb}/run_code HTTP/1.1\r\nHost: x\r\nX-API-Key: {d.key}\r\nContent-Length: {len(body)}\r\n\r\n"
                 .encode() + body)
    wait_for(lambda: rest(d, sb, "GET", f"/api/kernels/{kid}")["execution_state"] == "busy", 10, "it runs")
    sock.close()
    equal(run(d, "'free'", kernel_id=kid, timeout_sec=20)["status"], OK, "after a broken connection")


def test_deaths(d):
    sb = d.create(memory_mb=256)["id"]
    r = run(d, "import os\nx = 1\nos._exit(7)", sb)
    equal(r["status"], "died", "a process that ends")
    contains(r["message"], "exit status 7", "says how")
    r = run(d, "'x' in globals()", sb)
    equal((r["results"][0]["data"]["text/plain"], r["execution_count"]), ("False", 1), "a fresh one")
    r = run(d, "b = []\nwhile True: b.append(bytearray(1 << 24))", sb, timeout_sec=60)
    if r["status"] == "oom":
        contains(r["message"], "memory limit", "memory that runs out")
    else:
        ok(r["status"] == "died" or r["error"]["ename"] == "MemoryError", f"memory that runs out: {r}")
    equal(run(d, "2", sb)["status"], OK, "is survived")
    equal(run(d, "import os\nos.write(3, os.urandom(4096))\nwhile True: pass", sb, timeout_sec=20)["status"], "died", "garbage")
    kid = kernel(d, sb)
    with channels(d, sb, kid) as ws:
        got = ask(ws, execute("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"))
        equal([m["content"]["ename"] for m in got if m["msg_type"] == "error"], ["KernelDied"], "a crash, in Jupyter's words")
        ok("execute_result" in [m["msg_type"] for m in ask(ws, execute("3"))], "and its successor")
        ws.send_json(execute("import time\nprint('on')\ntime.sleep(60)"))
        while ws.recv_json()["msg_type"] != "stream":
            pass
        d.delete(sb)
        names = []
        while not names or names[-1] != "status":
            m = ws.recv_json()
            names.append(m["msg_type"])
        ok("error" in names and "execute_reply" in names, "a sandbox that is deleted ends it in good order")


def test_pause(d):
    """A paused sandbox keeps its kernels."""
    sb = d.create()["id"]
    run(d, "import time\nx = 5", sb)
    if d.request("POST", f"/v1/sandboxes/{sb}/pause").status == 501:
        raise Skip("this machine cannot freeze")
    equal(d.request("POST", f"/v1/sandboxes/{sb}/run_code", {"code": "x"}).status, 409, "paused")
    d.expect(200, "POST", f"/v1/sandboxes/{sb}/resume")
    equal(run(d, "x", sb)["results"][0]["data"]["text/plain"], "5", "after the resume")
    d.delete(sb)


def pause_within(d, sandbox_id, code, **body):
    """Has code carried out through a pause of three seconds; the answer."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(d.request, "POST", f"/v1/sandboxes/{sandbox_id}/run_code", {"code": code, **body})
        time.sleep(0.3)
        if d.request("POST", f"/v1/sandboxes/{sandbox_id}/pause").status == 501:
            raise Skip("this machine cannot freeze")
        time.sleep(5)
        d.expect(200, "POST", f"/v1/sandboxes/{sandbox_id}/resume")
        return answer.result()


@jail_only("a pause ends what is attached to a virtual machine")
def test_time_of_a_pause_is_not_the_code_s(d):
    sb = d.create()["id"]
    run(d, "import time", sb)
    answer = pause_within(d, sb, "for i in range(10): time.sleep(0.1)\n'end'", timeout_sec=4.5)
    equal((answer.status, answer.json()["status"]), (200, OK), "code that a pause went through")
    d.delete(sb)


@vm_only("a pause of a jail leaves open what is attached")
def test_pause_of_a_machine_ends_the_answer(d):
    """It says so, and what the code did is there afterwards."""
    sb = d.create()["id"]
    run(d, "import time\nx = 5", sb)
    answer = pause_within(d, sb, "x = 6\nfor i in range(10): time.sleep(0.1)\nx = 7")
    equal((answer.status, answer.code), (409, "invalid_state"), "code that a pause went through")
    contains(answer.message, "paused meanwhile", "why")
    ok(run(d, "x", sb)["results"][0]["data"]["text/plain"] in "67", "the kernel lives")
    d.delete(sb)


def test_much(d):
    r = run(d, "for i in range(300000): print(i)", timeout_sec=60)
    equal((r["status"], r["truncated"]), (OK, False), "megabytes of lines")
    equal(len(r["stdout"].splitlines()), 300000, "come whole")
    r = run(d, "print('é' * 5000000)", timeout_sec=60)
    ok(r["truncated"] and set(r["stdout"]) == {"é"}, "more than is kept is cut between characters")
    r = run(d, "class B:\n    def _repr_png_(self): return b'p' * 5000000\nB()", timeout_sec=60)
    equal(len(r["results"][0]["data"]["image/png"]), 6666668, "a large picture")
    before = d.rss_kib()
    sb = sandbox(d)
    ws = channels(d, sb, kernel(d, sb), rcvbuf=4096)
    ws.send_json(execute("for i in range(3000): print('z' * 20000)"))
    time.sleep(1)
    d.memory_within(before, 40000)
    ws.abort()


def test_quick_start(d):
    """What code prints at once is all there, however late it is known that it has begun."""
    for i in range(15):
        r = run(d, "import sys\nfor i in range(4): n = sys.stdout.write('o' * 300000)\nn = sys.stderr.write('e' * 300000)")
        equal((len(r["stdout"]), len(r["stderr"])), (1200000, 300000), f"execution {i}")


def test_slow_reader_of_much(d):
    """A long answer is made and sent as its client reads: it is not in the daemon as a whole, and holds nobody up."""
    sb, body = sandbox(d), json.dumps({"timeout_sec": 60, "code": "import sys\nfor i in range(64):\n"
                                       "  sys.stdout.write('\\x01' * 65536); sys.stderr.write('\\x02' * 65536)"}).encode()
    before = d.rss_kib()
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        s.settimeout(60)
        s.connect(("127.0.0.1", d.port))
        s.sendall(b"POST /v1/sandboxes/%s/run_code HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Type: application/json\r\n"
                  b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (sb.encode(), d.key.encode(), len(body)) + body)
        answer = http.client.HTTPResponse(s)
        answer.begin()
        equal(answer.status, 200, "the answer begins")
        time.sleep(0.5)
        d.memory_within(before, 28 * 1024)  # 8 MiB are kept; their JSON has 48
        equal(d.exec(sb, "echo served")["stdout"], "served\n", "others are served meanwhile")
        r = json.loads(answer.read())
    equal((r["stdout"] == "\x01" * (4 << 20), r["stderr"] == "\x02" * (4 << 20), r["truncated"], r["status"]),
          (True, True, False, OK), "all of it arrives")


def test_own_server(d):
    """A server of the user's own on port 8888: beside /api always, in all when the sandbox says so."""
    serve = ("cd /tmp && mkdir -p api && echo own > api/kernels && echo page > page && "
             "(python3 -m http.server 8888 --bind 127.0.0.1 >/dev/null 2>&1 & echo $!)")
    for metadata, want in (({}, "ours"), ({"aviary.kernels": "off"}, "theirs")):
        sb = d.create(metadata=metadata)["id"]
        d.exec(sb, serve)
        get = lambda path: d.request("GET", path, headers={"Host": host(d, sb)})
        wait_for(lambda: get("/page").body == b"page\n", 15, "the server answers")
        equal(get("/api/kernels").body, b"[]" if want == "ours" else b"own\n", f"/api is {want}")
        d.delete(sb)


if __name__ == "__main__":
    main(globals())
