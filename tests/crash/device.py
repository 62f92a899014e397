# SPDX-License-Identifier: MPL-2.0
"""A person's device: keeps an outbox, holds chats without gaps, acknowledges, and reconnects; everything it is told goes to
the oracle. A killed device loses its connection and what was not yet acknowledged, never its outbox."""

import asyncio
import collections
import os

from chasqui import OPS, Closed, Refused, sync_chat_row, synced_row, welcome_row
from oracle import LOST
from wire import AGAIN, ERR, Connection, error_name

WINDOW = 16
ANSWER_LIMIT_S = 6  # a send that is not answered for so long goes out again
MESSAGE, RECEIPT, FRIEND, SYNC_NOW = (OPS[name] for name in ("MESSAGE", "RECEIPT", "FRIEND", "SYNC_NOW"))


class Person:
    def __init__(self, name):
        self.name, self.password = name, "correct horse battery"
        self.user = None
        self.devices = []


class Slot:
    """One chat on one device."""

    def __init__(self, chat):
        self.chat = chat
        self.dseq = 0  # last given to a message
        self.outbox = collections.OrderedDict()  # dseq → when it was sent last; the bytes are the oracle's
        self.acked_dseq = 0
        self.held = 0  # highest contiguous seq
        self.behind = 0  # a seq that was seen or told of beyond that
        self.is_fetching = False
        self.retry_at = None
        self.acked = self.read = self.read_acked = 0  # cursors that the server has confirmed, and what is read
        self.is_acking = False
        self.cursors = {}  # (user, device or None) → as this device was told

    def room(self):
        """So many messages may follow: as long as one is not answered, its answer must not leave the store's window."""
        return WINDOW - (self.dseq + 1 - next(iter(self.outbox))) if self.outbox else WINDOW


