# SPDX-License-Identifier: MPL-2.0
"""The life of a message can be looked up: accepted, durable, delivered to each device, read; also after restarts."""

import os
import time

import pytest
from chasqui import Device, Refused, befriend
from cli import Home
from ctl import Ctl
from system import eventually

SYSTEM = {"store": ["--checkpoint-idle-ms", "50"], "edge": [f"--limit-{what}-per-s=0" for what in ("send", "query", "signal")]}
REFUSED, USAGE, UNREACHABLE = 1, 2, 3


def now_ms():
    return int(time.time() * 1000)


def restart(system, *people):
    system.store.kill()
    system.store.start()
    system.wait_ready()
    for i, d in enumerate(people):
        d.login(system.url(1 + i % 2))


def test_a_message_that_only_the_server_has(pair):
    x, y = pair
    before = now_ms()
    x.send(y, "hello")
    life = x.ledger(y, 1)
    assert (life.chat, life.seq, life.user, life.device, life.dseq) == (x.chat(y), 1, x.user, x.id, 1)
    assert life.pos > 0 and not life.more
    assert before <= life.time_unix_ms <= life.durable_unix_ms <= now_ms()
    assert {m.user: (m.name, m.read_unix_ms) for m in life.members.values()} == {x.user: (x.name, 0), y.user: (y.name, 0)}
    assert list(life.devices) == [(y.user, y.id)], "a device that has acknowledged nothing is named, the sending one is not"
    assert life.devices[y.user, y.id].delivered_unix_ms == 0


def test_each_device_and_each_user_at_its_time(system, pair):
    x, y = pair
    x2, y2 = system.another_device(x, 2), system.another_device(y, 2)
    for i in range(5):
        x.send(y, f"m{i}")
    y.ack(x, delivered=3)
    y2.ack(x, delivered=5, read=2)
    x2.ack(y, delivered=1)
    lives = {seq: x.ledger(y, seq) for seq in range(1, 6)}

    def delivered(seq, d):
        return lives[seq].devices[d.user, d.id].delivered_unix_ms

    assert [bool(delivered(seq, y)) for seq in range(1, 6)] == [True, True, True, False, False]
    assert len({delivered(seq, y) for seq in range(1, 4)}) == 1, "one ACK, one time"
    assert all(delivered(seq, y2) for seq in range(1, 6))
    assert [bool(delivered(seq, x2)) for seq in range(1, 6)] == [True, False, False, False, False]
    assert [bool(lives[seq].members[y.user].read_unix_ms) for seq in range(1, 6)] == [True, True, False, False, False]
    y.ack(x, delivered=5, read=5)
    again = x.ledger(y, 1)
    assert again.devices == lives[1].devices and again.members == lives[1].members, "the past does not change"
    assert x.ledger(y, 5).members[y.user].read_unix_ms >= lives[1].members[y.user].read_unix_ms
    x2.close(), y2.close()


def test_labels_of_other_people_are_not_told(system, pair):
    x, y = pair
    x2 = Device(x.name, x.password, label="x's tablet").login(system.url(1))
    x.send(y, "hello")
    assert x.ledger(y, 1).devices[x.user, x2.id].label == "x's tablet"
    seen = y.ledger(x, 1)
    assert {d.label for d in seen.devices.values() if d.user == x.user} == {""}
    x2.close()


def test_a_logged_out_device_counts_only_for_what_it_got(system, pair):
    x, y = pair
    y2 = system.another_device(y, 2)
    x.send(y, "1")
    y2.ack(x, delivered=1)
    y.ask("REVOKE", y2.id)
    x.send(y, "2")
    assert x.ledger(y, 1).devices[y.user, y2.id].revoked
    assert (y.user, y2.id) not in x.ledger(y, 2).devices
    y2.close()


def test_the_same_after_a_crash_and_a_checkpoint(system, pair):
    x, y = pair
    for i in range(20):
        x.send(y, f"m{i}")
        if i % 3 == 0:
            y.ack(x, delivered=i + 1, read=i)
    fresh = [x.ledger(y, seq) for seq in range(1, 21)]
    assert all(life.durable_unix_ms for life in fresh)
    restart(system, x, y)
    replayed = [x.ledger(y, seq) for seq in range(1, 21)]
    for before, after in zip(fresh, replayed):
        assert (before.pos, before.time_unix_ms, before.devices, before.members) == (
            after.pos, after.time_unix_ms, after.devices, after.members)
        # the time of the very last commit may have died with the store; the others are in the log
        assert after.durable_unix_ms >= after.time_unix_ms or after.durable_unix_ms == 0
    assert all(life.durable_unix_ms for life in replayed[:-3])


def test_a_time_that_was_lost_is_not_replaced(system, pair):
    """A commit's time is logged with the next one. If the store dies before, the next time in the log is another commit's."""
    x, y = pair
    for how in ("kill", "stop"):
        seq = x.send(y, "the last one before")
        told = x.ledger(y, seq).durable_unix_ms
        assert told, "known as long as the store lives"
        getattr(system.store, how)()
        died = now_ms()
        system.store.start()
        system.wait_ready()
        x.login(system.url(1)), y.login(system.url(2))
        time.sleep(0.005)
        for text in ("two", "more"):
            x.send(y, text)
        life = x.ledger(y, seq)
        assert life.durable_unix_ms in (0, told), f"{life.durable_unix_ms - died} ms after the end of the store"
        assert x.ledger(y, seq + 1).durable_unix_ms > died, "those after it have theirs"


