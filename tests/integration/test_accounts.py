# SPDX-License-Identifier: MPL-2.0
"""Sign-up, log-in, devices, tokens (§3)."""

import os
import re
import secrets

import pytest
from chasqui import Closed, Device, Link, Refused, befriend, device_row
from system import eventually


def name():
    return "n" + secrets.token_hex(6)


def answer_of(call):
    """The whole answer, to compare two that must be the same."""
    with pytest.raises(Refused) as e:
        call()
    return e.value.number, e.value.text, e.value.detail


@pytest.mark.parametrize("good", ["abc", "a.b_c-9", "0" * 29])
def test_good_names(system, good):
    unique = good + secrets.token_hex(1 if len(good) > 20 else 4)
    d = Device(unique).signup(system.url(1))
    assert d.welcomed.name == unique
    d.close()


@pytest.mark.parametrize(
    "bad", ["", "ab", "x" * 33, "Upper", "with space", "späße", "a/b", "a\nb", "a@b", "名前名前", "x" * 64])
def test_bad_names(system, bad):
    d = Device(bad).connect(system.url(1))
    with pytest.raises(Refused, match="BAD_NAME"):
        d.auth("SIGNUP")
    d.close()


def test_name_too_long_for_the_field(system):
    d = Device("x" * 65).connect(system.url(1))
    with pytest.raises(Refused, match="BAD_ARG|BAD_NAME"):
        d.auth("SIGNUP")
    d.close()


@pytest.mark.parametrize("bad", ["", "1234567", "x" * 257, "ü" * 129], ids=["none", "7", "257", "258"])
def test_bad_passwords(system, bad):
    d = Device(name(), bad).connect(system.url(1))
    with pytest.raises(Refused, match="BAD_PASSWORD"):
        d.auth("SIGNUP")
    d.password = "good enough"
    d.auth("SIGNUP")
    d.close()


@pytest.mark.parametrize("good", ["12345678", "x" * 256, "ü" * 128], ids=["8", "256", "256 in two-byte characters"])
def test_password_limits(system, good):
    n = name()
    Device(n, good).signup(system.url(1)).close()
    Device(n, good).login(system.url(2)).close()


def test_name_taken(system):
    d = system.person(1)
    other = Device(d.name, "another password").connect(system.url(2))
    with pytest.raises(Refused, match="NAME_TAKEN"):
        other.auth("SIGNUP")
    other.close(), d.close()


def test_wrong_name_and_wrong_password_are_the_same(system):
    d = system.person(1)
    wrong_password = Device(d.name, "not this one").connect(system.url(1))
    wrong_name = Device(name(), d.password).connect(system.url(1))
    a = answer_of(lambda: wrong_password.auth("LOGIN"))
    b = answer_of(lambda: wrong_name.auth("LOGIN"))
    assert a == b and a[0] == 12
    for x in (wrong_password, wrong_name, d):
        x.close()


def test_two_at_once_get_one_name(system):
    n = name()
    devices = [Device(n, f"password {i}").connect(system.url(1 + i % 2)) for i in range(4)]
    rids = [d.link.start("SIGNUP", n, d.password, d.id, d.public, "") for d in devices]
    won = []
    for d, rid in zip(devices, rids):
        try:
            d.link.finish(rid)
            won.append(d)
        except Refused as e:
            assert e.name == "NAME_TAKEN"
    assert len(won) == 1
    for d in devices:
        d.close()


def test_the_same_sign_up_twice_at_once_succeeds_twice(system):
    """As a client does it whose first edge does not answer: the same request on another one, while the first is under way."""
    for _ in range(5):
        d = Device("u" + secrets.token_hex(6))
        fields = (d.name, d.password, d.id, d.public, d.label)
        links = [Link(system.url(n)) for n in (1, 2)]
        rids = [link.start("SIGNUP", *fields) for link in links]
        users = set()
        for link, rid in zip(links, rids):
            try:
                answer = link.finish(rid)
            except Refused as e:
                assert e.name == "BUSY"
                answer = d.patiently(lambda link=link: link.ask("SIGNUP", *fields))
            users.add(answer[0])
            link.close()
        assert len(users) == 1


def test_welcome(system):
    d = system.person(2)
    w = d.welcomed
    assert len(w.user) == 16 and len(w.epoch) == 16 and len(w.store_key) == 32
    assert w.edge == "edge.2" and w.window == 16 and 0 < w.heartbeat_interval_ms < w.heartbeat_limit_ms
    assert w.token_expires_unix_ms > w.now_unix_ms
    e = system.person(1)
    assert (e.welcomed.epoch, e.welcomed.store_key) == (w.epoch, w.store_key)
    assert e.user != d.user
    d.close(), e.close()


def test_resume_on_another_edge(system, pair):
    x, y = pair
    token = x.token
    x.resume(system.url(2))
    assert x.token == token and x.welcomed.edge == "edge.2"
    x.send(y, "resumed")
    assert y.receive(x)[1] == "resumed"


def test_resume_after_everything_restarted(system, pair):
    x, y = pair
    for s in ("store", "edge.1", "edge.2"):
        system.services[s].kill()
    system.heal()
    tokens = x.token, y.token
    x.resume(system.url(1)), y.resume(system.url(2))
    # What the store signed is as it was, the seal that edges put on it is of this start of the store.
    assert [d.token[:-32] for d in (x, y)] == [t[:-32] for t in tokens] and (x.token, y.token) != tokens
    x.send(y, "resumed")
    assert y.receive(x)[1] == "resumed"


