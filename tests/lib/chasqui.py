# SPDX-License-Identifier: MPL-2.0
"""A client of the protocol chasqui.v1, written from docs/protocol.md alone and sharing no code with the servers.

Two layers: Link is one WebSocket connection that sends any operations and keeps what comes back; Device is what a person's
device does on top of it (keys, counters, cursors, checks). Tests that break rules use Link, or Device's parameters.
"""

import hashlib
import itertools
import os
import struct
import threading
import time

import msgpack
import websocket
from nacl import bindings

SUBPROTOCOL = "chasqui.v1"
OPS = dict(
    SIGNUP=0x01, LOGIN=0x02, RESUME=0x03, LOGOUT=0x04, PING=0x05, DEVICES=0x06, REVOKE=0x07,
    SYNC=0x10, CHATS=0x11, KEYS=0x12, SEND=0x20, HISTORY=0x21, ACK=0x22, TYPING=0x23, LEDGER=0x24,
    FRIENDS=0x30, ADD=0x31, ACCEPT=0x32, DECLINE=0x33, CANCEL=0x34, REMOVE=0x35, BLOCK=0x36, UNBLOCK=0x37,
    PRESENCE=0x38, PRIVACY=0x39,
    OK=0x80, ERR=0x81, MESSAGE=0x90, RECEIPT=0x91, FRIEND=0x92, PRESENCE_NOTE=0x93, TYPING_NOTE=0x94,
    SYNC_NOW=0x95, GOAWAY=0x96, PRIVACY_NOTE=0x97,
)  # fmt: skip
ERRORS = dict(
    BAD_FRAME=1, TOO_BIG=2, UNKNOWN_OP=3, BAD_ARG=4, BAD_STATE=5, NOT_AUTHENTICATED=10, ALREADY_AUTHENTICATED=11,
    BAD_CREDENTIALS=12, BAD_TOKEN=13, REVOKED=14, NAME_TAKEN=15, BAD_NAME=16, BAD_PASSWORD=17, BAD_DEVICE=18,
    NOT_FOUND=20, CHAT_CLOSED=21, OUT_OF_ORDER=22, DSEQ_CONFLICT=23, ABOVE_HEAD=24, KEY_VERSION=25, WINDOW_FULL=26,
    RATE_LIMITED=30, BUSY=31, UNAVAILABLE=32, DEADLINE=33, NO_SPACE=34, UNROUTABLE=35,
    INTERNAL=40, IO=41, UNKNOWN_OUTCOME=42, NO_BLOB=51,
)  # fmt: skip
ERROR_NAMES = {number: name for name, number in ERRORS.items()}
TRANSIENT = {"BUSY", "RATE_LIMITED", "UNAVAILABLE", "DEADLINE", "UNROUTABLE", "UNKNOWN_OUTCOME"}
NONE, ASKED, REQUESTED, FRIENDS, REMOVED = range(5)
WAIT = float(os.environ.get("CHASQUI_WAIT", "10"))  # seconds a test waits for what must come


class Refused(Exception):
    """The answer ERR."""

    def __init__(self, fields):
        self.number, self.text, self.retry_after_ms, self.detail = fields[:4]
        self.name = ERROR_NAMES.get(self.number, str(self.number))
        super().__init__(f"{self.name}: {self.text} (detail {self.detail})")


class Closed(Exception):
    """The connection is gone; code is that of the Close frame, if there was one."""

    def __init__(self, code=None):
        self.code = code
        super().__init__(f"closed with {code}")


class Row:
    """Fields with names, from an array. More fields than known are ignored, as the protocol demands."""

    def __init__(self, names, fields):
        assert len(fields) >= len(names), f"{len(fields)} fields, expected {names}"
        self.__dict__.update(zip(names, fields))

    def __repr__(self):
        return "Row(%s)" % ", ".join(f"{k}={v!r}" for k, v in self.__dict__.items())

    def __eq__(self, other):
        return isinstance(other, Row) and self.__dict__ == other.__dict__


def message_row(fields):
    """media: None or [blob, length, thumbnail]; servers of an earlier version do not send it."""
    names = "chat seq user device dseq time_unix_ms key_version nonce ciphertext media".split()
    return Row(names, fields if len(fields) >= len(names) else [*fields, None])


