# SPDX-License-Identifier: MPL-2.0
"""What must be true, kept in memory: every message that was ever sent, what became of it, and every cursor."""

import collections
import struct

POOL_BYTES = 1 << 16
LOST, DOUBLED, REORDERED = "lost", "doubled", "reordered"


class Oracle:
    def __init__(self, random, say):
        self.say = say
        self.pool = random.randbytes(POOL_BYTES + 1024)
        self.salt = random.getrandbits(64)
        self.counts = {LOST: 0, DOUBLED: 0, REORDERED: 0}
        self.findings = []
        self.where = "start"
        self.is_quiet = True  # nobody writes or reads anything new
        self.devices = {}  # id → Device
        self.sent = self.acked = self.retried = self.seen = 0
        self.refusals = collections.Counter()  # error → sends answered with it

    def finding(self, kind, text):
        self.counts[kind] += 1
        self.findings.append(f"{kind}: {text} [{self.where}]")
        if len(self.findings) <= 50:
            self.say(f"FOUND {self.findings[-1]}")

    def must(self, holds, kind, text):
        if not holds:
            self.finding(kind, text)
        return holds

    def payload(self, device, chat, dseq):
        """(nonce, ciphertext) of one message: nothing needs to be kept, and nothing else looks like it."""
        nonce = struct.pack("<IIQQ", device.number, chat.number, dseq, self.salt)
        mix = (dseq * 2654435761 + device.number * 40503 + chat.number * 97) & 0xFFFFFFFF
        at = mix % POOL_BYTES
        return nonce, nonce[:17] + self.pool[at:at + mix % 400]


class Chat:
    """One chat: two people, their devices, and the order that the server has given out."""

    def __init__(self, oracle, number, people):
        self.oracle, self.number, self.people = oracle, number, people
        self.id = None
        self.key_version = 1
        self.at = {}  # seq → (device, dseq), from whoever saw it first
        self.seq_of = {}  # (device, dseq) → seq
        self.acked_head = 0  # highest seq that a sender or a history has told
        self.scanned = 0  # history was compared up to here
        self.scanned_dseq = collections.Counter()  # device → last dseq met in it
        self.cursors = {}  # (user, device id or None) → highest that the server has confirmed to anyone

    def __repr__(self):
        return f"chat {self.number} ({self.people[0].name}, {self.people[1].name})"

    def peer_of(self, person):
        return self.people[person is self.people[0]]

    def place(self, device, dseq, seq, how):
        """Someone says that this message has this number."""
        o = self.oracle
        what = f"{self!r} seq {seq}: {device!r} dseq {dseq} ({how})"
        before = self.seq_of.setdefault((device, dseq), seq)
        o.must(before == seq, DOUBLED, f"{what} was seq {before} before")
        there = self.at.setdefault(seq, (device, dseq))
        o.must(there == (device, dseq), LOST, f"{what}, but {there[0]!r} dseq {there[1]} was there before")

    def saw(self, fields, how):
        """A message as the server gives it: is it exactly what was sent?"""
        o = self.oracle
        seq, user, device_id, dseq, nonce, ciphertext = fields[1], fields[2], fields[3], fields[4], fields[7], fields[8]
        o.seen += 1
        device = o.devices.get(device_id)
        if not o.must(device is not None and device.person.user == user and device.person in self.people, LOST,
                      f"{self!r} seq {seq}: from someone who did not send it ({how})"):
            return
        slot = device.slots[self.id]
        o.must(1 <= dseq <= slot.dseq, DOUBLED, f"{self!r} seq {seq}: {device!r} never sent dseq {dseq} ({how})")
        o.must((nonce, ciphertext) == o.payload(device, self, dseq), LOST,
               f"{self!r} seq {seq}: other bytes than {device!r} dseq {dseq} sent ({how})")
        self.place(device, dseq, seq, how)

    def acked(self, device, dseq, seq):
        self.place(device, dseq, seq, "sent")
        self.acked_head = max(self.acked_head, seq)

    def scan(self, messages, how):
        """The next part of the history, behind what was scanned: without gaps, each device's messages in its order."""
        o = self.oracle
        for fields in messages:
            seq, device, dseq = fields[1], o.devices.get(fields[3]), fields[4]
            o.must(seq == self.scanned + 1, LOST, f"{self!r}: seq {seq} follows {self.scanned} ({how})")
            self.saw(fields, how)
            last = self.scanned_dseq[device]
            o.must(dseq != last, DOUBLED, f"{self!r} seq {seq}: {device!r} dseq {dseq} again ({how})")
            o.must(dseq == last + 1 or dseq == last, REORDERED,
                   f"{self!r} seq {seq}: {device!r} dseq {dseq} follows {last} ({how})")
            self.scanned, self.scanned_dseq[device] = seq, dseq

    def confirmed(self, user, device, up_to):
        """The server has said that this cursor is so far: it may never be less again."""
        key = (user, device)
        self.cursors[key] = max(self.cursors.get(key, 0), up_to)

    def snapshot(self):
        """What an answer that is asked for now must at least say: (head, cursors)."""
        return self.acked_head, dict(self.cursors)

    def check_sync(self, row, before, how):
        """A sync_chat of an answer; before: snapshot() from when it was asked for."""
        o, (head, cursors) = self.oracle, before
        o.must(row.head >= head, LOST, f"{self!r}: head {row.head}, acknowledged up to {head} ({how})")
        now = {(c[0], c[1]): c[2] for c in row.cursors}
        for key, least in cursors.items():
            o.must(now.get(key, 0) >= least, LOST,
                   f"{self!r}: cursor of {self.name_of(key)} is {now.get(key, 0)}, was {least} ({how})")
        for key, up_to in now.items():
            o.must(up_to <= row.head, LOST, f"{self!r}: cursor of {self.name_of(key)} is above the head ({how})")
        return now

    def name_of(self, key):
        device = self.oracle.devices.get(key[1])
        person = next((p for p in self.people if p.user == key[0]), None)
        return f"{device!r}" if device else f"{person and person.name} (read)"

    def unread_of(self, person, read, head):
        """(count, first) of other people's messages behind read."""
        first = count = 0
        for seq in range(read + 1, head + 1):
            if seq in self.at and self.at[seq][0].person is not person:
                count += 1
                first = first or seq
        return count, first
