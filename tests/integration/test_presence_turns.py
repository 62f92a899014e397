# SPDX-License-Identifier: MPL-2.0
"""Whatever happens to many at once (an edge dies, comes back, everybody is written again) is done in pieces: messages of the
others go on in between, and in the end all is as if it had been one."""
import os
import pathlib
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from presence_world import ANNOUNCED, LOOKUP, PRESENCE, SESSION_UP, Edge, new_id, now_ms, running  # noqa: E402

MANY = int(os.environ.get("CHASQUI_MANY", 10000))
STEP = 1000
STEPS = 3  # in which many are seen to leave, messages of others in between


@pytest.fixture
def world(tmp_path):
    with running(tmp_path, ["--grace-ms", 2000], lease_ms=10000) as w:
        yield w


class BigEdge(Edge):
    """One with many sessions, that announces them as a real one does: in envelopes of a thousand."""

    def announce(self):
        ups = [[0, n, user, device, since] for n, (user, device, since) in self.sessions.items()]
        for i in range(0, len(ups), STEP):
            self.send(PRESENCE, SESSION_UP, ups[i:i + STEP])
        self.send(PRESENCE, ANNOUNCED, [[0, self.peers[PRESENCE][1], len(ups)]])


def fill(world, name, users):
    edge = BigEdge(world, name)
    edge.sessions = {n: (user, new_id(), now_ms()) for n, user in enumerate(users, 1)}
    world.join(edge)
    world.until(lambda: PRESENCE in edge.peers, what="UP")
    edge.announce()
    return edge


def messages_until(world, until, seconds=60):
    """Sends messages to x, the next one when the last has arrived, until something is true."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        pos = world.store.route([world.x], [0x90, world.store.pos])
        world.until(lambda: world.store.is_routed(pos) or any(e[1] == pos - 1 for _, e in world.edges[0].delivered[-1:]))


def test_an_edge_with_many_dies_and_comes_back(world):
    one, two = world.edges
    users = [new_id() for _ in range(MANY)]
    world.x = new_id()
    a = one.login(world.x)
    friend, elsewhere = users[0], users[1]
    world.store.befriend(world.x, friend)
    world.store.befriend(world.x, elsewhere)
    world.store.route([world.x], [0x92, 1], rewatch=True)
    big = fill(world, "edge.9", users)
    messages_until(world, lambda: world.metric("sessions") == MANY + 1)
    two.login(elsewhere)
    world.until(lambda: {friend, elsewhere} <= set(one.states(a)), what="friends online")
    # Dies, and is back within the grace period under the same name with the same numbers: nobody flaps.
    one.notes.clear()
    world.actors.remove(big)
    big.leave()
    big = fill(world, "edge.9", users)
    messages_until(world, lambda: world.metric("sessions_dead") == 0 and world.metric("sessions") == MANY + 2)
    world.run(2.3)  # longer than the grace period
    assert not any(online is False for sessions, event in one.notes for _, online, _ in event[1])
    # Messages reach its sessions by their new numbers, once.
    pos = world.store.route([friend], [0x90, "back"])
    world.until(lambda: world.store.is_routed(pos), what="ROUTED")
    assert [e for e in big.delivered if e[1][1] == "back"] == [([1], [0x90, "back"])]
    # Dies for good: at once nothing is sent there any more; who has a session elsewhere stays.
    world.actors.remove(big)
    big.leave()
    pos = world.store.route([friend, elsewhere], [0x90, "gone"])
    world.until(lambda: world.store.is_routed(pos), what="ROUTED")
    # 64 leave in a turn, with a pause behind it: more than half a second from the first to the last. Their number is counted ten
    # times a second.
    steps = set()
    messages_until(world, lambda: steps.add(world.metric("visible_users")) or 2 in steps)
    assert len(steps - {MANY + 2, 2}) >= STEPS
    world.until(lambda: one.states(a).get(friend, (True,))[0] is False, what="friend has left")
    assert one.states(a).get(elsewhere, (True,))[0] is True
    assert world.metric("sessions") == 2 and world.metric("users") == 2
    value = world.key("online", elsewhere).decode().split(";")
    assert len(value) == 2 and value[1].startswith("edge.2/")


def test_all_are_written_again_in_pieces(world):
    one, _ = world.edges
    users = [new_id() for _ in range(MANY)]
    world.x = new_id()
    one.login(world.x)
    fill(world, "edge.9", users)
    r = world.redis()
    messages_until(world, lambda: r.dbsize() >= MANY + 2)
    rewrites = world.metric("redis_rewrites_total")
    r.flushall()
    messages_until(world, lambda: world.metric("redis_rewrites_total") > rewrites and r.dbsize() >= MANY + 2)


def test_many_questions_wait_for_presence_to_be_ready(world):
    one, two = world.edges
    x, y = new_id(), new_id()
    world.store.befriend(x, y)
    two.is_announcing = False
    one.login(x)
    world.kill("presence")
    world.until(lambda: PRESENCE not in one.peers, what="DOWN")
    world.start_presence()
    world.until(lambda: PRESENCE in one.peers and PRESENCE in two.peers, what="UP")
    rids = [one.ask(PRESENCE, LOOKUP, x, [y]) for _ in range(1000)]
    two.announce()
    world.until(lambda: all(r in one.replies for r in rids), what="answers")
    assert all(one.replies[r] == [0, [[y, False, 0]]] for r in rids)
