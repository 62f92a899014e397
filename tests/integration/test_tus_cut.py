# SPDX-License-Identifier: MPL-2.0
"""Uploads and downloads that are cut: by clients, networks, and kill -9 of every service."""

import concurrent.futures
import os
import random
import signal
import socket
import threading
import time

import pytest
from chasqui import WAIT
from system import eventually
from tus import DATA, Http, Resuming, Tus, bearer

CUT = 200_000
KILLS = 3
SIZE = 10_000_000
SYSTEM = {"edges": 2, "edge": ["--blob-files", "false", "--user-transfers-max", "200", "--handshake-timeout-ms", "3000"]}


@pytest.fixture(scope="module")
def ana(system):
    person = system.person(1)
    yield person
    person.close()


@pytest.fixture(scope="module")
def picture():
    return os.urandom(SIZE)


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "silent"])
def test_an_upload_cut_every_200_kb(system, ana, picture, is_closed):
    """The connection breaks, or nothing more comes through it and it stays open as far as the edge knows."""
    tus = Tus(system.port, ana.token)
    path = tus.create(SIZE)
    at = again = cuts = 0
    old = []
    while at < SIZE:
        sent = min(SIZE, at + CUT)
        old.append(tus.patch_begin(path, at, picture[at:], sent - at))
        if is_closed:
            old.pop().close()
        a = tus.state(path)
        assert a.status == 200 and at < a.offset <= sent, (a, at, sent)
        again, cuts, at = again + sent - a.offset, cuts + 1, a.offset
    for c in old:
        c.close()
    print(f"sent again: {again} bytes in {cuts} cuts")
    assert cuts >= SIZE // CUT and again <= 65536 * cuts
    assert tus.get(path).body == picture


@pytest.mark.parametrize("is_file", ["false", "true"], ids=["bus", "file"])
def test_a_draining_edge_lets_transfers_end(system, ana, picture, is_file):
    edge = system.edge(1)
    command = edge.command
    edge.command = [*command, "--blob-files", is_file]
    edge.restart()
    system.wait_ready()
    edge.command = command  # for whoever starts it next
    path = Tus(system.port + 1, ana.token).upload(picture)
    tus = Tus(system.port, ana.token)
    half = tus.create(SIZE)
    down, kept = Http(system.port, rcvbuf=4096), Http(system.port)
    down.head("GET", path, authorization=bearer(ana.token))
    up = tus.patch_begin(half, 0, picture, CUT)
    down.read_head()
    before = len(edge.log_bytes())
    edge.signal(signal.SIGTERM)
    edge.wait_log("EDGE-DRAIN-LEAVING", before)
    time.sleep(0.3)
    assert kept.ask("GET", path, authorization=bearer(ana.token)).status == 503
    time.sleep(0.7)
    assert edge.is_alive()
    up.send(picture[CUT:])
    a = up.answer()
    assert a.status == 204 and a.offset == SIZE, a
    assert edge.is_alive()
    while len(down.got) < SIZE and down.fill():
        pass
    assert down.got == picture
    assert edge.process.wait(WAIT) == 0
    for c in (down, kept, up):
        c.close()


def test_a_draining_edge_cuts_transfers_at_its_limit(system, ana, picture):
    edge = system.edge(1)
    command = edge.command
    edge.command = [*command, "--drain-limit-ms", "1000"]
    edge.restart()
    system.wait_ready()
    edge.command = command
    path = Tus(system.port + 1, ana.token).upload(picture)
    c = Http(system.port, rcvbuf=4096)
    c.head("GET", path, authorization=bearer(ana.token))
    c.read_head()
    start = time.monotonic()
    edge.signal(signal.SIGTERM)
    assert edge.process.wait(WAIT) == 0
    assert time.monotonic() - start > 0.9
    while len(c.got) < SIZE and c.fill():
        pass
    assert len(c.got) < SIZE
    c.close()


