#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trees of a sandbox as tar archives, out and in: what is kept, what is refused (T27)."""

import io
import os
import subprocess
import tarfile
import tempfile
import time
import urllib.parse

from aviary_test import equal, least, main, ok, wait_for

SHARED = {}
TIME = 1600000000


def sandbox(d):
    if "id" not in SHARED:
        SHARED["id"] = d.create(memory_mb=512)["id"]
    return SHARED["id"]


def url(d, path, **query):
    return f"/v1/sandboxes/{sandbox(d)}/files/tar?" + urllib.parse.urlencode({"path": path, **query})


def put(d, path, data, status=200, **query):
    r = d.expect(status, "PUT", url(d, path, **query), data, headers={"Content-Type": "application/x-tar"}, timeout=120)
    return r.json() if status == 200 else r


def get(d, path, **query):
    r = d.expect(200, "GET", url(d, path, **query), timeout=120)
    equal(r.headers["Content-Type"], "application/x-tar", "type")
    return r.body


def sh(d, script, **body):
    r = d.exec(sandbox(d), script, **body)
    equal((r["exit_code"], r["stderr"]), (0, ""), script)
    return r["stdout"]


def entry(name, data=None, **fields):
    t = tarfile.TarInfo(name)
    t.mtime = TIME
    t.mode = 0o644
    if data is not None:
        t.size = len(data)
    for key, value in fields.items():
        setattr(t, key, value)
    return t, data


def directory(name, mode=0o755):
    return entry(name, type=tarfile.DIRTYPE, mode=mode)


def link(name, target, kind=tarfile.SYMTYPE):
    return entry(name, type=kind, linkname=target)


def archive(*entries, form=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as t:
        for info, data in entries:
            t.addfile(info, io.BytesIO(data) if data is not None else None)
    return out.getvalue()


def refused(d, what, *entries, data=None, status=400, says=""):
    r = put(d, "/tmp/refused", archive(*entries) if data is None else data, status)
    ok(says in r.message, f"{what}: {r.message}")
    print(f"#   {what}: {r.message}")


def test_out(d):
    sh(d, "mkdir -p /t/b/c /t/empty && cd /t && printf data >b/f && chmod 4750 b/f && ln -s b/f link && ln b/f hard && "
          "mkfifo fifo && truncate -s 3M sparse && printf x >$(printf 'n%.0s' $(seq 200)) && printf ü >ü && "
          "chown 1000:1000 b && touch -d @1600000000 b/f && : >zero")
    data = get(d, "/t")
    equal(data, get(d, "/t/"), "twice the same")
    with tarfile.open(fileobj=io.BytesIO(data)) as t:
        members = {m.name: m for m in t.getmembers()}
        equal(sorted(members), sorted([".", "./b", "./b/c", "./b/f", "./empty", "./hard", "./link", "./sparse", "./ü",
                                       "./zero", "./" + "n" * 200]), "names; the pipe is left out")
        equal([m.name for m in t.getmembers()][:4], [".", "./b", "./b/c", "./b/f"], "in order")
        f = members["./b/f"]
        equal((f.mode, f.size, f.mtime, f.uname, f.gname), (0o4750, 4, TIME, "root", "root"), "a file")
        equal((members["./b"].uid, members["./b"].uname), (1000, "user"), "owner")
        equal((members["./link"].issym(), members["./link"].linkname), (True, "b/f"), "a link")
        equal(t.extractfile("./hard").read(), b"data", "a hard link is a file")
        equal(t.extractfile("./sparse").read(), b"\0" * (3 << 20), "a sparse file")
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["tar", "-xf", "-", "-C", place], input=data, check=True, timeout=60)
        equal(sorted(os.listdir(place)), sorted(["b", "empty", "hard", "link", "sparse", "ü", "zero", "n" * 200]),
              "what GNU tar makes of it")


def test_out_refusals(d):
    for path, status, code in (("/t/none", 404, "not_found"), ("/t/b/f", 400, "invalid_request"),
                               ("/proc", 400, "invalid_request"), ("", 400, "invalid_request")):
        equal(d.expect(status, "GET", url(d, path)).code, code, f"tar of {path!r}")
    sh(d, "mkdir -p /t2 && echo secret >/t2/f && chmod 600 /t2/f")
    equal(d.expect(403, "GET", url(d, "/t2", user="user")).code, "forbidden", "what the user may not read")


def test_whole_root(d):
    """All of the sandbox, without what procfs and sysfs invent, while it changes."""
    conn = d.connection(timeout=60)
    conn.request("GET", url(d, "/"), headers={"X-API-Key": d.key})
    answer = conn.getresponse()
    equal(answer.status, 200, "status")
    answer.read(1 << 20)
    conn.close()
    with tarfile.open(fileobj=io.BytesIO(get(d, "/dev"))) as t:
        ok(all(m.isdir() or m.issym() or m.isreg() for m in t.getmembers()), "no devices")


