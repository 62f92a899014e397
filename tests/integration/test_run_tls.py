# SPDX-License-Identifier: MPL-2.0
"""deploy/run.sh --tls: a certificate of its own, clients who trust it, and what happens to it over time."""

import http.client
import socket
import ssl
import subprocess

import pytest
from cli import Home
from system import eventually
from test_run_sh import LONG, data, port, run  # noqa: F401  fixtures


@pytest.fixture
def secure(data, port):  # noqa: F811
    r = run("--detach", "--no-build", "--tls", "--data", data, "--port", port)
    assert r.returncode == 0, r.stderr
    assert r.stdout.splitlines()[-1] == f"ready https://127.0.0.1:{port}"
    assert f"--ca-file {data}/tls/ca.pem" in r.stdout
    return data, port


def certificate_of(port, data, name="localhost"):  # noqa: F811
    """The certificate an edge shows, checked as a client does."""
    context = ssl.create_default_context(cafile=str(data / "tls/ca.pem"))
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), LONG), server_hostname=name) as s:
        return s.getpeercert(binary_form=True)


def test_chat_over_tls(secure):
    folder, first = secure
    servers = f"wss://127.0.0.1:{first}/ws,wss://localhost:{first + 1}/ws"
    trust = ("--ca-file", folder / "tls/ca.pem")
    a, b = Home(servers), Home(servers)
    for home in (a, b):
        home.ok("signup", home.name, "--password-file", home.password_file, *trust)
    a.ok("add", b.name, *trust), b.ok("accept", a.name, *trust)
    r = a.run(*trust, "send", b.name, "under", "a", "seal")
    assert r.code == 0, r
    assert [m["text"] for m in b.ok("history", a.name, *trust).rows if m["type"] == "message"] == ["under a seal"]
    stranger = Home(servers)
    r = stranger.run("signup", stranger.name, "--password-file", stranger.password_file, "--timeout", "3")
    assert r.code == 3, "without --ca-file nobody is trusted"


def test_names_keys_and_edges(secure):
    folder, first = secure
    for name in ("localhost", "127.0.0.1", "::1"):
        certificate_of(first, folder, name)
    with pytest.raises(ssl.SSLError):
        certificate_of(first, folder, "example.org")
    for name in ("ca.key", "key.pem"):
        assert (folder / "tls" / name).stat().st_mode & 0o777 == 0o600, name
    assert (folder / "tls").stat().st_mode & 0o777 == 0o700
    context = ssl.create_default_context(cafile=str(folder / "tls/ca.pem"))
    for n in (first, first + 1):
        c = http.client.HTTPSConnection("127.0.0.1", n, timeout=LONG, context=context)
        c.request("GET", "/readyz")
        assert c.getresponse().status == 200
        c.close()
    with socket.create_connection(("127.0.0.1", first), LONG) as s:
        s.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            said = s.recv(4096)
        except ConnectionResetError:
            said = b""
        assert b"200" not in said, "no plain text on this port"


def test_kept_and_renewed(secure):
    """The same certificate at the next start; a new one in its last month, of the same authority, without a restart."""
    folder, first = secure
    old, authority = certificate_of(first, folder), (folder / "tls/ca.pem").read_bytes()
    assert run("--stop", "--data", folder).returncode == 0
    assert run("--detach", "--no-build", "--tls", "--data", folder, "--port", first).returncode == 0
    assert certificate_of(first, folder) == old
    tls = folder / "tls"
    subprocess.run(["openssl", "req", "-new", "-key", tls / "key.pem", "-subj", "/CN=localhost", "-out", tls / "r"], check=True)
    subprocess.run(["openssl", "x509", "-req", "-days", "20", "-in", tls / "r", "-CA", tls / "ca.pem", "-CAkey", tls / "ca.key",
                    "-set_serial", "7", "-out", tls / "cert.pem"], check=True, capture_output=True)
    r = run("--restart-rolling", "--no-build", "--data", folder)
    assert r.returncode == 0, r.stdout + r.stderr
    eventually(lambda: certificate_of(first, folder) != old, LONG)
    left = subprocess.run(["openssl", "x509", "-checkend", str(300 * 86400), "-noout", "-in", tls / "cert.pem"],
                          capture_output=True)
    assert left.returncode == 0, "a year again"
    assert (tls / "ca.pem").read_bytes() == authority


def test_a_certificate_that_cannot_be_made(data, port):  # noqa: F811
    (data / "tls").write_text("in the way")
    r = run("--detach", "--no-build", "--tls", "--data", data, "--port", port)
    assert r.returncode != 0 and "tls" in r.stderr
    (data / "tls").unlink()
    assert run("--detach", "--no-build", "--tls", "--data", data, "--port", port).returncode == 0
