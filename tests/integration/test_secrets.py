# SPDX-License-Identifier: MPL-2.0
"""Nothing secret in a log, on a command line, in an environment, or in the files of a service that has no business with it."""

import base64
import pathlib
import secrets

import pytest
from chasqui import Device, Refused, befriend

SYSTEM = {role: ["--log-level", "debug"] for role in ("broker", "store", "blobd", "presence", "edge")}


@pytest.fixture(scope="module")
def conversation(system):
    """Everything that touches secrets once: sign-up, wrong password, log-in, resume, message, keys, bad token."""
    password, text = "pw-" + secrets.token_hex(16), "text-" + secrets.token_hex(16)
    x = Device("u" + secrets.token_hex(5), password).signup(system.url(1))
    y = system.person(2)
    befriend(x, y)
    x.send(y, text)
    y.receive(x)
    wrong = Device(x.name, "wrong-" + secrets.token_hex(16)).connect(system.url(1))
    with pytest.raises(Refused):
        wrong.auth("LOGIN")
    x.resume(system.url(2))
    x.login(system.url(1))
    with pytest.raises(Refused):
        Device("UPPER", password).connect(system.url(1)).auth("SIGNUP")
    key = x.keys[x.chat(y)][1]
    master = (system.dir / "keys/master.key").read_bytes().strip()
    found = {"password": password.encode(), "text": text.encode(), "token": x.token, "chat key": key, "master key": master,
             "wrong password": wrong.password.encode()}
    for d in (x, y, wrong):
        d.close()
    return found


def forms(secret):
    """A secret as it is, in hex and in base64."""
    middle = base64.b64encode(secret)[4:-6]
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), middle]


def test_logs(system, conversation):
    for service in system.services.values():
        log = service.log_bytes()
        for what, secret in conversation.items():
            for form in forms(secret):
                assert form not in log, f"{what} in the log of {service.name}"
    assert b"level=debug" in system.edge(1).log_bytes(), "the test must see all there is"


def test_command_lines_and_environments(system, conversation):
    for service in system.services.values():
        for file in ("cmdline", "environ"):
            data = pathlib.Path(f"/proc/{service.pid}/{file}").read_bytes()
            for what, secret in conversation.items():
                for form in forms(secret):
                    assert form not in data, f"{what} in {file} of {service.name}"


def test_disk(system, conversation):
    """At rest there is ciphertext, a password hash and wrapped keys; in Redis none of it at all."""
    system.redis_client().execute_command("BGREWRITEAOF")
    for folder in ("store", "redis"):
        for file in (system.dir / folder).rglob("*"):
            if not file.is_file():
                continue
            data = file.read_bytes()
            for what, secret in conversation.items():
                for form in forms(secret):
                    assert form not in data, f"{what} in {file.name}"


def test_sockets_and_folders_are_private(system):
    import stat

    for path in (system.dir / "run/broker.sock", system.redis_socket):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_admin_and_metrics_hold_no_secrets(system, conversation):
    for n in (1, 2):
        for path in ("/healthz", "/readyz", "/metrics", "/"):
            body = system.http(n, path)[1]
            for what, secret in conversation.items():
                assert secret not in body, f"{what} in {path}"
