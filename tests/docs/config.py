#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Writes docs/config.md from what the programs say of their own keys (--help), or checks that it is current.

usage: config.py [--check] FOLDER-OF-PROGRAMS
"""
import pathlib
import re
import subprocess
import sys

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/config.md"
PROGRAMS = ("broker", "store", "presence", "blobd", "edge")
KEY = re.compile(r"  --(\S+) +(.*?)(?: \[(\d+)\.\.(\d+)(?: ([^]]+))?\])? \((?:default: (.*)|(required))\)$")
HEAD = """# Configuration

Every key of every program, generated from the tables that the programs are compiled with (`tests/docs/config.py`). A key is the same word on the command line (`--key value`) and
in a file (`--config FILE`, lines `key = value`; the command line wins). Unknown keys and values out of range end the program with a sentence that names the key, the line and what is
allowed; `--check-config` only checks. `deploy/run.sh` starts the programs with what it needs and leaves the rest as it is here.
"""


def number(text):
    return f"{int(text):,}" if text.isdigit() and len(text) > 4 else text


def rows(program):
    said = subprocess.run([program, "--help"], check=True, capture_output=True, text=True).stdout
    keys = said.split("key = value:\n")[1].split("\nOther options:")[0]
    for line in keys.splitlines():
        match = KEY.match(line)
        if not match:
            sys.exit(f"cannot read what {program.name} says: {line}")
        key, meaning, low, high, unit, default, _ = match.groups()
        allowed = f"{number(low)} … {number(high)}" + (f" {unit}" if unit else "") if low else ""
        default = "**required**" if default is None else "" if default == "empty" else f"`{default}`"
        yield f"| `{key}` | {default} | {allowed} | {meaning.replace('|', '/')} |"


def page(folder):
    parts = [HEAD]
    for name in PROGRAMS:
        parts += [f"\n## chasqui-{name}\n", "| key | default | allowed, unit | meaning |", "|---|---|---|---|"]
        parts += rows(folder / f"chasqui-{name}")
    return "\n".join(parts) + "\n"


def main():
    args = [a for a in sys.argv[1:] if a != "--check"]
    if len(args) != 1:
        sys.exit(__doc__)
    made = page(pathlib.Path(args[0]))
    if "--check" not in sys.argv:
        PAGE.write_text(made)
    elif not PAGE.exists() or PAGE.read_text() != made:
        sys.exit(f"docs/config.md is not current: run tests/docs/config.py {args[0]}")


main()
