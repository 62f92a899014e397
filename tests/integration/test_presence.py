# SPDX-License-Identifier: MPL-2.0
"""Presence from outside: routing, friends' states, LOOKUP, Redis, bad input."""
import pathlib
import signal
import sys
import time

import msgpack
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from bus import Actor  # noqa: E402
from presence_world import (  # noqa: E402
    ANNOUNCED, DELIVERED, GRACE_S, LOOKUP, PRESENCE, ROUTE, ROUTE_BEGIN, SEEN, SESSION_DOWN, SESSION_UP, TICK_S,
    WATCHLIST, Edge, new_id, now_ms, running)

BAD_ARG, NOT_FOUND, BUSY, UNAVAILABLE, DENIED = 4, 20, 31, 32, 47


@pytest.fixture
def world(tmp_path):
    with running(tmp_path) as w:
        yield w


@pytest.fixture
def friends(world):
    x, y = new_id(), new_id()
    world.store.befriend(x, y)
    return x, y


# ---- routing ----


def test_event_reaches_all_sessions_but_those_of_the_device(world):
    one, two = world.edges
    x, y, device = new_id(), new_id(), new_id()
    a, b = one.login(x, device), one.login(x)
    c, d = two.login(x), two.login(y)
    two.login(new_id())
    event = [0x90, b"an event", 7, None, ["nested"]]
    pos = world.store.route([x, y, new_id()], event, device=device)
    world.until(lambda: world.store.is_routed(pos), what="ROUTED")
    assert one.delivered == [([b], event)]
    assert [(sorted(s), e) for s, e in two.delivered] == [([c, d], event)]
    assert a != b


def test_one_turn_is_one_envelope(world):
    one, _ = world.edges
    number = one.login(x := new_id())
    before = len(one.numbers)
    first = world.store.pos + 1
    world.store.pos += 200
    world.store.send(PRESENCE, ROUTE, [[0, p, None, False, [x], [0x90, p]] for p in range(first, first + 200)])
    assert one.sock.poll(5000)
    _, _, body = one.sock.recv_multipart()
    items = msgpack.unpackb(body)
    assert [i[3][1] for i in items] == list(range(first, first + 200))
    assert [i[1] for i in items] == list(range(before + 1, before + 201))
    assert all(i[2] == [number] for i in items)
    one.send(PRESENCE, DELIVERED, [[0, items[-1][1]]])
    world.until(lambda: world.store.is_routed(world.store.pos), what="ROUTED")
    assert len(world.store.routed) <= 3


def test_confirmed_only_in_order(world):
    one, two = world.edges
    x, y = new_id(), new_id()
    one.login(x)
    two.login(y)
    one.is_confirming = False
    first = world.store.route([x], [0x90, 1])
    last = world.store.route([y], [0x90, 2])
    world.until(lambda: one.delivered and two.delivered)
    world.run(0.3)
    assert world.store.routed == []
    one.send(PRESENCE, DELIVERED, [[0, one.numbers[-1]]])
    world.until(lambda: world.store.is_routed(last), what="ROUTED")
    assert not world.store.is_routed(first) or world.store.routed[-1][1] == last


def test_edge_going_down_confirms_its_part(world):
    one, two = world.edges
    x = new_id()
    one.login(x)
    two.login(x)
    one.is_confirming = False
    pos = world.store.route([x], [0x90, 1])
    world.until(lambda: one.delivered and two.delivered)
    world.run(0.2)
    assert not world.store.is_routed(pos)
    world.actors.remove(one)
    one.close()  # no LEAVE: as if killed
    world.until(lambda: world.store.is_routed(pos), what="ROUTED")


def test_nobody_online_is_confirmed(world):
    pos = world.store.route([new_id()], [0x90, 1])
    world.until(lambda: world.store.is_routed(pos), what="ROUTED")


def test_ephemeral_is_not_confirmed(world):
    one, _ = world.edges
    one.login(x := new_id())
    world.store.route([x], [0x94, 1], durable=False)
    world.until(lambda: one.delivered)
    world.run(0.2)
    assert world.store.routed == []


