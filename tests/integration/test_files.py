# SPDX-License-Identifier: MPL-2.0
"""Pictures, files and voice messages on the device: up and down through a network that breaks, killed clients, hostile files."""

import contextlib
import ctypes
import fcntl
import hashlib
import io
import os
import pathlib
import pty
import random
import re
import select
import shutil
import signal
import struct
import termios
import time
import wave
import zlib

import pytest
from blobs import Uploader
from chasqui import message_row
from cli import Home
from cutter import Cutter
from msgpack import unpackb
from nacl import bindings
from system import System, eventually

CHUNK = 65536
SYSTEM = dict(edges=1)


@pytest.fixture
def homes(system, tmp_path):
    """Two friends with a home each."""
    made = []

    def make(servers):
        made.append(Home(servers).signup())
        return made[-1]

    a, b = make(system.url()), make(system.url())
    a.ok("add", b.name)
    b.ok("accept", a.name)
    a.ok("friends")
    yield a, b
    for home in made:
        shutil.rmtree(home.dir, ignore_errors=True)


@contextlib.contextmanager
def through(home, system, **how):
    """The home's server is behind a cutter meanwhile."""
    cutter, servers = Cutter(system.port, **how), home.servers
    home.servers = cutter.url
    try:
        yield cutter
    finally:
        home.servers = servers
        cutter.close()


def file_of(tmp_path, size, name="data.bin"):
    path = tmp_path / name
    path.write_bytes(os.urandom(size))
    return path


