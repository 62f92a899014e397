# SPDX-License-Identifier: MPL-2.0
"""The edge, byte by byte: what a client may send and what happens to one that sends something else."""

import hashlib
import secrets
import socket
import struct
import time

import msgpack
import pytest
from edge_stand import *  # noqa: F403


@pytest.fixture(scope="module")
def shared():
    """One edge for the tests that only look at one connection."""
    w = World()
    w.e = w.edge(auth_timeout_ms=2000, handshake_timeout_ms=2000, limit_login_per_s=0, limit_login_name_per_s=0)
    w.port = w.e.port
    yield w
    w.end()


@pytest.fixture
def raw(shared):
    c = Raw(shared.port)
    assert c.status == 101 and "chasqui.v1" in c.head
    yield c
    c.close()
    assert http(shared.port, "/healthz") == (200, b"ok\n")


# ---- the handshake ----


@pytest.mark.parametrize("path, protocol, headers, status", [
    ("/ws", None, (), 400), ("/ws", "chasqui.v2", (), 400), ("/ws", "mqtt, foo", (), 400), ("/", "chasqui.v1", (), 404),
    ("/ws/", "chasqui.v1", (), 404), ("/ws", "chasqui.v1", ("Origin: https://evil.example",), 403),
    ("/ws", "chasqui.v1", ("Origin: null",), 403), ("/ws", "foo, chasqui.v1", (), 101), ("/ws?x=1", "chasqui.v1", (), 101),
    ("/ws", "chasqui.v1", ("Sec-WebSocket-Extensions: permessage-deflate",), 101),
])  # fmt: skip
def test_handshake(shared, path, protocol, headers, status):
    c = Raw(shared.port, path, protocol, headers)
    assert c.status == status, c.head
    assert "permessage-deflate" not in c.head
    if status == 101:
        assert "chasqui.v1" in c.head
        assert c.ask(PING)[0] == 0
    c.close()


def test_no_http2_by_upgrade(shared):
    with socket.create_connection(("127.0.0.1", shared.port), timeout=WAIT) as s:
        s.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
                  b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n")
        assert b" 101 " not in s.recv(4096)


def test_metrics_over_the_bus(shared):
    person(shared.port).close()
    text = []
    shared.stand.do(lambda: text.append(shared.stand.store.request("edge.1", 0x0B)))
    assert text[0][0] == 0
    for name in ("chasqui_edge_sessions_ready", 'chasqui_edge_requests_total{actor="edge.1",op="LOGIN"}', "chasqui_edge_frames_out_total"):
        line = [x for x in text[0][1].splitlines() if x.startswith(name if "{" in name else name + "{")]
        assert line and 'actor="edge.1"' in line[0]


def test_same_origin(shared):
    c = Raw(shared.port, headers=(f"Origin: http://127.0.0.1:{shared.port}",))
    assert c.status == 101
    c.close()


def test_listed_origins(world):
    e = world.edge(origins="https://chat.example, http://localhost:3000")
    for origin, status in (("https://chat.example", 101), ("http://localhost:3000", 101), (f"http://127.0.0.1:{e.port}", 403)):
        c = Raw(e.port, headers=(f"Origin: {origin}",))
        assert c.status == status
        c.close()


def test_handshake_that_never_ends(shared):
    c = Raw(shared.port, shake=False)
    c.send_raw(b"GET /ws HTTP/1.1\r\nHost: x\r\n")
    start = time.monotonic()
    assert c.read_until(b"\0") == b""
    assert time.monotonic() - start < 8
    c.close()


def test_no_login_in_time(shared):
    c = Raw(shared.port)
    start = time.monotonic()
    assert c.closed() == 4002
    assert 1.5 < time.monotonic() - start < 6
    c.close()


@pytest.mark.parametrize("path, method, status, body", [
    ("/healthz", "GET", 200, b"ok"), ("/readyz", "GET", 200, b'{"ready":true}'), ("/", "GET", 200, b"chasqui.v1"),
    ("/no", "GET", 404, b""), ("/ws", "GET", 426, b"upgrade"), ("/healthz/", "GET", 404, b""), ("/", "POST", 405, b""),
    ("/" + "a" * 3000, "GET", 404, b""),
])  # fmt: skip
def test_http(shared, path, method, status, body):
    got, text = http(shared.port, path, method)
    assert got == status and body in text


