# SPDX-License-Identifier: MPL-2.0
"""fsck beside a system at work: no findings while people talk, while rows are written behind, after kills; and offline."""

import random
import subprocess
import threading

import pytest
from chasqui import befriend
from ctl import LONG, Ctl
from system import BIN

SYSTEM = {"store": ["--checkpoint-idle-ms", "10", "--checkpoint-records", "20"],
          "edge": [f"--limit-{what}-per-s=0" for what in ("send", "friend", "query", "history", "signup")]}


@pytest.fixture
def ctl(system):
    return Ctl(system)


def offline(system):
    r = subprocess.run([BIN / "chasqui-store", "--fsck", "--data", system.dir / "store", "--master-key",
                        system.dir / "keys/master.key"], capture_output=True, text=True, timeout=LONG)
    assert "Sanitizer" not in r.stderr and "assert" not in r.stderr, r.stderr
    return r


def online(ctl):
    code, rows = ctl.json("fsck")
    assert code == 0, rows
    job = rows[-1]
    assert (job["kind"], job["state"], job["findings"]) == ("fsck", "done", 0)
    return job


def talk(chance, pairs, times):
    for i in range(times):
        a, b = chance.choice(pairs)
        who, peer = chance.choice(((a, b), (b, a)))
        action = chance.random()
        if action < 0.6:
            who.send(peer, f"text {i}")
        elif action < 0.95:
            head = who.sync(version=0)[who.chat(peer)].head
            if head:
                who.ack(who.chat(peer), delivered=head, read=chance.randrange(head + 1))
        else:
            who.friend_op("BLOCK", peer.name)
            who.friend_op("UNBLOCK", peer.name)


@pytest.mark.parametrize("seed", range(2))
def test_clean_while_people_talk_and_after_kills(system, ctl, seed):
    chance = random.Random(seed)
    people = [system.person(1 + i % 2) for i in range(4)]
    pairs = [(a, b) for i, a in enumerate(people) for b in people[i + 1:]]
    for a, b in pairs:
        befriend(a, b)
    for _ in range(3):
        failures = []

        def chat():
            try:
                talk(chance, pairs, 150)
            except Exception as e:  # pylint: disable=broad-except
                failures.append(e)

        talker = threading.Thread(target=chat)
        talker.start()
        runs = 0
        while talker.is_alive() or runs == 0:
            online(ctl)
            runs += 1
        talker.join()
        assert not failures
        system.store.kill()
        system.store.start()
        system.wait_ready()
        for i, d in enumerate(people):
            d.login(system.url(1 + i % 2))
        assert "0 findings" in online(ctl)["text"]
    for d in people:
        d.close()


def test_offline(system, ctl, pair):
    x, y = pair
    x.send(y, "hello")
    r = offline(system)
    assert r.returncode == 2 and "chasquictl fsck" in r.stderr
    system.store.kill()
    r = offline(system)
    assert r.returncode == 0, r.stdout + r.stderr
    assert "0 findings" in r.stdout
    r = subprocess.run([BIN / "chasqui-store", "--fsck", "--data", system.dir / "none"], capture_output=True, text=True, timeout=LONG)
    assert r.returncode == 2 and not (system.dir / "none").exists()
    system.store.start()
    system.wait_ready()
    assert online(ctl)["done"] > 0


def test_for_people(ctl, pair):
    x, y = pair
    x.send(y, "hello")
    code, out, err = ctl.run("fsck")
    assert (code, err) == (0, "") and "fsck done" in out and "0 findings" in out
    code, _, err = ctl.run("fsck", "extra")
    assert code == 2 and err
