# SPDX-License-Identifier: MPL-2.0
"""fsck of blobs: rows, references and files, online, offline and in a backup; planted damage is found, coming and going is none."""

import hashlib
import os
import pathlib
import secrets
import shutil
import subprocess
import tempfile
import threading

import pytest
from blobs import Uploader, file_of, trailer_of
from chasqui import befriend
from ctl import LONG, Ctl
from system import BIN, eventually

SYSTEM = dict(edges=1, store=["--blob-grace-s", "600", "--blob-sweep-s", "1"],
              blobd=["--orphan-grace-s", "600", "--scrub-bytes-per-s", "0", "--sweep-s", "1"])


@pytest.fixture
def ctl(system):
    return Ctl(system)


@pytest.fixture
def user(system):
    a, b = system.person(), system.person()
    befriend(a, b)
    uploader = Uploader(system, a.user)
    uploader.a, uploader.b = a, b
    yield uploader
    uploader.close()
    a.close(), b.close()


def show(user, data):
    """A blob that a message refers to."""
    blob = user.upload(data)
    user.a.send_prepared(user.a.prepare(user.b, "look", media=[blob, len(data), b"thumbnail"]))
    return blob


def flip(file, offset):
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)


def findings(ctl, *options):
    """(kind, hex of the blob) of each finding."""
    code, rows = ctl.json("fsck", *options)
    job = rows[-1]
    assert job["state"] == "done" and code == (1 if job["findings"] else 0), rows
    return sorted((r["text"].split(":")[0], r["text"].split("blob=")[-1].split(":")[0].split()[0]) for r in rows[:-1])


def offline(data, key, *options):
    r = subprocess.run([BIN / "chasqui-store", "--fsck", "--data", data, "--master-key", key, *options],
                       capture_output=True, text=True, timeout=LONG)
    assert "Sanitizer" not in r.stderr and "assert" not in r.stderr, r.stderr
    return r


def test_planted_damage_is_found(system, ctl, user):
    root, key = system.dir / "blobs", system.dir / "keys/master.key"
    good, missing, short, flipped, other = (show(user, os.urandom(200_000)) for _ in range(5))
    assert findings(ctl) == findings(ctl, "--blobs") == []
    aside = system.dir / "aside"
    shutil.copytree(root, aside)
    file_of(root, missing).unlink()
    os.truncate(file_of(root, short), 150_000)
    flip(file_of(root, flipped), 4096 + 100_000)
    # A good file, but of another blob's bytes and root: only the row knows.
    stranger = Uploader(system, user.user)
    shutil.copy(file_of(root, good), system.dir / "saved")
    fake = bytearray(file_of(root, other).read_bytes())
    body = fake[4096:4096 + 200_000]
    body[0] ^= 1
    file_of(root, other).write_bytes(fake[:4096] + body + trailer_of(fake, body))
    orphan = secrets.token_bytes(16)
    file_of(root, orphan).parent.mkdir(exist_ok=True)
    file_of(root, orphan).write_bytes(b"nobody knows")
    stranger.close()

    quick = sorted([("blob-missing", missing.hex()), ("blob-damaged", short.hex()), ("blob-damaged", other.hex()),
                    ("blob-orphan", orphan.hex())])
    deep = sorted([*quick, ("blob-damaged", flipped.hex())])
    assert findings(ctl) == quick
    assert findings(ctl, "--blobs") == deep
    system.store.stop()
    r = offline(system.dir / "store", key, "--blobs", root)
    assert r.returncode == 1 and "5 findings" in r.stdout, r.stdout
    assert all(kind in r.stdout and blob in r.stdout for kind, blob in deep)
    assert offline(system.dir / "store", key).returncode == 0
    assert offline(system.dir / "store", key, "--blobs", aside).returncode == 0
    system.store.start()
    system.wait_ready()
    for blob in (missing, short, flipped, other):
        shutil.copy(file_of(aside, blob), file_of(root, blob))
    file_of(root, orphan).unlink()
    assert findings(ctl, "--blobs") == []


