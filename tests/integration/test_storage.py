# SPDX-License-Identifier: MPL-2.0
"""The master key and the database at start: what the store refuses, with what words; and bad settings of every program."""

import os
import random
import pathlib
import shutil
import signal
import stat
import subprocess
import tempfile

import pytest
from system import BIN, System, eventually

LONG = 60


def run(*command):
    """(exit code, stderr) of a program that must end by itself."""
    r = subprocess.run([str(c) for c in command], capture_output=True, timeout=LONG, stdin=subprocess.DEVNULL)
    return r.returncode, r.stderr.decode(errors="replace") + r.stdout.decode(errors="replace")


@pytest.fixture
def stopped():
    """A system that has run, holds a message, and is down; with a way to run its store alone."""
    from chasqui import befriend

    s = System(edges=1)
    s.start()
    x, y = s.person(1), s.person(1)
    befriend(x, y)
    x.send(y, "kept")
    for name in ("edge.1", "presence", "store"):
        s.services[name].stop()
    s.people = x, y
    yield s
    for service in s.services.values():
        if service.is_alive():
            service.kill()
    shutil.rmtree(s.dir, ignore_errors=True)


def refuses(s, word):
    code, said = run(*s.store.command)
    assert code > 0, f"exit code {code}: {said}"
    assert word in said.lower(), said
    assert "Sanitizer" not in said


def ended(pid):
    """A process that nobody waits for stays as a zombie."""
    stat = pathlib.Path(f"/proc/{pid}/stat")
    return not stat.exists() or ") Z " in stat.read_text()


def serves(s):
    for name in ("store", "presence", "edge.1"):
        s.services[name].start()
    s.wait_ready()
    x, y = s.people
    x.login(s.url(1))
    assert x.texts(y) == ["kept"]
    x.close()


def test_master_key_is_made_with_0600_outside_the_database(stopped):
    key = stopped.dir / "keys/master.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.parent != stopped.dir / "store"
    assert stat.S_IMODE((stopped.dir / "store").stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620])
def test_master_key_readable_by_others_is_refused(stopped, mode):
    key = stopped.dir / "keys/master.key"
    key.chmod(mode)
    refuses(stopped, "key")
    key.chmod(0o600)
    serves(stopped)


def test_another_master_key_is_refused(stopped):
    key = stopped.dir / "keys/master.key"
    right = key.read_bytes()
    other = System(edges=1)
    other.broker.start(), other.store.start()
    other.store.wait_log("id=STORE")
    eventually((other.dir / "keys/master.key").exists, LONG)
    other.store.stop(), other.broker.kill()
    key.write_bytes((other.dir / "keys/master.key").read_bytes())
    shutil.rmtree(other.dir)
    refuses(stopped, "key")
    key.write_bytes(right)
    serves(stopped)


def test_a_lost_master_key_is_not_replaced(stopped):
    """A new key for an old database would make every chat unreadable: refuse, do not create."""
    key = stopped.dir / "keys/master.key"
    right = key.read_bytes()
    key.unlink()
    refuses(stopped, "key")
    assert not key.exists()
    key.write_bytes(right)
    key.chmod(0o600)
    serves(stopped)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 10000, random.Random(1).randbytes(64)])
def test_a_damaged_master_key_is_refused(stopped, content):
    key = stopped.dir / "keys/master.key"
    key.write_bytes(content)
    refuses(stopped, "key")


