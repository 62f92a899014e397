# SPDX-License-Identifier: MPL-2.0
"""A TCP proxy in front of an edge that cuts, holds or spoils HTTP connections, and counts. WebSockets pass unharmed."""

import contextlib
import fcntl
import select
import socket
import struct
import termios
import threading

BUFFER = 16384


class Cutter:
    """cut_every: an HTTP connection ends after so many bytes in either direction. hold_after: after so many bytes (over all
    connections, per direction) nothing goes on until release(). spoil: position in what one connection brings down."""

    def __init__(self, port, cut_every=None, hold_after=None, spoil=None):
        self.target = ("127.0.0.1", port)
        self.cut_every, self.hold_after, self.spoil = cut_every, hold_after, spoil
        self.up = self.down = self.cuts = 0  # bytes of HTTP connections that went through; how often one was cut
        self.lost = 0  # bytes that a sender had got rid of when the connection was cut
        self.requests = []  # first lines
        self.released = threading.Event()
        self.holding = threading.Event()
        self.lock = threading.Lock()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.url = f"ws://127.0.0.1:{self.listener.getsockname()[1]}/ws"
        threading.Thread(target=self._accept, daemon=True).start()

    def release(self):
        self.released.set()

    def close(self):
        self.release()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        with client, server, contextlib.suppress(OSError):
            server.connect(self.target)
            first = client.recv(BUFFER)
            if not first:
                return
            is_http = not first.startswith(b"GET /ws")
            self._pump(client, server, first, is_http)

    def _note(self, data):
        for line in data.split(b"\r\n"):
            if line.endswith(b"HTTP/1.1"):
                self.requests.append(line.decode())

    def _pump(self, client, server, first, is_http):
        moved = {client: 0, server: 0}
        self._note(first) if is_http else None
        data, source = first, client
        while True:
            if data is None:
                source = select.select([client, server], [], [])[0][0]
                data = source.recv(BUFFER)
                if not data:
                    return
                if is_http and source is client:
                    self._note(data[:512] if data[:5] in (b"PATCH", b"HEAD ", b"POST ", b"GET /") else b"")
            if is_http:
                data = self._treat(data, source is client, moved[source])
                moved[source] += len(data)
            (server if source is client else client).sendall(data)
            if is_http and self.cut_every and moved[source] >= self.cut_every:
                self._cut(client, server)
                return
            data = None

    def _treat(self, data, is_up, moved):
        if self.spoil is not None and not is_up and moved <= self.spoil < moved + len(data):
            at = self.spoil - moved
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
        with self.lock:
            so_far = self.up if is_up else self.down
            if is_up:
                self.up += len(data)
            else:
                self.down += len(data)
        if self.hold_after is not None and so_far + len(data) > self.hold_after and not self.released.is_set():
            self.holding.set()
            self.released.wait()
        return data

    def _cut(self, *sockets):
        """What waits here is lost to its sender."""
        lost = sum(struct.unpack("i", fcntl.ioctl(s, termios.FIONREAD, b"1234"))[0] for s in sockets)
        with self.lock:
            self.cuts += 1
            self.lost += lost
