# SPDX-License-Identifier: MPL-2.0
"""blobd, edges and the store are killed at random while people upload and send what they have uploaded.

In the end each URL in a Communication record must give the whole, right blob, through either edge; every upload that was
acknowledged must be there; and when the grace periods are over no file may be left that nobody refers to.

    tests/crash/run.sh --blobs [--uploads N] [--kills N] [--size BYTES] [--seed S]
"""

import argparse
import itertools
import pathlib
import random
import secrets
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

from chasqui import TRANSIENT, Closed, Refused, befriend  # noqa: E402
from ctl import Ctl  # noqa: E402
from system import System, eventually  # noqa: E402
from tus import Tus  # noqa: E402

TARGETS = ("blobd", "edge.1", "edge.2", "store")
SENDERS = 4
GRACE_S = 2  # of blobs nobody refers to, and of orphans
UPLOAD_LIFE_S = 8
PATIENCE_S = 60  # for one upload with its message
LATER = (0, 429, 500, 503, 504)  # no answer, or not now
GONE = (404, 410)  # expired meanwhile: begun anew
LARGE_SHARE = 40  # one in so many is
LARGE = 4  # times the largest of the others


def new_system():
    limits = [f"--limit-{what}-per-s=0" for what in ("send", "friend", "query", "history")]
    return System(edges=2, edge=limits,
                  store=["--blob-grace-s", str(GRACE_S), "--blob-sweep-s", "1"],
                  blobd=["--sweep-s", "1", "--orphan-grace-s", str(GRACE_S), "--upload-life-s", str(UPLOAD_LIFE_S),
                         "--upload-idle-s", str(UPLOAD_LIFE_S // 2),  # an open one is not swept: its sender may be back
                         "--scrub-bytes-per-s", "0"])


class Sender(threading.Thread):
    """Uploads, sends, and does not give up."""

    def __init__(self, kills, device, seed):
        super().__init__(daemon=True)
        self.kills, self.system, self.device = kills, kills.system, device
        self.random = random.Random(seed)
        self.sent = []  # (seq, blob, data)
        self.tried = {}  # blob: data, of every message that may have been taken
        self.error = None
        self.begun = 0  # uploads, those that were lost included

    def run(self):
        try:
            while self.kills.wants_more():
                self.one()
        except BaseException as e:  # pylint: disable=broad-except
            self.error = e
            self.kills.stop.set()

    def one(self):
        data = self.random.randbytes(self.size())
        deadline = time.monotonic() + PATIENCE_S
        while True:
            blob = self.upload(data, deadline)
            self.tried[blob] = data
            seq = self.send(blob, len(data), deadline)
            if seq:
                self.sent.append((seq, blob, data))
                return

    def size(self):
        """Of one piece or less as often as of some, and now and then of many."""
        most = self.kills.size * (LARGE if self.random.randrange(LARGE_SHARE) == 0 else 1)
        return int(most ** self.random.uniform(0.6, 1))

    def tus(self):
        return Tus(self.system.port + self.random.randrange(2), self.device.token)

    def upload(self, data, deadline):
        path = None
        while True:
            assert time.monotonic() < deadline, f"an upload of {len(data)} bytes does not end"
            try:
                path, is_whole = self.step(path, data)
                if is_whole:
                    return bytes.fromhex(path.rsplit("/", 1)[1])
            except OSError:
                pass
            time.sleep(0.01)

    def step(self, path, data):
        """One request more: (path, is it whole)."""
        if not path:
            a = self.tus().tus("POST", "/blob", upload_length=len(data))
            self.begun += a.status == 201
            assert a.status in (201, *LATER), a
            return (a["location"] if a.status == 201 else None), False
        a = self.tus().state(path)
        if a.status in GONE:
            return None, False
        assert a.status in (200, *LATER), a
        if a.status != 200 or a.offset == len(data):
            return path, a.status == 200
        # Cut off in the middle, now and then.
        part = data[a.offset:a.offset + self.random.randrange(1, 2 * len(data))]
        a = self.tus().patch(path, a.offset, part)
        assert a.status in (204, 409, *GONE, *LATER), a
        return path, a.status == 204 and a.offset == len(data)

    def send(self, blob, length, deadline):
        """The message's number; None if the blob was collected before it could be sent."""
        d = self.device
        fields = d.prepare(self.kills.reader, "look", media=[blob, length, secrets.token_bytes(100)])
        while True:
            assert time.monotonic() < deadline, "a message is not accepted"
            if not d.link:  # nobody was there to connect to
                self.reconnect()
                time.sleep(0.01)
                continue
            try:
                return d.send_prepared(fields, timeout=2)[0]
            except Refused as e:
                if e.name == "NO_BLOB":
                    return None
                if e.name == "NOT_AUTHENTICATED":  # the last attempt to resume failed
                    self.reconnect()
                    continue
                assert e.name in TRANSIENT, e
            except (Closed, TimeoutError, OSError):
                self.reconnect()
            time.sleep(0.01)

    def reconnect(self):
        try:
            self.device.close()
            self.device.connect(self.system.url(1 + self.random.randrange(2)))
            self.device.welcome(self.device.ask("RESUME", self.device.token, timeout=2))
        except Exception as e:  # pylint: disable=broad-except
            if isinstance(e, Refused) and e.name not in TRANSIENT:
                raise


class BlobKills:
    def __init__(self, uploads=200, kills=20, size=1_000_000, seed=None):
        self.uploads, self.wanted, self.size = uploads, kills, size
        self.seed = secrets.randbits(32) if seed is None else seed
        self.random = random.Random(self.seed)
        self.stop = threading.Event()
        self.killed = dict.fromkeys(TARGETS, 0)
        self.senders = []
        self.system = new_system()

    def kills(self):
        return sum(self.killed.values())

    def sent(self):
        return sum(len(s.sent) for s in self.senders)

    def wants_more(self):
        return not self.stop.is_set() and (self.sent() < self.uploads or self.kills() < self.wanted)

    def kill_one(self):
        name = self.random.choice(TARGETS)
        victim = self.system.services[name]
        victim.kill()
        self.killed[name] += 1
        time.sleep(self.random.choice((0, 0, 0.02, 0.2)))
        victim.start()
        time.sleep(self.random.uniform(0.05, 0.6))

    def run(self):
        """A line of figures; raises on everything that must not be."""
        print(f"blob kills: seed {self.seed}", flush=True)
        self.system.start()
        try:
            began = time.monotonic()
            for step in (self.talk, self.check_messages, self.check_files, self.system.stop):
                step()
                print(f"blob kills: {step.__name__} {time.monotonic() - began:.1f} s", flush=True)
        except BaseException:
            for s in self.system.services.values():
                if s.is_alive():
                    s.kill()
            print(f"blob kills: seed {self.seed}, {self.system.dir} is kept", flush=True)
            raise
        begun = sum(s.begun for s in self.senders)
        return f"uploads={self.sent()} begun={begun} kills={self.kills()} {self.killed} seed={self.seed}"

    def talk(self):
        self.reader = self.system.person(1)
        for n in range(SENDERS):
            device = self.system.person(1 + n % 2)
            befriend(device, self.reader)
            self.senders.append(Sender(self, device, f"{self.seed} {n}"))
        for s in self.senders:
            s.start()
        while self.wants_more():
            self.kill_one()
        for s in self.senders:
            s.join(PATIENCE_S + 10)
            assert not s.is_alive(), "a sender does not end"
        errors = [s.error for s in self.senders if s.error]
        if errors:
            raise errors[0]
        self.system.heal()

    def check_messages(self):
        self.reader.close()
        self.reader.login(self.system.url(1))
        reader = self.reader
        ports = itertools.cycle((self.system.port, self.system.port + 1))
        self.referred = set()
        for s in self.senders:
            seqs = {seq: blob for seq, blob, _ in s.sent}
            for m in reader.history(s.device):
                blob, length, _ = m.media
                self.referred.add(blob)
                a = Tus(next(ports), reader.token).get(f"/blob/{blob.hex()}")
                assert a.status == 200 and a.is_whole and len(a.body) == length, (a, blob.hex())
                assert seqs.pop(m.seq, blob) == blob
                assert a.body == s.tried[blob], blob.hex()
            assert not seqs, f"acknowledged and not in the history: {seqs}"

    def names(self, folder):
        return {bytes.fromhex(p.name) for p in self.system.dir.glob(folder)}

    def check_files(self):
        eventually(lambda: self.names("blobs/blobs/*/*") == self.referred and not self.names("blobs/uploads/*"),
                   UPLOAD_LIFE_S + 4 * GRACE_S + 20, "an end of what nobody refers to")
        eventually(lambda: not self.names("blobs/orphans/*"), what="an end of the notes on orphans")
        code, rows = Ctl(self.system).json("fsck", "--blobs")
        assert code == 0, rows


def main():
    p = argparse.ArgumentParser(prog="tests/crash/run.sh --blobs", description=__doc__.split("\n", maxsplit=1)[0])
    p.add_argument("--uploads", type=int, default=200, help="with a message each (default: 200)")
    p.add_argument("--kills", type=int, default=100, help="at least so many (default: 100)")
    p.add_argument("--size", type=int, default=1_000_000, help="largest upload in bytes, but for a few (default: 1,000,000)")
    p.add_argument("--seed", type=int)
    o = p.parse_args()
    print(BlobKills(o.uploads, o.kills, o.size, o.seed).run())


if __name__ == "__main__":
    main()
