# SPDX-License-Identifier: MPL-2.0
"""The real broker, presence and redis-server; edges and the store are played with pyzmq (bus.py)."""
import contextlib
import os
import pathlib
import secrets
import signal
import subprocess
import time

import redis
from bus import METRICS, REGISTERED, UP, Actor

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CHASQUI_BIN", ROOT / "build" / "release" / "bin"))
ROUTE, ROUTED, ROUTE_BEGIN, WATCHLIST = 0x20, 0x21, 0x22, 0x23
DELIVER, DELIVERED, SESSION_UP, SESSION_DOWN, ANNOUNCED, SEEN, LOOKUP = range(0x30, 0x37)
PRESENCE_NOTE = 0x93
GRACE_S, TICK_S = 0.6, 0.1
LEASE_MS = 1500
PRESENCE = "presence.1"


def now_ms():
    return int(time.time() * 1000)


def new_id():
    return secrets.token_bytes(16)


class Edge(Actor):
    """Keeps sessions, announces them whenever a presence comes up, confirms what it is given unless told not to."""

    def __init__(self, world, name):
        self.sessions, self.delivered, self.notes, self.numbers = {}, [], [], []
        self.is_confirming, self.is_announcing = True, True
        self.next = 1
        super().__init__(world.endpoint, name, "edge")

    def take(self, src, op, item):
        if op == DELIVER and src == PRESENCE:
            self.numbers.append(item[1])
            (self.notes if item[3][0] == PRESENCE_NOTE else self.delivered).append((item[2], item[3]))
            if self.is_confirming:
                self.send(PRESENCE, DELIVERED, [[0, item[1]]])
            return
        super().take(src, op, item)
        if src == "broker" and op in (UP, REGISTERED) and PRESENCE in self.peers and self.is_announcing:
            if op == REGISTERED or item[1] == PRESENCE:
                self.announce()

    def announce(self):
        ups = [[0, n, user, device, since] for n, (user, device, since) in self.sessions.items()]
        if ups:
            self.send(PRESENCE, SESSION_UP, ups)
        self.send(PRESENCE, ANNOUNCED, [[0, self.peers[PRESENCE][1], len(ups)]])

    def login(self, user, device=None, since=None):
        number, self.next = self.next, self.next + 1
        self.sessions[number] = (user, device or new_id(), since or now_ms())
        assert self.request(PRESENCE, SESSION_UP, number, *self.sessions[number]) == [0]
        return number

    def logout(self, number, seen=None):
        del self.sessions[number]
        self.send(PRESENCE, SESSION_DOWN, [[0, number, seen or now_ms()]])

    def states(self, session):
        """What the notes have told a session, the last of each user: {user: (online, time)}."""
        told = {}
        for sessions, event in self.notes:
            if session in sessions:
                told.update({user: (online, at) for user, online, at in event[1]})
        return told


class Store(Actor):
    """Knows friends; sends a stream; answers WATCHLIST unless told not to."""

    def __init__(self, world):
        self.friends, self.asked, self.routed, self.is_answering = {}, [], [], True
        self.hiding = set()
        self.pos, self.stream = 1000, 0
        super().__init__(world.endpoint, "store.1", "store")

    def take(self, src, op, item):
        if op == WATCHLIST and src == PRESENCE:
            self.asked.append(item[1])
            if self.is_answering:
                friends = sorted(self.friends.get(item[1], ()))
                self.answer(src, item[0], 0, friends, item[1] in self.hiding, [f for f in friends if f in self.hiding])
        elif op == ROUTED:
            self.routed.append((item[1], item[2]))
        else:
            super().take(src, op, item)

    def begin(self):
        self.stream = secrets.randbits(60)
        self.send(PRESENCE, ROUTE_BEGIN, [[0, self.stream, self.pos]])

    def route(self, users, event, device=None, rewatch=False, durable=True):
        self.pos += durable
        self.send(PRESENCE, ROUTE, [[0, self.pos if durable else 0, device, rewatch, users, event]])
        return self.pos

    def befriend(self, *users):
        for a in users:
            self.friends.setdefault(a, set()).update(b for b in users if b != a)

    def is_routed(self, pos):
        return (self.stream, pos) in self.routed


