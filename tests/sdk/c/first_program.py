#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/first-program.md is what happens: installs, starts, compiles and runs the README's program anew."""
import os
import pathlib
import subprocess

import aviary_test as t

ROOT = pathlib.Path(__file__).resolve().parents[3]


def main():
    if os.geteuid() != 0:
        print("1..0 # SKIP needs root, to install without leaving a trace")
        return
    r = subprocess.run([ROOT / "tools" / "record-first-program", os.environ["AVIARY_BUILD"], "--check"],
                       capture_output=True, text=True, timeout=200 * t.SLOW, check=False)
    for line in (r.stdout + r.stderr).splitlines() if r.returncode else []:
        print("# " + line)
    print(f"{'not ok' if r.returncode else 'ok'} 1 - the recorded way to a first program is true\n1..1")


main()