def blob_length(size):
    return 24 + size + 17 * max(1, -(-size // CHUNK))


def open_blob(key, blob):
    """As docs/protocol.md says it, with libsodium alone."""
    state = bindings.crypto_secretstream_xchacha20poly1305_state()
    bindings.crypto_secretstream_xchacha20poly1305_init_pull(state, blob[:24], key)
    plain, at, tag = b"", 24, 0
    while at < len(blob):
        part, tag = bindings.crypto_secretstream_xchacha20poly1305_pull(state, blob[at:at + CHUNK + 17])
        plain, at = plain + part, at + CHUNK + 17
    assert tag == bindings.crypto_secretstream_xchacha20poly1305_TAG_FINAL
    return plain


def seal_blob(key, plain):
    state = bindings.crypto_secretstream_xchacha20poly1305_state()
    blob = bindings.crypto_secretstream_xchacha20poly1305_init_push(state, key)
    parts = [plain[i:i + CHUNK] for i in range(0, len(plain), CHUNK)] or [b""]
    for i, part in enumerate(parts):
        last = i + 1 == len(parts)
        blob += bindings.crypto_secretstream_xchacha20poly1305_push(
            state, part, tag=bindings.crypto_secretstream_xchacha20poly1305_TAG_FINAL if last else 0)
    return blob


def seal_thumbnail(key, jpeg):
    nonce = os.urandom(24)
    return nonce + bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(jpeg, b"chasqui-thumbnail", nonce, key)


def last_row(home, peer):
    return home.ok("history", peer.name, "--last", "1").rows[-1]


def got(home, peer, seq, tmp_path, *options):
    out = tmp_path / f"got-{seq}-{len(list(tmp_path.iterdir()))}"
    home.ok("get", peer.name, seq, "--out", out, *options)
    return out.read_bytes()


def test_sizes(homes, tmp_path):
    a, b = homes
    for seq, size in enumerate([0, 1, CHUNK, CHUNK + 1, 3 * CHUNK - 5], 1):
        path = file_of(tmp_path, size)
        assert a.ok("send-file", b.name, path, "--caption", "here").row["seq"] == seq
        row = last_row(b, a)
        assert (row["text"], row["name"], row["size"]) == ("here", "data.bin", size)
        assert row["media_type"] == "application/octet-stream"
        assert got(b, a, seq, tmp_path) == path.read_bytes()
    assert got(a, b, seq, tmp_path) == path.read_bytes()
    assert list((a.dir / "home/outgoing").iterdir()) == [] == list((b.dir / "home/incoming").iterdir())


def test_ten_megabytes_cut_every_200_kilobytes(system, homes, tmp_path):
    a, b = homes
    path = file_of(tmp_path, 10_000_000, "big.bin")
    length = blob_length(10_000_000)
    with through(a, system, cut_every=200_000) as net:
        a.ok("send-file", b.name, path)
        assert net.cuts >= 40
        again = net.up + net.lost - length
        assert again <= net.cuts * CHUNK, f"{again} bytes more than the blob in {net.cuts} cuts"
        assert sum(line.startswith("POST") for line in net.requests) == 1
    with through(b, system, cut_every=200_000) as net:
        assert got(b, a, 1, tmp_path) == path.read_bytes()
        assert net.cuts >= 40
        again = net.down + net.lost - length
        assert again <= net.cuts * CHUNK, f"{again} bytes more than the blob in {net.cuts} cuts"


def test_kill_9_in_the_middle_of_an_upload(system, homes, tmp_path):
    a, b = homes
    path = file_of(tmp_path, 3_000_000)
    data = path.read_bytes()
    with through(a, system, hold_after=1_000_000) as net:
        running = a.start("send-file", b.name, path, "--caption", "survives")
        assert net.holding.wait(20)
        assert running.stop(signal.SIGKILL) == -signal.SIGKILL
        path.unlink()  # the outbox does not need it
        waiting = a.ok("outbox").row
        assert waiting["text"] == "survives" and waiting["name"] == "data.bin" and waiting["error"] is None
        net.release()
        before = net.up
        listening = a.start("listen")
        eventually(lambda: a.ok("outbox").out == "", 20, "everything is sent")
        listening.stop()
        assert net.up - before < 2_500_000, "it went on where it was"
        assert sum(line.startswith("POST") for line in net.requests) == 1
    row = last_row(b, a)
    assert row["text"] == "survives" and row["seq"] == 1
    assert got(b, a, 1, tmp_path) == data
    assert list((a.dir / "home/outgoing").iterdir()) == []


def part_with(home, size):
    """The one file that is being fetched, once it has that many bytes: those the network gave are not all there at once."""
    def big_enough():
        part = next((home.dir / "home/incoming").iterdir(), None)
        return part if part and part.stat().st_size >= size else None
    return eventually(big_enough, 20, f"a part of {size} bytes")


def test_kill_9_and_interrupt_in_the_middle_of_a_download(system, homes, tmp_path):
    a, b = homes
    path = file_of(tmp_path, 3_000_000)
    a.ok("send-file", b.name, path)
    b.ok("history", a.name)
    out = tmp_path / "out.bin"
    for number, code, size in ((signal.SIGKILL, -signal.SIGKILL, 800_000), (signal.SIGINT, 3, 1_600_000)):
        with through(b, system, hold_after=1_000_000) as net:
            running = b.start("get", a.name, 1, "--out", out)
            assert net.holding.wait(20)
            part_with(b, size)
            assert running.stop(number) == code
            assert not out.exists()
    with through(b, system) as net:
        b.ok("get", a.name, 1, "--out", out)
        assert net.down < 1_500_000, "it went on where it was"
    assert out.read_bytes() == path.read_bytes() and out.stat().st_mode & 0o777 == 0o600
    assert b.run("get", a.name, 1, "--out", out).row["error"] == "EXISTS"
    out.write_bytes(b"old")
    b.ok("get", a.name, 1, "--out", out, "--force")
    assert out.read_bytes() == path.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] in (["data.bin", "out.bin"], ["out.bin", "data.bin"]), "nothing else is left"


def test_a_part_that_was_damaged_on_this_disk_heals(system, homes, tmp_path):
    a, b = homes
    path = file_of(tmp_path, 1_000_000)
    a.ok("send-file", b.name, path)
    b.ok("history", a.name)
    with through(b, system, hold_after=500_000) as net:
        running = b.start("get", a.name, 1, "--out", tmp_path / "never")
        assert net.holding.wait(20)
        part = part_with(b, 300_000)
        running.stop(signal.SIGKILL)
    bytes_there = bytearray(part.read_bytes())
    bytes_there[200_000] ^= 1
    bytes_there[-1] ^= 1
    part.write_bytes(bytes_there)
    assert got(b, a, 1, tmp_path) == path.read_bytes()
    part.write_bytes(b"\0" * 2_000_000)
    assert got(b, a, 1, tmp_path) == path.read_bytes()


def test_tampered_bytes_are_found_and_said(system, homes, tmp_path):
    a, b = homes
    a.ok("send-file", b.name, file_of(tmp_path, 500_000))
    b.ok("history", a.name)
    out = tmp_path / "out.bin"
    with through(b, system, spoil=300_000):
        r = b.run("get", a.name, 1, "--out", out)
        assert (r.code, r.row["error"]) == (5, "CRYPTO") and "not what was sent" in r.row["message"]
    assert not out.exists() and list((b.dir / "home/incoming").iterdir()) == []
    b.ok("get", a.name, 1, "--out", out)


def test_offline_then_sent_once(system, homes, tmp_path):
    a, b = homes
    path = file_of(tmp_path, 200_000)
    data = path.read_bytes()
    servers, a.servers = a.servers, "ws://127.0.0.1:1/ws"
    r = a.run("send-file", b.name, path, "--timeout", "1")
    assert r.code == 3 and "outbox" in r.row["message"]
    path.unlink()
    a.servers = servers
    a.ok("send", b.name, "a text goes first")
    listening = a.start("listen")
    eventually(lambda: a.ok("outbox").out == "", 20, "everything is sent")
    listening.stop()
    rows = b.ok("history", a.name).rows
    assert [r["media_type"] for r in rows] == [None, "application/octet-stream"]
    assert got(b, a, 2, tmp_path) == data


def test_refused_for_good(system, homes, tmp_path):
    a, b = homes
    assert a.run("send-file", "nobody99", file_of(tmp_path, 10)).code == 1
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path, "a folder"), ("/dev/null", "no regular file")):
        r = a.run("send-file", b.name, path)
        assert (r.code, r.row["error"]) == (5, "FILE") and why in r.row["message"], r
    assert a.run("send-file", b.name, file_of(tmp_path, 10), "--caption", "x" * 4097).row["error"] == "TEXT"
    a.ok("send", b.name, "a text")
    assert b.run("get", a.name, 1).row["error"] == "NOT_FOUND"
    assert b.run("get", a.name, 7).row["error"] == "NOT_FOUND"
    assert b.run("get", a.name, "x").code == 2
    r = b.run("get", a.name, 1, "--out", tmp_path / "no-folder/x")
    assert r.code == 5 and "no-folder" in r.row["message"]
    big = tmp_path / "big.bin"
    with open(big, "wb") as f:
        f.truncate(101 * 1024 * 1024)
    r = a.run("send-file", b.name, big)
    assert (r.code, r.row["error"]) == (1, "TOO_BIG") and str(big) in r.row["message"]
    assert a.ok("outbox").row["error"] == "TOO_BIG"
    assert list((a.dir / "home/outgoing").iterdir()) == []
    a.ok("outbox", "--clear")
    assert a.ok("outbox").out == ""


