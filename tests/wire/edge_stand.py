# SPDX-License-Identifier: MPL-2.0
"""A real broker and a real edge between a raw WebSocket on one side and stand-ins for store and presence on the other, so that
tests decide every byte and every answer."""

import os
import pathlib
import secrets
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import msgpack
import pytest
from nacl import bindings

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from bus import DOWN, UP, Actor  # noqa: E402

BIN = pathlib.Path(os.environ.get("CHASQUI_BIN", pathlib.Path(__file__).resolve().parents[2] / "build/release/bin"))
WAIT = float(os.environ.get("CHASQUI_WAIT", "10"))
EDGE_INIT, AUTH, CALL, REVOKED = 0x10, 0x11, 0x12, 0x13
DELIVER, DELIVERED, SESSION_UP, SESSION_DOWN, ANNOUNCED, SEEN, LOOKUP = range(0x30, 0x37)
SIGNUP, LOGIN, RESUME, LOGOUT, PING = 1, 2, 3, 4, 5
SYNC, SEND, HISTORY, FRIENDS, ADD, PRESENCE = 0x10, 0x20, 0x21, 0x30, 0x31, 0x38
OK, ERR, MESSAGE, PRESENCE_NOTE, TYPING_NOTE, SYNC_NOW, GOAWAY = 0x80, 0x81, 0x90, 0x93, 0x94, 0x95, 0x96
UNKNOWN_OP, BAD_ARG, NOT_AUTHENTICATED, ALREADY_AUTHENTICATED, BAD_CREDENTIALS, BAD_TOKEN, REVOKED_ERR = 3, 4, 10, 11, 12, 13, 14
RATE_LIMITED, BUSY, UNAVAILABLE, DEADLINE, INTERNAL = 30, 31, 32, 33, 40
TEXT, BINARY, CLOSE, WS_PING, WS_PONG = 1, 2, 8, 9, 10


def until(condition, what="the condition", seconds=None):
    end = time.monotonic() + (seconds or WAIT)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come true")
        time.sleep(0.01)


class Raw:
    """A WebSocket by hand. `request` are the handshake's own header lines."""

    def __init__(self, port, path="/ws", protocol="chasqui.v1", headers=(), shake=True, seconds=WAIT, rcvbuf=0,
                 source=""):
        self.s = socket.socket()
        if rcvbuf:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.s.settimeout(seconds)
        if source:
            self.s.bind((source, 0))
        self.s.connect(("127.0.0.1", port))
        self.got, self.status, self.ops, self.code, self.fragment = b"", None, [], None, b""
        if shake:
            lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade",
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", *headers]
            if protocol:
                lines.append(f"Sec-WebSocket-Protocol: {protocol}")
            self.s.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            head = self.read_until(b"\r\n\r\n")
            self.head = head.decode()
            self.status = int(head.split()[1]) if head else 0

    def read_until(self, mark):
        while mark not in self.got:
            try:
                part = self.s.recv(65536)
            except ConnectionError:
                part = b""
            if not part:
                head, self.got = self.got, b""
                return head
            self.got += part
        head, self.got = self.got.split(mark, 1)
        return head

    def frame(self, data, opcode=BINARY, fin=True, mask=True, rsv=0):
        n = len(data)
        head = bytes([(0x80 if fin else 0) | rsv | opcode])
        bit = 0x80 if mask else 0
        head += bytes([bit | n]) if n < 126 else bytes([bit | 126]) + struct.pack(">H", n) if n < 65536 else \
            bytes([bit | 127]) + struct.pack(">Q", n)
        key = secrets.token_bytes(4) if mask else b""
        body = bytes(b ^ key[i % 4] for i, b in enumerate(data)) if mask else data
        return head + key + body

    def send_raw(self, data):
        try:
            self.s.sendall(data)
        except ConnectionError:
            pass

    def send(self, *ops):
        self.send_raw(self.frame(msgpack.packb(list(ops))))

    def need(self, n):
        while len(self.got) < n:
            try:
                part = self.s.recv(65536)
            except ConnectionError:
                part = b""
            if not part:
                raise EOFError
            self.got += part
        head, self.got = self.got[:n], self.got[n:]
        return head

    def read_frame(self):
        """(opcode, payload) of the next frame."""
        first, second = self.need(2)
        assert not second & 0x80 and not first & 0x70, "servers do not mask and no extension was agreed"
        n = second & 0x7F
        n = struct.unpack(">H", self.need(2))[0] if n == 126 else struct.unpack(">Q", self.need(8))[0] if n == 127 else n
        return first & 15, self.need(n)

    def read(self):
        """Takes a frame: operations are collected, pings answered. False when the connection has ended."""
        try:
            opcode, data = self.read_frame()
        except EOFError:
            return False
        if opcode == BINARY:
            self.ops += msgpack.unpackb(data)
        elif opcode == WS_PING:
            self.send_raw(self.frame(data, WS_PONG))
        elif opcode == CLOSE:
            self.code = struct.unpack(">H", data[:2])[0] if data else 0
            self.send_raw(self.frame(data, CLOSE))
        return True

    def take(self, match):
        while True:
            for i, op in enumerate(self.ops):
                if match(op):
                    return self.ops.pop(i)
            if not self.read():
                raise EOFError(f"closed with {self.code}")

    def answer(self, rid):
        return self.take(lambda op: op[0] in (OK, ERR) and op[1] == rid)

    def push(self, code):
        return self.take(lambda op: op[0] == code)

    def ask(self, code, *fields):
        """Sends one request and gives its answer: (0, fields) or (err, [text, retry, detail])."""
        rid = secrets.randbits(40) | 1
        self.send([code, rid, *fields])
        op = self.answer(rid)
        return (0, op[2:]) if op[0] == OK else (op[2], op[3:])

    def closed(self):
        """Reads to the end; the close code the edge gave, None if it just went."""
        while self.read():
            pass
        return self.code

    def close(self):
        self.s.close()


