# SPDX-License-Identifier: MPL-2.0
"""Replay from a marker that lies in the middle: the projections are written behind, slice by slice, while messages go on.

The store checkpoints all the time here and is killed again and again; nothing may be counted twice, lost, or refused as damaged.
"""

import random

import pytest
from chasqui import Refused, befriend

SYSTEM = {"store": ["--checkpoint-idle-ms", "10", "--checkpoint-records", "3"],
          "edge": [f"--limit-{what}-per-s=0" for what in ("send", "friend", "query", "history", "signup")]}


def restart(system, people):
    system.store.restart()
    system.wait_ready()
    for i, d in enumerate(people):
        d.login(system.url(1 + i % 2))


@pytest.mark.parametrize("seed", range(6))
def test_killed_between_checkpoints(system, seed):
    chance = random.Random(seed)
    people = [system.person(1 + i % 2) for i in range(4)]
    pairs = [(a, b) for i, a in enumerate(people) for b in people[i + 1:]]
    sent = {}
    for a, b in pairs:
        sent[befriend(a, b)] = []
    for round_ in range(4):
        for _ in range(chance.randrange(5, 40)):
            a, b = chance.choice(pairs)
            chat = a.chat(b)
            if chance.random() < 0.7:
                who = chance.choice((a, b))
                sent[chat].append((who, f"{round_} {len(sent[chat])}"))
                assert who.send(chat, sent[chat][-1][1]) == len(sent[chat])
            elif sent[chat]:
                up_to = chance.randrange(1, len(sent[chat]) + 1)
                chance.choice((a, b)).ack(chat, delivered=len(sent[chat]), read=chance.choice((0, up_to)))
        before = {d: expected(d) for d in people}
        restart(system, people)
        for d in people:
            assert expected(d) == before[d]
        for a, b in pairs:
            assert a.texts(b) == [t for _, t in sent[a.chat(b)]]
            for who in (a, b):
                read = who.sync(version=0)[a.chat(b)].read
                others = [i + 1 for i, (w, _) in enumerate(sent[a.chat(b)]) if w is not who and i + 1 > read]
                row = who.chats()[(b if who is a else a).name]
                assert (row.unread, row.first_unread) == (len(others), others[0] if others else 0)
    for d in people:
        d.close()


def expected(d):
    """Everything the store says about a person's chats."""
    chats = d.sync(version=0)
    friends = {f.name: (f.relation, f.blocked, f.open) for f in d.friends().values()}
    return friends, {c.chat: (c.head, c.unread, c.first_unread, c.read, c.delivered, c.last_dseq, c.open,
                              sorted((k.user, k.device or b"", k.up_to) for k in c.cursors)) for c in chats.values()}


def test_friends_and_blocks_between_checkpoints(system):
    a, b = system.person(1), system.person(2)
    befriend(a, b)
    for op in ("BLOCK", "UNBLOCK", "REMOVE", "ADD"):
        a.friend_op(op, b.name)
        a.ask("FRIENDS")
        before = expected(a), expected(b)
        restart(system, (a, b))
        assert (expected(a), expected(b)) == before
    b.friend_op("ACCEPT", a.name)
    a.send(b, "open again")
    restart(system, (a, b))
    assert b.texts(a) == ["open again"]
    a.close(), b.close()


def test_dseq_between_checkpoints(system):
    a, b = system.person(1), system.person(2)
    befriend(a, b)
    prepared, answers = [], []
    for i in range(40):
        prepared.append(a.prepare(b, f"m{i}"))
        answers.append(a.send_prepared(prepared[-1]))
        if i % 8 == 7:
            restart(system, (a, b))
            for fields, answer in zip(prepared[-16:], answers[-16:]):
                assert a.send_prepared(fields) == answer
            if i > 16:
                with pytest.raises(Refused, match="DSEQ_CONFLICT"):
                    a.ask("SEND", *prepared[i - 16])
    assert b.texts(a) == [f"m{i}" for i in range(40)]
    a.close(), b.close()


def test_answers_while_a_commit_is_on_its_way(system):
    """Answers that wait for a commit must not touch what the committer is writing: the log would be damaged."""
    x, y = system.person(1), system.person(2)
    others = [system.person(1) for _ in range(3)]
    for other in others:
        befriend(other, y)
        other.send(y, "z" * 3000)
    befriend(x, y)
    chat, texts = x.chat(y), []
    for i in range(200):
        texts.append(f"m{i}")
        fields = x.prepare(chat, texts[-1])
        sending = x.link.start("SEND", *fields)
        asking = [y.link.start("KEYS", []), y.link.start("CHATS", None), y.link.start("SYNC", None, 0)]
        x.link.finish(sending)
        x.dseq[chat] = fields[1]
        for rid in asking:
            y.patiently(lambda: y.link.finish(rid))
    restart(system, (x, y))
    assert x.texts(y) == texts
    for d in (x, y, *others):
        d.close()
