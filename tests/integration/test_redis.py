# SPDX-License-Identifier: MPL-2.0
"""Everything that Redis can do to presence: gone, full, locked, a replica, slow, or something else altogether.

Whatever it is: messages go on, presence says what is wrong and what to do, and it heals without a restart."""
import contextlib
import pathlib
import signal
import socket
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from presence_world import LOOKUP, new_id, now_ms, running  # noqa: E402


@pytest.fixture
def world(tmp_path):
    with running(tmp_path, ["--redis-password-file", tmp_path / "password"] if "password" in tmp_path.name else ()) as w:
        w.x, w.y = new_id(), new_id()
        w.store.befriend(w.x, w.y)
        w.a, w.b = w.edges[0].login(w.x), w.edges[1].login(w.y)
        w.until(lambda: w.key("online", w.x) and w.key("online", w.y), what="written")
        yield w


def messages_flow(world):
    """A message arrives, whatever Redis does, and a friend who is online is seen so."""
    start = time.monotonic()
    event = [0x90, new_id()]
    pos = world.store.route([world.x], event)
    world.until(lambda: world.store.is_routed(pos), what="ROUTED")
    assert ([world.a], event) in world.edges[0].delivered
    assert time.monotonic() - start < 2
    assert world.ask(world.edges[0], LOOKUP, world.x, [world.y])[1][0][:2] == [world.y, True]


def says(world, *words):
    world.until(lambda: all(w in (world.trouble() or "") for w in words), what=f"trouble with {words}")
    # The log says the same, and the process is not hidden by hundreds of lines of it.
    assert any(all(w in line for w in words) for line in world.log("presence").splitlines() if "do=" in line)
    assert sum("level=warn" in line for line in world.log("presence").splitlines()) < 60


def change_while_broken(world):
    """Somebody comes, somebody goes: (who came, who went, when)."""
    came, went = new_id(), new_id()
    world.edges[0].login(came)
    number = world.edges[1].login(went)
    seen = now_ms()
    world.edges[1].logout(number, seen)
    world.run(1.0)  # longer than the grace period
    return came, went, seen


def is_healed(world, came, went, seen):
    world.until(lambda: world.trouble() is None, what="well again")
    world.until(lambda: all(world.key("online", u) for u in (world.x, world.y, came)), what="who is online")
    world.until(lambda: world.key("seen", went) == str(seen).encode(), what="who left meanwhile")
    assert world.key("online", went) is None
    assert world.metric("redis_refusing") == 0 and world.metric("redis_up") == 1
    assert world.ask(world.edges[0], LOOKUP, world.x, [world.y])[1][0][:2] == [world.y, True]


def test_full(world):
    r = world.redis()
    r.config_set("maxmemory-policy", "noeviction")
    r.config_set("maxmemory", 1)
    came, went, seen = change_while_broken(world)
    messages_flow(world)
    says(world, "Redis is full", "maxmemory")
    assert world.metric("redis_refusing") == 1 and world.metric("redis_up") == 1
    # It does not keep on asking, however much happens.
    before = world.metric("redis_commands_total")
    for _ in range(300):
        world.edges[0].logout(world.edges[0].login(new_id()))
    world.run(1.5)
    assert world.metric("redis_commands_total") - before < 20
    r.config_set("maxmemory", 0)
    is_healed(world, came, went, seen)


def test_full_for_the_one_who_comes_back(world):
    """What waits for Redis of somebody's leaving must not take away the key of his return."""
    r = world.redis()
    r.config_set("maxmemory", 1)
    came, went, seen = change_while_broken(world)
    world.edges[0].login(went)
    r.config_set("maxmemory", 0)
    world.until(lambda: world.key("online", went), what="is back")
    world.until(lambda: world.key("seen", went) == str(seen).encode(), what="had left")
    assert world.key("online", went) and world.key("online", came)


def test_replica(world):
    r = world.redis()
    r.replicaof("127.0.0.1", 1)
    came, went, seen = change_while_broken(world)
    messages_flow(world)
    says(world, "replica", "primary")
    r.replicaof("NO", "ONE")
    is_healed(world, came, went, seen)


def test_password(world):
    file = pathlib.Path(world.folder) / "password"
    r = world.redis()
    r.config_set("requirepass", "the right one")
    r.client_kill_filter(_type="normal", skipme=True)
    world.until(lambda: world.metric("redis_up") == 0, what="noticed")
    came, went, seen = change_while_broken(world)
    messages_flow(world)
    says(world, "Redis wants a password", "redis-password-file")
    file.write_text("a wrong one\n")
    file.chmod(0o600)
    says(world, "is wrong")
    messages_flow(world)
    file.write_text("the right one\n")
    file.chmod(0o644)  # others may read it: not used
    world.until(lambda: "PRESENCE-REDIS-PASSWORD" in world.log("presence").split("is wrong")[-1], what="refused")
    file.chmod(0o600)
    r.config_set("requirepass", "")
    is_healed(world, came, went, seen)
    r.config_set("requirepass", "the right one")
    r.client_kill_filter(_type="normal", skipme=True)
    ups = world.log("presence").count("PRESENCE-REDIS-UP")
    world.until(lambda: world.log("presence").count("PRESENCE-REDIS-UP") > ups, what="with the password")
    r.config_set("requirepass", "")
    is_healed(world, came, went, seen)
    assert "the right one" not in world.log("presence")


def test_killed_and_empty(world):
    world.kill("redis")
    came, went, seen = change_while_broken(world)
    messages_flow(world)
    says(world, "nobody answers", "redis-socket")
    world.start_redis()
    is_healed(world, came, went, seen)


