#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/sdk-parity.md: no cell is empty, every name in it exists, and the tests it names use the calls.

In the other pages that teach the library every name exists, too."""
import os
import pathlib
import re
import sys

import aviary_test as t

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ.get("AVIARY_BUILD", "build"))
PAGE = (ROOT / "docs" / "sdk-parity.md").read_text(encoding="utf-8")
HEADERS = "\n".join(p.read_text(encoding="utf-8") for top in (ROOT / "include", BUILD / "include")
                    for p in sorted(top.rglob("*.h")))

# Variables of the environment: no header defines them.
ENVIRONMENT = {"AVIARY_URL", "AVIARY_API_KEY", "AVIARY_CREDENTIALS", "AVIARY_CONFIG_DIR", "AVIARY_CA", "AVIARY_WATCHDOG"}


def rows():
    """(line number, cells) of every row of every table."""
    for number, line in enumerate(PAGE.splitlines(), 1):
        if line.startswith("|") and not re.fullmatch(r"\|(-+\|)+", line) and not line.startswith("| there |"):
            yield number, [c.strip() for c in line.strip().strip("|").split("|")]


def tests_of(cell):
    for name in re.findall(r"`([^`]+)`", cell):
        path = ROOT / name if "/" in name else ROOT / "tests" / "sdk" / "c" / name
        yield name, path


def test_no_cell_is_empty():
    n = 0
    for number, cells in rows():
        n += 1
        t.ok(len(cells) == 3 and all(len(c) > 1 for c in cells), f"line {number}: {cells}")
    t.ok(n > 120, f"{n} rows")


def test_every_name_exists():
    wrong = []
    for number, cells in rows():
        for name in re.findall(r"\b(aviary_\w+|AVIARY_\w+)\b", cells[1]):
            if not re.search(rf"\b{name}\b", HEADERS) and name not in ENVIRONMENT:
                wrong.append(f"line {number}: {name}")
        for word in re.findall(r"`([a-z][a-z_]*)`", cells[1]):
            if not word.startswith("aviary") and not re.search(rf"\b{word}\b", HEADERS):
                wrong.append(f"line {number}: {word}")
    t.equal(wrong, [], "in no header")


def test_every_command_exists():
    for number, cells in rows():
        for command in re.findall(r"`aviary ([a-z]+)", cells[1]):
            t.ok((ROOT / "src" / "cli" / f"{command}.c").is_file(), f"line {number}: there is no aviary {command}")
            text = "\n".join(p.read_text(encoding="utf-8") for _, path in tests_of(cells[2]) for p in path.glob("*.py"))
            t.contains(text, f'"{command}"', f"line {number}: {cells[2]}")


def test_pages_name_what_exists():
    wrong = []
    for page in ("docs/libaviary.md", "docs/sdk-parity.md", "README.md"):
        text = re.sub(r"\]\([^)]*\)|aviary/[a-z_]+\.h", "", (ROOT / page).read_text(encoding="utf-8"))
        for name in sorted(set(re.findall(r"\b(?:aviary_[a-z0-9_]*[a-z0-9]|AVIARY_[A-Z0-9_]*[A-Z0-9])\b", text))):
            if not re.search(rf"\b{name}\b", HEADERS) and name not in ENVIRONMENT:
                wrong.append(f"{page}: {name}")
    t.equal(wrong, [], "in no header")


def test_pages_link_to_what_exists():
    for page in ("docs/libaviary.md", "docs/sdk-parity.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            t.ok(((ROOT / page).parent / link).exists(), f"{page}: {link}")


def test_the_tests_use_them():
    wrong = []
    for number, cells in rows():
        files = list(tests_of(cells[2]))
        if not files:
            wrong.append(f"line {number}: names no test")
        text = ""
        for name, path in files:
            if path.is_dir():
                text += "\n".join(p.read_text(encoding="utf-8") for p in path.glob("*.py"))
            elif path.is_file():
                text += path.read_text(encoding="utf-8")
            else:
                wrong.append(f"line {number}: there is no {name}")
        calls = [c for c in re.findall(r"`((?:aviary_\w+|AVIARY_\w+))`", cells[1])
                 if re.search(rf"\b{c}\s*\(|define {c}\b|\b{c} = ", HEADERS)]
        for call in calls:
            if not re.search(rf"\b{call}(_sync)?\b", text):
                wrong.append(f"line {number}: {cells[2]} does not use {call}")
    t.equal(wrong, [], "claims")


def main():
    tap = t._Tap()
    for function in t._tests(globals()):
        tap.run(function.__name__[5:].replace("_", " "), function, 30)
    print(f"1..{tap.number}")
    sys.exit(1 if tap.failed else 0)


if __name__ == "__main__":
    main()
