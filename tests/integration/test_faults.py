# SPDX-License-Identifier: MPL-2.0
"""Design §10: what must hold when things break. Nothing acknowledged is lost, nothing comes twice, all heals by itself."""

import threading
import time

import pytest
from chasqui import TRANSIENT, WAIT, Closed, Refused, befriend
from system import eventually

LONG = WAIT * 6


class Sender(threading.Thread):
    """Sends texts one after the other as a real client does: on any trouble the same bytes again, on another edge."""

    def __init__(self, system, device, chat, texts, pace_s=0):
        super().__init__(daemon=True)
        self.system, self.device, self.chat, self.texts = system, device, chat, texts
        self.pace_s = pace_s
        self.answers, self.error, self.retries = [], None, 0

    def run(self):
        try:
            for text in self.texts:
                fields = self.device.prepare(self.chat, text)
                self.answers.append(self.insist(fields))
                time.sleep(self.pace_s)
        except BaseException as e:
            self.error = e

    def insist(self, fields):
        deadline = time.monotonic() + LONG
        edge = 0
        while True:
            try:
                return self.device.send_prepared(fields, timeout=5)[0]
            except Refused as e:
                if e.name not in TRANSIENT or time.monotonic() > deadline:
                    raise
            except (Closed, TimeoutError, OSError):
                if time.monotonic() > deadline:
                    raise
                edge += 1
                self.reconnect(edge)
            self.retries += 1
            time.sleep(0.05)

    def reconnect(self, edge):
        from websocket import WebSocketException

        try:
            self.device.resume(self.system.url(1 + edge % 2))
        except (Refused, Closed, TimeoutError, OSError, WebSocketException):
            pass

    def result(self):
        self.join(LONG * 2)
        if self.error:
            raise self.error
        assert not self.is_alive(), "the sender hangs"
        return self.answers


def run_with_faults(system, pair, faults, count=150):
    x, y = pair
    texts = [f"t{i}" for i in range(count)]
    sender = Sender(system, x, x.chat(y), texts)
    sender.start()
    for fault in faults:
        eventually(lambda: len(sender.answers) > 5 or not sender.is_alive(), LONG)
        fault()
        reached = len(sender.answers)
        eventually(lambda: len(sender.answers) >= min(reached + 10, count) or not sender.is_alive(), LONG)
    assert sender.result() == list(range(1, count + 1)), "every one once, in order, without gaps"
    system.heal()
    x.login(system.url(1))
    assert x.texts(y) == texts
    y.login(system.url(2))
    y.catch_up()
    assert [y.messages[y.chat(x)][i + 1] for i in range(count)] == texts
    return sender


def test_store_killed_under_load(system, pair):
    run_with_faults(system, pair, [lambda: system.store.restart()] * 3)


def test_broker_killed_under_load(system, pair):
    run_with_faults(system, pair, [lambda: system.broker.restart()] * 2)


def test_edge_killed_under_load(system, pair):
    run_with_faults(system, pair, [lambda: system.edge(1).restart(), lambda: system.edge(2).restart()])


def test_presence_killed_under_load(system, pair):
    sender = run_with_faults(system, pair, [lambda: system.presence.restart()] * 2)
    assert sender.retries == 0, "sending does not need presence"


def test_redis_killed_and_flushed_under_load(system, pair):
    sender = run_with_faults(
        system, pair, [lambda: system.redis_client().flushall(), lambda: system.redis.kill(), lambda: system.redis.start()])
    assert sender.retries == 0, "sending does not need Redis"


def test_everything_killed_at_once(system, pair):
    x, y = pair
    prepared = [x.prepare(y, "m1")]
    first = x.send_prepared(prepared[0])
    for s in system.services.values():
        s.kill()
    system.heal()
    x.resume(system.url(2)), y.resume(system.url(1))
    assert x.send_prepared(prepared[0]) == first
    assert x.send(y, "m2") == 2
    assert y.receive(x)[1] == "m2"
    assert y.texts(x) == ["m1", "m2"]


def test_broker_restart_keeps_the_connections(system, pair):
    x, y = pair
    system.broker.restart()

    def works():
        try:
            x.ask("FRIENDS", timeout=5)
            return True
        except Refused as e:
            assert e.name in TRANSIENT
            return False
        except TimeoutError:
            return False

    eventually(works, LONG)
    assert not x.link.is_closed and not y.link.is_closed
    x.send(y, "the same connections")
    y.arrives(x, "the same connections", LONG)


