# SPDX-License-Identifier: MPL-2.0
"""Backups of messages and blobs that fit together: while blobs come and go, damaged ones, kills, full disks; and restoring."""

import os
import secrets
import shutil
import signal
import subprocess
import threading

import pytest
from backups import blake2, forge, manifest_of, restore
from blobs import NOT_FOUND, Refused, Uploader, file_of, trailer_of
from ctl import Ctl
from system import System, eventually
from test_backup import mount

PIECE = 65536


@pytest.fixture(scope="module")
def world():
    system = System(edges=1, store=["--blob-grace-s", "600", "--blob-sweep-s", "1"],
                    blobd=["--sweep-s", "1", "--orphan-grace-s", "600", "--scrub-bytes-per-s", "0"])
    system.start()
    yield system
    system.stop()


def new_user(world):
    """An uploader with an account: fsck looks for it in the copy."""
    person = world.person()
    person.close()
    return Uploader(world, person.user)


@pytest.fixture
def user(world):
    world.heal()
    uploader = new_user(world)
    yield uploader
    uploader.close()
    world.check_logs()


@pytest.fixture
def ctl(world):
    return Ctl(world)


def backup(ctl, target, *options, findings=0):
    code, rows = ctl.json("backup", target, *options)
    job = rows[-1]
    assert job["state"] == "done" and job["findings"] == findings, rows
    assert code == (1 if findings else 0)
    return job


def listed(backup):
    title, *lines = (backup / "blobs.list").read_text().splitlines()
    assert title == "chasqui-blobs 1"
    return {bytes.fromhex(line[:32]): line for line in lines}


def bad_blobs(root):
    """What the list promises and the folder does not keep, from the bytes alone."""
    bad = set()
    for blob, line in listed(root).items():
        _, length, root_hash = line.split()
        data = file_of(root, blob).read_bytes() if file_of(root, blob).exists() else b""
        body, trailer = data[4096:4096 + int(length)], data[4096 + int(length):]
        if not data or trailer != trailer_of(data, body) or not trailer.endswith(bytes.fromhex(root_hash)):
            bad.add(blob)
    return bad


def flip(file, offset):
    with open(file, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ 1]))


def some(user, sizes=(0, 1, PIECE, PIECE + 1, 300_000)):
    return {user.upload(data): data for data in map(os.urandom, sizes)}


def test_blobs_are_in_it_and_come_back(world, user, ctl, target):
    blobs = some(user)
    job = backup(ctl, target)
    assert f"{len(listed(target))} blobs" in job["text"] and "verified" in job["text"]
    assert job["done"] == job["total"] > sum(map(len, blobs.values()))
    assert set(blobs) <= set(listed(target)) and not bad_blobs(target)
    assert manifest_of(target)["part blobs"].split() == [
        "blobs.list", str((target / "blobs.list").stat().st_size), blake2((target / "blobs.list").read_bytes())]
    assert sorted(p.name for p in target.iterdir()) == ["blobs", "blobs.list", "data.mdb", "manifest"]
    assert not list(target.glob("blobs/*/*.new")) and not (target / "blobs/probe").exists()

    copy = System(edges=0, store=["--blob-sweep-s", "1"], blobd=["--sweep-s", "1"])
    shutil.copytree(world.dir / "keys", copy.dir / "keys", dirs_exist_ok=True)
    code, said = restore(target, copy.dir / "store", copy.dir / "keys/master.key", "--blobs", copy.dir / "blobs")
    assert code == 0 and f"blobs={len(listed(target))}" in said, said
    copy.start()
    try:
        again = Uploader(copy, user.user)
        for blob, data in blobs.items():
            assert again.access(blob)[0] == len(data) and again.download(blob) == data
        new = again.upload(b"goes on")
        assert again.download(new) == b"goes on"
        again.close()
    finally:
        copy.stop()


def test_without_blobs_it_says_so(world, user, ctl, target):
    some(user)
    job = backup(ctl, target, "--no-blobs")
    assert "WITHOUT BLOBS" in job["text"] and "part blobs" not in manifest_of(target)
    code, said = restore(target, target.parent / "s", world.dir / "keys/master.key", "--blobs", target.parent / "blobs")
    assert code == 0 and "STORE-RESTORE-NO-BLOBS" in said and not (target.parent / "blobs").exists()
    # ... and so does a restore that was not told where to.
    backup(ctl, target.parent / "c")
    code, said = restore(target.parent / "c", target.parent / "s2", world.dir / "keys/master.key")
    assert code == 0 and "give --blobs" in said


