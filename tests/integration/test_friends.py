# SPDX-License-Identifier: MPL-2.0
"""The table of §4: every relation and operation, what the other sees, blocks."""

import itertools

import pytest
from chasqui import ASKED, FRIENDS, NONE, REMOVED, REQUESTED, Refused, befriend, friend_row

OPERATIONS = ("ADD", "ACCEPT", "DECLINE", "CANCEL", "REMOVE")
# How a and b get into the relation (as a sees it), and what each operation of a leads to: (a's, b's), or None: BAD_STATE.
# "Repeating an operation whose result stands already is answered with that result."
WAYS = {
    NONE: [],
    ASKED: [("a", "ADD")],
    REQUESTED: [("b", "ADD")],
    FRIENDS: [("a", "ADD"), ("b", "ACCEPT")],
    REMOVED: [("a", "ADD"), ("b", "ACCEPT"), ("a", "REMOVE")],
}
TABLE = {
    (NONE, "ADD"): (ASKED, REQUESTED),
    (NONE, "ACCEPT"): None,
    (ASKED, "ADD"): (ASKED, REQUESTED),
    (ASKED, "ACCEPT"): None,
    (ASKED, "DECLINE"): None,
    (ASKED, "CANCEL"): (NONE, NONE),
    (ASKED, "REMOVE"): None,
    (REQUESTED, "ADD"): (FRIENDS, FRIENDS),
    (REQUESTED, "ACCEPT"): (FRIENDS, FRIENDS),
    (REQUESTED, "DECLINE"): (NONE, NONE),
    (REQUESTED, "CANCEL"): None,
    (REQUESTED, "REMOVE"): None,
    (FRIENDS, "ADD"): (FRIENDS, FRIENDS),
    (FRIENDS, "ACCEPT"): (FRIENDS, FRIENDS),
    (FRIENDS, "DECLINE"): None,
    (FRIENDS, "CANCEL"): None,
    (FRIENDS, "REMOVE"): (REMOVED, REMOVED),
    (REMOVED, "ADD"): (ASKED, REQUESTED),
    (REMOVED, "ACCEPT"): None,
    (REMOVED, "REMOVE"): (REMOVED, REMOVED),
}


@pytest.fixture(scope="module")
def people(system):
    """Accounts are dear (password hashing): a few people, and every test takes a pair that has not met."""
    everyone = [system.person(1 + i % 2) for i in range(12)]
    yield itertools.combinations(everyone, 2)
    for p in everyone:
        p.close()


@pytest.fixture
def ab(people):
    a, b = next(people)
    a.link.drop_pushes(), b.link.drop_pushes()
    return a, b


def relation(a, b):
    f = a.friends().get(b.name)
    return f.relation if f else NONE


def walk(a, b, way):
    for who, op in way:
        one, other = (a, b) if who == "a" else (b, a)
        one.friend_op(op, other.name)


@pytest.mark.parametrize("start, op", sorted(TABLE), ids=lambda v: str(v))
def test_table(ab, start, op):
    a, b = ab
    walk(a, b, WAYS[start])
    assert relation(a, b) == start
    want = TABLE[(start, op)]
    if want is None:
        before = (relation(a, b), relation(b, a))
        with pytest.raises(Refused, match="BAD_STATE"):
            a.friend_op(op, b.name)
        assert (relation(a, b), relation(b, a)) == before
        return
    f = a.friend_op(op, b.name)
    assert (f.user, f.name, f.relation, f.blocked) == (b.user, b.name, want[0], False)
    assert (relation(a, b), relation(b, a)) == want
    assert f.open == (want == (FRIENDS, FRIENDS))
    assert a.friend_op(op, b.name) == f, "repeating is answered with the result"


def test_after_decline_and_cancel_of_former_friends(ab):
    """DECLINE and CANCEL lead back to REMOVED if there was a chat; it stays readable."""
    a, b = ab
    befriend(a, b)
    a.send(b, "kept")
    a.friend_op("REMOVE", b.name)
    a.friend_op("ADD", b.name)
    a.friend_op("CANCEL", b.name)
    assert (relation(a, b), relation(b, a)) == (REMOVED, REMOVED)
    a.friend_op("ADD", b.name)
    b.friend_op("DECLINE", a.name)
    assert (relation(a, b), relation(b, a)) == (REMOVED, REMOVED)
    assert b.texts(a) == ["kept"]


def test_the_other_is_told(ab):
    a, b = ab
    for who, op, seen in (("a", "ADD", REQUESTED), ("b", "ACCEPT", FRIENDS), ("a", "REMOVE", REMOVED)):
        one, other = (a, b) if who == "a" else (b, a)
        one.friend_op(op, other.name)
        f = friend_row(other.link.push("FRIEND", lambda f: f[0] == one.user and f[2] == seen))
        assert f.name == one.name and f.open == (seen == FRIENDS)


