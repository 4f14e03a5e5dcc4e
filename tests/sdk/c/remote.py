#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Remote functions in every kind of program that compilers make: is the function found, can the program be sent, does
it become a worker? Without a sandbox: the worker is talked to through pipes (src/client/remote_wire.h), and a call
that gets as far as the server, which is not there, has found everything it needs."""
import hashlib
import os
import shutil
import struct
import subprocess
import sys

import aviary_test as t
from hygiene import BUILD, Installed, must, run, static_flags

PROGRAM = r"""
#include <aviary/aviary.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#ifdef __cplusplus
#include <string>
static std::string before_main = "set";
#endif
typedef struct { int a; double b[3]; } numbers;
AVIARY_POD(numbers, a, b);
#ifdef IN_LIBRARY
AVIARY_REMOTE_DECLARE(twice, numbers, double)
#ifdef __cplusplus
extern "C"
#endif
aviary_op *call_twice(aviary_client *c, const numbers *in);
#else
AVIARY_REMOTE(twice, numbers, double)
{
	*out = 2 * (in->a + in->b[0] + in->b[1] + in->b[2]);
#ifdef __cplusplus
	return before_main != "set";
#else
	return 0;
#endif
}
#endif
#ifdef LIBRARY
aviary_op *call_twice(aviary_client *c, const numbers *in);
aviary_op *call_twice(aviary_client *c, const numbers *in)
{
	return twice_remote(c, in, 0);
}
#elif defined CONSTRUCTOR
AVIARY_WORKER_CONSTRUCTOR();
#endif
#ifndef LIBRARY
int main(int argc, char **argv)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	numbers in = {1, {2, 3, 4}};
	aviary_client *c;
	aviary_error e;
#ifndef CONSTRUCTOR
	aviary_worker_init(argc, argv);
#endif
	if (argc > 2 && strcmp(argv[1], "without") == 0)
		unlink(argv[2]);
	if (argc > 3 && rename(argv[2], argv[3]) != 0)
		return 2;
	o.base_url = "http://127.0.0.1:1";
	o.api_key = "av_0000000000000000000000000000000000000000";
	o.retry_budget_ms = -1;
	if (aviary_client_new(&c, &o) != 0)
		return 2;
#ifdef IN_LIBRARY
	aviary_await(call_twice(c, &in), &e);
#else
	aviary_await(twice_remote(c, &in, 0), &e);
