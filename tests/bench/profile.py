#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Where each microsecond goes: samples the services while a benchmark runs, and shares out what run.sh has measured.

usage: tests/bench/profile.py [--seconds S] chat|login|… [options of run.sh]

Prints one JSON object per figure on stdout (metric: service.thread.what), and a table on stderr. Wants perf (Debian: linux-perf) and root,
and a benchmark that says cpu_per_…; the load must last for 6 s and the S seconds (10) behind the start.
"""

import collections
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

BENCH = pathlib.Path(__file__).resolve().parent
SERVICES = ("broker", "store", "presence", "edge", "blobd", "redis")
WARM_UP_S = 6
LEAST = 0.005  # of all: what is less is not listed by itself
# What a system call is for. The first that is on the stack counts.
CALLS = [
    (re.compile(r"sys_(sendto|sendmsg|sendfile|write$|writev$)"), "kernel: send, write"),
    (re.compile(r"sys_(recvfrom|recvmsg|read$|readv$)"), "kernel: receive, read"),
    (re.compile(r"sys_(epoll|poll|ppoll|select)"), "kernel: wait for events"),
    (re.compile(r"sys_(fdatasync|fsync|pwrite|pwritev)"), "kernel: write and sync the database"),
    (re.compile(r"sys_futex"), "kernel: locks, wake-ups"),
]
# Libraries by what they do; everything else of the program is its own code.
LIBRARIES = [("libzmq", "ZeroMQ"), ("libczmq", "ZeroMQ"), ("liblmdb", "LMDB"), ("libsodium", "libsodium"), ("libcrypto", "OpenSSL"),
             ("libssl", "OpenSSL"), ("libuv", "libuv"), ("libhiredis", "hiredis"), ("libmsgpack", "msgpack-c"), ("vdso", "clock")]
MEMORY = re.compile(r"malloc|calloc|realloc|free|unlink_chunk|mem(cpy|move|set|cmp)|str(len|cmp)|operator (new|delete)")


def what_of(frames):
    """A sample's stack, the leaf first: (symbol, file) of each frame."""
    for symbol, _ in frames:
        for pattern, name in CALLS:
            if pattern.search(symbol):
                return name
    symbol, file = frames[0]
    if "kernel" in file or file == "[unknown]" and symbol.startswith("0xffff"):
        return "kernel: other"
    for part, name in LIBRARIES:
        if part in file:
            return name
    if MEMORY.search(symbol):
        return "memory: allocate, copy, compare"
    if "libc.so" in file:
        return "libc: calls into the kernel, other"
    return "its own code"


def services(folder):
    """pid → service, of those that run on this data folder."""
    found = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = stat.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        name = next((s for s in SERVICES if f"chasqui-{s} " in words or f"{s}-server" in words), None)
        if name and str(folder) in words:
            found[int(stat.parent.name)] = name
    return found


def samples(data):
    """(pid, thread, [(symbol, file)…]) of each sample."""
    text = subprocess.run(["perf", "script", "-i", data, "-F", "comm,pid,ip,sym,dso"], capture_output=True, text=True, check=True).stdout
    for block in text.split("\n\n"):
        head, _, rest = block.strip("\n").partition("\n")
        m = re.match(r"(.+?)\s+(\d+)", head.strip())
        frames = [re.match(r"\s*[0-9a-f]+ (.*) \((.*)\)$", line) for line in rest.splitlines()]
        if m and any(frames):
            yield int(m[2]), m[1], [(f[1], f[2]) for f in frames if f]


def record(folder, seconds):
    pids = services(folder)
    if not pids:
        sys.exit("profile: no services run on the benchmark's folder: it ended before the samples could be taken")
    data = folder / "profile.data"
    subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-F", "4000", "-g", "-p", ",".join(map(str, pids)), "-o", data,
                    "--", "sleep", str(seconds)], check=True, stderr=subprocess.DEVNULL)
    counts = collections.Counter()
    for pid, thread, frames in samples(data):
        thread = "ZeroMQ's thread" if thread.startswith("ZMQ") else "committer" if thread == "committer" else "loop"
        counts[pids.get(pid, "?"), thread, what_of(frames)] += 1
    return counts


def main():
    args, seconds = sys.argv[1:], 10
    if args[:1] == ["--seconds"] and len(args) > 1:
        seconds, args = int(args[1]), args[2:]
    if not args or args[0].startswith("-"):
        sys.exit(__doc__)
    if not shutil.which("perf"):
        sys.exit("profile: perf is missing: apt-get install linux-perf")
    with tempfile.TemporaryDirectory(prefix="cq-profile-") as scratch:
        bench = subprocess.Popen([BENCH / "run.sh", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 env={**os.environ, "TMPDIR": scratch})
        for line in bench.stderr:
            if line.startswith("ready "):
                break
        time.sleep(WARM_UP_S)
        counts = record(pathlib.Path(scratch), seconds)
        out, err = bench.communicate()
    if bench.returncode:
        sys.exit(f"profile: the benchmark failed:\n{err}")
    figures = [json.loads(line) for line in out.splitlines()]
    # cpu_per_message, not cpu_per_message.store
    whole = [f for f in figures if re.fullmatch(r"(\w+_)?cpu_per_\w+", f["metric"])]
    if not whole:
        sys.exit("profile: this benchmark says no CPU per anything")
    per = whole[-1]["value"] / sum(counts.values())
    unit = whole[-1]["unit"]
    print(f"{whole[-1]['metric']}: {whole[-1]['value']:.1f} {unit}, {sum(counts.values())} samples", file=sys.stderr)
    for service in SERVICES:
        mine = {k: n for k, n in counts.items() if k[0] == service}
        if not mine:
            continue
        print(f"{service:10} {sum(mine.values()) * per:6.2f}", file=sys.stderr)
        for (_, thread, what), n in sorted(mine.items(), key=lambda kv: -kv[1]):
            print(json.dumps({"bench": "profile", "metric": f"{service}.{thread}.{what}", "value": round(n * per, 3), "unit": unit,
                              "conditions": " ".join(args)}))
            if n > LEAST * sum(counts.values()):
                print(f"{'':10} {n * per:6.2f}  {thread}, {what}", file=sys.stderr)


main()