def test_a_new_stream_starts_anew(world):
    one, _ = world.edges
    one.login(x := new_id())
    one.is_confirming = False
    world.store.route([x], [0x90, 1])
    world.until(lambda: one.delivered)
    world.store.begin()
    one.is_confirming = True
    pos = world.store.route([x], [0x90, 2])
    world.until(lambda: world.store.is_routed(pos), what="ROUTED")
    assert all(stream == world.store.stream for stream, _ in world.store.routed)


def test_a_new_presence_waits_for_every_edge(world):
    one, two = world.edges
    one.login(x := new_id())
    two.login(y := new_id())
    world.kill("presence")
    world.until(lambda: PRESENCE not in world.store.peers, what="DOWN")
    two.is_announcing = False
    world.store.routed.clear()
    world.start_presence()
    world.until(lambda: PRESENCE in world.store.peers and PRESENCE in two.peers, what="UP")
    world.store.begin()
    pos = world.store.route([x, y], [0x90, 1])
    world.store.route([x, y], [0x94, 1], durable=False)
    one.request(PRESENCE, SESSION_UP, 1, *one.sessions[1])  # answered although not ready
    world.run(0.5)
    assert one.delivered == [] and two.delivered == [] and world.store.routed == []
    two.send(PRESENCE, ANNOUNCED, [[0, 12345, 1]])  # of another incarnation: does not count
    world.run(0.2)
    assert one.delivered == []
    two.announce()
    world.until(lambda: world.store.is_routed(pos), what="ROUTED")
    assert one.delivered == [([1], [0x90, 1])] and two.delivered == [([1], [0x90, 1])]
    assert one.numbers[-1] == 1 or one.numbers[0] == 1  # numbers start anew


def test_held_routes_are_bounded(world):
    one, two = world.edges
    one.login(x := new_id())
    world.kill("presence")
    world.until(lambda: PRESENCE not in world.store.peers, what="DOWN")
    two.is_announcing = False
    world.start_presence()
    world.until(lambda: PRESENCE in world.store.peers and PRESENCE in two.peers, what="UP")
    world.store.begin()
    start, big = world.store.pos, b"x" * 500000
    for _ in range(40):
        world.store.route([x], [0x90, big])
    world.until(lambda: "PRESENCE-HELD-FULL" in world.log("presence"), what="bound")
    two.announce()
    world.until(lambda: world.store.routed and world.store.routed[-1][1] > start + 25, what="those in front")
    world.run(0.3)
    last = world.store.routed[-1][1]
    assert last < start + 40
    # The store starts again from there.
    world.store.pos = last
    world.store.begin()
    pos = world.store.route([x], [0x90, b"y"])
    world.until(lambda: world.store.is_routed(pos), what="ROUTED")


def test_broker_restart(world, friends):
    one, two = world.edges
    x, y = friends
    a = one.login(x)
    two.login(y)
    world.until(lambda: y in one.states(a), what="note")
    one.notes.clear()
    world.kill("broker")
    world.run(0.3)
    world.start_broker()
    world.until(lambda: world.log("presence").count("PRESENCE-READY") == 2, 20, what="ready again")
    world.store.begin()
    pos = world.store.route([x, y], [0x90, 1])
    world.until(lambda: world.store.is_routed(pos), what="ROUTED")
    assert one.delivered and two.delivered
    world.run(GRACE_S + 0.5)
    assert one.states(a).get(y, (True,))[0], "a friend who was there all the time seemed to leave"


# ---- friends' states ----


