# SPDX-License-Identifier: MPL-2.0
"""Two people chat: across edges, offline, with receipts, with several devices."""

import pytest
from chasqui import OPS, Refused, befriend, chat_id
from ctl import Ctl
from system import eventually

COUNT = 64
SYSTEM = {"edge": ["--limit-send-per-s", "0"]}  # what is limited is tested elsewhere


def test_both_directions_across_edges(pair):
    x, y = pair
    assert x.welcomed.edge == "edge.1" and y.welcomed.edge == "edge.2"
    assert x.send(y, "hello y") == 1
    assert y.receive(x) == (1, "hello y")
    assert y.send(x, "hello x ☕") == 2
    assert x.receive(y) == (2, "hello x ☕")
    assert x.texts(y) == y.texts(x) == ["hello y", "hello x ☕"]


def test_same_edge(system):
    x, y = system.person(1), system.person(1)
    befriend(x, y)
    x.send(y, "near")
    assert y.receive(x)[1] == "near"


def test_chat_id_is_derived(pair):
    x, y = pair
    assert x.chat(y) == y.chat(x) == chat_id(x.user, y.user)


def test_offline_gets_everything_in_order(system, pair):
    x, y = pair
    y.close()
    sent = [f"while you were away {i}" for i in range(120)]
    assert [x.send(y, t) for t in sent] == list(range(1, 121))
    y.login(system.url(1))
    assert y.catch_up() == {y.chat(x): sent}
    # and from there on live
    x.send(y, "welcome back")
    assert y.receive(x) == (121, "welcome back")


def test_history_ranges(pair):
    x, y = pair
    for i in range(1, 31):
        x.send(y, f"n{i}")
    assert [m.seq for m in y.history(x, 10, 12)] == [10, 11, 12]
    assert [m.text for m in y.history(x, 29, 1000)] == ["n29", "n30"]
    assert y.history(x, 31, 40) == []
    head, more, part = y.ask("HISTORY", y.chat(x), 1, 30)[:3]
    assert head == 30 and not more and len(part) == 30


def test_history_in_parts(pair):
    """An answer is bounded: 600 messages of 2,000 bytes need several, and together they are complete."""
    x, y = pair
    chat = x.chat(y)
    text = "x" * 2000
    for start in range(0, 600, 10):
        rids = []
        for _ in range(10):
            fields = x.prepare(y, text)
            rids.append(x.link.start("SEND", *fields))
            x.dseq[chat] = fields[1]
        for rid in rids:
            x.link.finish(rid)
    head, more, part = y.ask("HISTORY", chat, 1, 600)[:3]
    assert head == 600 and more and len(part) <= 500
    assert [m.seq for m in y.history(x)] == list(range(1, 601))


def test_sent_delivered_read(pair):
    x, y = pair
    x.send(y, "seen?")
    y.receive(x)
    y.ack(x, delivered=1)
    r = x.receipt(y, y.user, 1, device=y.id)
    assert r.up_to == 1 and r.time_unix_ms > 0
    y.ack(x, read=1)
    assert x.receipt(y, y.user, 1).up_to == 1
    c = x.chats()[y.name]
    assert (c.peer_delivered, c.peer_read) == (1, 1)


def test_read_at_once_is_one_receipt(pair):
    """What arrives and is read at once is one push; that the device holds it follows from it, and SYNC says so."""
    x, y = pair
    x.send(y, "1"), x.send(y, "2")
    y.receive(x), y.receive(x)
    y.ack(x, delivered=2, read=2)
    assert x.receipt(y, y.user, 2).device is None
    x.ask("FRIENDS")
    assert not x.link.has_push("RECEIPT", lambda f: f[2] is not None)
    cursors = {(k.user, k.device): k.up_to for k in x.sync(version=0)[x.chat(y)].cursors}
    assert cursors[(y.user, y.id)] == cursors[(y.user, None)] == 2
    x.send(y, "3"), x.send(y, "4")
    y.receive(x), y.receive(x)
    y.ack(x, delivered=4, read=3)
    assert x.receipt(y, y.user, 3).up_to == 3
    assert x.receipt(y, y.user, 4, device=y.id).up_to == 4


def test_receipts_while_the_sender_was_offline(system, pair):
    x, y = pair
    x.send(y, "one")
    x.send(y, "two")
    x.sync()
    x.close()
    y.receive(x), y.receive(x)
    y.ack(x, delivered=2, read=1)
    x.resume(system.url(2))
    c = x.sync()[x.chat(y)]
    cursors = {(k.user, k.device): k.up_to for k in c.cursors}
    assert cursors[(y.user, y.id)] == 2
    assert cursors[(y.user, None)] == 1