#endif
	printf("%s %s\n", aviary_code_name(e.code), e.message);
	aviary_client_free(c);
	return 0;
}
#endif
"""

# A static one has no libcurl: only the side that is in the sandbox, and what knows of files.
STATIC = r"""
#include <stdio.h>
#include "client/remote.h"
typedef struct { int a; double b[3]; } numbers;
AVIARY_POD(numbers, a, b);
AVIARY_REMOTE_DEFINE(twice, numbers, double)
{
	*out = 2 * (in->a + in->b[0] + in->b[1] + in->b[2]);
	return 0;
}
int main(int argc, char **argv)
{
	struct avc_program *p;
	char text[512] = "";
	aviary_worker_init(argc, argv);
	if (avc_program_new(&p, text) < 0)
		printf("%s\n", text);
	else
		printf("%zu %d %s\n", p->n, p->loader, p->objects[0].name);
	return 0;
}
"""

NEEDS = "AVIARY_E_UNREACHABLE"


class Programs:
    def __init__(self):
        self.i = Installed()
        self.dir = self.i.dir
        self.env = {**os.environ, "LD_LIBRARY_PATH": f"{self.dir}:{self.i.lib}"}
        self.libs = self.i.flags("--cflags", "--libs")
        if os.environ.get("AVIARY_TEST_SANITIZED"):
            self.libs.append("-fsanitize=address,undefined")

    def path(self, name):
        return os.path.join(self.dir, name)

    def build(self, name, *options, compiler="gcc", libs=None, source=PROGRAM):
        file = self.path(name + (".cc" if "++" in compiler else ".c"))
        with open(file, "w", encoding="utf-8") as f:
            f.write(source)
        must(compiler, "-Wall", "-Wextra", "-Werror", file, "-o", self.path(name), *options,
             *(self.libs if libs is None else libs))
        return self.path(name)

    def outcome(self, *command, **kw):
        r = run(*command, env=self.env, **kw)
        t.equal(r.returncode, 0, f"{command}: {r.stderr}")
        return r.stdout

    def call(self, *command):
        """The code a call ends with, and why."""
        return self.outcome(*command).split(" ", 1)

    def worker(self, command, build):
        """The frames of a worker that is asked for twice({1, {2, 3, 4}})."""
        types = b"".join(struct.pack("<Q", n) + text + b"\0" for n, text in ((32, b"numbers{a, b}"), (8, b"double")))
        layout = hashlib.sha256(types).digest()[:8]
        argument = struct.pack("<ixxxxddd", 1, 2, 3, 4)
        head = b"AvCaller" + struct.pack("<IIIIQQ", 1, 5, len(build), 0, len(argument), 1000) + layout
        r = subprocess.run(command, input=head + b"twice" + build + argument, capture_output=True, check=False,
                           timeout=60 * t.SLOW, env={**self.env, "AVIARY_WORKER": "1"})
        t.equal((r.returncode, r.stderr, r.stdout[:8]), (0, b"", b"AvWorke1"), f"{command}")
        frames, at = {}, 8
        while at < len(r.stdout):
            channel, n = struct.unpack_from("<II", r.stdout, at)
            frames[channel] = frames.get(channel, b"") + r.stdout[at + 8:at + 8 + n]
            at += 8 + n
        return frames

    def works(self, *command):
        refused = self.worker(command, b"gnu-00")
        t.equal(struct.unpack_from("<I", refused[4])[0], 2, "another build is refused")
        build = refused[4][32:]
        frames = self.worker(command, build)
        kind, returned, size, value = struct.unpack("<IiQd", frames[3])
        t.equal((kind, returned, size, value), (0, 0, 8, 20.0), f"{command}: the result")
        return build


def test_usual_programs(p):
    variants = {"plain": [], "nopie": ["-no-pie", "-fno-pie"], "c99": ["-std=c99", "-pedantic"],
                "small": ["-Os", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-flto"],
                "nobuild": ["-Wl,--build-id=none"], "constructor": ["-DCONSTRUCTOR"]}
    builds = {}
    for name, options in variants.items():
        binary = p.build(name, *options)
        if name == "small":
            must("strip", "-s", binary)
        builds[name] = p.works(binary)
        code, why = p.call(binary)
        t.equal(code, NEEDS, f"{name}: {why}")
    t.ok(builds["nobuild"].startswith(b"sum-") and builds["plain"].startswith(b"gnu-"), str(builds))


def test_other_compilers(p):
    for name, compiler, options in (("cxx", "g++", ["-std=c++11"]), ("cxx20", "g++", ["-std=c++20", "-O2"]),
                                    ("clang", "clang", ["-O2"]), ("clangxx", "clang++", [])):
        if not shutil.which(compiler):
            continue
        binary = p.build(name, *options, compiler=compiler)
        p.works(binary)
        t.equal(p.call(binary)[0], NEEDS, name)


def test_the_archive(p):
    binary = p.build("archive", libs=static_flags(p.i))
    p.works(binary)
    t.equal(p.call(binary)[0], NEEDS, "libaviary.a")


def test_static_programs(p):
    if os.environ.get("AVIARY_TEST_SANITIZED"):
        return
    top = os.path.dirname(BUILD)
    libs = ["-I", os.path.join(top, "src"), "-I", os.path.join(top, "include"), "-I", os.path.join(BUILD, "include"),
            "-D_GNU_SOURCE", *(os.path.join(BUILD, "src", x) for x in ("client/libav_aviary.a", "base/libav_base.a")),
            "-l:libsodium.a"]
    for name, options in (("static", ["-static"]), ("staticpie", ["-static-pie", "-fPIE"])):
        binary = p.build(name, *options, libs=libs, source=STATIC)
        p.works(binary)
        t.equal(p.outcome(binary), "1 -1 executable\n", "one file, started by itself")


def test_functions_in_a_library(p):
    library = p.build("libtwice.so", "-DLIBRARY", "-shared", "-fPIC", "-Wl,-soname,libtwice.so")
    for name, compiler in (("user", "gcc"), ("userxx", "g++")):
        binary = p.build(name, "-DIN_LIBRARY", library, compiler=compiler)
        p.works(binary)
        t.equal(p.call(binary)[0], NEEDS, "found in a library")
    # Rebuilt under the program that runs.
    other = p.build("other.so", "-DLIBRARY", "-DX", "-O3", "-shared", "-fPIC", "-Wl,-soname,libtwice.so")
    code, why = p.call(p.path("user"), "with", other, library)
    t.equal(code, "AVIARY_E_FUNCTION_PROGRAM", why)
    t.contains(why, "replaced", "why")
    code, why = p.call(p.path("user"), "without", library)
    t.equal(code, "AVIARY_E_FUNCTION_PROGRAM", why)


def test_a_library_by_its_path(p):
    library = p.build("libpath.so", "-DLIBRARY", "-shared", "-fPIC")
    code, why = p.call(p.build("bypath", "-DIN_LIBRARY", library))
    t.equal(code, "AVIARY_E_FUNCTION_PROGRAM", why)
    t.contains(why, "-soname", "the cure")


def test_a_program_without_its_notes(p):
    binary = p.build("noteless")
    must("strip", "-R", ".note.aviary", binary)
    code, why = p.call(binary)
    t.equal(code, "AVIARY_E_FUNCTION_UNKNOWN", why)
    t.contains(why, ".note.aviary", "why")


def test_a_program_that_is_gone(p):
    binary = p.build("gone")
    t.equal(p.call(binary, "without", binary)[0], NEEDS, "the kernel still has it")
    t.ok(not os.path.exists(binary), "it is gone")


def test_started_by_its_loader(p):
    binary = p.build("byloader")
    loader = next(w for w in must("readelf", "-l", binary).split() if w.startswith("/lib") and "ld-" in w).rstrip("]")
    p.works(loader, binary)
    code, why = p.call(loader, binary)
    t.equal(code, NEEDS, why)


def test_a_program_that_cannot_be_read(p):
    binary = p.build("secret")
    os.chmod(binary, 0o711)
    os.chmod(p.dir, 0o755)
    if os.getuid() != 0:
        os.chmod(binary, 0o111)
        code, why = p.call(binary)
    else:
        for d, dirs, files in os.walk(p.dir):
            for n in dirs:
                os.chmod(os.path.join(d, n), 0o755)
            del files
        code, why = p.outcome(binary, user=65534, group=65534, extra_groups=[]).split(" ", 1)
    t.equal(code, "AVIARY_E_FUNCTION_PROGRAM", why)
    t.contains(why, "denied", "why")


def test_preloaded_libraries_stay(p):
    preload = p.build("preload.so", "-shared", "-fPIC", libs=[], source="int aviary_test_preloaded = 1;\n")
    binary = p.build("preloaded", "-Wl,--no-as-needed", "-ldl")
    r = run(binary, env={**p.env, "LD_PRELOAD": preload})
    t.equal(r.stdout.split()[0], NEEDS, r.stderr)


def test_pointers_are_refused_by_the_compiler(p):
    for members, listed in (("int a; char *p;", "a, p"), ("int a; char *p;", "a"), ("int a; void *p;", "a, p"),
                            ("int a; int b;", "a"), ("int a; int b;", "b, a"), ("struct { char *p; } a;", "a"),
                            ("int a; int (*f)(void);", "a, f"), ("char *p[2];", "p")):
        text = f"#include <aviary/aviary.h>\ntypedef struct {{ {members} }} bad;\nAVIARY_POD(bad, {listed});\n"
        for compiler, language in (("gcc", "c"), ("g++", "c++"), ("clang", "c")):
            if shutil.which(compiler):
                r = run(compiler, "-x", language, "-fsyntax-only", *p.i.flags("--cflags"), "-", input=text)
                t.ok(r.returncode != 0, f"{compiler}: {members} {listed}")


def main():
    p = Programs()
    tap = t._Tap()
    try:
        for function in t._tests(globals()):
            tap.run(function.__name__[5:].replace("_", " "), lambda f=function: f(p), 120)
    finally:
        shutil.rmtree(p.dir)
    print(f"1..{tap.number}", flush=True)
    sys.exit(1 if tap.failed else 0)


if __name__ == "__main__":
    main()
