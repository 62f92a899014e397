# SPDX-License-Identifier: MPL-2.0
"""chasquictl, run as an operator does."""

import json
import subprocess

from system import BIN

LONG = 120


class Ctl:
    """chasquictl on one system; every call checks that nothing on stderr is a crash."""

    def __init__(self, system):
        self.where = ["--broker", system.broker_endpoint]

    def start(self, *words):
        return subprocess.Popen([BIN / "chasquictl", *self.where, *map(str, words)], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def finish(self, process):
        """(exit code, stdout, stderr)"""
        out, err = process.communicate(timeout=LONG)
        assert b"Sanitizer" not in err and b"assertion" not in err, err.decode(errors="replace")
        return process.returncode, out.decode(), err.decode()

    def run(self, *words):
        return self.finish(self.start(*words))

    def json(self, *words):
        """(exit code, list of objects)"""
        code, out, _ = self.run("--json", *words)
        return code, [json.loads(line) for line in out.splitlines()]

    def metric(self, actor, name):
        rows = self.json("metrics", actor)[1]
        return next(int(r["value"]) for r in rows if r["name"] == name)
