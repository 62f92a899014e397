# SPDX-License-Identifier: MPL-2.0
"""One scrape shows the whole system, in the form that Prometheus reads, also when parts of it hang or are gone."""

import http.client
import re
import socket
import subprocess
import time

from ctl import Ctl
from prometheus_client.parser import text_string_to_metric_families
from system import BIN, System, eventually, free_ports

SYSTEM = {"edges": 2, "edge": ["--metrics-timeout-ms", "1000"]}
EVERYBODY = {"broker", "store.1", "blobd.1", "presence.1", "edge.1", "edge.2"}


def scrape(system, n=1):
    """(families by name, seconds it took)"""
    started = time.monotonic()
    status, body = system.http(n, "/metrics", system.metrics_port + n - 1)
    assert status == 200
    return {f.name: f for f in text_string_to_metric_families(body.decode())}, time.monotonic() - started


def up(families):
    return {s.labels["actor"]: int(s.value) for s in families["chasqui_up"].samples}


def value(families, name, **labels):
    """The sum of the samples that have these labels."""
    return sum(s.value for f in families.values() for s in f.samples
               if s.name == name and labels.items() <= s.labels.items())


def test_everybody_is_there(system):
    families, _ = scrape(system)
    assert up(families) == dict.fromkeys(EVERYBODY, 1)
    assert {s.labels["actor"] for s in families["chasqui_info"].samples} == EVERYBODY
    assert {s.labels["actor"] for s in families["chasqui_edge_sessions"].samples} == {"edge.1", "edge.2"}
    assert value(families, "chasqui_resident_bytes") > 6 * 1000000


def test_form(system):
    """What the parser lets pass and Prometheus' own conventions want."""
    status, body = system.http(1, "/metrics", system.metrics_port)
    text = body.decode()
    assert status == 200 and text.endswith("\n")
    seen, described = set(), set()
    for line in text.splitlines():
        if line.startswith("# "):
            kind, name = line.split()[1:3]
            assert kind in ("HELP", "TYPE") and (kind, name) not in described, line
            described.add((kind, name))
        else:
            assert re.fullmatch(r'[a-z_]+\{actor="[a-z0-9.-]+"(,[a-z]+="[^"\\]*")*\} [0-9.]+', line), line
            assert line.split(" ")[0] not in seen, f"twice: {line}"
            seen.add(line.split(" ")[0])
    for f in text_string_to_metric_families(text):
        assert f.documentation and f.type in ("counter", "gauge", "histogram"), f
        assert ("HELP", f.name + "_total") in described if f.type == "counter" else ("HELP", f.name) in described, f
        assert not f.name.endswith(("_ms", "_us")), f"{f.name}: seconds"
        if f.type == "histogram":
            assert f.name.endswith("_seconds")
        names = {s.name for s in f.samples}
        assert all(n.endswith("_total") for n in names) or f.type != "counter", f
    assert {("TYPE", n) for _, n in described} | {("HELP", n) for _, n in described} == described


def test_the_listener_is_another_one(system):
    assert system.http(1, "/metrics")[0] == 404, "clients must not reach it"
    port = system.metrics_port
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/", 404), ("/ws", 404), ("/blob", 404), ("/metrics/", 404)):
        assert system.http(1, path, port)[0] == status, path
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    for method, status in (("HEAD", 200), ("POST", 405), ("GET", 200)):  # on one connection
        c.request(method, "/metrics")
        r = c.getresponse()
        assert r.status == status and (r.read() == b"") == (method == "HEAD")
        assert r.status != 200 or r.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    c.close()