def test_what_is_not_there(system, pair):
    x, y = pair
    x.send(y, "hello")
    z = system.person(1)
    for who, seq in ((x, 0), (x, 2), (x, 2**63), (z, 1), (z, 2)):
        with pytest.raises(Refused, match="NOT_FOUND"):
            who.ask("LEDGER", x.chat(y), seq)
    with pytest.raises(Refused, match="NOT_FOUND"):
        x.ask("LEDGER", os.urandom(16), 1)
    with pytest.raises(Refused, match="BAD_ARG"):
        x.ask("LEDGER", x.chat(y))
    z.close()


def test_many_devices(system, pair):
    """All of them are named, up to a bound; a message's life stays one answer."""
    x, y = pair
    x.send(y, "hello")
    others = [system.another_device(y, 2) for _ in range(5)]
    life = x.ledger(y, 1)
    assert {d for _, d in life.devices} == {y.id, *(o.id for o in others)}
    for o in others:
        o.close()


# ---- as people and operators see it ----


@pytest.fixture(scope="module")
def homes(system):
    a, b = Home(system.url(1)).signup(), Home(system.url(2)).signup()
    a.ok("add", b.name)
    b.ok("accept", a.name)
    return a, b


def steps(rows):
    return [(r["step"], r["time_unix_ms"] is not None) for r in rows]


def test_proof_in_the_terminal(homes):
    a, b = homes
    seq = a.ok("send", b.name, "prove it").row["seq"]
    rows = a.ok("proof", b.name, seq).rows
    assert steps(rows) == [("accepted", True), ("durable", True), ("delivered", False), ("read", False)]
    assert rows[0]["own"] and rows[0]["this"] and rows[0]["position"] > 0
    b.ok("history", a.name, "--read")
    rows = a.ok("proof", b.name, seq).rows
    assert steps(rows) == [("accepted", True), ("durable", True), ("delivered", True), ("read", True)]
    times = [r["time_unix_ms"] for r in rows]
    assert times == sorted(times)
    assert [r["name"] for r in rows if r["step"] in ("delivered", "read")] == [b.name, b.name]
    people = a.ok("proof", b.name, seq, json_lines=False).out
    for word in (f"Message {seq} to {b.name}", "accepted", "durable", "delivered", "read", "this one", f"by {b.name}", "+ "):
        assert word in people, people
    assert "by you" in b.ok("proof", a.name, seq, json_lines=False).out


def test_proof_on_a_new_device(system, homes):
    a, b = homes
    seq = a.ok("send", b.name, "for all of my devices").row["seq"]
    other = Home(system.urls(), name=a.name, password=a.password).login()
    people = other.ok("proof", b.name, seq, json_lines=False).out
    assert "not yet" in people and "your device" in people and "this one" in people


def test_proof_says_what_to_do(system, homes):
    a, b = homes
    a.ok("send", b.name, "x")
    r = a.run("proof", b.name, "99999", json_lines=False)
    assert r.code == REFUSED and "history" in r.err
    assert a.run("proof", "nobody-at-all", "1").code == REFUSED
    for words in (["proof"], ["proof", b.name], ["proof", b.name, "0"], ["proof", b.name, "x"], ["proof", b.name, "1", "2"],
                  ["proof", b.name, "-1"], ["proof", b.name, "99999999999999999999999"]):
        r = a.run(*words)
        assert r.code == USAGE and r.row["error"] == "USAGE", words
    system.edge(1).kill()
    r = a.run("proof", b.name, "1", "--timeout", "2", json_lines=False)
    assert r.code == UNREACHABLE and r.err.strip()


def test_operators_see_labels_and_any_chat(system, pair):
    x, y = pair
    ctl = Ctl(system)
    x.send(y, "hello")
    y.ack(x, delivered=1, read=1)
    code, rows = ctl.json("ledger", x.name, y.name, "1")
    assert code == 0 and steps(rows) == [(s, True) for s in ("accepted", "durable", "delivered", "read")]
    assert rows[0]["chat"] == x.chat(y).hex() and rows[2]["label"] == y.label and rows[2]["device"] == y.id.hex()
    assert ctl.json("ledger", x.chat(y).hex(), "1") == (code, rows)
    code, out, err = ctl.run("ledger", y.name, x.name, "1")
    assert code == 0 and not err and out.splitlines()[0].split() == ["STEP", "WHEN", "AFTER", "WHERE"]
    assert y.id.hex() in out
    for words, want in ((("ledger", x.name, y.name, "2"), 1), (("ledger", x.name, "nobody", "1"), 1),
                        (("ledger", os.urandom(16).hex(), "1"), 1), (("ledger", "zz", "1"), 2), (("ledger", x.name), 2),
                        (("ledger", x.name, y.name, "x"), 2), (("ledger", x.name, "y" * 100, "1"), 2)):
        code, out, err = ctl.run(*words)
        assert code == want and err, words


def test_receipts_are_indexed_on_disk(system, pair):
    """The look-up does not read the log: when everything is written behind, the table has a row per receipt."""
    x, y = pair
    lag = "chasqui_store_marker_lag_records"
    ctl = Ctl(system)

    def value(name):
        return next(r["value"] for r in ctl.json("metrics", "store.1")[1] if r["name"] == name)

    for i in range(70):  # more than two blocks of the index
        x.send(y, f"m{i}")
        y.ack(x, delivered=i + 1, read=i + 1)
    want = [x.ledger(y, seq) for seq in (1, 32, 33, 64, 65)]
    eventually(lambda: value("chasqui_store_dirty_chats") == 0, what="everything is written behind")
    assert value(lag) is not None
    assert [x.ledger(y, seq) for seq in (1, 32, 33, 64, 65)] == want
