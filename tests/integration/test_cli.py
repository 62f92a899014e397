# SPDX-License-Identifier: MPL-2.0
"""The terminal client between two homes, as a person types it; and every way to type it wrong."""

import secrets
import signal
import stat
import subprocess

import pytest
from chasqui import Device
from cli import Home
from system import eventually

OK, REFUSED, USAGE, UNREACHABLE, NOT_LOGGED_IN, LOCAL = range(6)


@pytest.fixture(scope="module")
def homes(system):
    """Two friends, each with a home."""
    a, b = Home(system.url(1)).signup(), Home(system.url(2)).signup()
    a.ok("add", b.name)
    b.ok("accept", a.name)
    return a, b


def stranger(system):
    return Home(system.urls()).signup()


def texts(home, peer, *options):
    return [r["text"] for r in home.ok("history", peer, *options).rows]


def test_the_tour(system):
    """Issue and README: sign up, add, accept, send, history, in words for people."""
    a, b = Home(system.urls()), Home(system.urls())
    for h in (a, b):
        r = h.ok("signup", h.name, "--password-file", h.password_file, json_lines=False)
        assert h.name in r.out and h.password not in r.out + r.err
    assert b.name in a.ok("add", b.name, json_lines=False).out
    assert a.name in b.ok("friends", json_lines=False).out
    b.ok("accept", a.name, json_lines=False)
    r = a.ok("send", b.name, "hello", "from", "here", json_lines=False)
    assert "sent" in r.out and "1" in r.out
    r = b.ok("chats", json_lines=False)
    assert a.name in r.out and "hello from here" in r.out
    r = b.ok("history", a.name, json_lines=False)
    assert "hello from here" in r.out and a.name in r.out


def test_send_and_history_in_json(homes):
    a, b = homes
    row = a.ok("send", b.name, "first").row
    assert row["type"] == "sent" and row["peer"] == b.name and row["seq"] >= 1 and row["time_unix_ms"] > 10**12
    row2 = b.ok("send", a.name, "second").row
    assert row2["seq"] == row["seq"] + 1
    rows = a.ok("history", b.name, "--last", "2").rows
    assert [(r["from"], r["text"], r["seq"]) for r in rows] == [
        (a.name, "first", row["seq"]), (b.name, "second", row2["seq"])]
    assert [r["own"] for r in rows] == [True, False]


def test_history_before(homes):
    a, b = homes
    seqs = [a.ok("send", b.name, f"n{i}").row["seq"] for i in range(4)]
    assert texts(b, a.name, "--before", str(seqs[3]), "--last", "2") == ["n1", "n2"]


def test_text_as_it_is(homes):
    a, b = homes
    for text in ("ünï → ☕ 你好", "--looks like an option", "quotes \" and \\ and 'these'", "a\tb\nc", " spaces  stay "):
        a.ok("send", b.name, text)
        assert texts(b, a.name, "--last", "1") == [text]


def test_text_from_standard_input(homes):
    a, b = homes
    p = subprocess.run(a.command("send", b.name, "-"), input=b"from a pipe\n", capture_output=True, timeout=60)
    assert p.returncode == OK
    assert texts(b, a.name, "--last", "1") == ["from a pipe"]


def test_text_of_16_kib_and_one_more(homes):
    a, b = homes
    a.ok("send", b.name, "x" * 16384)
    r = a.run("send", b.name, "x" * 16385)
    assert r.code == USAGE and r.row["type"] == "error" and "16384" in r.row["message"]
    assert texts(b, a.name, "--last", "1") == ["x" * 16384], "refused, not cut"
    assert a.run("send", b.name, "").code == USAGE
    assert a.run("send", b.name, b"\xff\xfe".decode("utf-8", "surrogateescape")).code == USAGE


def test_escape_codes_do_not_reach_the_terminal(homes):
    a, b = homes
    a.ok("send", b.name, "\x1b[2J\x1b]0;title\x07 gone \u202eevil")
    r = b.ok("history", a.name, "--last", "1", json_lines=False)
    assert "\x1b[2J" not in r.out and "\x07" not in r.out and "\u202e" not in r.out
    r = b.ok("chats", json_lines=False)
    assert "\x1b[2J" not in r.out and "\x07" not in r.out


