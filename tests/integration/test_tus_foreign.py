# SPDX-License-Identifier: MPL-2.0
"""A tus client that others wrote, unchanged: tus-js-client under node."""

import json
import os
import pathlib
import subprocess
import threading
import time

import pytest
from tus import Tus, bearer

HERE = pathlib.Path(__file__).resolve().parents[1] / "foreign"
SYSTEM = {"edges": 1}


@pytest.fixture(scope="module")
def modules():
    folder = subprocess.run([HERE / "install.sh"], check=True, capture_output=True, text=True, timeout=200).stdout.strip()
    return folder + "/node_modules"


@pytest.fixture(scope="module")
def ana(system):
    person = system.person(1)
    yield Tus(system.port, person.token)
    person.close()


@pytest.fixture
def client(system, modules, ana, tmp_path):
    def run(data, **options):
        file = tmp_path / "file"
        file.write_bytes(data)
        want = {"file": str(file), "endpoint": f"http://127.0.0.1:{system.port}/blob", "token": bearer(ana.token)[7:], **options}
        p = subprocess.run(["node", HERE / "tus_upload.js", json.dumps(want)], env={**os.environ, "NODE_PATH": modules},
                           capture_output=True, text=True, timeout=60)
        assert p.returncode == 0, p.stderr
        report = json.loads(p.stdout)
        print(report)
        return report

    return run


def path_of(report):
    return "/" + report["url"].split("/", 3)[3]


@pytest.mark.parametrize("size,chunk", [(0, 0), (1, 0), (3_000_000, 0), (3_000_000, 1_000_000), (200_001, 65_536)])
def test_it_uploads(client, ana, size, chunk):
    data = os.urandom(size)
    report = client(data, chunk=chunk)
    assert report["errors"] == [] and ana.get(path_of(report)).body == data
    assert report["requests"]["POST 201"] == 1
    assert report["requests"].get("PATCH 204", 0) == (0 if not size else -(-size // chunk) if chunk else 1)


def test_it_goes_on(client, ana):
    data = os.urandom(5_000_000)
    report = client(data, chunk=1_000_000, stopAt=2_500_000)
    assert report["errors"] == [] and report["found"] == 1 and ana.get(path_of(report)).body == data
    assert report["requests"]["POST 201"] == 1 and report["requests"]["HEAD 200"] == 1


def test_it_ends_an_upload(client, ana):
    report = client(os.urandom(3_000_000), chunk=500_000, stopAt=1_000_000, terminate=True)
    assert report["errors"] == [] and report["requests"]["DELETE 204"] == 1
    assert ana.state(path_of(report)).status == 404


def test_it_is_told_what_is_wrong(client, ana, system):
    report = client(b"x" * 10, token="bm9uZQ")
    assert "401" in report["errors"][0] and "bad_token" in report["errors"][0]
    report = client(b"x" * 10, endpoint=f"http://127.0.0.1:{system.port}/none")
    assert "405" in report["errors"][0]


def test_it_survives_a_dead_edge(client, ana, system):
    """The edge is killed while it sends; its own tries find the way back."""
    stop = threading.Event()

    def kill():
        for _ in range(3):
            if stop.wait(0.35):
                return
            system.edge(1).kill()
            time.sleep(0.2)
            system.edge(1).start()

    data = os.urandom(40_000_000)
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        report = client(data, chunk=1_000_000, retries=[100] * 60)
    finally:
        stop.set()
        killer.join()
    assert report["errors"] == []
    system.heal()
    assert ana.get(path_of(report)).body == data
