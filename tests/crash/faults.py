# SPDX-License-Identifier: MPL-2.0
"""The faults of a disk, one after the other, under load: the store lives on, or dies at the worst moment with the power."""

import asyncio
import errno
import signal

from chasqui import Refused
from oracle import LOST
from people import until
from powercut import (FAIL, FULL_STATVFS, FULL_WRITES, KILL_AFTER, KILL_BEFORE, ON_ANY, ON_DSYNC, ON_SYNC, ON_WRITE, SHORT, TORN)

FULL_S = 1.5
MANY = 1 << 40
CUT_MODES = ("all", "pages", "sectors")

# One call fails: nothing of that commit may be acknowledged, and the store opens its database again by itself.
FAILURES = {
    "a write fails": (FAIL, ON_WRITE, 3, errno.EIO, 1),
    "a write finds no space": (FAIL, ON_WRITE, 3, errno.ENOSPC, 1),
    "a write is short": (SHORT, ON_WRITE, 3, 1000, 1),
    "a sync fails": (FAIL, ON_SYNC, 3, errno.EIO, 1),
    "a meta page fails": (FAIL, ON_DSYNC, 3, errno.EIO, 1),
}
# All fail for a while: nothing is acknowledged, what was is readable, and it goes on when the disk does.
OUTAGES = {
    "the disk is nearly full": (FULL_STATVFS, ()),
    "the disk is full": (FULL_WRITES | FULL_STATVFS, ()),
    "the disk is full and does not say so": (FULL_WRITES, ()),
    "the file system is read-only": (0, ((FAIL, ON_ANY, 1, errno.EROFS, MANY),)),
    "every write fails": (0, ((FAIL, ON_WRITE, 1, errno.EIO, MANY),)),
    "every sync fails": (0, ((FAIL, ON_SYNC, 1, errno.EIO, MANY),)),
}
# The power goes when …
CUTS = {
    "before a page is written": (KILL_BEFORE, ON_WRITE, 9, 0, 1),
    "a page is half written": (TORN, ON_WRITE, 9, 1000, 1),
    "before a sync": (KILL_BEFORE, ON_SYNC, 5, 0, 1),
    "after a sync": (KILL_AFTER, ON_SYNC, 5, 0, 1),
    "a meta page is half written": (TORN, ON_DSYNC, 5, 40, 1),
    "after a meta page": (KILL_AFTER, ON_DSYNC, 5, 0, 1),
    "after a sync has failed": (FAIL, ON_SYNC, 3, errno.EIO, 1),
}
# What the commit meets that is under way when the store is told to end.
ENDS = {"a sync has failed": FAILURES["a sync fails"], "every sync fails": (FAIL, ON_SYNC, 1, errno.EIO, MANY),
        "every write fails": (FAIL, ON_WRITE, 1, errno.EIO, MANY)}
END_S = 20
FAULTS = (*FAILURES, *OUTAGES, *(f"told to end when {when}" for when in ENDS), *(f"power goes {when}, {mode}" for when in CUTS for mode in CUT_MODES))


class Faults:
    def __init__(self, rounds):
        self.rounds, self.stand, self.town, self.oracle = rounds, rounds.stand, rounds.town, rounds.oracle

    async def run(self, name):
        self.oracle.where = f"fault: {name}"
        self.oracle.is_quiet = False
        if name in FAILURES:
            await self.fail(FAILURES[name])
        elif name in OUTAGES:
            await self.outage(*OUTAGES[name])
        elif name.startswith("told to end"):
            await self.told_to_end(ENDS[name.removeprefix("told to end when ")])
        else:
            when, mode = name.removeprefix("power goes ").rsplit(", ", 1)
            await self.power(CUTS[when], mode)
        await self.rounds.heal()
        await self.rounds.check()

    async def fires(self, arm):
        fired = self.stand.control.get("fired")
        self.stand.control.arm(arm)
        await until(lambda: self.stand.control.get("fired") > fired, 20, "the fault to happen")

    async def fail(self, arm):
        store = self.stand.store
        mark = len(store.log_bytes())
        await self.fires(arm)
        await until(lambda: b"id=STORE-ENGINE-REOPEN err=OK" in store.log_bytes()[mark:] or not store.is_alive(), 20,
                    "the store to open its database again")

    async def told_to_end(self, arm):
        store = self.stand.store
        await self.fires(arm)
        self.stand.expected.add("store")
        store.signal(signal.SIGTERM)
        await until(lambda: not store.is_alive(), END_S, "the store to end")
        code = store.process.returncode
        self.oracle.must(code in (0, 1), LOST, f"told to end, it ended with {code}: {store.tail(600)}")
        self.stand.control.disarm()
        await self.rounds.restart()

    async def outage(self, disk_full, arms):
        """Reads are tried all the time; the first acknowledgements count again when the outage is over."""
        o, stand = self.oracle, self.stand
        await until(lambda: all(c.acked_head for c in self.town.chats), 20, "a message in every chat")
        self.rounds.may_end.add("store")
        stand.control.arm(*arms)
        stand.control.set("disk_full", disk_full)
        await asyncio.sleep(0.3)  # what was on its way to the disk before
        acked, reads, failed = o.acked, 0, []
        end = asyncio.get_running_loop().time() + FULL_S
        while asyncio.get_running_loop().time() < end:
            try:
                reads += await self.read()
            except (Refused, asyncio.TimeoutError) as e:
                if not (isinstance(e, Refused) and e.name == "BUSY"):  # the moment in which it opens its database anew
                    failed.append(repr(e))
            self.rounds.look()
            await asyncio.sleep(0.02)
        o.must(o.acked == acked, LOST, f"{o.acked - acked} messages were acknowledged without a disk")
        o.must(reads > 10 and not failed, LOST, f"{reads} reads, {len(failed)} failed: {failed[:2]}")
        stand.control.set("disk_full", 0)
        stand.control.disarm()
        self.rounds.may_end.discard("store")
        self.rounds.look()

    async def read(self):
        device = next((d for d in self.town.steady if d.is_ready), None)
        if device is None:
            return 0
        chat = max((s.chat for s in device.slots.values()), key=lambda c: c.acked_head)
        head, _, messages = (await device.link.ask("HISTORY", chat.id, max(1, chat.acked_head - 10), chat.acked_head, timeout=5))[:3]
        return head >= chat.acked_head and len(messages) > 0

    async def power(self, arm, mode):
        if arm[0] == FAIL:
            await self.fires(arm)
            self.rounds.shoot("store")
        else:
            await self.rounds.shoot_store_at(arm)
        self.rounds.oracle.say(f"  {self.stand.power_cut(self.rounds.random, mode)}")
        await self.rounds.restart()