def test_friend_comes_and_leaves(world, friends):
    one, two = world.edges
    x, y = friends
    a = one.login(x)
    stranger = one.login(new_id())
    since = now_ms() - 5000
    b = two.login(y, since=since)
    world.until(lambda: one.states(a).get(y) == (True, since), what="online")
    world.until(lambda: two.states(b).get(x, (0,))[0] is True, what="who is there already")
    seen = now_ms()
    two.logout(b, seen)
    left = time.monotonic()
    world.until(lambda: one.states(a).get(y) == (False, seen), what="left")
    assert time.monotonic() - left >= GRACE_S
    assert one.states(stranger) == {}
    world.until(lambda: world.key("seen", y) == str(seen).encode(), what="last seen in Redis")
    assert world.key("online", y) is None


def test_reconnecting_within_grace_is_not_seen(world, friends):
    one, two = world.edges
    x, y = friends
    a = one.login(x)
    b = two.login(y)
    world.until(lambda: y in one.states(a), what="online")
    world.run(3 * TICK_S)  # the first note and the change may both have said it
    one.notes.clear()
    at = two
    for edge in (one, two, one):
        at.logout(b)
        world.run(GRACE_S / 3)
        at, b = edge, edge.login(y)
    world.run(GRACE_S + 4 * TICK_S)
    assert [event for sessions, event in one.notes if a in sessions] == []
    pos = world.store.route([y], [0x90, 1])
    world.until(lambda: world.store.is_routed(pos))


def test_edge_killed(world, friends):
    one, two = world.edges
    x, y = friends
    a = one.login(x)
    two.login(y)
    world.until(lambda: y in one.states(a), what="online")
    world.actors.remove(two)
    two.close()
    world.until(lambda: not one.states(a)[y][0], what="left")
    pos = world.store.route([y], [0x90, 1])
    world.until(lambda: world.store.is_routed(pos), what="ROUTED")
    assert world.metric("sessions") == 1
    # It comes back with its session.
    back = world.join(Edge(world, "edge.2"))
    number = back.login(y)
    world.until(lambda: one.states(a)[y][0], what="online again")
    assert back.numbers[0] == 1 and number == 1


def test_two_devices_leave_one_by_one(world, friends):
    one, two = world.edges
    x, y = friends
    a = one.login(x)
    b, c = two.login(y), one.login(y)
    world.until(lambda: y in one.states(a), what="online")
    two.logout(b)
    world.run(GRACE_S + 3 * TICK_S)
    assert one.states(a)[y][0]
    one.logout(c)
    world.until(lambda: not one.states(a)[y][0], what="left")


def test_rewatch(world, friends):
    one, two = world.edges
    x, y = friends
    z = new_id()
    a, b = one.login(x), two.login(y)
    c = two.login(z)
    world.until(lambda: y in one.states(a) and x in two.states(b), what="online")
    # The friendship ends: from the ROUTE on nothing more is told, even while the store is silent.
    world.store.is_answering = False
    world.store.friends = {x: {z}, z: {x}}
    world.store.route([x, y], [0x92, 1], rewatch=True)
    world.until(lambda: one.delivered)
    one.notes.clear()
    two.logout(b)
    world.run(GRACE_S + 4 * TICK_S)
    assert one.notes == []
    world.store.is_answering = True
    # The new friend is told to both, as soon as the list is there.
    world.store.route([z], [0x92, 1], rewatch=True)
    world.until(lambda: one.states(a).get(z, (0,))[0] is True, what="new friend")
    world.until(lambda: two.states(c).get(x, (0,))[0] is True, what="new friend, the other way")
    assert y not in one.states(a)
    assert world.ask(one, LOOKUP, x, [y])[:1] == [NOT_FOUND]


PRIVACY_NOTE = 0x97


def privacy(world, user, hide):
    """What the store does when a user changes it."""
    (world.store.hiding.add if hide else world.store.hiding.discard)(user)
    world.store.route([user], [PRIVACY_NOTE, hide], rewatch=True)


