# SPDX-License-Identifier: MPL-2.0
"""What is around the WebSocket: TLS with certificates that change, PROXY headers, addresses, file descriptors, time."""

import os
import pathlib
import resource
import signal
import socket
import ssl
import struct
import subprocess
import time

import pytest
from edge_stand import *  # noqa: F403

V2 = b"\r\n\r\n\0\r\nQUIT\n"


@pytest.fixture
def world():
    w = World()
    yield w
    w.end()


def certificate(folder, name="edge", cn="localhost", key="ec"):
    """Makes a self-signed pair; returns (certificate, key)."""
    cert, keyfile = folder / f"{name}.pem", folder / f"{name}.key"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"] if key == "ec" else ["-newkey", "rsa:2048"]
    subprocess.run(["openssl", "req", "-x509", "-nodes", *kind, "-keyout", keyfile, "-out", cert, "-days", "2", "-subj", f"/CN={cn}",
                    "-addext", f"subjectAltName=DNS:{cn},IP:127.0.0.1"], check=True, capture_output=True)
    return cert, keyfile


def tls_context(*cas, **kw):
    ctx = ssl.create_default_context()
    for ca in cas:
        ctx.load_verify_locations(ca)
    for k, v in kw.items():
        setattr(ctx, k, v)
    return ctx


class Secure(Raw):
    """A raw WebSocket over TLS."""

    def __init__(self, port, ctx, name="localhost", **kw):
        plain = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
        wrapped = ctx.wrap_socket(plain, server_hostname=name)
        real = socket.socket
        try:
            socket.socket = lambda *a: Given(wrapped)
            super().__init__(port, **kw)
        finally:
            socket.socket = real


class Given:
    """A socket that is connected already."""

    def __init__(self, s):
        self.s = s

    def connect(self, address):
        pass

    def __getattr__(self, name):
        return getattr(self.s, name)


# ---- TLS ----


@pytest.fixture
def secure(world, tmp_path):
    world.cert, world.key = certificate(tmp_path)
    world.e = world.edge(ready=False, tls_certificate=world.cert, tls_key=world.key, tls_check_interval_ms=60000)
    world.port = world.e.port
    return world


def get(port, ctx, path="/healthz", name="localhost"):
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as s, ctx.wrap_socket(s, server_hostname=name) as t:
        t.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while part := t.recv(65536):
            data += part
        return data


