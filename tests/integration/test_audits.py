# SPDX-License-Identifier: MPL-2.0
"""Unread_Audit and Read_Audit: a row exists while something is unread, or while a device does not know that it was read;
and a chat that knows as many devices as it can makes room by forgetting one that was logged out."""

import re
import subprocess

import msgpack
import pytest
from chasqui import Device, Refused
from ctl import LONG, Ctl
from system import eventually

SYSTEM = {"store": ["--checkpoint-idle-ms", "20"],
          "edge": [f"--limit-{what}-per-s=0" for what in ("send", "query", "history", "login", "signup", "friend")]}
DEVICES_MAX = 64


def rows(system, table):
    """The table as it is on disk, when everything is written behind: (chat, user) → the row's fields."""
    ctl = Ctl(system)
    # A SYNC is answered before what it changes is durable; this one, that there is no such chat, only afterwards.
    assert ctl.run("ledger", "01" * 16, "1")[0] == 1

    def is_written():
        return next(r["value"] for r in ctl.json("metrics", "store.1")[1] if r["name"] == "chasqui_store_dirty_chats") == 0

    eventually(is_written, what="everything is written behind")
    dump = subprocess.run(["mdb_dump", "-s", table, system.dir / "store"], capture_output=True, text=True, check=True, timeout=LONG)
    lines = [bytes.fromhex(line) for line in re.findall(r"^ ([0-9a-f]*)$", dump.stdout, re.M)]
    return {(key[2:18], key[18:34]): msgpack.unpackb(value) for key, value in zip(lines[::2], lines[1::2])}


def kill_store(system, *people):
    system.store.kill()
    system.store.start()
    system.wait_ready()
    for d in people:
        d.login(system.url(1))


def knows(device):
    """The device learns everything, and then says so."""
    device.sync()
    device.sync()


@pytest.fixture
def checked(system):
    yield
    code, found = Ctl(system).json("fsck")
    assert code == 0 and found[-1]["findings"] == 0, found


def test_unread_while_something_is_unread(system, pair, checked):
    x, y = pair
    chat = x.chat(y)
    for i in range(3):
        x.send(y, f"m{i}")
    assert rows(system, "unread_audit")[chat, y.user][1:3] == [1, 3]
    assert (chat, x.user) not in rows(system, "unread_audit"), "one's own messages are not unread"
    y.ack(x, delivered=3, read=2)
    assert rows(system, "unread_audit")[chat, y.user][1:3] == [3, 1]
    kill_store(system, x, y)
    assert rows(system, "unread_audit")[chat, y.user][1:3] == [3, 1]
    y.ack(x, read=3)
    assert (chat, y.user) not in rows(system, "unread_audit")


def test_read_until_the_sender_knows(system, pair, checked):
    x, y = pair
    chat = x.chat(y)
    x.send(y, "hello")
    assert (chat, x.user) not in rows(system, "read_audit")
    y.ack(x, read=1)
    assert rows(system, "read_audit")[chat, x.user][1] == 1
    x.sync()
    assert (chat, x.user) in rows(system, "read_audit"), "it was told, and has not said that it heard"
    assert x.sync() == {}
    assert (chat, x.user) not in rows(system, "read_audit")
    kill_store(system, x, y)
    assert (chat, x.user) not in rows(system, "read_audit")
    x.send(y, "again")
    y.ack(x, read=2)
    assert rows(system, "read_audit")[chat, x.user][1] == 2


def test_read_until_every_device_knows(system, pair, checked):
    """Each device says so once; it counts for ever, whatever crashes in between."""
    x, y = pair
    chat = x.chat(y)
    x2 = system.another_device(x, 2)
    x.send(y, "hello")
    y.ack(x, read=1)
    knows(x)
    assert (chat, x.user) in rows(system, "read_audit")
    kill_store(system, x, x2, y)
    assert (chat, x.user) in rows(system, "read_audit")
    x2.sync()
    assert (chat, x.user) in rows(system, "read_audit")
    x2.sync()
    assert (chat, x.user) not in rows(system, "read_audit"), "the first one said so before the crash"
    kill_store(system, x, x2, y)
    assert (chat, x.user) not in rows(system, "read_audit")


def test_a_device_that_comes_later(system, pair, checked):
    x, y = pair
    chat = x.chat(y)
    x.send(y, "hello")
    y.ack(x, read=1)
    x2 = Device(x.name, x.password).login(system.url(2))
    knows(x)
    assert (chat, x.user) in rows(system, "read_audit"), "it is one of the devices, and has heard nothing"
    knows(x2)
    assert (chat, x.user) not in rows(system, "read_audit")