def test_own_other_devices_are_told(system, ab):
    a, b = ab
    a2 = system.another_device(a, 2)
    a.friend_op("ADD", b.name)
    f = friend_row(a2.link.push("FRIEND"))
    assert (f.user, f.relation) == (b.user, ASKED)
    a.ask("FRIENDS")
    assert not a.link.has_push("FRIEND"), "the device that did it knows from its answer"
    a2.close()


def test_crossing_requests_accept_each_other(ab):
    a, b = ab
    a.friend_op("ADD", b.name)
    f = b.friend_op("ADD", a.name)
    assert f.relation == FRIENDS and f.open and f.chat
    assert relation(a, b) == FRIENDS


def test_chat_appears_on_the_first_accept(ab):
    a, b = ab
    f = a.friend_op("ADD", b.name)
    assert f.chat is None
    f = b.friend_op("ACCEPT", a.name)
    assert f.chat
    assert a.friends()[b.name].chat == f.chat


def test_removed_is_readable_and_closed_and_opens_again(ab):
    a, b = ab
    befriend(a, b)
    a.send(b, "before")
    b.friend_op("REMOVE", a.name)
    for one, other in ((a, b), (b, a)):
        assert one.texts(other) == ["before"]
        with pytest.raises(Refused, match="CHAT_CLOSED"):
            one.send(other, "closed")
    a.friend_op("ADD", b.name)
    with pytest.raises(Refused, match="CHAT_CLOSED"):
        a.send(b, "only asked")
    b.friend_op("ACCEPT", a.name)
    assert a.send(b, "again") == 2
    assert b.texts(a) == ["before", "again"]


def test_block_closes_for_both_and_unblock_undoes_exactly_that(ab):
    a, b = ab
    befriend(a, b)
    a.send(b, "before")
    f = a.friend_op("BLOCK", b.name)
    assert (f.relation, f.blocked, f.open) == (FRIENDS, True, False)
    f = b.friends()[a.name]
    assert (f.relation, f.blocked, f.open) == (FRIENDS, False, False), "he is told only that the chat is closed"
    for one, other in ((a, b), (b, a)):
        with pytest.raises(Refused, match="CHAT_CLOSED"):
            one.send(other, "closed")
        with pytest.raises(Refused, match="NOT_FOUND"):
            one.presence(other.user)
        assert one.texts(other) == ["before"]
    assert a.friend_op("BLOCK", b.name).blocked, "repeating is answered with the result"
    f = a.friend_op("UNBLOCK", b.name)
    assert (f.relation, f.blocked, f.open) == (FRIENDS, False, True)
    assert b.send(a, "open again") == 2


def test_both_block(ab):
    a, b = ab
    befriend(a, b)
    a.friend_op("BLOCK", b.name), b.friend_op("BLOCK", a.name)
    a.friend_op("UNBLOCK", b.name)
    with pytest.raises(Refused, match="CHAT_CLOSED"):
        a.send(b, "still blocked by b")
    assert b.friend_op("UNBLOCK", a.name).open


def test_a_blocked_stranger_cannot_tell(ab):
    a, b = ab
    a.friend_op("BLOCK", b.name)
    f = b.friend_op("ADD", a.name)
    assert (f.relation, f.blocked) == (ASKED, False), "answered as if it had been delivered"
    a.ask("FRIENDS")
    assert not a.link.has_push("FRIEND", lambda f: f[0] == b.user and f[2] != NONE)
    assert relation(a, b) == NONE
    with pytest.raises(Refused, match="BAD_STATE"):
        a.friend_op("ACCEPT", b.name)
    with pytest.raises(Refused, match="BAD_STATE"):
        a.friend_op("ADD", b.name)
    assert b.friend_op("CANCEL", a.name).relation == NONE


def test_unblock_of_nobody_blocked(ab):
    a, b = ab
    f = a.friend_op("UNBLOCK", b.name)
    assert (f.relation, f.blocked) == (NONE, False)


@pytest.mark.parametrize("op", [*OPERATIONS, "BLOCK", "UNBLOCK"])
def test_nobody_and_oneself(ab, op):
    a, _ = ab
    with pytest.raises(Refused, match="NOT_FOUND"):
        a.friend_op(op, "nobody-of-this-name")
    with pytest.raises(Refused):
        a.friend_op(op, a.name)
    for name in ("", "A", "no good", "x" * 33, "ä" * 10):
        with pytest.raises(Refused, match="BAD_NAME|NOT_FOUND|BAD_ARG"):
            a.friend_op(op, name)


def test_friends_survive_a_killed_store(system, ab):
    a, b = ab
    befriend(a, b)
    a.friend_op("BLOCK", b.name)
    system.store.restart()
    system.wait_ready()
    for d in (a, b):
        d.login(system.url(1))
    assert a.friends()[b.name].blocked and not b.friends()[a.name].open
    assert a.friend_op("UNBLOCK", b.name).open
