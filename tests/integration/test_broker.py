# SPDX-License-Identifier: MPL-2.0
"""The broker from outside: docs/bus.md with raw pyzmq against the real program."""
import os
import pathlib
import queue
import signal
import stat
import subprocess
import sys
import threading
import time

import msgpack
import pytest
import zmq

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
import bus  # noqa: E402
from bus import BOUNCE, DOWN, METRICS, PING, UP, WHO, Actor  # noqa: E402

BIN = pathlib.Path(os.environ.get("CHASQUI_BIN", ROOT / "build" / "release" / "bin"))
BUSY, UNROUTABLE, DENIED = 31, 35, 47
LEASE_MS = 900
NOTE = 0x35  # any operation that the broker passes on


class Broker:
    def __init__(self, folder):
        self.path = folder / "broker.sock"
        self.endpoint = f"ipc://{self.path}"
        self.process = None
        self.start()

    def start(self):
        command = [BIN / "chasqui-broker", "--endpoint", self.endpoint, "--lease-ms", str(LEASE_MS)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        assert "BROKER-LISTEN" in line, line

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait(10)
        return self.process.stderr.read()


@pytest.fixture
def broker(tmp_path):
    b = Broker(tmp_path)
    yield b
    if b.process.poll() is None:
        log = b.stop()
        assert b.process.returncode == 0, log


@pytest.fixture
def join(broker):
    actors = []

    def make(name, role=None, **more):
        actors.append(Actor(broker.endpoint, name, role or name.split(".")[0], **more))
        return actors[-1]

    yield make
    for a in actors:
        a.close()


def test_registration_is_announced(join):
    store = join("store.1")
    assert store.peers == {}
    edge = join("edge.1")
    assert edge.peers == {"store.1": ("store", store.incarnation)}
    assert edge.lease_s == LEASE_MS / 1000
    _, _, item = store.wait_event(UP)
    assert item == [0, "edge.1", "edge", edge.incarnation]
    edge.leave()
    _, _, item = store.wait_event(DOWN)
    assert item == [0, "edge.1", "edge", edge.incarnation]


def test_socket_is_the_owners_alone(broker):
    assert stat.S_IMODE(broker.path.stat().st_mode) == 0o600


def test_route_to_a_name_and_set_the_source(join):
    a, b = join("edge.1"), join("edge.2")
    a.send("edge.2", NOTE, [[0, "hello"]])
    src, op, item = b.wait_event(NOTE)
    assert (src, op, item) == ("edge.1", NOTE, [0, "hello"])


def test_request_and_answer(join):
    edge, store = join("edge.1"), join("store.1")
    rid = edge.ask("store", 0x12, "x")
    src, _, item = store.wait_event(0x12)
    store.answer(src, item[0], 0, "y")
    edge.wait(lambda: rid in edge.replies)
    assert edge.replies[rid] == [0, "y"]


def test_roles_take_turns(join):
    edge = join("edge.1")
    members = [join(f"presence.{i}") for i in range(3)]
    for i in range(9):
        edge.send("presence", NOTE, [[0, i]])
    for m in members:
        m.wait(lambda m=m: sum(1 for e in m.events if e[1] == NOTE) == 3, what="three notes")


def test_a_name_goes_before_a_role(join):
    edge = join("edge.1")
    join("store.1", "store")
    named = join("store", "other")
    for i in range(4):
        edge.send("store", NOTE, [[0, i]])
    named.wait(lambda: sum(1 for e in named.events if e[1] == NOTE) == 4)


def test_unroutable_comes_back(join):
    edge = join("edge.1")
    edge.send("nobody", NOTE, [[7, "x"]])
    src, _, item = edge.wait_event(BOUNCE)
    assert src == "broker"
    assert item == [0, UNROUTABLE, "nobody", NOTE, 2, [[7, "x"]]]


def test_the_script_of_the_page(broker, join, tmp_path):
    """docs/bus.md's own example, as it stands there: it joins, asks, sees who comes and goes, and outlives the broker."""
    page = (ROOT / "docs/bus.md").read_text()
    script = tmp_path / "watch.py"
    script.write_text(page.split("## A Python script that joins")[1].split("```python\n")[1].split("```")[0])
    store = join("store.1")
    process = subprocess.Popen([sys.executable, script, broker.path], stdout=subprocess.PIPE, text=True)
    lines = queue.SimpleQueue()
    threading.Thread(target=lambda: [lines.put(line) for line in process.stdout], daemon=True).start()

    def line():
        """The next one; the store keeps its lease meanwhile."""
        store.wait(lambda: not lines.empty(), 20, "line")
        return lines.get()

    try:
        assert line() == "there store.1 store\n"
        src, _, item = store.wait_event(METRICS)
        store.answer(src, item[0], 0, 'chasqui_edge_x 1\nchasqui_store_records_total{actor="store.1"} 12\n')
        assert line() == 'chasqui_store_records_total{actor="store.1"} 12\n'
        join("edge.7").leave()
        assert [line() for _ in range(2)] == ["up edge.7 edge\n", "down edge.7 edge\n"]
        began = time.monotonic()
        while time.monotonic() - began < 3 * LEASE_MS / 1000:
            store.poll()
        assert src in store.peers, "it keeps its lease"
        broker.stop(signal.SIGKILL)
        broker.start()
        store.wait(lambda: src in store.peers and store.is_registered, 20, "the script back")
    finally:
        process.kill()
        process.wait()


def test_nothing_but_ipc():
    r = subprocess.run([BIN / "chasqui-broker", "--endpoint", "tcp://127.0.0.1:0"], capture_output=True, text=True, timeout=60)
    assert r.returncode > 0 and "BROKER-BIND-FAIL" in r.stderr and "Protocol not supported" in r.stderr


def test_full_queue_comes_back(join):
    edge, slow = join("edge.1"), join("store.1")
    body = "x" * 2000
    for _ in range(300):  # slow lives but reads nothing; its queue in the broker is bounded
        for _ in range(100):
            edge.send("store.1", NOTE, [[0, body]])
        slow.send("broker", PING, [[0, slow.incarnation]])
        while edge.poll(0):
            pass
        if any(op == BOUNCE for _, op, _ in edge.events):
            break
    _, _, item = edge.wait_event(BOUNCE)
    assert item[1:4] == [BUSY, "store.1", NOTE]
    assert item[5] == [[0, body]]
    slow.wait(lambda: len(slow.events) > 1000, what="what was queued")


def test_order_is_kept(join):
    a, b = join("edge.1"), join("edge.2")
    for i in range(2000):
        a.send("edge.2", NOTE, [[0, i]])
    b.wait(lambda: sum(1 for e in b.events if e[1] == NOTE) == 2000)
    assert [e[2][1] for e in b.events if e[1] == NOTE] == list(range(2000))


def test_newer_incarnation_replaces(join):
    watcher = join("store.1")
    old = join("edge.1")
    watcher.wait_event(UP)
    new = join("edge.1")
    _, _, down = watcher.wait_event(DOWN)
    assert down[3] == old.incarnation
    _, _, up = watcher.wait_event(UP)
    assert up[3] == new.incarnation
    watcher.send("edge.1", NOTE, [[0, 1]])
    new.wait_event(NOTE)
    # The old one is told that it is unknown, and may not take the name back.
    old.send("store.1", NOTE, [[0, "ghost"]])
    old.wait_event(WHO)
    _, _, item = old.wait_event(BOUNCE)
    assert item[1] == DENIED
    assert watcher.peers["edge.1"] == ("edge", new.incarnation)
    assert not [e for e in watcher.events if e[1] == NOTE]


def test_silence_ends_the_lease(join):
    watcher, silent = join("store.1"), join("edge.1")
    began = time.monotonic()
    watcher.wait_event(DOWN, seconds=LEASE_MS / 1000 * 2 + 1)
    assert time.monotonic() - began > LEASE_MS / 1000 / 2
    assert silent.is_registered  # it was never told; it learns when it speaks
    silent.send("store.1", NOTE, [[0, 1]])
    silent.wait_event(WHO)
    silent.wait(lambda: silent.is_registered)
    watcher.wait_event(UP, lambda src, item: item[3] == silent.incarnation)


CHILD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from bus import Actor
a = Actor(sys.argv[2], "edge.9", "edge")
print("ready", flush=True)
while True:
    a.poll(0.05)
"""


def test_killed_actor_is_down_at_once(broker, join):
    watcher = join("store.1")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(ROOT / "tests" / "lib"), broker.endpoint], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    watcher.wait_event(UP)
    child.kill()
    child.wait()
    began = time.monotonic()
    watcher.wait_event(DOWN, lambda src, item: item[1] == "edge.9", seconds=1)
    assert time.monotonic() - began < LEASE_MS / 1000 / 2  # by the closed connection, not by the lease


def test_broker_restart_is_healed(broker, join):
    a, b = join("edge.1"), join("store.1")
    former = a.broker
    broker.stop(signal.SIGKILL)
    broker.start()
    for actor in (a, b):
        actor.wait(lambda actor=actor: actor.is_registered and actor.broker != former, 10, "a new registration")
    b.wait(lambda: "edge.1" in b.peers)
    a.send("store.1", NOTE, [[0, 1]])
    b.wait_event(NOTE)


def test_second_broker_on_one_endpoint_is_refused(broker, join):
    actor = join("edge.1")
    command = [BIN / "chasqui-broker", "--endpoint", broker.endpoint]
    second = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=10)
    assert second.returncode != 0
    assert "BROKER-ENDPOINT-TAKEN" in second.stderr
    assert actor.request("broker", METRICS)[0] == 0


def test_unknown_actors_must_register(join):
    stranger = join("edge.1", register=False)
    other = join("edge.2")
    stranger.send("edge.2", NOTE, [[0, 1]])
    stranger.wait_event(WHO)
    assert not [e for e in other.events if e[1] == NOTE]


GARBAGE = [
    [b""],
    [b"edge.2"],
    [b"edge.2", b""],
    [b"edge.2", b"\x95\x01\x35\x01\x00\x00"],
    [b"edge.2", b"\x95\x01\x35\x01\x00\x00", b"\x90", b"more"],
    [b"edge.2", b"\xc1", b"\x90"],
    [b"edge.2", b"\x95\x02\x35\x01\x00\x00", b"\x90"],
    [b"edge.2", b"\x95\x01\x35\x01\x00\x00" + b"x" * 100, b"\x90"],
    [b"EDGE 2\n", b"\x95\x01\x35\x01\x00\x00", b"\x90"],
    [b"x" * 32, b"\x95\x01\x35\x01\x00\x00", b"\x90"],
    [b"broker", b"\x95\x01\x01\x01\x00\x00", b"\xdd\xff\xff\xff\xff"],
    [b"broker", b"\x95\x01\x01\x01\x00\x00", b""],
    [b"broker", b"\x95\x01\x01\x01\x00\x00", msgpack.packb([[0, "broker", "x", 1]])],
    [b"broker", b"\x95\x01\x01\x01\x00\x00", msgpack.packb([[0, "edge.7", "edge", 1]])],
    [b"broker", b"\x95\x01\x06\x01\x00\x00", msgpack.packb([[0, "edge.7", "edge", 1]])],
    [b"broker", b"\x95\x01\xcc\xff\x01\x00\x00", b"\x90"],
    [b"", b"", b""],
]


@pytest.mark.parametrize("identity", [b"edge.1#0000000000000001", b"no identity", b"\x00\xff", b"x" * 255])
def test_garbage_is_survived(broker, join, identity):
    good = join("edge.2")
    sock = zmq.Context.instance().socket(zmq.DEALER)
    sock.setsockopt(zmq.ROUTING_ID, identity if identity[0] else b"\x01" + identity)
    sock.setsockopt(zmq.LINGER, 0)
    sock.connect(broker.endpoint)
    for frames in GARBAGE:
        sock.send_multipart(frames)
    # A registered actor sends the same.
    for frames in GARBAGE:
        good.sock.send_multipart(frames)
    err, text = good.request("broker", METRICS)
    assert err == 0
    assert "edge.7" not in good.peers and "broker" not in good.peers
    count = [line for line in text.splitlines() if line.startswith("chasqui_broker_garbage_total{")]
    assert int(count[0].split()[-1]) >= len(GARBAGE) - 2
    sock.close()


def test_an_oversized_message_ends_the_connection_only(broker, join):
    good = join("edge.2")
    sock = zmq.Context.instance().socket(zmq.DEALER)
    sock.setsockopt(zmq.LINGER, 0)
    sock.connect(broker.endpoint)
    sock.send_multipart([b"edge.2", b"\x95\x01\x35\x01\x00\x00", b"x" * (8 << 20)])
    assert good.request("broker", METRICS)[0] == 0
    sock.close()


def test_reserved_names_are_refused(join):
    for name, role in [("broker", "x"), ("ok", "broker"), ("UPPER", "x"), ("a b", "x")]:
        a = join(name, role, register=False)
        a.register()
        a.poll(0.2)
        assert not a.is_registered
    other = join("edge.1")
    assert other.peers == {}


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q"]))
