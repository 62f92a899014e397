# SPDX-License-Identifier: MPL-2.0
"""Backups as files: their manifest, restoring one, and a system that goes on with what was restored."""

import hashlib
import shutil
import subprocess

from ctl import LONG
from system import BIN

MANIFEST = ("chasqui-backup", "created_unix_ms", "version", "schema", "epoch", "head", "marker", "part", "part blobs", "sum")


def blake2(data):
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def manifest_of(backup):
    """By key. The database's part is "part"; that of the blobs is "part blobs", without its name."""
    m = {}
    for line in (backup / "manifest").read_text().splitlines():
        key = "part blobs" if line.startswith("part blobs ") else line.split(" ", 1)[0]
        m[key] = line[len(key) + 1:]
    return m


def write_manifest(backup, values):
    """Of these values, with a sum that fits."""
    text = "".join(f"{key} {value}\n" for key, value in values.items() if key != "sum")
    (backup / "manifest").write_text(text + f"sum {blake2(text.encode())}\n")


def forge(backup, **values):
    """Changes the manifest as a program would; part: computed from the file if it is True."""
    m = {**manifest_of(backup), **values}
    if m["part"] is True:
        data = (backup / "data.mdb").read_bytes()
        m["part"] = f"store data.mdb {len(data)} {blake2(data)}"
    write_manifest(backup, m)


def restore(backup, data, key, *options):
    """(exit code, what it logs)"""
    r = subprocess.run([BIN / "chasqui-store", "--restore", backup, "--data", data, "--master-key", key, *options],
                       capture_output=True, text=True, timeout=LONG)
    assert "Sanitizer" not in r.stderr and "assertion" not in r.stderr, r.stderr
    return r.returncode, r.stderr


def restore_in_place(system, backup):
    """The store's database is replaced by the backup while everything else goes on running."""
    system.store.stop()
    shutil.rmtree(system.dir / "store")
    code, said = restore(backup, system.dir / "store", system.dir / "keys/master.key")
    assert code == 0, said
    system.store.start()
    system.wait_ready()
