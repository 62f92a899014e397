# SPDX-License-Identifier: MPL-2.0
"""Real services on free ports in a folder of their own: started, killed, frozen and looked at by the integration tests."""

import http.client
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from chasqui import WAIT, Device

BIN = pathlib.Path(os.environ.get("CHASQUI_BIN", pathlib.Path(__file__).resolve().parents[2] / "build/release/bin"))
# What must never be in a log, whatever a test does.
BAD_IN_LOGS = re.compile(rb"Sanitizer|runtime error:|assertion failed|Assertion .* failed|id=[A-Z-]*BUG\b|SUMMARY: ")


def free_ports(n):
    """n neighbouring ports that nothing listens on, out of the range that the kernel hands out by itself."""
    for _ in range(200):
        first = 10000 + secrets.randbelow(20000)
        try:
            for port in range(first, first + n):
                with socket.socket() as s:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    s.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
    raise RuntimeError("no free ports")


def eventually(condition, timeout=None, what="the condition"):
    """Polls what cannot be waited for otherwise (another process) until it holds, and returns its value."""
    deadline = time.monotonic() + (WAIT if timeout is None else timeout)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come true")
        time.sleep(0.02)


class Service:
    def __init__(self, system, name, command):
        self.system, self.name, self.command = system, name, [str(c) for c in command]
        self.log = system.dir / "log" / f"{name}.log"
        self.process = None
        self.environment = None  # as ours
        self.checked = 0  # bytes of the log
        self.start_at = 0  # where in the log this run begins

    def start(self):
        assert not self.is_alive(), f"{self.name} runs already"
        self.start_at = len(self.log_bytes())
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.system.dir,
                env=self.environment)
        return self

    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self):
        return self.process.pid

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait(WAIT)

    def freeze(self):
        self.signal(signal.SIGSTOP)

    def thaw(self):
        self.signal(signal.SIGCONT)

    def stop(self):
        """A clean end; its exit code must be 0."""
        if self.is_alive():
            self.thaw()
            self.signal(signal.SIGTERM)
            try:
                code = self.process.wait(WAIT * 2)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} did not stop") from None
            assert code == 0, f"{self.name} ended with {code}:\n{self.tail()}"

    def restart(self):
        if self.is_alive():
            self.kill()
        return self.start()

    def log_bytes(self):
        return self.log.read_bytes() if self.log.exists() else b""

    def tail(self, n=4000):
        return self.log_bytes()[-n:].decode(errors="replace")

    def wait_log(self, text, after=0, timeout=None):
        return eventually(lambda: text.encode() in self.log_bytes()[after:], timeout, f"{text} in {self.name}'s log")


