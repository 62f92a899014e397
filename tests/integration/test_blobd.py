# SPDX-License-Identifier: MPL-2.0
"""The blob daemon and the store's share of it: uploads in pieces, interrupted ones, damage, quotas, collection."""

import hashlib
import os
import secrets
import signal

import pytest
from blobs import (ACCESS, BAD_STATE, BLOB_OFFSET, BUSY, CORRUPT, IO, NO_SPACE, NOT_FOUND, PART_MAX, QUOTA, TOO_BIG, Refused,
                   Uploader)
from ctl import Ctl
from system import System, eventually

PIECE = 65536


@pytest.fixture(scope="module")
def world():
    system = System(edges=0, store=["--blob-quota-bytes", "20000000", "--blob-grace-s", "5", "--blob-sweep-s", "1"],
                    blobd=["--max-bytes", "10000000", "--sweep-s", "1", "--orphan-grace-s", "0",
                           "--upload-idle-s", "1", "--scrub-bytes-per-s", "100000000"])
    system.start()
    yield system
    system.stop()


@pytest.fixture
def user(world):
    world.heal()
    uploader = Uploader(world)
    yield uploader
    uploader.close()
    world.check_logs()


def refused(err):
    class Check:
        def __enter__(self):
            return self

        def __exit__(self, kind, value, trace):
            assert kind is Refused, f"not refused: {value}"
            assert value.err == err, value
            self.detail = value.detail
            return True

    return Check()


def blob_file(world, blob):
    return world.dir / "blobs/blobs" / blob.hex()[:3] / blob.hex()


def part_file(world, blob):
    return world.dir / "blobs/uploads" / blob.hex()


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 17])
def test_what_goes_up_comes_down(user, size):
    data = os.urandom(size)
    blob = user.upload(data)
    assert user.state(blob)[0] == size and user.state(blob)[3] is True
    length, root = user.access(blob)
    assert length == size and len(root) == 32
    assert user.download(blob) == data


def test_ranges(user):
    data = os.urandom(4 * PIECE + 5)
    blob = user.upload(data)
    for offset, size in [(0, 1), (PIECE - 1, 2), (PIECE, PIECE), (len(data) - 1, 10), (len(data), 10), (100, 2 * PIECE)]:
        assert user.read(blob, offset, size) == data[offset:offset + size]
    with refused(4):
        user.read(blob, len(data) + 1, 1)


def test_an_upload_goes_on_where_it_was_cut(user):
    data = os.urandom(1_000_000)
    blob = user.create(len(data))
    offset = 0
    while offset < len(data):
        transfer = user.begin(blob, offset)
        part = data[offset:offset + 100_000]
        user.write(blob, transfer, offset, part[:60_000])
        user.write(blob, transfer, offset + 60_000, part[60_000:]) if len(part) > 60_000 else None
        # No END: the connection is gone. The next one asks how far it is.
        offset, length, _, whole = user.state(blob)
        assert length == len(data) and whole == (offset == len(data))
    assert user.download(blob) == data


def test_wrong_offset_says_the_right_one(user):
    blob = user.create(1000)
    transfer = user.begin(blob, 0)
    user.write(blob, transfer, 0, b"x" * 100)
    with refused(BLOB_OFFSET) as r:
        user.begin(blob, 50)
    assert r.detail == 100
    transfer = user.begin(blob, 100)
    with refused(BLOB_OFFSET):
        user.write(blob, transfer, 200, b"y")
    with refused(TOO_BIG):
        user.write(blob, transfer, 100, b"z" * 901)


def test_a_repeated_write_is_one_write(user):
    blob = user.create(300)
    transfer = user.begin(blob, 0)
    for _ in range(3):
        assert user.write(blob, transfer, 0, b"a" * 100) == 100
    assert user.write(blob, transfer, 100, b"b" * 200) == 300
    user.end(blob, transfer)
    assert user.end(blob, transfer) == 300  # repeated by the bus
    assert user.download(blob) == b"a" * 100 + b"b" * 200


def test_a_new_transfer_ends_the_one_before(user):
    blob = user.create(200)
    first = user.begin(blob, 0)
    user.write(blob, first, 0, b"1" * 50)
    second = user.begin(blob, 50)
    with refused(BAD_STATE):
        user.write(blob, first, 50, b"1" * 50)
    user.write(blob, second, 50, b"2" * 150)
    user.end(blob, second)
    assert user.download(blob) == b"1" * 50 + b"2" * 150


