# SPDX-License-Identifier: MPL-2.0
"""An edge over time: heartbeats, crowds, what all of them may have together, closing down."""

import os
import signal
import subprocess
import sys
import time

import msgpack
import pytest
from edge_stand import *  # noqa: F403


def test_heartbeats(world):
    e = world.edge(heartbeat_interval_ms=300, heartbeat_limit_ms=1000)
    alive, dead = person(e.port, "alive"), person(e.port, "dead")
    end = time.monotonic() + 2.5
    pings = 0
    alive.s.settimeout(0.2)
    while time.monotonic() < end:
        try:
            opcode, data = alive.read_frame()
            pings += opcode == WS_PING
            alive.send_raw(alive.frame(data, WS_PONG))
        except TimeoutError:
            pass
    assert pings >= 5
    alive.s.settimeout(WAIT)
    assert alive.ask(PING)[0] == 0
    downs = until(lambda: [d for d in world.stand.downs if world.stand.ups[d[0]][1] == dead.device], "SESSION_DOWN")
    assert -3500 < downs[0][1] - time.time() * 1000 < -1000, "last seen is when it was last heard"
    alive.close()
    dead.close()


def test_seen(world):
    """Presence hears who was heard from, in batches, and nothing of who was not."""
    e = world.edge(seen_interval_ms=300, heartbeat_interval_ms=5000, heartbeat_limit_ms=10000)
    talks, silent = person(e.port, "talks"), person(e.port, "silent")
    number = [k for k, v in world.stand.ups.items() if v[1] == talks.device][0]
    for _ in range(20):
        assert talks.ask(PING)[0] == 0
        time.sleep(0.05)
    until(lambda: len([s for s in world.stand.seens if number in s[1]]) >= 2, "SEEN")
    quiet = [k for k, v in world.stand.ups.items() if v[1] == silent.device][0]
    assert not [s for s in world.stand.seens if quiet in s[1]]
    assert len(world.stand.seens) <= 5
    talks.close()
    silent.close()