def test_rows_are_counted_again(system, ctl, user):
    """References and readers that the log does not give, planted into the database itself."""
    blob = show(user, os.urandom(1000))
    user.b.send_prepared(user.b.prepare(user.a, "back", media=[blob, 1000, b""]))
    assert findings(ctl) == []
    system.store.stop()
    database = system.dir / "store"

    def dump(table):
        text = subprocess.run(["mdb_dump", "-s", table, database], capture_output=True, text=True, check=True).stdout
        head, rows = text.split("HEADER=END\n")
        return head, [line.strip() for line in rows.replace("DATA=END", "").split()]

    def load(table, key, value):
        text = f"VERSION=3\nformat=bytevalue\ndatabase={table}\ntype=btree\nHEADER=END\n {key}\n {value}\nDATA=END\n"
        subprocess.run(["mdb_load", "-f", "/dev/stdin", database], input=text.encode(), check=True)

    _, rows = dump("blob_reader")
    key = next(k for k in rows[::2] if blob.hex() in k)
    load("blob_reader", key[:36] + secrets.token_hex(16), "c3")
    _, rows = dump("blob_use")
    load("blob_use", rows[0], rows[1][:-2] + "7f")
    r = offline(database, system.dir / "keys/master.key")
    assert r.returncode == 1 and "2 findings" in r.stdout, r.stdout
    assert "blob_reader" in r.stdout and "blob_use" in r.stdout
    system.store.start()
    system.wait_ready()
    code, out = ctl.json("fsck")
    assert code == 1 and out[-1]["findings"] == 2
    shutil.rmtree(database)  # for the tests behind this one
    system.store.restart()
    shutil.rmtree(system.dir / "blobs/blobs")
    system.blobd.restart()
    system.wait_ready()


def test_coming_and_going_is_no_finding(system, ctl, user):
    """Uploads, references and collection all the time."""
    system.store.stop()
    place = system.store.command.index("600")
    system.store.command[place] = "0"
    system.store.start()
    system.wait_ready()
    stop, errors, count = threading.Event(), [], [0, 0]

    def upload(n):
        mine = Uploader(system, user.user)
        try:
            while not stop.is_set():
                mine.upload(os.urandom(secrets.randbelow(100_000)))
                count[n] += 1
        except Exception as e:  # pylint: disable=broad-except
            errors.append(e)
        mine.close()

    threads = [threading.Thread(target=upload, args=(n,)) for n in range(2)]
    for t in threads:
        t.start()
    try:
        for i in range(4):
            before = sum(count)
            eventually(lambda: sum(count) > before + 20, what="some uploads")
            assert findings(ctl, *(["--blobs"] if i % 2 else [])) == []
    finally:
        stop.set()
        for t in threads:
            t.join()
        system.store.command[place] = "600"
    assert not errors
    system.store.restart()
    system.wait_ready()


def test_a_backup_is_checked_and_stays_as_it_is(system, ctl, user):
    blob = show(user, os.urandom(100_000))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cq-backup-"))
    try:
        assert ctl.json("backup", folder / "b")[0] == 0
        r = offline(folder / "b", system.dir / "keys/master.key", "--blobs", folder / "b")
        assert r.returncode == 2 and "blobs of its own" in r.stderr
        before = {p: hashlib.sha256(p.read_bytes()).digest() for p in (folder / "b").rglob("*") if p.is_file()}
        r = offline(folder / "b", system.dir / "keys/master.key")
        assert r.returncode == 0 and "files of blobs" in r.stdout, r.stdout + r.stderr
        assert before == {p: hashlib.sha256(p.read_bytes()).digest() for p in (folder / "b").rglob("*") if p.is_file()}
        flip(file_of(folder / "b", blob), 4096 + 50_000)
        r = offline(folder / "b", system.dir / "keys/master.key")
        assert r.returncode == 1 and f"blob={blob.hex()}" in r.stdout and "1 findings" in r.stdout
    finally:
        shutil.rmtree(folder)


def test_without_blobd_it_says_so(system, ctl, user):
    show(user, b"x")
    system.blobd.stop()
    process = ctl.start("--json", "fsck")
    system.blobd.start()
    code, out, _ = ctl.finish(process)
    assert code == 0 or "blob-unchecked" in out
