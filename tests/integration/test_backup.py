# SPDX-License-Identifier: MPL-2.0
"""Backup while the system is in use: what is in it, what is refused, what a crash or a full disk leaves."""

import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading

import pytest
from backups import MANIFEST, manifest_of, restore
from bus import Actor
from chasqui import befriend
from ctl import Ctl
from system import BIN, System, eventually

SYSTEM = {"edges": 2}
JOB_START, JOB_STATUS, JOB_CANCEL = 0x14, 0x15, 0x16
RUNNING, DONE, FAILED, CANCELLED = 1, 2, 3, 4
NOT_FOUND, BAD_ARG, BUSY, DENIED = 20, 4, 31, 47
TRIES = 30  # for what must happen between two steps of another process


@pytest.fixture
def ctl(system):
    return Ctl(system)


@pytest.fixture(scope="module")
def some_data(system):
    """Some megabytes, so that a copy takes a moment."""
    x, y = system.person(1), system.person(2)
    befriend(x, y)
    for _ in range(400):
        x.send(y, secrets.token_hex(8000))
    x.close(), y.close()


@pytest.fixture
def actor(system):
    a = Actor(system.broker_endpoint, "ctl." + secrets.token_hex(4), "ctl")
    yield a
    a.leave()


def backup(ctl, target):
    code, rows = ctl.json("backup", target)
    assert code == 0 and rows[-1]["state"] == "done", rows
    return rows[-1]


def refused(ctl, target, *words):
    code, rows = ctl.json("backup", target)
    assert code == 1 and rows[-1]["state"] == "failed", rows
    for word in words:
        assert word in rows[-1]["text"] + rows[-1]["error"], rows


def new_restored(system, source, data):
    code, said = restore(source, data, system.dir / "keys/master.key")
    assert code == 0, said


def test_backup_says_what_it_is(system, ctl, pair, target):
    x, y = pair
    x.send(y, "kept")
    job = backup(ctl, target)
    assert job["kind"] == "backup" and job["done"] == job["total"] > 0 and job["findings"] == 0
    assert sorted(p.name for p in target.iterdir()) == ["blobs.list", "data.mdb", "manifest"]
    assert not list(target.parent.glob("*.partial"))
    assert target.stat().st_mode & 0o777 == 0o700 and (target / "data.mdb").stat().st_mode & 0o777 == 0o600
    m = manifest_of(target)
    assert tuple(m) == MANIFEST
    assert int(m["head"]) > 0 and int(m["part"].split()[2]) == (target / "data.mdb").stat().st_size


def test_the_master_key_is_not_in_it(system, ctl, target):
    backup(ctl, target)
    key = (system.dir / "keys/master.key").read_text().strip()
    data = (target / "data.mdb").read_bytes()
    assert bytes.fromhex(key) not in data and key.encode() not in data
    assert [p.name for p in target.iterdir() if "key" in p.name] == []


def test_backup_for_people(ctl, target):
    code, out, err = ctl.run("backup", target)
    assert (code, err) == (0, "")
    assert "verified" in out and "master key is not in the backup" in out


