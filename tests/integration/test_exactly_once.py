# SPDX-License-Identifier: MPL-2.0
"""Exactly once between real processes: a home that was copied, and whatever dies between a message and its answer."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest
from chasqui import OPS, WAIT, Closed
from cli import Home
from ctl import Ctl
from system import BIN, eventually

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "crash"))

from powercut import KILL_AFTER, ON_DSYNC, Control  # noqa: E402

OK, REFUSED, USAGE, UNREACHABLE, NOT_LOGGED_IN, LOCAL = range(6)
NOWHERE = "ws://127.0.0.1:1/ws"
LONG = WAIT * 6
SHIM = BIN.resolve() / "chasqui-crash-shim.so"


def metric(system, edge, name):
    return Ctl(system).metric(f"edge.{edge}", f"chasqui_edge_{name}")


def texts(home, peer):
    return [r["text"] for r in home.ok("history", peer, "--last", "1000").rows]


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait(WAIT)


def offline(home):
    """The same home with servers that are not there."""
    return copy_of(home, home.dir, NOWHERE)


def copy_of(home, folder, servers=None):
    other = Home.__new__(Home)
    other.__dict__.update(home.__dict__)
    other.dir, other.servers = folder, servers or home.servers
    return other


def waiting(home):
    return [r["text"] for r in offline(home).run("outbox").rows if r["type"] == "waiting"]


@pytest.fixture
def homes(system):
    """Two friends who have said hello; b is known to be on the second edge."""
    a, b = Home(system.urls()).signup(), Home(system.url(2)).signup()
    a.ok("add", b.name), b.ok("accept", a.name)
    a.ok("send", b.name, "hello")
    assert texts(b, a.name) == ["hello"]
    return a, b


# ---- a home that is used on two machines ----


@pytest.fixture
def copied(homes):
    """(a home, its copy on another machine, the friend)"""
    a, b = homes
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cq-copy-"))
    shutil.copytree(a.dir, folder, dirs_exist_ok=True, symlinks=True)
    yield a, copy_of(a, folder), b
    shutil.rmtree(folder, ignore_errors=True)


def is_told(result):
    """The error of its own, an exit code that a script knows, and what to do about it."""
    assert result.code == NOT_LOGGED_IN, result
    error = next(r for r in result.rows if r["type"] == "error")
    assert error["error"] == "CLONED" and "copy" in error["message"] and "log in again" in error["message"], result
    return True


def test_a_copy_is_found_out_by_the_next_command(copied):
    """The copy has sent: the first one learns of it with its next sync, before it sends anything."""
    a, copy, b = copied
    copy.ok("send", b.name, "from the copy")
    warned = a.ok("chats")
    assert any("copy" in r["message"] for r in warned.rows if r["type"] == "note"), warned
    assert is_told(a.run("send", b.name, "from the first"))
    assert texts(b, a.name) == ["hello", "from the copy"]
    a.login()
    a.ok("send", b.name, "from the first")
    copy.ok("send", b.name, "the copy goes on")
    want = ["hello", "from the copy", "from the first", "the copy goes on"]
    assert texts(b, a.name) == texts(a, b.name) == texts(copy, b.name) == want


def test_a_copy_is_found_out_by_its_own_message(copied):
    """The number of the first one's message is taken: it is not sent, and whoever typed it is told soon."""
    a, copy, b = copied
    copy.ok("send", b.name, "from the copy")
    assert is_told(a.run("send", b.name, "from the first"))
    assert is_told(a.run("send", b.name, "and again")), "it stays so until somebody logs in"
    assert texts(b, a.name) == ["hello", "from the copy"], "nothing under a number that is taken"