def test_unverified_data_is_cut_off(user, world):
    blob = user.create(300)
    user.send(blob, b"a" * 100)
    transfer = user.begin(blob, 100, tentative=True)
    user.write(blob, transfer, 100, b"bad" * 20)
    assert user.state(blob)[0] == 100
    assert user.end(blob, transfer, keep=False) == 100
    # Interrupted by our own death before anybody could say whether it is good:
    transfer = user.begin(blob, 100, tentative=True)
    user.write(blob, transfer, 100, b"bad" * 20)
    world.blobd.restart()
    assert eventually(lambda: state_or_none(user, blob))[0] == 100
    user.send(blob, b"b" * 200, 100)
    assert user.download(blob) == b"a" * 100 + b"b" * 200


def state_or_none(user, blob):
    try:
        return user.state(blob)
    except (Refused, AssertionError):
        return None


def test_other_peoples_uploads_do_not_exist(user, world):
    data = os.urandom(1000)
    blob, open_upload = user.upload(data), user.create(100)
    other = Uploader(world)
    for of in (blob, open_upload, secrets.token_bytes(16)):
        with refused(NOT_FOUND):
            other.state(of)
        with refused(NOT_FOUND):
            other.begin(of, 0)
        with refused(NOT_FOUND):
            other.drop(of)
        with refused(NOT_FOUND):
            other.access(of)
    with refused(BAD_STATE):
        other.create(500, blob=open_upload)
    other.close()
    with refused(NOT_FOUND):
        user.access(open_upload)  # not complete: it has no URL
    with refused(NOT_FOUND):
        user.read(open_upload)


def test_limits(user):
    with refused(TOO_BIG):
        user.create(10_000_001)
    first, second = user.create(10_000_000), user.create(10_000_000)
    with refused(QUOTA):
        user.create(1)
    user.drop(first)
    third = user.create(5_000_000)
    with refused(NOT_FOUND):
        user.state(first)
    user.drop(second)
    user.drop(third)


def test_a_create_that_is_repeated_is_one_upload(user):
    blob = user.create(4_000_000)
    for _ in range(10):
        user.create(4_000_000, blob=blob)
    user.drop(blob)
    user.upload(os.urandom(1000))


def test_kill_while_uploading(user, world):
    """Whatever is killed when: what was kept is kept, and every complete blob is whole."""
    data = os.urandom(2_000_000)
    blob = user.create(len(data))
    offset, kills = 0, 0
    while offset < len(data):
        transfer = user.begin(blob, offset)
        for at in range(offset, min(offset + 5 * PART_MAX, len(data)), PART_MAX):
            user.write(blob, transfer, at, data[at:at + PART_MAX])
        victim = world.services[("blobd", "store")[kills % 2]]
        victim.kill()
        kills += 1
        victim.start()
        offset, _, _, whole = eventually(lambda: state_or_none(user, blob), 20, "an answer")
    assert kills >= 3
    assert hashlib.sha256(user.download(blob)).digest() == hashlib.sha256(data).digest()
    assert eventually(lambda: state_or_none(user, blob))[3] is True


def test_killed_between_the_disk_and_the_store(user, world):
    """The store is away when the last byte is there: the upload ends when it is asked for again."""
    data = os.urandom(300_000)
    blob = user.create(len(data))
    transfer = user.begin(blob, 0)
    for at in range(0, len(data), PART_MAX):
        user.write(blob, transfer, at, data[at:at + PART_MAX])
    world.store.kill()
    rid = user.actor.ask("blobd", 0x44, blob, transfer, True)  # END
    eventually(blob_file(world, blob).exists, what="the sealed file")
    world.blobd.kill()
    world.blobd.start()
    world.store.start()
    user.actor.replies.pop(rid, None)
    assert eventually(lambda: state_or_none(user, blob), 20)[3] is True
    assert user.access(blob)[0] == len(data)
    assert user.download(blob) == data


def test_damage_is_never_served(user, world):
    data = os.urandom(5 * PIECE)
    blob = user.upload(data)
    file = blob_file(world, blob)
    with open(file, "r+b") as f:
        f.seek(4096 + 3 * PIECE + 100)
        byte = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte[0] ^ 1]))
    assert user.read(blob, 0, PIECE) == data[:PIECE]  # other pieces are fine
    with refused(CORRUPT):
        user.read(blob, 3 * PIECE, 10)
    world.blobd.wait_log(f"BLOBD-SCRUB-DAMAGED blob={blob.hex()}")


@pytest.mark.parametrize("change", ["header", "trailer", "short", "empty"])
def test_damaged_files(user, world, change):
    blob = user.upload(os.urandom(2 * PIECE))
    file = blob_file(world, blob)
    content = bytearray(file.read_bytes())
    if change == "header":
        content[40] ^= 1
    elif change == "trailer":
        content[-40] ^= 1
    elif change == "short":
        content = content[:-1]
    else:
        content = b""
    file.write_bytes(content)
    with refused(CORRUPT):
        user.read(blob, 0, 10)
    file.unlink()


