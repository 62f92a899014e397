# SPDX-License-Identifier: MPL-2.0
"""The fault layer itself: small programs under it write, sync and die; what is left is compared with what must be."""

import errno
import os
import pathlib
import random
import signal
import subprocess
import sys
import textwrap

import pytest
from powercut import (FAIL, FULL_STATVFS, FULL_WRITES, KILL_AFTER, KILL_BEFORE, ON_ANY, ON_DSYNC, ON_SYNC, ON_WRITE, SHORT, TORN,
                      Control, Journal, cut)

SHIM = pathlib.Path(os.environ.get("CHASQUI_BIN", "build/release/bin")).resolve() / "chasqui-crash-shim.so"
PRELUDE = """
import os, sys
def put(fd, text, at): assert os.pwrite(fd, text, at) == len(text)
def opened(flags=0, name="file"): return os.open(sys.argv[1] + "/" + name, os.O_RDWR | os.O_CREAT | flags, 0o600)
def sync_folder():
    d = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY); os.fsync(d); os.close(d)
fd = opened()
"""


class Stand:
    """A folder under the shim with one file of four pages, all on the disk."""

    def __init__(self, folder):
        self.root = folder / "root"
        self.root.mkdir()
        self.file = self.root / "file"
        self.journal = folder / "journal"
        self.control = Control(folder / "control")
        self.file.write_bytes(b"o" * 16384)

    def run(self, program, keep=False):
        env = dict(os.environ, LD_PRELOAD=str(SHIM), CRASH_SHIM_ROOT=str(self.root),
                   CRASH_SHIM_CONTROL=str(self.control.path), CRASH_SHIM_JOURNAL=str(self.journal))
        if keep:
            env["CRASH_SHIM_KEEP"] = "1"
        done = subprocess.run([sys.executable, "-c", PRELUDE + textwrap.dedent(program), str(self.root)], env=env,
                              capture_output=True, text=True, timeout=20)
        assert "Error" not in done.stderr, done.stderr
        return done.returncode, done.stdout.strip()

    def cut(self, mode="all", seed=1):
        return cut(self.journal, random.Random(seed), mode)

    def bytes(self):
        return self.file.read_bytes()


@pytest.fixture
def stand(tmp_path):
    return Stand(tmp_path)


def test_unsynced_writes_are_lost_in_a_power_cut(stand):
    assert stand.run('put(fd, b"n" * 4096, 4096)')[0] == 0
    assert stand.bytes()[4096:8192] == b"n" * 4096, "before the cut it shows"
    stand.cut()
    assert stand.bytes() == b"o" * 16384


@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
def test_synced_writes_are_kept(stand, call):
    stand.run(f'put(fd, b"n" * 4096, 4096); os.{call}(fd); put(fd, b"x" * 100, 10)')
    stand.cut()
    assert stand.bytes() == b"o" * 4096 + b"n" * 4096 + b"o" * 8192


def test_a_dsync_write_keeps_itself_and_nothing_else(stand):
    stand.run('put(fd, b"n" * 4096, 4096); m = opened(os.O_DSYNC); put(m, b"m" * 60, 16)')
    stand.cut()
    assert stand.bytes() == b"o" * 16 + b"m" * 60 + b"o" * (16384 - 76)


def test_the_same_bytes_twice_go_back_to_the_oldest(stand):
    stand.run('put(fd, b"a" * 100, 50); put(fd, b"b" * 100, 100); put(fd, b"c" * 10, 60)')
    stand.cut()
    assert stand.bytes() == b"o" * 16384


def test_what_made_the_file_longer_is_cut_off(stand):
    stand.run('os.lseek(fd, 0, 2); os.write(fd, b"n" * 4096); os.writev(fd, [b"m" * 4096, b"k" * 100])')
    assert len(stand.bytes()) == 16384 + 8292
    stand.cut()
    assert stand.bytes() == b"o" * 16384


def test_a_shortened_file_is_long_again(stand):
    stand.run("os.ftruncate(fd, 5000)")
    stand.cut()
    assert stand.bytes() == b"o" * 16384


def test_the_journal_is_empty_when_nothing_is_owed(stand):
    stand.run('put(fd, b"n" * 4096, 0); os.fdatasync(fd); m = opened(os.O_DSYNC); put(m, b"m", 0)')
    assert stand.journal.stat().st_size == 0


def test_a_sync_of_the_next_process_counts(stand):
    stand.run('put(fd, b"n" * 4096, 4096)')
    stand.run("os.fdatasync(fd)")
    stand.cut()
    assert stand.bytes()[4096:8192] == b"n" * 4096


@pytest.mark.parametrize("mode,step", [("pages", 4096), ("sectors", 512)])
def test_any_part_may_survive(stand, mode, step):
    """Each piece is old or new as a whole, both happen, and what survives makes the file as long as it must be."""
    seen = set()
    for seed in range(8):
        stand.file.write_bytes(b"o" * 16384)
        stand.run('put(fd, b"n" * 16384, 0); put(fd, b"n" * 16384, 16384)')
        stand.cut(mode, seed)
        after = stand.bytes()
        pieces = [after[at:at + step] for at in range(0, len(after), step)]
        assert all(p in (b"o" * step, b"n" * step, b"\0" * step) for p in pieces)
        assert pieces[-1] == b"n" * step or len(after) == 16384
        seen.update(pieces[:3])
    assert {b"o" * step, b"n" * step} <= seen