# ---- frames ----


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", b"\x01", b"\xc0", b"\x91", b"\x91\x01", b"\x91\x90", b"\x91\xa1x",
                                  b"\xdd\xff\xff\xff\xff", b"\x91\x93\x05\x01\xc6\x7f\xff\xff\xff", b"\x91" * 200,
                                  b"\x91\x91\xa1x", b"\x91\x92\x05\xa1x", msgpack.packb([[5, 1]]) + b"\0"])  # fmt: skip
def test_no_frame_closes_with_1002(raw, data):
    raw.send_raw(raw.frame(data))
    assert raw.closed() == 1002


def test_what_came_before_a_broken_operation_is_answered(raw):
    raw.send_raw(raw.frame(b"\x92" + msgpack.packb([PING, 9]) + b"\xc1"))
    assert raw.answer(9)[0] == OK
    assert raw.closed() == 1002


def test_text_closes_with_1003(raw):
    raw.send_raw(raw.frame(b"hello", TEXT))
    assert raw.closed() == 1003


def test_too_many_operations_close_with_1002(raw):
    raw.send(*[[PING, 0]] * 1025)
    assert raw.closed() == 1002


def test_1024_operations_are_fine(raw):
    raw.send(*[[PING, i + 1] for i in range(1024)])
    assert {raw.answer(i + 1)[0] for i in range(1024)} == {OK}


def test_largest_message_and_one_more_byte(shared):
    c = Raw(shared.port)
    size = 65536 - len(msgpack.packb([[PING, 7, b"x" * 65000]])) + 65000
    data = msgpack.packb([[PING, 7, b"x" * size]])
    assert len(data) == 65536
    c.send_raw(c.frame(data))
    assert c.answer(7)[0] == OK
    c.send_raw(c.frame(msgpack.packb([[PING, 8, b"x" * (size + 1)]])))
    assert c.closed() == 1009
    c.close()


def test_too_large_is_refused_before_it_is_there(raw):
    raw.send_raw(bytes([0x82, 0xFF]) + struct.pack(">Q", 2**40) + b"\0\0\0\0" + b"\x91")
    assert raw.closed() == 1009


def test_fragments_together_too_large(raw):
    raw.send_raw(raw.frame(b"\x91" + b"\xc0" * 40000, fin=False))
    raw.send_raw(raw.frame(b"\xc0" * 40000, 0, fin=False))
    assert raw.closed() == 1009


def test_fragments_with_a_ping_between(raw):
    data = msgpack.packb([[PING, 5]])
    raw.send_raw(raw.frame(data[:2], fin=False))
    raw.send_raw(raw.frame(b"hi", WS_PING))
    raw.send_raw(raw.frame(data[2:], 0))
    assert raw.answer(5)[0] == OK


def test_byte_by_byte(raw):
    for byte in raw.frame(msgpack.packb([[PING, 5]])):
        raw.send_raw(bytes([byte]))
    assert raw.answer(5)[0] == OK


def test_unmasked_frames_close_with_1002(raw):
    raw.send_raw(raw.frame(msgpack.packb([[PING, 5]]), mask=False))
    assert raw.closed() == 1002
    assert raw.ops == []


def test_client_closes(raw):
    raw.send_raw(raw.frame(struct.pack(">H", 1000), CLOSE))
    assert raw.closed() == 1000


@pytest.mark.parametrize("frame", [dict(rsv=0x40), dict(opcode=3), dict(opcode=11), dict(opcode=0)],
                         ids=["rsv1", "opcode3", "opcode11", "continuation of nothing"])  # fmt: skip
def test_broken_websocket_frames_end_the_connection(raw, frame):
    raw.send_raw(raw.frame(msgpack.packb([[PING, 5]]), **frame))
    assert raw.closed() == 1002
    assert raw.ops == []


def test_unknown_operations(raw):
    for code in (0, 0x7F, 0x80, 0x81, 0x90, 0x96, 0xFF, 0x100, 2**40):
        raw.send([code, 1234])
        assert raw.answer(1234)[:3] == [ERR, 1234, UNKNOWN_OP]
    raw.send([0x7F, 0], [0x90], [0x7F], [PING, 0], [PING, 3])
    assert raw.answer(3) == [OK, 3]
    assert raw.ops == []


def test_guests_may_only_log_in(raw):
    for code, fields in ((SYNC, (None, 0)), (FRIENDS, ()), (ADD, ("bob",)), (PRESENCE, ([],)), (LOGOUT, ())):
        assert raw.ask(code, *fields)[0] == NOT_AUTHENTICATED
    assert raw.ask(SYNC)[0] == BAD_ARG