def test_a_download_cut_every_200_kb(system, ana, picture):
    tus = Tus(system.port, ana.token)
    path = tus.upload(picture)
    got, tag = b"", None
    while len(got) < SIZE:
        c = Http(system.port + len(got) // CUT % 2)  # from either edge
        c.head("GET", path, authorization=bearer(ana.token), range=f"bytes={len(got)}-", if_range=tag)
        a = c.answer(limit=CUT)
        assert a.status == 206, a
        got, tag = got + a.body, a["etag"]
        c.close()
    assert got == picture


def test_cuts_anywhere(system, ana):
    """In heads, between head and body, in bodies: 200 connections, and the upload is right at the end."""
    rnd = random.Random(7)
    data = rnd.randbytes(1_000_000)
    tus = Tus(system.port, ana.token)
    path = tus.create(len(data))
    for i in range(200):
        at = tus.state(path).offset
        if at == len(data):
            break
        head = (f"PATCH {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer(ana.token)}\r\nTus-Resumable: 1.0.0\r\n"
                f"Upload-Offset: {at}\r\nContent-Type: {DATA}\r\nContent-Length: {len(data) - at}\r\n\r\n").encode()
        whole = head + data[at:at + 20_000]
        with socket.create_connection(("127.0.0.1", system.port + i % 2)) as s:
            end = rnd.randrange(len(whole))
            middle = rnd.randrange(end + 1)
            s.sendall(whole[:middle])
            s.sendall(whole[middle:end])
    last = Resuming([system.port], ana.token, data)
    last.path = path
    assert tus.get(last.run()).body == data


def test_a_second_transfer_takes_over(system, ana):
    """The first connection is half dead: the client goes on through another edge, and the first gets nothing in any more."""
    data = os.urandom(1_000_000)
    first = Http(system.port)
    one, two = Tus(system.port, ana.token), Tus(system.port + 1, ana.token)
    path = one.create(len(data))
    first.head("PATCH", path, authorization=bearer(ana.token), tus_resumable="1.0.0", upload_offset=0, content_type=DATA,
               content_length=len(data))
    first.send(data[:300_000])
    eventually(lambda: two.state(path).offset >= 4 * 65536, what="data has come")
    at = two.state(path).offset
    assert two.patch(path, at, data[at:at + 200_000]).status == 204
    try:
        first.send(b"wrong" * 100_000)
    except ConnectionError:
        pass
    a = first.answer()
    assert a.status == 409 and a.error == "bad_state", a
    first.close()
    at = two.state(path).offset
    assert two.patch(path, at, data[at:]).status == 204
    assert one.get(path).body == data


def test_garbage(system, ana):
    """Requests with bytes turned, left out and doubled: each is answered or cut off, and the edge lives."""
    rnd = random.Random(11)
    path = Tus(system.port, ana.token).create(1000)
    good = [f"{m} {p} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer(ana.token)}\r\nTus-Resumable: 1.0.0\r\nUpload-Length: 10\r\n"
            f"Upload-Offset: 0\r\nContent-Type: {DATA}\r\nUpload-Metadata: a YWJj,b\r\nUpload-Checksum: sha1 YWJj\r\n"
            f"Range: bytes=0-5\r\nIf-None-Match: \"x\"\r\nContent-Length: 5\r\nConnection: close\r\n\r\nabcde".encode()
            for m, p in (("POST", "/blob"), ("PATCH", path), ("HEAD", path), ("GET", path), ("DELETE", path), ("OPTIONS", "/blob"))]
    for i in range(600):
        bad = bytearray(good[i % len(good)])
        for _ in range(rnd.randrange(1, 4)):
            at = rnd.randrange(len(bad))
            kind = rnd.randrange(3)
            if kind == 0:
                bad[at] = rnd.randrange(256)
            elif kind == 1:
                del bad[at:at + rnd.randrange(1, 30)]
            else:
                bad[at:at] = bad[at:at + rnd.randrange(1, 30)]
            bad = bad or bytearray(b"\0")
        with socket.create_connection(("127.0.0.1", system.port), timeout=10) as s:
            try:
                s.sendall(bad)
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
            except ConnectionError:
                pass
    assert system.is_ready(1)


@pytest.mark.parametrize("victims", [["edge.1", "edge.2"], ["blobd"], ["store"], ["edge.1", "blobd", "store", "broker"]],
                         ids=["edges", "blobd", "store", "all"])
def test_kill_9_during_uploads(system, ana, victims):
    """Every upload ends whole, whoever dies."""
    rnd = random.Random(len(victims))
    stop = threading.Event()

    def kill_one_after_the_other():
        try:
            for _ in range(KILLS):
                time.sleep(0.3)
                service = system.services[rnd.choice(victims)]
                service.kill()
                service.start()
                system.wait_ready()
        finally:
            stop.set()

    def upload(number):
        """One after the other as long as somebody is killed: (path, seed, size) of each."""
        mine, done = random.Random(number), []
        while not stop.is_set():
            seed, size = mine.randrange(1 << 30), mine.randrange(1, 3_000_000)
            data = random.Random(seed).randbytes(size)
            done.append((Resuming(ports, ana.token, data).run(), seed, size))
        return done

    killer = threading.Thread(target=kill_one_after_the_other)
    ports = [system.port, system.port + 1]
    killer.start()
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            done = [x for part in pool.map(upload, range(4)) for x in part]
    finally:
        stop.set()
        killer.join()
    system.heal()
    tus = Tus(system.port, ana.token)
    print(f"{len(done)} uploads")
    for path, seed, size in done:
        a = tus.get(path)
        assert a.status == 200 and a.body == random.Random(seed).randbytes(size), (path, a.status)