def test_bad_tokens(system):
    d = system.person(1)
    good = d.token
    for bad in (b"x", os.urandom(len(good)), good[:-1], good + b"\0", bytes([good[0] ^ 1]) + good[1:],
                good[:20] + bytes([good[20] ^ 1]) + good[21:], good[1:-33] + bytes([good[-33] ^ 1])):
        d.token = bad
        d.connect(system.url(2))
        with pytest.raises(Refused, match="BAD_TOKEN"):
            d.link.ask("RESUME", bad)
    d.close()


def test_before_login_nothing_is_served(system):
    link = Link(system.url(1))
    chat = os.urandom(16)
    for op, *fields in (("SYNC", None, 0), ("CHATS", None), ("KEYS", []), ("SEND", chat, 1, 0, 1, b"n" * 24, b"c" * 20),
                        ("HISTORY", chat, 1, 2), ("ACK", []), ("TYPING", chat, True), ("FRIENDS",), ("ADD", "abc"),
                        ("PRESENCE", []), ("DEVICES",), ("REVOKE", chat), ("LOGOUT",)):
        with pytest.raises(Refused, match="NOT_AUTHENTICATED"):
            link.ask(op, *fields)
    link.ask("PING")
    link.close()


def test_login_twice_on_one_connection(system):
    d = system.person(1)
    for call in (lambda: d.auth("LOGIN"), lambda: d.auth("SIGNUP"), lambda: d.link.ask("RESUME", d.token)):
        with pytest.raises(Refused, match="ALREADY_AUTHENTICATED"):
            call()
    assert d.friends() == {}
    d.close()


def test_devices_are_listed(system):
    d = system.person(1)
    d2 = system.another_device(d, 2)
    rows = {r.device: r for r in map(device_row, d.ask("DEVICES")[0])}
    assert set(rows) == {d.id, d2.id}
    assert rows[d2.id].label == "second" and not rows[d2.id].revoked
    d.close(), d2.close()


def test_logout_voids_the_token(system):
    d = system.person(1)
    d.ask("LOGOUT")
    d.link.closed()
    for n in (1, 2):
        d.connect(system.url(n))
        with pytest.raises(Refused, match="REVOKED|BAD_TOKEN"):
            d.link.ask("RESUME", d.token)
    d.login(system.url(1))
    d.resume(system.url(2))
    d.close()


def is_refused(device, url, token):
    """Who slips in before an edge is told is closed as soon as it is."""
    device.connect(url)
    try:
        device.link.ask("RESUME", token)
    except Refused as refused:
        assert re.search("REVOKED|BAD_TOKEN", str(refused))
        return True
    device.link.closed()
    return False


def test_revoke_closes_the_other_device_on_another_edge(system):
    d = system.person(1)
    d2 = system.another_device(d, 2)
    token = d2.token
    d.ask("REVOKE", d2.id)
    d2.link.closed()
    for n in (1, 2):
        eventually(lambda url=system.url(n): is_refused(d2, url, token))
    rows = {r.device: r for r in map(device_row, d.ask("DEVICES")[0])}
    assert rows[d2.id].revoked and not rows[d.id].revoked
    d2.close(), d.close()


def test_revocation_survives_restarts(system):
    d = system.person(1)
    d2 = system.another_device(d, 2)
    token = d2.token
    d.ask("REVOKE", d2.id)
    d2.link.closed()
    system.store.kill()
    system.edge(2).kill()
    system.heal()
    d2.connect(system.url(2))
    with pytest.raises(Refused, match="REVOKED|BAD_TOKEN"):
        d2.link.ask("RESUME", token)
    d2.close(), d.close()


def test_revoking_what_is_not_mine(system):
    d, other = system.person(1), system.person(2)
    a = answer_of(lambda: d.ask("REVOKE", other.id))
    b = answer_of(lambda: d.ask("REVOKE", os.urandom(16)))
    assert a == b and a[0] == 20
    assert other.friends() == {}, "the other's device goes on"
    d.close(), other.close()


def test_a_device_has_one_key(system):
    """A copied id without the copied key is not that device."""
    d = system.person(1)
    clone = Device(d.name, d.password).connect(system.url(1))
    clone.id = d.id
    with pytest.raises(Refused, match="BAD_DEVICE"):
        clone.auth("LOGIN")
    clone.close(), d.close()


def test_the_same_device_id_in_two_accounts(system, pair):
    """Ids are random; who takes a friend's on purpose gains nothing: keys are sealed to the key, cursors are per user."""
    x, y = pair
    x.send(y, "for y")
    thief = Device(y.name, y.password)
    thief.id = x.id
    try:
        thief.login(system.url(1))
    except Refused as e:
        assert e.name == "BAD_DEVICE"
        return
    assert thief.catch_up() == {thief.chat(x): ["for y"]}
    assert thief.send(x, "still counted apart") == 2
    assert x.send(y, "still counted apart") == 3
    thief.close()


def test_the_same_device_logs_in_again(system, pair):
    x, y = pair
    x.send(y, "a")
    x.login(system.url(2))
    assert x.send(y, "b") == 2


def test_a_revoked_device_gets_no_messages(system):
    x, y = system.person(1), system.person(2)
    befriend(x, y)
    y2 = system.another_device(y, 1)
    y.ask("REVOKE", y2.id)
    y2.link.closed()
    x.send(y, "not for the revoked")
    y.receive(x)
    assert not y2.link.has_push("MESSAGE")
    with pytest.raises(Closed):
        y2.ask("FRIENDS")
    x.close(), y.close(), y2.close()