def test_in(d):
    data = archive(directory("./"), directory("a", 0o500), entry("a/f", b"hello", mode=0o6755), link("s", "/etc/passwd"),
                   link("h", "a/f", tarfile.LNKTYPE), entry("no/such/dirs/f", b"x" * 100000), entry("empty", b""),
                   entry("ü" * 60, b"u"), entry("d/" + "n" * 200, b"n"))
    equal(put(d, "/in/new", data), {"entries": 9, "bytes": 100007, "skipped": 0}, "answer")
    equal(sh(d, "cd /in/new && stat -c '%n %a %Y %s %h' a a/f empty && readlink s && cat h && stat -c %a no ."),
          f"a 500 {TIME} 8 2\na/f 755 {TIME} 5 2\nempty 644 {TIME} 0 1\n/etc/passwd\nhello755\n755\n".replace(
              "8 2", sh(d, "stat -c '%s %h' /in/new/a").strip()), "what is there")
    equal(sh(d, "ls /in/new | wc -l; ls /in/new/d | tr -d n"), "7\n\n", "long names")
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT):
        put(d, "/in/forms", archive(entry("f" * 90 + "/" + "g" * 90, b"1"), form=form))
    equal(put(d, "~/mine", archive(entry("f", b"1")), user="user")["entries"], 1, "as a user")
    equal(sh(d, "stat -c '%U %G' /home/user/mine/f"), "user user\n", "whose it is")
    equal(put(d, "/in/x", archive())["entries"], 0, "an empty archive")


def test_there_and_back(d):
    sh(d, "mkdir -p /src && cp -a /etc/pam.d /etc/passwd /src/ && mkdir -m 1777 /src/sticky && ln -s ../x /src/l")
    put(d, "/copy", get(d, "/src"))
    equal(sh(d, "diff -r --no-dereference /src /copy && cd /copy && stat -c '%a' sticky && readlink l"), "1777\n../x\n", "the same tree")


def test_large(d):
    before = d.rss_kib()
    sh(d, "mkdir -p /dev/shm/l && head -c 100000000 /dev/urandom >/dev/shm/l/big")
    began = time.monotonic()
    data = get(d, "/dev/shm/l")
    took = time.monotonic() - began
    began = time.monotonic()
    put(d, "/dev/shm/l2", data)
    print(f"# 100 MB out in {took:.2f} s, in in {time.monotonic() - began:.2f} s")
    sh(d, "cmp /dev/shm/l/big /dev/shm/l2/big && rm -r /dev/shm/l /dev/shm/l2")
    d.memory_within(before, 16384)


