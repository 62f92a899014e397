# SPDX-License-Identifier: MPL-2.0
"""Many blobs up and down at once, next to nginx with the same client on the same disk. One JSON object per figure."""

import argparse
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

from system import System, eventually, free_ports  # noqa: E402
from tus import DATA, Tus, bearer  # noqa: E402

NGINX = """daemon off; {user} worker_processes 2; pid {dir}/pid; error_log {dir}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; sendfile on; tcp_nopush on; client_max_body_size 1g; client_body_temp_path {dir}/body;
server {{ listen 127.0.0.1:{port} backlog=1024; root {dir}/files; location / {{ dav_methods PUT; }} }} }}
"""
HZ = os.sysconf("SC_CLK_TCK")


def status(pid, key):
    """Bytes of a line of /proc/PID/status."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith(key + ":"))


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / HZ


def children(pid):
    return [int(x) for x in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()]


def exchange(port, head, body=b"", sink=None):
    """One request on a connection of its own; what comes back is counted and thrown away. (status, bytes of the body)"""
    with socket.create_connection(("127.0.0.1", port), timeout=250) as s:
        s.sendall(head)
        if body:
            s.sendall(body)
        got = b""
        while b"\r\n\r\n" not in got:
            part = s.recv(65536)
            if not part:
                return 0, 0
            got += part
        first, rest = got.split(b"\r\n\r\n", 1)
        n, code = len(rest), int(first.split()[1])
        sink = sink or bytearray(262144)
        while True:
            part = s.recv_into(sink)
            if not part:
                return code, n
            n += part


class Run:
    """`count` requests at once; what they took. pids: whose processor time and memory is looked at."""

    def __init__(self, what, count, size, pids, work, sync=False):
        before = {k: cpu(p) for k, p in pids.items()}
        memory = {k: status(p, "VmRSS") for k, p in pids.items()}
        for p in pids.values():
            pathlib.Path(f"/proc/{p}/clear_refs").write_text("5")  # the high-water mark begins here
        failed = []

        def one(i):
            try:
                work(i)
            except BaseException as e:  # noqa: BLE001  told below
                failed.append(e)

        threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
        ours, start = time.process_time(), time.monotonic()
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        answered = time.monotonic() - start
        if sync:
            os.sync()
        self.seconds = time.monotonic() - start
        assert not failed, failed[0]
        self.rate = count * size / self.seconds / 1e6
        self.answered_rate = count * size / answered / 1e6
        megabytes = count * size / 1e6
        self.figures = [(what, self.rate, "MB/s"), (f"{what}.client_cpu", (time.process_time() - ours) * 1000 / megabytes, "ms/MB")]
        if sync:
            self.figures.append((f"{what}.answered", self.answered_rate, "MB/s"))
        for k, p in pids.items():
            self.figures.append((f"{what}.cpu.{k}", (cpu(p) - before[k]) * 1000 / megabytes, "ms/MB"))
            self.figures.append((f"{what}.grown_per_transfer.{k}", (status(p, "VmHWM") - memory[k]) / count / 1e6, "MB"))
        self.conditions = f"{count} blobs of {size} bytes at once"

    def tell(self):
        for metric, value, unit in self.figures:
            tell(metric, value, unit, self.conditions)
        return self


def tell(metric, value, unit, conditions):
    print(json.dumps({"bench": "blob", "metric": metric, "value": round(value, 4), "unit": unit, "conditions": conditions}), flush=True)


def run_nginx(args, data):
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not program:
        print("bench: no nginx (apt-get install nginx-light): nothing to compare with", file=sys.stderr)
        return None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cq-nginx-"))
    (folder / "files").mkdir()
    port = free_ports(1)
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX.format(dir=folder, port=port, user=user))
    p = subprocess.Popen([program, "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf"])
    try:
        workers = eventually(lambda: (lambda c: c if len(c) == 2 else None)(children(p.pid)), what="nginx")
        pids = {f"nginx.{i}": pid for i, pid in enumerate(workers, 1)}

        def put(i):
            head = f"PUT /{i} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            code, _ = exchange(port, head, data)
            assert code == 201, code

        def get(i):
            code, n = exchange(port, f"GET /{i} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert code == 200 and n == len(data), (code, n)

        put_run = Run("nginx.put", args.transfers, len(data), pids, put, sync=True).tell()
        first = Run("nginx.get", args.transfers, len(data), pids, get).tell()
        again = Run("nginx.get_again", args.transfers, len(data), pids, get).tell()
        return put_run, first, again
    finally:
        p.terminate()
        p.wait()
        shutil.rmtree(folder)


def run_ours(args, data):
    edge = ["--user-transfers-max", "100000", "--transfers-max", "100000", "--limit-upload-per-s", "0", "--limit-blob-per-s", "0",
            "--blob-max-bytes", str(1 << 30)]
    os.environ["CHASQUI_ALLOW_CORE"] = "1"  # else /proc tells nothing about them
    system = System(edges=1, edge=edge, blobd=["--max-bytes", str(1 << 30)],
                    store=["--blob-quota-bytes", str(1 << 40), "--blob-quota-count", "100000"])
    system.start()
    try:
        person = system.person(1)
        auth = f"Host: x\r\nConnection: close\r\nAuthorization: {bearer(person.token)}\r\n"
        pids = {k: system.services[k].pid for k in ("edge.1", "broker", "blobd", "store")}
        tus = Tus(system.port, person.token)
        paths = [tus.create(len(data)) for _ in range(args.transfers)]

        def put(i):
            head = (f"PATCH {paths[i]} HTTP/1.1\r\n{auth}Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: {DATA}\r\n"
                    f"Content-Length: {len(data)}\r\n\r\n").encode()
            code, _ = exchange(system.port, head, data)
            assert code == 204, code

        def get(i):
            code, n = exchange(system.port, f"GET {paths[i]} HTTP/1.1\r\n{auth}\r\n".encode())
            assert code == 200 and n == len(data), (code, n)

        put_run = Run("chasqui.put", args.transfers, len(data), pids, put).tell()
        first = Run("chasqui.get", args.transfers, len(data), pids, get).tell()
        again = Run("chasqui.get_again", args.transfers, len(data), pids, get).tell()
        person.close()
        return put_run, first, again
    finally:
        system.stop()


def main():
    parser = argparse.ArgumentParser(prog="run.sh blob", description=__doc__)
    parser.add_argument("--transfers", type=int, default=200, help="at once")
    parser.add_argument("--bytes", type=int, default=10_000_000, help="of each")
    args = parser.parse_args()
    data = os.urandom(args.bytes)
    ours, theirs = run_ours(args, data), run_nginx(args, data)
    if theirs:
        names = ("put", "get", "get_again")
        for name, a, b in zip(names, ours, theirs):
            tell(f"ratio.{name}", a.rate / b.rate, "times", a.conditions)
        tell("ratio.put_answered", ours[0].rate / theirs[0].answered_rate, "times", ours[0].conditions)


if __name__ == "__main__":
    main()
