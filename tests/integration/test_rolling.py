# SPDX-License-Identifier: MPL-2.0
"""deploy/run.sh --restart-rolling under load: nobody is told of an error, everything arrives once, in order."""

import os
import pathlib
import re
import secrets
import shutil
import signal
import subprocess
import threading
import time

import pytest
from chasqui import Device, befriend
from cli import Home
from system import BIN, eventually
from test_run_sh import LONG, children, data, port, run, running, status, url  # noqa: F401  fixtures


class Chatter(threading.Thread):
    """Somebody at `chasqui chat`, who types a line every now and then; and what went wrong meanwhile."""

    def __init__(self, home, peer, pace_s):
        super().__init__(daemon=True)
        self.lines, self.stopping, self.pace_s = [], threading.Event(), pace_s
        self.process = subprocess.Popen(home.command("chat", peer, json_lines=False), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self):
        while not self.stopping.is_set():
            self.lines.append(f"line {len(self.lines)}")
            self.process.stdin.write(self.lines[-1] + "\n")
            self.process.stdin.flush()
            time.sleep(self.pace_s)

    def end(self):
        """The exit code, 0 only if every line is on the server."""
        self.stopping.set()
        self.join(LONG)
        out, err = self.process.communicate(timeout=LONG)
        return self.process.returncode, out + err


class Commands(threading.Thread):
    """`chasqui send` again and again, each a process of its own."""

    def __init__(self, home, peer):
        super().__init__(daemon=True)
        self.home, self.peer, self.lines, self.failed = home, peer, [], []
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.is_set():
            self.lines.append(f"command {len(self.lines)}")
            r = self.home.run("send", self.peer, self.lines[-1], timeout=LONG)
            if r.code or any(row["type"] != "sent" for row in r.rows):
                self.failed.append(r)


def edges(folder):
    return {name: pid for name, (pid, state) in status(folder)[1].items() if name.startswith("edge.") and state == "up"}


def make_friends(servers):
    a, b, c = (Home(servers).signup() for _ in range(3))
    for x in (a, c):
        x.ok("add", b.name)
        b.ok("accept", x.name)
    return a, b, c


def test_nobody_notices(running):  # noqa: F811
    folder, first = running
    servers = f"{url(first)},{url(first + 1)}"
    a, b, c = make_friends(servers)
    before, others = edges(folder), {k: v for k, v in status(folder)[1].items() if not k.startswith("edge.")}
    listener = b.start("listen")
    chatter, commands = Chatter(a, b.name, 0.01), Commands(c, b.name)
    chatter.start(), commands.start()
    try:
        eventually(lambda: len(chatter.lines) > 30 and len(commands.lines) > 2, LONG)
        r = run("--restart-rolling", "--no-build", "--data", folder)
        assert r.returncode == 0, r.stdout + r.stderr
        assert len(re.findall(r"edge\.\d is ready again", r.stdout)) == 2 and "all edges are new" in r.stdout
        reached = len(chatter.lines), len(commands.lines)
        eventually(lambda: len(chatter.lines) > reached[0] + 30 and len(commands.lines) > reached[1] + 2, LONG)
    finally:
        commands.stopping.set()
        code, said = chatter.end()
        commands.join(LONG)
    assert code == 0 and "fail" not in said.lower() and "error" not in said.lower(), said
    assert not commands.failed, commands.failed
    after = edges(folder)
    assert after.keys() == before.keys() and all(after[e] != before[e] for e in before), (before, after)
    assert others == {k: v for k, v in status(folder)[1].items() if not k.startswith("edge.")}
    for peer, lines in ((a, chatter.lines), (c, commands.lines)):
        listener.wait_for(lambda row: row["type"] == "message" and row["text"] == lines[-1], LONG)
        rows = b.ok("history", peer.name, "--last", "5000").rows
        assert [row["text"] for row in rows if row["type"] == "message"] == lines, "once each, in order"
    assert listener.stop() in (0, 3, -signal.SIGTERM)
    assert not [line for line in listener.lines if '"type":"error"' in line]
    log = (folder / "log/run.log").read_text()
    assert "died" not in log and "killed" not in log
    for name in before:
        assert "EDGE-DRAIN-UNANSWERED" not in (folder / f"log/{name}.log").read_text()


