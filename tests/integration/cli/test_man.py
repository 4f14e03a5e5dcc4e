#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The manual: a page for every command with every option, for every function of the library; all of them render"""
import glob
import os
import re
import shutil
import subprocess
import sys
import traceback

from aviary_test import equal, ok, program

AVIARY = program("aviary")
BUILD = os.environ.get("AVIARY_BUILD_DIR") or os.environ.get("AVIARY_BUILD", "build")
MAN = os.path.join(BUILD, "man")


def output(*words, **kwargs):
    return subprocess.run(words, stdout=subprocess.PIPE, check=True, timeout=60, **kwargs).stdout.decode()


def pages(section):
    return sorted(glob.glob(os.path.join(MAN, f"man{section}", "*")))


def own_pages():
    """Those that are more than a link to another."""
    return [p for s in (1, 3) for p in pages(s) if not read(p).startswith(".so ")]


def read(path):
    with open(path, encoding="ascii") as f:
        return f.read()


def plain(path):
    """The words of a page, as they were before they were set."""
    text = re.sub(r"\\f[BIR]", "", read(path))
    for roff, c in (("\\-", "-"), ("\\(aq", "'"), ("\\(dq", '"'), ("\\(ti", "~"), ("\\(ha", "^"), ("\\&", "")):
        text = text.replace(roff, c)
    return text


def test_commands():
    overview = output(AVIARY, "help")
    commands = re.findall(r"^  ([a-z]+)  ", overview, re.M)
    ok(len(commands) > 25, f"commands: {commands}")
    found = [os.path.basename(p) for p in pages(1)]
    equal(found, sorted(["aviary.1"] + [f"aviary-{c}.1" for c in commands]), "pages")
    for command in commands:
        page = plain(os.path.join(MAN, "man1", f"aviary-{command}.1"))
        text = output(AVIARY, command, "--help")
        options = re.findall(r"^  (?:-\w, |    )--([a-z-]+)", text, re.M)
        ok("url" in options and "help" in options, f"options of {command}: {options}")
        for option in options:
            ok(re.search(rf"^(-\w, )?--{option}( |$)", page, re.M), f"aviary-{command}.1 lacks --{option}")
        for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "SEE ALSO"):
            ok(f".SH {section}\n" in page, f"aviary-{command}.1 lacks {section}")
        ok(f"aviary-{command}(1)" in plain(os.path.join(MAN, "man1", "aviary.1")), f"aviary.1 lacks {command}")


def test_references():
    """What a page points to is there."""
    names = {(s, os.path.basename(p)[:-2]) for s in (1, 3) for p in pages(s)} | {(8, "aviaryd")}
    for path in own_pages():
        see = plain(path).split(".SH SEE ALSO")[-1]
        for name, section in re.findall(r"([\w-]+)\((\d)\)", see):
            ok((int(section), name) in names, f"{path} points to {name}({section})")


def test_functions():
    library = os.path.join(BUILD, "src", "client", "libaviary.so")
    symbols = {s for s in re.findall(r" T (aviary_\w+)", output("nm", "-D", "--defined-only", library))}
    ok(len(symbols) > 50, "symbols")
    names = {os.path.basename(p)[:-2] for p in pages(3)}
    equal(sorted(symbols - names), [], "functions without a page")
    for path in pages(3):
        m = re.fullmatch(r"\.so (man3/\S+)\n", read(path))
        if m:
            ok(os.path.exists(os.path.join(MAN, m.group(1))), f"{path} leads nowhere")
        else:
            ok(".SH DESCRIPTION\n" in read(path), f"{path} says nothing")


def test_groff():
    if not shutil.which("groff"):
        return "groff is not installed"
    r = subprocess.run(["groff", "-ww", "-man", "-Tutf8", *own_pages()], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       check=False, timeout=60)
    equal((r.returncode, r.stderr.decode()), (0, ""), "warnings of groff")
    return None


def test_mandoc():
    if not shutil.which("mandoc"):
        return "mandoc is not installed"
    r = subprocess.run(["mandoc", "-Tlint", "-Wwarning", *own_pages()], stdout=subprocess.PIPE, check=False, timeout=60)
    # A page has no date: it is of its version.
    lines = [line for line in r.stdout.decode().splitlines() if "missing date" not in line]
    equal(lines, [], "warnings of mandoc")
    return None


def test_man():
    if not shutil.which("man"):
        return "man is not installed"
    env = {**os.environ, "MANPATH": MAN, "MANPAGER": "cat", "LC_ALL": "C.UTF-8", "MANWIDTH": "80"}
    link = next(p for p in pages(3) if read(p).startswith(".so ") and "_INIT" not in p)
    for name, words in (("aviary-run", "aviary run"), ("aviary_sandbox_exec", "aviary_exec_options"),
                        (os.path.basename(link)[:-2], read(link).split("/")[1].strip()[:-2]), ("libaviary", "libaviary-process")):
        ok(words in output("man", name, env=env), f"man {name}")
    return None


def main():
    failed = 0
    tests = [(n, t) for n, t in globals().items() if n.startswith("test_")]
    print(f"1..{len(tests)}", flush=True)
    for i, (name, test) in enumerate(tests, 1):
        try:
            skipped = test()
            print(f"ok {i} - {name}" + (f" # SKIP {skipped}" if skipped else ""), flush=True)
        except BaseException as error:  # the report goes on with the next test
            failed += 1
            print(f"not ok {i} - {name}", flush=True)
            for line in "".join(traceback.format_exception(error)).splitlines():
                print(f"# {line}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