# ---- logging in ----


def test_login_answers_welcome(shared):
    c = person(shared.port)
    user, name, device, token, expires, epoch, key, now, interval, limit, window, edge = c.welcome
    assert (name, device, epoch, key, interval, limit, window, edge) == (
        "ana", c.device, shared.stand.epoch, shared.stand.public, 25000, 60000, 16, "edge.1")
    assert abs(now - time.time() * 1000) < 5000 and expires > now
    up = [v for v in shared.stand.ups.values() if v[1] == device]
    assert up and up[0][0] == user
    assert c.ask(LOGIN, "ana", "password", c.device, b"k" * 32, "")[0] == ALREADY_AUTHENTICATED
    d = Raw(shared.port)
    err, again = d.ask(RESUME, token)
    assert err == 0 and again[:6] == c.welcome[:6]
    c.close()
    d.close()
    until(lambda: len([x for x in shared.stand.downs if shared.stand.ups[x[0]][1] == device]) == 2, "SESSION_DOWN")


def test_requests_behind_the_login_wait_for_it(shared):
    c = Raw(shared.port)
    token = shared.stand.token(b"u" * 16, b"d" * 16, "bob")
    c.send([RESUME, 1, token], [FRIENDS, 2], [PING, 3])
    c.send([FRIENDS, 4])
    c.answer(4)
    assert [op[:2] for op in c.ops] == [[OK, 1], [OK, 3], [OK, 2]] or [op[:2] for op in c.ops] == [[OK, 1], [OK, 2], [OK, 3]]
    c.close()


def test_wrong_password(shared):
    shared.stand.on_auth = lambda op, fields: [BAD_CREDENTIALS, 0]
    c = Raw(shared.port)
    try:
        assert c.ask(LOGIN, "ana", "wrong", b"d" * 16, b"k" * 32, "")[0] == BAD_CREDENTIALS
    finally:
        shared.stand.on_auth = None
    assert c.ask(FRIENDS)[0] == NOT_AUTHENTICATED
    assert c.ask(LOGIN, "ana", "right", b"d" * 16, b"k" * 32, "")[0] == 0
    c.close()


def test_bad_tokens(shared):
    c = Raw(shared.port)
    good = shared.stand.token(b"u" * 16, b"d" * 16, "bob")
    late = shared.stand.token(b"u" * 16, b"d" * 16, "bob", expires=1000)
    for token in (b"x", good[:-1], good[:-1] + bytes([good[-1] ^ 1]), b"\x96" + good[1:-1] + b"x", late, secrets.token_bytes(300)):
        assert c.ask(RESUME, token)[0] == BAD_TOKEN
    assert c.ask(RESUME, good)[0] == 0
    c.close()


def seal(key, token):
    return b"\xc1" + token + hashlib.blake2b(b"chasqui-seal-v1" + token, key=key, digest_size=32).digest()


def test_tokens_are_sealed(shared):
    """What an edge has checked once it knows again, and every other edge does."""
    c, d = person(shared.port), Raw(shared.port)
    sealed = c.welcome[3]
    token = sealed[1:-32]
    assert sealed == seal(shared.stand.seal_key, token)
    err, again = d.ask(RESUME, sealed)
    assert err == 0 and again[3] == sealed
    d.close()
    d = Raw(shared.port)
    err, again = d.ask(RESUME, token)
    assert err == 0 and again[3] == sealed
    d.close()
    # The seal stands for the signature: with the right key it needs no other, with a wrong one it is nothing.
    unsigned = token[:-64] + bytes(64)
    d = Raw(shared.port)
    for bad in (unsigned, seal(secrets.token_bytes(32), unsigned), seal(shared.stand.seal_key, unsigned)[:-1], sealed[:-33],
                seal(shared.stand.seal_key, b""), seal(shared.stand.seal_key, bytes(64)), seal(shared.stand.seal_key, bytes(300))):
        assert d.ask(RESUME, bad)[0] == BAD_TOKEN
    assert d.ask(RESUME, seal(shared.stand.seal_key, unsigned))[0] == 0
    late = shared.stand.token(c.user, c.device, "ana", expires=1000)
    for x in (c, d):
        x.close()
    d = Raw(shared.port)
    assert d.ask(RESUME, seal(shared.stand.seal_key, late))[0] == BAD_TOKEN
    d.close()