class World:
    def __init__(self, folder):
        self.folder = folder
        self.endpoint = f"ipc://{folder}/broker.sock"
        self.redis_path = folder / "redis.sock"
        self.processes, self.actors, self.logs = {}, [], {}
        self.options, self.lease_ms = [], LEASE_MS

    def spawn(self, name, *command):
        log = self.logs.setdefault(name, open(self.folder / f"{name}.log", "ab"))
        self.processes[name] = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log)

    def start_broker(self):
        self.spawn("broker", BIN / "chasqui-broker", "--endpoint", self.endpoint, "--lease-ms", self.lease_ms)

    def start_presence(self):
        self.spawn("presence", BIN / "chasqui-presence", "--name", PRESENCE, "--broker", self.endpoint,
                   "--redis-socket", self.redis_path, "--grace-ms", int(GRACE_S * 1000), "--tick-ms", int(TICK_S * 1000),
                   "--online-ttl-s", 30, "--log-level", "debug", *self.options)

    def start_redis(self):
        self.spawn("redis", "redis-server", "--port", 0, "--unixsocket", self.redis_path, "--save", "",
                   "--appendonly", "no", "--dir", self.folder)
        self.until(self.redis_answers, what="redis")

    def redis_answers(self):
        with contextlib.suppress(redis.ConnectionError):
            return self.redis().ping()
        return False

    def redis(self):
        return redis.Redis(unix_socket_path=str(self.redis_path), socket_timeout=5)

    def kill(self, name, number=signal.SIGKILL):
        process = self.processes.pop(name)
        # In this order: a SIGCONT behind it takes away the SIGSTOP with which the leak checker looks at a process that ends.
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        return process.wait(10)

    def poll(self):
        took = [actor.poll(0) for actor in self.actors]
        if not any(took):
            time.sleep(0.002)

    def until(self, condition, seconds=10.0, what="condition"):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"no {what} in {seconds} s"
            self.poll()

    def ask(self, actor, op, *fields, seconds=10.0):
        """A request of one actor, while all others live on."""
        rid = actor.ask(PRESENCE, op, *fields)
        self.until(lambda: rid in actor.replies, seconds, what=f"answer to {op:#x}")
        return actor.replies.pop(rid)

    def run(self, seconds):
        """To see that something does not happen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.poll()

    def join(self, actor):
        self.actors.append(actor)
        return actor

    def leave(self, actor):
        self.actors.remove(actor)
        actor.leave()

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def metric(self, name):
        answer = self.store.request(PRESENCE, METRICS)
        for line in answer[1].splitlines():
            if line.startswith(f"chasqui_presence_{name}{{"):
                return int(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {name}")

    def trouble(self):
        """What presence says is wrong, or None."""
        answer = self.store.request(PRESENCE, METRICS)
        for line in answer[1].splitlines():
            if line.startswith("chasqui_trouble{"):
                return line.split('what="')[1].split('"')[0]
        return None

    def key(self, kind, user):
        return self.redis().get(f"chasqui:{kind}:{user.hex()}")


@contextlib.contextmanager
def running(folder, options=(), lease_ms=LEASE_MS):
    """A World with two edges and a store, ready; in the end presence must have lived through it all."""
    w = World(folder)
    w.options, w.lease_ms = [*options], lease_ms
    try:
        w.start_redis()
        w.start_broker()
        w.until(lambda: "BROKER-LISTEN" in w.log("broker"), what="broker")
        w.store = w.join(Store(w))
        w.edges = [w.join(Edge(w, "edge.1")), w.join(Edge(w, "edge.2"))]
        w.start_presence()
        w.until(lambda: all(PRESENCE in a.peers for a in w.actors), what="presence")
        w.until(lambda: "PRESENCE-READY" in w.log("presence"), what="ready")
        w.until(lambda: "PRESENCE-REDIS-UP" in w.log("presence"), what="redis link")
        w.store.begin()
        yield w
        for name in list(w.processes):
            process = w.processes[name]
            assert process.poll() is None or name == "redis", f"{name} died: {w.log(name)[-3000:]}"
        if "presence" in w.processes:
            assert w.kill("presence", signal.SIGTERM) == 0, w.log("presence")[-3000:]
        assert "Sanitizer" not in w.log("presence") and "runtime error" not in w.log("presence")
    finally:
        for name in list(w.processes):
            w.kill(name)
        for actor in w.actors:
            actor.close()
        for log in w.logs.values():
            log.close()
