#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Files in and out: raw and multipart, small, odd and large, at constant memory of the daemon."""

import hashlib
import http.client
import os
import time
import urllib.parse

from aviary_test import equal, main, ok, wait_for

SHARED = {}
BOUNDARY = b"----aviary-test-boundary"
LARGE = 256 << 20


def sandbox(d):
    if "id" not in SHARED:
        SHARED["id"] = d.create(memory_mb=1024)["id"]
    return SHARED["id"]


def raw_path(d, path, **query):
    return f"/v1/sandboxes/{sandbox(d)}/files?" + urllib.parse.urlencode({"path": path, **query})


def form(*parts):
    """parts: (name, filename or None, bytes)"""
    out = b""
    for name, filename, data in parts:
        out += b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="' + name.encode() + b'"'
        if filename is not None:
            out += b'; filename="' + filename.encode() + b'"\r\nContent-Type: application/octet-stream'
        out += b"\r\n\r\n" + data + b"\r\n"
    return out + b"--" + BOUNDARY + b"--\r\n"


def post_form(d, body, route="files/write", status=204, content_type=None):
    kind = content_type or "multipart/form-data; boundary=" + BOUNDARY.decode()
    return d.expect(status, "POST", f"/v1/sandboxes/{sandbox(d)}/{route}", body,
                    headers={"Content-Type": kind}, timeout=120)


def read(d, path, route="files/read"):
    return d.expect(200, "POST", f"/v1/sandboxes/{sandbox(d)}/{route}", {"path": path}, timeout=120)


def test_form_and_read(d):
    data = bytes(range(256)) * 40
    for route_in, route_out in (("files/write", "files/read"),
                                ("files/stream/write", "files/stream/read")):
        post_form(d, form(("path", None, b"/tmp/new/dir/a.bin"), ("file", "upload", data)), route_in)
        r = read(d, "/tmp/new/dir/a.bin", route_out)
        equal(r.body, data, f"what {route_out} gives")
        equal(r.headers["Content-Type"], "application/octet-stream", "type")
        post_form(d, form(("path", None, b"/tmp/new/dir/a.bin"), ("file", "upload", b"short")), route_in)
        equal(read(d, "/tmp/new/dir/a.bin", route_out).body, b"short", "overwritten, not appended")


def test_raw(d):
    d.expect(204, "PUT", raw_path(d, "/tmp/raw.txt"), b"hello")
    equal(d.expect(200, "GET", raw_path(d, "/tmp/raw.txt")).body, b"hello", "content")
    mode = d.exec(sandbox(d), "stat -c '%a %U' /tmp/raw.txt")["stdout"]
    equal(mode, "644 root\n", "mode and owner")


def test_odd_names_and_relative_paths(d):
    for path in ("/tmp/with space", "/tmp/ümläut-✓", "/tmp/new\nline", "/tmp/100%", "/tmp/a+b&c=d",
                 "/tmp/" + "n" * 255):
        d.expect(204, "PUT", raw_path(d, path), path.encode())
        equal(d.expect(200, "GET", raw_path(d, path)).body, path.encode(), f"content of {path!r}")
        equal(read(d, path).body, path.encode(), f"content of {path!r} by JSON")
    d.expect(204, "PUT", raw_path(d, "relative.txt"), b"r")
    equal(d.exec(sandbox(d), "cat /root/relative.txt")["stdout"], "r", "taken from the home directory")


def test_empty_file(d):
    d.expect(204, "PUT", raw_path(d, "/tmp/empty"), b"")
    equal(d.expect(200, "GET", raw_path(d, "/tmp/empty")).body, b"", "empty raw")
    post_form(d, form(("path", None, b"/tmp/empty2"), ("file", "upload", b"")))
    equal(read(d, "/tmp/empty2").body, b"", "empty form")


def test_file_of_size_zero_with_content(d):
    ok(d.expect(200, "GET", raw_path(d, "/proc/self/status")).body.startswith(b"Name:"), "procfs")


def test_content_that_looks_like_a_boundary(d):
    data = b"\r\n--" + BOUNDARY[:-1] + b"\r\n----\r\n" + b"\r\n--" * 50
    post_form(d, form(("path", None, b"/tmp/b"), ("file", "upload", data)))
    equal(read(d, "/tmp/b").body, data, "content")


def test_bad_forms(d):
    good = [("path", None, b"/tmp/bad-form"), ("file", "upload", b"x")]
    for body, what in ((form(*good[::-1]), "file before path"), (form(good[0]), "no file"),
                       (form(good[1]), "no path"), (form(good[0], good[0], good[1]), "two paths"),
                       (form(good[0], good[1], good[1]), "two files"), (b"", "nothing"),
                       (b"junk", "junk"), (form(*good)[:-10], "cut at the end"),
                       (form(("path", None, b""), good[1]), "empty path"),
                       (form(("path", None, b"/tmp/a\0b"), good[1]), "NUL in the path"),
                       (form(("path", None, b"/" + b"a" * 9000), good[1]), "long path")):
        r = post_form(d, body, status=400)
        equal(r.code, "invalid_request", what)
    for kind in ("application/json", "multipart/form-data", "multipart/form-data; boundary=",
                 "multipart/form-data; boundary=" + "x" * 100):
        equal(post_form(d, form(*good), status=400, content_type=kind).code, "invalid_request", kind)