def test_the_last_one_that_does_not_know_is_revoked(system, pair, checked):
    x, y = pair
    chat = x.chat(y)
    x2, x3 = system.another_device(x, 2), system.another_device(x, 2)
    x.send(y, "hello")
    y.ack(x, read=1)
    knows(x)
    x.ask("REVOKE", x2.id)
    assert (chat, x.user) in rows(system, "read_audit"), "the third one does not know"
    x3.ask("LOGOUT")
    assert (chat, x.user) not in rows(system, "read_audit")
    kill_store(system, x, y)
    assert (chat, x.user) not in rows(system, "read_audit")
    x.send(y, "again")
    y.ack(x, read=2)
    assert (chat, x.user) in rows(system, "read_audit")
    x.ask("LOGOUT")
    assert (chat, x.user) not in rows(system, "read_audit"), "no device is left to be told"


def test_a_revoked_device_is_not_waited_for(system, pair, checked):
    x, y = pair
    chat = x.chat(y)
    x2 = system.another_device(x, 2)
    x.ask("REVOKE", x2.id)
    x.send(y, "hello")
    y.ack(x, read=1)
    knows(x)
    assert (chat, x.user) not in rows(system, "read_audit")
    x2.login(system.url(2))
    y.ack(x, read=1)
    x.send(y, "again")
    y.ack(x, read=2)
    knows(x)
    assert (chat, x.user) in rows(system, "read_audit"), "it is back"
    knows(x2)
    assert (chat, x.user) not in rows(system, "read_audit")


def test_what_everybody_knows_changes_nothing_for_anybody(system, pair, checked):
    """The end of a row is in the log, but no device is told of it: a sync that has nothing to tell stays empty."""
    x, y = pair
    x.send(y, "hello")
    y.ack(x, read=1)
    knows(x), knows(y)
    for d in (x, y):
        assert d.sync() == {}
    kill_store(system, x, y)
    for d in (x, y):
        assert d.sync() == {}
    assert set(x.sync(version=0)) == {x.chat(y)}


def test_a_version_that_is_not_the_stores_says_nothing(system, pair, checked):
    """Neither one from another history nor one from the future."""
    x, y = pair
    chat = x.chat(y)
    x.send(y, "hello")
    y.ack(x, read=1)
    x.sync(version=2**62)
    assert (chat, x.user) in rows(system, "read_audit")
    epoch, version = x.epoch, x.version
    x.sync(epoch=bytes(16), version=version)
    x.sync(epoch=b"\1" * 16, version=version)
    assert (chat, x.user) in rows(system, "read_audit")
    x.sync(epoch=epoch, version=version)
    assert (chat, x.user) not in rows(system, "read_audit")


def test_a_full_chat_forgets_devices_that_were_logged_out(system, pair, checked, tmp_path):
    x, y = pair
    chat = x.chat(y)
    x.send(y, "m1")
    y.ack(x, delivered=1)
    others = []
    for n in range(DEVICES_MAX - 2):
        others.append(Device(x.name, x.password).login(system.url(1 + n % 2)))
        others[-1].ask("ACK", [[chat, 1, 0]])
    first, last = others[0], others[-1]
    first.keys, first.names = x.keys, x.names
    copy = first.prepare(y, "of the one that will be forgotten")
    assert first.send_prepared(copy)[0] == 2
    late = Device(x.name, x.password).login(system.url(1))
    late.keys, late.names = x.keys, x.names
    for ask in (lambda: late.send(y, "no room"), lambda: late.ask("ACK", [[chat, 1, 0]])):
        with pytest.raises(Refused, match="BAD_DEVICE"):
            ask()
    x.ask("REVOKE", first.id), x.ask("REVOKE", last.id)
    assert late.send(y, "one of them made room") == 3
    # One is forgotten, not both; the other one may come back and still has its counters.
    back = []
    for d in (first, last):
        try:
            d.login(system.url(1))
            back.append(d)
        except Refused as e:
            assert e.name == "BAD_DEVICE", "a forgotten device may not send under its counters again"
    assert len(back) == 1
    kill_store(system, x, y, late, *back)
    gone = first if back == [last] else last
    with pytest.raises(Refused, match="BAD_DEVICE"):
        gone.login(system.url(1))
    with pytest.raises(Refused, match="BAD_DEVICE"):
        fresh = Device(x.name, x.password).login(system.url(1))
        fresh.keys, fresh.names = x.keys, x.names
        fresh.send(y, "no room again")
    assert late.send(y, "goes on") == 4
    assert [m.seq for m in y.history(x)] == [1, 2, 3, 4]
    if first in back:
        assert first.send_prepared(copy)[0] == 2
