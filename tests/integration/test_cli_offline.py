# SPDX-License-Identifier: MPL-2.0
"""The durable outbox and reconnecting: typed offline, killed while sending, edges dying: out exactly once, in order."""

import os
import signal
import subprocess
import time

import pytest
from chasqui import WAIT
from cli import Home
from system import eventually

OK, REFUSED, USAGE, UNREACHABLE, NOT_LOGGED_IN, LOCAL = range(6)
NOWHERE = "ws://127.0.0.1:1/ws"
LONG = WAIT * 6


@pytest.fixture
def homes(system):
    a, b = Home(system.urls()).signup(), Home(system.url(2)).signup()
    a.ok("add", b.name)
    b.ok("accept", a.name)
    a.ok("chats")
    return a, b


def texts(home, peer):
    return [r["text"] for r in home.ok("history", peer, "--last", "1000").rows]


def offline(home):
    """The same home with servers that are not there."""
    other = Home.__new__(Home)
    other.__dict__.update(home.__dict__)
    other.servers = NOWHERE
    return other


def test_typed_offline_goes_out_once_later(homes):
    a, b = homes
    for i in range(3):
        assert offline(a).run("--timeout", "1", "send", b.name, f"offline {i}").code == UNREACHABLE
    assert texts(b, a.name) == []
    a.ok("send", b.name, "online")
    assert texts(b, a.name) == ["offline 0", "offline 1", "offline 2", "online"]
    a.ok("chats"), a.ok("listen", "--for", "1")
    assert len(texts(b, a.name)) == 4


def test_offline_reading(homes):
    a, b = homes
    a.ok("send", b.name, "held on the device")
    assert texts(b, a.name) == ["held on the device"]
    r = offline(b).run("history", a.name)
    assert [row["text"] for row in r.rows if row["type"] == "message"] == ["held on the device"]
    r = offline(b).run("search", "device")
    assert [row["text"] for row in r.rows if row["type"] == "message"] == ["held on the device"]
    r = offline(b).run("chats")
    assert [row["last_text"] for row in r.rows if row["type"] == "chat"] == ["held on the device"]


def test_outbox_is_listed(homes):
    a, b = homes
    assert offline(a).run("--timeout", "1", "send", b.name, "waiting").code == UNREACHABLE
    r = offline(a).run("outbox")
    assert [row["text"] for row in r.rows if row["type"] == "waiting"] == ["waiting"]
    a.ok("send", b.name, "next")
    assert a.ok("outbox").rows == []


def test_history_and_chats_show_what_waits(homes):
    a, b = homes
    assert offline(a).run("--timeout", "1", "send", b.name, "waiting").code == UNREACHABLE
    r = offline(a).run("history", b.name, json_lines=False)
    assert "…" in r.out.splitlines()[-1] and "waiting" in r.out.splitlines()[-1], r
    assert "1 not sent yet" in offline(a).run("chats", json_lines=False).out
    a.ok("send", b.name, "next")
    assert "…" not in a.ok("history", b.name, json_lines=False).out
    assert "not sent" not in a.ok("chats", json_lines=False).out
    assert "Nothing" in a.ok("outbox", "--clear", json_lines=False).out


def test_killed_at_any_moment_of_sending(homes):
    """kill -9 at growing delays: whatever was typed and accepted into the outbox comes once, nothing comes twice."""
    a, b = homes
    for i in range(20):
        p = subprocess.Popen(a.command("send", b.name, f"k{i}"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.002 * i)
        p.send_signal(signal.SIGKILL)
        p.wait()
    a.ok("send", b.name, "end")
    got = texts(b, a.name)
    assert len(got) == len(set(got)), f"doubled: {got}"
    numbers = [int(t[1:]) for t in got[:-1]]
    assert numbers == sorted(numbers) and got[-1] == "end"
    assert texts(a, b.name) == got


def test_killed_after_it_was_queued(system, homes):
    """The store is frozen: the text is in the outbox and on the wire when the client is killed."""
    a, b = homes
    system.store.freeze()
    p = subprocess.Popen(a.command("send", b.name, "in flight"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: any(r["type"] == "waiting" for r in offline(a).run("outbox").rows))
    p.send_signal(signal.SIGKILL)
    p.wait()
    system.store.thaw()
    a.ok("send", b.name, "after")
    assert texts(b, a.name) == ["in flight", "after"]


def test_sends_of_many_processes_at_once(homes):
    """Several processes may use one home at the same time."""
    a, b = homes
    processes = [subprocess.Popen(a.command("send", b.name, f"p{i}"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                 for i in range(6)]
    for p in processes:
        err = p.communicate(timeout=LONG)[1]
        assert p.returncode == OK, err
    assert sorted(texts(b, a.name)) == [f"p{i}" for i in range(6)]


def test_listen_survives_edges_and_store(system, homes):
    a, b = homes
    b.servers = system.urls()
    listening = b.start("listen")
    listening.wait_for(lambda r: r["type"] == "presence")
    for i, fault in enumerate((lambda: system.edge(1).restart(), lambda: system.edge(2).restart(),
                               lambda: system.store.restart(), lambda: system.broker.restart(),
                               lambda: system.presence.restart())):
        fault()
        system.wait_ready()
        eventually(lambda: a.run("send", b.name, f"after fault {i}").code in (OK, UNREACHABLE), LONG)
        listening.wait_for(lambda r: r["type"] == "message" and r["text"] == f"after fault {i}", LONG)
    assert listening.stop() == OK
    shown = [line for line in listening.lines if '"message"' in line]
    assert len(shown) == len(set(shown)), "each message is shown once"
    assert texts(b, a.name) == [f"after fault {i}" for i in range(5)]


def test_send_waits_for_the_store(system, homes):
    a, b = homes
    system.store.kill()
    p = subprocess.Popen(a.command("send", b.name, "patience"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.5)
    system.store.start()
    out, err = p.communicate(timeout=LONG)
    assert p.returncode == OK, (out, err)
    assert texts(b, a.name) == ["patience"]


def test_a_person_who_waits_is_told(homes):
    """On a terminal: what is amiss, and that the message is safe; once."""
    a, b = homes
    ours, theirs = os.openpty()
    command = offline(a).command("--timeout", "4", "send", b.name, "patience", json_lines=False)
    p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 4096):
            said += piece
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert p.wait(LONG) == UNREACHABLE
    lines = said.decode().splitlines()
    assert len(lines) == 2 and all("cannot connect" in line and "outbox" in line for line in lines), lines
    assert "no server yet" in lines[0] and "not sent yet" in lines[1]


def test_unreachable(homes):
    a, b = homes
    start = time.monotonic()
    r = offline(a).run("friends")
    assert r.code == UNREACHABLE and r.rows[-1]["type"] == "error"
    assert time.monotonic() - start < 30


def test_home_that_cannot_be_used(homes):
    a, b = homes
    p = subprocess.run([*a.command()[:1], "--home", "/proc/none", "--json", "chats"], capture_output=True, timeout=60)
    assert p.returncode == LOCAL and b'"error"' in p.stdout
    assert os.path.exists(a.dir / "home")