def test_last_seen_is_hidden_at_once_and_shown_again(world, friends):
    one, two = world.edges
    x, y = friends
    a = one.login(x)
    since = now_ms() - 5000
    b = two.login(y, since=since)
    world.redis().set(f"chasqui:seen:{y.hex()}", "123456")
    world.until(lambda: one.states(a).get(y) == (True, since), what="shown")
    privacy(world, y, True)
    world.until(lambda: one.states(a).get(y) == (True, 0), what="hidden")
    assert world.ask(one, LOOKUP, x, [y]) == [0, [[y, True, 0]]]
    world.until(lambda: world.key("seen", y) is None, what="the old time is gone from Redis")
    world.until(lambda: online_value(world, y)[:1] == ["0"], what="no heartbeat in Redis")
    assert online_value(world, y)[1].endswith("/0")
    assert world.ask(two, LOOKUP, y, [x])[1][0][2] > 0, "who hides sees the others' times all the same"
    two.logout(b)
    world.until(lambda: one.states(a).get(y) == (False, 0), what="left")
    world.until(lambda: world.key("online", y) is None, what="left in Redis")
    assert world.key("seen", y) is None
    assert world.ask(one, LOOKUP, x, [y]) == [0, [[y, False, 0]]]
    b = two.login(y, since=since)
    world.until(lambda: one.states(a).get(y) == (True, 0), what="still hidden")
    privacy(world, y, False)
    world.until(lambda: one.states(a).get(y) == (True, since), what="shown again")
    seen = now_ms()
    two.logout(b, seen)
    world.until(lambda: one.states(a).get(y) == (False, seen), what="left")
    world.until(lambda: world.key("seen", y) == str(seen).encode(), what="last seen in Redis")


def test_hidden_before_the_store_has_said_so(world, friends):
    """The setting changed, but the new list takes its time: until it is here nothing is shown, not even to Redis."""
    one, two = world.edges
    x, y = friends
    a = one.login(x)
    since = now_ms() - 5000
    b = two.login(y, since=since)
    world.until(lambda: one.states(a).get(y) == (True, since) and online_value(world, y)[1:2]
                == [f"edge.2/{b}/{two.sessions[b][1].hex()}/{since}"], what="shown")
    world.store.is_answering = False
    asked = len(world.store.asked)
    privacy(world, y, True)
    world.until(lambda: len(world.store.asked) > asked, what="asked for the list")
    assert world.ask(one, LOOKUP, x, [y]) == [0, [[y, True, 0]]]
    c = two.login(y, since=since)  # another session: the key is written anew
    world.until(lambda: len(online_value(world, y)) == 3, what="written")
    assert online_value(world, y)[0] == "0" and all(s.endswith("/0") for s in online_value(world, y)[1:])
    two.logout(b), two.logout(c)
    world.until(lambda: y in one.states(a) and not one.states(a)[y][0], what="left")
    assert one.states(a)[y] == (False, 0)
    assert world.key("seen", y) is None
    world.store.is_answering = True
    world.until(lambda: world.ask(one, LOOKUP, x, [y]) == [0, [[y, False, 0]]], 20, what="hidden for good")
    world.run(0.3)
    assert world.key("seen", y) is None


def test_an_edge_that_never_announces_is_not_waited_for_when_it_dies(world, friends):
    one, two = world.edges
    x, _ = friends
    one.login(x)
    world.kill("presence")
    world.until(lambda: PRESENCE not in world.store.peers, what="DOWN")
    two.is_announcing = False
    world.store.routed.clear()
    world.start_presence()
    world.until(lambda: PRESENCE in world.store.peers and PRESENCE in two.peers, what="UP")
    world.store.begin()
    pos = world.store.route([x], [0x90, 1])
    world.run(0.5)
    assert world.store.routed == [] and one.delivered == []
    world.actors.remove(two)  # hangs: its lease runs out
    world.until(lambda: world.store.is_routed(pos), what="ROUTED")
    assert one.delivered == [([1], [0x90, 1])]
    two.close()