def in_halves(c, *ops):
    """Sends them so that the edge has to keep the first half of the message."""
    data = msgpack.packb(list(ops))
    c.send_raw(c.frame(data[:len(data) // 2], fin=False))
    c.send_raw(c.frame(b"", WS_PING))
    while c.read_frame()[0] != WS_PONG:
        pass
    c.send_raw(c.frame(data[len(data) // 2:], opcode=0))


def test_half_messages_of_guests_are_bounded_and_only_theirs(world):
    """While guests keep their pool full, those who are logged in send as ever, and a login is short enough."""
    e = world.edge(guest_input_max_bytes=1048576, input_total_max_bytes=1048576, auth_timeout_ms=60000)
    known = person(e.port)
    halves = [Raw(e.port) for _ in range(40)]
    for c in halves:
        c.send_raw(c.frame(b"\x91" + b"\xc0" * 60000, fin=False))
    assert {c.closed() for c in halves[-5:]} == {1008}
    until(lambda: metric(world, "chasqui_edge_guest_input_bytes") >= 900000, "the guests' pool is full")
    assert metric(world, "chasqui_edge_input_bytes") == 0
    half = Raw(e.port, shake=False)
    half.send_raw(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 3000)
    assert b" 503 " in half.read_until(b"\r\n\r\n")
    in_halves(known, [SEND, 7, b"c" * 16, 1, 0, 1, b"n" * 24, b"x" * 16000, None])
    assert known.answer(7)[:2] == [OK, 7]
    late = Raw(e.port)
    in_halves(late, [LOGIN, 1, "bob", "password", b"d" * 16, b"k" * 32, "test"], [FRIENDS, 2])
    assert late.answer(1)[0] == OK and late.answer(2)[0] == OK
    in_halves(late, [SEND, 8, b"c" * 16, 1, 0, 1, b"n" * 24, b"x" * 16000, None])
    assert late.answer(8)[0] == OK
    for c in [known, late, half, *halves]:
        c.close()
    until(lambda: metric(world, "chasqui_edge_guest_input_bytes") == 0, "the pool is empty")
    assert metric(world, "chasqui_edge_input_bytes") == 0


def test_half_messages_of_users_are_bounded(world):
    e = world.edge(input_total_max_bytes=1048576)
    halves = [person(e.port, f"p{i}") for i in range(40)]
    for c in halves:
        c.send_raw(c.frame(b"\x91" + b"\xc0" * 60000, fin=False))
    assert {c.closed() for c in halves[-5:]} == {1008}
    other = person(e.port, "bob")
    in_halves(other, [SEND, 7, b"c" * 16, 1, 0, 1, b"n" * 24, b"x" * 1000, None])
    assert other.answer(7)[0] == OK, "a short one always has room"
    for c in [other, *halves]:
        c.close()


def test_memory_of_all_together_is_bounded(world):
    """Many that do not read: the sum has a bound, others go on."""
    e = world.edge(queue_total_max_bytes=1048576, limit_query_per_s=0)
    world.stand.on_call = lambda *a: [0, 5, False, [b"y" * 200000]]
    deaf = [person(e.port, f"p{i}", rcvbuf=4096) for i in range(12)]
    for c in deaf:
        c.send(*[[HISTORY, i, b"c" * 16, 1, 2] for i in range(1, 51)])
    other = person(e.port, "bob")
    assert other.ask(PING)[0] == 0
    until(lambda: len(world.stand.calls) >= 12, "calls")
    time.sleep(0.5)
    assert len(world.stand.calls) < 12 * 50 / 2
    for c in deaf:
        for i in range(1, 51):
            assert c.answer(i)[0] == OK
        c.close()
    assert other.ask(PING)[0] == 0
    other.close()


def test_paused_sessions_are_not_judged(world):
    e = world.edge(heartbeat_interval_ms=200, heartbeat_limit_ms=600, session_requests_max=1)
    world.stand.on_call = lambda *a: None
    c = person(e.port)
    c.send([FRIENDS, 1], [FRIENDS, 2])
    time.sleep(1.5)
    world.stand.on_call = lambda *a: [0]
    assert c.answer(1)[0] == OK and c.answer(2)[0] == OK
    c.close()


def test_drain(world):
    e = world.edge(peers="ws://10.0.0.2:8081/ws, ws://10.0.0.3/ws")
    people = [person(e.port, f"p{i}") for i in range(5)]
    start = time.monotonic()
    e.send_signal(signal.SIGTERM)
    for c in people:
        assert c.push(GOAWAY)[1:3] == [["ws://10.0.0.2:8081/ws", "ws://10.0.0.3/ws"], 0]
        assert c.closed() == 1001
    assert e.wait(WAIT) == 0
    assert time.monotonic() - start < 3
    until(lambda: len(world.stand.downs) == 5, "SESSION_DOWN")
    for c in people:
        c.close()


def test_drain_tells_the_lagging_too(world):
    """Whose queue is full of pushes misses some of these, but not where to go."""
    e = world.edge(session_queue_max_bytes=65536, peers="ws://10.0.0.2:8081/ws")
    c = person(e.port, rcvbuf=4096)
    number = until(lambda: list(world.stand.ups), "SESSION_UP")[-1]
    for i in range(1, 601):
        world.stand.deliver(i, [number], EVENT[:9] + [b"x" * 16000])
    until(lambda: "EDGE-SESSION-LAGGING" in e.log.read_text(), "the log line")
    e.send_signal(signal.SIGTERM)
    until(lambda: "EDGE-DRAIN-LEAVING" in e.log.read_text(), "the drain")
    time.sleep(0.1)
    assert c.push(GOAWAY)[1] == ["ws://10.0.0.2:8081/ws"]
    assert c.closed() == 1001
    assert e.wait(WAIT) == 0
    c.close()


def test_drain_answers_what_is_begun_and_begins_nothing(world):
    e = world.edge()
    asking, idle = person(e.port), person(e.port, "idle")
    world.stand.on_call = lambda *a: None  # not yet
    asking.send([FRIENDS, 7])
    until(lambda: world.stand.unanswered, "the call")
    e.send_signal(signal.SIGTERM)
    assert idle.closed() == 1001
    asking.send([FRIENDS, 8])
    with pytest.raises(OSError):
        until(lambda: not http(e.port, "/healthz")[0], "nobody new is served")
        raise ConnectionError
    assert len(world.stand.calls) == 1
    world.stand.answer_late(0, [])
    assert asking.answer(7)[0] == OK
    assert asking.push(GOAWAY)[0] == GOAWAY and asking.closed() == 1001
    assert not any(op[:2] == [OK, 8] or op[:2] == [ERR, 8] for op in asking.ops)
    assert len(world.stand.calls) == 1, "what came after the drain began is left to another edge"
    assert e.wait(WAIT) == 0


def test_drain_ends_at_the_limit_without_the_answer(world):
    e = world.edge(drain_limit_ms=300)
    c = person(e.port)
    world.stand.on_call = lambda *a: None
    c.send([FRIENDS, 7])
    until(lambda: world.stand.unanswered, "the call")
    e.send_signal(signal.SIGTERM)
    assert c.push(GOAWAY)[0] == GOAWAY and c.closed() == 1001
    assert e.wait(WAIT) == 0


def test_drain_notice_serves_everybody(world):
    e = world.edge(drain_notice_ms=60000)
    old = person(e.port)
    e.send_signal(signal.SIGTERM)
    until(lambda: http(e.port, "/readyz")[0] == 503, "not ready")
    assert b"closing" in http(e.port, "/readyz")[1] and http(e.port, "/healthz")[0] == 200
    late = person(e.port, "late")
    assert old.ask(FRIENDS)[0] == 0 and late.ask(FRIENDS)[0] == 0
    e.send_signal(signal.SIGTERM)  # asked twice: at once
    assert e.wait(WAIT) == 0


def test_drain_does_not_wait_for_the_deaf(world):
    e = world.edge()
    c = person(e.port)
    start = time.monotonic()
    e.send_signal(signal.SIGTERM)
    assert e.wait(WAIT) == 0
    assert time.monotonic() - start < 2.5
    c.close()


def metric(world, name):
    text = []
    world.stand.do(lambda: text.append(world.stand.store.request("edge.1", 0x0B)))
    line = next(x for x in text[0][1].splitlines() if x.startswith(name + "{"))
    return float(line.rsplit(" ", 1)[1])


def test_a_crowd_of_newcomers_is_put_off_and_nobody_is_forgotten(world):
    """What they want is there all at once; a turn serves some of them, and whoever is logged in always."""
    e = world.edge(limit_login_per_s=0, limit_login_name_per_s=0, newcomer_share_percent=1)
    known = person(e.port)
    crowd = [Raw(e.port, shake=False) for _ in range(200)]
    request = (f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{e.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
               "Sec-WebSocket-Protocol: chasqui.v1\r\n\r\n").encode()
    until(lambda: metric(world, "chasqui_edge_sessions") == 1)
    e.send_signal(signal.SIGSTOP)
    for c in crowd:
        c.send_raw(request)
    known.send([PING, 77])
    e.send_signal(signal.SIGCONT)
    assert known.answer(77)[0] == OK
    for c in crowd:
        assert b"101" in c.read_until(b"\r\n\r\n")
        assert c.ask(PING)[0] in (0, NOT_AUTHENTICATED)
    assert metric(world, "chasqui_edge_put_off_total") > 0
    for c in [known, *crowd]:
        c.close()


def test_newcomers_give_way_while_the_processors_are_full(world):
    """Who is ready to run and waits for a processor gives them less."""
    e = world.edge(limit_login_per_s=0, limit_login_name_per_s=0)
    assert metric(world, "chasqui_edge_newcomer_share") == 20
    spinners = [subprocess.Popen([sys.executable, "-c", f"import time\nend = time.monotonic() + {WAIT}\nwhile time.monotonic() < end: pass"])
                for _ in range(4 * os.cpu_count())]
    try:
        def is_lowered():
            for c in [Raw(e.port) for _ in range(10)]:
                c.close()
            return metric(world, "chasqui_edge_newcomer_share") <= 10
        until(is_lowered)
    finally:
        for s in spinners:
            s.kill()
            s.wait()
