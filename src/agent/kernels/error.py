# SPDX-License-Identifier: Apache-2.0
# error.py - an exception as notebooks show it: name, value, lines of the traceback
import sys
import traceback


def report(error):
    name = type(error).__name__
    try:
        value = str(error)
    except Exception:
        value = "<its text cannot be made>"
    core["send_error"](name, value, lines_of(error, name))


def without_driver(tb):
    while tb and tb.tb_frame.f_globals is core:
        tb = tb.tb_next
    return tb


def lines_of(error, name):
    whole = traceback.TracebackException(type(error), error, without_driver(error.__traceback__), compact=True)
    lines = [s.rstrip("\n") for s in whole.format() if not s.startswith('  File "<kernel ')]
    if lines and lines[0].startswith("Traceback (most recent"):
        del lines[0]
    title = name + "Traceback (most recent call last)".rjust(75 - len(name))
    if isinstance(error, SyntaxError) and error.text and error.text.lstrip()[:1] in ("%", "!"):
        lines.append("Magics and shell commands in a cell need IPython in the sandbox's template.")
    return ["-" * 75, title, *lines]
