# SPDX-License-Identifier: MPL-2.0
"""Wall clocks that jump a day forwards and backwards, of one service or of all, while messages flow: nobody is kicked, nothing is
lost or out of order, and what people are told of times is not in the future for long."""
import os
import struct
import time

import pytest
from chasqui import befriend, presence_row
from system import BIN, System, eventually
from test_faults import Sender

SHIM = BIN / "chasqui-clock-shim.so"
DAY = 86400
LONG = 40
pytestmark = pytest.mark.skipif(not SHIM.exists(), reason="no shim in builds with a sanitizer")


class Clocks:
    """The offset in seconds of each service's wall clock."""

    def __init__(self, system):
        self.system, self.files = system, {}
        for name, service in system.services.items():
            if name != "redis":
                self.files[name] = system.dir / f"{name}.clock"
                self.files[name].write_bytes(struct.pack("=q", 0))
                service.environment = dict(os.environ, LD_PRELOAD=str(SHIM), CLOCK_SHIM_CONTROL=str(self.files[name]))

    def jump(self, names, seconds):
        for name, path in self.files.items():
            if names is None or name in names:
                with open(path, "r+b") as f:
                    f.write(struct.pack("=q", seconds))


@pytest.fixture(scope="module")
def system():
    s = System(edges=2, presence=["--grace-ms", "800"],
               edge=["--heartbeat-interval-ms", "500", "--heartbeat-limit-ms", "2000"])
    s.clocks = Clocks(s)
    try:
        yield s.start()
    finally:
        s.stop()


@pytest.fixture(autouse=True)
def right_again(system):
    yield
    system.clocks.jump(None, 0)


WHO = {"store": ["store"], "presence": ["presence"], "edges": ["edge.1", "edge.2"], "broker": ["broker"], "all": None}


def told_offline(d, user):
    return d.link.has_push("PRESENCE_NOTE", lambda f: any(p[0] == user and not p[1] for p in f[0]))


@pytest.mark.parametrize("who", WHO)
def test_jumps_while_messages_flow(system, pair, who):
    x, y = pair
    texts = [f"t{i}" for i in range(400)]
    links = x.link, y.link
    sender = Sender(system, x, x.chat(y), texts, pace_s=0.012)
    sender.start()
    start = time.monotonic()
    for offset in (DAY, 0, -DAY, 0, DAY, -DAY):
        before = len(sender.answers)
        system.clocks.jump(WHO[who], offset)
        # Longer than any heartbeat needs to be missed in all.
        eventually(lambda: len(sender.answers) > before + 20 and time.monotonic() - start > 0.5, LONG)
        assert sender.is_alive(), "it was sending at every jump"
        start = time.monotonic()
    assert sender.result() == list(range(1, len(texts) + 1))
    assert sender.retries == 0, "nothing had to be sent again"
    assert [y.receive(x)[1] for _ in texts] == texts, "pushed in order"
    y.ack(x, len(texts), len(texts))
    x.receipt(y, y.user, len(texts))
    assert (x.link, y.link) == links and not x.link.is_closed and not y.link.is_closed
    assert not told_offline(x, y.user) and not told_offline(y, x.user), "nobody flapped"
    assert x.presence(y.user)[y.user].online
    assert [m.seq for m in x.history(y)] == list(range(1, len(texts) + 1))


def test_last_seen_after_the_clock_was_wrong(system, pair):
    """Seen while the clock was a day ahead: that is forgotten as soon as it is right again."""
    x, y = pair
    system.clocks.jump(None, DAY)
    z = system.person(1)
    befriend(x, z)
    z.send(x, "in the future")
    x.receive(z)
    system.clocks.jump(None, 0)
    p = eventually(lambda: (p := x.presence(z.user)[z.user]).online and p, LONG)
    assert p.last_seen_unix_ms <= time.time() * 1000 + 1000, "online since"
    z.close()
    note = presence_row(next(p for p in x.link.push(
        "PRESENCE_NOTE", lambda f: any(p[0] == z.user and not p[1] for p in f[0]), LONG)[0] if p[0] == z.user))
    assert note.last_seen_unix_ms <= time.time() * 1000 + 1000
    seen = eventually(lambda: system.redis_client().get(f"chasqui:seen:{z.user.hex()}"), LONG)
    assert int(seen) <= time.time() * 1000 + 1000
    # Who left while it was ahead.
    system.clocks.jump(None, DAY)
    z.resume(system.url(1))
    z.close()
    eventually(lambda: int(system.redis_client().get(f"chasqui:seen:{z.user.hex()}")) > time.time() * 1000 + DAY * 500, LONG)
    system.clocks.jump(None, 0)
    assert x.presence(z.user)[z.user].last_seen_unix_ms <= time.time() * 1000 + 1000


def test_tokens_follow_the_wall_clock(system, pair):
    """They end at a date, so a clock that is a year ahead ends them; being a day off or right again does not."""
    x, y = pair
    for offset in (DAY, -DAY):
        system.clocks.jump(None, offset)
        x.resume(system.url(2))
    system.clocks.jump(None, 400 * DAY)
    with pytest.raises(Exception, match="BAD_TOKEN"):
        x.resume(system.url(1))
    assert y.presence(x.user), "who is logged in stays"
    system.clocks.jump(None, 0)
    x.resume(system.url(1))


def test_the_ledger_has_no_effect_before_its_cause(system, pair):
    """Sent when the clock was a day ahead, delivered and read when it was right again."""
    x, y = pair
    system.clocks.jump(None, DAY)
    seq = x.send(y, "one")
    y.receive(x)
    system.clocks.jump(None, 0)
    y.ack(x, seq, 0)
    y.ack(x, seq, seq)
    x.send(y, "two")  # the commit before is noted with this one
    life = x.ledger(y, seq)
    delivered = life.devices[y.user, y.id].delivered_unix_ms
    read = life.members[y.user].read_unix_ms
    assert life.time_unix_ms <= life.durable_unix_ms <= life.time_unix_ms + DAY * 1000
    assert life.time_unix_ms <= delivered <= read