def test_chats_unread_and_presence(system):
    a, b = stranger(system), stranger(system)
    a.ok("add", b.name), b.ok("accept", a.name)
    for i in range(3):
        a.ok("send", b.name, f"unread {i}")
    row = b.ok("chats").row
    assert (row["name"], row["unread"], row["last_text"]) == (a.name, 3, "unread 2")
    assert row["online"] in (True, False) and row["last_seen_unix_ms"] > 0
    listening = b.start("listen", "--read")
    listening.wait_for(lambda r: r["type"] == "presence" or r["type"] == "message")
    a.ok("send", b.name, "read this")
    listening.wait_for(lambda r: r["type"] == "message" and r["text"] == "read this")
    assert listening.stop() == OK
    assert b.ok("chats").row["unread"] == 0


def test_listen_gets_messages_receipts_presence(system):
    a, b = stranger(system), stranger(system)
    a.ok("add", b.name), b.ok("accept", a.name)
    la = a.start("listen")
    la.wait_for(lambda r: r["type"] == "presence")
    seq = None
    lb = b.start("listen", "--read")
    la.wait_for(lambda r: r["type"] == "presence" and r["name"] == b.name and r["online"])
    seq = a.ok("send", b.name, "are you there?").row["seq"]
    m = lb.wait_for(lambda r: r["type"] == "message")
    assert (m["from"], m["text"], m["seq"]) == (a.name, "are you there?", seq)
    # Said together they are one receipt: read implies delivered.
    la.wait_for(lambda r: r["type"] in ("delivered", "read") and r["from"] == b.name and r["up_to"] == seq)
    la.wait_for(lambda r: r["type"] == "read" and r["from"] == b.name and r["up_to"] == seq)
    assert lb.stop() == OK
    la.wait_for(lambda r: r["type"] == "presence" and r["name"] == b.name and not r["online"], 60)
    assert la.stop() == OK
    row = a.ok("history", b.name).rows[-1]
    assert row["delivered"] and row["read"]


def test_listen_for_seconds(homes):
    a, _ = homes
    r = a.ok("listen", "--for", "1")
    assert all(row["type"] for row in r.rows)


def test_listen_marks_delivered_but_not_read(system):
    a, b = stranger(system), stranger(system)
    a.ok("add", b.name), b.ok("accept", a.name)
    lb = b.start("listen")
    a.ok("send", b.name, "only delivered")
    lb.wait_for(lambda r: r["type"] == "message")
    eventually(lambda: a.ok("history", b.name).rows[-1]["delivered"])
    assert not a.ok("history", b.name).rows[-1]["read"]
    lb.stop()


def test_search(homes):
    a, b = homes
    word = "needle" + secrets.token_hex(4)
    seq = a.ok("send", b.name, f"in the hay a {word} lies").row["seq"]
    for home, peer in ((a, b.name), (b, a.name)):
        rows = home.ok("search", word).rows
        assert [(r["peer"], r["seq"]) for r in rows] == [(peer, seq)]
        assert word in rows[0]["text"]
        assert home.ok("search", word, "--in", peer).row["seq"] == seq
    assert a.ok("search", "nowhere" + secrets.token_hex(8)).rows == []
    assert a.run("search", word, "--in", "nobody-at-all").code == REFUSED


def test_search_by_several_words_and_case(homes):
    a, b = homes
    tag = secrets.token_hex(4)
    a.ok("send", b.name, f"Grüße aus Köln {tag}")
    assert len(b.ok("search", f"köln {tag}").rows) == 1
    assert len(b.ok("search", tag).rows) == 1


