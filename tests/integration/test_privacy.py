# SPDX-License-Identifier: MPL-2.0
"""Someone else's chat, history, receipts and presence are refused the same way as what does not exist."""

import os

import pytest
from chasqui import Refused, befriend

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
