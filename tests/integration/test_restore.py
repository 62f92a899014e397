# SPDX-License-Identifier: MPL-2.0
"""Restore: which backups are refused, and how a system, its edges and its clients go on with an older history."""

import gzip
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from backups import forge, manifest_of, restore, restore_in_place
from chasqui import Device, Refused, befriend
from cli import Home
from ctl import Ctl
from system import System, eventually

OLD = pathlib.Path(__file__).resolve().parents[1] / "data/store-schema-1"


@pytest.fixture(scope="module")
def shelf():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cq-shelf-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def world():
    """A system of its own: each test turns its history back."""
    s = System(edges=2).start()
    yield s
    s.stop()


def backup(system, target):
    code, rows = Ctl(system).json("backup", target)
    assert code == 0, rows
    return target


# ---- what is refused ----


@pytest.fixture(scope="module")
def kept(shelf):
    """A backup with its key, of a system that is gone."""
    s = System(edges=1).start()
    x, y = s.person(1), s.person(1)
    befriend(x, y)
    for i in range(30):
        x.send(y, f"kept {i}")
    x.close(), y.close()
    backup(s, shelf / "kept")
    shutil.copy(s.dir / "keys/master.key", shelf / "master.key")
    s.stop()
    return shelf / "kept"


@pytest.fixture
def place(shelf, kept):
    """(a copy of the backup to be damaged, where the database is to go, the key)"""
    folder = pathlib.Path(tempfile.mkdtemp(dir=shelf))
    shutil.copytree(kept, folder / "backup")
    return folder / "backup", folder / "db", shelf / "master.key"


def refuses(place, *words):
    source, data, key = place
    code, said = restore(source, data, key)
    assert code == 1, said
    for word in words:
        assert word in said, said
    assert [p.name for p in data.parent.iterdir() if p.name.startswith("db")] == [], "nothing is left behind"


def test_a_good_one_is_restored(place):
    source, data, key = place
    assert restore(source, data, key)[0] == 0
    assert data.stat().st_mode & 0o777 == 0o700 and (data / "data.mdb").stat().st_mode & 0o777 == 0o600


def test_into_an_empty_folder(place):
    place[1].mkdir()
    assert restore(*place)[0] == 0


def test_an_existing_database_is_not_overwritten(place):
    source, data, key = place
    assert restore(source, data, key)[0] == 0
    before = (data / "data.mdb").read_bytes()
    code, said = restore(source, data, key)
    assert code == 1 and "already" in said
    assert (data / "data.mdb").read_bytes() == before
    assert not data.with_suffix(".restoring").exists()


@pytest.mark.parametrize("at", [0, 17, 4096 + 40, 20000, -1])
def test_a_flipped_bit_is_found(place, at):
    file = place[0] / "data.mdb"
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    refuses(place, "CORRUPT", "damaged")


def test_a_file_that_is_cut_off_or_missing(place):
    file = place[0] / "data.mdb"
    whole = file.read_bytes()
    file.write_bytes(whole[:-4096])
    refuses(place, "CORRUPT")
    file.unlink()
    refuses(place, "cannot be copied")