def test_a_new_file_in_a_folder_that_is_not_synced_is_gone(stand):
    stand.run('a = opened(name="a"); put(a, b"x", 0); os.fsync(a)')
    assert Journal(stand.journal).must_keep()
    stand.cut()
    assert not (stand.root / "a").exists()
    stand.run('a = opened(name="a"); put(a, b"x", 0); os.fsync(a); sync_folder()')
    stand.cut()
    assert (stand.root / "a").read_bytes() == b"x"


def test_a_kill_before_and_after_a_sync(stand):
    program = 'put(fd, b"n" * 10, 0); os.fdatasync(fd); put(fd, b"m" * 10, 0); os.fdatasync(fd); print("alive")'
    stand.control.arm((KILL_BEFORE, ON_SYNC, 2, 0, 1))
    assert stand.run(program) == (-signal.SIGKILL, "")
    assert stand.control.get("is_killed") == 1 and not stand.control.is_armed()
    assert stand.bytes()[:10] == b"m" * 10
    stand.cut()
    assert stand.bytes()[:10] == b"n" * 10
    stand.control.arm((KILL_AFTER, ON_SYNC, 2, 0, 1))
    assert stand.run(program) == (-signal.SIGKILL, "")
    stand.cut()
    assert stand.bytes()[:10] == b"m" * 10


def test_a_kill_some_time_after(stand):
    stand.control.arm((KILL_AFTER, ON_SYNC, 1, 20000, 1))
    code, out = stand.run('os.fdatasync(fd); print("went on", flush=True)\nimport time; time.sleep(20)')
    assert (code, out) == (-signal.SIGKILL, "went on")


def test_a_torn_write(stand):
    stand.control.arm((TORN, ON_WRITE, 2, 700, 1))
    code, _ = stand.run('put(fd, b"1" * 4096, 0); put(fd, b"n" * 4096, 4096)')
    assert code == -signal.SIGKILL
    assert stand.bytes()[4096:8192] == b"n" * 700 + b"o" * 3396
    stand.cut()
    assert stand.bytes() == b"o" * 16384


def test_a_short_write(stand):
    stand.control.arm((SHORT, ON_WRITE, 1, 700, 1))
    _, out = stand.run('print(os.pwrite(fd, b"n" * 4096, 0), os.pwrite(fd, b"m" * 8, 0))')
    assert out == "700 8"
    assert stand.bytes()[:4096] == b"m" * 8 + b"n" * 692 + b"o" * 3396


def test_the_nth_call_fails(stand):
    stand.control.arm((FAIL, ON_WRITE, 2, errno.EIO, 2), (FAIL, ON_DSYNC, 1, errno.ENOSPC, 1))
    _, out = stand.run("""
        m, said = opened(os.O_DSYNC), []
        for f in (fd, fd, fd, fd, m, m):
            try: put(f, b"n", 0); said.append("ok")
            except OSError as e: said.append(e.errno)
        print(said)
    """)
    assert out == f"['ok', {errno.EIO}, {errno.EIO}, 'ok', {errno.ENOSPC}, 'ok']"
    assert stand.control.get("fired") == 3


def test_after_a_failed_sync_a_later_one_writes_nothing(stand):
    """The kernel marks the pages clean: only what is written again is synced."""
    stand.control.arm((FAIL, ON_SYNC, 1, errno.EIO, 1))
    program = """
        put(fd, b"n" * 8192, 0)
        try: os.fdatasync(fd)
        except OSError: pass
        put(fd, b"m" * 10, 0)
        os.fdatasync(fd)
    """
    stand.run(program)
    assert Journal(stand.journal).must_keep()
    stand.run("os.fdatasync(fd)", keep=True)
    stand.cut()
    assert stand.bytes()[:4096] == b"m" * 10 + b"n" * 4086, "written again as a page"
    assert stand.bytes()[4096:] == b"o" * 12288


def test_after_a_failed_sync_a_dropped_cache_shows_the_disk(stand):
    stand.control.arm((FAIL, ON_SYNC, 2, errno.EIO, 1))
    stand.run("""
        put(fd, b"1" * 10, 0); os.fdatasync(fd)
        put(fd, b"2" * 8192, 0); os.ftruncate(fd, 20000)
        try: os.fdatasync(fd)
        except OSError: pass
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    """)
    assert stand.bytes() == b"1" * 10 + b"o" * (16384 - 10)
    assert stand.journal.stat().st_size == 0


def test_a_full_disk(stand):
    stand.control.set("disk_full", FULL_WRITES | FULL_STATVFS)
    program = """
        try: put(fd, b"n", 0); print("ok", end=" ")
        except OSError as e: print(e.errno, end=" ")
        print(os.statvfs(sys.argv[1]).f_bavail == 0)
    """
    assert stand.run(program)[1] == f"{errno.ENOSPC} True"
    stand.control.set("disk_full", 0)
    assert stand.run(program)[1] == "ok False"


def test_other_folders_are_left_alone(stand, tmp_path):
    stand.control.arm((FAIL, ON_ANY, 1, errno.EIO, 100))
    other = tmp_path / "other"
    stand.run(f'o = os.open({str(other)!r}, os.O_RDWR | os.O_CREAT); put(o, b"x", 0); os.fsync(o)')
    assert other.read_bytes() == b"x" and stand.control.get("calls") == 0