# ---- another implementation ----


@pytest.fixture
def device(system, homes):
    """A second device of a's, written from the protocol alone; and b's name."""
    from chasqui import Device

    a, b = homes
    d = Device(a.name, a.password, label="python").login(system.url())
    d.catch_up()
    yield d, a, b
    d.close()


def test_what_the_client_sends_is_what_the_protocol_says(system, device, tmp_path):
    d, a, b = device
    path = file_of(tmp_path, 200_000, "größe.bin")
    a.ok("send-file", b.name, path, "--caption", "für dich")
    m = message_row(d.link.push("MESSAGE"))
    kind, caption, key, media_type, name, size, width, height, duration = d.decrypt(m)
    assert (kind, caption, media_type, name, size) == (2, "für dich", "application/octet-stream", "größe.bin", 200_000)
    blob, length, thumbnail = m.media
    uploader = Uploader(system, d.user)
    sealed = uploader.download(blob)
    uploader.close()
    assert len(sealed) == length == blob_length(size) and thumbnail == b""
    assert open_blob(key, sealed) == path.read_bytes()


def send_medium(system, d, b, plain, key, thumbnail=b"", said_key=None, name="x.bin", size=None):
    uploader = Uploader(system, d.user)
    sealed = seal_blob(key, plain)
    blob = uploader.upload(sealed)
    uploader.close()
    size = len(plain) if size is None else size
    said = [2, "", said_key or key, "image/jpeg", name, size, 1, 1, 0]
    return d.send_prepared(d.prepare(b.name, said, media=[blob, len(sealed), thumbnail]))[0]


