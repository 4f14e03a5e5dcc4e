# SPDX-License-Identifier: Apache-2.0
"""embed.py FILE OUT.c - the preloaded object as bytes of a C file"""
import pathlib
import sys

data = pathlib.Path(sys.argv[1]).read_bytes()
lines = [", ".join(str(b) for b in data[i:i + 24]) + "," for i in range(0, len(data), 24)]
pathlib.Path(sys.argv[2]).write_text(
    "/* SPDX-License-Identifier: Apache-2.0 */\n/* Made by src/vm/shim/embed.py. */\n"
    '#include "vm/shim_bytes.h"\n\n#include "base/banned.h"\n\n'
    "const unsigned char vm_shim_bytes[] = {\n\t" + "\n\t".join(lines) + "\n};\n"
    "const size_t vm_shim_size = sizeof(vm_shim_bytes);\n")