def test_logout(shared):
    c = person(shared.port, "leaver")
    c.send([LOGOUT, 5], [FRIENDS, 6])
    assert c.answer(5) == [OK, 5]
    assert c.closed() == 1000
    assert c.ops == []
    assert shared.stand.calls[-1][2] == LOGOUT
    c.close()


def test_revoked(shared):
    c = person(shared.port, "lost")
    token = c.welcome[3]
    other = person(shared.port, "lost")
    shared.stand.revoke(c.user, c.device, 1)
    assert c.push(ERR)[:3] == [ERR, 0, REVOKED_ERR]
    assert c.closed() == 4001
    assert other.ask(PING)[0] == 0
    d = Raw(shared.port)
    for void in (token, token[1:-32]):  # sealed and not
        assert d.ask(RESUME, void)[0] == REVOKED_ERR
    assert d.ask(RESUME, shared.stand.token(c.user, c.device, "lost", generation=2))[0] == 0
    for x in (c, d, other):
        x.close()


# ---- forwarding ----


def test_calls_go_as_they_are_and_in_order(shared):
    c = person(shared.port)
    shared.stand.calls.clear()
    c.send(*[[ADD, i, f"name{i}", "later"] for i in range(1, 51)])
    for i in range(1, 51):
        assert c.answer(i) == [OK, i]
    assert shared.stand.calls == [[c.user, c.device, ADD, [f"name{i}", "later"]] for i in range(1, 51)]
    c.close()


def test_answers_come_back_as_they_are(shared):
    c = person(shared.port)
    shared.stand.on_call = lambda u, d, op, f: [0, 1, b"x", [[2, None], "y"]] if op == FRIENDS else [22, 77]
    try:
        assert c.ask(FRIENDS) == (0, [1, b"x", [[2, None], "y"]])
        assert c.ask(ADD, "x") == (22, ["an earlier message of this device is missing: resend from prev", 0, 77])
        for err, wire, retry in ((BUSY, BUSY, 1000), (41, INTERNAL, 0), (42, UNAVAILABLE, 1000), (34, 34, 10000)):
            shared.stand.on_call = lambda u, d, op, f, err=err: [err, 0]
            got, rest = c.ask(ADD, "x")
            assert (got, rest[1]) == (wire, retry)
    finally:
        shared.stand.on_call = lambda *a: [0]
    c.close()


def test_presence_lookup(shared):
    c = person(shared.port)
    assert c.ask(PRESENCE, [b"u" * 16]) == (0, [[[b"u" * 16, True, 1]]])
    c.close()


def test_nesting_that_would_not_fit_an_envelope(shared):
    c = person(shared.port)
    deep = b"\x91" * 6 + b"\xc0"
    c.send_raw(c.frame(b"\x91\x94" + b"\x30\x07" + b"\xc0" + deep))
    assert c.answer(7)[2] == BAD_ARG
    c.send([FRIENDS, 8] + [0] * 40)
    assert c.answer(8)[2] == BAD_ARG
    assert c.ask(FRIENDS)[0] == 0
    c.close()


# ---- bounds ----


def test_rate_limits(world):
    e = world.edge(limit_friend_per_s=1, limit_friend_burst=3, limit_login_per_s=1, limit_login_burst=2)
    c = person(e.port)
    c.send(*[[ADD, i, "x"] for i in range(1, 7)])
    answers = [c.answer(i) for i in range(1, 7)]
    assert [a[0] for a in answers] == [OK] * 3 + [ERR] * 3
    assert all(a[2] == RATE_LIMITED and 0 < a[4] <= 3001 for a in answers[3:])
    assert c.ask(FRIENDS)[0] == 0
    d = person(e.port)
    x = Raw(e.port)
    assert x.ask(LOGIN, "ana", "password", b"d" * 16, b"k" * 32, "")[0] == RATE_LIMITED
    for y in (c, d, x):
        y.close()


def test_a_users_sessions_count_together(world):
    e = world.edge(limit_friend_per_s=1, limit_friend_burst=4)
    one, two, other = person(e.port), person(e.port), person(e.port, "bob")
    assert [one.ask(ADD, "x")[0] for _ in range(2)] + [two.ask(ADD, "x")[0] for _ in range(2)] == [0] * 4
    for c in (one, two):
        err, (_, retry_ms, _) = c.ask(ADD, "x")
        assert err == RATE_LIMITED and 0 < retry_ms <= 1001
    assert other.ask(ADD, "x")[0] == 0
    for c in (one, two, other):
        c.close()


