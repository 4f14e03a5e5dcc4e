#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/gen-models: every operation has a call or a reason why not, the same document gives the same text, and what it
cannot turn into C is refused with the place and the cure. TAP."""
import copy
import json
import os
import subprocess
import sys
import tempfile

import yaml

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
DOCUMENT = os.path.join(ROOT, "src", "api", "openapi.yaml")
with open(DOCUMENT, encoding="utf-8") as document_file:
    TREE = yaml.load(document_file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
count = failed = 0


def check(good, what):
    global count, failed
    count += 1
    failed += not good
    print(f"{'ok' if good else 'not ok'} {count} - {what}")


def generate(what, document, *headers):
    """Its text, or what it refuses with."""
    with tempfile.TemporaryDirectory(prefix="aviary-gen-") as d:
        out = os.path.join(d, "out")
        r = subprocess.run([sys.executable, os.path.join(ROOT, "tools", "gen-models"), what, out, document, *headers],
                           capture_output=True, text=True, timeout=60, check=False)
        if r.returncode:
            return None, r.stderr.strip()
        if what == "check":
            return r.stdout, None
        with open(out, encoding="utf-8") as f:
            return f.read(), None


def refused(what, change, words, *headers):
    tree = copy.deepcopy(TREE)
    change(tree)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as f:
        json.dump(tree, f)  # which is YAML as well
        f.flush()
        text, error = generate("check", f.name, *headers)
    check(text is None and all(w in error for w in words), f"{what}: {error}")


def main():
    text, error = generate("check", DOCUMENT)
    check(text is not None, f"every operation has a call or a reason: {error or text.strip()}")
    for what in ("models.h", "resources.h", "models.c", "model_tables.h", "resources.c"):
        first, second = generate(what, DOCUMENT)[0], generate(what, DOCUMENT)[0]
        check(first and first == second, f"{what} is the same twice")
        check(first and all(len(line) <= 100 for line in first.splitlines()) or not what.endswith(".h"),
              f"{what}: lines of at most 100 columns")

    def op(tree):
        return tree["paths"]["/v1/teams"]["post"]

    def schema(tree, name):
        return tree["components"]["schemas"][name]["properties"]

    refused("an operation without a call", lambda t: op(t).pop("x-call"), ["createTeam", "x-call", "WITHOUT_CALL"])
    refused("an operation without a name", lambda t: op(t).pop("operationId"), ["/v1/teams", "operationId"])
    refused("a call that is none", lambda t: op(t).update({"x-call": "teams"}), ["createTeam", "namespace.verb"])
    refused("two of one name", lambda t: op(t).update({"x-call": "teams.list"}), ["aviary_teams_list", "twice"])
    refused("a reason for nothing", lambda t: t["paths"].pop("/docs"), ["WITHOUT_CALL", "docs"])
    refused("a time that nobody says", lambda t: op(t).update({"x-waits": "name"}), ["createTeam", "x-waits", "name"])
    refused("a call and a reason", lambda t: t["paths"]["/docs"]["get"].update({"x-call": "system.docs"}), ["docs", "not both"])
    refused("an enum without a name", lambda t: schema(t, "Team").update(x={"enum": ["a"]}), ["Team", "anonymous enum"])
    refused("an object without a name", lambda t: schema(t, "Team").update(x={"type": "object", "properties": {}}),
            ["Team", "anonymous object"])
    refused("a type without a form", lambda t: schema(t, "Team").update(x={"type": ["integer", "boolean"]}), ["Team", "no form"])
    refused("a word of C++", lambda t: schema(t, "Team").update({"class": {"type": "string"}}), ["Team", "class", "MEMBERS"])
    refused("a schema in itself", lambda t: schema(t, "Team").update(x={"$ref": "#/components/schemas/Team"}), ["Team", "itself"])
    with tempfile.NamedTemporaryFile("w", suffix=".h", encoding="utf-8") as f:
        f.write("typedef struct aviary_team aviary_team;\n/* aviary_host */\n")
        f.flush()
        refused("a name that a header has", lambda t: None, ["aviary_team ", f.name, "NAMES"], f.name)
    print(f"1..{count}")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