def test_requests_in_flight_are_answered(running):  # noqa: F811
    """A plain connection, no client library: what an edge has begun it answers before it says GOAWAY."""
    folder, first = running
    x, y = Device("fx" + secrets.token_hex(5)).signup(url(first)), Device("fy" + secrets.token_hex(5)).signup(url(first + 1))
    befriend(x, y)
    restart = subprocess.Popen([str(pathlib.Path(__file__).resolve().parents[2] / "deploy/run.sh"), "--restart-rolling",
                                "--no-build", "--data", str(folder)], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "CHASQUI_BIN": str(BIN)})
    rids = []
    while not x.link.has_push("GOAWAY") and not x.link.is_closed:
        try:
            rids.append(x.link.start("FRIENDS"))
        except Exception:
            break
        time.sleep(0.001)
    x.link.closed(LONG)
    answered = {rid for rid in rids if rid in x.link.answers}
    assert answered == set(rids[:len(answered)]), "a request behind an unanswered one must not have been begun"
    assert answered and x.link.close_code == 1001
    goaway = next(op for op in x.link.pushes if op[0] == 0x96)
    assert goaway[1] == [url(first + 1)]
    restart.communicate(timeout=LONG)
    assert restart.returncode == 0
    x.close(), y.close()


def test_one_edge_alone(data, port):  # noqa: F811
    assert run("--detach", "--no-build", "--data", data, "--port", port, "--edges", "1").returncode == 0
    before = edges(data)
    r = run("--restart-rolling", "--no-build", "--data", data)
    assert r.returncode == 0, r.stdout + r.stderr
    assert edges(data) != before and status(data)[0] == 0


def test_nothing_runs(data):  # noqa: F811
    r = run("--restart-rolling", "--no-build", "--data", data)
    assert r.returncode != 0 and "nothing runs" in r.stderr


def test_a_new_program_that_cannot_start_stops_the_restart(data, port, tmp_path):  # noqa: F811
    """The edges behind it go on as they were, and the old program can come back."""
    for name in ("broker", "store", "blobd", "presence", "edge"):
        shutil.copy(BIN / f"chasqui-{name}", tmp_path)
    where = {"CHASQUI_BIN": str(tmp_path)}
    assert run("--detach", "--no-build", "--data", data, "--port", port, **where).returncode == 0
    before = edges(data)
    good, edge = tmp_path / "good", tmp_path / "chasqui-edge"
    edge.rename(good)
    edge.write_text("#!/bin/sh\nexit 3\n")
    edge.chmod(0o755)
    r = run("--restart-rolling", "--no-build", "--data", data, **where)
    assert r.returncode == 1 and "edge.1 stopped" in r.stdout, r.stdout + r.stderr
    assert edges(data).get("edge.2") == before["edge.2"]
    d = Device("sv" + secrets.token_hex(5)).signup(url(port + 1))
    d.close()
    good.rename(edge)
    eventually(lambda: status(data)[0] == 0, LONG, "edge.1 restarted by the supervisor")
    assert run("--restart-rolling", "--no-build", "--data", data, **where).returncode == 0
    assert edges(data)["edge.2"] != before["edge.2"]
    assert len(children(data)) == 7


@pytest.mark.parametrize("kill", ["edge", "supervisor"])
def test_death_in_the_middle(running, kill):  # noqa: F811
    folder, _ = running
    victim = int(edges(folder)["edge.2"])
    restart = subprocess.Popen([str(pathlib.Path(__file__).resolve().parents[2] / "deploy/run.sh"), "--restart-rolling",
                                "--no-build", "--data", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, env={**os.environ, "CHASQUI_BIN": str(BIN)})
    assert "edge.1 drained" in restart.stdout.readline()
    if kill == "edge":
        os.kill(victim, signal.SIGKILL)
        out = restart.communicate(timeout=LONG)[0]
        assert restart.returncode == 0 and "edge.2 is ready again" in out, out
        eventually(lambda: status(folder)[0] == 0, LONG)
    else:
        os.kill(int((folder / "run/run.pid").read_text().split()[0]), signal.SIGKILL)
        out = restart.communicate(timeout=LONG)[0]
        assert restart.returncode != 0 and "stopped meanwhile" in out, out
        eventually(lambda: children(folder) == {}, LONG)
        run("--detach", "--no-build", "--data", folder)  # cleans up and says so
