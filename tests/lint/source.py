#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Rules of the source that no compiler checks. One line per finding, exit code 1 if there is any."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMPONENTS = ("broker", "edge", "store", "presence", "blobd", "client")
SKIPPED = {"build", "data", ".git", ".cache", "__pycache__"}
MAX_LINES = {True: 900, False: 700}  # tests, all others
# Written in pieces, so that this file may be read by itself.
BAD_WORDS = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK|st" r"ubs?|place" r"holder)\b")
MACHINE_PATHS = re.compile(r"/(?:work|home|root)/[a-z]+")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
SYSTEM_INCLUDE = re.compile(r"^\s*#\s*include\s+<([^>]+)>", re.M)
LOG_ID = re.compile(r'CQ_LOG\(\s*[A-Z]+\s*,\s*"([^"]+)"')
LOG_ID_FORM = re.compile(r"^[A-Z]+(-[A-Z0-9]+)+$")
# Who may include what of the outside world.
ONLY_IN = {"lmdb.h": re.compile(r"^store/engine_lmdb"), "libwebsockets.h": re.compile(r"^client/"),
           "openssl/": re.compile(r"^(edge/tls|common/rt/gmac)\.c"),
           "hiredis/": re.compile(r"^presence/"), "sqlite3.h": re.compile(r"^client/")}


def files(*suffixes):
    for path in sorted(ROOT.rglob("*")):
        name = path.relative_to(ROOT)
        if path.is_file() and not SKIPPED & set(name.parts) and (not suffixes or path.suffix in suffixes):
            yield str(name), path


def line_of(text, match):
    return text.count("\n", 0, match.start()) + 1


def allowed(name, included):
    """May this file include that one?"""
    top = name.split("/")[0]
    target = included.split("/")[0]
    if target == "tests":
        return top == "tests"
    if top == "tests":
        return True
    if name.startswith("common/wire/"):
        return included.startswith("common/wire/")
    if top == "common":
        return target == "common"
    return target in ("common", top) or included == "chasqui/client.h"


def check_includes(name, text):
    for m in INCLUDE.finditer(text):
        included = m.group(1)
        if ".." in included:
            yield line_of(text, m), f"include by a path that goes up: {included}"
        elif name.startswith("tests/") and ((ROOT / name).parent / included).exists():
            continue
        elif included != "chasqui/client.h" and not (ROOT / included).exists():
            yield line_of(text, m), f"not a path from the root of the repository: {included}"
        elif not allowed(name, included):
            yield line_of(text, m), f"{name.split('/')[0]} must not include {included}"
    if name.startswith("tests/"):
        return
    for m in SYSTEM_INCLUDE.finditer(text):
        for header, where in ONLY_IN.items():
            if m.group(1).startswith(header) and not where.search(name):
                yield line_of(text, m), f"<{m.group(1)}> belongs to {where.pattern}"


def check_text(name, text):
    lines, most = text.count("\n"), MAX_LINES[name.startswith("tests/")]
    if lines > most:
        yield 1, f"{lines} lines, at most {most}"
    if "SPDX-License-Identifier: MPL-2.0" not in "\n".join(text.splitlines()[:3]):
        yield 1, "no SPDX line"
    for m in BAD_WORDS.finditer(text):
        yield line_of(text, m), f"unfinished: {m.group(0)}"


def check_everything(name, path, problems):
    """What holds for every text file of the repository."""
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return None
    for m in MACHINE_PATHS.finditer(text):
        problems.append((name, line_of(text, m), f"a path of somebody's machine: {m.group(0)}"))
    return text


def main():
    problems, ids, logs = [], {}, 0
    for name, path in files():
        text = check_everything(name, path, problems)
        if text is None or not name.endswith((".c", ".h", ".def", ".sh", ".py", ".cmake", "CMakeLists.txt")):
            continue
        problems += [(name, *p) for p in check_text(name, text)]
        if not name.endswith((".c", ".h", ".def")):
            continue
        problems += [(name, *p) for p in check_includes(name, text)]
        if name.startswith("tests/"):
            continue
        for m in LOG_ID.finditer(text):
            logs += 1
            here = f"{name}:{line_of(text, m)}"
            if not LOG_ID_FORM.match(m.group(1)):
                problems.append((name, line_of(text, m), f"log id {m.group(1)} is not PART-TOPIC-EVENT"))
            if m.group(1) in ids:
                problems.append((name, line_of(text, m), f"log id {m.group(1)} is also at {ids[m.group(1)]}"))
            ids[m.group(1)] = here
    for name, line, what in problems:
        print(f"{name}:{line}: {what}")
    print(f"{len(problems)} problems, {logs} log ids")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