def test_other_parts_are_skipped(d):
    post_form(d, form(("note", None, b"n" * 100000), ("path", None, b"/tmp/skip"), ("mode", None, b"1"),
                      ("file", "upload", b"ok"), ("more", "f", b"z")))
    equal(read(d, "/tmp/skip").body, b"ok", "content")


def test_targets_that_cannot_be_written(d):
    equal(d.expect(400, "PUT", raw_path(d, "/tmp"), b"x").code, "invalid_request", "a directory")
    d.exec(sandbox(d), "mkfifo /tmp/fifo")
    start = time.monotonic()
    ok(400 <= d.request("PUT", raw_path(d, "/tmp/fifo"), b"x").status < 500, "a fifo")
    ok(400 <= d.request("GET", raw_path(d, "/tmp/fifo")).status < 500, "reading a fifo")
    ok(time.monotonic() - start < 5, "nothing hangs")


def test_stopped_sandbox(d):
    sb = d.create()["id"]
    d.delete(sb)
    equal(d.expect(409, "GET", f"/v1/sandboxes/{sb}/files?path=/etc/passwd").code, "invalid_state", "read")
    equal(d.expect(409, "PUT", f"/v1/sandboxes/{sb}/files?path=/tmp/x", b"x").code, "invalid_state", "write")


def test_form_over_the_limit(d):
    conn = d.connection()
    conn.putrequest("POST", f"/v1/sandboxes/{sandbox(d)}/files/write")
    conn.putheader("X-API-Key", d.key)
    conn.putheader("Content-Type", "multipart/form-data; boundary=" + BOUNDARY.decode())
    conn.putheader("Content-Length", str(200 << 20))
    conn.endheaders()
    answer = conn.getresponse()
    equal(answer.status, 413, "refused before it is read")
    conn.close()


def chunks(total):
    piece = os.urandom(1 << 20)
    for _ in range(total >> 20):
        yield piece


def stream_up(d, path, total, before):
    """Chunked PUT; returns the digest and the daemon's largest memory meanwhile."""
    digest, most = hashlib.sha256(), 0
    conn = d.connection(timeout=120)
    conn.putrequest("PUT", raw_path(d, path))
    conn.putheader("X-API-Key", d.key)
    conn.putheader("Transfer-Encoding", "chunked")
    conn.endheaders()
    for i, piece in enumerate(chunks(total)):
        digest.update(piece)
        conn.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
        if i % 32 == 0:
            most = max(most, d.memory_within(before, 16384))
    conn.send(b"0\r\n\r\n")
    answer = conn.getresponse()
    body = answer.read()
    equal((answer.status, body), (204, b""), "upload")
    conn.close()
    return digest.hexdigest(), most


def test_large_files_at_constant_memory(d):
    before = d.rss_kib()
    digest, most = stream_up(d, "/tmp/large", LARGE, before)
    inside = d.exec(sandbox(d), "sha256sum </tmp/large", timeout_sec=60)["stdout"].split()[0]
    equal(inside, digest, "digest inside")
    conn = d.connection(timeout=120)
    conn.request("GET", raw_path(d, "/tmp/large"), headers={"X-API-Key": d.key})
    answer = conn.getresponse()
    equal(answer.headers["Content-Length"], str(LARGE), "length is announced")
    got, n = hashlib.sha256(), 0
    while True:
        piece = answer.read(1 << 20)
        if not piece:
            break
        got.update(piece)
        n += 1
        if n % 32 == 0:
            most = max(most, d.memory_within(before, 16384))
    conn.close()
    equal(got.hexdigest(), digest, "digest of the download")
    print(f"# {LARGE >> 20} MiB both ways: the daemon's memory went from {before} to at most {most} KiB")


test_large_files_at_constant_memory.timeout_s = 180


def test_slow_download_waits(d):
    """A client that stops reading makes everybody behind it wait, and loses nothing."""
    before = d.rss_kib()
    conn = d.connection(timeout=120)
    conn.request("GET", raw_path(d, "/tmp/large"), headers={"X-API-Key": d.key})
    answer = conn.getresponse()
    total = len(answer.read(1000))
    time.sleep(2)
    d.memory_within(before, 16384)
    while True:
        piece = answer.read(1 << 20)
        if not piece:
            break
        total += len(piece)
    equal(total, LARGE, "all of it came")
    conn.close()


test_slow_download_waits.timeout_s = 120


def test_download_that_breaks_off_is_not_taken_for_whole(d):
    sb = d.create()["id"]
    d.exec(sb, "head -c 50000000 /dev/zero >/tmp/z")
    conn = d.connection()
    conn.request("GET", f"/v1/sandboxes/{sb}/files?path=/tmp/z", headers={"X-API-Key": d.key})
    answer = conn.getresponse()
    answer.read(1000)
    d.delete(sb)
    try:
        while answer.read(1 << 20):
            pass
        ok(False, "the cut download looked complete")
    except (http.client.IncompleteRead, ConnectionError):
        pass
    conn.close()


def test_upload_whose_client_leaves(d):
    conn = d.connection()
    conn.putrequest("PUT", raw_path(d, "/tmp/half"))
    conn.putheader("X-API-Key", d.key)
    conn.putheader("Content-Length", "1000000")
    conn.endheaders()
    conn.send(b"x" * 1000)
    conn.close()
    script = "ls -l /proc/1/fd 2>/dev/null | grep -c half; true"
    wait_for(lambda: d.exec(sandbox(d), script)["stdout"].strip() in ("", "0"), 5, "the agent let go")


main(globals())