def serial(port, cert):
    """The serial number of the certificate that is shown."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as s, \
            tls_context(cert, check_hostname=False, verify_mode=ssl.CERT_NONE).wrap_socket(s) as t:  # fmt: skip
        der = t.getpeercert(binary_form=True)
    return ssl.DER_cert_to_PEM_cert(der)


def test_wss_and_https_on_one_port(secure):
    ctx = tls_context(secure.cert)
    assert get(secure.port, ctx).endswith(b"\r\n\r\nok\n")
    until(lambda: b'"ready":true' in get(secure.port, ctx, "/readyz"), "ready")
    c = Secure(secure.port, ctx)
    assert c.status == 101
    device = b"d" * 16
    assert c.ask(LOGIN, "ana", "password", device, b"k" * 32, "")[0] == 0
    big = b"x" * 60000
    secure.stand.on_call = lambda u, d, op, f: [0, 5, False, [b"y" * 900000]]
    for i in range(5):
        c.send([HISTORY, i + 1, b"c" * 16, 1, 2, big])
    for i in range(5):
        assert c.answer(i + 1)[4] == [b"y" * 900000]
    for byte in c.frame(msgpack.packb([[PING, 77]])):
        c.send_raw(bytes([byte]))
    assert c.answer(77)[0] == OK
    c.send_raw(c.frame(struct.pack(">H", 1000), CLOSE))
    assert c.closed() == 1000
    c.close()


def test_broken_frames_over_tls(secure):
    for data, code in ((b"\x82\x00", 1002), (b"\xc2\x80", 1002), (b"\x81\x80\0\0\0\0", 1003)):
        c = Secure(secure.port, tls_context(secure.cert))
        c.send_raw(data)
        assert c.closed() == code
        c.close()


def test_large_messages_pipelined_over_tls(secure):
    """Records that end within frames, frames that end within records, many to one read."""
    c = Secure(secure.port, tls_context(secure.cert))
    c.send_raw(b"".join(c.frame(msgpack.packb([[PING, i + 1, b"x" * (i * 37 % 30000)]])) for i in range(200)))
    for i in range(200):
        assert c.answer(i + 1)[0] == OK
    c.close()


def test_old_tls_and_weak_ciphers_are_refused(secure):
    for kw in (dict(maximum_version=ssl.TLSVersion.TLSv1_1, minimum_version=ssl.TLSVersion.TLSv1),):
        ctx = tls_context(secure.cert, **kw)
        ctx.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(secure.port, ctx)
    ctx = tls_context(secure.cert, maximum_version=ssl.TLSVersion.TLSv1_2)
    ctx.set_ciphers("AES128-SHA:AES256-SHA256:AES128-GCM-SHA256")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get(secure.port, ctx)
    ctx = tls_context(secure.cert, maximum_version=ssl.TLSVersion.TLSv1_2)
    assert get(secure.port, ctx).endswith(b"ok\n")
    ctx = tls_context(secure.cert)
    ctx.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", secure.port), timeout=WAIT) as s, ctx.wrap_socket(s, server_hostname="localhost") as t:
        assert t.version() == "TLSv1.3" and t.selected_alpn_protocol() == "http/1.1"


def test_plain_text_on_the_tls_port(secure):
    with socket.create_connection(("127.0.0.1", secure.port), timeout=WAIT) as s:
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        got = b""
        try:
            while part := s.recv(4096):
                got += part
        except ConnectionError:
            pass
    assert b"200" not in got
    assert get(secure.port, tls_context(secure.cert)).endswith(b"ok\n")


def test_certificate_that_changes(secure, tmp_path):
    """New connections get the new one, old ones live on; a broken pair is refused and the old one kept."""
    old_ctx = tls_context(secure.cert)
    c = Secure(secure.port, old_ctx)
    first = serial(secure.port, secure.cert)
    certificate(tmp_path, "edge")  # the same files, another pair
    second = (secure.cert).read_text()
    assert serial(secure.port, secure.cert) == first
    secure.e.send_signal(signal.SIGHUP)
    until(lambda: serial(secure.port, secure.cert).split() == second.split(), "the new certificate")
    assert c.ask(PING)[0] == 0
    d = Secure(secure.port, tls_context(secure.cert))
    assert d.ask(PING)[0] == 0
    other = certificate(tmp_path, "other")
    for broken in (lambda: secure.key.write_bytes(other[1].read_bytes()), lambda: secure.cert.write_text("no certificate"),
                   lambda: secure.key.unlink()):  # fmt: skip
        broken()
        count = secure.e.log.read_text().count("id=EDGE-TLS-LOAD-FAIL")
        secure.e.send_signal(signal.SIGHUP)
        until(lambda count=count: secure.e.log.read_text().count("id=EDGE-TLS-LOAD-FAIL") > count, "a log line")
        assert serial(secure.port, other[0]).split() == second.split()
    assert c.ask(PING)[0] == 0 and d.ask(PING)[0] == 0
    for x in (c, d):
        x.close()


def test_certificate_files_are_watched(world, tmp_path):
    cert, key = certificate(tmp_path)
    e = world.edge(ready=False, tls_certificate=cert, tls_key=key, tls_check_interval_ms=50)
    first = serial(e.port, cert)
    certificate(tmp_path)
    until(lambda: serial(e.port, cert) != first, "the new certificate")


def test_resumed_tls(secure):
    """A ticket spares the handshake, also across a new certificate."""
    ctx = tls_context(secure.cert, check_hostname=False, verify_mode=ssl.CERT_NONE)

    def once(session):
        with socket.create_connection(("127.0.0.1", secure.port), timeout=WAIT) as s, ctx.wrap_socket(s, session=session) as t:
            t.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while t.recv(4096):
                pass
            return t.session, t.session_reused

    session, reused = once(None)
    assert not reused
    session, reused = once(session)
    assert reused
    secure.e.send_signal(signal.SIGHUP)
    until(lambda: "id=EDGE-TLS-RELOAD " in secure.e.log.read_text(), "reload")
    assert once(session)[1]


def test_plain_text_only_where_nobody_else_reaches_it(world):
    for options, word in ((("--listen-address", "0.0.0.0"), "plain-text-anywhere"), (("--listen-address", "::"), "plain-text-anywhere"),
                          (("--tls-certificate", "/no/such"), "one needs the other"), (("--proxy-from", "here"), "proxy-from"),
                          (("--tls-certificate", "/no/such", "--tls-key", "/no/such"), "EDGE-TLS-FAIL")):  # fmt: skip
        p = world.spawn("chasqui-edge", "bad", "--broker", world.endpoint, "--listen-port", "0", *options)
        world.processes.remove(p)
        assert p.wait(WAIT) != 0
        assert word in (world.dir / "bad.log").read_text()
    (world.dir / "bad.log").unlink()
    world.logs = [x for x in world.logs if x.name != "bad.log"]
    e = world.edge(listen_address="0.0.0.0", plain_text_anywhere="true")
    assert http(e.port, "/healthz")[0] == 200


# ---- PROXY ----


def v2(address="192.0.2.7", command=0x21, tlvs=b""):
    if ":" in address:
        body = socket.inet_pton(socket.AF_INET6, address) * 2 + struct.pack(">HH", 1000, 80) + tlvs
        return V2 + bytes([command, 0x21]) + struct.pack(">H", len(body)) + body
    body = socket.inet_aton(address) + socket.inet_aton("10.0.0.1") + struct.pack(">HH", 1000, 80) + tlvs
    return V2 + bytes([command, 0x11]) + struct.pack(">H", len(body)) + body


def proxied(port, header, source="127.0.0.1", **kw):
    """A raw WebSocket behind a PROXY header."""
    s = socket.socket()
    s.settimeout(WAIT)
    s.bind((source, 0))
    s.connect(("127.0.0.1", port))
    s.sendall(header)
    real = socket.socket
    try:
        socket.socket = lambda *a: Given(s)
        return Raw(port, **kw)
    finally:
        socket.socket = real


@pytest.mark.parametrize("header, seen", [
    (v2(), "192.0.2.7"), (v2("2001:db8::5"), "2001:db8::5"), (v2(tlvs=b"\x03\x00\x04abcd"), "192.0.2.7"),
    (b"PROXY TCP4 192.0.2.9 10.0.0.1 1000 80\r\n", "192.0.2.9"), (b"PROXY TCP6 2001:db8::9 ::1 1000 80\r\n", "2001:db8::9"),
    (b"PROXY UNKNOWN\r\n", "127.0.0.1"), (v2(command=0x20), "127.0.0.1"),
])  # fmt: skip
def test_proxy_header_tells_the_client(world, header, seen):
    e = world.edge(ready=False, proxy_from="127.0.0.1, fd00::/8")
    c = proxied(e.port, header)
    assert c.status == 101 and c.ask(PING)[0] == 0
    assert f"from={seen}\n" in e.log.read_text()
    c.close()


def test_proxy_headers_from_others_and_missing_ones(world):
    e = world.edge(ready=False, proxy_from="127.0.0.9", handshake_timeout_ms=1000)
    assert proxied(e.port, v2()).status in (0, 400)
    assert proxied(e.port, b"PROXY TCP4 192.0.2.9 10.0.0.1 1000 80\r\n").status in (0, 400)
    assert Raw(e.port).status == 101
    for header in (b"", b"GET / HTTP/1.1\r\n", V2 + b"\x21\x11\x00\x05", V2 + b"\x31\x11\x00\x0c" + b"x" * 12, b"PROXY TCP4 a b c d\r\n"):
        c = proxied(e.port, header, "127.0.0.9", shake=False)
        c.send_raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert c.read_until(b"\0") == b""
        c.close()
    assert e.log.read_text().count("id=EDGE-PROXY-REFUSED") >= 4
    half = [proxied(e.port, part, "127.0.0.9", shake=False) for part in (b"PROXY TCP4 1", V2, v2()[:-1], v2())]
    start = time.monotonic()
    for c in half:
        assert c.read_until(b"\0") == b""
        c.close()
    assert time.monotonic() - start < 5
    assert proxied(e.port, v2(), "127.0.0.9").status == 101


def test_half_a_proxy_header_costs_no_cpu(world):
    e = world.edge(ready=False, proxy_from="127.0.0.1")
    c = proxied(e.port, v2()[:20], shake=False)
    ticks = lambda: sum(map(int, pathlib.Path(f"/proc/{e.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))  # noqa: E731
    before = ticks()
    time.sleep(1)
    assert ticks() - before < 20, "waiting for the rest must not spin"
    c.send_raw(v2()[20:] + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert c.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200")
    c.close()


def test_limits_count_the_client_behind_the_proxy(world):
    e = world.edge(ready=False, proxy_from="127.0.0.1", limit_accept_per_s=1, limit_accept_burst=3)
    codes = [proxied(e.port, v2("192.0.2.1"), shake=False) for _ in range(5)]
    for c in codes:
        c.send_raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert [bool(c.read_until(b"\r\n\r\n")) for c in codes] == [True] * 3 + [False] * 2
    assert proxied(e.port, v2("192.0.2.2")).status == 101


def test_proxy_header_before_tls(world, tmp_path):
    cert, key = certificate(tmp_path)
    e = world.edge(ready=False, tls_certificate=cert, tls_key=key, proxy_from="127.0.0.1")
    s = socket.create_connection(("127.0.0.1", e.port), timeout=WAIT)
    s.sendall(v2("192.0.2.44"))
    with tls_context(cert).wrap_socket(s, server_hostname="localhost") as t:
        t.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert t.recv(4096).startswith(b"HTTP/1.1 200")


# ---- addresses, descriptors, time ----


def test_connections_of_one_address(world):
    e = world.edge(address_connections_max=5)
    mine = [Raw(e.port) for _ in range(5)]
    assert all(c.status == 101 for c in mine)
    sixth = Raw(e.port)
    assert sixth.status == 429 and "retry-after: " in sixth.head
    sixth.close()
    other = proxied(e.port, b"", "127.0.0.2")
    assert other.status == 101
    mine.pop().close()
    until(lambda: Raw(e.port).status == 101, "room again")
    flood = [Raw(e.port, shake=False) for _ in range(60)]
    until(lambda: metric(e.port, world, "connections") < 45, "beyond the slack they are dropped")
    assert all(c.ask(PING)[0] == 0 for c in mine)
    for c in mine + flood + [other]:
        c.close()


def test_half_handshakes_take_nobodys_place(world):
    """However many say nothing, or half of it: the oldest of these makes room, and whoever is in stays."""
    e = world.edge(handshakes_max=16, session_max=20)
    known = [person(e.port, f"p{i}") for i in range(10)]
    flood = [Raw(e.port, shake=False) for _ in range(500)]
    for c in flood[::2]:
        c.send_raw(b"GET /ws HTTP/1.1\r\nHost: x\r\nX: ")
    until(lambda: metric(e.port, world, "crowded_out_total") == 484, "the oldest have gone")
    assert metric(e.port, world, "waiting") == 16
    assert flood[0].closed() is None and flood[483].closed() is None
    flood[484].send_raw(b"y\r\n\r\n")
    assert b" 426 " in flood[484].read_until(b"\r\n\r\n")
    late = person(e.port, "late")
    assert late.ask(PING)[0] == 0 and all(c.ask(PING)[0] == 0 for c in known)
    for c in [late, *known, *flood]:
        c.close()
    until(lambda: metric(e.port, world, "waiting") == 0, "all gone")


def metric(port, world, name):
    text = []
    world.stand.do(lambda: text.append(world.stand.store.request("edge.1", 0x0B)))
    line = [x for x in text[0][1].splitlines() if x.startswith(f"chasqui_edge_{name}{{")]
    return int(line[0].split()[-1])


def test_file_descriptors_run_out(world):
    """New connections are told why before it happens; those that are there go on, and so does everything else."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    log = world.dir / "edge.1.log"
    world.logs.append(log)
    with open(log, "ab") as out:
        e = subprocess.Popen([str(BIN / "chasqui-edge"), "--broker", world.endpoint, "--listen-port", "0", "--session-max", "100000"],
                             stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 160)))
    world.processes.append(e)
    line = until(lambda: [x for x in log.read_text().splitlines() if "id=EDGE-LISTEN " in x], "it listens")
    assert "id=EDGE-DESCRIPTORS-FEW" in log.read_text()
    port = int(line[-1].rsplit("port=", 1)[1])
    until(lambda: http(port, "/readyz")[0] == 200, "ready")
    held, refused = [], []
    for _ in range(200):
        c = Raw(port)
        (held if c.status == 101 else refused).append(c)
    assert 40 < len(held) < 110
    reasons = {c.status for c in refused}
    assert 503 in reasons and reasons <= {503, 0}
    assert all(c.ask(PING)[0] == 0 for c in held)
    for c in refused:
        c.close()
    until(lambda: http(port, "/readyz")[0] == 503, "not ready")
    until(lambda: metric(port, world, "descriptors_free") == 0, "the gauge")
    assert metric(port, world, "refused_fds_total") >= len(refused)
    for c in held[:20]:
        c.close()
    until(lambda: http(port, "/readyz")[0] == 200, "ready again")
    assert Raw(port).status == 101
    for c in held:
        c.close()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limit