def test_loopback_unless_said_otherwise(tmp_path):
    edge = [BIN / "chasqui-edge", "--broker", f"ipc://{tmp_path}/b", "--listen-port", "0", "--metrics-port", free_ports(1)]
    for address in ("0.0.0.0", "::", "10.0.0.1"):
        r = subprocess.run([*map(str, edge), "--metrics-address", address], capture_output=True, text=True, timeout=60)
        assert r.returncode == 2 and "metrics-anywhere" in r.stderr
    for words in (["--metrics-address", "::1"], ["--metrics-address", "0.0.0.0", "--metrics-anywhere"]):
        p = subprocess.Popen([*map(str, edge), *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            assert any(b"id=EDGE-MONITOR-LISTEN" in line for line in p.stdout)
        finally:
            p.terminate()
            p.stdout.read()
            assert p.wait(60) == 0


def test_a_message_shows(system, pair):
    x, y = pair
    before, _ = scrape(system)
    x.send(y, "counted")
    y.receive(x)
    after, _ = scrape(system)
    for name, labels in (("chasqui_edge_requests_total", {"actor": "edge.1", "op": "SEND"}),
                         ("chasqui_store_records_total", {}), ("chasqui_presence_routes_total", {}),
                         ("chasqui_edge_pushes_total", {"actor": "edge.2"})):
        assert value(after, name, **labels) > value(before, name, **labels), name


STAGES = [("chasqui_edge_request_seconds", {"actor": "edge.1", "op": "SEND"}),
          ("chasqui_bus_transit_seconds", {"actor": "store.1", "op": "CALL"}), ("chasqui_store_queue_seconds", {}),
          ("chasqui_store_commit_seconds", {}), ("chasqui_store_answer_seconds", {}),
          ("chasqui_bus_transit_seconds", {"actor": "edge.1", "op": "REPLY"}),
          ("chasqui_bus_transit_seconds", {"actor": "presence.1", "op": "ROUTE"}),
          ("chasqui_bus_transit_seconds", {"actor": "edge.2", "op": "DELIVER"}),
          ("chasqui_edge_push_seconds", {"actor": "edge.2"}), ("chasqui_edge_message_age_seconds", {"actor": "edge.2"})]


def test_stages_of_a_message(system, pair):
    """Each stage counts it, no part takes longer than the whole, and histograms are what they should be."""
    x, y = pair
    before, _ = scrape(system)
    started = time.monotonic()
    for i in range(5):
        x.send(y, f"timed {i}")
        y.receive(x)
    whole = time.monotonic() - started
    after, _ = scrape(system)
    for name, labels in STAGES:
        count = value(after, name + "_count", **labels) - value(before, name + "_count", **labels)
        spent = value(after, name + "_sum", **labels) - value(before, name + "_sum", **labels)
        assert count >= 5, name
        assert 0 <= spent < 5 * whole, (name, spent, whole)
    for f in after.values():
        series = {}
        for s in f.samples if f.type == "histogram" else []:
            key = tuple(sorted((k, v) for k, v in s.labels.items() if k != "le"))
            series.setdefault(key, {})[s.labels.get("le", s.name)] = s.value
        for s in series.values():
            counts = [s[le] for le in sorted((k for k in s if not k.startswith("chasqui")), key=float)]
            assert counts == sorted(counts) and counts[-1] == s["+Inf"] == s[f.name + "_count"], f.name


def test_a_part_that_hangs(system):
    system.store.freeze()
    try:
        families, seconds = scrape(system)
        assert seconds < 4
        assert up(families) == {**dict.fromkeys(EVERYBODY, 1), "store.1": 0}
        assert value(families, "chasqui_edge_sessions", actor="edge.2") >= 0
        # Later the broker has given it up: nobody waits for it any more.
        eventually(lambda: scrape(system)[1] < 0.5, what="no more waiting")
        assert up(scrape(system)[0])["store.1"] == 0
    finally:
        system.store.thaw()
    eventually(lambda: up(scrape(system)[0]) == dict.fromkeys(EVERYBODY, 1), what="all up again")


def test_a_part_that_died(system):
    system.edge(2).kill()
    system.presence.kill()
    eventually(lambda: up(scrape(system)[0]) == {**dict.fromkeys(EVERYBODY, 1), "edge.2": 0, "presence.1": 0}, what="both missed")
    system.heal()
    assert up(scrape(system)[0]) == dict.fromkeys(EVERYBODY, 1)


def test_broker_gone(system):
    """The edge still has its own numbers, and knows who should be there."""
    system.broker.kill()
    families, seconds = scrape(system)
    assert seconds < 4 and up(families)["broker"] == 0 and up(families)["edge.1"] == 1
    eventually(lambda: up(scrape(system)[0]) == {**dict.fromkeys(EVERYBODY, 0), "edge.1": 1}, what="nobody but itself")
    system.heal()
    eventually(lambda: up(scrape(system)[0]) == dict.fromkeys(EVERYBODY, 1), what="all up again")


def test_a_system_without_parts():
    """What was never there is missing all the same."""
    s = System(edges=1)
    s.services = {name: s.services[name] for name in ("broker", "edge.1")}
    try:
        for service in s.services.values():
            service.start()
        s.edge(1).wait_log("id=BUS-REGISTERED")
        assert up(scrape(s)[0]) == {"edge.1": 1, "broker": 1, "store": 0, "presence": 0}
    finally:
        for service in s.services.values():
            service.stop()


def test_many_scrapers_and_some_that_leave(system):
    """They share a round; more than can wait are told so; who leaves is forgotten."""
    system.edge(2).freeze()  # so that all come within one round
    try:
        socks = [socket.create_connection(("127.0.0.1", system.metrics_port), timeout=10) for _ in range(24)]
        for s in socks:
            s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for s in socks[::5]:
            s.close()
        heads = [s.recv(17)[9:12] for i, s in enumerate(socks) if i % 5]
        assert set(heads) <= {b"200", b"503"} and heads.count(b"200") >= 8
        for s in socks:
            s.close()
    finally:
        system.edge(2).thaw()
    assert scrape(system)[0]


def test_consistent_with_chasquictl(system):
    code, out, _ = Ctl(system).run("metrics")
    assert code == 0
    mine = {f.name: f for f in text_string_to_metric_families(out)}
    theirs, _ = scrape(system)
    assert mine.keys() == theirs.keys()
    assert up(mine) == up(theirs)
    status = [row for row in Ctl(system).json("status")[1] if row["type"] == "actor"]
    assert {r["name"] for r in status} == set(up(theirs))
    assert {r["name"]: r["version"] for r in status} == {
        s.labels["actor"]: s.labels["version"] for s in theirs["chasqui_info"].samples}


def test_chasquictl_goes_on_behind_one_that_hangs(system):
    system.presence.freeze()
    try:
        code, out, err = Ctl(system).run("metrics", "--timeout", "1")
    finally:
        system.presence.thaw()
    assert code == 3 and "presence.1 does not answer" in err
    assert up({f.name: f for f in text_string_to_metric_families(out)}) == {**dict.fromkeys(EVERYBODY, 1), "presence.1": 0}
