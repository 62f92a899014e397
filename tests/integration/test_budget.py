# SPDX-License-Identifier: MPL-2.0
"""What presence costs Redis with real services: at most one command for each user online and minute, plus some each second.

A "minute" is half the life of a key if that is shorter, so that the test need not take long; heartbeats come much faster."""
import time

import pytest
from ctl import Ctl
from system import eventually

EDGES, USERS, MINUTE_S, MINUTES = 2, 10, 2.5, 2
SYSTEM = {
    "edges": EDGES,
    "edge": ["--heartbeat-interval-ms", "400", "--seen-interval-ms", "200"],
    "presence": ["--online-ttl-s", str(int(2 * MINUTE_S))],
}
OURS = ("set", "get", "del", "mget", "scan", "ping", "auth")


@pytest.fixture(scope="module")
def people(system):
    devices = [system.person(1 + i % EDGES) for i in range(USERS)]
    yield devices
    for d in devices:
        d.close()


def calls(redis):
    stats = redis.info("commandstats")
    return {c: stats[f"cmdstat_{c}"]["calls"] for c in OURS if f"cmdstat_{c}" in stats}


def metric(system, name):
    return Ctl(system).metric("presence.1", f"chasqui_presence_{name}")


def test_one_command_for_each_user_and_minute(system, people):
    redis = system.redis_client()
    keys = [f"chasqui:online:{d.user.hex()}" for d in people]
    eventually(lambda: redis.exists(*keys) == USERS, what="all written")
    pings = [d.link.pings for d in people]
    values = redis.mget(keys)
    before, start = calls(redis), time.monotonic()
    while time.monotonic() - start < MINUTE_S * MINUTES:
        time.sleep(0.1)
        assert redis.exists(*keys) == USERS, "nobody's key has run out"
    after, seconds = calls(redis), time.monotonic() - start
    spent = {c: after[c] - before.get(c, 0) for c in after}
    # Each was heard of far more often than he was written.
    assert min(d.link.pings - p for d, p in zip(people, pings)) >= 3 * MINUTES
    assert all(a != b for a, b in zip(values, redis.mget(keys))), "HEARTBEAT goes on"
    assert sum(spent.values()) <= USERS * (seconds / MINUTE_S + 1) + EDGES * seconds, spent
    assert metric(system, "redis_errors_total") == 0


def test_messages_cost_nothing(system, people):
    from chasqui import befriend

    redis, (x, y) = system.redis_client(), people[:2]
    befriend(x, y)
    before, start = calls(redis), time.monotonic()
    for i in range(200):
        x.send(y, f"m{i}")
    y.ack(x, 200, 200)
    x.receipt(y, y.user, 200)
    seconds = time.monotonic() - start
    spent = sum(calls(redis).values()) - sum(before.values())
    assert spent <= USERS * (seconds / MINUTE_S + 1) + EDGES * seconds + EDGES, spent


def test_coming_and_leaving_cost_a_few_each(system, people):
    redis = system.redis_client()
    before, start = calls(redis), time.monotonic()
    for d in people:
        d.close()
    for i, d in enumerate(people):
        d.resume(system.url(1 + i % EDGES))
    eventually(lambda: metric(system, "sessions") == USERS, what="all back")
    time.sleep(0.3)
    seconds = time.monotonic() - start
    spent = sum(calls(redis).values()) - sum(before.values())
    # The end and the beginning are written, and who asks for friends' last-seen times asks once.
    assert spent <= USERS * (4 + seconds / MINUTE_S) + EDGES * seconds + EDGES, spent