def test_relative_paths_are_ours(system, target):
    """The store does not know where the operator stands."""
    r = subprocess.run([BIN / "chasquictl", "--broker", system.broker_endpoint, "backup", "here"], cwd=target.parent,
                       capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert (target.parent / "here/manifest").exists()


def test_everything_sent_before_is_in_it(system, ctl, target, some_data):
    """Messages are sent all the time; a backup has each that was `sent` before it began, in order and without gaps."""
    x, y = system.person(1), system.person(2)
    befriend(x, y)
    sent, stop = [], threading.Event()

    def send():
        while not stop.is_set():
            sent.append((x.send(y, text := f"m{len(sent)}"), text))

    sender = threading.Thread(target=send)
    sender.start()
    befores = []
    try:
        for i in range(5):
            eventually(lambda: len(sent) > 20 * (i + 1), what="some messages")
            befores.append(len(sent))
            backup(ctl, target.parent / f"b{i}")
    finally:
        stop.set()
        sender.join()
    assert [seq for seq, _ in sent] == list(range(1, len(sent) + 1))
    copy = System(edges=1)
    shutil.copytree(system.dir / "keys", copy.dir / "keys", dirs_exist_ok=True)
    new_restored(system, target.parent / "b4", copy.dir / "store")
    copy.start()
    try:
        y.login(copy.url(1))
        y.catch_up()
        history = y.history(x)
        assert len(history) >= befores[4]
        assert [(m.seq, m.text) for m in history] == sent[:len(history)]
        heads = [int(manifest_of(target.parent / f"b{i}")["head"]) for i in range(5)]
        assert heads == sorted(heads) and heads[0] < heads[4]
    finally:
        x.close(), y.close()
        copy.stop()


def test_damage_of_the_database_is_told(target):
    """The backup is made all the same: who has a damaged database needs it all the more."""
    row = f"VERSION=3\nformat=bytevalue\ndatabase=unread_audit\ntype=btree\nHEADER=END\n 0000{'00' * 32}\n 90\nDATA=END\n"
    s = System(edges=1)
    s.broker.start(), s.store.start()
    try:
        s.store.wait_log("id=STORE-REGISTERED")
        s.store.stop()
        subprocess.run(["mdb_load", "-f", "/dev/stdin", s.dir / "store"], input=row.encode(), check=True)
        s.store.start()
        code, rows = Ctl(s).json("backup", target)
        assert code == 1 and rows[-1]["state"] == "done" and rows[-1]["findings"] == len(rows) - 1 > 0
        assert all("unread_audit" in r["text"] for r in rows[:-1]) and "damaged" in rows[-1]["text"]
        new_restored(s, target, target.parent / "new")
    finally:
        s.stop()


# ---- refused ----


def test_existing_targets_are_refused(ctl, target):
    target.mkdir()
    (target / "something").write_text("mine")
    refused(ctl, target, "exists already", "BAD_STATE")
    assert (target / "something").read_text() == "mine"
    file = target.parent / "file"
    file.write_text("mine")
    refused(ctl, file, "exists already")
    assert file.read_text() == "mine"
    link = target.parent / "link"
    link.symlink_to("/nowhere")
    refused(ctl, link, "exists already")


def test_an_empty_folder_is_fine(ctl, target):
    target.mkdir()
    backup(ctl, target)


def test_bad_places_are_refused(system, ctl, target):
    refused(ctl, target.parent / "no/where", "there is no folder")
    refused(ctl, system.dir / "store/b", "inside the database")
    (target.parent / "loop").symlink_to(system.dir / "store")
    refused(ctl, target.parent / "loop/b", "inside the database")
    refused(ctl, "/", "not a folder")
    code, rows = ctl.json("backup", "/" + "x" * 5000)
    assert code == 2 and rows[0]["error"] == "USAGE"


def test_somebody_elses_partial_is_left_alone(ctl, target):
    partial = target.with_suffix(".partial")
    partial.mkdir()
    (partial / "data.mdb").write_text("mine")
    refused(ctl, target, "in the way")
    assert (partial / "data.mdb").read_text() == "mine"


def mount(size):
    folder = tempfile.mkdtemp(prefix="cq-small-")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        os.rmdir(folder)
        pytest.skip("may not mount a small file system here")
    return pathlib.Path(folder)


def test_too_little_space_is_found_before(ctl, some_data):
    small = mount("20m")
    try:
        refused(ctl, small / "b", "NO_SPACE", "are needed")
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)
        small.rmdir()


def between(system, partial, ctl, target, then):
    """Runs a backup and calls then() while the store is frozen in the middle of it; the chasquictl that waits for it."""
    for _ in range(TRIES):
        process = ctl.start("--json", "backup", target)
        file = partial / "data.mdb"
        while process.poll() is None and not file.exists():
            pass
        system.store.freeze()
        if file.exists() and process.poll() is None:
            then()
            return process
        system.store.thaw()
        process.communicate()
        shutil.rmtree(target, ignore_errors=True)
    raise AssertionError("never in time")


def test_a_disk_that_fills_up(system, ctl, some_data, pair):
    small = mount("64m")

    def fill():
        with open(small / "filler", "wb", buffering=0) as f:
            try:
                while True:
                    f.write(b"x" * 4096)
            except OSError:
                pass

    try:
        process = between(system, small / "b.partial", ctl, small / "b", fill)
        system.store.thaw()
        code, out, _ = ctl.finish(process)
        assert code == 1 and "NO_SPACE" in out and "is full" in out
        assert [p.name for p in small.iterdir()] == ["filler"], "nothing is left of it"
        x, y = pair
        x.send(y, "the store itself is fine")
        (small / "filler").unlink()
        backup(ctl, small / "b")
    finally:
        system.store.thaw()
        subprocess.run(["umount", "-l", small], check=True)
        small.rmdir()


# ---- crashes ----