def test_signups_and_logins_have_limits_of_their_own(world):
    e = world.edge(limit_signup_per_s=1, limit_signup_burst=1)
    person(e.port).close()
    c, d = Raw(e.port), Raw(e.port)
    assert c.ask(SIGNUP, "new", "password", b"d" * 16, b"k" * 32, "")[0] == 0
    assert d.ask(SIGNUP, "newer", "password", b"e" * 16, b"k" * 32, "")[0] == RATE_LIMITED
    person(e.port, "bob").close()
    c.close()
    d.close()


def test_too_many_pings(world):
    e = world.edge(limit_control_per_s=1, limit_control_burst=5)
    c, other = Raw(e.port), Raw(e.port)
    c.send_raw(c.frame(b"", WS_PING) * 5)
    assert [c.read_frame() for _ in range(5)] == [(WS_PONG, b"")] * 5
    c.send_raw(c.frame(b"", WS_PING))
    assert c.closed() == 1008
    assert other.ask(PING)[0] == 0
    c.close()
    other.close()


def test_unanswered_requests_are_bounded(world):
    """Who does not wait for answers is not read from: the store sees no more than the bound, and all in the end."""
    e = world.edge(session_requests_max=8, limit_friend_per_s=0)
    c = person(e.port)
    waiting = []
    world.stand.on_call = lambda *a: waiting.append(a)
    for i in range(200):
        c.send([ADD, 2 * i + 1, "x"], [ADD, 2 * i + 2, "y"])
    until(lambda: len(waiting) >= 8, "eight calls")
    other = person(e.port, "bob")
    other.ask(PING)
    assert len({id(w) for w in waiting}) >= 8
    names = [w[3][0] for w in waiting]
    assert names[:8] == ["x", "y"] * 4
    world.stand.on_call = lambda *a: [0]
    for i in range(1, 401):
        assert c.answer(i)[0] == OK
    c.close()
    other.close()


def test_lagging_session_is_told_to_sync(world):
    """Pushes beyond the bound are dropped and the client is told; answers are never dropped."""
    e = world.edge(session_queue_max_bytes=65536, limit_signal_per_s=0)
    c = person(e.port, rcvbuf=4096)
    number = until(lambda: list(world.stand.ups), "SESSION_UP")[-1]
    big = EVENT[:9] + [b"x" * 16000]
    for i in range(1, 601):
        world.stand.deliver(i, [number], big)
    until(lambda: 600 in world.stand.delivered, "DELIVERED")
    until(lambda: "EDGE-SESSION-LAGGING" in e.log.read_text(), "the log line")
    c.send([PING, 99])
    assert c.push(SYNC_NOW) == [SYNC_NOW, None]
    c.answer(99)
    got = len([op for op in c.ops if op[0] == MESSAGE])
    assert 4 <= got < 600
    assert all(op == big for op in c.ops if op[0] == MESSAGE)
    world.stand.deliver(601, [number], [TYPING_NOTE, b"c" * 16, b"u" * 16, True])
    assert c.push(TYPING_NOTE)
    c.close()


def test_large_answers_to_a_slow_reader(world):
    """Answers wait, and reading from that client stops; nothing is lost and nobody else waits."""
    e = world.edge(session_queue_max_bytes=65536, limit_query_per_s=0)
    world.stand.on_call = lambda *a: [0, 5, False, [b"y" * 200000]]
    c = person(e.port, rcvbuf=4096)
    for i in range(1, 101):
        c.send([HISTORY, i, b"c" * 16, 1, 2])
    other = person(e.port, "bob")
    assert other.ask(PING)[0] == 0
    time.sleep(0.3)
    assert len(world.stand.calls) < 60, "reading from a client that does not read must stop"
    for i in range(1, 101):
        assert c.answer(i)[4] == [b"y" * 200000]
    c.close()
    other.close()


def test_flood_while_it_logs_in(world):
    e = world.edge()
    world.stand.on_auth = lambda *a: None
    c = Raw(e.port)
    c.send([LOGIN, 1, "ana", "password", b"d" * 16, b"k" * 32, ""])
    c.s.settimeout(1.0)
    sent = 0
    try:
        for _ in range(2000):
            c.s.sendall(c.frame(b"\xdc\x04\x00" + msgpack.packb([PING, 1]) * 1024))
            sent += 1
    except (TimeoutError, ConnectionError):
        pass
    assert sent < 2000, "the edge must stop reading"
    assert http(e.port, "/healthz")[0] == 200
    c.close()


