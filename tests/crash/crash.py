# SPDX-License-Identifier: MPL-2.0
"""The crash harness: see README.md. Started by run.sh."""

import argparse
import asyncio
import pathlib
import random
import shutil
import statistics
import sys
import time
import xml.sax.saxutils

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

from faults import FAULTS, Faults  # noqa: E402
from oracle import LOST, Oracle  # noqa: E402
from people import Town  # noqa: E402
from rounds import TARGETS, Rounds  # noqa: E402
from stand import SHIM, Stand  # noqa: E402
from system import BIN  # noqa: E402

CHECK_EVERY = 4
CASE_LIMIT_S = 300  # nothing takes so long unless it hangs
BEGAN = time.monotonic()


def say(text):
    print(f"{time.monotonic() - BEGAN:8.2f} {text}", flush=True)


def parse():
    p = argparse.ArgumentParser(prog="tests/crash/run.sh", description="Kills services under load and looks for what is missing.")
    p.add_argument("--kills", type=int, default=100, help="go on until so many processes were killed (default: 100)")
    p.add_argument("--seed", type=int, help="of all chance (default: one is made and printed)")
    p.add_argument("--only", default="", help="what is killed, of " + ",".join([*TARGETS, "fault"]) + " (default: all)")
    p.add_argument("--fault", default="", help="only the faults whose name contains this")
    p.add_argument("--rate", type=int, default=300, help="messages a second (default: 300)")
    p.add_argument("--junit", help="write a report for continuous integration to this file")
    p.add_argument("--keep", action="store_true", help="keep the data folder even if nothing was found")
    p.add_argument("--verbose", action="store_true", help="a line for every round")
    options = p.parse_args()
    only = [w for w in options.only.split(",") if w]
    unknown = set(only) - {*TARGETS, "fault"}
    if unknown or options.kills < 0:
        p.error(f"unknown: {', '.join(sorted(unknown))}" if unknown else "--kills takes a number")
    options.targets = {t: n for t, n in TARGETS.items() if not only or t in only}
    options.faults = not only or "fault" in only
    options.seed = random.SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    if not options.targets:
        options.kills = 0
    if not SHIM.exists():
        p.error(f"{SHIM} is missing: build with cmake --preset release -DBUILD_TESTING=ON && cmake --build --preset release")
    return options