def test_receipts_share_commits(system, pair):
    """What queued up while the store was busy is one commit, or a few; not one each."""
    x, y = pair
    ctl = Ctl(system)
    for i in range(COUNT):
        x.send(y, str(i))
    y.receive(x)
    sent = ctl.metric("edge.2", "chasqui_bus_items_out_total")
    commits = ctl.metric("store.1", "chasqui_store_commits_total")
    system.store.freeze()
    asked = [y.link.start("ACK", [[y.chat(x), i + 1, 0]]) for i in range(COUNT)]
    eventually(lambda: ctl.metric("edge.2", "chasqui_bus_items_out_total") >= sent + COUNT, what="all on their way to the store")
    system.store.thaw()
    for rid in asked:
        y.link.finish(rid)
    assert ctl.metric("store.1", "chasqui_store_commits_total") - commits <= COUNT / 4
    assert x.receipt(y, y.user, COUNT, device=y.id).up_to == COUNT


def test_read_implies_delivered(pair):
    x, y = pair
    x.send(y, "read at once")
    y.receive(x)
    y.ack(x, read=1)
    c = x.sync(version=0)[x.chat(y)]
    cursors = {(k.user, k.device): k.up_to for k in c.cursors}
    assert cursors[(y.user, y.id)] == 1 and cursors[(y.user, None)] == 1


def test_cursors_only_grow(pair):
    x, y = pair
    for i in range(3):
        x.send(y, str(i))
    y.ack(x, delivered=3, read=2)
    y.ack(x, delivered=1, read=1)
    c = y.sync(version=0)[y.chat(x)]
    assert (c.delivered, c.read) == (3, 2)


def test_above_head_is_refused(pair):
    x, y = pair
    x.send(y, "only one")
    for cursors in ([2, 0], [0, 2], [2**40, 2**40]):
        with pytest.raises(Refused, match="ABOVE_HEAD"):
            y.ask("ACK", [[y.chat(x), *cursors]])
    assert y.sync(version=0)[y.chat(x)].delivered == 0


def test_ack_of_own_messages_is_no_receipt_of_the_peer(pair):
    x, y = pair
    x.send(y, "mine")
    x.ack(y, delivered=1, read=1)
    c = y.chats()[x.name]
    assert c.unread == 1
    assert x.chats()[y.name].peer_read == 0


def test_unread_counts(pair):
    x, y = pair
    x.send(y, "a"), x.send(y, "b")
    y.send(x, "own messages do not count")
    x.send(y, "c")
    c = y.chats()[x.name]
    assert (c.head, c.unread, c.first_unread) == (4, 3, 1)
    y.ack(x, read=1)
    c = y.chats()[x.name]
    assert (c.unread, c.first_unread) == (2, 2)
    s = y.sync(version=0)[y.chat(x)]
    assert (s.unread, s.first_unread, s.read) == (2, 2, 1)
    y.ack(x, read=4)
    assert y.chats()[x.name].unread == 0
    assert x.chats()[y.name].unread == 1


def test_chat_list_has_the_last_message(pair):
    from chasqui import message_row

    x, y = pair
    assert y.chats()[x.name].last is None
    x.send(y, "first")
    x.send(y, "last")
    m = message_row(y.chats()[x.name].last)
    assert m.seq == 2 and y.decrypt(m) == "last"


def test_two_devices_get_everything(system, pair):
    x, y = pair
    x2, y2 = system.another_device(x, 2), system.another_device(y, 1)
    x.send(y, "to all")
    for d in (y, y2, x2):
        assert d.receive(d.chat(x.chat(y))) == (1, "to all")
    assert not x.link.has_push("MESSAGE"), "the sender's own device must not get its message back"
    y2.send(x, "from the second")
    for d in (x, x2, y):
        assert d.receive(d.chat(x.chat(y))) == (2, "from the second")
    # receipts of one device reach the user's other devices as well, so that unread marks agree
    y.ack(x, delivered=2, read=1)
    chat = x.chat(y)
    for d in (x, x2, y2):
        assert d.receipt(chat, y.user, 1).up_to == 1
    y.ask("FRIENDS")
    assert not y.link.has_push("RECEIPT", lambda f: f[1] == y.user), "the device that read knows it from its answer"
    # delivered is per device
    cursors = {(k.user, k.device): k.up_to for k in x.sync(version=0)[chat].cursors}
    assert cursors[(y.user, y.id)] == 2
    assert cursors.get((y.user, y2.id), 0) == 0
    x2.close(), y2.close()