class Stand(threading.Thread):
    """Stand-ins for store and presence. on_call(user, device, op, fields) → [err, fields…] or None for no answer."""

    def __init__(self, endpoint):
        super().__init__(daemon=True)
        self.endpoint = endpoint
        self.public, self.secret = bindings.crypto_sign_keypair()
        self.epoch = secrets.token_bytes(16)
        self.seal_key = secrets.token_bytes(32)  # None: a store that knows none
        self.users = {}
        self.revoked = []
        self.calls, self.ups, self.downs, self.announced, self.delivered, self.seens = [], {}, [], [], [], []
        self.unanswered = []  # (who, rid)
        self.on_call = lambda user, device, op, fields: [0]
        self.on_auth = None
        self.answers_up = True
        self.up_err = 0
        self.up_requests = 0  # SESSION_UP that wanted an answer
        self.up_events = []
        self.init_count = 0
        self.jobs, self.lock = [], threading.Lock()
        self.store = self.presence = None
        self.has_store = self.has_presence = True
        self.stopping = False
        self.failure = None

    def run(self):
        try:
            while not self.stopping:
                self.turn()
            for a in (self.store, self.presence):
                if a:
                    a.leave()
        except Exception as e:  # noqa: BLE001  shown by the fixture
            self.failure = e
            raise

    def turn(self):
        self.keep("store", self.has_store)
        self.keep("presence", self.has_presence)
        with self.lock:
            jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()
        polled = False
        for a, serve in ((self.store, self.serve_store), (self.presence, self.serve_presence)):
            if a:
                polled = True
                while a.poll(0.005):
                    pass
                events, a.events = a.events, []
                for src, op, item in events:
                    serve(src, op, item)
        if not polled:
            time.sleep(0.01)

    def keep(self, role, wanted):
        actor = getattr(self, role)
        if wanted and not actor:
            setattr(self, role, Actor(self.endpoint, f"{role}.1", role))
        elif not wanted and actor:
            actor.leave()
            setattr(self, role, None)

    def do(self, job):
        """Runs job on the stand-in's thread and waits."""
        done = threading.Event()

        def run():
            job()
            done.set()

        with self.lock:
            self.jobs.append(run)
        assert done.wait(WAIT)

    def token(self, user, device, name, generation=1, expires=None):
        data = msgpack.packb([1, user, device, name, generation, expires or int(time.time() * 1000) + 3600000])
        return data + bindings.crypto_sign(b"chasqui-token-v1" + data, self.secret)[:64]

    def welcome(self, fields):
        name, _, device = fields[:3]
        user = self.users.setdefault(name, secrets.token_bytes(16))
        expires = int(time.time() * 1000) + 3600000
        return [0, user, name, device, self.token(user, device, name, 1, expires), expires, 1, self.epoch, self.public]

    def serve_store(self, src, op, item):
        rid = item[0]
        if op == EDGE_INIT:
            self.init_count += 1
            self.store.answer(src, rid, 0, self.public, self.epoch, self.revoked, *([self.seal_key] if self.seal_key else []))
        elif op == AUTH:
            answer = self.on_auth(item[1], item[2]) if self.on_auth else self.welcome(item[2])
            if answer is not None:
                self.store.answer(src, rid, *answer)
        elif op == CALL:
            self.calls.append(item[1:])
            answer = self.on_call(*item[1:])
            if answer is not None and rid:
                self.store.answer(src, rid, *answer)
            elif answer is None:
                self.unanswered.append((src, rid))

    def answer_late(self, *answer):
        """To all calls that on_call gave no answer to."""
        waiting, self.unanswered = self.unanswered, []
        self.do(lambda: [self.store.answer(src, rid, *answer) for src, rid in waiting])

    def serve_presence(self, src, op, item):
        if op == SESSION_UP:
            self.ups[item[1]] = item[2:]
            self.up_requests += item[0] != 0
            if not item[0]:
                self.up_events.append(item[1])
            if item[0] and self.answers_up:
                self.presence.answer(src, item[0], *([self.up_err, 0] if self.up_err else [0]))
        elif op == SESSION_DOWN:
            self.downs.append(item[1:])
        elif op == ANNOUNCED:
            self.announced.append(item[1:])
        elif op == DELIVERED:
            self.delivered.append(item[1])
        elif op == SEEN:
            self.seens.append(item[1:])
        elif op == LOOKUP:
            self.presence.answer(src, item[0], 0, [[u, True, 1] for u in item[2]])

    def deliver(self, number, sessions, event, edge="edge.1"):
        self.do(lambda: self.presence.send(edge, DELIVER, [[0, number, sessions, event]]))

    def revoke(self, user, device, generation, edge="edge.1"):
        self.do(lambda: self.store.send(edge, REVOKED, [[0, user, device, generation]]))


