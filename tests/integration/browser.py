# SPDX-License-Identifier: Apache-2.0
"""A page served inside a sandbox, opened by a browser through the port proxy: its script, WebSocket,
requests and cookies, the signed URL, and what it must not reach."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request

import ws
from aviary_test import SLOW, contains, equal, main, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
PORT = 3000
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
         "--disable-dev-shm-usage", "--remote-debugging-port=0", "--host-resolver-rules=MAP *.localhost 127.0.0.1, MAP *.ports.example 127.0.0.1"]


class Browser:
    """Chromium without a window, driven over its DevTools protocol."""

    def __init__(self):
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        self.dir = tempfile.mkdtemp(prefix="aviary-browser-")
        env = {"PATH": os.environ["PATH"], "HOME": self.dir, "XDG_RUNTIME_DIR": self.dir, "LANG": "C.UTF-8"}
        self.process = subprocess.Popen([program, *FLAGS, f"--user-data-dir={self.dir}/profile", "about:blank"],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        env=env, start_new_session=True)
        self.page, self.number = None, 0

    def open(self):
        path = os.path.join(self.dir, "profile", "DevToolsActivePort")
        wait_for(lambda: os.path.exists(path) and os.path.getsize(path) > 5, 40, "the browser is ready")
        with open(path, encoding="ascii") as f:
            port = int(f.readline())
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=20) as answer:
            page = next(t for t in json.load(answer) if t["type"] == "page")
        self.page = ws.WebSocket("127.0.0.1", port, "/" + page["webSocketDebuggerUrl"].split("/", 3)[3], timeout=40 * SLOW)
        return self

    def call(self, method, **params):
        self.number += 1
        self.page.send_json({"id": self.number, "method": method, "params": params})
        while True:
            message = self.page.recv_json()
            if message.get("id") == self.number:
                return message.get("result", message)

    def goto(self, url):
        self.call("Page.navigate", url=url)
        wait_for(lambda: self.js("document.readyState") == "complete" and self.js("location.href") != "about:blank", 20,
                 f"{url.split('?')[0]} is loaded")

    def js(self, text):
        result = self.call("Runtime.evaluate", expression=text, awaitPromise=True, returnByValue=True)
        return result.get("result", {}).get("value")

    def close(self):
        if self.page:
            self.page.abort()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def start(d, sandbox_id):
    with open(os.path.join(HERE, "..", "lib", "port_server.py"), "rb") as f:
        d.expect(204, "PUT", f"/v1/sandboxes/{sandbox_id}/files?path=/tmp/port_server.py", f.read())
    d.expect(202, "POST", f"/v1/sandboxes/{sandbox_id}/exec",
             {"cmd": "python3", "args": ["/tmp/port_server.py", str(PORT)], "background": True})
    wait_for(lambda: d.exec(sandbox_id, f"exec 3<>/dev/tcp/127.0.0.1/{PORT}", cmd="/bin/bash")["exit_code"] == 0, 20,
             "the server in the sandbox listens")


def url(d, sandbox_id, path, **body):
    return d.expect(200, "POST", f"/v1/sandboxes/{sandbox_id}/url", {"port": PORT, "path": path, **body}).json()["url"]


def test_page_of_a_sandbox(d):
    browser = Browser()
    try:
        browser.open()
        one, other = d.create()["id"], d.create(public_ports=[PORT])["id"]
        start(d, one)
        start(d, other)
        page(d, browser, one)
        stranger(d, browser, one, other)
        sibling(d, browser, one, other)
        expiring(d, browser, one)
        d.delete(one)
        d.delete(other)
    finally:
        browser.close()


def test_page_of_the_documentation(d):
    browser = Browser()
    try:
        browser.open()
        browser.goto(d.url + "/docs")
        wait_for(lambda: (browser.js("document.querySelectorAll('details').length") or 0) > 40, 20, "operations are shown")
        equal(browser.js("document.querySelectorAll('details').length"),
              sum(len(v) for v in d.expect(200, "GET", "/openapi.json", key=False).json()["paths"].values()), "all of them")
        contains(browser.js("document.body.innerText"), "/v1/sandboxes/{id}/run_code", "by path")
        browser.js("(() => { const f = document.getElementById('filter'); f.value = 'pause'; "
                   "f.dispatchEvent(new Event('input')); })()")
        equal(browser.js("[...document.querySelectorAll('details')].filter((e) => !e.hidden).length"), 1, "the filter")
    finally:
        browser.close()


def page(d, browser, sandbox_id):
    """By its signed URL: the script of the page opens a WebSocket and posts, by the cookie it got."""
    browser.goto(url(d, sandbox_id, "/page?x=1"))
    wait_for(lambda: browser.js("document.title") not in ("loading", ""), 20, "the script of the page is done")
    equal(browser.js("document.title"), "ws:hello through the proxy fetch:got posted cookie:seen=yes.",
          "WebSocket, request, and no cookie of Aviary's for scripts")
    equal(browser.js("location.href"), f"http://{PORT}-{sandbox_id}.localhost:{d.port}/page?x=1", "the token is gone")
    equal(browser.js("document.getElementById('p').textContent"), "a page from a sandbox", "the page")
    contains(browser.js("fetch('/seen').then(r => r.text())"), "cookie: seen=yes\r\n", "nor for the server")


def stranger(d, browser, private, public):
    """A page of another sandbox reaches neither the private one nor the API, and tosses no cookies."""
    there = f"http://{PORT}-{private}.localhost:{d.port}"
    browser.goto(f"http://{PORT}-{public}.localhost:{d.port}/page")
    wait_for(lambda: browser.js("document.title") not in ("loading", ""), 20, "the script of the page is done")
    equal(browser.js(f"fetch('{there}/x', {{credentials: 'include'}}).then(r => r.text()).catch(() => 'refused')"),
          "refused", "no answer of another sandbox")
    socket = (f"new Promise(r => {{ const w = new WebSocket('ws://{there[7:]}/ws'); w.onopen = () => r('open');"
              " w.onerror = () => r('refused'); })")
    equal(browser.js(socket), "refused", "no WebSocket to it: the cookie is not for requests of other sites")
    for path in ("/v1/sandboxes", "/health"):
        equal(browser.js(f"fetch('http://localhost:{d.port}{path}').then(r => r.text()).catch(() => 'refused')"),
              "refused", f"no {path} of the API")
    browser.js("document.cookie = 'aviary_port=forged; Domain=localhost; Path=/'")
    browser.goto(f"{there}/x")
    contains(browser.js("document.body.innerText"), "GET /x HTTP/1.1", "who was let in stays so")


def sibling(d, browser, private, public):
    """The same where both are hosts of one site, so that the browser does send the cookie along."""
    head = {"Host": f"ports.example:{d.port}"}
    made = d.expect(200, "POST", f"/v1/sandboxes/{private}/url", {"port": PORT, "path": "/x"}, headers=head).json()["url"]
    there = made.split("/x?")[0]
    browser.goto(made)
    contains(browser.js("document.body.innerText"), "GET /x HTTP/1.1", "let in")
    browser.goto(f"http://{PORT}-{public}.ports.example:{d.port}/x")
    contains(browser.js("document.body.innerText"), "GET /x HTTP/1.1", "a page of the other")
    socket = (f"new Promise(r => {{ const w = new WebSocket('ws://{there[7:]}/ws'); w.onopen = () => r('open');"
              " w.onerror = () => r('refused'); })")
    equal(browser.js(socket), "refused", "no WebSocket in the visitor's name")
    before = d.log_text().count('status="403"')
    browser.js(f"fetch('{there}/data', {{method: 'POST', mode: 'no-cors', credentials: 'include', body: 'x'}}).then(() => 1, () => 0)")
    wait_for(lambda: d.log_text().count('status="403"') > before, 10, "no POST in the visitor's name")
    browser.goto(f"{there}/x")
    contains(browser.js("document.body.innerText"), "GET /x HTTP/1.1", "the visitor is let in as before")


def expiring(d, browser, sandbox_id):
    browser.call("Network.clearBrowserCookies")
    browser.goto(f"http://{PORT}-{sandbox_id}.localhost:{d.port}/x")
    contains(browser.js("document.body.innerText"), "is private", "without the cookie")
    late = url(d, sandbox_id, "/page", expires_sec=1)
    time.sleep(2)
    browser.goto(late)
    contains(browser.js("document.body.innerText"), "this URL expired at", "too late")


if shutil.which("chromium") or shutil.which("chromium-browser"):
    main(globals())
else:
    print("1..0 # SKIP chromium is not installed; tools/install-packages check")
