# SPDX-License-Identifier: Apache-2.0
"""embed.py OUT.c OPENAPI.yaml PAGE.html PAGE.js PAGE.css - turns the document and its page into C strings, the
document also into JSON, which the page reads"""
import json
import pathlib
import sys

import yaml


def string(name, text):
    lines = [f"const char {name}[] ="]
    for line in text.splitlines():
        escaped = line.replace("\\", "\\\\").replace('"', '\\"').replace("?", "\\?")
        lines.append(f'\t"{escaped}\\n"')
    lines[-1] += ";"
    return lines


def main():
    out, document, html, script, style = (pathlib.Path(a) for a in sys.argv[1:])
    text = document.read_text(encoding="utf-8")
    lines = ["/* SPDX-License-Identifier: Apache-2.0 */", "/* Made by src/api/docs/embed.py. */",
             '#include "api/docs/docs.h"', ""]
    lines += string("api_docs_yaml", text)
    lines += string("api_docs_json", json.dumps(yaml.safe_load(text), indent=0))
    for name, path in (("html", html), ("js", script), ("css", style)):
        lines += string(f"api_docs_{name}", path.read_text(encoding="utf-8"))
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


main()
