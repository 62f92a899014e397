# SPDX-License-Identifier: MPL-2.0
"""What an edge lets one address, one account, one user and one session do, beyond what test_edge_wire.py looks at."""

import base64
import re
import subprocess
import time

import pytest
from edge_stand import *  # noqa: F403


def login(c, name="ana"):
    return c.ask(LOGIN, name, "password", b"d" * 16, b"k" * 32, "")


def get(port, path, source="127.0.0.1"):
    """(status, head) of a GET on a connection of its own."""
    c = Raw(port, shake=False, source=source)
    c.send_raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head = c.read_until(b"\r\n\r\n").decode()
    c.close()
    return int(head.split()[1]), head.lower()


def test_every_limit_is_on_by_default():
    """And the ones that people ask for are there by name."""
    text = subprocess.run([BIN / "chasqui-edge", "--help"], capture_output=True, text=True, check=True).stdout
    rates = dict(re.findall(r"--limit-([a-z-]+)-per-s .*\(default: (\d+)\)", text))
    bursts = dict(re.findall(r"--limit-([a-z-]+)-burst .*\(default: (\d+)\)", text))
    assert rates.keys() == bursts.keys() >= {
        "accept", "signup", "login", "login-name", "resume", "send", "friend", "history", "upload", "upload-address", "http"}
    assert all(0 < int(rates[name]) <= int(bursts[name]) for name in rates)


def test_passwords_of_one_account_from_many_addresses(world):
    e = world.edge(limit_login_name_per_s=1, limit_login_name_burst=3)
    tries = [Raw(e.port, source=f"127.0.0.{n}") for n in range(2, 6)]
    answers = [login(c) for c in tries]
    assert [a[0] for a in answers] == [0, 0, 0, RATE_LIMITED]
    assert 0 < answers[3][1][1] <= 1001
    assert login(Raw(e.port, source="127.0.0.9"), "bob")[0] == 0
    token = answers[0][1][3]
    assert Raw(e.port).ask(RESUME, token)[0] == 0  # a device that is known does not suffer from it


def test_http_requests_per_address(world):
    e = world.edge(limit_http_per_s=1, limit_http_burst=3)
    assert [get(e.port, path)[0] for path in ("/", "/nothing", "/", "/")] == [200, 404, 200, 429]
    status, head = get(e.port, "/")
    assert status == 429 and "\r\nretry-after: 1" in head
    assert [get(e.port, path)[0] for path in ("/healthz", "/readyz")] == [200, 200]  # load balancers
    assert get(e.port, "/", "127.0.0.2")[0] == 200
    keep = Raw(e.port, shake=False, source="127.0.0.3")
    for want in (b"200", b"200", b"200", b"429"):  # one connection for all is no way around it
        keep.send_raw(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert keep.read_until(b"\r\n\r\n").split()[1] == want
    keep.close()


@pytest.mark.parametrize("noise", ["operations", "pings", "half a message"])
def test_guests_that_talk_have_no_more_time(world, noise):
    """Only a login counts, not being busy."""
    e = world.edge(auth_timeout_ms=1000, limit_control_per_s=0, limit_signal_per_s=0)
    c = Raw(e.port, seconds=0.05)
    parts = {"operations": c.frame(msgpack.packb([[PING, 0]])), "pings": c.frame(b"", WS_PING),
             "half a message": c.frame(b"", fin=False)}
    c.send_raw(parts[noise])
    end = time.monotonic() + WAIT
    while c.code is None and time.monotonic() < end:
        c.send_raw(parts["operations" if noise == "operations" else "pings"])
        try:
            c.read()
        except TimeoutError:
            pass
        except EOFError:
            break
    assert c.code == 4002
    c.close()


def test_accounts_have_buckets_of_their_own_in_a_crowd(world):
    """Many names at once: none of them pays for another."""
    e = world.edge(limit_login_per_s=0, limit_login_name_per_s=1, limit_login_name_burst=1)
    for n in range(60):
        c = Raw(e.port)
        assert login(c, f"person{n}")[0] == 0
        c.close()


def begin_upload(c, token):
    """The status of a POST that an edge refuses (it says no length), unless a limit came first."""
    bearer = base64.urlsafe_b64encode(token).rstrip(b"=").decode()
    c.send_raw(f"POST /blob HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nAuthorization: Bearer {bearer}\r\n"
               "Content-Length: 0\r\n\r\n".encode())
    head = c.read_until(b"\r\n\r\n").decode().lower()
    length = int(re.search(r"content-length: (\d+)", head)[1])
    while len(c.got) < length:
        c.got += c.s.recv(4096)
    c.got = c.got[length:]
    return int(head.split()[1]), "retry-after: 1" in head


def test_uploads_per_user_and_per_address(world):
    e = world.edge(limit_upload_per_s=1, limit_upload_burst=2, limit_upload_address_per_s=1, limit_upload_address_burst=3)
    ana, bob = (person(e.port, name).welcome[3] for name in ("ana", "bob"))
    c = Raw(e.port, shake=False)
    assert [begin_upload(c, ana) for _ in range(3)] == [(400, False), (400, False), (429, True)]
    d = Raw(e.port, shake=False, source="127.0.0.2")
    assert begin_upload(d, ana) == (429, True)  # the user, wherever
    assert [begin_upload(c, bob) for _ in range(2)] == [(400, False), (429, True)]  # the address, whoever
    assert begin_upload(d, bob)[0] in (400, 429)


def test_who_come_back_at_once_wait_in_line_and_nobody_is_forgotten(world):
    """The store answers nobody's SYNC: those behind come in nevertheless, and all are answered at last."""
    world.stand.on_call = lambda *call: None
    e = world.edge(limit_resume_per_s=0)
    crowd = [Raw(e.port) for _ in range(150)]
    for i, c in enumerate(crowd):
        c.user = i.to_bytes(16, "big")
        c.send([RESUME, 1, world.stand.token(c.user, b"d" * 16, f"user{i}")], [SYNC, 2, None, 0])
    crowd.pop(40).close()
    for c in crowd:
        assert c.answer(1)[0] == OK
    # Perhaps also that of the one who has gone: it is not looked at before its turn.
    until(lambda: {c.user for c in crowd} <= {call[0] for call in world.stand.calls}, "every SYNC has reached the store")
    world.stand.do(lambda: None)  # it is done with the last one
    world.stand.answer_late(0, [])
    for c in crowd:
        c.answer(2)
        c.close()
