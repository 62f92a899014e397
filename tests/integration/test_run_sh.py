# SPDX-License-Identifier: MPL-2.0
"""deploy/run.sh as a person uses it: start, status, restart of what dies, stop; and every way it can be wrong."""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest
from chasqui import Device, befriend
from system import BAD_IN_LOGS, BIN, eventually, free_ports

RUN = pathlib.Path(__file__).resolve().parents[2] / "deploy/run.sh"
LONG = 90


def run(*arguments, **environment):
    return subprocess.run([str(RUN), *map(str, arguments)], capture_output=True, text=True, timeout=LONG,
                          stdin=subprocess.DEVNULL, env={**os.environ, "CHASQUI_BIN": str(BIN), **environment})


def processes(data):
    """Every process whose command line names this folder."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if any(str(data).encode() in w for w in words) and state != "Z" and int(pid) != os.getpid():
            found[int(pid)] = b" ".join(words).decode()
    return found


def children(data):
    return {pid: words for pid, words in processes(data).items() if "run.sh" not in words}


@pytest.fixture
def data():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cq-run-"))
    yield folder
    run("--stop", "--data", folder)
    left = processes(folder)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    for log in folder.glob("log/*.log"):
        found = BAD_IN_LOGS.search(log.read_bytes())
        assert not found, f"{log}:\n" + log.read_bytes()[found.start():][:4000].decode(errors="replace")
    shutil.rmtree(folder, ignore_errors=True)
    assert not left, f"left running: {left}"


@pytest.fixture
def port():
    return free_ports(3)


@pytest.fixture
def running(data, port):
    r = run("--detach", "--no-build", "--data", data, "--port", port)
    assert r.returncode == 0, r.stderr
    assert r.stdout.splitlines()[-1] == f"ready http://127.0.0.1:{port}"
    return data, port


def status(data):
    """(exit code, {service: (pid, state)})"""
    r = run("--status", "--data", data)
    rows = [line.split() for line in r.stdout.splitlines()[1:]]
    return r.returncode, {c[0]: (c[1], c[-1]) for c in rows}


def url(port):
    return f"ws://127.0.0.1:{port}/ws"


def test_start_status_chat_stop(running):
    data, port = running
    code, rows = status(data)
    assert code == 0
    assert list(rows) == ["redis", "broker", "store", "blobd", "presence", "edge.1", "edge.2"]
    assert all(state == "up" for _, state in rows.values())
    x = Device(f"rx{time.time_ns() % 10**9}").signup(url(port))
    y = Device(f"ry{time.time_ns() % 10**9}").signup(url(port + 1))
    befriend(x, y)
    x.send(y, "hello")
    assert y.receive(x) == (1, "hello")
    x.close(), y.close()
    r = run("--stop", "--data", data)
    assert r.returncode == 0 and "stopped" in r.stdout
    assert processes(data) == {}
    assert status(data)[0] != 0
    log = (data / "log/run.log").read_text()
    assert "killed" not in log and "died" not in log
    # and again, with what was kept
    r = run("--detach", "--no-build", "--data", data, "--port", port)
    assert r.returncode == 0, r.stderr
    x.login(url(port))
    assert x.texts(y) == ["hello"]
    x.close()


def test_layout_is_private(running):
    data, _ = running
    for path in ("run", "store", "keys", "redis", "log"):
        assert (data / path).stat().st_mode & 0o077 == 0, path
    for path in ("run/broker.sock", "run/redis.sock", "keys/master.key"):
        assert (data / path).stat().st_mode & 0o077 == 0, path
    assert list((data / "store").glob("*.mdb"))


@pytest.mark.parametrize("service", ["redis", "broker", "store", "blobd", "presence", "edge.2"])
def test_a_service_that_dies_is_restarted(running, service):
    data, port = running
    pid = int(status(data)[1][service][0])
    os.kill(pid, signal.SIGKILL)

    def again():
        code, rows = status(data)
        return code == 0 and rows[service][0] != str(pid)

    eventually(again, LONG)
    log = (data / "log/run.log").read_text()
    assert re.search(rf"{service} died \(signal 9\): restarted in \d+ ms", log)
    eventually(lambda: f"{service} restarted" in (data / "log/run.log").read_text(), LONG)
    d = eventually(lambda: try_signup(port + 1), LONG)
    d.close()


def try_signup(port):
    try:
        return Device(f"again{time.time_ns() % 10**9}").signup(url(port))
    except Exception:
        return None


def test_a_service_just_born_does_not_outlive_the_supervisor(data, port, tmp_path):
    """Killed between making a process and that process asking to be told of the death."""
    slow = tmp_path / "setpriv"
    slow.write_text(f"#!/bin/sh\ntouch {tmp_path}/born\nsleep 1\nexec {shutil.which('setpriv')} \"$@\"\n")
    slow.chmod(0o755)
    p = subprocess.Popen([str(RUN), "--no-build", "--data", str(data), "--port", str(port)], stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                         env={**os.environ, "CHASQUI_BIN": str(BIN), "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    eventually((tmp_path / "born").exists, LONG)
    assert children(data)
    p.kill()
    p.wait(LONG)
    time.sleep(1.5)  # what would be left is there by now
    eventually(lambda: processes(data) == {}, 5, what="the end of what was just born")


def test_back_off_grows(running):
    data, _ = running
    log = data / "log/run.log"
    for times in range(1, 4):
        pid = eventually(lambda: (lambda p: p if p.isdigit() else None)(status(data)[1]["edge.1"][0]), LONG)
        os.kill(int(pid), signal.SIGKILL)
        eventually(lambda: log.read_text().count("edge.1 died") == times, LONG)
    waits = [int(w) for w in re.findall(r"edge\.1 died .*restarted in (\d+) ms", log.read_text())]
    assert waits == [200, 400, 800]


def test_foreground_and_interrupt(data, port):
    p = subprocess.Popen([str(RUN), "--no-build", "--data", str(data), "--port", str(port), "--edges", "1"],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL,
                         start_new_session=True, env={**os.environ, "CHASQUI_BIN": str(BIN)},
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # tests in the background ignore it
    for line in p.stdout:
        if line.startswith("ready"):
            break
    assert line == f"ready http://127.0.0.1:{port}\n"
    assert list(status(data)[1]) == ["redis", "broker", "store", "blobd", "presence", "edge.1"]
    os.killpg(p.pid, signal.SIGINT)  # as a ^C in a terminal does
    rest = p.communicate(timeout=LONG)[0]
    assert p.returncode == 0, rest
    assert "stopped" in rest and "killed" not in rest and "died" not in rest
    assert children(data) == {}


def test_already_running(running):
    data, port = running
    before = children(data)
    r = run("--detach", "--no-build", "--data", data, "--port", port + 2, "--edges", "1")
    assert r.returncode != 0 and "already running" in r.stderr
    assert children(data) == before


def test_port_in_use(data, port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port + 1))
        s.listen()
        for mode in (["--detach"], []):
            r = run(*mode, "--no-build", "--data", data, "--port", port)
            assert r.returncode != 0
            assert f"port {port + 1} is in use" in r.stderr
    assert processes(data) == {}


def test_stale_pid_after_a_killed_supervisor(running):
    """Killed with -9: its services end by themselves; the next start says so and leaves nothing running; then all is well."""
    data, port = running
    supervisor = int((data / "run/run.pid").read_text().split()[0])
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: children(data) == {}, LONG, "the end of the services")
    assert status(data)[0] != 0
    r = run("--stop", "--data", data)
    assert r.returncode != 0 and "nothing runs" in r.stderr
    r = run("--detach", "--no-build", "--data", data, "--port", port)
    assert r.returncode != 0 and "stale pid" in r.stderr
    assert processes(data) == {}
    r = run("--detach", "--no-build", "--data", data, "--port", port)
    assert r.returncode == 0, r.stderr


def test_stale_pid_of_before_a_reboot_is_nothing(data, port):
    (data / "run").mkdir(mode=0o700)
    (data / "run/run.pid").write_text("1\nanother-boot\n")
    (data / "run/store.pid").write_text("1\n")
    r = run("--detach", "--no-build", "--data", data, "--port", port)
    assert r.returncode == 0, r.stderr


def test_a_pid_file_that_names_somebody_else_harms_nobody(data, port):
    (data / "run").mkdir(mode=0o700)
    bystander = subprocess.Popen(["sleep", "60"])
    (data / "run/run.pid").write_text(f"{bystander.pid}\n")
    (data / "run/store.pid").write_text(f"{bystander.pid}\n")
    assert run("--stop", "--data", data).returncode != 0
    assert run("--detach", "--no-build", "--data", data, "--port", port).returncode != 0
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_missing_program(data, port):
    with tempfile.TemporaryDirectory() as empty:
        r = run("--detach", "--no-build", "--data", data, "--port", port, CHASQUI_BIN=empty)
    assert r.returncode != 0 and "chasqui-broker is missing" in r.stderr
    assert processes(data) == {}


def test_missing_tool(data, port):
    """A PATH without redis-server."""
    with tempfile.TemporaryDirectory() as tools:
        for directory in ("/usr/bin", "/bin"):
            for tool in os.listdir(directory):
                link = pathlib.Path(tools) / tool
                if not tool.startswith("redis") and not link.exists():
                    link.symlink_to(pathlib.Path(directory) / tool)
        r = run("--detach", "--no-build", "--data", data, "--port", port, PATH=tools)
    assert r.returncode != 0 and "redis-server" in r.stderr
    assert processes(data) == {}


def test_a_service_that_cannot_start(data, port):
    """The master key is open to others: the store refuses, and so does the whole."""
    (data / "keys").mkdir()
    (data / "keys/master.key").write_bytes(b"k" * 32)
    (data / "keys/master.key").chmod(0o644)
    for mode in (["--detach"], []):
        r = run(*mode, "--no-build", "--data", data, "--port", port)
        assert r.returncode != 0
        assert "store stopped while starting" in r.stdout + r.stderr
        assert (r.stdout + r.stderr).count("id=STORE-KEY-REFUSED") == 1, "of this start, not of the one before"
        assert processes(data) == {}
    assert run("--status", "--data", data).returncode != 0


@pytest.mark.parametrize("arguments, word", [
    (["--no-such"], "--no-such"), (["--port"], "--port"), (["--port", "x"], "--port"), (["--port", "0"], "--port"),
    (["--port", "65536"], "--port"), (["--port", "65535", "--edges", "2"], "65535"), (["--edges", "0"], "--edges"),
    (["--edges", "33"], "--edges"), (["--data"], "--data"), (["stray"], "stray"),
])  # fmt: skip
def test_bad_options(arguments, word):
    r = run(*arguments)
    assert r.returncode == 2 and word in r.stderr and "--help" in r.stderr and len(r.stderr.splitlines()) == 1


def test_help():
    r = run("--help")
    assert r.returncode == 0
    for option in ("--detach", "--stop", "--status", "--restart-rolling", "--tls", "--data", "--port", "--edges", "--no-build"):
        assert option in r.stdout


def test_path_too_long_for_sockets(port):
    with tempfile.TemporaryDirectory() as base:
        r = run("--detach", "--no-build", "--data", pathlib.Path(base) / ("d" * 100), "--port", port)
    assert r.returncode != 0 and "too long" in r.stderr


def test_data_folder_that_cannot_be(port):
    r = run("--detach", "--no-build", "--data", "/proc/chasqui", "--port", port)
    assert r.returncode != 0 and "/proc/chasqui" in r.stderr
    with tempfile.NamedTemporaryFile() as f:
        r = run("--detach", "--no-build", "--data", f.name, "--port", port)
        assert r.returncode != 0 and f.name in r.stderr and "File exists" in r.stderr


def test_data_folder_with_spaces(port):
    with tempfile.TemporaryDirectory() as base:
        folder = pathlib.Path(base) / "a folder with ü and spaces"
        r = run("--detach", "--no-build", "--data", folder, "--port", port, "--edges", "1")
        assert r.returncode == 0, r.stderr
        assert run("--status", "--data", folder).returncode == 0
        assert run("--stop", "--data", folder).returncode == 0
        assert processes(folder) == {}


def test_stop_of_nothing(data):
    assert run("--stop", "--data", data).returncode != 0
    assert run("--stop", "--data", data / "none").returncode != 0
    assert run("--status", "--data", data).returncode != 0


def test_backup_and_restore(running, port):
    """Everything, on another data folder, with the key from its own place."""
    data, _ = running
    x, y = Device("ann.backup").signup(f"ws://127.0.0.1:{port}/ws"), Device("bob.backup").signup(f"ws://127.0.0.1:{port + 1}/ws")
    befriend(x, y)
    x.send(y, "kept")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cq-run-backup-"))
    new = folder / "new"
    try:
        r = run("--backup", folder / "b", "--data", data)
        assert r.returncode == 0 and "verified" in r.stdout and "master key" in r.stdout, r
        assert run("--backup", folder / "b", "--data", data).returncode == 1
        x.send(y, "lost")
        x.close(), y.close()
        r = run("--restore", folder / "b", "--data", data, "--no-build")
        assert r.returncode == 1 and "a system runs" in r.stderr
        shutil.copy(data / "keys/master.key", folder / "my.key")
        assert run("--stop", "--data", data).returncode == 0
        for _ in range(2):  # and what the one before said is not said again
            r = run("--restore", folder / "b", "--data", data, "--no-build")
            assert r.returncode == 1 and r.stderr.count("already") == 1, r.stderr
        r = run("--restore", folder / "b", "--data", new, "--no-build")
        assert r.returncode == 1 and "master key is missing" in r.stderr
        r = run("--restore", folder / "b", "--data", new, "--no-build", "--master-key", folder / "my.key")
        assert r.returncode == 0 and "restored into" in r.stdout, r
        assert (new / "keys/master.key").stat().st_mode & 0o777 == 0o600
        r = run("--detach", "--no-build", "--data", new, "--port", port)
        assert r.returncode == 0, r.stderr
        x.login(f"ws://127.0.0.1:{port}/ws")
        assert x.texts(y) == ["kept"]
        x.close()
    finally:
        run("--stop", "--data", new)
        shutil.rmtree(folder)


def test_backup_says_what_is_wrong(data, tmp_path):
    assert "nothing runs" in run("--backup", tmp_path / "b", "--data", data).stderr
    assert run("--backup").returncode == 2
    assert run("--status", "--master-key", "/x").returncode == 2
    for options in (["--no-build"], []):  # before it builds
        r = run("--restore", tmp_path / "none", "--data", data, *options)
        assert r.returncode == 1 and "no folder" in r.stderr and "building" not in r.stdout
    r = run("--restart-rolling", "--data", data)
    assert r.returncode == 1 and "nothing runs" in r.stderr and "building" not in r.stdout