def test_a_new_device_reads_all_history(system, pair):
    x, y = pair
    x.send(y, "old")
    y2 = system.another_device(y, 1)
    assert y2.messages[y2.chat(x)] == {1: "old"}
    y2.close()


def test_sync_tells_only_what_changed(pair):
    x, y = pair
    x.send(y, "a")
    assert set(y.sync(version=0)) == {y.chat(x)}
    assert y.sync() == {}
    x.send(y, "b")
    assert y.sync()[y.chat(x)].head == 2
    assert y.sync() == {}
    x.ack(y, delivered=2)
    assert y.sync()[y.chat(x)].head == 2


def test_sync_with_another_epoch_resets(pair):
    x, y = pair
    x.send(y, "a")
    y.sync()
    chats = y.sync(epoch=b"\1" * 16, version=2**40)
    assert y.was_reset and set(chats) == {y.chat(x)}
    assert y.epoch == y.welcomed.epoch


def test_lost_receipt_push_heals_by_sync(pair):
    x, y = pair
    x.send(y, "a")
    version = x.version
    x.sync()
    y.ack(x, delivered=1, read=1)
    x.receipt(y, y.user, 1)
    c = x.sync(version=version)[x.chat(y)]
    assert {k.device for k in c.cursors if k.user == y.user and k.up_to == 1} == {None, y.id}


def test_lists_in_one_frame(pair):
    """One frame of operations in, carried out in order; what one turn produces leaves as few frames, not one each."""
    x, y = pair
    chat, ops = x.chat(y), []
    for i in range(16):
        fields = x.prepare(y, f"m{i}")
        ops.append([OPS["SEND"], next(x.link.rids), *fields])
        x.dseq[chat] = fields[1]
    ops.append([OPS["HISTORY"], next(x.link.rids), chat, 1, 16])
    x_before, y_before = len(x.link.frames), len(y.link.frames)
    x.link.send_ops(ops)
    assert [x.link.finish(op[1])[0] for op in ops[:16]] == list(range(1, 17))
    head, _, part = x.link.finish(ops[16][1])[:3]
    assert head == 16 and len(part) == 16, "the requests to the store must be handled in order"
    assert [y.receive(x) for _ in range(16)] == [(i + 1, f"m{i}") for i in range(16)]
    assert len(y.link.frames) - y_before <= 8, "pushes of one turn must share a frame"
    assert len(x.link.frames) - x_before <= 8, "answers of one turn must share a frame"


def test_acks_of_many_chats_in_one_operation(system):
    x = system.person(1)
    peers = [system.person(2) for _ in range(3)]
    for p in peers:
        befriend(p, x)
        p.send(x, "hi")
    x.ask("ACK", [[x.chat(p), 1, 1] for p in peers])
    for p in peers:
        assert p.receipt(x, x.user, 1).up_to == 1
        p.close()
    assert all(c.unread == 0 for c in x.chats().values())


def test_text_of_16_kib(pair):
    x, y = pair
    text = "ü" * 8192
    assert len(text.encode()) == 16384
    x.send(y, text)
    assert y.receive(x) == (1, text)


def test_ciphertext_too_long_or_short(pair):
    x, y = pair
    chat, dseq, prev, version, nonce, _ = x.prepare(y, "fine")
    for size in (0, 16, 16384 + 64 + 16 + 1, 60000):
        with pytest.raises(Refused, match="BAD_ARG|TOO_BIG"):
            x.ask("SEND", chat, dseq, prev, version, nonce, b"c" * size)
    assert x.send(y, "the connection and the counter stay") == 1


def test_time_and_fields_of_a_message(pair):
    x, y = pair
    seq, at = x.send_prepared(x.prepare(y, "when"))
    m = y.history(x)[0]
    assert (m.seq, m.time_unix_ms, m.user, m.device, m.dseq) == (seq, at, x.user, x.id, 1)
    assert abs(at - x.welcomed.now_unix_ms) < 3_600_000


def test_typing(pair):
    x, y = pair
    x.ask("TYPING", x.chat(y), True)
    assert y.link.push("TYPING_NOTE")[:3] == [x.chat(y), x.user, True]
    x.ask("TYPING", x.chat(y), False)
    assert y.link.push("TYPING_NOTE")[:3] == [x.chat(y), x.user, False]
    assert y.sync(version=0)[y.chat(x)].head == 0, "never stored"


def test_keys_only_those_that_are_lacking(pair):
    x, y = pair
    chat = x.chat(y)
    version, key = x.keys[chat]
    assert y.keys[chat] == (version, key) and len(key) == 32
    assert x.fetch_keys(have=[[chat, version]]) == 0
    assert x.fetch_keys(have=[]) == 1
    assert x.keys[chat] == (version, key)
