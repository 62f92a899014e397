#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Puts the generated tables into docs/protocol.md and docs/bus.md, or checks that they are current.

usage: update.py [--check] PATH-OF-doc-tables
"""
import pathlib
import subprocess
import sys

BEGIN, END = "<!-- generated: tables -->\n", "<!-- end -->\n"
DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


def main():
    args = [a for a in sys.argv[1:] if a != "--check"]
    if len(args) != 1:
        sys.exit(__doc__)
    stale = []
    for name in ("protocol", "bus"):
        page = DOCS / f"{name}.md"
        text = page.read_text()
        head, rest = text.split(BEGIN)
        tail = rest.split(END)[1]
        made = subprocess.run([args[0], name], check=True, capture_output=True, text=True).stdout
        new = head + BEGIN + made + END + tail
        if new != text and "--check" in sys.argv:
            stale.append(page.name)
        elif new != text:
            page.write_text(new)
            print("renewed", page.name)
    if stale:
        sys.exit(f"not current: {', '.join(stale)}; run tests/docs/update.py {args[0]}")


main()