def test_hidden_although_gone_already(world, friends):
    """`chasqui privacy` connects, changes, and is gone: what Redis and friends have must go all the same."""
    one, _ = world.edges
    x, y = friends
    world.redis().set(f"chasqui:seen:{y.hex()}", "123456")
    a = one.login(x)
    world.until(lambda: world.ask(one, LOOKUP, x, [y]) == [0, [[y, False, 123456]]], what="shown")
    privacy(world, y, True)
    world.until(lambda: world.key("seen", y) is None, what="gone from Redis")
    world.until(lambda: one.states(a).get(y) == (False, 0), what="friends told")
    assert world.ask(one, LOOKUP, x, [y]) == [0, [[y, False, 0]]]


def test_hidden_by_the_friends_list(world, friends):
    """Redis still has a time that must not be told: the list says so."""
    one, _ = world.edges
    x, y = friends
    world.store.hiding.add(y)
    world.redis().set(f"chasqui:seen:{y.hex()}", "123456")
    one.login(x)
    assert world.ask(one, LOOKUP, x, [y]) == [0, [[y, False, 0]]]


def test_hidden_across_a_restart_of_presence(world, friends):
    one, two = world.edges
    x, y = friends
    world.store.hiding.add(y)
    a, b = one.login(x), two.login(y)
    world.until(lambda: online_value(world, y)[:1] == ["0"], what="written without times")
    world.kill("presence")
    world.until(lambda: PRESENCE not in one.peers and PRESENCE not in two.peers, what="DOWN")
    two.logout(b)
    one.notes.clear()
    world.start_presence()
    world.until(lambda: one.states(a).get(y) == (False, 0), what="who left meanwhile")
    world.until(lambda: world.key("online", y) is None, what="online key gone")
    assert world.key("seen", y) is None


def test_times_are_not_written_before_the_settings_are_known(world, friends):
    one, _ = world.edges
    _, y = friends
    world.store.is_answering = False
    b = one.login(y)
    world.until(lambda: online_value(world, y)[:1] == ["0"], 12, what="written, without times")
    one.logout(b)
    world.until(lambda: world.key("online", y) is None, what="left")
    assert world.key("seen", y) is None


def test_storm_is_bounded_and_settles(world):
    one, two = world.edges
    watcher, crowd = new_id(), [new_id() for _ in range(1000)]
    world.store.befriend(watcher, *crowd[:500])
    for user in crowd[:500]:
        world.store.friends[user] = {watcher}
    a = one.login(watcher)
    world.until(lambda: watcher in world.store.asked)
    for _ in range(3):
        two.send(PRESENCE, SESSION_UP, [[0, n, u, u, now_ms()] for n, u in enumerate(crowd)])
        two.send(PRESENCE, SESSION_DOWN, [[0, n, now_ms()] for n in range(1000)])
    two.send(PRESENCE, SESSION_UP, [[0, n, u, u, now_ms()] for n, u in enumerate(crowd)])
    world.until(lambda: sum(s[0] for s in one.states(a).values()) == 500, what="everybody told")
    assert sum(len(event[1]) for _, event in one.notes) <= 600


# ---- LOOKUP ----


def test_lookup(world, friends):
    one, two = world.edges
    x, y = friends
    z, stranger = new_id(), new_id()
    world.store.befriend(x, z)
    world.redis().set(f"chasqui:seen:{z.hex()}", "123456")
    one.login(x)
    since = now_ms()
    two.login(y, since=since)
    two.login(stranger)
    assert world.ask(one, LOOKUP, x, [y, z]) == [0, [[y, True, since], [z, False, 123456]]]
    err, states = world.ask(one, LOOKUP, x, [])
    assert err == 0 and sorted(states) == sorted([[y, True, since], [z, False, 123456]])
    # Strangers and those who do not exist are the same answer.
    assert world.ask(one, LOOKUP, x, [stranger])[0] == NOT_FOUND
    assert world.ask(one, LOOKUP, x, [new_id()])[0] == NOT_FOUND
    assert world.ask(one, LOOKUP, x, [y, stranger])[0] == NOT_FOUND
    assert world.ask(one, LOOKUP, y, [z])[0] == NOT_FOUND
    # Somebody without a session is asked about at the store, and not remembered.
    assert world.ask(one, LOOKUP, z, [x])[1][0][:2] == [x, True]
    assert world.ask(one, LOOKUP, stranger, []) == [0, []]


