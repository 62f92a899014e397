# SPDX-License-Identifier: MPL-2.0
"""Debian's HAProxy, really running, with the configurations of deploy/: TLS passed through to the edges, and ended before
them. Two edges behind it: balance, addresses, an edge that dies, hangs, closes."""

import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess

import pytest
from chasqui import Closed, Device, Refused
from system import BIN, Service, System, eventually, free_ports
from test_tls import certificate
from websocket import WebSocketException

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
LONG = 60
PER_ADDRESS = 12
BALANCER = "127.0.0.9"  # where HAProxy connects from; the edges believe nobody else


class Front:
    """A system whose people come through HAProxy."""

    def __init__(self, kind, folder):
        self.kind = kind
        self.system = System(edges=1).start()
        self.cert, self.key = certificate(folder, kind, "DNS:localhost", "IP:127.0.0.1")
        self.pem = folder / "both.pem"
        self.pem.write_text(self.cert.read_text() + self.key.read_text())
        self.first = free_ports(3)
        self.port = self.first + 2
        self.edges = [self._edge(n, kind) for n in (0, 1)]
        self.environment = {
            **os.environ, "CHASQUI_BIND": f"127.0.0.1:{self.port}", "CHASQUI_EDGE_1": f"127.0.0.1:{self.first}",
            "CHASQUI_EDGE_2": f"127.0.0.1:{self.first + 1}", "CHASQUI_SOURCE": BALANCER, "CHASQUI_MAXCONN": "2000",
            "CHASQUI_PEM": str(self.pem)}
        self.config = DEPLOY / ("haproxy.cfg" if kind == "passed" else "haproxy-tls.cfg")
        self.log = self.system.dir / "log/haproxy.log"
        with open(self.log, "wb") as log:
            self.haproxy = subprocess.Popen([shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", self.config],
                                            env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_up(0), self.wait_up(1)

    def _edge(self, n, kind):
        name = f"front.{n + 1}"
        command = [BIN / "chasqui-edge", "--name", name, "--broker", self.system.broker_endpoint, "--listen-port", self.first + n,
                   "--proxy-from", BALANCER, "--drain-notice-ms", 3000, "--log-level", "debug",
                   "--address-connections-max", PER_ADDRESS]
        if kind == "passed":
            command += ["--tls-certificate", self.cert, "--tls-key", self.key]
        edge = Service(self.system, name, command).start()
        self.system.services[name] = edge
        return edge

    def said(self):
        return self.log.read_text()

    def wait_state(self, n, state, after=0):
        text = f"Server edges/edge.{n + 1} is {state}"
        eventually(lambda: text in self.said()[after:] or self.haproxy.poll() is not None, LONG, text)
        assert self.haproxy.poll() is None, self.said()

    def wait_up(self, n):
        """Until HAProxy's view and the edge's agree that it can serve."""
        def is_there():
            return any(d.welcomed.edge == f"front.{n + 1}" for d in map(lambda _: self.try_person(), range(3)) if d)
        eventually(is_there, LONG, f"somebody is given to front.{n + 1}")

    def connect(self, device, address="127.0.0.1"):
        context = ssl.create_default_context(cafile=str(self.cert))
        plain = socket.create_connection(("127.0.0.1", self.port), LONG, source_address=(address, 0))
        try:
            secure = context.wrap_socket(plain, server_hostname="localhost")
            return device.connect(f"wss://localhost:{self.port}/ws", socket=secure)
        except BaseException:
            plain.close()
            raise

    def person(self, address="127.0.0.1"):
        return self.connect(Device("h" + secrets.token_hex(6)), address).signup()

    def try_person(self):
        try:
            d = self.person()
            d.close()
            return d
        except (OSError, Closed, Refused, WebSocketException):
            return None

    def resume(self, device):
        """As a client does it: again until it works."""
        def once():
            try:
                self.connect(device).resume()
                return True
            except (OSError, Closed, Refused, WebSocketException, TimeoutError):
                return False

        eventually(once, LONG, "back through HAProxy")

    def heal(self):
        for n, edge in enumerate(self.edges):
            if edge.is_alive():
                edge.thaw()
            else:
                edge.start()
            self.wait_up(n)

    def end(self):
        self.haproxy.send_signal(signal.SIGTERM)
        self.haproxy.wait(LONG)
        for edge in self.edges:
            if edge.is_alive():
                edge.kill()  # a closing edge waits for its notice
        self.system.check_logs()
        self.system.stop()


@pytest.fixture(scope="module", params=["passed", "ended"])
def front(request, tmp_path_factory):
    f = Front(request.param, tmp_path_factory.mktemp("haproxy"))
    yield f
    f.end()


@pytest.fixture(autouse=True)
def healed(front):
    yield
    front.heal()


def names(people):
    return [d.welcomed.edge for d in people]


def close(people):
    for d in people:
        d.close()


def test_the_configuration_is_accepted(front):
    r = subprocess.run([shutil.which("haproxy") or "/usr/sbin/haproxy", "-c", "-f", front.config], env=front.environment,
                       capture_output=True, text=True)
    assert r.returncode == 0 and "WARNING" not in r.stdout + r.stderr, r.stdout + r.stderr


def test_balance(front):
    """The one with the fewest: not turn by turn, when all of one have left. Connections of tests before may count for some
    seconds yet."""
    def is_to_the_fewest():
        people = [front.person() for _ in range(8)]
        stay = [d for d in people if d.welcomed.edge == "front.2"]
        close(d for d in people if d not in stay)
        more = [front.person() for _ in range(3)]
        close([*stay, *more])
        return 3 <= len(stay) <= 5 and names(more) == ["front.1"] * 3

    eventually(is_to_the_fewest, LONG, "an even share, then all to the one that has none")


def test_addresses_are_the_clients(front):
    people = [front.person("127.0.0.33") for _ in range(2)]
    logs = b"".join(e.log_bytes() for e in front.edges)
    assert re.search(rb"from=127\.0\.0\.33\b|address=127\.0\.0\.33\b", logs)
    close(people)


def test_limits_are_by_the_clients_address(front):
    people = []
    try:
        with pytest.raises((OSError, Closed, WebSocketException)):
            for _ in range(2 * PER_ADDRESS + 1):
                people.append(front.connect(Device("x"), "127.0.0.44"))
        assert len(people) >= PER_ADDRESS
        people.append(front.person("127.0.0.45"))
    finally:
        close(people)


def ready_past_haproxy(front, source, said_first=b""):
    """What an edge answers to /readyz: its status line, or nothing."""
    s = socket.create_connection(("127.0.0.1", front.first), LONG, source_address=(source, 0))
    try:
        s.sendall(said_first)
        if front.kind == "passed":
            s = ssl.create_default_context(cafile=str(front.cert)).wrap_socket(s, server_hostname="localhost")
        s.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        return s.recv(4096).split(b"\r\n")[0]
    except (ConnectionError, ssl.SSLError):
        return b""
    finally:
        s.close()


def test_nobody_else_is_believed(front):
    header = b"PROXY TCP4 10.1.2.3 10.1.2.4 1 2\r\n"
    assert b" 200 " in ready_past_haproxy(front, BALANCER, header)
    assert b" 200 " in ready_past_haproxy(front, "127.0.0.1")
    assert b" 200 " not in ready_past_haproxy(front, "127.0.0.1", header)
    assert b" 200 " not in ready_past_haproxy(front, BALANCER)


def test_an_edge_that_is_killed(front):
    x, y = front.person(), front.person()
    while {x.welcomed.edge, y.welcomed.edge} != {"front.1", "front.2"}:
        y.close()
        y = front.person()
    x.friend_op("ADD", y.name), y.friend_op("ACCEPT", x.name)
    lost, stays = (x, y) if x.welcomed.edge == "front.1" else (y, x)
    x.send(y, "before")
    front.edges[0].kill()
    front.resume(lost)
    assert lost.welcomed.edge == "front.2"
    assert x.send(y, "after") == 2
    y.catch_up()
    assert y.texts(x) == ["before", "after"] and not stays.link.is_closed
    close([x, y])


def test_an_edge_that_hangs(front):
    before = len(front.said())
    front.edges[0].freeze()
    front.wait_state(0, "DOWN", before)
    people = [front.person() for _ in range(4)]
    assert names(people) == ["front.2"] * 4
    close(people)


def test_an_edge_that_closes(front):
    """Nobody new, while those who are there are served; then they are sent away, and come back to the other."""
    old = front.person()
    while old.welcomed.edge != "front.1":
        old.close()
        old = front.person()
    before = len(front.said())
    front.edges[0].signal(signal.SIGTERM)
    front.wait_state(0, "DOWN", before)
    assert old.ask("FRIENDS") and not old.link.has_push("GOAWAY"), "still served"
    people = [front.person() for _ in range(4)]
    assert names(people) == ["front.2"] * 4
    old.link.push("GOAWAY", timeout=LONG)
    assert old.link.closed(LONG) == 1001
    front.resume(old)
    assert old.welcomed.edge == "front.2"
    eventually(lambda: not front.edges[0].is_alive(), LONG)
    assert front.edges[0].process.returncode == 0
    close([*people, old])