def test_many_entries(d):
    """20,000 files, and 10,000 entries of an attacker's: names that come again and again."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as t:
        for i in range(20000):
            t.addfile(entry(f"d{i % 100}/f{i}", b"")[0])
    began = time.monotonic()
    equal(put(d, "/many", out.getvalue())["entries"], 20000, "entries")
    print(f"# 20,000 files in {time.monotonic() - began:.2f} s")
    one = archive(entry("same", b"x"), directory("dir"))[:-1024].rstrip(b"\0")
    one += b"\0" * (-len(one) % 512)
    equal(put(d, "/many", one * 5000 + b"\0" * 1024)["entries"], 10000, "duplicates")
    equal(sh(d, "cat /many/same; ls /many | wc -l"), "x102\n", "the last one counts")
    sh(d, "rm -r /many")


def test_refused(d):
    sh(d, "mkdir -p /tmp/refused /tmp/outside && echo safe >/tmp/outside/f && ln -s /tmp/outside /tmp/refused/out && "
          "ln -s inside /tmp/refused/in && mkdir /tmp/refused/inside /tmp/refused/full && : >/tmp/refused/full/x")
    refused(d, "zip slip", entry("../outside/f", b"evil"), says='".."')
    refused(d, "zip slip inside", entry("a/../../outside/f", b"evil"), says='".."')
    refused(d, "absolute", entry("/tmp/outside/f", b"evil"), says="absolute")
    refused(d, "through a link that was there", entry("out/f", b"evil"), says="leads out")
    refused(d, "a link, then a file through it", link("l", "/tmp/outside"), entry("l/f", b"evil"), says="leads out")
    refused(d, "a relative link", link("l", "../outside"), entry("l/f", b"evil"), says="leads out")
    refused(d, "a chain of links", link("l1", "."), link("l1/l2", ".."), entry("l2/outside/f", b"evil"), says="leads out")
    refused(d, "a hard link out", link("h", "../outside/f", tarfile.LNKTYPE), says='".."')
    refused(d, "an absolute hard link", link("h", "/etc/shadow", tarfile.LNKTYPE), says="absolute")
    refused(d, "a hard link through a link", link("h", "out/f", tarfile.LNKTYPE), says="leads out")
    refused(d, "a hard link to itself", link("h", "h", tarfile.LNKTYPE), says="itself")
    refused(d, "a magic link", link("m", "/proc/self/root"), entry("m/tmp/outside/f", b"evil"), says="leads out")
    refused(d, "a file as a directory", entry("f", b"x"), entry("f/g", b"x"))
    refused(d, "a file over a directory", entry("full", b"x"), says="directory")
    refused(d, "a long part", entry("n" * 300, b"x"), says="255")
    refused(d, "a NUL in a pax name", data=pax_path(b"a\0b"), says="NUL")
    refused(d, "a pax name without end", data=pax_path(b"a" * 5000), says="4095")
    refused(d, "a huge pax header", data=pax_path(b"a" * 200000), says="128 KiB")
    refused(d, "GNU sparse", data=sparse(), status=501, says="sparse")
    refused(d, "gzip", data=b"\x1f\x8b\x08" + b"\0" * 600, status=501, says="gzip")
    refused(d, "junk", data=b"junk" * 500, says="no tar header")
    refused(d, "nothing", data=b"", says="no tar archive")
    refused(d, "cut in a header", data=archive(entry("cut", b"x" * 2000))[:300], says="no tar archive")
    refused(d, "cut in a file", data=archive(entry("cut", b"x" * 2000))[:1500], says="cut off")
    refused(d, "cut before the end mark", data=archive(entry("whole", b"x" * 2000))[:2560], says="cut off")
    equal(sh(d, "cat /tmp/outside/f; ls /tmp/outside /tmp/refused | sort | tr '\\n' ' '"),
          "safe\n /tmp/outside: /tmp/refused: f f full in inside l l1 l2 m out whole ",
          "nothing outside was touched, and no half file stays")
    equal(put(d, "/tmp/refused", archive(entry("in/f", b"good")))["entries"], 1, "a link that stays inside works")
    equal(put(d, "/tmp/refused", archive(entry("out", b"file")))["entries"], 1, "a link that stands in the way")
    equal(sh(d, "cat /tmp/refused/inside/f /tmp/refused/out; ls /tmp/outside"), "goodfilef\n", "is replaced")


def pax_path(path):
    """A pax header with this path, and a file."""
    record = b" path=" + path + b"\n"
    n = len(record) + len(str(len(record) + 6))
    record = str(n).encode() + record
    ok(len(record) == n, "the length of the record")
    head = tarfile.TarInfo("pax")
    head.size, head.type = len(record), b"x"
    return (head.tobuf(tarfile.USTAR_FORMAT) + record + b"\0" * (-len(record) % 512) +
            archive(entry("f", b"x"), form=tarfile.USTAR_FORMAT))


def sparse():
    head = tarfile.TarInfo("s")
    head.type = tarfile.GNUTYPE_SPARSE
    return head.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024


def test_left_out(d):
    data = archive(entry("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), entry("sda", type=tarfile.BLKTYPE),
                   entry("pipe", type=tarfile.FIFOTYPE), entry("su", b"#!", mode=0o6755), directory("sg", 0o2775))
    equal(put(d, "/tmp/left", data), {"entries": 5, "bytes": 2, "skipped": 3}, "devices and pipes are counted")
    equal(sh(d, "cd /tmp/left && stat -c '%n %a' *"), "sg 775\nsu 755\n", "no set-id bits")
    sh(d, "mkdir -m 755 /tmp/left2")
    equal(put(d, "/tmp/left2", archive(entry("x", b"x")), 403, user="user").code, "forbidden", "where the user may not")


def test_disk_full(d):
    sb = d.create(disk_mb=least(64, 256))["id"]
    path = f"/v1/sandboxes/{sb}/files/tar?path=/full"
    r = d.request("PUT", path, archive(entry("a", b"x" * (least(90, 300) << 20))), timeout=120)
    equal((r.status, r.code), (507, "no_space"), "an archive that does not fit")
    equal(d.exec(sb, "ls /full")["stdout"], "", "no half file stays")
    d.delete(sb)


def test_client_leaves(d):
    """In the middle of either: nothing half stays, and everything goes on."""
    sh(d, "mkdir -p /dev/shm/g && head -c 20000000 /dev/zero >/dev/shm/g/z")
    for _ in range(3):
        conn = d.connection()
        conn.request("GET", url(d, "/dev/shm/g"), headers={"X-API-Key": d.key})
        conn.getresponse().read(1000)
        conn.close()
        conn = d.connection()
        conn.putrequest("PUT", url(d, "/dev/shm/half"))
        conn.putheader("X-API-Key", d.key)
        conn.putheader("Content-Length", "10000000")
        conn.endheaders()
        conn.send(archive(entry("half", b"x" * 5000000))[:1000000])
        time.sleep(0.1)
        conn.close()
    wait_for(lambda: sh(d, "ls /dev/shm/half").strip() == "", 10, "the half file is gone")
    ok(len(get(d, "/dev/shm/g")) > 20000000, "the next one is whole")


main(globals())