def test_while_blobs_come_and_go(world, user, ctl, target):
    """Uploads all the time, everything is collected at once: the backup has all that its database knows."""
    world.store.stop()
    world.store.command = [c if c != "600" else "0" for c in world.store.command]
    world.store.start()
    stop, made, errors = threading.Event(), [], []

    def upload():
        uploader = Uploader(world, user.user)
        try:
            while not stop.is_set():
                made.append(uploader.upload(os.urandom(secrets.randbelow(200_000))))
        except Exception as e:  # pylint: disable=broad-except
            errors.append(e)
        uploader.close()

    threads = [threading.Thread(target=upload) for _ in range(3)]
    for t in threads:
        t.start()
    try:
        for i in range(3):
            count = len(made)
            eventually(lambda: len(made) > count + 20, what="some uploads")
            backup(ctl, target.parent / f"b{i}")
            assert listed(target.parent / f"b{i}") and not bad_blobs(target.parent / f"b{i}")
    finally:
        stop.set()
        for t in threads:
            t.join()
        world.store.command = [c if c != "0" or world.store.command[i - 1] != "--blob-grace-s" else "600"
                               for i, c in enumerate(world.store.command)]
    assert not errors
    # Collection was only held back.
    eventually(lambda: not list(world.dir.glob("blobs/blobs/*/*")), 20, "collection")
    world.store.stop()
    world.store.start()


def test_lost_blobs_are_told(world, user, ctl, target):
    good, missing, damaged, short = (user.upload(os.urandom(200_000)) for _ in range(4))
    file_of(world.dir / "blobs", missing).unlink()
    flip(file_of(world.dir / "blobs", damaged), 4096 + 150_000)
    os.truncate(file_of(world.dir / "blobs", short), 100_000)
    code, rows = ctl.json("backup", target)
    assert code == 1 and rows[-1]["state"] == "done" and rows[-1]["findings"] == 3, rows
    text = "".join(r["text"] for r in rows)
    assert f"{missing.hex()} is missing" in text and f"{damaged.hex()} is damaged" in text and f"{short.hex()} is damaged" in text
    assert "blobs are missing or damaged" in rows[-1]["text"]
    assert good in listed(target) and not {missing, damaged, short} & set(listed(target)) and not bad_blobs(target)
    for blob in (missing, damaged, short):
        file_of(world.dir / "blobs", blob).unlink(missing_ok=True)
    world.blobd.checked = len(world.blobd.log_bytes())
    # For the tests behind this one they are gone:
    world.blobd.stop(), world.store.stop()
    shutil.rmtree(world.dir / "store"), shutil.rmtree(world.dir / "blobs")


def test_restoring_refuses(world, user, ctl, target):
    blobs = some(user)
    blob = max(blobs, key=lambda b: len(blobs[b]))
    backup(ctl, target)
    parent = target.parent
    tries = iter(range(100))

    def refused(*words):
        n = next(tries)
        code, said = restore(target, parent / f"s{n}", world.dir / "keys/master.key", "--blobs", parent / "blobs")
        assert code == 1 and all(w in said for w in words), said
        assert not (parent / f"s{n}").exists() and not list(parent.glob("*.restoring"))

    (parent / "blobs").mkdir()
    (parent / "blobs/mine").write_text("mine")
    refused("move the folder away")
    assert (parent / "blobs/mine").read_text() == "mine"
    shutil.rmtree(parent / "blobs")
    for offset in (4096 + 299_999, -1):
        file = file_of(target, blob)
        offset = offset if offset >= 0 else file.stat().st_size - 1
        flip(file, offset)
        refused(blob.hex(), "is damaged")
        flip(file, offset)
    file.rename(parent / "aside")
    refused(blob.hex(), "is missing")
    (parent / "aside").rename(file)
    flip(target / "blobs.list", 60)
    refused("list of blobs is damaged")
    flip(target / "blobs.list", 60)
    text = (target / "blobs.list").read_text()
    for bad in (text.replace(blob.hex(), "../" + blob.hex()[3:]), text + text[16:-1], "chasqui-blobs 2\n",
                text.replace(" 300000 ", " 0300000 ")):
        (target / "blobs.list").write_text(bad)
        forge(target, **{"part blobs": f"blobs.list {len(bad)} {blake2(bad.encode())}"})
        refused("list of blobs")
    (target / "blobs.list").write_text(text)
    forge(target, **{"part blobs": f"blobs.list {len(text)} {blake2(text.encode())}"})
    code, said = restore(target, parent / "good", world.dir / "keys/master.key", "--blobs", parent / "blobs")
    assert code == 0, said
    assert {p.name for p in parent.glob("blobs/blobs/*/*")} == {b.hex() for b in listed(target)}


def between(world, ctl, target, service, files=8):
    """A backup, and the service frozen when some blobs are in it."""
    partial = target.with_name(target.name + ".partial")
    process = ctl.start("--json", "backup", target)
    eventually(lambda: process.poll() is not None or len(list(partial.glob("blobs/*/*"))) >= files, what="some blobs in it")
    service.freeze()
    assert process.poll() is None, process.communicate()
    return process, partial