class Run:
    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.oracle = Oracle(self.random, say)
        self.stand = Stand(checkpoint_records=self.random.choice((500, 3000, 20000)),
                           checkpoint_idle_ms=self.random.choice((50, 300, 1000)), seed=options.seed)
        self.town = Town(self.oracle, self.random, [self.stand.port + n for n in range(self.stand.edge_count)], rate=options.rate)
        self.rounds = Rounds(self.stand, self.town, self.oracle, self.random, options.targets)
        self.fault_kills = 0
        self.cases = []  # (name, seconds, findings)

    async def case(self, name, coroutine):
        """One case of the report. True if nothing was found."""
        before, began = len(self.oracle.findings), time.monotonic()
        try:
            await asyncio.wait_for(coroutine, CASE_LIMIT_S)
        except Exception as e:  # the harness itself, or a service that does not answer at all
            self.oracle.finding(LOST, f"{type(e).__name__}: {e}")
        found = self.oracle.findings[before:]
        self.cases.append((name, time.monotonic() - began, found))
        return not found

    async def work(self):
        say(f"seed {self.options.seed}, data {self.stand.dir}, store {self.stand.options['store']}")
        self.stand.start()
        ok = await self.case("everybody signs up", self.town.settle())
        strangers = asyncio.create_task(self.town.strangers_come())
        if ok and self.options.faults:
            faults = Faults(self.rounds)
            for name in (f for f in FAULTS if self.options.fault in f):
                say(f"fault: {name}")
                ok = ok and await self.case(f"fault: {name}", faults.run(name))
        self.fault_kills, self.rounds.kills = self.rounds.kills, 0
        ok = ok and await self.kill_all(strangers)
        strangers.cancel()
        if ok:
            await self.case("in the end", self.last_look())
        for error in await self.town.stop():
            if not isinstance(error, asyncio.CancelledError):
                self.oracle.finding(LOST, f"{type(error).__name__}: {error}")

    async def kill_all(self, strangers):
        number = begin = 0
        ok = True
        while ok and self.rounds.kills < self.options.kills:
            number += 1
            with_check = number % CHECK_EVERY == 0 or self.rounds.kills >= self.options.kills - 1
            kills, began = self.rounds.kills, time.monotonic()
            ok = await self.case(f"round {number}", self.rounds.round(number, with_check))
            if strangers.done() and not strangers.cancelled():
                strangers.result()
            if self.options.verbose:
                say(f"{self.rounds.what} ({self.rounds.kills - kills} kills, {time.monotonic() - began:.2f} s)")
            if self.rounds.kills // 50 > begin:
                begin = self.rounds.kills // 50
                say(f"{self.rounds.kills} kills, {self.oracle.acked} messages, {self.oracle.retried} repeated")
        return ok

    async def last_look(self):
        self.oracle.where = "in the end"
        await self.rounds.check()
        self.oracle.is_quiet = True
        for chat in self.town.chats:
            chat.scanned = 0
            chat.scanned_dseq.clear()
        await self.town.compare()
        for strangers in self.town.strangers:
            await strangers.check()
            for device in strangers.devices:
                device.drop()

    # ---- the end ----

    def end(self):
        """Everything must stop by itself, with clean logs, and the store's own check must find nothing."""
        stand, o = self.stand, self.oracle
        try:
            for name in [s for s in stand.services if s.startswith("edge.")] + ["presence", "blobd", "store", "broker", "redis"]:
                stand.services[name].stop()
            stand.check_logs()
        except Exception as e:
            o.finding(LOST, f"{type(e).__name__}: {e}")
            for s in stand.services.values():
                if s.is_alive():
                    s.kill()
        code, words = stand.fsck()
        o.must(code == 0, LOST, f"chasqui-store --fsck ended with {code}: {words[-1000:]}")
        say(f"fsck: {words.splitlines()[-1] if words else code}")

    def report(self):
        o, rounds = self.oracle, self.rounds
        kept = sum(len(s.outbox) for d in self.town.devices for s in d.slots.values())
        say(f"killed: {', '.join(f'{n} {k}' for k, n in self.stand.kills.items())}"
            f"{f' ({self.fault_kills} of them by fault cases, not counted below)' if self.fault_kills else ''}; "
            f"rounds: {', '.join(f'{n} {k}' for k, n in sorted(rounds.kinds.items()))}")
        say(f"messages: {o.sent} written, {o.acked} acknowledged, {kept} unacknowledged but kept, {o.retried} repeated, "
            f"{o.seen} looked at; {len(self.town.strangers)} friendships; "
            f"{sum(d.connects for d in self.town.devices)} connections, {sum(d.sync_nows for d in self.town.devices)} SYNC_NOW")
        for name, values in (("a restarted store serves after", self.stand.serving_ms), ("healed after", rounds.healing_ms)):
            if values:
                say(f"{name}: median {statistics.median(values):.0f} ms, max {max(values):.0f} ms")
        if o.findings:
            self.keep()
        elif not self.options.keep:
            shutil.rmtree(self.stand.dir, ignore_errors=True)
        if self.options.junit:
            self.write_junit()
        print(f"kills={rounds.kills} lost={o.counts['lost']} doubled={o.counts['doubled']} "
              f"reordered={o.counts['reordered']} seed={self.options.seed}", flush=True)
        return 1 if o.findings else 0

    def keep(self):
        o, path = self.oracle, self.stand.dir / "findings"
        with open(path, "w") as out:
            out.write("\n".join(o.findings) + "\n")
            for chat in self.town.chats:
                out.write(f"\n{chat!r}: id {chat.id and chat.id.hex()}, acknowledged up to {chat.acked_head}\n")
                for seq, (device, dseq) in sorted(chat.at.items())[-300:]:
                    out.write(f"{seq} {device!r} {dseq}\n")
        say(f"{len(o.findings)} findings; data, logs and history are kept in {self.stand.dir} (see {path}); programs: {BIN}; "
            f"again: tests/crash/run.sh --seed {self.options.seed} --kills {self.options.kills}")

    def write_junit(self):
        def quote(text):
            return xml.sax.saxutils.quoteattr("".join(c if c.isprintable() else "?" for c in text))

        bad = sum(bool(found) for _, _, found in self.cases)
        with open(self.options.junit, "w") as out:
            out.write(f'<testsuites><testsuite name="crash" tests="{len(self.cases)}" failures="{bad}" errors="0" skipped="0">\n')
            for name, seconds, found in self.cases:
                out.write(f'<testcase classname="crash" name={quote(name)} time="{seconds:.3f}">')
                out.write(f"<failure message={quote(found[0])}/>" if found else "")
                out.write("</testcase>\n")
            out.write("</testsuite></testsuites>\n")


def main():
    run = Run(parse())
    try:
        asyncio.run(run.work())
    except BaseException as e:
        run.oracle.finding(LOST, f"the harness ended: {type(e).__name__}: {e}")
        if not isinstance(e, (KeyboardInterrupt, Exception)):
            raise
    finally:
        asyncio.set_event_loop(None)
    run.end()
    return run.report()


if __name__ == "__main__":
    sys.exit(main())
