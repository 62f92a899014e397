# SPDX-License-Identifier: MPL-2.0
"""Bad input at the WebSocket and HTTP boundary: a clear error or a close with a code, and everybody else goes on."""

import os
import random
import socket
import struct

import msgpack
import pytest
import websocket
from chasqui import OPS, Closed, Link, Refused, befriend
from system import eventually

BINARY, TEXT = websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_TEXT


@pytest.fixture
def link(system):
    link = Link(system.url(1))
    yield link
    link.close()


@pytest.fixture(scope="module")
def witness(system):
    """Somebody else on the same edge, who must not notice anything."""
    d = system.person(1)
    yield d
    d.close()


@pytest.fixture(autouse=True)
def others_go_on(witness):
    yield
    assert not witness.link.is_closed
    witness.ask("PING")
    witness.ask("FRIENDS")


@pytest.mark.parametrize("data", [
    b"", b"\xc1", b"\xff", b"\x90", b"\x01", b"\x80", b"\xc0", b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\x91", b"\x92\x91\x05",
    b"\x91\x01", b"\x91\x90", b"\x91\xa1x", b"\x91\x91\xa1x", b"\x91\x92\x05\x01\x00", b"\x91" * 60000, b"\x91" * 200,
    b"\xc6\xff\xff\xff\xff", b"\x91\x93\x05\x01\xc6\x7f\xff\xff\xff", random.Random(1).randbytes(3000),
    msgpack.packb([[5, 1]] * 1025), msgpack.packb([[5, 1], 7]), msgpack.packb({"a": 1}),
], ids=lambda d: d[:6].hex() + f"_{len(d)}")  # fmt: skip
def test_not_a_frame_closes_with_1002(link, data):
    link.send_bytes(data)
    assert link.closed() == 1002


def test_text_closes_with_1003(link):
    link.send_bytes("hello", TEXT)
    assert link.closed() == 1003


def test_too_large_closes_with_1009(link):
    link.send_bytes(b"\x91" + b"\xc0" * 65536)
    assert link.closed() == 1009


def test_too_large_in_pieces_closes_with_1009(link):
    """The limit holds for the whole message, not for each fragment."""
    try:
        for i in range(40):
            frame = websocket.ABNF.create_frame(b"\xc0" * 4000, BINARY if i == 0 else 0, fin=0)
            link._raw(lambda: link.ws.send_frame(frame))
    except Closed:
        pass
    assert link.closed() in (1009, None)


def test_fragments_are_joined(link):
    data = msgpack.packb([[OPS["PING"], 77]])
    for i, byte in enumerate(data):
        frame = websocket.ABNF.create_frame(bytes([byte]), BINARY if i == 0 else 0, fin=int(i == len(data) - 1))
        link._raw(lambda: link.ws.send_frame(frame))
    assert link.finish(77) == []


def test_a_frame_of_the_largest_size(link):
    ops = [[OPS["PING"], i + 1] for i in range(1023)]
    filler = 65536 - len(msgpack.packb([*ops, [OPS["PING"], 2000, b"x" * 50000]])) + 50000
    data = msgpack.packb([*ops, [OPS["PING"], 2000, b"x" * filler]])
    assert len(data) == 65536
    link.send_bytes(data)
    link.finish(2000)
    link.finish(1)


def test_unknown_operation(link):
    for code in (0x00, 0x7F, 0x80, 0x90, 0x99, 0xFF, 0x100, 2**32):
        with pytest.raises(Refused, match="UNKNOWN_OP"):
            link.ask(code)
    link.ask("PING")


def test_more_fields_than_known_are_ignored(link):
    link.ask("PING", 1, "later", [b"versions"], None)


def test_rid_0_gets_no_answer(link):
    link.send_ops([[OPS["PING"], 0], [0x7E, 0], [OPS["PING"], 5]])
    link.finish(5)
    assert link.answers == {}


def test_wide_integers_are_read(link):
    link.send_bytes(b"\xdd\0\0\0\x01" + b"\xdd\0\0\0\x02" + b"\xcf" + struct.pack(">Q", OPS["PING"]) + b"\xcf" +
                    struct.pack(">Q", 9))
    link.finish(9)


WRONG = [
    ("LOGIN",), ("LOGIN", "abc"), ("LOGIN", 1, 2, 3, 4, 5), ("LOGIN", "abc", "password", b"short", b"k" * 32, ""),
    ("LOGIN", "abc", "password", b"d" * 16, b"k" * 31, ""), ("LOGIN", b"abc", "password", b"d" * 16, b"k" * 32, ""),
    ("LOGIN", "abc", "p" * 1025, b"d" * 16, b"k" * 32, ""), ("LOGIN", "abc", "password", b"d" * 16, b"k" * 32, "l" * 65),
    ("RESUME",), ("RESUME", "text"), ("RESUME", b""), ("RESUME", b"t" * 513),
]


@pytest.mark.parametrize("op, fields", [(w[0], w[1:]) for w in WRONG], ids=range(len(WRONG)))
def test_wrong_fields_before_login(link, op, fields):
    with pytest.raises(Refused, match="BAD_ARG"):
        link.ask(op, *fields)
    link.ask("PING")


