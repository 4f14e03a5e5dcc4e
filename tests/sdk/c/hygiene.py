#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""libaviary as a package: its headers by themselves, its symbols, and a program built against what is installed."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

import aviary_test as t
from installing import install

BUILD = os.path.abspath(os.environ.get("AVIARY_BUILD", "build"))
STRICT = ["-pedantic", "-Werror", "-Wall", "-Wextra", "-Wshadow", "-Wundef"]
LANGUAGES = [("gcc", "c", "c99"), ("gcc", "c", "c17"), ("g++", "c++", "c++11"), ("g++", "c++", "c++20"),
             ("clang", "c", "c99"), ("clang++", "c++", "c++11")]


def run(*words, **kw):
    return subprocess.run(words, capture_output=True, text=True, timeout=120 * t.SLOW, check=False, **kw)


def must(*words, **kw):
    r = run(*words, **kw)
    t.equal(r.returncode, 0, f"{' '.join(words)}:\n{r.stderr[-1500:]}")
    return r.stdout


class Installed:
    """What `make install` puts into place, with a pkg-config that finds it there."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="aviary-sdk-install-")
        install(BUILD, self.dir)
        found = [os.path.join(d, "aviary.pc") for d, _, names in os.walk(self.dir) if "aviary.pc" in names]
        t.equal(len(found), 1, "one aviary.pc")
        libdir = os.path.dirname(os.path.dirname(found[0]))
        self.lib = libdir
        with open(found[0], encoding="utf-8") as f:
            prefix = re.search(r"^prefix=(.*)$", f.read(), re.M)[1]
        self.top = self.dir + prefix
        self.include = os.path.join(self.top, "include")
        # Only the prefix is another one than at the user's.
        self.env = dict(os.environ, PKG_CONFIG_PATH=os.path.dirname(found[0]))

    def flags(self, *options):
        out = must("pkg-config", f"--define-variable=prefix={self.top}", *options, "aviary", env=self.env)
        return out.split()


def headers(i):
    return sorted(os.path.relpath(os.path.join(d, n), i.include)
                  for d, _, names in os.walk(i.include) for n in names if n.endswith(".h"))


def declared(i):
    """Functions with AVIARY_API in installed headers."""
    names = set()
    for h in headers(i):
        with open(os.path.join(i.include, h), encoding="utf-8") as f:
            text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
        text = re.sub(r"^[ \t]*#(.*\\\n)*.*$", "", text, flags=re.M)
        for part in re.findall(r"AVIARY_API\b([^;{]*)[;{]", text):
            names.update(re.findall(r"\b(aviary_\w+)\s*\(", part)[:1])
            if "(" not in part:
                names.update(re.findall(r"\b(aviary_\w+)(?:\[\])?\s*$", part.strip()))
    return names


def symbols(*nm):
    return {line.split()[-1] for line in must("nm", *nm).splitlines() if len(line.split()) == 3}


def test_headers_stand_alone(i):
    compilers = [x for x in LANGUAGES if shutil.which(x[0])]
    t.ok(len(compilers) >= 4, "gcc and g++ at least")
    found = headers(i)
    t.ok("aviary/aviary.h" in found and len(found) > 5, str(found))
    for compiler, language, standard in compilers:
        for h in found:
            must(compiler, "-x", language, f"-std={standard}", *STRICT, "-fsyntax-only", f"-I{i.include}", "-",
                 input=f"#include <{h}>\n#include <{h}>\nint x;\n")


def test_one_header_brings_all(i):
    with open(os.path.join(i.include, "aviary", "aviary.h"), encoding="utf-8") as f:
        text = f.read()
    for h in headers(i):
        if h != "aviary/aviary.h":
            t.contains(text, f"#include <{h}>", "aviary.h")


def test_what_is_declared_is_exported(i):
    shared = symbols("-D", "--defined-only", os.path.join(i.lib, "libaviary.so"))
    shared = {s.split("@")[0] for s in shared if not s.startswith("AVIARY_")}
    t.equal(sorted(s for s in shared if not s.startswith("aviary_")), [], "exported, but not ours by name")
    want = declared(i)
    t.equal(sorted(want - shared), [], "declared, but not exported")
    t.equal(sorted(shared - want), [], "exported, but not declared")


def test_the_archive_shows_no_more(i):
    static = symbols("-g", "--defined-only", os.path.join(i.lib, "libaviary.a"))
    t.equal(sorted(static ^ declared(i)), [], "static and declared")


PROGRAM = r"""
#include <aviary/aviary.h>
#include <stdio.h>
int main(void)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	aviary_client *c;
	o.base_url = "ftp://x";
	if (aviary_client_new(&c, &o) != 0)
		printf("%s %s\n", aviary_version(), aviary_code_name(aviary_client_error(c)->code));
	aviary_client_free(c);
	return 0;
}
"""


def test_programs_build_against_it(i):
    source = os.path.join(i.dir, "p.c")
    with open(source, "w", encoding="utf-8") as f:
        f.write(PROGRAM)
    sanitize = ["-fsanitize=address,undefined"] if os.environ.get("AVIARY_TEST_SANITIZED") else []
    for compiler, options, linked in (("gcc", ["-std=c99", *STRICT], i.flags("--cflags", "--libs")),
                                      ("g++", ["-x", "c++", *STRICT], i.flags("--cflags", "--libs")),
                                      ("gcc", ["-std=c99"], static_flags(i))):
        binary = os.path.join(i.dir, "p")
        must(compiler, *options, *sanitize, source, "-x", "none", "-o", binary, *linked)
        out = must(binary, env={**os.environ, "LD_LIBRARY_PATH": i.lib})
        t.equal(out.split()[1], "AVIARY_E_INVALID", "a URL that is none")


def static_flags(i):
    """Ours from the archive, the system's as they come."""
    words = i.flags("--cflags", "--libs", "--static")
    return [os.path.join(i.lib, "libaviary.a") if w == "-laviary" else w for w in words]


def main():
    i = Installed()
    tap = t._Tap()
    try:
        for function in t._tests(globals()):
            tap.run(function.__name__[5:].replace("_", " "), lambda f=function: f(i), 120)
    finally:
        shutil.rmtree(i.dir)
    print(f"1..{tap.number}", flush=True)
    sys.exit(1 if tap.failed else 0)


if __name__ == "__main__":
    main()
