# SPDX-License-Identifier: MPL-2.0
"""Presence and last-seen as people see them (§2, §8), with short heartbeats."""

import time

from chasqui import befriend, presence_row
from system import eventually

SYSTEM = {"edge": ["--heartbeat-interval-ms", "500", "--heartbeat-limit-ms", "2000"], "presence": ["--grace-ms", "1500"]}
LONG = 40  # leases, grace periods: much longer than they should take


def note(d, user, online):
    """Waits for a PRESENCE_NOTE that says so about the user."""

    def matches(fields):
        return any(presence_row(p).user == user and presence_row(p).online == online for p in fields[0])

    fields = d.link.push("PRESENCE_NOTE", matches, LONG)
    return next(presence_row(p) for p in fields[0] if p[0] == user and p[1] == online)


def is_online(d, other):
    return d.presence(other.user)[other.user].online


def test_online_and_last_seen(system, pair):
    x, y = pair
    assert is_online(x, y) and is_online(y, x)
    y.close()
    gone = time.time() * 1000
    p = note(x, y.user, False)
    assert abs(p.last_seen_unix_ms - gone) < 5000
    p = x.presence(y.user)[y.user]
    assert not p.online and abs(p.last_seen_unix_ms - gone) < 5000
    y.resume(system.url(1))
    assert note(x, y.user, True)
    assert is_online(x, y)


def test_all_friends_with_an_empty_list(system, pair):
    x, y = pair
    z = system.person(1)
    befriend(x, z)
    assert set(x.presence()) == {y.user, z.user}
    z.close()


def test_last_seen_of_a_new_friend_who_is_away(system):
    x, y = system.person(1), system.person(2)
    y.friend_op("ADD", x.name)
    y.close()
    left = time.time() * 1000
    x.friend_op("ACCEPT", y.name)
    p = eventually(lambda: (lambda p: not p.online and p)(x.presence(y.user)[y.user]), LONG)
    assert p.last_seen_unix_ms == 0 or abs(p.last_seen_unix_ms - left) < 10_000
    x.close()


def test_a_dead_client_is_noticed_and_its_last_seen_is_kept(system, pair):
    """The socket stays open and nothing comes: only the heartbeats can tell."""
    x, y = pair
    y.connect(system.url(2), heartbeat=False)
    y.welcome(y.link.ask("RESUME", y.token))
    x.link.drop_pushes()
    assert is_online(x, y)
    silent_since = time.time() * 1000
    p = note(x, y.user, False)
    assert y.link.closed(LONG) is not None or y.link.is_closed
    assert abs(p.last_seen_unix_ms - silent_since) < 5000, "the time it was last heard, not the time it was given up"
    assert x.presence(y.user)[y.user].last_seen_unix_ms == p.last_seen_unix_ms


def test_a_live_client_is_kept_by_answering_pings(system, pair):
    x, y = pair
    y.link.wait(lambda: y.link.pings >= 6, LONG, "pings of the edge")
    assert not y.link.is_closed and is_online(x, y)


def test_a_client_that_pings_itself_is_kept(system, pair):
    x, y = pair
    y.connect(system.url(2), heartbeat=False)
    y.welcome(y.link.ask("RESUME", y.token))
    for _ in range(10):
        y.ask("PING")
        time.sleep(0.4)  # the heartbeat's own interval
    assert not y.link.is_closed and is_online(x, y)


def test_before_login_a_connection_is_closed_after_a_while(system):
    from chasqui import Link

    link = Link(system.url(1))
    link.closed(30)


def test_two_devices_online_until_the_last_is_gone(system, pair):
    x, y = pair
    y2 = system.another_device(y, 1)
    x.link.drop_pushes()
    y.close()
    # y2 is heard of; the proof that y's end told nobody is that the note comes only after y2's.
    assert is_online(x, y)
    y2.close()
    note(x, y.user, False)


def test_a_quick_reconnect_does_not_flap(system, pair):
    x, y = pair
    x.link.drop_pushes()
    for n in (1, 2, 1):
        y.link.ws.sock.close()  # no goodbye
        y.resume(system.url(n))
    y.send(x, "here")
    x.receive(y)
    assert not x.link.has_push("PRESENCE_NOTE", lambda f: any(p[0] == y.user and not p[1] for p in f[0]))
    assert is_online(x, y)


def test_an_edge_that_dies_takes_its_sessions_offline(system, pair):
    x, y = pair
    system.edge(2).kill()
    note(x, y.user, False)
    system.heal()
    y.resume(system.url(2))
    note(x, y.user, True)


def test_redis_flushed_heals(system, pair):
    x, y = pair
    system.redis_client().flushall()
    x.send(y, "redis is empty")
    assert y.receive(x)[1] == "redis is empty"
    eventually(lambda: is_online(x, y) and is_online(y, x), LONG)


def test_redis_killed_heals(system, pair):
    x, y = pair
    system.redis.kill()
    x.send(y, "redis is gone")
    assert y.receive(x)[1] == "redis is gone"
    y.send(x, "still")
    assert x.receive(y)[1] == "still"
    system.redis.start()
    eventually(lambda: is_online(x, y) and is_online(y, x), LONG)
    y.close()
    note(x, y.user, False)


def test_presence_killed_heals(system, pair):
    x, y = pair
    system.presence.restart()

    def healed():
        try:
            return is_online(x, y) and is_online(y, x)
        except Exception as e:
            if getattr(e, "name", "") in ("UNAVAILABLE", "DEADLINE", "BUSY", "UNROUTABLE"):
                return False
            raise

    eventually(healed, LONG)
    y.close()
    note(x, y.user, False)


def test_remove_and_block_hide_presence(system, pair):
    x, y = pair
    x.friend_op("BLOCK", y.name)
    x.link.drop_pushes(), y.link.drop_pushes()
    x.resume(system.url(2))
    y.resume(system.url(1))
    x.ask("FRIENDS"), y.ask("FRIENDS")
    assert x.presence() == {} and y.presence() == {}
    assert not y.link.has_push("PRESENCE_NOTE") and not x.link.has_push("PRESENCE_NOTE")
    x.friend_op("UNBLOCK", y.name)
    eventually(lambda: set(y.presence()) == {x.user}, LONG)


def test_last_seen_survives_a_restart_of_redis_and_presence(system, pair):
    x, y = pair
    y.close()
    seen = note(x, y.user, False).last_seen_unix_ms
    time.sleep(1.2)  # the append-only file is synced every second
    system.redis.kill()
    system.presence.kill()
    system.heal()
    # until presence has read Redis again it says "unknown", never something else
    known = eventually(lambda: x.patiently(lambda: x.presence(y.user)[y.user].last_seen_unix_ms), LONG)
    assert known == seen and not is_online(x, y)
