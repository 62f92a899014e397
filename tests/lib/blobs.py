# SPDX-License-Identifier: MPL-2.0
"""An edge's side of blobs on the bus (docs/bus.md), for tests of blobd and the store without HTTP."""

import contextlib
import ctypes
import hashlib
import itertools
import secrets
import time

import bus

(CREATE, STATE, BEGIN, WRITE, END, DROP, READ, RESERVE, WHOLE, RELEASE, ACCESS, COLLECT, KNOWN) = range(0x40, 0x4d)
PART_MAX = 131072

BAD_ARG, BAD_STATE, NOT_FOUND, TOO_BIG, NO_SPACE, BUSY = 4, 5, 20, 2, 34, 31
CORRUPT, IO, BLOB_OFFSET, NO_BLOB, QUOTA, UNAVAILABLE, DEADLINE = 44, 41, 50, 51, 52, 32, 33


class Refused(Exception):
    def __init__(self, err, detail=0):
        super().__init__(f"error {err}, detail {detail}")
        self.err, self.detail = err, detail


class Uploader:
    """One user's uploads through a bus actor that plays an edge."""

    numbers = itertools.count(1)

    def __init__(self, system, user=None):
        self.user = user or secrets.token_bytes(16)
        self.actor = bus.Actor(system.broker_endpoint, f"edge.t{next(self.numbers)}", "edge")

    def close(self):
        self.actor.leave()

    def ask(self, dst, op, *fields, seconds=10.0):
        """Repeated each second until answered, as the real endpoint does."""
        rid, end = next(self.actor.rids), time.monotonic() + seconds
        while rid not in self.actor.replies:
            assert time.monotonic() < end, f"no answer of {dst}"
            self.actor.send(dst, op, [[rid, *fields]])
            with contextlib.suppress(TimeoutError):
                self.actor.wait(lambda: rid in self.actor.replies, 1.0)
        err, *rest = self.actor.replies.pop(rid)
        if err:
            raise Refused(err, *rest[:1])
        return rest

    def create(self, length, blob=None):
        blob = blob or secrets.token_bytes(16)
        self.ask("blobd", CREATE, self.user, blob, length)
        return blob

    def state(self, blob):
        """(offset, length, expires, whole)"""
        return self.ask("blobd", STATE, self.user, blob)

    def begin(self, blob, offset, tentative=False):
        transfer = secrets.randbits(60) | 1
        self.ask("blobd", BEGIN, self.user, blob, transfer, offset, tentative)
        return transfer

    def write(self, blob, transfer, offset, data):
        return self.ask("blobd", WRITE, blob, transfer, offset, data)[0]

    def end(self, blob, transfer, keep=True):
        return self.ask("blobd", END, blob, transfer, keep)[0]

    def send(self, blob, data, offset=0, part=PART_MAX):
        """One transfer with all of data, from offset."""
        transfer = self.begin(blob, offset)
        for at in range(0, len(data), part):
            assert self.write(blob, transfer, offset + at, data[at:at + part]) == min(at + part, len(data)) + offset
        return self.end(blob, transfer)

    def upload(self, data):
        blob = self.create(len(data))
        if data:
            assert self.send(blob, data) == len(data)
        return blob

    def drop(self, blob):
        self.ask("blobd", DROP, self.user, blob)

    def access(self, blob, user=None):
        """(length, hash)"""
        return self.ask("store", ACCESS, user or self.user, blob)

    def read(self, blob, offset=0, size=PART_MAX):
        return self.ask("blobd", READ, blob, offset, size)[1]

    def download(self, blob):
        data, length = b"", None
        while length is None or len(data) < length:
            length, part = self.ask("blobd", READ, blob, len(data), PART_MAX)
            data += part
            if not part:
                break
        return data


def file_of(root, blob):
    """Of a blob, below blobd's folder or a backup's."""
    return root / "blobs" / blob.hex()[:3] / blob.hex()


def gmac(key, number, data):
    """AES-128-GMAC, the nonce 12 bytes of number."""
    crypto, none, tag = ctypes.CDLL("libcrypto.so.3"), ctypes.c_int(), ctypes.create_string_buffer(16)
    crypto.EVP_CIPHER_CTX_new.restype = crypto.EVP_aes_128_gcm.restype = ctypes.c_void_p
    ctx = ctypes.c_void_p(crypto.EVP_CIPHER_CTX_new())
    ok = crypto.EVP_EncryptInit_ex(ctx, ctypes.c_void_p(crypto.EVP_aes_128_gcm()), None, key, number.to_bytes(12, "big"))
    ok &= crypto.EVP_EncryptUpdate(ctx, None, ctypes.byref(none), data, len(data))
    ok &= crypto.EVP_EncryptFinal_ex(ctx, tag, ctypes.byref(none)) & crypto.EVP_CIPHER_CTX_ctrl(ctx, 0x10, 16, tag)
    crypto.EVP_CIPHER_CTX_free(ctx)
    assert ok == 1
    return tag.raw


def trailer_of(file, body):
    """What has to follow these bytes in a file with this header (common/rt/blobfile.h): tags, and the root over them."""
    assert file[:8] == b"CQBLOB2\n"
    key = bytes(file[80:96])
    tags = b"".join(gmac(key, i // 65536, bytes(body[i:i + 65536])) for i in range(0, len(body), 65536))
    return tags + hashlib.blake2b(file[8:40] + len(body).to_bytes(8, "big") + key + tags, digest_size=32).digest()
