# SPDX-License-Identifier: MPL-2.0
"""Messages with a media part, as the store sees them: which blobs a message may refer to, retries, durability, who may read."""

import contextlib
import os
import secrets

import pytest
from blobs import NOT_FOUND, Uploader
from blobs import Refused as BlobRefused
from chasqui import befriend
from chasqui import Refused, message_row
from system import eventually

GRACE = "--blob-grace-s"
SYSTEM = dict(store=[GRACE, "600", "--blob-sweep-s", "1"])
PLAIN = [2, "look", os.urandom(32), "image/jpeg", "cat.jpg", 1000, 640, 480, 0]


@pytest.fixture
def no_grace(system):
    """Kills the store; the next one collects at once what nothing refers to."""
    command = system.store.command
    place = command.index(GRACE) + 1

    def restart(grace="0"):
        command[place] = grace
        system.store.restart()
        system.wait_ready()

    yield restart
    restart("600")


@contextlib.contextmanager
def uploading(system, device):
    uploader = Uploader(system, device.user)
    try:
        yield uploader
    finally:
        uploader.close()


def upload(system, device, data):
    with uploading(system, device) as u:
        return u.upload(data)


def readers(system, blob, *devices):
    """Which of these may read the blob."""
    with uploading(system, devices[0]) as u:
        may = []
        for d in devices:
            try:
                u.access(blob, d.user)
                may.append(d)
            except BlobRefused as e:
                assert e.err == NOT_FOUND
        return may


def media_of(blob, length, thumbnail=b"t" * 5000):
    return [blob, length, thumbnail]


def test_push_history_and_the_chat_list_bring_it(system, pair):
    x, y = pair
    blob = upload(system, x, b"c" * 1000)
    media = media_of(blob, 1000)
    assert readers(system, blob, x, y) == [x]
    seq, _ = x.send_prepared(x.prepare(y, PLAIN, media=media))
    push = message_row(y.link.push("MESSAGE"))
    assert push.seq == seq == 1 and push.media == media and y.decrypt(push) == PLAIN
    assert [m.media for m in y.history(x)] == [media] and y.history(x)[0].text == PLAIN
    assert message_row(y.chats()[x.name].last).media == media
    assert readers(system, blob, x, y) == [x, y]
    x.send(y, "a text behind it")
    assert [m.media for m in y.history(x)] == [media, None]


def test_a_server_that_swaps_the_media_is_found_out(system, pair):
    x, y = pair
    media = media_of(upload(system, x, b"c" * 1000), 1000)
    x.send_prepared(x.prepare(y, PLAIN, media=media))
    m = y.history(x)[0]
    for other in (None, [secrets.token_bytes(16), *media[1:]], [media[0], 999, media[2]], [*media[:2], b"u" + media[2][1:]]):
        m.media = other
        with pytest.raises(Exception, match="[Dd]ecrypt|message was forged"):
            y.decrypt(m)
    m.media = media
    assert y.decrypt(m) == PLAIN


def test_a_retry_is_compared_with_its_media(system, pair):
    x, y = pair
    media = media_of(upload(system, x, b"c" * 1000), 1000)
    fields = x.prepare(y, PLAIN, media=media)
    first = x.send_prepared(fields)
    assert x.send_prepared(fields) == first
    others = [None, media_of(media[0], 1000, b"other"), media_of(upload(system, x, b"d" * 1000), 1000, media[2])]
    for other in others:
        with pytest.raises(Refused, match="DSEQ_CONFLICT"):
            x.ask("SEND", *fields[:6], other)
    assert len(y.history(x)) == 1


def test_only_own_or_readable_blobs(system, pair):
    x, y = pair
    z = system.person(1)
    befriend(y, z)
    of_y = upload(system, y, b"y" * 500)
    with pytest.raises(Refused, match="NO_BLOB"):
        x.send_prepared(x.prepare(y, PLAIN, media=media_of(of_y, 500)))
    with pytest.raises(Refused, match="NO_BLOB"):
        x.send_prepared(x.prepare(y, PLAIN, media=media_of(secrets.token_bytes(16), 500)))
    with pytest.raises(Refused, match="NO_BLOB"):
        x.send_prepared(x.prepare(y, PLAIN, media=media_of(bytes(16), 500)))
    with pytest.raises(Refused, match="NO_BLOB"):  # another length than it has
        y.send_prepared(y.prepare(x, PLAIN, media=media_of(of_y, 501)))
    with uploading(system, y) as u:  # not complete yet
        half = u.create(500)
        u.send(half, b"h" * 100)
    with pytest.raises(Refused, match="NO_BLOB"):
        y.send_prepared(y.prepare(x, PLAIN, media=media_of(half, 500)))
    assert x.history(y) == [] and readers(system, of_y, x, y, z) == [y]
    # Whoever may read it may pass it on.
    y.send_prepared(y.prepare(x, PLAIN, media=media_of(of_y, 500)))
    x.send_prepared(x.prepare(y, PLAIN, media=media_of(of_y, 500)))
    y.send_prepared(y.prepare(z, PLAIN, media=media_of(of_y, 500)))
    assert readers(system, of_y, x, y, z) == [x, y, z]
    z.close()


def test_malformed_media_is_refused(system, pair):
    x, y = pair
    blob = upload(system, x, b"c" * 10)
    good = x.prepare(y, PLAIN, media=media_of(blob, 10))
    for bad in ([], [blob], [blob, 10], [blob, -1, b""], [b"short", 10, b""], [blob, 10, b"x" * 8193], [blob, 10, "text"],
                "text", 7, {}, True):
        with pytest.raises(Refused, match="BAD_ARG|BAD_FRAME"):
            x.ask("SEND", *good[:6], bad)
    assert x.send_prepared([*good[:6], [*good[6], "of a later version"]])[0] == 1
    assert y.history(x)[0].media == good[6]
    x.send_prepared([*x.prepare(y, "nil is no media"), None])
    assert y.history(x)[1].media is None


def test_what_is_referred_to_stays_and_what_was_collected_is_refused(system, pair, no_grace):
    x, y = pair
    kept, lost = upload(system, x, b"k" * 700), upload(system, x, b"l" * 700)
    x.send_prepared(x.prepare(y, PLAIN, media=media_of(kept, 700)))
    assert readers(system, lost, x) == [x]
    no_grace()
    eventually(lambda: readers(system, lost, x) == [], what="the other one is collected")
    x.login(system.url(1))
    with pytest.raises(Refused, match="NO_BLOB"):
        x.send_prepared(x.prepare(y, PLAIN, media=media_of(lost, 700)))
    x.send(y, "the counter was not taken by the one that was refused")
    with uploading(system, y) as u:
        assert u.download(kept) == b"k" * 700
    assert readers(system, kept, x, y) == [x, y]


def test_the_reference_is_as_durable_as_the_message(system, pair, no_grace):
    x, y = pair
    blobs, prepared, answers = [], [], []
    for i in range(5):
        blobs.append(upload(system, x, b"%d" % i * 300))
        prepared.append(x.prepare(y, PLAIN, media=media_of(blobs[-1], 300, b"t%d" % i)))
        answers.append(x.send_prepared(prepared[-1]))
    no_grace()  # kill -9; what the rows lack comes from the log again
    x.login(system.url(1))
    y.login(system.url(2))
    for fields, answer in zip(prepared, answers):
        assert x.send_prepared(fields) == answer
    assert [m.media[0] for m in y.history(x)] == blobs
    lost = upload(system, x, b"gone")
    eventually(lambda: readers(system, lost, x) == [], what="a walk over all blobs")
    for blob in blobs:
        assert readers(system, blob, x, y) == [x, y]