def test_what_others_send(system, device, tmp_path):
    from PIL import Image

    d, a, b = device
    key, plain = os.urandom(32), os.urandom(100_000)
    good, large = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (200, 100), "red").save(good, "JPEG")
    Image.new("RGB", (400, 400), "red").save(large, "JPEG", quality=20)
    cases = [  # thumbnail, its size as the client sees it, whether it says "damaged"
        (seal_thumbnail(key, good.getvalue()), len(good.getvalue()), False),
        (seal_thumbnail(os.urandom(32), good.getvalue()), 0, True),
        (seal_thumbnail(key, large.getvalue()), 0, True),
        (seal_thumbnail(key, b"\x1b[2Jno picture at all"), 0, True),
        (seal_thumbnail(key, two_sizes()), 0, True),
        (b"short", 0, True),
        (b"", 0, False),
    ]
    for thumbnail, size, damaged in cases:
        seq = send_medium(system, d, b, plain, key, thumbnail)
        row = last_row(b, a)
        assert (row["seq"], row["thumbnail_size"], row["thumbnail_damaged"]) == (seq, size, damaged)
        assert got(b, a, seq, tmp_path) == plain
    assert "its thumbnail is damaged" in b.ok("history", a.name, json_lines=False).out
    seq = send_medium(system, d, b, plain, key, said_key=os.urandom(32))
    assert last_row(b, a)["seq"] == seq
    assert b.run("get", a.name, seq, "--out", tmp_path / "x").row["error"] == "CRYPTO"
    seq = send_medium(system, d, b, plain, key, name="../../.bashrc")
    assert last_row(b, a)["name"] == "_bashrc"
    seq = send_medium(system, d, b, plain, key, size=len(plain) + 1)  # at odds with the blob's length
    assert last_row(b, a)["unreadable"] is True


# ---- pictures and sounds ----


def thumbnail_of(d):
    m = message_row(d.link.push("MESSAGE"))
    plain = d.decrypt(m)
    sealed = m.media[2]
    if not sealed:
        return plain, None
    return plain, bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed[24:], b"chasqui-thumbnail", sealed[:24], plain[2])