def test_store_away_is_said_and_over(system, pair):
    x, y = pair
    system.store.kill()
    fields = x.prepare(y, "later")
    with pytest.raises(Refused) as e:
        x.send_prepared(fields, timeout=LONG)
    assert e.value.name in TRANSIENT
    system.store.start()
    system.wait_ready()
    sender = Sender(system, x, x.chat(y), [])
    assert sender.insist(fields) == 1
    assert y.receive(x, LONG)[1] == "later"


def test_store_frozen_for_a_while(system, pair):
    x, y = pair
    system.store.freeze()
    fields = x.prepare(y, "slow")
    rid = x.link.start("SEND", *fields)
    time.sleep(1)
    assert rid not in x.link.answers, "nothing is acknowledged by anybody but the store"
    system.store.thaw()
    try:
        x.link.finish(rid, LONG)
    except Refused as e:
        assert e.name in TRANSIENT
    assert Sender(system, x, x.chat(y), []).insist(fields) == 1
    assert x.texts(y) == ["slow"]


def test_clean_stop_and_start_of_the_store_keeps_all(system, pair):
    x, y = pair
    for i in range(30):
        x.send(y, f"{i}")
    y.ack(x, delivered=30, read=7)
    system.store.stop()
    system.store.start()
    system.wait_ready()
    for d in (x, y):
        d.login(system.url(1))
    assert y.texts(x) == [f"{i}" for i in range(30)]
    c = y.chats()[x.name]
    assert (c.unread, c.first_unread) == (23, 8)
    assert x.chats()[y.name].peer_read == 7


def test_unread_and_cursors_survive_kill(system, pair):
    x, y = pair
    for i in range(10):
        x.send(y, f"{i}")
    y.ack(x, delivered=9, read=4)
    for _ in range(2):  # the second replay starts where the first did: counts must not be added twice
        system.store.restart()
        system.wait_ready()
    y.login(system.url(2)), x.login(system.url(1))
    c = y.sync(version=0)[y.chat(x)]
    assert (c.head, c.unread, c.first_unread, c.read, c.delivered) == (10, 6, 5, 4, 9)
    cursors = {(k.user, k.device): k.up_to for k in x.sync(version=0)[x.chat(y)].cursors}
    assert cursors[(y.user, None)] == 4 and cursors[(y.user, y.id)] == 9


def test_version_of_sync_survives_kill(system, pair):
    x, y = pair
    x.send(y, "a")
    y.sync()
    version = y.version
    system.store.restart()
    system.wait_ready()
    y.login(system.url(1))
    assert y.sync(version=version) == {}
    x.login(system.url(1))
    x.send(y, "b")
    assert set(y.sync(version=version)) == {y.chat(x)}


def test_edge_stops_with_goaway(system, pair):
    x, y = pair
    system.edge(2).stop()
    assert y.link.is_closed or y.link.closed(LONG) is not False
    assert any(op[0] == 0x96 for op in y.link.pushes), "GOAWAY says where to go"
    goaway = next(op for op in y.link.pushes if op[0] == 0x96)
    assert goaway[1] == [system.url(1)]
    y.resume(system.url(1))
    x.send(y, "on the other edge")
    assert y.receive(x)[1] == "on the other edge"
    assert not x.link.is_closed


def test_a_second_store_on_the_same_data_is_refused(system):
    import subprocess

    r = subprocess.run(system.store.command[:1] + ["--name", "store.2"] + system.store.command[3:], capture_output=True,
                       timeout=LONG)
    assert r.returncode not in (0, None) and r.returncode > 0
    assert b"use" in r.stderr.lower() or b"lock" in r.stderr.lower()
    d = system.person(1)
    d.close()


def test_many_accounts_at_once(system):
    """Password hashing is slow on purpose and bounded: too many at once are told to try again, and all get in."""
    from chasqui import Device

    people = [Device(f"many{i}-{time.time_ns() % 10**9}").connect(system.url(1 + i % 2)) for i in range(12)]
    rids = [(d, d.link.start("SIGNUP", d.name, d.password, d.id, d.public, "")) for d in people]
    again = []
    for d, rid in rids:
        try:
            d.welcome(d.link.finish(rid, LONG))
        except Refused as e:
            assert e.name in TRANSIENT, e
            again.append(d)
    for d in again:
        eventually(lambda: try_signup(d), LONG)
    befriend(people[0], people[1])
    for d in people:
        d.close()


def try_signup(d):
    try:
        d.auth("SIGNUP")
        return True
    except Refused as e:
        assert e.name in TRANSIENT or e.name == "NAME_TAKEN"
        return e.name == "NAME_TAKEN"
