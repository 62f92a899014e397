# SPDX-License-Identifier: MPL-2.0
"""An upload that was not completed in time: 410 while it is there, 404 when it has been swept, and nothing of it stays."""
import os

import pytest
from system import eventually
from tus import Tus

LIFE_S, NEVER_S = 4, "601"
SYSTEM = {"edges": 1, "blobd": ["--upload-life-s", str(LIFE_S), "--orphan-grace-s", "1", "--sweep-s", NEVER_S],
          "store": ["--blob-sweep-s", NEVER_S]}


@pytest.fixture
def ana(system):
    person = system.person(1)
    yield Tus(system.port, person.token)
    person.close()


def files(system):
    """Names of uploads and blobs on the disk."""
    return [p.name for p in (system.dir / "blobs").rglob("*") if p.is_file() and len(p.name) == 32]


def test_expired_is_410_then_404(system, ana):
    data = os.urandom(200_000)
    whole = ana.create(len(data))
    assert ana.patch(whole, 0, data[:50_000]).status == ana.patch(whole, 50_000, data[50_000:]).status == 204
    path = ana.create(len(data))
    name = path.rsplit("/", 1)[1]
    assert ana.patch(path, 0, data[:70_000]).offset == 70_000
    size = (system.dir / "blobs/uploads" / name).stat().st_size
    eventually(lambda: ana.state(path).status != 200, LIFE_S * 20, "the end of the upload's time")
    for a in (ana.state(path), ana.patch(path, 70_000, data[70_000:]), ana.patch(path, 0, data)):
        assert a.status == 410, a
        assert a["upload-offset"] is None
    assert ana.patch(path, 70_000, data[70_000:]).error == "expired"
    assert (system.dir / "blobs/uploads" / name).stat().st_size == size, "nothing is stored any more"
    assert ana.get(path).status == 404, "it never was a blob"
    assert ana.get(whole).body == data, "what was complete in time does not expire"

    for service in (system.blobd, system.store):
        service.command = ["1" if c == NEVER_S else c for c in service.command]
        service.restart()
    system.wait_ready()
    eventually(lambda: name not in files(system), LIFE_S * 20, "the end of its file")
    assert ana.state(path).status == 404
    assert ana.patch(path, 70_000, data[70_000:]).error == "not_found"
    assert ana.get(whole).body == data
    assert files(system) == [whole.rsplit("/", 1)[1]]