def test_manifests_that_lie(place):
    """A sum that fits is no proof: the file itself, and what is in the database, must agree."""
    source = place[0]
    good = manifest_of(source)
    forge(source, head=int(good["head"]) - 1, marker=0)
    refuses(place, "another backup")
    forge(source, **good)
    forge(source, epoch="11" * 16)
    refuses(place, "another backup")
    forge(source, **good)
    data = bytearray((source / "data.mdb").read_bytes())
    (source / "data.mdb").write_bytes(data[:len(data) // 2])
    forge(source, part=True)
    refuses(place, "CORRUPT")


def test_junk_with_a_fitting_manifest(place):
    source = place[0]
    for junk in (b"", b"junk" * 5000, b"\0" * 65536):
        (source / "data.mdb").write_bytes(junk)
        forge(source, part=True)
        refuses(place)


def test_damaged_manifests(place):
    source = place[0]
    text = (source / "manifest").read_text()
    for bad in ("", text[:-10], text.replace("head ", "hend "), text.replace("schema ", "schema 1"), "x" * 100000):
        (source / "manifest").write_text(bad)
        refuses(place, "manifest")
    (source / "manifest").unlink()
    refuses(place, "not a backup")
    (source / "manifest").mkdir()
    refuses(place, "not a backup")


def test_from_a_newer_version(place):
    source = place[0]
    forge(source, schema=99)
    refuses(place, "NEWER_SCHEMA", "newer")
    forge(source, **{"schema": 1, "chasqui-backup": 2})
    refuses(place, "NEWER_SCHEMA", "newer")


def test_with_another_master_key(place):
    source, data, key = place
    other = data.parent / "other.key"
    other.write_text("ab" * 32 + "\n")
    other.chmod(0o600)
    refuses((source, data, other), "master key does not open")
    refuses((source, data, data.parent / "no.key"), "key")
    assert not (data.parent / "no.key").exists(), "no key is made up"


def test_a_leftover_of_a_crash_is_replaced(place):
    source, data, key = place
    leftover = data.with_suffix(".restoring")
    leftover.mkdir()
    (leftover / "data.mdb").write_bytes(b"half")
    assert restore(source, data, key)[0] == 0
    assert not leftover.exists()


def test_somebody_elses_folder_is_left_alone(place):
    source, data, key = place
    leftover = data.with_suffix(".restoring")
    leftover.mkdir()
    (leftover / "letter").write_text("mine")
    code, said = restore(source, data, key)
    assert code == 1 and "in the way" in said and (leftover / "letter").read_text() == "mine"


def test_too_little_space(place):
    small = tempfile.mkdtemp(prefix="cq-small-")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("may not mount a small file system here")
    try:
        code, said = restore(place[0], pathlib.Path(small) / "db", place[2])
        assert code == 1 and "NO_SPACE" in said
        assert list(pathlib.Path(small).iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


# ---- how it goes on ----


def test_an_older_schema_is_migrated(world, shelf):
    """A database that the first version wrote: 40 messages of old.ann, 5 of old.bob, who has read up to 30."""
    source = shelf / "older"
    source.mkdir()
    shutil.copy(OLD / "manifest", source)
    (source / "data.mdb").write_bytes(gzip.decompress((OLD / "data.mdb.gz").read_bytes()))
    for name in ("edge.1", "edge.2", "presence", "store"):  # they know another store
        world.services[name].stop()
    shutil.rmtree(world.dir / "store")
    key = world.dir / "keys/master.key"
    key.write_text((OLD / "master.key").read_text())
    assert manifest_of(source)["schema"] == "1"
    code, said = restore(source, world.dir / "store", key)
    assert code == 0, said
    world.heal()
    assert b"id=STORE-MIGRATE" in world.store.log_bytes()
    ann, bob = Device("old.ann").login(world.url(1)), Device("old.bob").login(world.url(2))
    for d, peer in ((ann, bob), (bob, ann)):
        d.catch_up()
        assert d.texts(peer.name) == [f"from ann {i}" for i in range(40)] + [f"from bob {i}" for i in range(5)]
    assert ann.chats()["old.bob"].peer_read == 30
    assert ann.send("old.bob", "new") == 46
    again = backup(world, shelf / "not-old-any-more")
    assert int(manifest_of(again)["schema"]) > 1


def test_connected_devices_are_told_and_go_on(world, shelf):
    """x and y stay connected while the history is turned back under them."""
    x, y = world.person(1), world.person(2)
    befriend(x, y)
    sent = [x.send(y, f"before {i}") for i in range(5)]
    x.sync(), y.sync()
    old_epoch = x.epoch
    source = backup(world, shelf / "told")
    for i in range(3):
        x.send(y, f"lost {i}")
    y.ack(x, 8, 8)
    x.link.drop_pushes(), y.link.drop_pushes()
    restore_in_place(world, source)
    for d in (x, y):
        epoch = d.link.push("SYNC_NOW", lambda f: f[0])[0]
        assert epoch != old_epoch
        chats = d.sync()
        assert d.was_reset and d.epoch == epoch
        assert [c.head for c in chats.values()] == [5] and sent == [1, 2, 3, 4, 5]
    with pytest.raises(Refused, match="ABOVE_HEAD"):
        y.ack(x, 6, 0)
    with pytest.raises(Refused, match="OUT_OF_ORDER") as e:
        x.send_prepared(x.prepare(y, "after"))
    assert e.value.detail == 5, "the last one that is known here"
    fields = x.prepare(y, "after", prev=e.value.detail)
    assert x.send_prepared(fields)[0] == 6
    assert x.send_prepared(fields)[0] == 6, "a retry is no second message"
    assert x.texts(y) == [f"before {i}" for i in range(5)] + ["after"]


def test_accounts_and_devices_made_after_the_backup(world, shelf):
    """Their tokens are good, but the store has never heard of them: they are told to log in again."""
    x, y = world.person(1), world.person(2)
    befriend(x, y)
    x.send(y, "kept")
    source = backup(world, shelf / "young")
    second = world.another_device(x, 2)
    stranger = world.person(1)
    restore_in_place(world, source)
    for d in (second, stranger):
        d.patiently(lambda: d.resume(world.url(1)))
        for op in (lambda: d.sync(), lambda: d.fetch_keys()):
            with pytest.raises(Refused, match="REVOKED"):
                op()
    with pytest.raises(Refused, match="REVOKED"):
        second.send_prepared(second.prepare(y, "from nowhere"))
    with pytest.raises(Refused, match="REVOKED"):
        second.ack(y, 1, 1)
    second.login(world.url(2))
    second.catch_up()
    assert second.send(y, "from the second device") == 2
    with pytest.raises(Refused, match="BAD_CREDENTIALS"):
        stranger.login(world.url(1))
    again = Device(stranger.name).signup(world.url(1))
    assert again.user != stranger.user


def messages(home, peer):
    rows = home.ok("history", peer.name, "--last", 50).rows
    return [m for m in rows if m["type"] == "message"]


def texts(home, peer):
    return [(m["text"], m["not_on_server"]) for m in messages(home, peer)]


def test_the_terminal_client_goes_on(world, shelf):
    """Messages that the server lost stay in the home, marked; what waits in the outbox goes out once."""
    ann, bob = Home(world.urls()).signup(), Home(world.urls()).signup()
    ann.ok("add", bob.name), bob.ok("accept", ann.name)
    for i in range(5):
        ann.ok("send", bob.name, f"kept {i}")
    source = backup(world, shelf / "homes")
    for i in range(3):
        ann.ok("send", bob.name, f"lost {i}")
    bob.ok("history", ann.name, "--read")
    world.store.stop()
    assert ann.run("--timeout", "2", "send", bob.name, "waits").code == 3
    shutil.rmtree(world.dir / "store")
    assert restore(source, world.dir / "store", world.dir / "keys/master.key")[0] == 0
    world.store.start()
    world.wait_ready()
    kept = [(f"kept {i}", False) for i in range(5)]
    lost = [(f"lost {i}", True) for i in range(3)]
    ann.ok("send", bob.name, "after")
    assert eventually(lambda: not ann.ok("outbox").rows, what="an empty outbox") is True
    of_ann = texts(ann, bob)
    assert sorted(of_ann) == sorted(kept + lost + [("waits", False), ("after", False)])
    of_bob = texts(bob, ann)
    assert sorted(of_bob) == sorted(kept + lost + [("waits", False), ("after", False)])
    new = [m for m in messages(bob, ann) if not m["not_on_server"]]
    assert [m["seq"] for m in new] == list(range(1, 8)), "no gap, nothing twice"
    bob.ok("send", ann.name, "and back")
    for home, peer in ((ann, bob), (bob, ann)):
        assert texts(home, peer)[:8] == kept + lost, "in the order in which they were read"
        assert texts(home, peer)[-1] == ("and back", False)
        last = home.ok("history", peer.name, "--last", 3).rows
        assert [m["seq"] for m in last if m["type"] == "message"] == [6, 7, 8]
        assert not [m for m in last if m.get("not_on_server")]


def test_the_terminal_client_of_a_device_that_is_unknown(world, shelf):
    ann = Home(world.urls()).signup()
    source = backup(world, shelf / "unknown")
    young = Home(world.urls(), name=ann.name).login()
    restore_in_place(world, source)
    r = young.run("friends")
    assert r.code == 4, r
    young.login()
    young.ok("friends")


def test_restored_twice(world, shelf):
    """Each restore is another history."""
    x, y = world.person(1), world.person(2)
    befriend(x, y)
    source = backup(world, shelf / "twice")
    epochs = {x.epoch}
    for i in range(2):
        x.send(y, f"m{i}")
        restore_in_place(world, source)
        x.patiently(lambda: x.resume(world.url(1)))
        x.sync()
        x.dseq.clear()
        epochs.add(x.epoch)
    assert len(epochs) == 3
    assert x.send(y, "first again") == 1
