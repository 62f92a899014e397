# SPDX-License-Identifier: MPL-2.0
"""RFC 6455 from raw bytes, against ws-echo: the edge's WebSocket layer with an echo on top. What a peer may send and how it
may be cut; what it may not, and the close code that answers it. After each case the echo lives on and others go on."""

import base64
import hashlib
import itertools
import os
import pathlib
import random
import secrets
import socket
import struct
import subprocess
import threading

import pytest

BIN = pathlib.Path(os.environ.get("CHASQUI_BIN", pathlib.Path(__file__).resolve().parents[2] / "build/release/bin"))
WAIT = float(os.environ.get("CHASQUI_WAIT", "10"))
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
GOOD = "κόσμε, Grüße, 你好, 🎒"


class Echo:
    def __init__(self, *options):
        self.p = subprocess.Popen([str(BIN.parent / "tests/ws-echo"), "0", *map(str, options)], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        self.port = int(self.p.stdout.readline().split()[1])

    def end(self):
        self.p.terminate()
        _, err = self.p.communicate(timeout=WAIT)
        assert self.p.returncode == 0 and not err, err


@pytest.fixture(scope="module")
def echo():
    e = Echo("--timeout-ms", 1500)
    yield e
    e.end()


@pytest.fixture(scope="module")
def small():
    e = Echo("--max-frame", 1000, "--max-message", 1500)
    yield e
    e.end()


def frame(opcode, data=b"", fin=True, rsv=0, mask=True, size=None, length=None):
    """size: how many bytes the length takes (1, 2, 8) whatever it is; length: what is claimed."""
    n = len(data) if length is None else length
    size = size or (1 if n < 126 else 2 if n < 65536 else 8)
    bit = 0x80 if mask else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    head += bytes([bit | n]) if size == 1 else bytes([bit | (126 if size == 2 else 127)]) + n.to_bytes(size, "big")
    if not mask:
        return head + data
    key = secrets.token_bytes(4)
    n = len(data)
    body = int.from_bytes(data, "big") ^ int.from_bytes((key * (n // 4 + 1))[:n], "big")
    return head + key + body.to_bytes(n, "big")


class Ws:
    def __init__(self, port, request=None):
        self.s = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.got = b""
        self.key = base64.b64encode(secrets.token_bytes(16)).decode()
        self.s.sendall((request or HANDSHAKE).replace("KEY", self.key).encode())
        self.head = self.head_of_answer()
        self.status = int(self.head.split()[1]) if self.head else 0

    def head_of_answer(self):
        while b"\r\n\r\n" not in self.got:
            part = self.s.recv(65536)
            if not part:
                return ""
            self.got += part
        head, self.got = self.got.split(b"\r\n\r\n", 1)
        return head.decode()

    def send(self, data, step=0):
        """step: in pieces of that many bytes, each in a segment of its own."""
        try:
            for at in range(0, len(data), step or len(data) or 1):
                self.s.sendall(data[at:at + (step or len(data))])
        except ConnectionError:
            pass

    def need(self, n):
        parts = [self.got]
        have = len(self.got)
        while have < n:
            part = self.s.recv(1 << 20)
            if not part:
                raise EOFError
            parts.append(part)
            have += len(part)
        data = b"".join(parts)
        self.got = data[n:]
        return data[:n]

    def read(self):
        """(opcode, payload); "end" when the connection has ended; a reset is no end."""
        try:
            first, second = self.need(2)
        except EOFError:
            return "end"
        assert not second & 0x80 and first & 0x80 and not first & 0x70
        n = second
        if n == 126:
            n = struct.unpack(">H", self.need(2))[0]
            assert n >= 126
        elif n == 127:
            n = struct.unpack(">Q", self.need(8))[0]
            assert n >= 65536
        return first & 15, self.need(n)

    def all(self):
        """Everything until the end."""
        return list(itertools.takewhile(lambda x: x != "end", iter(self.read, None)))

    def close(self):
        self.s.close()


HANDSHAKE = ("GET /any HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: KEY\r\n"
             "Sec-WebSocket-Version: 13\r\n\r\n")


def code(n, reason=b""):
    return struct.pack(">H", n) + reason


@pytest.fixture
def ws(echo):
    """A connection; meanwhile another one that must not notice."""
    other, c = Ws(echo.port), Ws(echo.port)
    assert c.status == 101
    yield c
    c.close()
    other.send(frame(TEXT, b"still here") + frame(CLOSE, code(1000)))
    assert other.all() == [(TEXT, b"still here"), (CLOSE, code(1000))]
    other.close()


def check(c, sent, answers, step=0):
    c.send(sent, step)
    assert c.all() == answers


END = frame(CLOSE, code(1000))
ENDED = (CLOSE, code(1000))

# ---- what must work, in one piece, byte by byte, and in odd pieces ----

FINE = {
    "empty text": (frame(TEXT), [(TEXT, b"")]),
    "empty binary": (frame(BINARY), [(BINARY, b"")]),
    "text of 125": (frame(TEXT, b"*" * 125), [(TEXT, b"*" * 125)]),
    "text of 126": (frame(TEXT, b"*" * 126), [(TEXT, b"*" * 126)]),
    "binary of 127": (frame(BINARY, b"\xfe" * 127), [(BINARY, b"\xfe" * 127)]),
    "binary of 128": (frame(BINARY, b"\xfe" * 128), [(BINARY, b"\xfe" * 128)]),
    "two messages": (frame(TEXT, b"a") + frame(BINARY, b"\0"), [(TEXT, b"a"), (BINARY, b"\0")]),
    "ping": (frame(PING), [(PONG, b"")]),
    "ping with a payload": (frame(PING, b"\0\xff\xfe\xfd"), [(PONG, b"\0\xff\xfe\xfd")]),
    "ping of 125": (frame(PING, b"\xfe" * 125), [(PONG, b"\xfe" * 125)]),
    "ten pings": (b"".join(frame(PING, b"%d" % i) for i in range(10)), [(PONG, b"%d" % i) for i in range(10)]),
    "pongs nobody asked for": (frame(PONG) + frame(PONG, b"x") + frame(PING, b"y"), [(PONG, b"y")]),
    "two fragments": (frame(TEXT, b"frag", fin=False) + frame(CONT, b"ment"), [(TEXT, b"fragment")]),
    "empty fragments": (frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) + frame(CONT, b""), [(TEXT, b"")]),
    "data between empty fragments": (frame(TEXT, b"", fin=False) + frame(CONT, b"in", fin=False) + frame(CONT, b""), [(TEXT, b"in")]),
    "pings between fragments": (
        frame(TEXT, b"f", fin=False) + frame(PING, b"1") + frame(CONT, b"g", fin=False) + frame(PING, b"2") + frame(CONT, b"h"),
        [(PONG, b"1"), (PONG, b"2"), (TEXT, b"fgh")]),
    "text": (frame(TEXT, GOOD.encode()), [(TEXT, GOOD.encode())]),
    "every byte in a frame of its own": (
        b"".join(frame(TEXT if i == 0 else CONT, bytes([b]), fin=i == len(GOOD.encode()) - 1)
                 for i, b in enumerate(GOOD.encode())), [(TEXT, GOOD.encode())]),
    "highest code points": (frame(TEXT, b"\xf4\x8f\xbf\xbf\xef\xbf\xbf\xed\x9f\xbf\xee\x80\x80"),
                            [(TEXT, b"\xf4\x8f\xbf\xbf\xef\xbf\xbf\xed\x9f\xbf\xee\x80\x80")]),
    "mask of zeroes": (bytes([0x81, 0x82, 0, 0, 0, 0]) + b"hi", [(TEXT, b"hi")]),
}  # fmt: skip


@pytest.mark.parametrize("step", [0, 1, 3], ids=["whole", "bytewise", "threes"])
@pytest.mark.parametrize("name", FINE)
def test_fine(ws, name, step):
    sent, answers = FINE[name]
    check(ws, sent + END, answers + [ENDED], step)


# ---- what breaks the rules: (bytes, what is answered before, close code) ----

BROKEN = {
    **{f"reserved bits {rsv}": (frame(TEXT, b"x", rsv=rsv), [], 1002) for rsv in range(1, 8)},
    "reserved bits of a ping": (frame(PING, b"x", rsv=4), [], 1002),
    "reserved bits of a later frame": (frame(TEXT, b"ok") + frame(TEXT, b"x", rsv=4), [(TEXT, b"ok")], 1002),
    **{f"opcode {op}": (frame(TEXT, b"ok") + frame(op, b"x") + frame(PING), [(TEXT, b"ok")], 1002) for op in (3, 4, 5, 6, 7)},
    **{f"opcode {op}": (frame(TEXT, b"ok") + frame(op) + frame(PING), [(TEXT, b"ok")], 1002) for op in (11, 12, 13, 14, 15)},
    "not masked": (frame(TEXT, b"x", mask=False), [], 1002),
    "not masked, empty": (frame(BINARY, mask=False), [], 1002),
    "a ping that is not masked": (frame(PING, mask=False), [], 1002),
    "a close that is not masked": (frame(CLOSE, code(1000), mask=False), [], 1002),
    "a fragmented ping": (frame(PING, b"x", fin=False) + frame(CONT, b"y"), [], 1002),
    "a fragmented close": (frame(CLOSE, b"", fin=False), [], 1002),
    "a ping of 126": (frame(PING, b"x" * 126), [], 1002),
    "a pong of 126": (frame(PONG, b"x" * 126), [], 1002),
    "a ping that claims 64 bits": (frame(PING, b"", length=2**62), [], 1002),
    "a continuation of nothing": (frame(CONT, b"x"), [], 1002),
    "an unfinished continuation of nothing": (frame(CONT, b"x", fin=False), [], 1002),
    "a continuation after a whole message": (frame(TEXT, b"a") + frame(CONT, b"x"), [(TEXT, b"a")], 1002),
    "text within a message": (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), [], 1002),
    "binary within a message": (frame(TEXT, b"a", fin=False) + frame(PING) + frame(BINARY, b"b"), [(PONG, b"")], 1002),
    "length 0 in two bytes": (frame(TEXT, b"", size=2), [], 1002),
    "length 125 in two bytes": (frame(TEXT, b"x" * 125, size=2), [], 1002),
    "length 125 in eight bytes": (frame(TEXT, b"x" * 125, size=8), [], 1002),
    "length 65535 in eight bytes": (frame(BINARY, b"", size=8, length=65535), [], 1002),
    "length with the top bit": (frame(BINARY, b"", length=2**63), [], 1002),
    "length of all ones": (frame(BINARY, b"", length=2**64 - 1), [], 1002),
    "larger than allowed": (frame(BINARY, b"", length=2**26 + 1), [], 1009),
    "as large as can be": (frame(BINARY, b"", length=2**63 - 1), [], 1009),
    "fragments together too large": (frame(BINARY, b"x", fin=False) + frame(CONT, b"", length=2**26), [], 1009),
    "text that is not UTF-8": (frame(TEXT, b"abc\xff"), [], 1007),
    "a surrogate": (frame(TEXT, b"\xed\xa0\x80"), [], 1007),
    "overlong": (frame(TEXT, b"\xc0\xaf"), [], 1007),
    "beyond U+10FFFF": (frame(TEXT, b"\xf4\x90\x80\x80"), [], 1007),
    "text that ends within a character": (frame(TEXT, b"\xe2\x82"), [], 1007),
    "fragments that end within a character": (frame(TEXT, b"\xe2", fin=False) + frame(CONT, b"\x82"), [], 1007),
    "a close of one byte": (frame(CLOSE, b"\x03"), [], 1002),
    "a close of 126": (frame(CLOSE, code(1000, b"x" * 124)), [], 1002),
    "a reason that is not UTF-8": (frame(CLOSE, code(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80")), [], 1007),
    **{f"close code {n}": (frame(CLOSE, code(n)), [], 1002) for n in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)},
}  # fmt: skip


@pytest.mark.parametrize("step", [0, 1], ids=["whole", "bytewise"])
@pytest.mark.parametrize("name", BROKEN)
def test_broken(ws, name, step):
    sent, before, closes = BROKEN[name]
    check(ws, sent, before + [(CLOSE, code(closes))], step)


@pytest.mark.parametrize("n", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999])
def test_close_codes_come_back(ws, n):
    check(ws, frame(CLOSE, code(n, "Grüße".encode())) + frame(TEXT, b"too late"), [(CLOSE, code(n))])


def test_close_without_a_code(ws):
    check(ws, frame(CLOSE), [(CLOSE, b"")])


def test_close_within_a_message(ws):
    check(ws, frame(TEXT, b"a", fin=False) + frame(CLOSE, code(1001)), [(CLOSE, code(1001))])


def test_nothing_after_a_close_is_answered(ws):
    check(ws, END + frame(PING, b"x") + frame(TEXT, b"x") + b"\xff" * 100, [ENDED])


@pytest.mark.parametrize("text, cut", [
    (b"\xce\xba\xcf\x8c\xed\xa0\x80edited", 5), (b"abcdefgh\xf4\x90\x80\x80", 10), (b"\xff....", 1)])
def test_bad_text_is_refused_as_soon_as_it_is_bad(ws, text, cut):
    """Before its frame, let alone its message, is complete."""
    whole = frame(TEXT, text + b"." * 1000, fin=False)
    ws.send(whole[:8 + cut + 1])
    assert ws.all() == [(CLOSE, code(1007))]


def test_a_frame_that_never_ends_holds_up_nobody(ws):
    ws.send(frame(BINARY, b"x" * 100, length=1000))
    ws.s.settimeout(0.3)
    with pytest.raises(TimeoutError):
        ws.read()


def test_closed_without_words(echo):
    for sent in (b"", b"\x81", frame(TEXT, b"half", length=100), frame(TEXT, b"a", fin=False)):
        c = Ws(echo.port)
        c.send(sent)
        c.s.shutdown(socket.SHUT_WR)
        assert c.all() == []
        c.close()


def test_reset(echo):
    for _ in range(20):
        c = Ws(echo.port)
        c.send(frame(TEXT, b"x" * 100000))
        c.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.close()
    c = Ws(echo.port)
    check(c, frame(TEXT, b"alive") + END, [(TEXT, b"alive"), ENDED])
    c.close()


# ---- sizes ----


@pytest.mark.parametrize("size", [65535, 65536, 65537, 1 << 20, 16 << 20])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_large(ws, opcode, size):
    data = (b"Caf\xc3\xa9 " * (size // 6 + 1))[:size // 6 * 6] + b"." * (size % 6)
    sender = threading.Thread(target=ws.send, args=(frame(opcode, data),))
    sender.start()
    assert ws.read() == (opcode, data)
    sender.join()
    check(ws, END, [ENDED])


@pytest.mark.parametrize("piece", [64, 1300, 65536])
def test_large_in_fragments(ws, piece):
    data = secrets.token_bytes(1 << 20 if piece > 64 else 1 << 16)
    parts = [data[i:i + piece] for i in range(0, len(data), piece)]
    sent = b"".join(frame(BINARY if i == 0 else CONT, p, fin=i == len(parts) - 1) for i, p in enumerate(parts))
    sender = threading.Thread(target=ws.send, args=(sent,))
    sender.start()
    assert ws.read() == (BINARY, data)
    sender.join()


def test_many_messages_and_random_cuts(echo):
    """A long stream cut anywhere gives the same as in one piece; the seed is in the message."""
    seed = int.from_bytes(secrets.token_bytes(4), "big")
    rng = random.Random(seed)
    c = Ws(echo.port)
    expected, stream = [], b""
    for _ in range(400):
        data = rng.randbytes(rng.choice([0, 1, 125, 126, 300, 5000]))
        kind = rng.randrange(3)
        if kind == 0:
            stream += frame(BINARY, data)
            expected.append((BINARY, data))
        elif kind == 1:
            at = rng.randrange(len(data) + 1)
            stream += frame(BINARY, data[:at], fin=False) + frame(PING, b"p") + frame(CONT, data[at:])
            expected += [(PONG, b"p"), (BINARY, data)]
        else:
            stream += frame(PING, data[:125])
            expected.append((PONG, data[:125]))
    stream += END

    def cut():
        at = 0
        while at < len(stream):
            n = rng.choice([1, 2, 7, 100, 3000, 70000])
            c.send(stream[at:at + n])
            at += n

    sender = threading.Thread(target=cut)
    sender.start()
    assert c.all() == expected + [ENDED], f"seed {seed}"
    sender.join()
    c.close()


def test_limits_of_the_command_line(small):
    for sent, answers in (
            (frame(BINARY, b"x" * 1000), [(BINARY, b"x" * 1000)]), (frame(BINARY, b"x" * 1001), [(CLOSE, code(1009))]),
            (frame(BINARY, b"x" * 1000, fin=False) + frame(CONT, b"y" * 500), [(BINARY, b"x" * 1000 + b"y" * 500)]),
            (frame(BINARY, b"x" * 1000, fin=False) + frame(CONT, b"y" * 501), [(CLOSE, code(1009))])):  # fmt: skip
        c = Ws(small.port)
        if answers[-1][0] != CLOSE:
            sent, answers = sent + END, answers + [ENDED]
        check(c, sent, answers)
        c.close()


def test_who_does_not_read_is_not_read_from(echo):
    """The echo of a peer that does not read does not grow without end, and everything comes in the end."""
    c = Ws(echo.port)
    data = secrets.token_bytes(1 << 16)
    c.s.settimeout(1.0)
    sent, out = 0, frame(BINARY, data)
    whole = b""
    try:
        while sent < 2000:
            whole = out
            while whole:
                whole = whole[c.s.send(whole):]
            sent += 1
    except TimeoutError:
        pass
    assert sent < 1000, "the echo must stop reading"
    status = pathlib.Path(f"/proc/{echo.p.pid}/status").read_text()
    rss = int(status.split("VmRSS:")[1].split()[0])
    assert rss < 200_000, "its memory must not grow"
    c.s.settimeout(WAIT)
    rest = threading.Thread(target=c.send, args=(whole + END,))
    rest.start()
    for _ in range(sent + bool(whole)):
        assert c.read() == (BINARY, data)
    rest.join()
    assert c.all() == [ENDED]
    c.close()


# ---- handshakes ----


def test_handshake(echo):
    c = Ws(echo.port)
    lines = c.head.split("\r\n")
    assert lines[0].startswith("HTTP/1.1 101 ")
    fields = {k.lower(): v.strip() for k, v in (x.split(":", 1) for x in lines[1:])}
    made = base64.b64encode(hashlib.sha1((c.key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
    assert fields["sec-websocket-accept"] == made
    assert fields["upgrade"].lower() == "websocket" and fields["connection"].lower() == "upgrade"
    assert "sec-websocket-extensions" not in fields and "sec-websocket-protocol" not in fields
    c.close()


@pytest.mark.parametrize("change, status", [
    (("Upgrade: websocket", "upgrade: WebSocket"), 101),
    (("Connection: Upgrade", "connection: keep-alive, upgrade"), 101),
    (("Host: x", "Host: x\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"), 101),
    (("GET", "POST"), 405), (("GET", "get"), 405), (("HTTP/1.1", "HTTP/1.0"), 400), (("HTTP/1.1", "HTTP/2.0"), 505),
    (("Upgrade: websocket\r\n", ""), 426), (("Upgrade: websocket", "Upgrade: h2c"), 426),
    (("Connection: Upgrade\r\n", ""), 400), (("Connection: Upgrade", "Connection: close"), 400),
    (("Version: 13", "Version: 8"), 426), (("Version: 13", "Version: 14"), 426), (("Sec-WebSocket-Version: 13\r\n", ""), 426),
    (("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 8"), 400),
    (("Sec-WebSocket-Key: KEY\r\n", ""), 400), (("KEY", "dG9vIHNob3J0"), 400), (("KEY", "A" * 24), 400),
    (("KEY", "dGhlIHNhbXBsZSBub25jZR=="), 400), (("KEY", "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: KEY"), 400),
    (("Host: x\r\n", ""), 400), (("Host: x", "Host: x\r\nHost: y"), 400), (("Host: x", "Host: x\r\n folded"), 400),
    (("Host: x\r\n", "Host: x\n"), 400), (("GET /any", "GET  /any"), 400), (("GET /any", "GET /a\0y"), 400),
    (("Host: x", "Host: x\r\nContent-Length: 5"), 400), (("Host: x", "Host: x\r\nTransfer-Encoding: chunked"), 400),
    (("Host: x", "Host: x\r\nA: " + "b" * 9000), 431), (("Host: x", "Host: x" + "\r\nA: b" * 70), 431),
])  # fmt: skip
def test_handshakes(echo, change, status):
    c = Ws(echo.port, HANDSHAKE.replace(*change, 1))
    assert c.status == status, c.head
    if status == 426:
        assert "sec-websocket-version: 13" in c.head.lower()
    c.close()


def test_frames_right_behind_the_handshake(echo):
    s = socket.create_connection(("127.0.0.1", echo.port), timeout=WAIT)
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    whole = HANDSHAKE.replace("KEY", key).encode() + frame(TEXT, b"early") + END
    for data in (whole, whole[:100] + whole[100:]):
        s.sendall(data[:100])
        s.sendall(data[100:])
        got = b""
        while part := s.recv(65536):
            got += part
        assert got.endswith(b"\x81\x05early\x88\x02\x03\xe8")
        s.close()
        s = socket.create_connection(("127.0.0.1", echo.port), timeout=WAIT)
    s.close()


@pytest.mark.parametrize("first", [b"", b"G", b"GET /any HTTP/1.1\r\nHost: x\r\n"])
def test_who_dribbles_is_dropped(echo, first):
    """Bytes that come now and then do not prolong the time for a request."""
    s = socket.create_connection(("127.0.0.1", echo.port), timeout=0.2)
    s.sendall(first)
    for _ in range(100):
        try:
            assert s.recv(1) == b""
            break
        except TimeoutError:
            if first:
                s.send(b"a")
        except ConnectionError:
            break
    else:
        pytest.fail("it was not dropped")
    s.close()


def test_noise(echo):
    for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0" * 1000, b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n\r\n",
                 b"\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c", b"\xff" * 100000):
        s = socket.create_connection(("127.0.0.1", echo.port), timeout=WAIT)
        try:
            s.sendall(data)
            assert s.recv(65536).startswith(b"HTTP/1.1 400 ")
        except ConnectionError:
            pass
        s.close()
    c = Ws(echo.port)
    check(c, END, [ENDED])
    c.close()