@pytest.fixture(scope="module")
def many(world):
    uploader = new_user(world)
    blobs = [uploader.upload(os.urandom(2_000_000)) for _ in range(40)]
    uploader.close()
    return blobs


def test_blobd_dies(world, user, ctl, target, many):
    process, partial = between(world, ctl, target, world.blobd)
    world.blobd.kill()
    assert (partial / "manifest").read_text().startswith("chasqui-backup unfinished")
    world.blobd.start()
    code, out, _ = ctl.finish(process)
    assert code == 0 and '"done"' in out, out
    assert set(many) <= set(listed(target)) and not bad_blobs(target) and not list(target.glob("blobs/*/*.new"))


def test_the_store_dies_and_the_next_one_goes_on(world, user, ctl, target, many):
    process, partial = between(world, ctl, target, world.store)
    world.store.kill()
    world.store.start()
    code, out, _ = ctl.finish(process)
    assert code == 1 and "the job is gone" in out
    assert not target.exists() and (partial / "manifest").read_text().startswith("chasqui-backup unfinished")
    code, said = restore(partial, target.parent / "s", world.dir / "keys/master.key", "--blobs", target.parent / "blobs")
    assert code == 1 and "not finished" in said and not (target.parent / "blobs").exists()
    # What is there is taken over if it is whole; strangers go.
    have = [p for p in partial.glob("blobs/*/*") if p.suffix != ".new" and p.stat().st_size > 5000]
    assert have
    kept, damaged = {p.name: p.stat().st_ino for p in have}, have[0].name
    flip(have[0], 5000)
    stranger = partial / "blobs/abc" / ("abc" + "0" * 29)
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_text("of another time")
    backup(ctl, target)
    assert set(many) <= set(listed(target)) and not bad_blobs(target) and not partial.exists()
    for name, inode in kept.items():
        same = file_of(target, bytes.fromhex(name)).stat().st_ino == inode
        assert same == (name != damaged)
    assert not file_of(target, bytes.fromhex(stranger.name)).exists()


def test_it_is_cancelled(world, user, ctl, target, many):
    process, partial = between(world, ctl, target, world.blobd)
    process.send_signal(signal.SIGINT)
    world.blobd.thaw()
    code, out, _ = ctl.finish(process)
    assert code == 1 and '"cancelled"' in out, out
    assert list(target.parent.iterdir()) == []


def test_blobd_is_not_there(world, user, ctl, target):
    user.upload(b"x")
    world.blobd.stop()
    process = ctl.start("--json", "backup", target)
    eventually(lambda: "job" in ctl.json("job")[1][-1]["type"] and ctl.json("job")[1][-1]["text"].startswith("check"), what="the copy")
    world.blobd.start()
    code, out, _ = ctl.finish(process)
    assert code == 0, out
    world.blobd.stop()
    backup(ctl, target.parent / "c", "--no-blobs")
    world.blobd.start()


def test_no_room_and_a_disk_that_fills_up(world, user, ctl, many):
    small = mount("64m")
    try:
        code, rows = ctl.json("backup", small / "b")
        assert code == 1 and rows[-1]["error"] == "NO_SPACE" and "no room for" in rows[-1]["text"], rows
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)
        small.rmdir()
    small = mount("150m")
    try:
        process, _ = between(world, ctl, small / "b", world.blobd)
        with open(small / "filler", "wb", buffering=0) as f:
            try:
                while True:
                    f.write(b"x" * 65536)
            except OSError:
                pass
        world.blobd.thaw()
        code, out, _ = ctl.finish(process)
        assert code == 1 and "NO_SPACE" in out and "is full" in out, out
        assert [p.name for p in small.iterdir()] == ["filler"]
        (small / "filler").unlink()
        backup(ctl, small / "b")
        assert not bad_blobs(small / "b")
    finally:
        world.blobd.thaw()
        subprocess.run(["umount", "-l", small], check=True)
        small.rmdir()


def test_not_into_the_blobs_own_folder(world, user, ctl):
    user.upload(b"x")
    code, rows = ctl.json("backup", world.dir / "blobs/backup")
    assert code == 1 and "its own folder" in rows[-1]["text"], rows
    assert not (world.dir / "blobs/backup.partial").exists()


def test_refused_on_the_bus(world, user, target):
    """Only the store may ask, and only for real folders."""
    with pytest.raises(Refused) as r:
        user.ask("blobd", 0x4e, str(target.parent), secrets.token_bytes(16), 1, bytes(32))
    assert r.value.err == 47  # DENIED
    assert NOT_FOUND == 20