def test_lookup_before_the_word_of_a_new_friend(world, friends):
    """The store accepts and says so to the edge; its word to presence may come later than the next question."""
    one, _ = world.edges
    x, y = friends
    new = new_id()
    one.login(x)
    assert world.ask(one, LOOKUP, x, [y])[0] == 0, "the list is known"
    world.store.befriend(x, new)
    err, states = world.ask(one, LOOKUP, x, [new])
    assert err == 0 and states[0][:2] == [new, False]


def test_lookup_waits_for_the_store(world, friends):
    one, _ = world.edges
    x, y = friends
    world.store.is_answering = False
    one.login(x)
    rids = [one.ask(PRESENCE, LOOKUP, x, [y]) for _ in range(3)]
    one.send(PRESENCE, LOOKUP, [[rids[0], x, [y]]])  # the bus repeats
    world.run(0.5)
    assert not one.replies
    world.store.is_answering = True
    world.until(lambda: all(r in one.replies for r in rids), what="answers")
    assert all(one.replies[r] == [0, [[y, False, 0]]] for r in rids)


def test_lookup_without_the_store(world, friends):
    one, _ = world.edges
    x, y = friends
    world.store.is_answering = False
    one.login(x)
    rid = one.ask(PRESENCE, LOOKUP, x, [y])
    world.until(lambda: rid in one.replies, 12, what="answer")
    assert one.replies[rid][0] == UNAVAILABLE
    world.store.is_answering = True
    world.until(lambda: world.ask(one, LOOKUP, x, [y])[0] == 0, what="the list after all")


# ---- Redis ----


def online_value(world, user):
    value = world.key("online", user)
    return value.decode().split(";") if value else []


def test_layout(world):
    one, two = world.edges
    x, d1, d2 = new_id(), new_id(), new_id()
    since = now_ms()
    a = one.login(x, d1, since)
    b = two.login(x, d2, since)
    world.until(lambda: len(online_value(world, x)) == 3, what="two sessions")
    heartbeat, *sessions = online_value(world, x)
    assert abs(int(heartbeat) - now_ms()) < 10000
    assert sorted(sessions) == sorted([f"edge.1/{a}/{d1.hex()}/{since}", f"edge.2/{b}/{d2.hex()}/{since}"])
    assert 0 < world.redis().ttl(f"chasqui:online:{x.hex()}") <= 30
    two.logout(b)
    world.until(lambda: len(online_value(world, x)) == 2, what="one session")
    # At most one write a minute for heartbeats.
    before = world.metric("redis_commands_total")
    for _ in range(50):
        one.send(PRESENCE, SEEN, [[0, now_ms(), [a]]])
    world.run(0.3)
    assert world.metric("redis_commands_total") - before < 5


def test_redis_killed_and_restarted_empty(world, friends):
    one, two = world.edges
    x, y = friends
    a = one.login(x)
    b = two.login(y)
    world.until(lambda: online_value(world, x) and online_value(world, y), what="written")
    world.kill("redis")
    pos = world.store.route([x], [0x90, 1])
    world.until(lambda: world.store.is_routed(pos), what="messages flow")
    assert one.delivered == [([a], [0x90, 1])]
    world.until(lambda: world.metric("redis_up") == 0, what="noticed")
    assert world.ask(one, LOOKUP, x, [y])[1][0][:2] == [y, True]
    seen = now_ms()
    two.logout(b, seen)
    world.until(lambda: not one.states(a)[y][0], what="left")
    assert world.ask(one, LOOKUP, x, [y]) == [0, [[y, False, 0]]]
    world.start_redis()
    world.until(lambda: online_value(world, x), what="written again")
    world.until(lambda: world.key("seen", y) == str(seen).encode(), what="who left meanwhile")
    assert world.ask(one, LOOKUP, x, [y]) == [0, [[y, False, seen]]]


