# SPDX-License-Identifier: MPL-2.0
"""Routed-up-to (design §3): what was committed reaches the connected peer without his doing anything, whatever dies in between.

Nobody here reconnects or syncs: the store routes again from its durable position. Devices drop repeats by seq.
"""

import time

import pytest
from chasqui import Link, Refused, message_row
from system import eventually

LONG = 60


def take_next(d, peer, text):
    """Waits for the push of this text; repeats of what is held are allowed, gaps are not."""
    chat = d.chat(peer)

    def find():
        for op in list(d.link.pushes):
            if op[0] == 0x90 and op[1] == chat:
                d.link.pushes.remove(op)
                m = message_row(op[1:])
                d.take(m)
                if d.messages[chat].get(m.seq) == text:
                    return True
        return None

    d.link.wait(find, LONG, f"the message {text!r}")


@pytest.fixture
def warm(pair):
    """A pair with one message through, so that every position is known everywhere."""
    x, y = pair
    x.send(y, "warm")
    take_next(y, x, "warm")
    return x, y


def test_store_killed_while_presence_is_frozen(system, warm):
    x, y = warm
    system.presence.freeze()
    x.send(y, "committed")
    system.store.kill()
    system.presence.thaw()
    system.store.start()
    take_next(y, x, "committed")


def test_presence_killed_before_it_routed(system, warm):
    x, y = warm
    system.presence.freeze()
    x.send(y, "committed")
    system.presence.kill()
    system.presence.start()
    take_next(y, x, "committed")


def test_both_killed_between_commit_and_route(system, warm):
    x, y = warm
    system.presence.freeze()
    for i in range(5):
        x.send(y, f"committed {i}")
    system.store.kill()
    system.presence.kill()
    system.store.start()
    system.presence.start()
    for i in range(5):
        take_next(y, x, f"committed {i}")


def test_sent_while_presence_is_away_and_the_store_dies(system, warm):
    x, y = warm
    system.presence.kill()
    x.send(y, "nobody routes this")
    system.store.restart()
    system.presence.start()
    take_next(y, x, "nobody routes this")


def test_presence_first_then_store(system, warm):
    x, y = warm
    system.presence.kill()
    x.send(y, "a")
    system.store.kill()
    system.presence.start()
    system.store.start()
    take_next(y, x, "a")


def test_the_edge_of_the_peer_is_frozen_and_thawed(system, warm):
    x, y = warm
    system.edge(2).freeze()
    x.send(y, "into a frozen edge")
    system.store.restart()
    system.edge(2).thaw()
    take_next(y, x, "into a frozen edge")


def test_receipts_are_routed_again_too(system, warm):
    x, y = warm
    x.send(y, "read me")
    take_next(y, x, "read me")
    x.link.drop_pushes()
    system.presence.freeze()
    y.ack(x, delivered=2, read=2)
    system.presence.kill()
    system.store.restart()
    system.presence.start()
    assert x.receipt(y, y.user, 2, timeout=LONG).up_to == 2


def test_friend_changes_are_routed_again_too(system):
    x, y = system.person(1), system.person(2)
    system.presence.kill()
    x.friend_op("ADD", y.name)
    system.store.restart()
    system.presence.start()
    assert y.link.push("FRIEND", lambda f: f[1] == x.name, LONG)
    x.close(), y.close()


def test_what_was_confirmed_is_not_routed_for_ever(system, warm):
    """After a quiet while a restart of the store repeats nothing old: the position was stored."""
    x, y = warm
    for i in range(20):
        x.send(y, f"m{i}")
    for i in range(20):
        take_next(y, x, f"m{i}")
    x.send(y, "so that the position is committed")
    take_next(y, x, "so that the position is committed")
    time.sleep(0.5)  # ROUTED is lazy (50 ms), and its position is stored with a later commit
    x.send(y, "last")
    take_next(y, x, "last")
    time.sleep(0.5)
    system.store.restart()
    system.wait_ready()
    x.send(y, "after")
    take_next(y, x, "after")
    repeats = [op for frame in y.link.frames for op in frame if op[0] == 0x90 and op[1] == y.chat(x)]
    assert len(repeats) - y.held[y.chat(x)] <= 5, "the whole history was routed again"


def test_no_session_without_pushes(system):
    """A user's 257th session is one that presence does not take: its login is refused, instead of being good for nothing."""
    x = system.person(1)
    links = [Link(system.url(1 + n % 2)) for n in range(256)]
    rids = [link.start("RESUME", x.token) for link in links[:255]]
    for link, rid in zip(links, rids):
        link.finish(rid)
    with pytest.raises(Refused) as refused:
        links[255].ask("RESUME", x.token)
    assert refused.value.name == "BUSY" and refused.value.retry_after_ms > 0
    assert links[255].closed() == 1008
    links.pop(0).close()

    def comes_in():
        try:
            return x.resume(system.url(2))
        except Refused:
            return None

    assert eventually(comes_in, LONG, "a place is free")
    for link in links:
        link.close()
    x.close()