def test_a_copy_is_found_out_by_what_both_send(copied):
    """Both have a message under the same number before they have heard of each other."""
    a, copy, b = copied
    for home, text in ((a, "from the first"), (copy, "from the copy")):
        assert offline(home).run("--timeout", "1", "send", b.name, text).code == UNREACHABLE
    copy.ok("listen", "--for", "1")
    assert waiting(copy) == [] and texts(b, a.name) == ["hello", "from the copy"]
    late = a.run("send", b.name, "one more")  # on its way with the other one, under a number of its own
    assert any("copy" in r.get("message", "") for r in late.rows), late
    assert "from the first" not in texts(b, a.name), "nothing under a number that is taken"
    assert is_told(a.run("send", b.name, "and more")), "it stays so until somebody logs in"
    a.login()
    a.ok("send", b.name, "as a device of its own")
    got = texts(b, a.name)
    assert len(got) == len(set(got)) and got[:2] == ["hello", "from the copy"] and got[-1] == "as a device of its own"
    kept = [r["text"] for r in a.ok("outbox").rows]
    for text in ("from the first", "one more"):
        assert (text in got) != (text in kept), "either it went out, or the outbox says that it did not"


def test_a_copy_with_the_same_outbox_sends_it_once(homes):
    """What was in the outbox when it was copied has one number and the same bytes in both: it is one message."""
    a, b = homes
    queued = [f"queued {i}" for i in range(3)]
    for text in queued:
        assert offline(a).run("--timeout", "1", "send", b.name, text).code == UNREACHABLE
    with tempfile.TemporaryDirectory(prefix="cq-copy-") as folder:
        shutil.copytree(a.dir, folder, dirs_exist_ok=True, symlinks=True)
        copy = copy_of(a, pathlib.Path(folder))
        copy.ok("listen", "--for", "1"), a.ok("listen", "--for", "1")
        assert waiting(a) == waiting(copy) == []
        assert texts(b, a.name) == texts(a, b.name) == ["hello", *queued]


# ---- an edge dies between a message and its answer ----


def test_edge_killed_before_the_answer(system, pair):
    x, y = pair
    fields = x.prepare(y, "once")
    system.store.freeze()
    rid = x.link.start("SEND", *fields)
    eventually(lambda: metric(system, 1, "calls_in_flight") > 0, what="the message on its way to the store")
    system.edge(1).kill()
    system.store.thaw()
    with pytest.raises(Closed):
        x.link.finish(rid)
    y.arrives(x, "once")  # it is stored, and the sender does not know
    x.resume(system.url(2))
    assert x.send_prepared(fields)[0] == 1
    assert x.send(y, "next") == 2
    assert y.texts(x) == ["once", "next"]


def test_the_terminal_client_when_its_edge_is_killed(system, homes):
    a, b = homes
    system.store.freeze()
    sending = a.start("send", b.name, "once")
    edge = eventually(lambda: next((n for n in (1, 2) if metric(system, n, "calls_in_flight")), 0))
    eventually(lambda: waiting(a) == ["once"])
    system.edge(edge).kill()
    system.store.thaw()
    row = sending.wait_for(lambda r: r["type"] == "sent", LONG)
    assert sending.process.wait(LONG) == OK and row["seq"] == 2
    system.edge(edge).start()
    system.wait_ready()
    assert texts(b, a.name) == ["hello", "once"] and waiting(a) == []


# ---- the client dies with messages in its outbox ----


def many(count):
    return [f"line {i}" for i in range(count)]


