# SPDX-License-Identifier: MPL-2.0
"""The terminal client over wss://: certificates are verified, by name too, unless one says otherwise in so many words."""

import os
import re
import subprocess

import pytest
from cli import Home
from system import BIN, Service, System


def certificate(folder, name, *names):
    """A self-signed pair for these names: (certificate, key)."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", key,
                    "-out", cert, "-days", "2", "-subj", "/CN=chasqui test", "-addext", "subjectAltName=" + ",".join(names)],
                   check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    s = System(edges=1).start()
    s.cert, s.key = certificate(folder, "good", "DNS:localhost", "IP:127.0.0.1")
    s.other, s.other_key = certificate(folder, "other", "DNS:elsewhere.example")
    for name, cert, key in (("tls.1", s.cert, s.key), ("tls.2", s.other, s.other_key)):
        s.services[name] = Service(s, name, [BIN / "chasqui-edge", "--name", name, "--broker", s.broker_endpoint, "--listen-port", 0,
                                             "--tls-certificate", cert, "--tls-key", key]).start()
        s.services[name].wait_log("id=EDGE-LISTEN ")
        s.services[name].wait_log("id=EDGE-STORE-INIT")
        s.services[name].wait_log("id=EDGE-PRESENCE-ANNOUNCED")
        s.services[name].port = int(re.search(rb"tls=yes port=(\d+)", s.services[name].log_bytes()).group(1))
    yield s
    s.stop()


def home(tls, host="localhost", edge="tls.1"):
    return Home(f"wss://{host}:{tls.services[edge].port}/ws")


def signup(h, *options, **kw):
    return h.run("signup", h.name, "--password-file", h.password_file, "--timeout", 5, *options, **kw)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_trusted_certificate(tls, host):
    ann, bob = home(tls, host), home(tls, host)
    for h in (ann, bob):
        r = signup(h, "--ca-file", tls.cert)
        assert r.code == 0, r
    for h, *command in ((ann, "add", bob.name), (bob, "accept", ann.name), (ann, "send", bob.name, "hello")):
        r = h.run(command[0], "--ca-file", tls.cert, *command[1:])
        assert r.code == 0, r
    r = bob.run("history", ann.name, env={**os.environ, "SSL_CERT_FILE": str(tls.cert)})
    assert r.code == 0 and r.rows[-1]["text"] == "hello", r


def test_an_unknown_certificate(tls):
    r = signup(home(tls))
    assert r.code == 3 and r.row["error"] == "UNTRUSTED" and "--ca-file" in r.row["message"], r


def test_an_unknown_certificate_is_not_waited_for(tls):
    """Not for ten minutes, not by a message and not by a file; both stay in the outbox."""
    ann, bob = home(tls), home(tls)
    for h in (ann, bob):
        assert signup(h, "--ca-file", tls.cert).code == 0
    ann.ok("add", "--ca-file", tls.cert, bob.name), bob.ok("accept", "--ca-file", tls.cert, ann.name)
    ann.ok("chats", "--ca-file", tls.cert)
    for command in (("send", "--timeout", 600, bob.name, "hi"), ("send-file", "--timeout", 600, bob.name, tls.cert)):
        r = ann.run(*command, timeout=300)
        assert r.code == 3 and "certificate" in r.row["message"] and "outbox" in r.row["message"], r
    assert len(ann.ok("outbox").rows) == 2
    ann.ok("send-file", "--ca-file", tls.cert, bob.name, tls.cert)
    bob.ok("history", "--ca-file", tls.cert, ann.name)
    r = bob.run("get", "--timeout", 600, ann.name, 2, "--out", bob.dir / "got", timeout=300)
    assert r.code == 3 and r.row["error"] == "UNTRUSTED" and not (bob.dir / "got").exists(), r


def test_a_certificate_for_another_name(tls):
    r = signup(home(tls, edge="tls.2"), "--ca-file", tls.other)
    assert r.code == 3 and "certificate" in r.out + r.err, r


def test_no_verification_in_so_many_words(tls):
    for edge in ("tls.1", "tls.2"):
        r = signup(home(tls, edge=edge), "--accept-any-certificate")
        assert r.code == 0, r


def test_authorities_that_are_not_there(tls):
    r = signup(home(tls), "--ca-file", "/no/such/file")
    assert r.code == 2 and "--ca-file" in r.out + r.err, r


def test_plain_text_to_a_tls_port_and_back(tls):
    for url, hint in ((f"ws://localhost:{tls.services['tls.1'].port}/ws", "perhaps wss://"),
                      (f"wss://localhost:{tls.port}/ws", "perhaps ws://")):  # fmt: skip
        r = signup(Home(url), "--ca-file", tls.cert)
        assert r.code == 3 and hint in r.row["message"], r
