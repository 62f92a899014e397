# SPDX-License-Identifier: MPL-2.0
"""An edge and its presence: what is owed to a session when one of them is late, full, or new."""

import secrets
import time

import pytest
from edge_stand import *  # noqa: F403


def test_session_that_presence_has_no_room_for(world):
    """It would never get a push: the login is refused, with RESUME as with LOGIN."""
    e = world.edge()
    world.stand.up_err = BUSY
    token = world.stand.token(b"u" * 16, b"d" * 16, "ana")
    for login in ([LOGIN, 5, "ana", "password", b"d" * 16, b"k" * 32, ""], [RESUME, 5, token]):
        c = Raw(e.port)
        c.send(login, [FRIENDS, 6])
        op = c.answer(5)
        assert op[0] == ERR and op[2] == BUSY and op[4] == 10000, op
        assert c.closed() == 1008 and c.ops == []
        c.close()
    assert not world.stand.calls, "what came behind the login was not begun"
    world.stand.up_err = UNAVAILABLE  # presence does not know this edge yet: it is told again
    c = person(e.port)
    assert c.push(SYNC_NOW)
    c.close()


def test_who_went_while_presence_was_slow_is_no_ghost(world):
    """Presence may read a repeated SESSION_UP after the session's end: the edge says so again behind the last of them."""
    e = world.edge()
    world.stand.answers_up = False
    c = Raw(e.port)
    c.send([LOGIN, 1, "ana", "password", b"d" * 16, b"k" * 32, ""])
    number = until(lambda: list(world.stand.ups), "SESSION_UP")[0]
    c.close()
    until(lambda: [x for x in world.stand.downs if x[0] == number], "SESSION_DOWN")
    until(lambda: world.stand.up_requests > 1, "SESSION_UP again")
    until(lambda: len([x for x in world.stand.downs if x[0] == number]) == 2, "SESSION_DOWN again, at the deadline")


@pytest.mark.parametrize("code", [PRESENCE_NOTE, TYPING_NOTE])
def test_dropped_presence_is_made_up_for(world, code):
    """Presence tells a change once: for a session that had no room for it, it is asked for everything, when there is room again."""
    e = world.edge(session_queue_max_bytes=65536, heartbeat_interval_ms=1000, heartbeat_limit_ms=20000)
    c = person(e.port, rcvbuf=4096)
    number = until(lambda: list(world.stand.ups), "SESSION_UP")[-1]
    note = [code, [[secrets.token_bytes(16), True, 1]] * 700]
    for i in range(1, 601, 4):
        items = [[0, n, [number], note] for n in range(i, i + 4)]
        world.stand.do(lambda: world.stand.presence.send("edge.1", DELIVER, items))
    until(lambda: 600 in world.stand.delivered, "DELIVERED")
    time.sleep(0.5)
    before = len(world.stand.up_events)  # it may have had room in between
    for i in range(601, 605):
        world.stand.deliver(i, [number], note)
    time.sleep(0.5)
    assert len(world.stand.up_events) == before, "not while there is no room"
    c.send([PING, 99])
    c.answer(99)
    assert 0 < len([op for op in c.ops if op[0] == code]) < 604 and SYNC_NOW not in [op[0] for op in c.ops]
    after = before + (code == PRESENCE_NOTE)
    until(lambda: len(world.stand.up_events) == after, "SESSION_UP as an event")
    for _ in range(3):
        time.sleep(0.3)
        assert c.ask(PING)[0] == 0
    assert world.stand.up_events == [number] * after, "once"
    c.close()


def test_first_delivery_lost_leads_to_a_sync(world):
    """A new presence numbers from 1, so the first number tells as well. One that was there before goes on with its numbers."""
    e = world.edge()
    c = person(e.port)
    number = until(lambda: list(world.stand.ups), "SESSION_UP")[-1]
    world.stand.deliver(2, [number], EVENT)
    assert c.push(SYNC_NOW) == [SYNC_NOW, None] and c.push(MESSAGE) == EVENT
    for first in (1, 3):
        world.stand.has_presence = False
        until(lambda: not world.stand.presence, "presence has left")
        world.stand.has_presence = True
        assert c.push(SYNC_NOW), "as it was announced again"
        world.stand.deliver(first, [number], EVENT)
        assert c.push(MESSAGE) == EVENT
        if first > 1:
            assert c.push(SYNC_NOW), "as there was one before"
        assert c.ask(PING)[0] == 0 and c.ops == []
    c.close()