def test_friend_commands(system):
    a, b = stranger(system), stranger(system)
    assert a.ok("add", b.name).row["relation"] == "asked"
    assert b.ok("friends").row["relation"] == "requested"
    assert b.ok("decline", a.name).row["relation"] in ("stranger", "none")
    assert a.run("accept", b.name).code == REFUSED
    a.ok("add", b.name)
    assert b.ok("accept", a.name).row["relation"] == "friend"
    assert a.ok("block", b.name).row["blocked"]
    r = b.run("send", a.name, "closed")
    assert r.code == REFUSED and r.rows[-1]["error"] == "CHAT_CLOSED"
    assert a.ok("unblock", b.name).row["open"]
    b.ok("send", a.name, "open")
    assert a.ok("remove", b.name).row["relation"] == "removed"
    assert texts(b, a.name) == ["open"]
    assert b.run("send", a.name, "closed").code == REFUSED


def test_privacy(homes):
    a, b = homes
    assert a.ok("privacy").row == {"type": "privacy", "hide_last_seen": False}
    assert a.ok("privacy", "--last-seen", "hide").row == {"type": "privacy", "hide_last_seen": True}
    assert a.ok("privacy").row["hide_last_seen"] is True
    assert "not when" in a.ok("privacy", json_lines=False).out
    row = next(r for r in b.ok("friends").rows if r["name"] == a.name)
    assert row["last_seen_unix_ms"] == 0
    assert a.ok("privacy", "--last-seen", "show").row["hide_last_seen"] is False
    assert a.run("privacy", "--last-seen", "maybe").code == 2 and a.run("privacy", "now").code == 2


def test_errors_as_json(homes):
    a, _ = homes
    r = a.run("send", "nobody-of-this-name", "hi")
    assert r.code == REFUSED and r.row["error"] == "NOT_FOUND" and r.row["exit"] == REFUSED
    r = a.run("add", "nobody-of-this-name")
    assert r.code == REFUSED and r.row["error"] == "NOT_FOUND"
    r = a.run("add", "Not A Name")
    assert r.code == USAGE and r.row["error"] == "BAD_NAME"


def test_oneself(homes):
    a, _ = homes
    for command in ("add", "block", "remove"):
        r = a.run(command, a.name)
        assert r.code == USAGE and r.row["message"].endswith("is you"), r