# ---- the bus ----


def test_deliver_and_confirm(shared):
    c = person(shared.port)
    number = [k for k, v in shared.stand.ups.items() if v[1] == c.device][0]
    first = max(shared.stand.delivered, default=0) + 1
    shared.stand.deliver(first, [number, 1, 2**64 - 1], EVENT)
    assert c.push(MESSAGE) == EVENT
    until(lambda: first in shared.stand.delivered, "DELIVERED")
    shared.stand.deliver(first + 1, [number], [0x05, 1])
    shared.stand.deliver(first + 2, [number], "no event")
    shared.stand.deliver(first + 3, [], EVENT)
    until(lambda: first + 3 in shared.stand.delivered, "DELIVERED of odd events too")
    assert c.ask(PING)[0] == 0 and c.ops == []
    c.close()


def test_lost_deliveries_lead_to_a_sync(world):
    """A number that never came is confirmed by the next one: the sessions are told that something is missing."""
    e = world.edge()
    c = person(e.port)
    number = until(lambda: list(world.stand.ups), "SESSION_UP")[-1]
    world.stand.deliver(1, [number], EVENT)
    world.stand.deliver(2, [number], EVENT)
    until(lambda: 2 in world.stand.delivered, "DELIVERED")
    assert [c.push(MESSAGE), c.push(MESSAGE)] == [EVENT, EVENT] and c.ops == []
    world.stand.deliver(5, [number], EVENT)
    assert c.push(SYNC_NOW) == [SYNC_NOW, None]
    assert c.push(MESSAGE) == EVENT
    c.close()


def test_no_store_no_presence(world):
    until(lambda: world.stand.store and world.stand.presence, "the stand-ins are there")
    world.stand.has_store = world.stand.has_presence = False
    until(lambda: not world.stand.store and not world.stand.presence, "the stand-ins have left")
    e = world.edge(ready=False)
    until(lambda: b"no store" in http(e.port, "/readyz")[1], "registered")
    c = Raw(e.port)
    assert c.ask(LOGIN, "ana", "password", b"d" * 16, b"k" * 32, "")[0] == UNAVAILABLE
    assert c.ask(RESUME, world.stand.token(b"u" * 16, b"d" * 16, "bob"))[0] == UNAVAILABLE
    world.stand.has_store = True
    until(lambda: b"no presence" in http(e.port, "/readyz")[1], "the store answered")
    assert c.ask(LOGIN, "ana", "password", b"d" * 16, b"k" * 32, "")[0] == 0
    err, rest = c.ask(PRESENCE, [])
    assert (err, rest[1]) == (UNAVAILABLE, 1000)
    world.stand.has_presence = True
    assert c.push(SYNC_NOW) == [SYNC_NOW, None]
    until(lambda: world.stand.announced and world.stand.announced[-1][1] == 1, "ANNOUNCED")
    assert len(world.stand.ups) == 1
    c.close()


def test_presence_that_does_not_answer(world):
    e = world.edge()
    world.stand.answers_up = False
    start = time.monotonic()
    c = person(e.port)
    assert 2 < time.monotonic() - start < 8
    assert c.push(SYNC_NOW)
    c.close()


def test_presence_again_means_announce_again(world):
    e = world.edge()
    people = [person(e.port, f"p{i}") for i in range(20)]
    world.stand.has_presence = False
    until(lambda: not world.stand.presence, "presence has left")
    world.stand.ups.clear()
    world.stand.announced.clear()
    world.stand.has_presence = True
    for c in people:
        assert c.push(SYNC_NOW) == [SYNC_NOW, None]
    until(lambda: world.stand.announced == [[world.stand.presence.incarnation, 20]], "ANNOUNCED")
    assert len(world.stand.ups) == 20
    world.stand.delivered.clear()
    world.stand.deliver(1, list(world.stand.ups), EVENT)
    for c in people:
        assert c.push(MESSAGE) == EVENT
    until(lambda: 1 in world.stand.delivered, "numbers start anew")
    for c in people:
        c.close()