CHAT = b"c" * 16
WRONG_USER = [
    ("SYNC",), ("SYNC", b"short", 0), ("SYNC", None, -1), ("SYNC", None, "0"), ("SYNC", None, 1.5), ("CHATS", 3),
    ("KEYS", None), ("KEYS", [1]), ("KEYS", [[CHAT]]), ("KEYS", [[b"", 1]]),
    ("SEND", CHAT), ("SEND", CHAT, 1, 0, 1, b"n" * 23, b"c" * 40), ("SEND", "text", 1, 0, 1, b"n" * 24, b"c" * 40),
    ("SEND", CHAT, 2**63, 0, 1, b"n" * 24, b"c" * 40), ("SEND", CHAT, 1, 0, 2**32, b"n" * 24, b"c" * 40),
    ("HISTORY", CHAT), ("HISTORY", None, 1, 2), ("ACK",), ("ACK", 5), ("ACK", [[CHAT, 1]]), ("ACK", [5]),
    ("ACK", [[CHAT, 0, 0]] * 257), ("TYPING", CHAT), ("TYPING", CHAT, 1), ("ADD",), ("ADD", 5), ("ADD", b"abc"),
    ("ADD", "x" * 65), ("ADD", "a\0c"), ("PRESENCE",), ("PRESENCE", [b"short"]), ("PRESENCE", [None]),
    ("REVOKE",), ("REVOKE", b"short"), ("REVOKE", "x" * 16),
]


@pytest.mark.parametrize("op, fields", [(w[0], w[1:]) for w in WRONG_USER], ids=range(len(WRONG_USER)))
def test_wrong_fields_of_a_user(witness, op, fields):
    with pytest.raises(Refused, match="BAD_ARG"):
        witness.ask(op, *fields)


def test_not_utf8_is_refused(witness):
    rid = next(witness.link.rids)
    witness.link.send_bytes(b"\x91\x93" + b"\xcc\x31" + msgpack.packb(rid) + b"\xa3\xff\xfe\xfd")
    with pytest.raises((Refused, Closed)) as e:
        witness.link.finish(rid)
    assert getattr(e.value, "name", "BAD_ARG") == "BAD_ARG"


def test_wrong_history_ranges(witness):
    with pytest.raises(Refused):
        witness.ask("HISTORY", CHAT, 5, 1)


def test_handshake_without_the_subprotocol(system):
    for subprotocols in (None, ["chasqui.v2"], ["mqtt"]):
        with pytest.raises(websocket.WebSocketException):
            ws = websocket.create_connection(system.url(1), subprotocols=subprotocols, timeout=5)
            ws.send(b"\x91\x92\x05\x01", BINARY)
            assert ws.recv() is None


def test_garbage_instead_of_http(system):
    for data in (b"\0" * 2000, b"GET / HTTP/9.9\r\n\r\n", b"POST /ws HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(5000),
                 b"GET /ws HTTP/1.1\r\n" + b"X-A: " + b"b" * 100000 + b"\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", system.port), timeout=20) as s:
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                while s.recv(4096):
                    pass
            except OSError:
                pass  # closed in the middle of it: as good


def test_http(system):
    assert system.http(1, "/healthz")[0] == 200
    assert system.http(1, "/readyz")[0] == 200
    assert system.http(1, "/no/such/page")[0] == 404
    assert system.http(2, "/../../etc/passwd")[0] in (400, 403, 404)


def test_not_ready_without_the_store(system):
    system.store.kill()
    eventually(lambda: system.http(1, "/readyz")[0] == 503, 40, "503 of /readyz")
    assert system.http(1, "/healthz")[0] == 200
    system.heal()


def test_many_connections_that_say_nothing(system):
    sockets = [socket.create_connection(("127.0.0.1", system.port), timeout=5) for _ in range(100)]
    link = Link(system.url(1))
    link.ask("PING")
    link.close()
    for s in sockets:
        s.close()


def test_a_reader_that_does_not_read_is_not_buffered_without_end(system):
    """Far more history is asked for than anybody reads: the edge stops or closes, its memory stays bounded, others go on."""
    x, y = system.person(1), system.person(2)
    befriend(x, y)
    for _ in range(16):
        x.send(y, "x" * 16000)
    y.close()
    before = memory_kib(system.edge(2).pid)
    ws = websocket.create_connection(system.url(2), subprotocols=["chasqui.v1"], timeout=3)
    ws.send(msgpack.packb([[OPS["RESUME"], 1, y.token]]), BINARY)
    assert msgpack.unpackb(ws.recv())[0][0] == OPS["OK"]
    data = msgpack.packb([[OPS["HISTORY"], 1000 + i, y.chat(x), 1, 16] for i in range(100)])
    try:
        for _ in range(200):  # 20,000 answers of 256 KB each
            ws.send(data, BINARY)
    except OSError:
        pass  # it does not take more: that is the point
    except websocket.WebSocketException:
        pass
    x.send(y, "others go on")
    x.connect(system.url(2))
    x.resume()
    assert memory_kib(system.edge(2).pid) - before < 200_000
    ws.shutdown()
    x.close()


def memory_kib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")