def test_redis_flushed(world):
    one, _ = world.edges
    users = [new_id() for _ in range(50)]
    for user in users:
        one.login(user)
    world.until(lambda: len(world.redis().keys("chasqui:online:*")) == 50, what="written")
    world.redis().flushall()
    world.until(lambda: len(world.redis().keys("chasqui:online:*")) == 50, what="written again")


def test_redis_stopped(world, friends):
    one, two = world.edges
    x, y = friends
    a = one.login(x)
    two.login(y)
    world.until(lambda: online_value(world, y), what="written")
    world.processes["redis"].send_signal(signal.SIGSTOP)
    try:
        z = new_id()
        two.login(z)
        start = time.monotonic()
        pos = world.store.route([x], [0x90, 1])
        world.until(lambda: world.store.is_routed(pos), what="messages flow")
        assert time.monotonic() - start < 1
        world.until(lambda: world.metric("redis_timeouts_total") >= 1, what="given up")
        # Connects are accepted by the kernel; a stopped Redis is still not up.
        assert world.metric("redis_up") == 0
        two.logout(2)
        world.run(GRACE_S + 0.2)
    finally:
        world.processes["redis"].send_signal(signal.SIGCONT)
    world.until(lambda: world.metric("redis_up") == 1, what="up again")
    world.until(lambda: world.key("seen", z), what="who left meanwhile")
    assert a


def test_lookup_when_redis_hangs_is_answered(world, friends):
    one, _ = world.edges
    x, y = friends
    one.login(x)
    world.until(lambda: x in world.store.asked)
    world.processes["redis"].send_signal(signal.SIGSTOP)
    try:
        rid = one.ask(PRESENCE, LOOKUP, x, [y])
        world.until(lambda: rid in one.replies, what="answer")
        assert one.replies[rid] == [0, [[y, False, 0]]]
    finally:
        world.processes["redis"].send_signal(signal.SIGCONT)


def test_presence_restarted(world, friends):
    one, two = world.edges
    x, y = friends
    gone = new_id()
    world.store.befriend(x, gone)
    a = one.login(x)
    b, c = two.login(y), two.login(gone)
    world.until(lambda: len(one.states(a)) == 2 and online_value(world, gone), what="online")
    heartbeat = online_value(world, gone)[0]
    world.kill("presence")
    world.until(lambda: PRESENCE not in one.peers and PRESENCE not in two.peers, what="DOWN")
    two.logout(c)  # nobody hears that
    one.notes.clear()
    world.start_presence()
    world.until(lambda: world.log("presence").count("PRESENCE-READY") == 2, what="ready")
    world.until(lambda: one.states(a).get(y, (0,))[0] is True, what="friend's state")
    world.until(lambda: one.states(a).get(gone) == (False, int(heartbeat)), what="who left meanwhile")
    world.until(lambda: world.key("seen", gone) == heartbeat.encode(), what="last seen")
    world.until(lambda: world.key("online", gone) is None, what="online key gone")
    assert world.key("online", y) and b
    world.run(GRACE_S + 3 * TICK_S)
    assert one.states(a)[y][0]


# ---- bad input ----


def test_only_the_right_role(world):
    one, _ = world.edges
    bot = world.join(Actor(world.endpoint, "bot.1", "bot"))
    x = new_id()
    one.login(x)
    assert world.ask(bot, LOOKUP, x, [])[0] == DENIED
    assert world.ask(bot, SESSION_UP, 1, x, x, 5)[0] == DENIED
    bot.send(PRESENCE, ROUTE, [[0, 5, None, False, [x], [0x90, 1]]])
    world.run(0.3)
    assert one.delivered == []