def test_master_key_through_a_folder_is_refused(stopped):
    key = stopped.dir / "keys/master.key"
    key.unlink()
    key.mkdir()
    refuses(stopped, "key")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_key_command_that_waits_can_be_ended(stopped, number):
    """Ctrl-C at its question, for example, which everybody at that terminal gets."""
    note = stopped.dir / "asks"
    store = subprocess.Popen([*stopped.store.command, "--key-command", f"echo $$ >{note}.new; mv {note}.new {note}; exec sleep 600"],
                             stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        eventually(note.exists, LONG)
        os.killpg(store.pid, number)
        assert store.wait(LONG) != 0
        eventually(lambda: ended(int(note.read_text())), LONG)
    finally:
        if store.poll() is None:
            os.killpg(store.pid, signal.SIGKILL)
            store.wait()
    serves(stopped)


def test_database_from_a_newer_version_is_refused(stopped):
    """The schema version in the database is raised with LMDB's own tools; nothing may be changed by the refusal."""
    raise_schema = shutil.which("mdb_dump") and shutil.which("mdb_load")
    if not raise_schema:
        pytest.skip("needs mdb_dump and mdb_load")
    folder = stopped.dir / "store"
    dump = subprocess.run(["mdb_dump", "-s", "meta", str(folder)], capture_output=True, check=True).stdout
    lines = dump.split(b"\n")
    changed = 0
    for i, line in enumerate(lines):
        if b"schema" in bytes.fromhex(line.strip().decode()) if line.startswith(b" ") else False:
            value = bytearray(bytes.fromhex(lines[i + 1].strip().decode()))
            lines[i + 1] = b" " + (newer(value)).hex().encode()
            changed += 1
            break
    assert changed, f"no schema version in {dump!r}"
    subprocess.run(["mdb_load", "-s", "meta", "-f", "/dev/stdin", str(folder)], input=b"\n".join(lines), check=True)
    refuses(stopped, "newer")


def newer(value):
    """The next version, whatever the encoding: msgpack, big- or little-endian, or text hold a small number in one byte."""
    places = [i for i, b in enumerate(value) if 0 < b < 10 or chr(b) in "123456789"]
    assert places, value
    value[places[-1]] += 1
    return bytes(value)


def test_a_damaged_database_is_refused_or_served_but_never_crashes(stopped):
    data = stopped.dir / "store/data.mdb"
    whole = data.read_bytes()
    data.write_bytes(b"\xff" * 8192 + whole[8192:])
    code, said = run(*stopped.store.command)
    assert code > 0 and "Sanitizer" not in said
    data.write_bytes(whole)
    serves(stopped)


PROGRAMS = ["chasqui-broker", "chasqui-store", "chasqui-presence", "chasqui-blobd", "chasqui-edge"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_and_version(program):
    code, said = run(BIN / program, "--help")
    assert code == 0 and "--" in said
    code, said = run(BIN / program, "--version")
    assert code == 0 and any(c.isdigit() for c in said)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("arguments", [["--no-such-key", "1"], ["stray"], ["--config", "/no/such/file"], ["--config"]])
def test_bad_arguments(program, arguments):
    code, said = run(BIN / program, *arguments)
    assert code == 2 and said.strip(), said
    assert "Sanitizer" not in said
    assert any(a.lstrip("-") in said for a in arguments)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("content", [b"no-such-key = 1\n", b"\xff\xfe\0\x01" * 100, b"= = =\n", b"a" * 100000])
def test_bad_config_files(program, content):
    with tempfile.NamedTemporaryFile(suffix=".conf") as f:
        f.write(content)
        f.flush()
        code, said = run(BIN / program, "--config", f.name, "--check-config")
        assert code == 2 and said.strip()
        assert "Sanitizer" not in said
        if b"no-such-key" in content:
            assert "no-such-key" in said and "1" in said, "it names the key and the line"


@pytest.mark.parametrize("program, key, value", [
    (p, *v) for p in PROGRAMS for v in (("name", "UPPER case"), ("log-level", "chatty")) if (p, v[0]) != ("chasqui-broker", "name")])
def test_names_and_levels_that_are_none(program, key, value, tmp_path):
    needed = {"broker": "endpoint", "store": "broker data", "presence": "broker redis-socket", "blobd": "broker data",
              "edge": "broker"}[program.removeprefix("chasqui-")].split()
    paths = [w for k in needed for w in (f"--{k}", f"{'ipc://' if k in ('broker', 'endpoint') else ''}{tmp_path}/{k}")]
    code, said = run(BIN / program, *paths, f"--{key}", value)
    assert code > 0 and said.startswith(f"{program}: {key}: "), said
    assert not any(tmp_path.iterdir())


def test_numbers_out_of_range():
    for port in ("0x", "-1", "70000", "", "99999999999999999999999"):
        code, said = run(BIN / "chasqui-edge", "--name", "edge.1", "--broker", "ipc:///tmp/none.sock", "--listen-port", port)
        assert code > 0 and "listen-port" in said, (port, said)


def test_edge_port_in_use():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        code, said = run(BIN / "chasqui-edge", "--name", "edge.1", "--broker", "ipc:///tmp/none.sock", "--listen-port",
                         s.getsockname()[1])
    assert code > 0 and ("use" in said.lower() or "listen" in said.lower()), said


def test_no_core_file_with_secrets(stopped):
    """The process that holds keys and passwords leaves no core file, whatever the limits of the shell are."""
    stopped.store.start()
    stopped.store.wait_log("id=STORE")
    limits = pathlib.Path(f"/proc/{stopped.store.pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    stopped.store.kill()
    assert core.split()[4] == "0", core


def test_no_space_is_said_and_reads_go_on(stopped):
    """A store that must leave more free than there is: nothing is accepted, everything can be read, then all is as before."""
    from chasqui import Refused

    x, y = stopped.people
    normal = list(stopped.store.command)
    stopped.store.command = [*normal, "--reserve-bytes", str(2**62)]
    for name in ("store", "presence", "edge.1"):
        stopped.services[name].start()
    stopped.wait_ready()
    x.resume(stopped.url(1))
    assert x.texts(y) == ["kept"]
    assert x.chats()[y.name].head == 1 and x.friends()[y.name].open
    fields = x.prepare(y, "no room")
    with pytest.raises(Refused, match="NO_SPACE"):
        x.send_prepared(fields)
    assert x.texts(y) == ["kept"], "what was refused is not there"
    stopped.store.stop()
    stopped.store.command = normal
    stopped.store.start()
    stopped.wait_ready()
    x.resume(stopped.url(1))
    assert x.patiently(lambda: x.send_prepared(fields))[0] == 2
    assert x.texts(y) == ["kept", "no room"]
    for name in ("edge.1", "presence", "store"):
        stopped.services[name].stop()
    stopped.check_logs()
