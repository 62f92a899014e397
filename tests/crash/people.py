# SPDX-License-Identifier: MPL-2.0
"""Who talks: some people with two devices each, all friends of some; and others who sign up, befriend and part all the time."""

import asyncio
import secrets

from chasqui import FRIENDS, REMOVED, Closed, Refused, chat_id, friend_row
from device import WINDOW, Device, Person, Slot
from oracle import LOST, Chat
from wire import AGAIN

TICK_S = 0.02


class Town:
    def __init__(self, oracle, random, ports, people=6, friends=3, rate=300):
        self.oracle, self.random, self.ports, self.rate = oracle, random, ports, rate
        self.people = [Person(f"p{n}{secrets.token_hex(4)}") for n in range(people)]
        self.steady, self.roaming = [], []
        for p in self.people:
            self.steady.append(Device(oracle, ports, random, p, reads=len(self.steady) % 2 == 0))
            self.roaming.append(Device(oracle, ports, random, p, reads=False))
        pairs = {tuple(sorted((n, (n + k) % people))) for n in range(people) for k in range(1, friends // 2 + 2)}
        self.chats = [Chat(oracle, n, [self.people[a], self.people[b]]) for n, (a, b) in enumerate(sorted(pairs))]
        self.tasks = []
        self.strangers = []

    @property
    def devices(self):
        return self.steady + self.roaming

    async def settle(self):
        """Everybody signs up, befriends, and connects with both devices."""
        first = [asyncio.create_task(d.live()) for d in self.steady]
        await until(lambda: all(d.is_ready for d in self.steady), 60, "everybody to sign up")
        for chat in self.chats:
            a, b = (p.devices[0] for p in chat.people)
            await a.link.insist("ADD", b.person.name)
            f = friend_row(await b.link.insist("ACCEPT", a.person.name))
            chat.id = f.chat
            assert f.relation == FRIENDS and f.chat == chat_id(a.person.user, b.person.user)
            for person in chat.people:
                for device in person.devices:
                    device.slots[chat.id] = Slot(chat)
        self.tasks = first + [asyncio.create_task(d.live()) for d in self.roaming]
        await until(lambda: all(d.is_ready for d in self.devices), 60, "every device to log in")
        self.tasks += [asyncio.create_task(c) for c in (self.talk(), self.tick(), self.roam())]
        self.oracle.is_quiet = False

    async def stop(self):
        for task in self.tasks:
            task.cancel()
        done = await asyncio.gather(*self.tasks, return_exceptions=True)
        for device in self.devices:
            device.drop()
        return [e for e in done if isinstance(e, Exception)]

    def check_tasks(self):
        """A part of the harness that has died must not look like silence."""
        for task in self.tasks:
            if task.done():
                task.result()
                raise RuntimeError("a task of the load has ended")

    async def tick(self):
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            for device in self.devices:
                device.tick(now)

    async def talk(self):
        """Bursts, so that pipelines fill up to the window; about `rate` messages a second."""
        debt = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            debt = min(debt + self.rate * TICK_S, self.rate)
            while debt > 0 and not self.oracle.is_quiet:
                device = self.random.choice(self.devices)
                slot = self.random.choice(list(device.slots.values()))
                count = min(self.random.choice((1, 1, 1, 2, 4, WINDOW)), slot.room())
                for _ in range(count):
                    device.write(slot)
                debt -= max(count, 0.5)

    async def roam(self):
        """Of every person one device comes and goes, dead from one moment to the next, now and then with a loss of memory."""
        while True:
            await asyncio.sleep(self.random.uniform(0.05, 0.4))
            if self.oracle.is_quiet:
                continue
            device = self.random.choice(self.roaming)
            device.killed() if self.random.random() < 0.5 else device.drop()

    # ---- looking at everything ----

    def waits_for(self):
        """Which devices have not sent all, or are not there: names, empty when all is well."""
        return [f"{d!r}{'' if d.is_ready else ' (away)'}: {sum(len(s.outbox) for s in d.slots.values())} to send"
                for d in self.devices if not d.is_ready or any(s.outbox for s in d.slots.values())]

    def missing(self):
        """What devices that are connected do not hold, although it was acknowledged to its sender."""
        return [f"{d!r} holds {s.held} of {s.chat!r}, acknowledged up to {s.chat.acked_head}"
                for d in self.devices for s in d.slots.values() if s.held < s.chat.acked_head]

    def unconfirmed(self):
        return [f"{d!r} of {s.chat!r}" for d in self.devices for s in d.slots.values()
                if s.acked < s.held or s.read_acked < s.read]

    def stale(self):
        """Receipts that connected devices were not told of. What a user has read was delivered, too, and is told once."""
        return [f"{d!r} knows {s.cursors.get(key, 0)} of {s.chat.name_of(key)} in {s.chat!r}, is {up_to}"
                for d in self.devices for s in d.slots.values() for key, up_to in s.chat.cursors.items()
                if key[1] != d.id and self.told(s, key) < up_to]

    def told(self, slot, key):
        device = self.oracle.devices.get(key[1])
        read = slot.cursors.get((key[0], None), 0) if device and device.reads else 0
        return max(slot.cursors.get(key, 0), read)

    async def compare(self):
        """Everything is quiet: what the server says now must be exactly what the oracle knows."""
        for chat in self.chats:
            await self.scan(self.random.choice(chat.people[0].devices + chat.people[1].devices), chat)
        for person in self.people:
            await self.compare_person(person)

    async def scan(self, device, chat):
        while True:
            head, more, messages = (await device.link.insist("HISTORY", chat.id, chat.scanned + 1, 2**63 - 1))[:3]
            chat.scan(messages, f"HISTORY of {device!r}")
            if not more or not messages:
                break
        self.oracle.must(head == chat.scanned, LOST, f"{chat!r}: head {head}, but history up to {chat.scanned}")
        for (who, dseq), seq in chat.seq_of.items():
            self.oracle.must(seq <= head, LOST, f"{chat!r} seq {seq}: {who!r} dseq {dseq} is not in the history")

    async def compare_person(self, person):
        o, device = self.oracle, self.random.choice(person.devices)
        version = device.version
        rows = await device.sync(version=0)
        device.version = max(version, device.version)
        listed, after, more = {}, None, True
        while more:
            more, part = (await device.link.insist("CHATS", after))[:2]
            listed.update((c[0], c) for c in part)
            after = part[-1][0] if part else None
        for chat in self.chats:
            if person not in chat.people:
                continue
            row, c = rows.get(chat.id), listed.get(chat.id)
            if not o.must(row is not None and c is not None, LOST, f"{chat!r} is not in {person.name}'s list"):
                continue
            read = max((d.slots[chat.id].read_acked for d in person.devices), default=0)
            count, first = chat.unread_of(person, row.read, row.head)
            o.must(row.read >= read, LOST, f"{chat!r}: {person.name} has read up to {read}, server says {row.read}")
            o.must((row.unread, row.first_unread) == (count, first) and c[5:7] == [count, first], LOST,
                   f"{chat!r}: {person.name} has {count} unread from {first}, SYNC says {row.unread} from "
                   f"{row.first_unread}, CHATS {c[5:7]}")
            o.must(c[4] == row.head == chat.scanned, LOST, f"{chat!r}: head {row.head}, CHATS {c[4]}, history {chat.scanned}")

    # ---- strangers ----

    async def strangers_come(self):
        """New accounts that become friends, write, part and become friends again, whatever is being killed."""
        while True:
            await asyncio.sleep(self.random.uniform(1, 3))
            if not self.oracle.is_quiet:
                await Strangers(self).meet()


class Strangers:
    """Two new people and what they were told about each other. A request that was not answered is repeated as it was."""

    def __init__(self, town):
        self.town = town
        self.devices = [Device(town.oracle, town.ports, town.random, Person(f"s{secrets.token_hex(6)}"), False) for _ in "ab"]
        self.state = None  # what the last answer said

    async def insist(self, device, name, *fields):
        while True:
            try:
                if not device.link or device.link.is_lost or not device.is_ready:
                    await device.connect()
                return await device.link.ask(name, *fields)
            except Refused as e:
                if e.name not in AGAIN:
                    raise
                await asyncio.sleep(0.1)
            except (OSError, Closed, asyncio.TimeoutError):
                device.drop()
                await asyncio.sleep(0.1)

    async def meet(self):
        a, b = self.devices
        try:
            for device, name, relation in ((a, "ADD", 1), (b, "ACCEPT", FRIENDS), (a, "REMOVE", REMOVED),
                                           (b, "ADD", 1), (a, "ADD", FRIENDS)):
                peer = b if device is a else a
                if peer.person.user is None:
                    await self.insist(peer, "FRIENDS")
                await self.insist(device, "FRIENDS")
                f = friend_row(await self.insist(device, name, peer.person.name))
                self.town.oracle.must(f.relation == relation, LOST, f"{name} of {device!r} gave relation {f.relation}")
            self.state = (FRIENDS, f.chat)
            self.town.strangers.append(self)
            await self.check()
        except Refused as e:
            self.town.oracle.finding(LOST, f"{a!r} and {b!r} become friends: {e}")
        finally:
            a.drop()
            b.drop()

    async def check(self):
        """Both see the friendship, and both get the chat's key."""
        for device, peer in (self.devices, self.devices[::-1]):
            rows = {f.name: f for f in map(friend_row, (await self.insist(device, "FRIENDS"))[0])}
            f = rows.get(peer.person.name)
            self.town.oracle.must(f is not None and (f.relation, f.chat) == self.state, LOST,
                                  f"{device!r} and {peer!r} are friends, server says {f}")
            keys = [k[0] for k in (await self.insist(device, "KEYS", []))[3]]
            self.town.oracle.must(self.state[1] in keys, LOST, f"{device!r} has no key of the chat with {peer!r}")


async def until(condition, seconds, what=None, check=None):
    """Polls until it holds; False (or, with what, an error) when it does not in time."""
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        if check:
            check()
        if asyncio.get_running_loop().time() > end:
            if what:
                raise TimeoutError(f"waited {seconds} s for {what}")
            return False
        await asyncio.sleep(0.01)
    return True