def test_garbage_never_kills(world):
    one, _ = world.edges
    x = new_id()
    number = one.login(x)
    values = [None, -1, 0, 2**64 - 1, b"", b"x" * 16, "text", True, [], [[]], [None], {}, 1.5]
    for op in (SESSION_UP, SESSION_DOWN, ANNOUNCED, SEEN, LOOKUP, DELIVERED):
        for v in values:
            for n in range(6):
                one.send(PRESENCE, op, [[0] + [v] * n])
                one.send(PRESENCE, op, [[77] + [v] * n])
    for op in (ROUTE, ROUTE_BEGIN):
        for v in values:
            for n in range(7):
                world.store.send(PRESENCE, op, [[0] + [v] * n])
    world.store.send(PRESENCE, ROUTE, [[0, 5, None, True, [b"short", 7], [1]]])
    world.store.send(PRESENCE, ROUTE, [[0, 2**64 - 1, None, True, [x], None]])
    one.send(PRESENCE, SEEN, [[0, 2**64 - 1, [number, 2**64 - 1, "x"]]])
    one.send(PRESENCE, DELIVERED, [[0, 2**64 - 1]])
    one.send(PRESENCE, SESSION_UP, [[0, 2**64 - 1, new_id(), new_id(), 2**64 - 1]])
    assert world.ask(one, SESSION_UP, 5, None, new_id(), 5)[0] == BAD_ARG
    assert world.ask(one, LOOKUP, x, [b"short"])[0] == BAD_ARG
    world.store.begin()
    pos = world.store.route([x], [0x90, 1])
    world.until(lambda: world.store.is_routed(pos), what="ROUTED")
    assert ([number], [0x90, 1]) in one.delivered


def test_garbage_in_the_lists_of_the_store(world, friends):
    one, _ = world.edges
    x, _ = friends
    world.store.is_answering = False
    one.login(x)
    world.until(lambda: x in world.store.asked)
    taken = world.store.take
    answers = iter([([7], False, []), ([b"short"], False, []), ("text", False, []), ([None], False, []), (None, False, []),
                    ([], False, [b"short"]), ([], 3, []), ([], False, "text"), ([],)])

    def take(src, op, item):
        if op == WATCHLIST:
            world.store.answer(src, item[0], 0, *next(answers, ([], False, [])))
        else:
            taken(src, op, item)

    world.store.take = take
    world.store.route([x], [0x92, 1], rewatch=True)
    world.until(lambda: world.ask(one, LOOKUP, x, []) == [0, []], 20, what="a good answer in the end")


def test_known_session_announced_again_is_told_everything(world, friends):
    """As an edge does when it had to drop a note."""
    one, two = world.edges
    x, y = friends
    number, other = one.login(x), two.login(y)
    world.until(lambda: one.states(number).get(y, (False,))[0], what="online")
    for is_online in (True, False):
        if not is_online:
            two.logout(other)
            world.until(lambda: not one.states(number)[y][0], what="offline")
        one.notes.clear()
        one.send(PRESENCE, SESSION_UP, [[0, number, *one.sessions[number]]])
        world.until(lambda: y in one.states(number), what="told again")
        assert one.states(number)[y][0] == is_online


def test_garbage_in_redis(world, friends):
    one, _ = world.edges
    x, y = friends
    r = world.redis()
    r.set(f"chasqui:seen:{y.hex()}", "not a number")
    r.set("chasqui:online:zz", "1")
    r.set(f"chasqui:online:{new_id().hex()}", b"\xff\x00garbage;;;")
    r.lpush(f"chasqui:online:{new_id().hex()}", "a list")
    r.set("chasqui:presence:incarnation", b"x" * 100000)
    one.login(x)
    assert world.ask(one, LOOKUP, x, [y]) == [0, [[y, False, 0]]]
    world.until(lambda: len(r.get("chasqui:presence:incarnation")) == 16, what="own incarnation")


def test_too_many_sessions_of_one_user(world):
    """What people see of it: test_routing.py."""
    one, _ = world.edges
    x = new_id()
    answers = [world.ask(one, SESSION_UP, n, x, new_id(), 5)[0] for n in range(257)]
    assert answers == [0] * 256 + [BUSY]