def row(names):
    return lambda fields: Row(names.split(), fields)


welcome_row = row("user name device token token_expires_unix_ms epoch store_key now_unix_ms heartbeat_interval_ms "
                  "heartbeat_limit_ms window edge")
friend_row = row("user name relation blocked chat open")
device_row = row("device label created_unix_ms revoked")
synced_row = row("epoch version reset more chats")
sync_chat_row = row("chat peer peer_name open key_version head unread first_unread read delivered last_dseq cursors")
cursor_row = row("user device up_to time_unix_ms")
chat_row = row("chat peer peer_name open head unread first_unread peer_delivered peer_read last")
life_row = row("chat seq pos user device dseq time_unix_ms durable_unix_ms more members devices")
life_member_row = row("user name read_unix_ms")
life_device_row = row("user device label revoked delivered_unix_ms")
receipt_row = row("chat user device up_to time_unix_ms version")
presence_row = row("user online last_seen_unix_ms")
typing_row = row("chat user on")


class Link:
    """One connection. A thread reads; answers are found by rid, pushes are kept in the order of arrival."""

    def __init__(self, url, heartbeat=True, **options):
        self.ws = websocket.create_connection(url, subprotocols=[SUBPROTOCOL], timeout=WAIT, **options)
        self.ws.settimeout(None)
        self.changed = threading.Condition()
        self.rids = itertools.count(1)
        self.answers = {}
        self.pushes = []
        self.frames = []  # every message from the edge, as a list of operations
        self.close_code = None
        self.is_closed = False
        self.pings = 0
        self.answer_pings = heartbeat
        self.sending = threading.Lock()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        code = None
        try:
            while True:
                frame = self.ws.recv_frame()
                if frame.opcode == websocket.ABNF.OPCODE_CLOSE:
                    code = struct.unpack("!H", frame.data[:2])[0] if len(frame.data) >= 2 else 1005
                    break
                if frame.opcode == websocket.ABNF.OPCODE_PING:
                    with self.changed:
                        self.pings += 1
                        self.changed.notify_all()
                    if self.answer_pings:
                        self._raw(lambda: self.ws.pong(frame.data))
                    continue
                if frame.opcode == websocket.ABNF.OPCODE_PONG:
                    continue
                data = frame.data
                while not frame.fin:
                    frame = self.ws.recv_frame()
                    data += frame.data
                self._take(msgpack.unpackb(data, raw=False, strict_map_key=False))
        except Exception:  # whatever the socket says: the connection is gone
            pass
        with self.changed:
            self.close_code = code
            self.is_closed = True
            self.changed.notify_all()

    def _take(self, ops):
        with self.changed:
            self.frames.append(ops)
            for op in ops:
                if op[0] in (OPS["OK"], OPS["ERR"]):
                    self.answers[op[1]] = op
                else:
                    self.pushes.append(op)
            self.changed.notify_all()

    def _raw(self, send):
        with self.sending:
            try:
                send()
            except Exception as e:
                raise Closed(self.close_code) from e

    def send_bytes(self, data, opcode=websocket.ABNF.OPCODE_BINARY):
        self._raw(lambda: self.ws.send(data, opcode))

    def send_ops(self, ops):
        self.send_bytes(msgpack.packb(ops, use_bin_type=True))

    def start(self, name, *fields):
        """Sends a request and returns its rid."""
        rid = next(self.rids)
        self.send_ops([[OPS[name] if isinstance(name, str) else name, rid, *fields]])
        return rid

    def wait(self, condition, timeout=None, what="what was expected"):
        """Waits until condition() is neither None nor False and returns it."""
        deadline = time.monotonic() + (WAIT if timeout is None else timeout)
        with self.changed:
            while True:
                value = condition()
                if value is not None and value is not False:
                    return value
                if self.is_closed:
                    raise Closed(self.close_code)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{what} did not come")
                self.changed.wait(left)

    def finish(self, rid, timeout=None):
        """The answer's fields; raises Refused."""
        op = self.wait(lambda: self.answers.get(rid), timeout, f"the answer to {rid}")
        del self.answers[rid]
        if op[0] == OPS["ERR"]:
            raise Refused(op[2:])
        return op[2:]

    def ask(self, name, *fields, timeout=None):
        return self.finish(self.start(name, *fields), timeout)

    def push(self, name, matches=lambda fields: True, timeout=None):
        """Takes the first push of this name that matches out of those that came, waiting for it."""

        def find():
            for op in self.pushes:
                if op[0] == OPS[name] and matches(op[1:]):
                    self.pushes.remove(op)
                    return op[1:]
            return None

        return self.wait(find, timeout, f"the push {name}")

    def has_push(self, name, matches=lambda fields: True):
        with self.changed:
            return any(op[0] == OPS[name] and matches(op[1:]) for op in self.pushes)

    def drop_pushes(self):
        with self.changed:
            self.pushes.clear()

    def closed(self, timeout=None):
        """Waits for the end of the connection and returns the code."""
        deadline = time.monotonic() + (WAIT if timeout is None else timeout)
        with self.changed:
            while not self.is_closed:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("the connection was not closed")
                self.changed.wait(left)
            return self.close_code

    def close(self):
        try:
            with self.sending:
                self.ws.send_close()
        except Exception:
            pass
        try:
            self.ws.shutdown()
        except Exception:
            pass
        self.reader.join(5)