class World:
    """A broker, the stand-ins, and edges with the options a test wants."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cq-wire-"))
        self.endpoint = f"ipc://{self.dir}/broker.sock"
        self.processes, self.logs = [], []
        self.broker = self.spawn("chasqui-broker", "broker", "--endpoint", self.endpoint, "--lease-ms", "1000")
        until(lambda: (self.dir / "broker.sock").exists(), "the broker's socket")
        self.stand = Stand(self.endpoint)
        self.stand.start()

    def spawn(self, program, name, *options):
        log = self.dir / f"{name}.log"
        self.logs.append(log)
        with open(log, "ab") as out:
            p = subprocess.Popen([str(BIN / program), *map(str, options)], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.processes.append(p)
        return p

    def edge(self, name="edge.1", ready=True, **options):
        settings = {"name": name, "broker": self.endpoint, "listen-port": 0, "log-level": "debug"}
        settings.update({k.replace("_", "-"): v for k, v in options.items()})
        log = self.dir / f"{name}.log"
        p = self.spawn("chasqui-edge", name, *[x for k, v in settings.items() for x in ("--" + k, v)])
        line = until(lambda: [x for x in log.read_text().splitlines() if "id=EDGE-LISTEN " in x] if log.exists() else None,
                     f"{name} listens")
        p.port = int(line[-1].rsplit("port=", 1)[1])
        p.log = log
        if ready:
            until(lambda: http(p.port, "/readyz")[0] == 200, f"{name} is ready")
        return p

    def end(self):
        self.stand.stopping = True
        self.stand.join(WAIT)
        codes = []
        for p in reversed(self.processes):
            if p.poll() is None:
                p.send_signal(signal.SIGTERM)
                try:
                    codes.append(p.wait(WAIT))
                except subprocess.TimeoutExpired:
                    p.kill()
                    codes.append("did not stop")
        text = "".join(x.read_text(errors="replace") for x in self.logs)
        bad = [x for x in text.splitlines() if "Sanitizer" in x or "runtime error" in x or "assertion" in x or "level=error" in x]
        assert not bad, bad[:5]
        assert all(c == 0 for c in codes), (codes, text[-2000:])
        assert self.stand.failure is None, self.stand.failure
        for f in self.dir.iterdir():
            f.unlink()
        self.dir.rmdir()


def http(port, path, method="GET"):
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as s:
        s.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            part = s.recv(65536)
            if not part:
                break
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = [int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length:")]
        while length and len(body) < length[0]:
            part = s.recv(65536)
            if not part:
                break
            body += part
        return (int(head.split()[1]) if head else 0), body


def person(port, name="ana", device=None, **kw):
    """A raw connection that has logged in. welcome: the answer's fields."""
    c = Raw(port, **kw)
    c.device = device or secrets.token_bytes(16)
    err, c.welcome = c.ask(LOGIN, name, "password", c.device, b"k" * 32, "test")
    assert err == 0, (err, c.welcome)
    c.user = c.welcome[0]
    return c


# ---- for the tests ----

# A message as presence delivers it.
EVENT = [MESSAGE, b"c" * 16, 1, b"u" * 16, b"d" * 16, 1, 2, 1, b"n" * 24, b"x" * 40]


@pytest.fixture
def world():
    w = World()
    yield w
    w.end()


__all__ = [n for n in dir() if not n.startswith("_")] + ["UP", "DOWN"]