def test_killed_in_the_middle(system, ctl, target, some_data, pair):
    partial = target.parent / "b.partial"
    process = between(system, partial, ctl, target, lambda: system.store.kill())
    system.store.start()
    code, out, _ = ctl.finish(process)
    assert code == 1 and "the job is gone" in out
    assert not target.exists()
    text = (partial / "manifest").read_text()
    assert text.startswith("chasqui-backup unfinished\n") and "cannot be used" in text
    code, said = restore(partial, target.parent / "new", system.dir / "keys/master.key")
    assert code == 1 and "not finished" in said and not (target.parent / "new").exists()
    x, y = pair
    x.patiently(lambda: x.resume(system.url(1)))
    x.send(y, "after")
    backup(ctl, target)
    assert not partial.exists()
    new_restored(system, target, target.parent / "new")


def test_a_clean_stop_does_not_wait_for_it(system, ctl, target, some_data):
    process = between(system, target.parent / "b.partial", ctl, target, lambda: None)
    system.store.signal(signal.SIGTERM)
    system.store.thaw()
    system.store.process.wait(30)
    assert not target.exists() or (target / "manifest").exists()
    assert not (target.parent / "b.partial").exists(), "a backup that is cancelled is removed"
    system.store.start()
    ctl.finish(process)


def test_is_cancelled_by_the_operator(system, ctl, target, some_data):
    for _ in range(TRIES):
        process = between(system, target.parent / "b.partial", ctl, target, lambda: None)
        process.send_signal(signal.SIGINT)
        system.store.thaw()
        code, out, _ = ctl.finish(process)
        if '"cancelled"' in out:
            break
        shutil.rmtree(target, ignore_errors=True)
    assert code == 1 and '"cancelled"' in out
    assert list(target.parent.iterdir()) == []


# ---- on the bus ----


def test_one_at_a_time_and_repetitions(actor, target):
    """Two starts in one envelope: the second is BUSY; the first one repeated is the same job."""
    a, b = os.urandom(16), os.urandom(16)
    start = [next(actor.rids) for _ in range(3)]
    actor.send("store.1", JOB_START, [[start[0], a, "backup", str(target)], [start[1], b, "backup", f"{target}2"],
                                      [start[2], a, "backup", str(target)]])
    actor.wait(lambda: all(r in actor.replies for r in start))
    first, busy, again = (actor.replies.pop(r) for r in start)
    assert busy[0] == BUSY
    assert first[0] == again[0] == 0 and first[1] == again[1] == a
    actor.wait(lambda: actor.request("store.1", JOB_STATUS, a, 0)[4] == DONE, 30)
    late = actor.request("store.1", JOB_START, a, "backup", str(target))
    assert late[0] == 0 and late[4] == DONE, "a repetition after its end finds it, too"
    assert actor.request("store.1", JOB_STATUS, None, 0)[1] == a
    assert not pathlib.Path(f"{target}2").exists()


def test_bad_requests(actor):
    new = os.urandom(16)
    assert actor.request("store.1", JOB_STATUS, new, 0)[0] == NOT_FOUND
    assert actor.request("store.1", JOB_CANCEL, new)[0] == NOT_FOUND
    for kind, path in (("nonsense", "/tmp/x"), ("backup", ""), ("backup", "relative"), ("backup", 7), (b"", "/x")):
        assert actor.request("store.1", JOB_START, new, kind, path)[0] == BAD_ARG, (kind, path)
    assert actor.request("store.1", JOB_STATUS, new, 0)[0] == NOT_FOUND


def test_only_operators_may_ask(system, target):
    bot = Actor(system.broker_endpoint, "bot.1", "bot")
    try:
        assert bot.request("store.1", JOB_START, os.urandom(16), "backup", str(target))[0] == DENIED
        assert bot.request("store.1", JOB_STATUS, None, 0)[0] == DENIED
    finally:
        bot.leave()
    assert not target.exists()


def test_job_verb(ctl, target):
    backup(ctl, target)
    code, rows = ctl.json("job")
    assert code == 0 and rows[-1]["path"] == str(target) and rows[-1]["state"] == "done"
    refused(ctl, target, "exists already")
    assert ctl.json("job")[0] == 1
    code, rows = ctl.json("job", "--cancel")
    assert code == 1 and rows[-1]["error"] == "NOT_FOUND" and "no job is running" in rows[-1]["message"]
    code, rows = ctl.json("backup", f"{target}2", "--detach")
    assert code == 0 and rows[-1]["state"] in ("running", "done")
    code, rows = ctl.json("job", "--follow")
    assert code == 0 and rows[-1]["state"] == "done"
