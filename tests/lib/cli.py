# SPDX-License-Identifier: MPL-2.0
"""The terminal client as a person runs it: one home, commands, lines of JSON."""

import atexit
import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from chasqui import WAIT
from system import BAD_IN_LOGS, BIN


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def rows(self):
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def row(self):
        assert len(self.rows) == 1, self.out
        return self.rows[0]

    def __repr__(self):
        return f"exit code {self.code}\n{self.out}\n{self.err}"


class Running:
    """A command that goes on; its lines are collected as they come."""

    def __init__(self, process):
        self.process, self.lines, self.changed = process, [], threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()

    def wait_for(self, matches, timeout=None):
        """The first line that matches (a function of the parsed JSON)."""
        deadline = time.monotonic() + (timeout or WAIT * 2)
        seen = 0
        with self.changed:
            while True:
                while seen < len(self.lines):
                    value = json.loads(self.lines[seen])
                    seen += 1
                    if matches(value):
                        return value
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("the line did not come; there were: " + "\n".join(self.lines))
                self.changed.wait(left)

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(WAIT * 2)
        self.reader.join(5)
        return code


class Home:
    """One --home and the servers it uses."""

    def __init__(self, servers, name=None, password="correct horse battery"):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cq-home-"))
        atexit.register(shutil.rmtree, self.dir, ignore_errors=True)
        self.servers, self.password = servers, password
        self.name = name or "c" + secrets.token_hex(6)
        self.password_file = self.dir / "password.txt"
        self.password_file.write_text(password + "\n")
        self.password_file.chmod(0o600)

    def command(self, *arguments, json_lines=True):
        options = ["--home", self.dir / "home", "--server", self.servers] + (["--json"] if json_lines else [])
        return [str(a) for a in [BIN / "chasqui", *options, *arguments]]

    def run(self, *arguments, json_lines=True, timeout=None, stdin=subprocess.DEVNULL, **options):
        p = subprocess.run(self.command(*arguments, json_lines=json_lines), capture_output=True, text=True, stdin=stdin,
                           timeout=timeout or WAIT * 4, **options)
        assert not BAD_IN_LOGS.search(p.stderr.encode()), p.stderr
        assert p.returncode >= 0, f"killed by {-p.returncode}: {p.stderr}"
        return Result(p.returncode, p.stdout, p.stderr)

    def ok(self, *arguments, **options):
        r = self.run(*arguments, **options)
        assert r.code == 0, f"{arguments}: {r}"
        return r

    def start(self, *arguments, stdin=subprocess.DEVNULL):
        return Running(subprocess.Popen(self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        stdin=stdin, bufsize=1, env={**os.environ}))

    def signup(self):
        self.ok("signup", self.name, "--password-file", self.password_file)
        return self

    def login(self):
        self.ok("login", self.name, "--password-file", self.password_file)
        return self