def chat_process(home, peer, lines):
    """`chasqui chat` with so many lines typed at once."""
    process = subprocess.Popen(home.command("chat", peer, json_lines=False), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    process.stdin.write("".join(f"{line}\n" for line in lines).encode())
    process.stdin.flush()  # and left open: it goes on
    return process


def test_client_killed_with_a_full_outbox(system, homes):
    """40 lines are kept, a window of them is on its way, none is answered."""
    a, b = homes
    lines = many(40)
    system.store.freeze()
    process = chat_process(a, b.name, lines)
    eventually(lambda: waiting(a) == lines, LONG, "all lines in the outbox")
    kill(process)
    assert waiting(a) == lines
    system.store.thaw()
    a.ok("send", b.name, "end")
    assert texts(b, a.name) == texts(a, b.name) == ["hello", *lines, "end"]
    assert waiting(a) == []


def test_client_killed_while_answers_come(homes):
    """Killed again and again: some lines are answered, some are stored and not answered, some have not left."""
    a, b = homes
    lines = many(150)
    process = chat_process(a, b.name, lines)
    eventually(lambda: len(waiting(a)) >= 1 or len(texts(b, a.name)) > 100, LONG, "a line in the outbox")
    kill(process)
    for _ in range(20):
        left = waiting(a)
        if not left:
            break
        process = a.start("listen")
        eventually(lambda: len(waiting(a)) < len(left), LONG, "progress")
        kill(process.process)
    a.ok("send", b.name, "end")
    got = texts(b, a.name)
    assert got == texts(a, b.name)
    assert got[1:-1] == lines[:len(got) - 2] and got[-1] == "end", "every line that was taken once, in order"


# ---- the store dies between the commit and the answer ----


@contextlib.contextmanager
def store_dies_after_a_commit(system):
    """The store with the fault layer below it: shoot() makes the next commit its last act."""
    if not SHIM.exists():
        pytest.skip("no fault layer in builds with a sanitizer")
    with tempfile.TemporaryDirectory(prefix="cq-shim-") as folder:
        control = Control(pathlib.Path(folder) / "control")
        system.store.stop()
        system.store.environment = dict(os.environ, LD_PRELOAD=str(SHIM), CRASH_SHIM_ROOT=str(system.dir / "store"),
                                        CRASH_SHIM_CONTROL=str(control.path))
        system.store.start()
        try:
            system.wait_ready()
            yield lambda: control.arm((KILL_AFTER, ON_DSYNC, 1, 0, 1))
        finally:
            system.store.environment = None
            system.store.restart()
            system.wait_ready()


def store_is_dead(system):
    eventually(lambda: not system.store.is_alive(), what="the end of the store")
    system.store.environment = None
    system.store.start()
    system.wait_ready()


def test_store_killed_between_commit_and_answer(system, pair):
    x, y = pair
    with store_dies_after_a_commit(system) as shoot:
        x.patiently(lambda: x.send(y, "before"))
        fields = x.prepare(y, "once")
        shoot()
        x.link.start("SEND", *fields)
        store_is_dead(system)
        assert y.texts(x) == ["before", "once"], "it was committed, and nobody was told"
        assert x.patiently(lambda: x.send_prepared(fields))[0] == 2
        assert x.send(y, "next") == 3
        assert y.texts(x) == ["before", "once", "next"]


def test_a_window_in_the_commit_that_the_store_dies_after(system, pair):
    """A full window on its way: what was committed keeps its numbers, what was not gets the next ones."""
    x, y = pair
    with store_dies_after_a_commit(system) as shoot:
        prepared = []
        for i in range(x.welcomed.window):
            prepared.append(x.prepare(y, f"{i}"))
            x.dseq[x.chat(y)] = i + 1
        shoot()
        x.link.send_ops([[OPS["SEND"], next(x.link.rids), *f] for f in prepared])
        store_is_dead(system)
        committed = y.texts(x)
        seqs = [x.patiently(lambda f=f: x.send_prepared(f))[0] for f in prepared]
        assert seqs == list(range(1, len(prepared) + 1)) and 1 <= len(committed)
        assert y.texts(x) == [f"{i}" for i in range(len(prepared))]


def test_the_terminal_client_when_the_store_dies_after_the_commit(system, homes):
    a, b = homes
    with store_dies_after_a_commit(system) as shoot:
        a.ok("chats")
        shoot()
        sending = a.start("send", b.name, "once")
        store_is_dead(system)
        row = sending.wait_for(lambda r: r["type"] == "sent", LONG)
        assert sending.process.wait(LONG) == OK and row["seq"] == 2
        assert texts(b, a.name) == texts(a, b.name) == ["hello", "once"]
