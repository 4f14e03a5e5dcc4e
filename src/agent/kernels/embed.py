# SPDX-License-Identifier: Apache-2.0
"""embed.py OUT.c NAME=FILE ... - the drivers of kernels as one C file

A driver that comes in parts is one text with the parts one after the other, each behind a NUL and its
name and another NUL; the first one has neither."""
import pathlib
import sys


def c_string(data):
    lines = []
    for line in data.splitlines(keepends=True):
        text = ''.join(
            {34: '\\"', 92: '\\\\', 10: '\\n'}.get(b, chr(b) if 32 <= b < 127 else f'\\{b:03o}') for b in line)
        lines.append(f'\t"{text}"')
    return '\n'.join(lines)


def shorter(data, mark):
    """Without the comments that stand on lines of their own at the top."""
    lines = data.decode().splitlines(keepends=True)
    while lines and (lines[0].startswith(mark) or not lines[0].strip()):
        del lines[0]
    return ''.join(lines).encode()


def main():
    out = ['/* SPDX-License-Identifier: Apache-2.0 */', '/* Made by src/agent/kernels/embed.py. */',
           '#include "agent/kernel_drivers.h"', '']
    drivers = {}
    for arg in sys.argv[2:]:
        name, file = arg.split('=')
        path = pathlib.Path(file)
        data = shorter(path.read_bytes(), '//' if path.suffix == '.js' else '#')
        drivers[name] = drivers[name] + b'\0' + path.stem.encode() + b'\0' + data if name in drivers else data
    for name, data in drivers.items():
        out += [f'static const char {name}[] =', c_string(data) + ';', '']
    for name, data in drivers.items():
        out += [f'const struct av_str kernel_driver_{name} = {{{name}, sizeof({name}) - 1}};']
    pathlib.Path(sys.argv[1]).write_text('\n'.join(out) + '\n')


main()