class System:
    """redis, broker, store, presence and edges. options: service role → list of further arguments."""

    def __init__(self, edges=2, **options):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cq-"))
        for folder in ("run", "log", "keys", "redis"):
            (self.dir / folder).mkdir(mode=0o700)
        self.options = options
        self.edge_count = edges
        self.port = free_ports(2 * edges)
        self.metrics_port = self.port + edges
        self.redis_socket = self.dir / "run/redis.sock"
        self.broker_endpoint = f"ipc://{self.dir}/run/broker.sock"
        self.services = {}
        self._define()

    def _define(self):
        def add(role, name, *command):
            self.services[name] = Service(self, name, [*command, *self.options.get(role, [])])

        add("redis", "redis", shutil.which("redis-server"), "--port", "0", "--unixsocket", self.redis_socket,
            "--unixsocketperm", "700", "--dir", self.dir / "redis", "--appendonly", "yes", "--save", "")
        add("broker", "broker", BIN / "chasqui-broker", "--endpoint", self.broker_endpoint)
        add("store", "store", BIN / "chasqui-store", "--name", "store.1", "--broker", self.broker_endpoint,
            "--data", self.dir / "store", "--master-key", self.dir / "keys/master.key")
        add("blobd", "blobd", BIN / "chasqui-blobd", "--name", "blobd.1", "--broker", self.broker_endpoint,
            "--data", self.dir / "blobs", "--reserve-bytes", "0")
        add("presence", "presence", BIN / "chasqui-presence", "--name", "presence.1", "--broker", self.broker_endpoint,
            "--redis-socket", self.redis_socket)
        for n in range(1, self.edge_count + 1):
            add("edge", f"edge.{n}", BIN / "chasqui-edge", "--name", f"edge.{n}", "--broker", self.broker_endpoint,
                "--listen-port", self.port + n - 1, "--metrics-port", self.metrics_port + n - 1, "--peers",
                ",".join(self.url(m) for m in range(1, self.edge_count + 1) if m != n) or self.url(n))

    def __getattr__(self, name):
        services = self.__dict__.get("services", {})
        if name in services:
            return services[name]
        raise AttributeError(name)

    def edge(self, n):
        return self.services[f"edge.{n}"]

    def url(self, n=1):
        return f"ws://127.0.0.1:{self.port + n - 1}/ws"

    def urls(self):
        return ",".join(self.url(n) for n in range(1, self.edge_count + 1))

    def http(self, n, path, port=None):
        """(status, body) of a GET on edge n; (0, "") if nobody answers."""
        try:
            c = http.client.HTTPConnection("127.0.0.1", port or self.port + n - 1, timeout=5)
            c.request("GET", path)
            r = c.getresponse()
            return r.status, r.read()
        except (OSError, http.client.HTTPException):
            return 0, b""

    def is_ready(self, n):
        return self.http(n, "/readyz")[0] == 200

    def start(self):
        for s in self.services.values():
            s.start()
            if s.name == "redis":
                eventually(self.redis_socket.exists, what="redis")
        self.wait_ready()
        return self

    def wait_ready(self, timeout=None):
        """Until every service lives, every actor is on the bus and every edge says that it can serve."""
        timeout = timeout or WAIT * 3
        for s in self.services.values():
            if s.name not in ("redis", "broker"):
                eventually(lambda s=s: self._check_lives() and b"BUS-REGISTERED" in s.log_bytes()[s.start_at:],
                           timeout, f"{s.name} on the bus")
        for n in range(1, self.edge_count + 1):
            eventually(lambda: self._check_lives() and self.is_ready(n), timeout, f"edge.{n} ready")

    def _check_lives(self):
        for s in self.services.values():
            assert s.is_alive(), f"{s.name} has ended with {s.process and s.process.returncode}:\n{s.tail()}"
        return True

    def heal(self):
        """After a test that broke something: all run again."""
        for s in self.services.values():
            if s.is_alive():
                s.thaw()
            else:
                s.start()
        self.wait_ready()

    def redis_client(self):
        import redis

        return redis.Redis(unix_socket_path=str(self.redis_socket))

    def check_logs(self):
        """Fails for what is new in the logs since the last look, so that one report fails one test."""
        for s in self.services.values():
            log = s.log_bytes()
            new, s.checked = log[s.checked:], len(log)
            found = BAD_IN_LOGS.search(new)
            assert not found, f"{s.name}'s log:\n" + new[max(0, found.start() - 300):][:6000].decode(errors="replace")

    def stop(self, check=True):
        """Ends everything in order and removes the folder; the folder stays when a check fails."""
        last = ["presence", "blobd", "store", "broker", "redis"]
        order = [s for s in self.services if s not in last] + last
        try:
            for name in order:
                self.services[name].stop()
            if check:
                self.check_logs()
        except BaseException:
            for s in self.services.values():
                if s.is_alive():
                    s.kill()
            raise
        shutil.rmtree(self.dir, ignore_errors=True)

    # ---- people ----

    def person(self, edge=1, name=None, **options):
        """A new account with a connected device."""
        return Device(name or "u" + secrets.token_hex(6), **options).signup(self.url(edge))

    def another_device(self, person, edge=1):
        """A second device of the same person, logged in and caught up."""
        d = Device(person.name, person.password, label="second").login(self.url(edge))
        d.catch_up()
        return d
