# SPDX-License-Identifier: MPL-2.0
"""The rules of §6: dseq, prev, hash, window. Each of these fails when its rule is taken away."""

import os
import time

import pytest
from chasqui import OPS, Refused

BURST = 300
SYSTEM = {"edge": ["--limit-send-per-s", "1", "--limit-send-burst", str(BURST)]}  # below what the slowest machine sends


def test_retry_gets_the_same_answer(pair):
    x, y = pair
    fields = x.prepare(y, "once")
    first = x.send_prepared(fields)
    assert x.send_prepared(fields) == first
    assert x.texts(y) == ["once"]
    assert y.receive(x) == (1, "once")
    x.send(y, "marker")
    assert y.receive(x) == (2, "marker"), "a retry must not be routed a second time as a new message"


def test_retry_on_another_connection_and_edge(system, pair):
    x, y = pair
    fields = x.prepare(y, "once")
    first = x.send_prepared(fields)
    x.resume(system.url(2))
    assert x.send_prepared(fields) == first
    assert y.texts(x) == ["once"]


def test_retry_after_the_store_was_killed(system, pair):
    x, y = pair
    prepared = [x.prepare(y, "m1")]
    answers = [x.send_prepared(prepared[0])]
    for i in range(2, 6):
        prepared.append(x.prepare(y, f"m{i}"))
        answers.append(x.send_prepared(prepared[-1]))
    system.store.restart()
    system.wait_ready()
    x.login(system.url(1))
    for fields, answer in zip(prepared, answers):
        assert x.send_prepared(fields) == answer
    other = x.prepare(y, "other bytes", dseq=5, prev=4)
    with pytest.raises(Refused, match="DSEQ_CONFLICT"):
        x.ask("SEND", *other)
    assert x.texts(y) == ["m1", "m2", "m3", "m4", "m5"]
    assert x.send(y, "m6") == 6


def test_other_bytes_under_the_same_dseq(pair):
    x, y = pair
    x.send(y, "original")
    with pytest.raises(Refused, match="DSEQ_CONFLICT"):
        x.ask("SEND", *x.prepare(y, "a copy of this device", dseq=1, prev=0))
    assert x.texts(y) == ["original"]


def test_the_first_needs_prev_0(pair):
    x, y = pair
    with pytest.raises(Refused, match="OUT_OF_ORDER") as e:
        x.ask("SEND", *x.prepare(y, "second", dseq=2, prev=1))
    assert e.value.detail == 0
    assert x.texts(y) == []


def test_nothing_can_be_skipped(pair):
    """One send of a pipeline is refused: those behind it are refused too, and going back to `detail` heals."""
    x, y = pair
    x.send(y, "m1")
    bad = x.prepare(y, "m2")
    bad[3] += 7  # not the current key version
    later = [x.prepare(y, "m3", dseq=3, prev=2), x.prepare(y, "m4", dseq=4, prev=3)]
    rids = [x.link.start("SEND", *f) for f in [bad, *later]]
    with pytest.raises(Refused, match="KEY_VERSION"):
        x.link.finish(rids[0])
    for rid in rids[1:]:
        with pytest.raises(Refused, match="OUT_OF_ORDER") as e:
            x.link.finish(rid)
        assert e.value.detail == 1
    x.ask("SEND", *x.prepare(y, "m2", dseq=2, prev=1))
    for fields in later:
        x.ask("SEND", *fields)
    assert x.texts(y) == ["m1", "m2", "m3", "m4"]


def test_dseq_may_jump_when_prev_is_right(pair):
    x, y = pair
    x.send(y, "m1")
    x.ask("SEND", *x.prepare(y, "m2", dseq=9, prev=1))
    with pytest.raises(Refused, match="OUT_OF_ORDER") as e:
        x.ask("SEND", *x.prepare(y, "wrong prev", dseq=10, prev=1))
    assert e.value.detail == 9
    with pytest.raises(Refused, match="DSEQ_CONFLICT|OUT_OF_ORDER"):
        x.ask("SEND", *x.prepare(y, "into the past", dseq=5, prev=1))
    assert x.texts(y) == ["m1", "m2"]


@pytest.mark.parametrize("dseq, prev", [(0, 0), (3, 3), (2, 5)])
def test_senseless_counters(pair, dseq, prev):
    x, y = pair
    with pytest.raises(Refused):
        x.ask("SEND", *x.prepare(y, "senseless", dseq=dseq, prev=prev))
    assert x.send(y, "still works") == 1


def test_the_window_of_kept_answers(pair):
    """The last 16 answers are kept; what is older is a conflict, never a second message."""
    x, y = pair
    assert x.welcomed.window == 16
    prepared, answers = [], []
    for i in range(20):
        prepared.append(x.prepare(y, f"m{i + 1}"))
        answers.append(x.send_prepared(prepared[-1]))
    for fields, answer in zip(prepared[4:], answers[4:]):
        assert x.send_prepared(fields) == answer
    for fields in prepared[:4]:
        with pytest.raises(Refused, match="DSEQ_CONFLICT"):
            x.ask("SEND", *fields)
    assert len(x.texts(y)) == 20
    assert x.send(y, "m21") == 21


