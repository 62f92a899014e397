# SPDX-License-Identifier: MPL-2.0
"""Who does not read is a burden to himself alone: his queue is bounded, nothing durable is lost, the others notice nothing."""
import socket
import threading
import time

import pytest
from chasqui import Device, Link, message_row
from ctl import Ctl
from system import eventually

QUEUE = 65536
SYSTEM = {"edge": ["--session-queue-max-bytes", str(QUEUE), "--heartbeat-interval-ms", "500", "--heartbeat-limit-ms", "3000"],
          "presence": ["--grace-ms", "1500"]}
TEXT, COUNT = "x" * 12000, 400
HISTORIES = 4  # that one session may wait for: session-requests-max 64, a long answer counts 16
LONG = 40


class SlowLink(Link):
    """One that can stop reading, with little room in its socket."""

    def __init__(self, url, **options):
        self.reads = threading.Event()
        self.reads.set()
        super().__init__(url, sockopt=((socket.SOL_SOCKET, socket.SO_RCVBUF, 4096),), **options)
        recv = self.ws.recv_frame

        def when_allowed():
            self.reads.wait()
            return recv()

        self.ws.recv_frame = when_allowed


def slow_device(system, person, edge):
    d = Device(person.name, person.password, label="slow")
    d.link = SlowLink(system.url(edge))
    d.login()
    d.catch_up()
    d.link.reads.clear()
    says_hello(d)  # the answer wakes the reader, which waits from then on
    return d


def says_hello(d):
    """PING: it lives, although it does not read."""
    d.link.start("PING")


def metric(system, edge, name):
    return Ctl(system).metric(f"edge.{edge}", f"chasqui_edge_{name}")


@pytest.fixture
def slow(system, pair):
    d = slow_device(system, pair[1], 2)
    yield d
    d.link.reads.set()
    d.close()


def test_a_device_that_does_not_read(system, pair, slow):
    x, y = pair
    slowest = 0
    for i in range(COUNT):
        start = time.monotonic()
        x.send(y, f"{i} {TEXT}")
        assert y.receive(x)[1] == f"{i} {TEXT}"
        slowest = max(slowest, time.monotonic() - start)
        if i % 10 == 0:
            says_hello(slow)
    assert slowest < 5
    x.ask("TYPING", x.chat(y), True)
    y.link.push("TYPING_NOTE")
    # The edge keeps no more than the bound, and drops pushes, not messages.
    assert metric(system, 2, "sessions_lagging") == 1
    assert metric(system, 2, "queued_bytes") <= QUEUE + 65536
    # He reads again: he is told to sync and has everything, once and in order.
    slow.link.reads.set()
    slow.link.push("SYNC_NOW", timeout=LONG)
    slow.catch_up()
    chat = slow.chat(x)
    assert [slow.messages[chat][n + 1] for n in range(COUNT)] == [f"{i} {TEXT}" for i in range(COUNT)]
    assert not any(op[0] == 0x94 for op in slow.link.pushes), "typing of long ago is not told"
    eventually(lambda: metric(system, 2, "sessions_lagging") == 0, what="not lagging any more")
    # And gets pushes as everybody does.
    x.send(y, "after")
    m = message_row(slow.link.push("MESSAGE", lambda f: f[0] == chat and f[1] == COUNT + 1))
    assert slow.decrypt(m) == "after"


def test_one_who_never_reads_again_is_ended(system, pair, slow):
    x, y = pair
    number = metric(system, 2, "sessions")
    for i in range(40):
        x.send(y, f"{i} {TEXT}")
    eventually(lambda: metric(system, 2, "sessions") == number - 1, LONG, "the end of the session")
    assert metric(system, 2, "queued_bytes") == 0
    for i in range(40):  # on a busy machine y itself may lag for a moment, and sync
        y.arrives(x, f"{i} {TEXT}")
    held = y.messages[y.chat(x)]
    assert [held[i + 1] for i in range(40)] == [f"{i} {TEXT}" for i in range(40)]


def test_one_who_asks_and_does_not_read_is_not_read(system, pair, slow):
    """Questions whose answers nobody takes: the edge stops reading them, and does not judge him by the heartbeats that it does
    not read either; only if nothing can be written for long he is ended."""
    x, y = pair
    for i in range(30):
        x.send(y, f"{i} {TEXT}")
    number, chat = metric(system, 2, "sessions"), slow.chat(x)
    says_hello(slow)  # looking at metrics may take long
    lost = metric(system, 2, "heartbeat_lost_total")
    says_hello(slow)
    for _ in range(300):
        slow.link.start("HISTORY", chat, 1, 30)
    eventually(lambda: metric(system, 2, "sessions_paused") == 1, what="not read any more")
    answer = 30 * (len(TEXT) + 100)
    assert metric(system, 2, "queued_bytes") <= QUEUE + HISTORIES * answer, "not 300 answers"
    start = time.monotonic()
    x.send(y, "in between")
    y.arrives(x, "in between")
    assert time.monotonic() - start < 5
    eventually(lambda: metric(system, 2, "sessions") == number - 1, LONG, "the end of one who is stuck")
    assert "EDGE-SESSION-STUCK" in system.edge(2).tail(100000)
    assert metric(system, 2, "heartbeat_lost_total") == lost, "not judged by heartbeats"
    assert metric(system, 2, "sessions_paused") == 0