def test_broker_again(world):
    e = world.edge()
    c = person(e.port)
    number = until(lambda: list(world.stand.ups), "SESSION_UP")[-1]
    world.broker.kill()
    world.broker.wait()
    world.processes.remove(world.broker)
    inits = world.stand.init_count
    world.stand.announced.clear()
    world.broker = world.spawn("chasqui-broker", "broker2", "--endpoint", world.endpoint, "--lease-ms", "1000")
    assert c.push(SYNC_NOW)
    until(lambda: world.stand.announced and world.stand.announced[-1][1] == 1, "ANNOUNCED")
    until(lambda: world.stand.init_count > inits, "EDGE_INIT again")
    assert c.ask(FRIENDS)[0] == 0
    world.stand.deliver(7, [number], EVENT)
    assert c.push(MESSAGE) == EVENT
    world.stand.deliver(8, [number], EVENT)
    assert c.push(MESSAGE) == EVENT
    assert c.ask(PING)[0] == 0 and c.ops == [], "presence is the same and has gone on counting"
    c.close()


def test_new_epoch_and_revocations_of_a_new_store(world):
    e = world.edge()
    c, gone = person(e.port), person(e.port, "gone")
    sealed = c.welcome[3]
    world.stand.has_store = False
    until(lambda: not world.stand.store, "the store has left")
    world.stand.epoch = secrets.token_bytes(16)
    world.stand.seal_key = secrets.token_bytes(32)
    world.stand.revoked = [[gone.user, gone.device, 1]]
    world.stand.has_store = True
    assert c.push(SYNC_NOW) == [SYNC_NOW, world.stand.epoch]
    assert gone.closed() == 4001
    # Seals of the store before are void, the tokens in them are not.
    d = Raw(e.port)
    err, welcome = d.ask(RESUME, sealed)
    assert err == 0 and welcome[3] == seal(world.stand.seal_key, sealed[1:-32])
    for x in (c, d, gone):
        x.close()


def test_a_store_without_seals(world):
    """One of an earlier version: tokens stay as it signs them, and no seal is worth anything, least of all one of zeros."""
    world.stand.seal_key = None
    e = world.edge()
    c = person(e.port)
    token = c.welcome[3]
    assert token[0] != 0xc1
    unsigned = token[:-64] + bytes(64)
    for given, err in ((token, 0), (seal(bytes(32), token), 0), (seal(secrets.token_bytes(32), token), 0),
                       (seal(bytes(32), unsigned), BAD_TOKEN), (unsigned, BAD_TOKEN)):
        d = Raw(e.port)
        got, fields = d.ask(RESUME, given)
        assert got == err and (err or fields[3] == token)
        d.close()
    sealed = seal(secrets.token_bytes(32), token)
    world.stand.has_store = False
    until(lambda: not world.stand.store, "the store has left")
    inits, world.stand.seal_key = world.stand.init_count, secrets.token_bytes(32)
    world.stand.has_store = True
    until(lambda: world.stand.init_count > inits, "EDGE_INIT of a store with seals")
    until(lambda: (d := Raw(e.port)).ask(RESUME, sealed)[1][3] == seal(world.stand.seal_key, token), "its seals")
    # And back: those of the key before are nothing any more.
    forged = seal(world.stand.seal_key, unsigned)
    assert Raw(e.port).ask(RESUME, forged)[0] == 0
    world.stand.has_store = False
    until(lambda: not world.stand.store, "the store has left")
    inits, world.stand.seal_key = world.stand.init_count, None
    world.stand.has_store = True
    until(lambda: world.stand.init_count > inits, "EDGE_INIT of a store without")
    until(lambda: Raw(e.port).ask(RESUME, forged)[0] == BAD_TOKEN, "no seals")
    c.close()


def test_port_in_use_and_bad_configuration(world):
    e = world.edge()
    for options, word in ((("--listen-port", str(e.port)), "EDGE-LISTEN-FAIL"), (("--log-level", "loud"), "log-level"),
                          (("--heartbeat-limit-ms", "1000"), "heartbeat-limit-ms"), (("--no-such-key", "1"), "no-such-key"),
                          (("--name", "a b"), "name")):
        p = world.spawn("chasqui-edge", "bad", "--broker", world.endpoint, *options)
        world.processes.remove(p)
        assert p.wait(WAIT) != 0
        assert word in (world.dir / "bad.log").read_text()
    (world.dir / "bad.log").unlink()
    world.logs = [x for x in world.logs if x.name != "bad.log"]