def photo(size=(1200, 900)):
    """Noise on a coloured ground, red in the upper left corner: as hard to squeeze as a real one."""
    from PIL import Image, ImageDraw

    im = Image.effect_noise(size, 60).convert("RGB")
    ImageDraw.Draw(im).rectangle((0, 0, size[0] // 2, size[1] // 2), fill=(250, 0, 0))
    return im


def test_thumbnails(device, tmp_path):
    for form in ("JPEG", "PNG", "WEBP", "GIF"):
        check_thumbnail(device, tmp_path, form)


def check_thumbnail(device, tmp_path, form):
    from PIL import Image

    d, a, b = device
    path = tmp_path / f"p.{form.lower()}"
    photo().save(path, form)
    a.ok("send-file", b.name, path)
    plain, jpeg = thumbnail_of(d)
    assert plain[3] == f"image/{form.lower()}" and plain[6:9] == [1200, 900, 0]
    assert 500 < len(jpeg) <= 5120
    im = Image.open(io.BytesIO(jpeg))
    im.load()
    assert im.format == "JPEG" and im.size[0] > im.size[1] and max(im.size) <= 320
    r, g, b_ = im.convert("RGB").getpixel((im.size[0] // 4, im.size[1] // 4))
    assert r > 200 and g < 60 and b_ < 60


def test_orientation_and_metadata(device, tmp_path):
    for orientation in range(1, 9):
        check_orientation(device, tmp_path, orientation, "JPEG")
    for form in ("PNG", "WEBP"):
        for orientation in (1, 3, 6):
            check_orientation(device, tmp_path, orientation, form)


def check_orientation(device, tmp_path, orientation, form):
    from PIL import Image, ImageOps

    d, a, b = device
    im, exif = photo((400, 300)), None
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "SecretCamera"
    path = tmp_path / "p.jpg"  # whatever it is: only its content counts
    im.save(path, form, exif=exif)
    a.ok("send-file", b.name, path)
    plain, jpeg = thumbnail_of(d)
    assert b"SecretCamera" in path.read_bytes()
    assert b"SecretCamera" not in jpeg and b"Exif" not in jpeg and b"CREATOR" not in jpeg and not Image.open(io.BytesIO(jpeg)).getexif()
    shown = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    small = Image.open(io.BytesIO(jpeg)).convert("RGB")
    assert tuple(plain[6:8]) == shown.size and (small.size[0] > small.size[1]) == (shown.size[0] > shown.size[1])
    for fx, fy in ((1, 1), (3, 1), (1, 3), (3, 3)):  # the red quarter is where it is in the turned original
        def is_red(im):
            r, g, _ = im.getpixel((im.size[0] * fx // 4, im.size[1] * fy // 4))
            return r > 200 and g < 60
        assert is_red(small) == is_red(shown), (form, orientation, fx, fy)


def png(width, height, data=b""):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", data) + chunk(b"IEND", b""))


def two_sizes():
    """64x64 to whoever takes TEM for a segment; who takes it for a bare marker, as libjpeg does, finds a huge frame behind it."""
    whole = io.BytesIO()
    photo((64, 64)).save(whole, "JPEG", quality=20)
    whole = whole.getvalue()
    at = whole.index(b"\xff\xc0") + 5
    hidden = whole[2:at] + struct.pack(">HH", 20000, 20000) + whole[at + 4:]
    return b"\xff\xd8\xff\x01" + struct.pack(">H", 2 + len(hidden)) + hidden + whole[2:]


def hostile():
    noise = random.Random(1).randbytes  # what a size is read from must not be by chance
    whole = io.BytesIO()
    photo((300, 200)).save(whole, "JPEG")
    whole = whole.getvalue()
    yield "bomb", png(50000, 50000, zlib.compress(bytes(1000000), 9)), "too large"
    yield "huge", png(0xffffffff, 0xffffffff), "too large"
    yield "empty", png(1000, 1000), "cannot be decoded"
    yield "noise", b"\xff\xd8\xff\xe0" + noise(50000), "cannot be decoded"
    yield "noise with a size", b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff" + noise(50000), "too large"
    yield "head only", whole[:200], "cannot be decoded"
    yield "two sizes", two_sizes(), "cannot be decoded"
    yield "gif", b"GIF89a" + struct.pack("<HH", 65535, 65535) + noise(1000), "too large"
    yield "webp", b"RIFF" + struct.pack("<I", 1000) + b"WEBPVP8X" + bytes(14) + noise(976), "cannot be decoded"
    yield "wav", b"RIFF" + struct.pack("<I", 0xffffffff) + b"WAVEfmt " + noise(500), None
    yield "ogg", b"OggS" + bytes(24) + b"OpusHead" + noise(5000), None


def test_hostile_files_are_files(device, tmp_path):
    d, a, b = device
    for name, data, note in hostile():
        path = tmp_path / "p.bin"
        path.write_bytes(data)
        begin = time.monotonic()
        rows = a.ok("send-file", b.name, path).rows
        assert time.monotonic() - begin < 20
        assert rows[-1]["type"] == "sent", name
        notes = [r["message"] for r in rows if r["type"] == "note"]
        assert (len(notes) == 1 and note in notes[0]) if note else not notes, (name, notes)
        assert thumbnail_of(d)[1] is None
        assert got(b, a, rows[-1]["seq"], tmp_path) == data


def test_a_cut_picture_gets_no_thumbnail(device, tmp_path):
    d, a, b = device
    for form in ("JPEG", "PNG", "WEBP", "GIF"):
        whole = io.BytesIO()
        photo((600, 450)).save(whole, form)
        for percent in (50, 90):
            path = tmp_path / f"{percent}.{form.lower()}"
            path.write_bytes(whole.getvalue()[:len(whole.getvalue()) * percent // 100])
            notes = [r["message"] for r in a.ok("send-file", b.name, path).rows if r["type"] == "note"]
            assert len(notes) == 1 and "cannot be decoded" in notes[0], (form, percent, notes)
            plain, jpeg = thumbnail_of(d)
            assert (plain[3], plain[6:8], jpeg) == (f"image/{form.lower()}", [600, 450], None)


def test_an_animated_webp_is_no_damage(device, tmp_path):
    d, a, b = device
    path = tmp_path / "p.webp"
    photo((300, 200)).save(path, save_all=True, append_images=[photo((300, 200))])
    notes = [r["message"] for r in a.ok("send-file", b.name, path).rows if r["type"] == "note"]
    assert len(notes) == 1 and "animated" in notes[0], notes
    plain, jpeg = thumbnail_of(d)
    assert (plain[3], plain[6:8], jpeg) == ("image/webp", [300, 200], None)


def test_without_the_probe(homes, tmp_path, monkeypatch):
    """The program that looks into pictures is missing: the file goes all the same."""
    a, b = homes
    alone = tmp_path / "bin"
    alone.mkdir()
    shutil.copy(a.command()[0], alone / "chasqui")
    path = tmp_path / "p.jpg"
    photo((300, 200)).save(path, "JPEG")
    monkeypatch.setattr("cli.BIN", alone)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    rows = a.ok("send-file", b.name, path).rows
    assert [r["type"] for r in rows] == ["note", "sent"]


def test_forgotten_parts_go(homes, tmp_path):
    a, b = homes
    seq = a.ok("send-file", b.name, file_of(tmp_path, 1000)).rows[-1]["seq"]
    last_row(b, a)
    incoming = b.dir / "home/incoming"
    incoming.mkdir(exist_ok=True)
    old, used, young, other = (incoming / name for name in ("1.part", "2.part", "3.part", "4.txt"))
    for file in (old, used, young, other):
        file.write_bytes(b"x")
        if file != young:
            os.utime(file, (time.time() - 31 * 86400,) * 2)
    with used.open() as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        b.ok("get", a.name, seq, "--out", tmp_path / "x")
    assert sorted(incoming.iterdir()) == [used, young, other]
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("x")] == ["x"]


# ---- on a terminal ----


def on_terminal(home, *arguments, **environment):
    """What a command writes on a terminal with colours of 100 columns."""
    command = home.command(*arguments, json_lines=False)
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environment}
    environment.pop("NO_COLOR", None)
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execve(command[0], command, environment)
        finally:
            os._exit(127)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    out, end = b"", time.monotonic() + 60
    with contextlib.suppress(OSError):  # EIO: nobody is on the other side any more
        while time.monotonic() < end and select.select([terminal], [], [], 60)[0]:
            part = os.read(terminal, 65536)
            if not part:
                break
            out += part
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, out
    return out.decode()


def check_bar(out, name):
    percents = [int(n) for n in re.findall(r"(\d+)%", out)]
    assert name in out and "█" in out and "of 3.0 MB" in out, out
    assert percents == sorted(percents) and percents[-1] == 100 and len(percents) > 1, percents
    assert out.rindex("\r\x1b[K") > out.rindex("100%")  # and goes when it is full


def test_the_bar(homes, tmp_path):
    a, b = homes
    path = file_of(tmp_path, 3_000_000, "moving.bin")
    check_bar(on_terminal(a, "send-file", b.name, path), "moving.bin")
    seq = last_row(b, a)["seq"]
    out = on_terminal(b, "get", a.name, seq, "--out", tmp_path / "back.bin")
    check_bar(out, "moving.bin")
    assert (tmp_path / "back.bin").read_bytes() == path.read_bytes()
    # Nothing of it where a program reads.
    r = b.ok("get", a.name, seq, "--out", tmp_path / "again.bin", json_lines=False)
    assert "█" not in r.out + r.err and "\x1b" not in r.out + r.err


def test_thumbnails_are_drawn(homes, tmp_path):
    a, b = homes
    path = tmp_path / "p.jpg"
    photo((400, 300)).save(path, "JPEG")
    a.ok("send-file", b.name, path)
    last_row(b, a)
    out = on_terminal(b, "history", a.name)
    assert "[picture p.jpg" in out
    drawn = out[out.index("[picture p.jpg"):].splitlines()[1:13]
    assert len(drawn) >= 10 and all("\x1b[" in line for line in drawn), out
    assert re.search(r"\x1b\[[0-9;]*[34]8;2;(2[0-9][0-9]);([0-5]?\d);([0-5]?\d)m", out), out  # the red corner
    # What draws may not take what it likes.
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/chafa"
    fake.write_text("#!/bin/sh\nn=$(wc -c)\necho drawn $n $(ulimit -v) $(ulimit -t) $(ulimit -c)\n")
    fake.chmod(0o700)
    out = on_terminal(b, "history", a.name, PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    thumbnail = last_row(b, a)["thumbnail_size"]
    assert f"drawn {thumbnail} {512 * 1024} 3 0" in out, out
    fake.write_text("#!/bin/sh\nexec sleep 1000\n")
    begun = time.monotonic()
    assert "[picture p.jpg" in on_terminal(b, "history", a.name, PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    assert time.monotonic() < begun + 25


def opus(path, seconds):
    """An Ogg Opus file of a tone, by libsndfile."""
    class Info(ctypes.Structure):
        _fields_ = [("frames", ctypes.c_int64), ("samplerate", ctypes.c_int), ("channels", ctypes.c_int),
                    ("format", ctypes.c_int), ("sections", ctypes.c_int), ("seekable", ctypes.c_int)]

    lib = ctypes.CDLL("libsndfile.so.1")
    lib.sf_open.restype = ctypes.c_void_p
    lib.sf_writef_short.restype = ctypes.c_int64
    info = Info(0, 48000, 1, 0x200000 | 0x64, 0, 0)
    f = lib.sf_open(str(path).encode(), 0x20, ctypes.byref(info))
    assert f
    n = int(48000 * seconds)
    samples = (ctypes.c_short * n)(*[int(8000 * ((i // 60) % 2 * 2 - 1)) for i in range(n)])
    assert lib.sf_writef_short(ctypes.c_void_p(f), samples, ctypes.c_int64(n)) == n
    lib.sf_close(ctypes.c_void_p(f))


def test_voice_messages(device, tmp_path):
    d, a, b = device
    voice = tmp_path / "voice.ogg"
    opus(voice, 2.5)
    a.ok("send-file", b.name, voice)
    plain, _ = thumbnail_of(d)
    assert plain[3] == "audio/ogg; codecs=opus" and abs(plain[8] - 2500) <= 20
    sound = tmp_path / "sound.wav"
    with wave.open(str(sound), "wb") as w:
        w.setnchannels(1)
        w.setsampwidth(2)
        w.setframerate(16000)
        w.writeframes(bytes(2 * 16000 * 65))
    a.ok("send-file", b.name, sound)
    plain, _ = thumbnail_of(d)
    assert plain[3] == "audio/wav" and plain[8] == 65000
    assert "[voice sound.wav 1:05 2.1 MB — chasqui get" in b.ok("history", a.name, json_lines=False).out
