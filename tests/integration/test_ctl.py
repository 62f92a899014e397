# SPDX-License-Identifier: MPL-2.0
"""chasquictl: who is there, counters, and what it says when it cannot do what was asked."""

import pathlib
import signal
import subprocess

import pytest
from blobs import Uploader
from ctl import LONG, Ctl
from system import BIN, eventually

SYSTEM = {"edges": 2}
EVERYBODY = {"broker": "broker", "store.1": "store", "blobd.1": "blobd",
             "presence.1": "presence", "edge.1": "edge", "edge.2": "edge"}


@pytest.fixture
def ctl(system):
    return Ctl(system)


def raw(*words, **options):
    r = subprocess.run([BIN / "chasquictl", *map(str, words)], capture_output=True, text=True, timeout=LONG, **options)
    assert "Sanitizer" not in r.stderr
    return r.returncode, r.stdout, r.stderr


def test_status_lists_everybody(ctl):
    code, rows = ctl.json("status")
    assert code == 0
    (blobd,) = (r for r in rows if r["type"] == "blobd")
    rows = [r for r in rows if r["type"] == "actor"]
    assert {r["name"]: r["role"] for r in rows} == EVERYBODY
    version = raw("--version")[1].split()[1]
    for r in rows:
        assert r["type"] == "actor" and r["answers"] is True and r["version"] == version
        assert r["started_unix_ms"] > 1_600_000_000_000
        assert (r["incarnation"] is None) == (r["name"] == "broker")
    assert blobd["name"] == "blobd.1" and blobd["room_bytes"] > 0 and blobd["jobs_waiting"] == blobd["damaged"] == 0


def test_status_of_blobs(system, ctl):
    """Counted by the walk at the start and from then on; the time of the last search for damage is kept over a restart."""
    person = system.person()
    person.close()
    user = Uploader(system, person.user)
    user.upload(b"x" * 100_000)
    for _ in range(2):
        def state():
            row = next((r for r in ctl.json("status")[1] if r["type"] == "blobd"), {})
            return row if row.get("blobs") == 1 and row["scrubbed_unix_ms"] else None

        row = eventually(state, what="a count and a scrub")
        assert 100_000 < row["bytes"] < 110_000
        system.blobd.restart()
    user.close()
    eventually(lambda: "min ago" in ctl.run("status")[1], what="an age")


def test_status_for_people(ctl):
    code, out, err = ctl.run("status")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["ACTOR", "ROLE", "VERSION", "UPTIME", "STATE"]
    assert all(name in out for name in EVERYBODY)


def test_status_fails_without_a_store(system, ctl):
    system.store.kill()
    code, rows = ctl.json("status")
    assert code == 1
    assert rows[-1]["type"] == "error" and "no store" in rows[-1]["message"]


def test_status_says_what_is_wrong(system, ctl):
    redis = system.redis_client()
    redis.config_set("maxmemory", 1)
    try:
        # Nobody writes to Redis until something happens; without its mark presence does.
        redis.delete("chasqui:presence:incarnation")
        code, rows = eventually(lambda: (r := ctl.json("status"))[0] and r, what="trouble")
        assert code == 1
        said = {r["name"]: r["trouble"] for r in rows if r["type"] == "actor"}
        assert "Redis is full" in said["presence.1"] and [n for n, t in said.items() if t] == ["presence.1"]
        code, out, _ = ctl.run("status")
        assert code == 1 and "in trouble" in out and "\npresence.1: Redis is full: raise its maxmemory" in out
    finally:
        redis.config_set("maxmemory", 0)
    eventually(lambda: ctl.run("status")[0] == 0, what="well again")


def test_status_says_who_does_not_answer(system, ctl):
    system.edge(2).freeze()
    try:
        code, rows = ctl.json("status", "--timeout", "1")
    finally:
        system.edge(2).thaw()
    assert code == 1
    assert {r["name"]: r["answers"] for r in rows if r["type"] == "actor"} == {
        name: name != "edge.2" for name in EVERYBODY}


def test_metrics_of_one(ctl):
    code, out, _ = ctl.run("metrics", "store.1")
    assert code == 0
    assert 'chasqui_info{actor="store.1"' in out and "chasqui_store_commits_total" in out
    assert "edge.1" not in out


def test_metrics_of_all_are_valid_together(ctl):
    """Each metric's comments stand once and before all of its samples."""
    code, out, _ = ctl.run("metrics")
    assert code == 0
    samples, done, last = set(), set(), None
    for line in out.splitlines():
        name = line.split()[2] if line.startswith("# ") else line.split("{")[0]
        for end in ("_bucket", "_sum", "_count"):
            if (name.removesuffix(end), "TYPE") in samples:
                name = name.removesuffix(end)  # a histogram's samples
        if name != last:
            assert name not in done, f"{name} in two places"
            done.add(last)
        if line.startswith("# "):
            assert (name, line.split()[1]) not in samples, line
            samples.add((name, line.split()[1]))
        last = name
    for actor in EVERYBODY:
        assert f'chasqui_info{{actor="{actor}"' in out


def test_metrics_as_json(ctl):
    code, rows = ctl.json("metrics", "edge.2")
    assert code == 0
    peers = [r for r in rows if r["name"] == "chasqui_bus_peers"]
    assert len(peers) == 1 and peers[0]["actor"] == "edge.2" and peers[0]["value"] >= 3


def test_metrics_of_nobody(ctl):
    code, rows = ctl.json("metrics", "edge.9")
    assert code == 3 and rows[0]["error"] == "UNROUTABLE" and "edge.9" in rows[0]["message"]


def test_finds_the_data_folder(system):
    """run.sh's layout: DATA/run/broker.sock; also as ./data of the current folder."""
    assert raw("--data", system.dir, "status")[0] == 0
    link = system.dir / "elsewhere"
    link.mkdir(exist_ok=True)
    (link / "data").symlink_to(system.dir)
    assert raw("status", cwd=link)[0] == 0


def test_says_that_nothing_runs(tmp_path):
    code, _, err = raw("--data", tmp_path, "status")
    assert code == 3 and "is the system running" in err and str(tmp_path) in err
    code, _, err = raw("--broker", f"ipc://{tmp_path}/none.sock", "--timeout", "1", "status")
    assert code == 3 and "no broker answers" in err


@pytest.mark.parametrize("words,said", [
    ([], "Verbs"), (["nonsense"], "unknown verb"), (["status", "more"], "too many"), (["status", "--wrong"], "--wrong"),
    (["--timeout", "0", "status"], "--timeout"), (["--timeout"], "--timeout"), (["metrics", "a", "b"], "too many"),
    (["--broker", "nonsense", "status"], "endpoint")])
def test_wrong_usage(words, said):
    code, out, err = raw(*words)
    assert code == 2 and said in out + err


def test_help():
    assert raw("--help")[0] == 0
    for verb in ("status", "metrics"):
        code, out, _ = raw(verb, "--help")
        assert code == 0 and out.startswith(f"chasquictl {verb}")


def takes(pid, number):
    """Blocked signals are read from a descriptor."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    blocked = next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
    return int(blocked, 16) >> (number - 1) & 1


def test_is_interrupted(system, ctl):
    """^C while nobody answers: it ends at once and says so."""
    system.broker.freeze()
    try:
        p = ctl.start("--json", "--timeout", "600", "status")
        eventually(lambda: takes(p.pid, signal.SIGINT), what="its taking of signals")
        p.send_signal(signal.SIGINT)
        code, out, _ = ctl.finish(p)
    finally:
        system.broker.thaw()
    assert code == 3 and "INTERRUPTED" in out