def test_the_password_is_asked_for_last(system, homes):
    """Whatever else is wrong is said first; and ^C, or an end, ends the asking."""
    a, b = homes
    r = a.run("login", b.name)
    assert r.code == USAGE and r.row["error"] == "OTHER_USER" and a.name in r.row["message"], r
    for end in (signal.SIGINT, signal.SIGTERM):
        h = Home(system.urls())
        p = subprocess.Popen(h.command("login", h.name), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        eventually(lambda: (h.dir / "home").exists(), what="an open home")  # noqa: B023
        eventually(lambda: end_and_wait(p, end), what=f"an end by {end}")  # noqa: B023
        assert p.returncode == UNREACHABLE and b"interrupted" in p.stdout.read()
        p.stdin.close(), p.stdout.close()


def end_and_wait(process, number):
    process.send_signal(number)
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_errors_for_people(homes):
    a, _ = homes
    r = a.run("send", "nobody-of-this-name", "hi", json_lines=False)
    assert r.code == REFUSED and r.out == "" and "nobody-of-this-name" in r.err
    r = a.run("add", "nobody-of-this-name", json_lines=False)
    assert r.code == REFUSED and "nobody called nobody-of-this-name" in r.err
    assert "try: chasqui --help)" in a.run("--no-such", json_lines=False).err


@pytest.mark.parametrize("arguments", [
    [], ["no-such-command"], ["send"], ["send", "abc"], ["history"], ["history", "a", "b"], ["add"], ["signup"],
    ["history", "abc", "--last", "0"], ["history", "abc", "--last", "x"], ["history", "abc", "--no-such"], ["listen", "--for"],
    ["listen", "--for", "-1"], ["--server"], ["search"], ["chats", "stray"],
])  # fmt: skip
def test_wrong_usage(homes, arguments):
    a, _ = homes
    r = a.run(*arguments)
    assert r.code == USAGE, r
    assert r.out + r.err


def test_help(homes):
    a, _ = homes
    r = a.run("--help", json_lines=False)
    assert r.code == OK
    for command in ("signup", "login", "add", "accept", "decline", "block", "unblock", "remove", "friends", "chats", "send",
                    "history", "search", "listen", "chat"):
        assert command in r.out
        assert a.run(command, "--help", json_lines=False).code == OK
    assert a.run("--version", json_lines=False).code == OK


def test_bad_servers(homes):
    a, b = homes
    for servers in ("", "nonsense", "http://127.0.0.1:1/ws", "ws://", "ws://127.0.0.1:99999/ws"):
        p = subprocess.run([*a.command()[:3], "--server", servers, "--json", "send", b.name, "x"], capture_output=True, timeout=60)
        assert p.returncode == USAGE, (servers, p)


def test_the_path_of_a_server(system):
    """/ws is understood; another one is said to be wrong."""
    bare = system.url(1).removesuffix("/ws")
    assert bare + "/ws" == system.url(1)
    Home(bare).signup()
    for path in ("/", "/wss", "/ws/"):
        h = Home(bare + path)
        r = h.run("signup", h.name, "--password-file", h.password_file)
        assert r.code == UNREACHABLE and "path" in r.row["message"] and "/ws" in r.row["message"], r


def test_wrong_password_and_names(system):
    h = Home(system.urls())
    r = h.run("login", h.name, "--password-file", h.password_file)
    assert r.code == REFUSED and r.row["error"] == "BAD_CREDENTIALS"
    h.password_file.write_text("short\n")
    r = h.run("signup", h.name, "--password-file", h.password_file)
    assert r.code == USAGE and r.row["error"] == "BAD_PASSWORD"
    r = h.run("signup", h.name, "--password-file", "/no/such/file")
    assert r.code != OK
    h.password_file.write_text("long enough\n")
    taken = stranger(system)
    r = h.run("signup", taken.name, "--password-file", h.password_file)
    assert r.code == REFUSED and r.row["error"] == "NAME_TAKEN"


def test_not_logged_in(system):
    h = Home(system.urls())
    for command in (["chats"], ["friends"], ["send", "abc", "x"], ["listen", "--for", "1"], ["search", "x"]):
        r = h.run(*command)
        assert r.code == NOT_LOGGED_IN, (command, r)
        assert r.rows[-1]["type"] == "error"


def test_home_is_private(homes):
    a, _ = homes
    home = a.dir / "home"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for file in home.rglob("*"):
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file
        if file.is_file():
            assert a.password.encode() not in file.read_bytes(), "the password is kept nowhere"


def test_password_is_not_on_the_command_line(homes):
    """There is no option that takes the password itself."""
    a, _ = homes
    assert "--password " not in a.run("login", "--help", json_lines=False).out.replace("--password-file", "")
    assert a.run("login", a.name, "--password", a.password).code == USAGE


def test_a_second_device_reads_everything(system, homes):
    a, b = homes
    a.ok("send", b.name, "before the second device")
    second = Home(system.url(2), a.name, a.password).login()
    assert texts(second, b.name, "--last", "1") == ["before the second device"]
    second.ok("send", b.name, "from the second")
    assert texts(a, b.name, "--last", "1") == ["from the second"]
    assert len(a.ok("devices").rows) >= 2


def test_logout_and_revoke(system):
    a = stranger(system)
    second = Home(system.urls(), a.name, a.password).login()
    rows = a.ok("devices").rows
    other = next(r["device"] for r in rows if not r["this"])
    a.ok("revoke", other)
    assert second.run("friends").code == NOT_LOGGED_IN
    a.ok("logout")
    assert a.run("friends").code == NOT_LOGGED_IN
    a.login()
    a.ok("friends")


def test_with_the_independent_client(system, homes):
    """What the C client encrypts, a client written from the protocol page decrypts, and the other way round."""
    a, _ = homes
    d = Device("py" + secrets.token_hex(6)).signup(system.url(2))
    d.friend_op("ADD", a.name)
    a.ok("accept", d.name)
    a.ok("send", d.name, "from C ☕")
    assert d.texts(a.name) == ["from C ☕"]
    d.catch_up()
    d.send(a.name, "from Python ☕")
    assert texts(a, d.name) == ["from C ☕", "from Python ☕"]
    d.close()