def test_an_unused_blob_is_collected(user, world):
    data = os.urandom(3_000_000)
    blob = user.upload(data)
    eventually(lambda: not blob_file(world, blob).exists(), 20, "collection")
    with refused(NOT_FOUND):
        user.access(blob)
    # ... and its share of the quota is free again.
    for _ in range(2):
        user.drop(user.create(10_000_000))


def test_orphans_go(user, world):
    orphan = secrets.token_bytes(16)
    folder = blob_file(world, orphan).parent
    folder.mkdir(parents=True, exist_ok=True)
    blob_file(world, orphan).write_bytes(b"from another store")
    part_file(world, orphan).write_bytes(b"the same")
    (world.dir / "blobs/blobs" / "README").write_text("not an id: left alone")
    eventually(lambda: not blob_file(world, orphan).exists() and not part_file(world, orphan).exists(), 20, "sweep")
    assert (world.dir / "blobs/blobs/README").exists()


def test_expired_uploads_go_without_grace(tmp_path):
    system = System(edges=0, store=["--blob-sweep-s", "1"],
                    blobd=["--upload-life-s", "5", "--upload-idle-s", "1", "--sweep-s", "1"])
    system.start()
    user = Uploader(system)
    unknown, expired = secrets.token_bytes(16), user.create(1000)
    part_file(system, unknown).write_bytes(b"of another store")
    assert part_file(system, expired).exists()
    eventually(lambda: not part_file(system, expired).exists(), 20, "sweep")
    assert part_file(system, unknown).exists()
    user.close()
    system.stop()


def test_what_cannot_be_listed_is_not_counted():
    system = System(edges=0, blobd=["--sweep-s", "1"])
    (system.dir / "blobs/blobs").mkdir(parents=True)
    no_folder = system.dir / "blobs/blobs/7ff"
    no_folder.write_text("where a folder should be")
    system.start()

    def counted():
        return Ctl(system).metric("blobd.1", "chasqui_blobd_counted")

    blobd = system.services["blobd"]
    eventually(lambda: blobd.log_bytes().count(b"BLOBD-SWEEP-LIST") > 1, 30, "two walks")
    assert counted() == 0
    no_folder.unlink()
    eventually(counted, 30, "a walk through all folders")
    system.stop()


def test_blobd_frozen_then_alive(user, world):
    blob = user.create(1000)
    world.blobd.freeze()
    rid = user.actor.ask("blobd", 0x41, user.user, blob)
    world.blobd.thaw()
    user.actor.wait(lambda: rid in user.actor.replies, 10, "the answer")
    assert user.actor.replies.pop(rid)[0] == 0


def test_one_process_per_folder(world):
    import subprocess
    done = subprocess.run([*world.blobd.command[:1], "--broker", world.broker_endpoint, "--data", world.dir / "blobs"],
                          capture_output=True, timeout=20, check=False)
    assert done.returncode == 1 and b"another chasqui-blobd" in done.stderr


def test_too_many_uploads_at_once(world):
    world.heal()
    user = Uploader(world)
    blob = user.create(PART_MAX * 40)
    transfer = user.begin(blob, 0)
    world.blobd.freeze()
    rids = [user.actor.ask("blobd", 0x43, blob, transfer, n * 1000, b"x" * 1000) for n in range(40)]
    world.blobd.signal(signal.SIGCONT)
    user.actor.wait(lambda: all(r in user.actor.replies for r in rids), 10, "40 answers")
    answers = [user.actor.replies.pop(r) for r in rids]
    assert answers[0][0] == 0 and any(a[0] == BUSY for a in answers)
    assert all(a[0] in (0, BUSY, BLOB_OFFSET) for a in answers)
    user.close()


def test_a_failed_creation_leaves_no_quota(tmp_path):
    system = System(edges=0, store=["--blob-quota-count", "3"], blobd=["--uploads-open-max", "2"])
    system.start()
    user = Uploader(system)
    first, _ = user.create(10), user.create(10)
    for _ in range(5):
        with refused(BUSY):
            user.create(10)
    user.drop(first)
    uploads = system.dir / "blobs/uploads"
    uploads.rename(uploads.with_name("away"))
    for _ in range(5):
        with refused(IO):
            user.create(10)
    uploads.with_name("away").rename(uploads)
    blob = user.create(1000)
    user.create(1000, blob=blob)
    assert user.send(blob, bytes(1000)) == 1000
    user.close()
    system.stop()


def test_disk_full(tmp_path):
    system = System(edges=0, blobd=["--reserve-bytes", str(1 << 60)])
    system.start()
    user = Uploader(system)
    with refused(NO_SPACE):
        user.create(10)
    user.close()
    system.stop()


assert ACCESS == 0x4a
