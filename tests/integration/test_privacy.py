# SPDX-License-Identifier: MPL-2.0
"""Someone else's chat, history, receipts and presence are refused the same way as what does not exist."""

import os

import pytest
from chasqui import Refused, befriend, presence_row
from system import eventually

NOT_FOUND = 20


@pytest.fixture
def three(system):
    """x and y are friends and have written; z knows nobody."""
    x, y, z = system.person(1), system.person(2), system.person(1)
    befriend(x, y)
    x.send(y, "private")
    y.receive(x)
    yield x, y, z
    for d in (x, y, z):
        d.close()


def answer(d, *request):
    try:
        return d.ask(*request)
    except Refused as e:
        return e.number, e.text, e.retry_after_ms, e.detail


REQUESTS = {
    "history": lambda chat: ("HISTORY", chat, 1, 10),
    "history beyond": lambda chat: ("HISTORY", chat, 5, 10),
    "send": lambda chat: ("SEND", chat, 1, 0, 1, b"n" * 24, b"c" * 40),
    "send out of order": lambda chat: ("SEND", chat, 7, 6, 1, b"n" * 24, b"c" * 40),
    "send other key version": lambda chat: ("SEND", chat, 1, 0, 9, b"n" * 24, b"c" * 40),
    "delivered": lambda chat: ("ACK", [[chat, 1, 0]]),
    "read": lambda chat: ("ACK", [[chat, 0, 1]]),
    "above head": lambda chat: ("ACK", [[chat, 99, 99]]),
    "typing": lambda chat: ("TYPING", chat, True),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_same_answer_as_for_nothing(three, what):
    x, y, z = three
    theirs = answer(z, *REQUESTS[what](x.chat(y)))
    nothing = answer(z, *REQUESTS[what](os.urandom(16)))
    assert theirs == nothing
    assert theirs[0] == NOT_FOUND
    assert y.texts(x) == ["private"]
    assert x.chats()[y.name].peer_read == 0


def test_presence_of_strangers(three):
    x, _, z = three
    assert answer(z, "PRESENCE", [x.user]) == answer(z, "PRESENCE", [os.urandom(16)])
    assert answer(z, "PRESENCE", [x.user])[0] == NOT_FOUND
    assert z.presence() == {}


def test_presence_of_a_friend_and_a_stranger(three):
    x, y, z = three
    assert answer(x, "PRESENCE", [y.user, z.user])[0] == NOT_FOUND
    assert set(x.presence(y.user)) == {y.user}


def test_one_bad_ack_in_a_list(three):
    """A list with someone else's chat is refused like one with a chat that does not exist."""
    x, y, z = three
    befriend(z, x)
    z.send(x, "hi")
    theirs = answer(z, "ACK", [[z.chat(x), 0, 0], [x.chat(y), 1, 1]])
    nothing = answer(z, "ACK", [[z.chat(x), 0, 0], [os.urandom(16), 1, 1]])
    assert theirs == nothing and theirs[0] == NOT_FOUND
    assert x.chats()[y.name].peer_read == 0


def test_lists_hold_only_ones_own(three):
    x, y, z = three
    assert z.chats() == {} and z.sync(version=0) == {} and z.friends() == {}
    assert z.fetch_keys(have=[]) == 0
    # Naming a chat as had does not bring it, and having said so does not hide one's own.
    assert z.fetch_keys(have=[[x.chat(y), 1]]) == 0


def test_nothing_is_pushed_to_others(three):
    x, y, z = three
    z.link.drop_pushes()
    x.send(y, "for y"), y.receive(x)
    y.ack(x, delivered=2, read=2)
    x.ask("TYPING", x.chat(y), True)
    x.receipt(y, y.user, 2)
    y.link.push("TYPING_NOTE")
    z.ask("FRIENDS")
    assert z.link.pushes == []


def test_the_key_of_a_chat_is_sealed_to_the_device(three, system):
    """Another device of the same person gets an answer sealed to itself; the bytes of one do not open the other's."""
    x, y, _ = three
    x2 = system.another_device(x, 2)
    assert x2.keys[x.chat(y)] == x.keys[x.chat(y)]
    sealed = x.ask("KEYS", [])[0]
    with pytest.raises(Exception):
        from nacl import bindings

        bindings.crypto_box_seal_open(sealed, x2.public, x2.secret)
    x2.close()


def state(d, other):
    return d.presence(other.user)[other.user]


def noted(d, user, matches):
    """Waits for a note about the user that matches."""
    fields = d.link.push("PRESENCE_NOTE", lambda f: any(p[0] == user and matches(presence_row(p)) for p in f[0]))
    return fields is not None


def test_last_seen_can_be_hidden(three, system):
    x, y, _ = three
    assert y.ask("PRIVACY", False, False) == [False]
    assert state(x, y).last_seen_unix_ms > 0
    x.link.drop_pushes()
    assert y.ask("PRIVACY", True, True) == [True]
    assert noted(x, y.user, lambda p: p.online and p.last_seen_unix_ms == 0)
    assert state(x, y).online and state(x, y).last_seen_unix_ms == 0
    assert state(y, x).last_seen_unix_ms > 0, "not a trade: who hides sees the others' times"
    key = f"chasqui:seen:{y.user.hex()}"
    y.close()
    eventually(lambda: not state(x, y).online, 20)
    assert state(x, y).last_seen_unix_ms == 0
    assert system.redis_client().get(key) is None
    y.resume(system.url(2))
    assert y.ask("PRIVACY", False, True) == [True], "only asked"
    assert y.ask("PRIVACY", True, False) == [False]
    eventually(lambda: state(x, y).last_seen_unix_ms > 0, 20)


def test_privacy_is_told_to_other_devices_and_kept(three, system):
    x, y, _ = three
    y2 = system.another_device(y, 1)
    y2.link.drop_pushes()
    y.ask("PRIVACY", True, True)
    assert y2.link.push("PRIVACY_NOTE") == [True]
    assert not x.link.has_push("PRIVACY_NOTE")
    y.ask("PRIVACY", True, True)  # as it stands: nothing is told
    y.ask("PRIVACY", True, False)
    assert y2.link.push("PRIVACY_NOTE") == [False]
    y.ask("PRIVACY", True, True)
    system.store.kill()
    system.heal()
    assert y.patiently(lambda: y.ask("PRIVACY", False, False)) == [True]
    y2.close()


def test_hidden_while_presence_is_away(three, system):
    """The change waits in the store's stream until a presence is there to take it."""
    x, y, _ = three
    y2 = system.another_device(y, 2)
    y2.close()
    system.presence.kill()
    y.patiently(lambda: y.ask("PRIVACY", True, True))
    system.heal()
    eventually(lambda: x.patiently(lambda: state(x, y).online and state(x, y).last_seen_unix_ms == 0), 40)


def test_blocked_sees_nothing_at_once_and_unblock_heals(three):
    x, y, _ = three
    assert state(x, y).online and state(y, x).online
    x.friend_op("BLOCK", y.name)
    for one, other in ((x, y), (y, x)):
        theirs = eventually(lambda: (lambda a: a[0] == NOT_FOUND and a)(answer(one, "PRESENCE", [other.user])), 20)
        assert theirs == answer(one, "PRESENCE", [os.urandom(16)])
        assert one.presence() == {}
    x.friend_op("UNBLOCK", y.name)
    eventually(lambda: x.presence() and y.presence(), 20)
    assert state(x, y).online and state(y, x).online
