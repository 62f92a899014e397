# SPDX-License-Identifier: MPL-2.0
"""chasqui.v1 over asyncio, as little as a load generator needs: one connection, requests with answers, pushes."""

import asyncio
import base64
import os
import struct

import msgpack
from chasqui import ERROR_NAMES, OPS, SUBPROTOCOL, TRANSIENT, Closed, Refused

OK, ERR = OPS["OK"], OPS["ERR"]
# Besides what is transient to every client: the harness fills the disk, and reconnects before a slow edge has noticed.
AGAIN = TRANSIENT | {"NO_SPACE", "WINDOW_FULL", "IO", "NOT_AUTHENTICATED"}
ZERO_MASK = bytes(4)  # a client must mask; nobody says with what
BINARY, CLOSE, PING, PONG = 2, 8, 9, 10


def frame(opcode, data):
    n = len(data)
    if n < 126:
        return bytes((0x80 | opcode, 0x80 | n)) + ZERO_MASK + data
    if n < 65536:
        return struct.pack(">BBH", 0x80 | opcode, 0xFE, n) + ZERO_MASK + data
    return struct.pack(">BBQ", 0x80 | opcode, 0xFF, n) + ZERO_MASK + data


class Connection(asyncio.Protocol):
    """on_push(op) for each push; answers go to futures (ask) or callbacks (call). All that one turn produces is one message."""

    def __init__(self, on_push, on_lost):
        self.on_push, self.on_lost = on_push, on_lost
        self.opened = asyncio.get_running_loop().create_future()
        self.buffer, self.parts = bytearray(), []
        self.waiting, self.next_rid, self.out = {}, 1, []
        self.is_open = self.is_lost = False
        self.transport = None

    @classmethod
    async def open(cls, port, on_push, on_lost, timeout=5):
        loop = asyncio.get_running_loop()
        _, self = await asyncio.wait_for(
            loop.create_connection(lambda: cls(on_push, on_lost), "127.0.0.1", port), timeout)
        try:
            await asyncio.wait_for(self.opened, timeout)
        except BaseException:
            self.abort()
            raise
        return self

    # ---- asyncio ----

    def connection_made(self, transport):
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write((f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                         f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n").encode())

    def connection_lost(self, exc):
        self.is_open, self.is_lost = False, True
        if not self.opened.done():
            self.opened.set_exception(Closed())
            self.opened.exception()  # nobody may be waiting any more
        waiting, self.waiting = self.waiting, {}
        for callback in waiting.values():
            callback(None)
        self.on_lost(self)

    def data_received(self, data):
        self.buffer += data
        if not self.is_open:
            head, found, rest = bytes(self.buffer).partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.abort()
                return
            self.buffer, self.is_open = bytearray(rest), True
            if not self.opened.done():
                self.opened.set_result(True)
        while self._frame():
            pass

    def _frame(self):
        b = self.buffer
        if len(b) < 2:
            return False
        n, at = b[1] & 127, 2
        if n >= 126:
            at = 4 if n == 126 else 10
            if len(b) < at:
                return False
            n = int.from_bytes(b[2:at], "big")
        if len(b) < at + n:
            return False
        opcode, fin, data = b[0] & 15, b[0] & 128, bytes(b[at:at + n])
        del b[:at + n]
        if opcode == PING:
            self.transport.write(frame(PONG, data))
        elif opcode == CLOSE:
            self.abort()
            return False
        elif opcode in (0, BINARY):
            self.parts.append(data)
            if fin:
                whole, self.parts = b"".join(self.parts), []
                self._take(msgpack.unpackb(whole, raw=False, strict_map_key=False))
        return not self.is_lost

    def _take(self, ops):
        for op in ops:
            if op[0] in (OK, ERR):
                callback = self.waiting.pop(op[1], None)
                if callback:
                    callback(op)
            else:
                self.on_push(op)

    # ---- use ----

    def abort(self):
        """Gone from one moment to the next, as a killed client is."""
        if self.transport:
            self.transport.abort()

    def call(self, name, fields, callback):
        """callback(the whole answer), or callback(None) when the connection is lost before."""
        rid = self.next_rid
        self.next_rid += 1
        if self.is_lost:
            callback(None)
            return
        self.waiting[rid] = callback
        if not self.out:
            asyncio.get_running_loop().call_soon(self._flush)
        self.out.append([OPS[name], rid, *fields])

    def _flush(self):
        ops, self.out = self.out, []
        if ops and not self.is_lost:
            self.transport.write(frame(BINARY, msgpack.packb(ops, use_bin_type=True)))

    async def ask(self, name, *fields, timeout=15):
        """The answer's fields; raises Refused, Closed, TimeoutError."""
        future = asyncio.get_running_loop().create_future()
        self.call(name, fields, lambda op: future.done() or future.set_result(op))
        op = await asyncio.wait_for(future, timeout)
        if op is None:
            raise Closed()
        if op[0] == ERR:
            raise Refused(op[2:])
        return op[2:]

    async def insist(self, name, *fields, patience=30):
        """ask, again while it is only not possible right now."""
        end = asyncio.get_running_loop().time() + patience
        while True:
            try:
                return await self.ask(name, *fields)
            except Refused as e:
                if e.name not in AGAIN or asyncio.get_running_loop().time() > end:
                    raise
                await asyncio.sleep(0.03 + min(e.retry_after_ms, 200) / 1000)


def error_name(op):
    return ERROR_NAMES.get(op[2], str(op[2]))
