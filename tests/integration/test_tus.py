# SPDX-License-Identifier: MPL-2.0
"""Blobs over HTTP: uploads by tus 1.0, downloads with ranges, and what is refused."""

import os

import pytest
from tus import DATA, Http, Tus, bearer, checksum

PIECE = 65536
SYSTEM = {"edges": 2, "blobd": ["--max-bytes", "12000000", "--sweep-s", "1"], "edge": ["--blob-max-bytes", "12000000"]}


@pytest.fixture(scope="module")
def people(system):
    ana, ben = system.person(1), system.person(2)
    yield ana, ben
    ana.close()
    ben.close()


@pytest.fixture
def ana(system, people):
    return Tus(system.port, people[0].token)


@pytest.fixture
def ben(system, people):
    return Tus(system.port + 1, people[1].token)


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 17, 1_000_000])
def test_what_goes_up_comes_down(ana, size):
    data = os.urandom(size)
    path = ana.upload(data)
    a = ana.state(path)
    assert a.status == 200 and a.offset == size and int(a["upload-length"]) == size and a["cache-control"] == "no-store"
    a = ana.get(path)
    assert a.status == 200 and a.body == data, a
    assert a["content-disposition"] == "attachment" and a["x-content-type-options"] == "nosniff"
    assert "immutable" in a["cache-control"] and "private" in a["cache-control"] and a["accept-ranges"] == "bytes"
