# SPDX-License-Identifier: MPL-2.0
"""The rounds: what is killed, when exactly, and what must hold afterwards."""

import asyncio
import errno
import time

from oracle import LOST
from people import until
from powercut import FAIL, KILL_AFTER, KILL_BEFORE, ON_ANY, ON_DSYNC, ON_SYNC, ON_WRITE, TORN

HEAL_S = 30  # after a kill everything must work again in this time, on a machine that is busy with other things
SHOT_S = 4  # a kill that waits for a write comes at the latest after this time, from outside
TARGETS = {"store": 8, "edge": 3, "broker": 2, "presence": 3, "redis": 1, "all": 2, "power": 4}


class Rounds:
    def __init__(self, stand, town, oracle, random, targets):
        self.stand, self.town, self.oracle, self.random = stand, town, oracle, random
        self.targets = targets
        self.kills = 0
        self.healing_ms = []
        self.kinds = {}
        self.what = ""
        self.may_end = set()  # services that may give up by themselves; the supervisor starts them again

    # ---- killing ----

    def shoot(self, name):
        self.kills += self.stand.kill_one(name)

    async def shoot_store_at(self, *arms):
        """Arms the fault layer; when nothing is written for long, kills from outside."""
        self.stand.control.arm(*arms)
        await until(self.stand.was_shot, SHOT_S)
        self.stand.control.disarm()
        if self.stand.was_shot():
            self.kills += 1
        else:
            self.shoot("store")

    async def store_now(self):
        self.shoot("store")

    async def store_commit(self):
        """Durable, and nobody knows yet."""
        await self.shoot_store_at((KILL_AFTER, ON_DSYNC, self.random.randint(1, 10), 0, 1))

    async def store_route(self):
        """While it answers and routes."""
        await self.shoot_store_at((KILL_AFTER, ON_DSYNC, self.random.randint(1, 10), self.random.randint(30, 3000), 1))

    async def store_sync(self):
        """The pages are on the disk, the meta page that makes them valid is not."""
        await self.shoot_store_at((self.random.choice((KILL_BEFORE, KILL_AFTER)), ON_SYNC, self.random.randint(1, 10), 0, 1))

    async def store_pages(self):
        """In the middle of the pages of a commit or of a slice of a checkpoint."""
        await self.shoot_store_at((KILL_BEFORE, ON_WRITE, self.random.randint(1, 40), 0, 1))

    async def store_torn(self):
        if self.random.random() < 0.3:
            await self.shoot_store_at((TORN, ON_DSYNC, self.random.randint(1, 6), self.random.randint(0, 120), 1))
        else:
            await self.shoot_store_at((TORN, ON_WRITE, self.random.randint(1, 20), self.random.randint(0, 16384), 1))

    async def store_replay(self):
        """Dead again before it serves: at one of its first writes, or at any moment of its start."""
        self.shoot("store")
        if self.random.random() < 0.5:
            self.stand.control.arm((self.random.choice((KILL_BEFORE, KILL_AFTER)), ON_ANY, self.random.randint(1, 5), 0, 1))
            self.stand.start_one("store")
            await until(self.stand.was_shot, SHOT_S)
            self.stand.control.disarm()
            self.kills += self.stand.was_shot()
        else:
            self.stand.start_one("store")
            await asyncio.sleep(self.random.uniform(0, 0.08))
        if not self.stand.was_shot():
            self.shoot("store")

    async def store_reopen(self):
        """A write or a sync fails, and while it opens the database anew it dies."""
        await self.shoot_store_at((FAIL, self.random.choice((ON_WRITE, ON_SYNC, ON_DSYNC)), self.random.randint(1, 5), errno.EIO, 1),
                                  (self.random.choice((KILL_BEFORE, KILL_AFTER)), ON_ANY, self.random.randint(1, 4), 0, 1))

    async def store_unrouted(self):
        """Messages are committed and nobody routes them; then the store forgets that it owes them."""
        self.shoot("presence")
        await asyncio.sleep(self.random.uniform(0.05, 0.5))
        await self.random.choice((self.store_now, self.store_commit))()

    async def write_last(self, shoot_first):
        """A message each in a few chats, and then silence: whoever is not given it will not find out by a later one."""
        self.pause()
        await until(lambda: not (self.town.waits_for() or self.town.missing() or self.town.unconfirmed()), HEAL_S, check=self.look)
        await shoot_first()
        device = self.random.choice(self.town.steady)
        for slot in self.random.sample(list(device.slots.values()), self.random.randint(1, 2)):
            device.write(slot)

    async def store_last(self):
        """The last message is durable, and the store dies before or while it is answered and routed."""
        async def arm():
            self.stand.control.arm((KILL_AFTER, ON_DSYNC, 1, self.random.choice((0, 0, self.random.randint(30, 1500))), 1))

        await self.write_last(arm)
        await until(self.stand.was_shot, SHOT_S)
        self.stand.control.disarm()
        self.kills += self.stand.was_shot()

    async def presence_last(self):
        """The last message is acknowledged while nobody is there to route it."""
        async def kill():
            self.shoot("presence")

        await self.write_last(kill)
        await until(lambda: not self.town.waits_for(), HEAL_S, check=self.look)

    async def edge(self):
        self.shoot(f"edge.{self.random.randint(1, self.stand.edge_count)}")

    async def edges(self):
        for n in range(1, self.stand.edge_count + 1):
            self.shoot(f"edge.{n}")

    async def broker(self):
        self.shoot("broker")

    async def broker_and_store(self):
        for name in self.random.sample(("broker", "store"), 2):
            self.shoot(name)

    async def presence(self):
        self.shoot("presence")

    async def presence_and_edge(self):
        self.shoot("presence")
        await self.edge()

    async def presence_twice(self):
        self.shoot("presence")
        self.stand.start_one("presence")
        await asyncio.sleep(self.random.uniform(0.01, 0.3))
        self.shoot("presence")

    async def redis(self):
        self.shoot("redis")

    async def all(self):
        names = list(self.stand.services)
        self.random.shuffle(names)
        for name in names:
            self.stand.kill_one(name)
        self.kills += 1

    async def power(self):
        """The machine of the store loses power, now or at a bad moment; sometimes that of everything else, too."""
        kill = self.random.choice((self.store_now, self.store_commit, self.store_route, self.store_sync, self.store_sync,
                                   self.store_pages, self.store_pages, self.store_torn, self.store_torn, self.store_replay, self.store_reopen, self.store_reopen_late))
        await kill()
        if self.random.random() < 0.3:
            await self.all()
            self.kills -= 1
        mode = self.random.choice(("all", "pages", "sectors"))
        self.what += f" by {kill.__name__}, {mode}: {self.stand.power_cut(self.random, mode)}"
        if self.random.random() < 0.3:
            code, words = self.stand.fsck()
            self.oracle.must(code == 0, LOST, f"chasqui-store --fsck ended with {code}: {words[-1000:]}")

    async def store_reopen_late(self):
        """A failed sync, an attempt to go on, and then the power."""
        self.stand.control.arm((FAIL, ON_SYNC, self.random.randint(1, 5), errno.EIO, 1))
        await until(lambda: self.stand.control.get("fired") and not self.stand.control.is_armed(), SHOT_S)
        await asyncio.sleep(self.random.uniform(0, 0.2))
        self.stand.control.disarm()
        self.shoot("store")

    KINDS = {
        "store": ("store_now", "store_commit", "store_commit", "store_route", "store_route", "store_sync", "store_pages",
                  "store_torn", "store_replay", "store_reopen", "store_unrouted", "store_last"),
        "edge": ("edge", "edge", "edges"),
        "broker": ("broker", "broker", "broker_and_store"),
        "presence": ("presence", "presence", "presence_and_edge", "presence_twice", "presence_last"),
        "redis": ("redis",),
        "all": ("all",),
        "power": ("power",),
    }

    ALWAYS_CHECKED = ("store_last", "presence_last")

    # ---- healing ----

    async def restart(self):
        """The supervisor: what is dead starts again, in any order."""
        dead = self.stand.dead()
        self.random.shuffle(dead)
        for name in dead:
            await asyncio.sleep(self.random.choice((0, 0, self.random.uniform(0, 0.1))))
            if self.stand.services[name].is_alive():
                continue
            self.stand.start_one(name)

    async def heal(self):
        """Until messages are acknowledged again; the time of a store that was killed is kept."""
        began, acked = time.monotonic(), self.oracle.acked
        store_began = self.stand.started_at["store"]
        healed = await until(lambda: self.oracle.acked > acked or self.is_idle(), HEAL_S, check=self.look)
        now = time.monotonic()
        self.oracle.must(healed, LOST, f"nothing was sent for {HEAL_S} s: {self.town.waits_for()[:6]}")
        self.healing_ms.append((now - began) * 1000)
        if store_began > began - 1:
            self.stand.serving_ms.append((now - store_began) * 1000)

    def is_idle(self):
        return self.oracle.is_quiet and not self.town.waits_for()

    def look(self):
        self.town.check_tasks()
        for s in self.stand.died():
            if s.name == "store" and self.stand.was_shot():
                continue
            code = s.process.returncode
            if s.name in self.may_end and code == 1:
                self.stand.start_one(s.name)
                continue
            self.oracle.finding(LOST, f"{s.name} has ended with {code}: {s.tail(600)}")
            self.stand.start_one(s.name)

    # ---- a round, and a look at everything ----

    async def round(self, number, with_check):
        target = self.random.choices(list(self.targets), list(self.targets.values()))[0]
        kind = self.random.choice(self.KINDS[target])
        with_check = with_check or kind in self.ALWAYS_CHECKED
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        self.what = f"round {number}: {kind}"
        self.oracle.where = self.what
        await asyncio.sleep(self.random.uniform(0.02, 0.35))
        if with_check and self.random.random() < 0.6:
            # The last messages are those around the kill: no later one shows the gap that they would leave.
            asyncio.get_running_loop().call_later(self.random.uniform(0, 0.05), self.pause)
        await getattr(self, kind)()
        self.oracle.where = self.what
        await asyncio.sleep(self.random.choice((0, self.random.uniform(0, 0.15))))
        await self.restart()
        if with_check or self.random.random() < 0.7:
            await self.heal()
        if with_check:
            await self.check()

    def pause(self):
        self.oracle.is_quiet = True

    async def check(self):
        """No new messages: all that were written are acknowledged, and everybody who is connected has them, without a
        reconnect that he was not forced to; then history, cursors and counts are compared."""
        o, town = self.oracle, self.town
        self.pause()
        sent = await until(lambda: not town.waits_for(), HEAL_S, check=self.look)
        o.must(sent, LOST, f"not sent in {HEAL_S} s: {town.waits_for()[:6]}")
        if not sent:
            return
        connects = {d: d.connects for d in town.devices}
        for what, sees in (("", town.missing), ("not acknowledged: ", town.unconfirmed), ("receipt not told: ", town.stale)):
            began = time.monotonic()
            came = await until(lambda: not sees(), HEAL_S, check=self.look)
            self.healing_ms.append((time.monotonic() - began) * 1000)
            missed = sees()
            o.must(came, LOST, f"{len(missed)} times {what}{missed[:4]}")
        for device, n in connects.items():
            o.must(device.connects == n, LOST, f"{device!r} lost its connection while nothing happened")
        await town.compare()
        o.is_quiet = False
