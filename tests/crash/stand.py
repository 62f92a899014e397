# SPDX-License-Identifier: MPL-2.0
"""The services under the harness: real ones, the store with the fault layer below it, each killed and started at will."""

import os
import random
import subprocess
import time

from powercut import Control, Journal, cut
from system import BIN, System, eventually

SHIM = BIN.resolve() / "chasqui-crash-shim.so"
# One address and few people make all the load. The rest is as it comes, but for the checkpoint: it shall always be under way.
EDGE_LIMITS = [word for name in ("accept", "login", "resume", "send", "friend", "account", "query", "history", "signup", "signal")
               for word in (f"--limit-{name}-per-s", "0")]

# Of each start of the store: nearly no chat stays in memory, some do, all do.
CHAT_CACHES = (1, 2, 6, 1000000)


class Stand(System):
    def __init__(self, checkpoint_records=3000, checkpoint_idle_ms=300, edges=2, seed=0):
        super().__init__(edges, edge=EDGE_LIMITS, store=[
            "--checkpoint-records", checkpoint_records, "--checkpoint-idle-ms", checkpoint_idle_ms])
        self.random = random.Random(seed)  # its own: what others choose does not depend on it
        self.store_command = list(self.store.command)
        self.journal = self.dir / "journal"
        self.control = Control(self.dir / "control")
        self.expected = set()  # names of services that we have killed, or that may end under what was done to them
        self.serving_ms = []  # from the start of a store to its first `sent`
        self.started_at = {}
        self.kills = dict.fromkeys(self.roles(), 0)

    def roles(self):
        return sorted({role_of(name) for name in self.services})

    def start_one(self, name):
        service = self.services[name]
        if name == "store":
            env = dict(os.environ, LD_PRELOAD=str(SHIM), CRASH_SHIM_ROOT=str(self.dir / "store"),
                       CRASH_SHIM_CONTROL=str(self.control.path), CRASH_SHIM_JOURNAL=str(self.journal))
            if Journal(self.journal).must_keep():
                env["CRASH_SHIM_KEEP"] = "1"
            self.control.set("is_killed", 0)
            service.command = [*self.store_command, "--chat-cache", str(self.random.choice(CHAT_CACHES))]
            service.environment = env
        service.start()
        self.expected.discard(name)
        self.started_at[name] = time.monotonic()

    def start(self):
        for name in self.services:
            self.start_one(name)
            if name == "redis":
                eventually(self.redis_socket.exists, what="redis")
        self.wait_ready()
        return self

    def kill_one(self, name):
        """True if it lived."""
        service = self.services[name]
        if not service.is_alive():
            return False
        self.expected.add(name)
        service.kill()
        self.kills[role_of(name)] += 1
        return True

    def died(self):
        """Services that have ended although nobody killed them."""
        return [s for s in self.services.values() if not s.is_alive() and s.name not in self.expected]

    def was_shot(self):
        """Has the fault layer killed the store? Then it is dead now."""
        if not self.control.get("is_killed"):
            return False
        self.store.process.wait(10)
        if "store" not in self.expected:
            self.expected.add("store")
            self.kills["store"] += 1
        return True

    def dead(self):
        return [name for name, s in self.services.items() if not s.is_alive()]

    def power_cut(self, random, mode):
        assert not self.store.is_alive()
        return cut(self.journal, random, mode)

    def fsck(self):
        """The check of a store that does not run: (exit code, its report)."""
        done = subprocess.run([BIN / "chasqui-store", "--fsck", "--data", self.dir / "store", "--master-key",
                               self.dir / "keys/master.key", "--broker", self.broker_endpoint],
                              capture_output=True, text=True, timeout=300)
        return done.returncode, done.stdout.strip() or done.stderr.strip()


def role_of(name):
    return name.partition(".")[0]