def test_session_max(world):
    e = world.edge(session_max=3)
    mine = [Raw(e.port) for _ in range(3)]
    fourth = Raw(e.port)
    assert fourth.status == 503
    assert b"full" in http(e.port, "/readyz")[1]
    for c in mine + [fourth]:
        c.close()
    until(lambda: http(e.port, "/readyz")[0] == 200, "ready again")


def test_bodies_are_answered_without_being_read(world):
    e = world.edge(handshake_timeout_ms=1000)
    for head in (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n",
                 b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"):
        c = Raw(e.port, shake=False)
        c.send_raw(head + b"x" * 1000)
        assert b"connection: close" in c.read_until(b"\r\n\r\n").lower()
        start = time.monotonic()
        c.s.settimeout(0.1)
        while time.monotonic() - start < 8:
            try:
                c.s.sendall(b"x")
                time.sleep(0.05)
            except ConnectionError:
                break
        assert time.monotonic() - start < 6, "a body that never ends must not hold the connection"
        c.close()


def test_keep_alive(world):
    e = world.edge(handshake_timeout_ms=1000)
    c = Raw(e.port, shake=False)
    for path, status in (("/healthz", b"200"), ("/no", b"404"), ("/readyz", b"200")):
        c.send_raw(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = c.read_until(b"\r\n\r\n")
        assert head.split()[1] == status
        c.need(int(head.lower().split(b"content-length:")[1].split()[0]))
    c.send_raw(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert c.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200")
    start = time.monotonic()
    assert c.read_until(b"\0") == b""
    assert time.monotonic() - start < 5, "an idle one ends"
    c.close()


assert os and DOWN and UP and BIN
