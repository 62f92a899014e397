# SPDX-License-Identifier: MPL-2.0
"""Backup while the system is in use, and restore: what is in it, what is refused, what a crash leaves."""

import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from chasqui import befriend
from ctl import LONG, Ctl
from system import BIN, System, eventually

SYSTEM = {"edges": 2}
MANIFEST = ("chasqui-backup", "created_unix_ms", "version", "schema", "epoch", "head", "marker", "part", "sum")


@pytest.fixture
def ctl(system):
    return Ctl(system)


@pytest.fixture
def target():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cq-backup-"))
    yield folder / "b"
    shutil.rmtree(folder, ignore_errors=True)


def manifest_of(backup):
    return dict(line.split(" ", 1) for line in (backup / "manifest").read_text().splitlines())


def backup(ctl, target):
    code, rows = ctl.json("backup", target)
    assert code == 0 and rows[-1]["state"] == "done", rows
    return rows[-1]


def restore(source, system, data, key=None):
    """(exit code, what it logs)"""
    r = subprocess.run([BIN / "chasqui-store", "--restore", source, "--data", data, "--master-key",
                        key or system.dir / "keys/master.key"], capture_output=True, text=True, timeout=LONG)
    assert "Sanitizer" not in r.stderr and "assert" not in r.stderr, r.stderr
    return r.returncode, r.stderr


def test_backup_says_what_it_is(system, ctl, pair, target):
    x, y = pair
    x.send(y, "kept")
    job = backup(ctl, target)
    assert job["kind"] == "backup" and job["done"] == job["total"] > 0 and job["findings"] == 0
    assert sorted(p.name for p in target.iterdir()) == ["data.mdb", "manifest"]
    assert not list(target.parent.glob("*.partial"))
    assert target.stat().st_mode & 0o777 == 0o700 and (target / "data.mdb").stat().st_mode & 0o777 == 0o600
    m = manifest_of(target)
    assert tuple(m) == MANIFEST
    assert int(m["head"]) > 0 and int(m["part"].split()[2]) == (target / "data.mdb").stat().st_size
    key = bytes.fromhex((system.dir / "keys/master.key").read_text().strip())
    assert key not in (target / "data.mdb").read_bytes() and key.hex().encode() not in (target / "data.mdb").read_bytes()


def test_backup_for_people(ctl, target):
    code, out, err = ctl.run("backup", target)
    assert (code, err) == (0, "")
    assert "verified" in out and "master key is not in the backup" in out


def test_restore_makes_a_database_with_another_epoch(system, ctl, target):
    backup(ctl, target)
    data = target.parent / "new"
    assert restore(target, system, data)[0] == 0
    assert not list(target.parent.glob("*.restoring"))
    again = target.parent / "again"
    again.mkdir()  # an empty folder is fine
    assert restore(target, system, again)[0] == 0
    code, said = restore(target, system, data)
    assert code == 1 and "already" in said
