# SPDX-License-Identifier: MPL-2.0
"""The other side of shim.c: arms it, counts with it, and plays the power cut that its journal tells of."""

import dataclasses
import mmap
import os
import pathlib
import struct

PAGE = 4096
SECTOR = 512
CONTROL_BYTES = 4096
NONE, KILL_BEFORE, KILL_AFTER, TORN, FAIL, SHORT = range(6)
ON_WRITE, ON_SYNC, ON_DSYNC = 1, 2, 4
ON_ANY = ON_WRITE | ON_SYNC | ON_DSYNC
FULL_WRITES, FULL_STATVFS = 1, 2
WRITE, DONE, SYNC, FAILED, CREATE, FOLDER, CUT = range(1, 8)
RECORD = struct.Struct("<IIQQQQ")
FIELDS = ("pid", "calls", "writes", "syncs", "dsyncs", "fired", "disk_full", "is_killed")
ARMS, ARM_WORDS = 4, 5


class Control:
    """The page shared with the shim of one program at a time."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.path.write_bytes(bytes(CONTROL_BYTES))
        with open(self.path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), CONTROL_BYTES)

    def get(self, field):
        return struct.unpack_from("<Q", self.map, 8 * FIELDS.index(field))[0]

    def set(self, field, value):
        struct.pack_into("<Q", self.map, 8 * FIELDS.index(field), value)

    def arm(self, *arms):
        """Each (kind, on, countdown, arg, times); the next one counts when the one before is used up."""
        self.disarm()
        for n, (kind, on, countdown, arg, times) in reversed(list(enumerate(arms))):
            at = 8 * (len(FIELDS) + n * ARM_WORDS)
            struct.pack_into("<QQQQ", self.map, at + 8, on, countdown, arg, times)
            struct.pack_into("<Q", self.map, at, kind)

    def disarm(self):
        for n in range(ARMS):
            struct.pack_into("<Q", self.map, 8 * (len(FIELDS) + n * ARM_WORDS), NONE)

    def is_armed(self):
        return any(struct.unpack_from("<Q", self.map, 8 * (len(FIELDS) + n * ARM_WORDS))[0] for n in range(ARMS))


@dataclasses.dataclass
class File:
    """What the disk has where that may differ from what the file shows."""

    pages: dict = dataclasses.field(default_factory=dict)  # page number → [(offset, old bytes)], oldest first
    doomed: set = dataclasses.field(default_factory=set)  # a sync of them failed: no later one writes them
    size: int | None = None  # on the disk; None: as it shows
    last: tuple = (0, 0)

    def write(self, offset, old, n, size):
        if self.size is None and offset + n > size:
            self.size = size
        self.last = (offset, n)
        old = old.ljust(n, b"\0")  # behind the end there is nothing
        for page in self.pages_of(offset, n):
            self.doomed.discard(page)
            low, high = max(offset, page * PAGE), min(offset + n, (page + 1) * PAGE)
            self.pages.setdefault(page, []).append((low, old[low - offset:high - offset]))

    @staticmethod
    def pages_of(offset, n):
        return range(offset // PAGE, (offset + n - 1) // PAGE + 1) if n else ()

    def sync(self):
        self.pages = {p: pieces for p, pieces in self.pages.items() if p in self.doomed}
        self.size = self.size if self.doomed else None

    def sync_last(self):
        for page in self.pages_of(*self.last):
            self.pages.pop(page, None)


class Journal:
    """What a power cut could take, from the shim's journal."""

    def __init__(self, path):
        self.files, self.created, self.records = {}, [], 0
        data = pathlib.Path(path).read_bytes() if os.path.exists(path) else b""
        at = 0
        while at + RECORD.size <= len(data):
            kind, path_bytes, offset, n, old_bytes, old_size = RECORD.unpack_from(data, at)
            name = data[at + RECORD.size:at + RECORD.size + path_bytes].decode()
            old = data[at + RECORD.size + path_bytes:at + RECORD.size + path_bytes + old_bytes]
            at += RECORD.size + path_bytes + old_bytes
            self.records += 1
            self._take(kind, name, offset, n, old, old_size)

    def _take(self, kind, name, offset, n, old, old_size):
        f = self.files.setdefault(name, File())
        if kind == WRITE:
            f.write(offset, old, n, old_size)
        elif kind == DONE:
            f.sync_last()
        elif kind == SYNC:
            f.sync()
        elif kind == FAILED:
            f.doomed |= set(f.pages)
        elif kind == CREATE:
            self.created.append(name)
        elif kind == FOLDER:
            self.created = [c for c in self.created if os.path.dirname(c) != name]
        elif kind == CUT and f.size is None:
            f.size = old_size

    def must_keep(self):
        """Would a sync of everything not be enough to make the disk the same as what shows?"""
        return bool(self.created) or any(f.doomed for f in self.files.values())

    def owes(self):
        return bool(self.created) or any(f.pages or f.size is not None for f in self.files.values())


def cut(journal_path, random=None, mode="all"):
    """Plays a power cut and returns a sentence on what it took.

    all: nothing that was not synced is left, nor files made in a folder that was not synced.
    pages: of each page, chance says whether it has reached the disk. sectors: of each 512 bytes."""
    journal = Journal(journal_path)
    taken = kept = 0
    for name, f in journal.files.items():
        if not os.path.exists(name) or not (f.pages or f.size is not None):
            continue
        with open(name, "r+b") as out:
            reach = shown = os.fstat(out.fileno()).st_size
            if f.size is not None:
                reach = f.size
            step = SECTOR if mode == "sectors" else PAGE
            for page, pieces in sorted(f.pages.items()):
                for low in range(page * PAGE, (page + 1) * PAGE, step):
                    if mode != "all" and random.random() < 0.5:
                        kept += 1
                        reach = max(reach, min(low + step, shown))
                    else:
                        taken += 1
                        restore(out, pieces, low, low + step)
            out.truncate(reach)
    gone = [name for name in journal.created if mode == "all" and os.path.exists(name)]
    for name in gone:
        os.unlink(name)
    open(journal_path, "wb").close()
    return f"{taken} pieces lost, {kept} kept, {len(gone)} files gone"


def restore(out, pieces, low, high):
    """Puts the old bytes of [low, high) back: the oldest are those that the disk has."""
    for offset, old in reversed(pieces):
        a, b = max(low, offset), min(high, offset + len(old))
        if a < b:
            out.seek(a)
            out.write(old[a - offset:b - offset])