def chat_id(a, b):
    low, high = sorted((a, b))
    return hashlib.blake2b(b"chasqui-chat" + low + high, digest_size=16).digest()


def be64(n):
    return struct.pack(">Q", n)


def media_ad(media):
    """What a message's associated data ends with when it has a media part."""
    if media is None:
        return b""
    blob, length, thumbnail = media[:3]
    return hashlib.blake2b(blob + be64(length) + thumbnail, digest_size=32).digest()


class Device:
    """One device of one person: identity, chat keys, counters, cursors, and a connection when it has one."""

    def __init__(self, name, password="correct horse battery", label="test"):
        self.name, self.password, self.label = name, password, label
        self.id = os.urandom(16)
        self.public, self.secret = bindings.crypto_box_keypair()
        self.link = None
        self.user = self.token = self.store_key = self.epoch = None
        self.version = 0
        self.keys = {}  # chat → (key version, key)
        self.dseq = {}  # chat → last dseq accepted
        self.held = {}  # chat → highest contiguous seq
        self.received = {}  # chat → highest seq given out by receive()
        self.messages = {}  # chat → {seq: text}
        self.names = {}  # name → (user, chat)

    # ---- connection ----

    def connect(self, url, **options):
        if self.link:
            self.link.close()
        self.link = Link(url, **options)
        return self

    def close(self):
        if self.link:
            self.link.close()
            self.link = None

    def welcome(self, fields):
        w = welcome_row(fields)
        if self.store_key is not None:
            assert w.store_key == self.store_key, "the store's key changed"
        if self.epoch is not None and self.epoch != w.epoch:
            self.version = 0
        self.user, self.token, self.store_key, self.epoch = w.user, w.token, w.store_key, w.epoch
        assert w.device == self.id and w.name == self.name
        self.welcomed = w
        return w

    def auth(self, name):
        return self.welcome(self.link.ask(name, self.name, self.password, self.id, self.public, self.label))

    def patiently(self, call):
        """As a client does it: what is only not possible right now is tried again."""
        deadline = time.monotonic() + WAIT * 2
        while True:
            try:
                return call()
            except Refused as e:
                if e.name not in TRANSIENT or time.monotonic() > deadline:
                    raise
                time.sleep(max(0.05, min(e.retry_after_ms / 1000, 2)))

    def signup(self, url=None):
        if url:
            self.connect(url)
        self.patiently(lambda: self.auth("SIGNUP"))
        return self

    def login(self, url=None):
        if url:
            self.connect(url)
        self.patiently(lambda: self.auth("LOGIN"))
        return self

    def resume(self, url=None):
        if url:
            self.connect(url)
        self.patiently(lambda: self.welcome(self.link.ask("RESUME", self.token)))
        return self

    def ask(self, name, *fields, **options):
        return self.link.ask(name, *fields, **options)

    # ---- friends ----

    def friend_op(self, op, name):
        f = friend_row(self.ask(op, name))
        if f.chat:
            self.names[f.name] = (f.user, f.chat)
        return f

    def friends(self):
        rows = [friend_row(f) for f in self.ask("FRIENDS")[0]]
        for f in rows:
            if f.chat:
                self.names[f.name] = (f.user, f.chat)
        return {f.name: f for f in rows}

    def chat(self, peer):
        """peer: a name, a Device, or a chat id."""
        if isinstance(peer, bytes):
            return peer
        name = peer.name if isinstance(peer, Device) else peer
        if name not in self.names:
            self.friends()
        return self.names[name][1]

    # ---- keys ----

    def fetch_keys(self, have=None):
        """KEYS until there is no more; checks the signature before anything is used."""
        while True:
            known = [[c, v] for c, (v, _) in self.keys.items()] if have is None else have
            sealed, signature, more, rows = self.ask("KEYS", known)[:4]
            raw = b"".join(msgpack.packb(r, use_bin_type=True) for r in rows)
            digest = hashlib.blake2b(raw, digest_size=32).digest()
            text = b"chasqui-keys-v1" + self.user + self.id + sealed + digest
            bindings.crypto_sign_open(signature + text, self.store_key)  # raises if it is not the store's
            bundle = bindings.crypto_box_seal_open(sealed, self.public, self.secret)
            for chat, version, nonce, wrapped in (r[:4] for r in rows):
                key = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(wrapped, chat + be64(version), nonce, bundle)
                self.keys[chat] = (version, key)
            if not more:
                return len(rows)

    def key(self, chat):
        if chat not in self.keys:
            self.fetch_keys()
        return self.keys[chat]

    def encrypt(self, chat, text, dseq, media=None):
        """(key version, nonce, ciphertext); text: a string, or the whole plaintext as a list"""
        version, key = self.key(chat)
        nonce = os.urandom(24)
        plain = msgpack.packb(text if isinstance(text, list) else [1, text], use_bin_type=True)
        ad = chat + self.user + self.id + be64(dseq) + be64(version) + media_ad(media)
        return version, nonce, bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plain, ad, nonce, key)

    def decrypt(self, m):
        """The text of a text message, the list of any other."""
        version, key = self.key(m.chat)
        assert version == m.key_version
        ad = m.chat + m.user + m.device + be64(m.dseq) + be64(m.key_version) + media_ad(m.media)
        plain = msgpack.unpackb(
            bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(m.ciphertext, ad, m.nonce, key), raw=False)
        return plain[1] if plain[0] == 1 else plain

    # ---- messages ----

    def prepare(self, peer, text, dseq=None, prev=None, media=None):
        """The fields of a SEND, final: a retry sends the same again."""
        chat = self.chat(peer)
        last = self.dseq.get(chat, 0)
        prev = last if prev is None else prev
        dseq = last + 1 if dseq is None else dseq
        version, nonce, ciphertext = self.encrypt(chat, text, dseq, media)
        return [chat, dseq, prev, version, nonce, ciphertext, *([] if media is None else [media])]

    def send_prepared(self, fields, timeout=None):
        """(seq, time)"""
        seq, at = self.ask("SEND", *fields, timeout=timeout)[:2]
        self.dseq[fields[0]] = max(self.dseq.get(fields[0], 0), fields[1])
        return seq, at

    def send(self, peer, text, timeout=None):
        return self.send_prepared(self.prepare(peer, text), timeout)[0]

    def take(self, m, text=None):
        """A message of a push or a history: checked against what is held; true if it is new and next."""
        held = self.held.get(m.chat, 0)
        if m.seq <= held:
            return False
        assert m.seq == held + 1, f"gap: held {held}, got {m.seq}"
        self.held[m.chat] = m.seq
        self.messages.setdefault(m.chat, {})[m.seq] = self.decrypt(m) if text is None else text
        return True

    def receive(self, peer, timeout=None):
        """The next MESSAGE push of a chat: (seq, text). Repeats of what was received before are dropped."""
        chat = self.chat(peer)
        m = message_row(self.link.push(
            "MESSAGE", lambda f: f[0] == chat and f[1] > self.received.get(chat, 0), timeout))
        self.received[chat] = m.seq
        return m.seq, self.decrypt(m)

    def arrives(self, peer, text, timeout=None):
        """Waits until a text has come as a client gets it: by a push, or by the sync that SYNC_NOW asks for."""
        chat = self.chat(peer)

        def news():
            for op in list(self.link.pushes):
                if op[0] in (OPS["MESSAGE"], OPS["SYNC_NOW"]):
                    self.link.pushes.remove(op)
                    return op
            return None

        while text not in self.messages.get(chat, {}).values():
            op = self.link.wait(news, timeout, f"the text {text!r}")
            m = message_row(op[1:]) if op[0] == OPS["MESSAGE"] else None
            if m is None or m.seq > self.held.get(m.chat, 0) + 1:
                self.catch_up()
            else:
                self.take(m)

    def history(self, peer, first=1, last=2**63 - 1):
        """All messages of the range, as rows with .text."""
        chat, rows = self.chat(peer), []
        while True:
            head, more, part = self.ask("HISTORY", chat, first, last)[:3]
            part = [message_row(m) for m in part]
            rows += part
            if not more:
                break
            assert part, "more without messages"
            first = part[-1].seq + 1
        for m in rows:
            m.text = self.decrypt(m)
        return rows

    def texts(self, peer):
        return [m.text for m in self.history(peer)]

    def ack(self, peer, delivered=0, read=0):
        self.ask("ACK", [[self.chat(peer), delivered, read]])

    def receipt(self, peer, user, up_to, device=None, timeout=None):
        """Waits for a RECEIPT of this user and device (None: read) that reaches up_to."""
        chat = self.chat(peer)
        return receipt_row(self.link.push(
            "RECEIPT", lambda f: f[0] == chat and f[1] == user and f[2] == device and f[3] >= up_to, timeout))

    def ledger(self, peer, seq):
        """The life of a message; members by user id, devices by (user, device)."""
        life = life_row(self.ask("LEDGER", self.chat(peer), seq))
        life.members = {m.user: m for m in map(life_member_row, life.members)}
        life.devices = {(d.user, d.device): d for d in map(life_device_row, life.devices)}
        return life

    # ---- state ----

    def sync(self, epoch=None, version=None):
        """All chats that changed, by chat id."""
        chats = {}
        epoch = self.epoch if epoch is None else epoch
        version = self.version if version is None else version
        while True:
            s = synced_row(self.ask("SYNC", epoch, version))
            for c in s.chats:
                c = sync_chat_row(c)
                c.cursors = [cursor_row(x) for x in c.cursors]
                chats[c.chat] = c
            version = self.version = s.version
            epoch = self.epoch = s.epoch
            self.was_reset = s.reset
            if not s.more:
                return chats

    def catch_up(self):
        """What a device does after login: sync, keys, history of every chat, acknowledged. Returns the new texts by chat."""
        self.fetch_keys()
        new = {}
        for chat, c in self.sync().items():
            self.names[c.peer_name] = (c.peer, chat)
            self.dseq[chat] = max(self.dseq.get(chat, 0), c.last_dseq)
            held = self.held.get(chat, 0)
            if c.head > held:
                for m in self.history(chat, held + 1, c.head):
                    if self.take(m, m.text):
                        new.setdefault(chat, []).append(m.text)
                assert self.held[chat] == c.head
            if c.head > c.delivered:
                self.ask("ACK", [[chat, c.head, 0]])
        return new

    def chats(self):
        rows, after = [], None
        while True:
            more, part = self.ask("CHATS", after)[:2]
            rows += [chat_row(c) for c in part]
            if not more:
                return {c.peer_name: c for c in rows}
            after = rows[-1].chat

    def presence(self, *users):
        return {p.user: p for p in map(presence_row, self.ask("PRESENCE", list(users))[0])}


def befriend(a, b):
    """a asks, b accepts; both have the chat's key afterwards. Returns the chat id."""
    a.friend_op("ADD", b.name)
    f = b.friend_op("ACCEPT", a.name)
    a.friends()
    for d in (a, b):
        d.fetch_keys()
        d.link.drop_pushes()
    return f.chat