def test_paused(world):
    world.processes["redis"].send_signal(signal.SIGSTOP)
    try:
        came, went, seen = change_while_broken(world)
        messages_flow(world)
        says(world, "Redis hangs")
    finally:
        world.processes["redis"].send_signal(signal.SIGCONT)
    is_healed(world, came, went, seen)


def test_slow(world):
    """Every answer takes a second: nothing is given up, nothing waits for it."""
    stop = threading.Event()

    def slow_down():
        r = world.redis()
        while not stop.is_set():
            r.execute_command("CLIENT", "PAUSE", 1000, "WRITE")
            stop.wait(1.1)

    thread = threading.Thread(target=slow_down)
    thread.start()
    try:
        came, went, seen = change_while_broken(world)
        for _ in range(3):
            messages_flow(world)
        assert world.metric("redis_timeouts_total") == 0
    finally:
        stop.set()
        thread.join()
    is_healed(world, came, went, seen)


def test_disk_of_redis_full(world):
    """Redis refuses writes because it cannot save (MISCONF)."""
    r = world.redis()
    r.config_set("save", "1 1")
    r.config_set("stop-writes-on-bgsave-error", "yes")
    (pathlib.Path(world.folder) / "dump.rdb").mkdir()  # cannot be replaced by a file
    r.set("anything", 1)
    with contextlib.suppress(Exception):
        r.bgsave()
    world.until(lambda: r.info("persistence")["rdb_last_bgsave_status"] == "err", 20, what="a save that failed")
    came, went, seen = change_while_broken(world)
    messages_flow(world)
    says(world, "cannot save to its disk")
    r.config_set("save", "")
    r.config_set("stop-writes-on-bgsave-error", "no")
    is_healed(world, came, went, seen)


# ---- something that is not Redis ----

OK = b"+OK\r\n"
NONSENSE = {
    "noise": lambda _: bytes(range(256)) * 8,
    "http": lambda _: b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "answers nobody asked for": lambda _: OK * 50,
    "nil nobody asked for": lambda _: b"+PONG\r\n" + b"$-1\r\n" * 9 + b":1\r\n*0\r\n",
    "a list of 2 billion": lambda _: b"*2000000000\r\n",
    "a list of lists": lambda _: b"*60000\r\n" * 9000,
    "a string of 2 GB": lambda _: b"$2000000000\r\n" + b"x" * 1000,
    "a negative length": lambda _: b"$-7\r\n*-9\r\n:\r\n",
    "always OK": lambda asked: OK * asked.count(b"*"),
    "always 1": lambda asked: b":1\r\n" * asked.count(b"*"),
    "always a list": lambda asked: b"*2\r\n$1\r\n0\r\n*1\r\n$3\r\nabc\r\n" * asked.count(b"*"),
    "always an error": lambda asked: b"-ERR \xff\x00 \"no\"\r\n" * asked.count(b"*"),
}


class Impostor(threading.Thread):
    """Listens where Redis should and says something else, after the greeting or instead of it."""

    def __init__(self, path, speech, is_polite):
        super().__init__(daemon=True)
        self.speech, self.is_polite, self.stop, self.said = speech, is_polite, threading.Event(), 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self.listener.settimeout(0.05)
        self.start()

    def run(self):
        while not self.stop.is_set():
            with contextlib.suppress(OSError):
                c, _ = self.listener.accept()
                with c:
                    c.settimeout(0.05)
                    self.talk(c)

    def talk(self, c):
        is_greeted = not self.is_polite
        while not self.stop.is_set():
            try:
                asked = c.recv(65536)
            except socket.timeout:
                continue
            if not asked:
                return
            c.settimeout(2)
            c.sendall(self.speech(asked) if is_greeted else b"+PONG\r\n")
            self.said += is_greeted
            is_greeted = True
            c.settimeout(0.05)

    def end(self):
        self.stop.set()
        self.join(5)
        self.listener.close()


def test_not_redis_at_all(world):
    world.kill("redis")
    pathlib.Path(world.redis_path).unlink(missing_ok=True)
    # Without a greeting attempts get rarer: few of those.
    for name, is_polite in [(name, True) for name in NONSENSE] + [("noise", False)]:
        impostor = Impostor(world.redis_path, NONSENSE[name], is_polite)
        try:
            world.until(lambda: impostor.said >= 1, what=f"talk with {name}")
            world.run(0.05)
            messages_flow(world)
            assert world.processes["presence"].poll() is None, name
        finally:
            impostor.end()
            pathlib.Path(world.redis_path).unlink()
    assert world.metric("redis_commands_total") < 2000
    came, went, seen = change_while_broken(world)
    says(world, "redis")
    assert world.log("presence").count("not Redis' protocol") >= 3
    world.start_redis()
    is_healed(world, came, went, seen)
    with open(f"/proc/{world.processes['presence'].pid}/status") as f:
        peak_kb = int(next(line for line in f if line.startswith("VmHWM")).split()[1])
    assert peak_kb < 400000


def test_somebody_else_writes_the_sentinel(world):
    """As if a second presence used the same Redis: it is said, and they do not overwrite everything each second."""
    r = world.redis()
    end = time.monotonic() + 3.5
    before = world.metric("redis_rewrites_total")
    while time.monotonic() < end:
        r.set("chasqui:presence:incarnation", "0123456789abcdef")
        world.run(0.1)
    assert 1 <= world.metric("redis_rewrites_total") - before <= 3
    says(world, "somebody else writes")
    messages_flow(world)
    world.until(lambda: r.get("chasqui:presence:incarnation") != b"0123456789abcdef", 20, what="own sentinel again")