def test_more_than_a_window_unanswered(pair):
    """Of a pipeline that is too long a window is accepted, WINDOW_FULL stops it, and the rest can be sent again."""
    x, y = pair
    chat = x.chat(y)
    unsent = []
    for i in range(60):
        unsent.append(x.prepare(y, f"m{i + 1}"))
        x.dseq[chat] = unsent[-1][1]
    names = set()
    while unsent:
        ops = [[OPS["SEND"], next(x.link.rids), *f] for f in unsent]
        x.link.send_ops(ops)
        done = 0
        for i, op in enumerate(ops):
            try:
                x.link.finish(op[1])
                assert done == i, "accepted behind a refused one"
                done += 1
            except Refused as e:
                assert e.name in ("WINDOW_FULL", "OUT_OF_ORDER", "BUSY", "RATE_LIMITED"), e
                assert e.name != "OUT_OF_ORDER" or e.detail == 60 - len(unsent) + done
                names.add(e.name)
        assert done, "no progress"
        assert "WINDOW_FULL" in names, "the answers of all 60 cannot be kept"
        unsent = unsent[done:]
    assert x.texts(y) == [f"m{i + 1}" for i in range(60)]


def test_each_device_counts_for_itself(system, pair):
    x, y = pair
    x2 = system.another_device(x)
    assert x.send(y, "a") == 1
    assert x2.prepare(y, "b")[1:3] == [1, 0]
    assert x2.send(y, "b") == 2
    assert x.send(y, "c") == 3
    assert x.sync(version=0)[x.chat(y)].last_dseq == 2
    assert x2.sync(version=0)[x.chat(y)].last_dseq == 1
    x2.close()


def test_login_tells_the_last_accepted_dseq(system, pair):
    x, y = pair
    for i in range(3):
        x.send(y, str(i))
    x.dseq.clear()
    x.login(system.url(2))
    x.catch_up()
    assert x.dseq[x.chat(y)] == 3
    assert x.send(y, "next") == 4


def test_seq_has_no_gaps_with_many_senders(system, pair):
    x, y = pair
    devices = [x, y, system.another_device(x, 2), system.another_device(y, 1)]
    chat = x.chat(y)
    rids = []
    for i in range(12):
        for d in devices:
            fields = d.prepare(chat, f"{i}")
            d.dseq[chat] = fields[1]
            rids.append((d, d.link.start("SEND", *fields)))
    seqs = [d.link.finish(rid)[0] for d, rid in rids]
    assert sorted(seqs) == list(range(1, 49))
    for d in devices:
        own = [s for (e, _), s in zip(rids, seqs) if e is d]
        assert own == sorted(own)
        assert [m.seq for m in d.history(chat)] == list(range(1, 49))
    for d in devices[2:]:
        d.close()


def test_pushes_come_in_order_of_seq(pair):
    x, y = pair
    chat = x.chat(y)
    for i in range(100):
        x.send(y, f"{i}")
    for i in range(100):
        assert y.receive(chat) == (i + 1, f"{i}")


def test_refused_sends_do_not_use_up_the_dseq(pair):
    x, y = pair
    chat = x.chat(y)
    fields = x.prepare(y, "x")
    with pytest.raises(Refused, match="NOT_FOUND"):
        x.ask("SEND", os.urandom(16), *fields[1:])
    with pytest.raises(Refused, match="KEY_VERSION"):
        x.ask("SEND", chat, 1, 0, fields[3] + 1, *fields[4:])
    assert x.send_prepared(fields)[0] == 1


def test_ciphertext_is_stored_as_it_came(pair):
    """The server neither reads nor checks it: the bytes come back as they were, and only the peer's key opens them."""
    x, y = pair
    fields = x.prepare(y, "opaque")
    fields[5] = os.urandom(40)
    x.send_prepared(fields)
    head, more, part = y.ask("HISTORY", y.chat(x), 1, 1)[:3]
    assert part[0][7:9] == fields[4:6]


def test_too_many_are_told_when_to_come_again(pair):
    x, y = pair
    refused = None
    sent = []
    for i in range(5 * BURST):
        fields = x.prepare(y, f"m{i}")
        try:
            x.send_prepared(fields)
            sent.append(f"m{i}")
        except Refused as e:
            assert e.name == "RATE_LIMITED" and 0 < e.retry_after_ms <= 60_000
            refused = e
            break
    assert refused, "there must be a limit"
    time.sleep(refused.retry_after_ms / 1000)
    x.send_prepared(fields)
    assert x.texts(y) == [*sent, f"m{i}"]