class Device:
    def __init__(self, oracle, ports, random, person, reads):
        self.oracle, self.ports, self.random, self.person = oracle, ports, random, person
        self.id, self.key = os.urandom(16), os.urandom(32)
        self.number = len(oracle.devices)
        oracle.devices[self.id] = self
        person.devices.append(self)
        self.reads = reads
        self.slots = {}
        self.link = None
        self.is_ready = False  # logged in and synced
        self.token = self.epoch = None
        self.version = 0
        self.connects = self.sync_nows = 0
        self.wants_sync = False
        self.tasks = set()

    def __repr__(self):
        return f"{self.person.name}/{self.number}"

    # ---- connection ----

    async def live(self):
        """Connected for ever, until cancelled."""
        while True:
            try:
                await self.connect()
                while not self.link.is_lost:
                    await asyncio.sleep(0.02)
                    if self.wants_sync:
                        self.wants_sync = False
                        await self.sync()
            except (OSError, Closed, asyncio.TimeoutError):
                pass
            except Refused as e:
                if e.name not in AGAIN:
                    self.oracle.finding(LOST, f"{self!r} is refused: {e}")
                    await asyncio.sleep(1)
            self.drop()
            await asyncio.sleep(self.random.uniform(0.02, 0.15))

    def drop(self):
        self.is_ready = False
        if self.link:
            self.link.abort()

    async def connect(self):
        self.link = await Connection.open(self.random.choice(self.ports), self.on_push, self.on_lost)
        if self.token:
            fields = await self.link.insist("RESUME", self.token)
        elif self.person.user is None:
            fields = await self.link.insist("SIGNUP", self.person.name, self.person.password, self.id, self.key, "")
        else:
            fields = await self.link.insist("LOGIN", self.person.name, self.person.password, self.id, self.key, "")
        w = welcome_row(fields)
        o = self.oracle
        o.must(self.person.user in (None, w.user), LOST, f"{self!r} is another user now")
        o.must(self.epoch in (None, w.epoch), LOST, f"{self!r}: the epoch changed")
        self.person.user, self.token, self.epoch = w.user, w.token, w.epoch
        self.connects += 1
        self.wants_sync = False
        await self.sync()
        self.is_ready = True
        for slot in self.slots.values():
            self.resend(slot)

    def on_lost(self, link):
        if link is self.link:
            self.is_ready = False

    def spawn(self, coroutine):
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # ---- catching up ----

    async def sync(self, version=None):
        """Asks until there is no more; returns the rows by chat."""
        rows = {}
        at = self.version if version is None else version
        while True:
            before = {s.chat.id: (s.chat.snapshot(), s.acked_dseq, s.acked, s.read_acked) for s in self.slots.values()}
            s = synced_row(await self.link.insist("SYNC", self.epoch, at))
            self.oracle.must(s.epoch == self.epoch and not s.reset, LOST, f"{self!r}: the epoch changed")
            for fields in s.chats:
                row = sync_chat_row(fields)
                rows[row.chat] = row
                if row.chat in self.slots:
                    self.synced(row, before[row.chat])
            at = self.version = s.version
            if not s.more:
                return rows

    def synced(self, row, before):
        slot = self.slots[row.chat]
        snapshot, dseq, delivered, read = before  # from when it was asked for
        now = slot.chat.check_sync(row, snapshot, f"SYNC of {self!r}")
        for key, up_to in now.items():
            slot.cursors[key] = max(slot.cursors.get(key, 0), up_to)
        self.oracle.must(row.last_dseq >= dseq, LOST,
                         f"{slot.chat!r}: the server has {self!r} up to dseq {row.last_dseq}, acknowledged {dseq}")
        self.oracle.must(row.delivered >= delivered and row.read >= read, LOST,
                         f"{slot.chat!r}: cursors of {self!r} went back to {row.delivered}, {row.read}")
        self.want(slot, row.head)

    def want(self, slot, seq):
        slot.behind = max(slot.behind, seq)
        if slot.behind > slot.held and not slot.is_fetching:
            slot.is_fetching = True
            self.spawn(self.fetch(slot))

    async def fetch(self, slot):
        """The range that is missing, on whatever connection there is now; another one begins with a SYNC of its own."""
        link = self.link
        try:
            while slot.held < slot.behind:
                first, last = slot.held + 1, slot.behind
                head, more, messages = (await link.insist("HISTORY", slot.chat.id, first, last))[:3]
                self.oracle.must(messages and messages[0][1] == first and head >= last, LOST,
                                 f"{slot.chat!r}: HISTORY from {first} to {last} gave {len(messages)}, head {head}")
                for fields in messages:
                    slot.chat.saw(fields, f"HISTORY of {self!r}")
                    if fields[1] == slot.held + 1:
                        slot.held = fields[1]
                if not messages:
                    break
        except (Closed, OSError, asyncio.TimeoutError):
            pass
        except Refused as e:
            self.oracle.finding(LOST, f"{slot.chat!r}: HISTORY is refused: {e}")
        finally:
            slot.is_fetching = False

    # ---- pushes ----

    def on_push(self, op):
        if op[0] == MESSAGE:
            slot = self.slots.get(op[1])
            if slot is None:
                return
            slot.chat.saw(op[1:], f"push to {self!r}")
            if op[2] == slot.held + 1 and not slot.is_fetching:
                slot.held = op[2]
            else:
                self.want(slot, op[2])
        elif op[0] == RECEIPT:
            slot = self.slots.get(op[1])
            if slot is not None:
                key = (op[2], op[3])
                slot.cursors[key] = max(slot.cursors.get(key, 0), op[4])
                slot.chat.confirmed(op[2], op[3], op[4])
        elif op[0] == SYNC_NOW:
            self.sync_nows += 1
            self.wants_sync = True

    # ---- sending ----

    def write(self, slot):
        """A new message into the outbox, and out of the door."""
        slot.dseq += 1
        self.oracle.sent += 1
        slot.outbox[slot.dseq] = 0
        if self.is_ready and slot.retry_at is None:
            self.send(slot, slot.dseq)

    def send(self, slot, dseq):
        nonce, ciphertext = self.oracle.payload(self, slot.chat, dseq)
        slot.outbox[dseq] = asyncio.get_running_loop().time()
        acked_before = slot.acked_dseq
        self.link.call("SEND", (slot.chat.id, dseq, dseq - 1, slot.chat.key_version, nonce, ciphertext),
                       lambda op: self.on_sent(slot, dseq, acked_before, op))

    def resend(self, slot):
        slot.retry_at = None
        for dseq in list(slot.outbox):
            self.oracle.retried += 1
            self.send(slot, dseq)

    def on_sent(self, slot, dseq, acked_before, op):
        if op is None:
            return
        if op[0] != ERR:
            self.sent(slot, dseq, op[2])
            return
        name, detail = error_name(op), op[5]
        if name == "DSEQ_CONFLICT" and dseq not in slot.outbox and slot.dseq - dseq >= WINDOW:
            return  # another copy of it was answered, and so many messages were sent since that the answer is not kept
        self.oracle.refusals[name] += 1
        if name == "OUT_OF_ORDER":
            self.oracle.must(detail >= acked_before, LOST,
                             f"{slot.chat!r}: the server has {self!r} up to dseq {detail}, acknowledged {acked_before}")
        elif name not in AGAIN:
            self.oracle.finding(LOST, f"{slot.chat!r}: {self!r} dseq {dseq} is refused: {name} {detail}")
        if slot.retry_at is None:
            slot.retry_at = asyncio.get_running_loop().time() + self.random.uniform(0.03, 0.12)

    def sent(self, slot, dseq, seq):
        slot.chat.acked(self, dseq, seq)
        slot.acked_dseq = max(slot.acked_dseq, dseq)
        if slot.outbox.pop(dseq, None) is not None:
            self.oracle.acked += 1
            self.oracle.last_ack_at = asyncio.get_running_loop().time()
        # Its own message: it has it, and knows where it belongs.
        if seq == slot.held + 1 and not slot.is_fetching:
            slot.held = seq
        elif seq > slot.held:
            self.want(slot, seq)

    # ---- every few milliseconds ----

    def tick(self, now):
        if not self.is_ready:
            return
        for slot in self.slots.values():
            oldest = next(iter(slot.outbox.values()), now)
            if (slot.retry_at is not None and now >= slot.retry_at) or now - oldest > ANSWER_LIMIT_S:
                self.resend(slot)
            self.want(slot, slot.behind)
            self.acknowledge(slot)

    def acknowledge(self, slot):
        if self.reads and not self.oracle.is_quiet and slot.held > slot.read and self.random.random() < 0.3:
            slot.read = slot.held
        if slot.is_acking or (slot.held <= slot.acked and slot.read <= slot.read_acked):
            return
        delivered, read = slot.held, slot.read
        slot.is_acking = True

        def on_answer(op):
            slot.is_acking = False
            if op is None:
                return
            if op[0] == ERR:
                name = error_name(op)
                self.oracle.must(name in AGAIN, LOST,
                                 f"{slot.chat!r}: ACK({delivered}, {read}) of {self!r} is refused: {name}")
                return
            slot.acked, slot.read_acked = max(slot.acked, delivered), max(slot.read_acked, read)
            slot.chat.confirmed(self.person.user, self.id, delivered)
            if read:
                slot.chat.confirmed(self.person.user, None, read)
                own = (self.person.user, None)
                slot.cursors[own] = max(slot.cursors.get(own, 0), read)

        self.link.call("ACK", ([[slot.chat.id, delivered, read]],), on_answer)

    def killed(self):
        """As a process that dies: what it held is what it had on its disk, and that it had told the server."""
        self.drop()
        for slot in self.slots.values():
            slot.held = min(slot.held, slot.acked)
            slot.behind = slot.held
            slot.read = slot.read_acked
            slot.cursors.clear()
        self.version = 0
