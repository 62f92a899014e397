# SPDX-License-Identifier: MPL-2.0
"""Blobs over HTTP, byte by byte on sockets (docs/protocol.md): requests that can be cut anywhere, answers read by hand."""

import base64
import hashlib
import json
import socket
import time

from chasqui import WAIT

DATA = "application/offset+octet-stream"


class Answer:
    def __init__(self, status, headers, body=b"", is_whole=True):
        self.status, self.headers, self.body, self.is_whole = status, headers, body, is_whole

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:200]}"

    def __getitem__(self, name):
        return self.headers.get(name)

    @property
    def error(self):
        return json.loads(self.body)["error"]

    @property
    def offset(self):
        return int(self.headers["upload-offset"])


class Http:
    """One connection. ssl: a context."""

    def __init__(self, port, seconds=WAIT, rcvbuf=0, ssl=None):
        self.s = socket.socket()
        if rcvbuf:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.s.settimeout(seconds)
        self.s.connect(("127.0.0.1", port))
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if ssl:
            self.s = ssl.wrap_socket(self.s, server_hostname="localhost")
        self.got = b""

    def close(self):
        self.s.close()

    def send(self, data):
        self.s.sendall(data)

    def head(self, method, path, **headers):
        """Sends a request's head; header names with _ for -."""
        lines = [f"{method} {path} HTTP/1.1"]
        headers.setdefault("host", "localhost")
        lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items() if v is not None]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def fill(self):
        """More input; False at the end."""
        try:
            part = self.s.recv(1 << 20)
        except ConnectionError:
            part = b""
        self.got += part
        return bool(part)

    def read_head(self):
        while b"\r\n\r\n" not in self.got:
            if not self.fill():
                return Answer(0, {}, self.got, False)
        head, self.got = self.got.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        return Answer(int(first.split()[1]), {k.lower(): v.strip() for k, v in (x.split(":", 1) for x in lines)})

    def answer(self, method="GET", limit=None):
        """The next answer, its body at most `limit` bytes."""
        a = self.read_head()
        if method == "HEAD" or a.status in (0, 100, 204, 304):
            return a
        want = int(a.headers["content-length"])
        end = want if limit is None else min(want, limit)
        while len(self.got) < end and self.fill():
            pass
        a.body, self.got = self.got[:end], self.got[end:]
        a.is_whole = len(a.body) == want
        return a

    def ask(self, method, path, body=b"", **headers):
        if body:
            headers.setdefault("content_length", len(body))
        self.head(method, path, **headers)
        if body:
            try:
                self.send(body)
            except ConnectionError:
                pass  # refused before it was all sent: the answer says why
        return self.answer(method)


def bearer(token):
    return "Bearer " + base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def checksum(data, name="sha1"):
    return f"{name} " + base64.b64encode(hashlib.new(name, data).digest()).decode()


class Tus:
    """One user's uploads and downloads, a connection each time, through the port that is given now."""

    def __init__(self, port, token, **options):
        self.port, self.token, self.options = port, token, options

    def ask(self, method, path, body=b"", **headers):
        c = Http(self.port, **self.options)
        try:
            return c.ask(method, path, body, **{"authorization": bearer(self.token), **headers})
        finally:
            c.close()

    def tus(self, method, path, body=b"", **headers):
        return self.ask(method, path, body, **{"tus_resumable": "1.0.0", **headers})

    def create(self, length, body=b"", **headers):
        """The URL's path."""
        if body:
            headers.setdefault("content_type", DATA)
        a = self.tus("POST", "/blob", body, **{"upload_length": length, **headers})
        assert a.status == 201, a
        return a["location"]

    def patch(self, path, offset, data, **headers):
        return self.tus("PATCH", path, data, **{"upload_offset": offset, "content_type": DATA, **headers})

    def state(self, path):
        return self.tus("HEAD", path)

    def upload(self, data):
        path = self.create(len(data))
        if data:
            a = self.patch(path, 0, data)
            assert a.status == 204 and a.offset == len(data), a
        return path

    def get(self, path, **headers):
        return self.ask("GET", path, **headers)

    def patch_begin(self, path, offset, data, n):
        """Sends n bytes of a PATCH with all of data: the connection."""
        c = Http(self.port, **self.options)
        c.head("PATCH", path, authorization=bearer(self.token), tus_resumable="1.0.0", upload_offset=offset,
               content_type=DATA, content_length=len(data))
        c.send(data[:n])
        return c


class Resuming:
    """An upload that survives whatever happens: asks where it is and goes on, on any of the edges, until it is whole."""

    def __init__(self, ports, token, data, seconds=60):
        self.ports, self.token, self.data = ports, token, data
        self.path, self.sent, self.tries = None, 0, 0
        self.deadline = time.monotonic() + seconds

    def _try(self, tus):
        if not self.path:
            a = tus.tus("POST", "/blob", upload_length=len(self.data))
            self.path = a["location"] if a.status == 201 else None
            return False
        a = tus.state(self.path)
        if a.status != 200:
            assert a.status in (0, 429, 500, 503, 504), a
            return False
        if a.offset == len(self.data):
            return True
        self.sent += len(self.data) - a.offset
        a = tus.patch(self.path, a.offset, self.data[a.offset:])
        assert a.status in (0, 204, 409, 429, 500, 503, 504), a
        return False

    def run(self):
        while True:
            assert time.monotonic() < self.deadline, f"not whole after {self.tries} tries"
            self.tries += 1
            try:
                if self._try(Tus(self.ports[self.tries % len(self.ports)], self.token)):
                    return self.path
            except OSError:
                pass
            time.sleep(0.02)
