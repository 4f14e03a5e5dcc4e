# SPDX-License-Identifier: Apache-2.0
"""embed.py OUT.c FILE.sql ... - turns the migrations into one C table, in the order of their numbers"""
import pathlib
import sys


def main():
    out = pathlib.Path(sys.argv[1])
    lines = [
        '/* SPDX-License-Identifier: Apache-2.0 */',
        '/* Made by src/store/embed.py from src/store/migrations. */',
        '#include "store/store_internal.h"',
        '',
        'const char *const store_migrations[] = {',
    ]
    for number, name in enumerate(sorted(sys.argv[2:], key=lambda n: pathlib.Path(n).name), 1):
        path = pathlib.Path(name)
        if int(path.stem) != number:
            sys.exit(f'{path.name}: migrations must be numbered without gaps, expected {number:03}')
        for line in path.read_text(encoding='utf-8').splitlines():
            text = line.replace('\\', '\\\\').replace('"', '\\"')
            lines.append(f'\t"{text}\\n"')
        lines[-1] += ','
    lines += [
        '};',
        'const size_t store_migrations_count = sizeof(store_migrations) / sizeof(store_migrations[0]);',
        '',
    ]
    out.write_text('\n'.join(lines), encoding='utf-8')


main()
