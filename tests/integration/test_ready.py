# SPDX-License-Identifier: MPL-2.0
"""/readyz says no, and why, when clients had better go elsewhere; and yes, with what is missing, when only a part of it is."""

import json
import signal

import pytest
from prometheus_client.parser import text_string_to_metric_families
from system import eventually

SYSTEM = {"edges": 2}


def readyz(system, n=1):
    """(status, what it says), the same on both listeners."""
    mine, theirs = system.http(n, "/readyz"), system.http(n, "/readyz", system.metrics_port + n - 1)
    return (mine[0], json.loads(mine[1])) if mine[0] and mine == theirs else None


def says(system, status, key=None, text=None, n=1):
    want = (status, {"ready": status == 200} | ({key: text} if key else {}))
    eventually(lambda: readyz(system, n) == want, what=f"{want}, now {readyz(system, n)}")


def metric(system, name, actor):
    body = system.http(1, "/metrics", system.metrics_port)[1].decode()
    return next((s.value for f in text_string_to_metric_families(body) for s in f.samples
                 if s.name == name and s.labels["actor"] == actor), None)


@pytest.mark.parametrize("part, reason", [
    ("broker", "not registered with the broker"), ("store", "no store"), ("presence", "no presence")])
def test_without_a_part_nobody_should_come(system, part, reason):
    says(system, 200)
    system.services[part].kill()
    says(system, 503, "reason", reason)
    assert system.http(1, "/healthz") == (200, b"ok\n"), "it is alive all the same"
    eventually(lambda: metric(system, "chasqui_edge_ready", "edge.1") == 0, what="the gauge")
    system.services[part].start()
    says(system, 200)
    eventually(lambda: metric(system, "chasqui_edge_ready", "edge.1") == 1, what="the gauge")


def test_a_store_that_hangs_while_the_edge_starts(system):
    """There is one, but nothing is known of it: nobody can be let in."""
    system.edge(2).kill()
    system.store.freeze()
    system.edge(2).start()
    says(system, 503, "reason", "the store has not answered yet", n=2)
    system.store.thaw()
    says(system, 200, n=2)


def test_without_blobd_only_files_are_missing(system):
    system.blobd.kill()
    says(system, 200, "degraded", "no blobd")
    system.blobd.start()
    says(system, 200)


def test_a_store_without_room_can_be_read(system):
    """Before anybody has tried to write. Closing the door would take the reading, too."""
    says(system, 200)
    command = list(system.store.command)
    system.store.kill()
    system.store.command = [*command, "--reserve-bytes", str(2**62)]
    try:
        system.store.start()
        says(system, 200, "degraded", "the store takes no writes")
        says(system, 200, "degraded", "the store takes no writes", n=2)
        assert metric(system, "chasqui_store_writable", "store.1") == 0
        eventually(lambda: metric(system, "chasqui_edge_degraded", "edge.1") == 1, what="the gauge")
        system.edge(2).restart()
        says(system, 200, "degraded", "the store takes no writes", n=2)  # told when it comes up
    finally:
        system.store.kill()
        system.store.command = command
        system.store.start()
    says(system, 200)
    says(system, 200, n=2)
    eventually(lambda: metric(system, "chasqui_store_writable", "store.1") == 1, what="writable")


def test_closing_down(system):
    edge = system.edge(2)
    command = list(edge.command)
    edge.command = [*command, "--drain-notice-ms", "600000"]
    try:
        edge.restart()
        says(system, 200, n=2)
        edge.signal(signal.SIGTERM)
        says(system, 503, "reason", "closing down", n=2)
        assert system.http(2, "/")[0] == 200, "who is there is served"
    finally:
        edge.kill()
        edge.command = command
