# SPDX-License-Identifier: MPL-2.0
"""One system per test file; after each test everything must live and no log may hold a sanitizer's report."""

import pathlib
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

from system import System  # noqa: E402


@pytest.fixture(scope="module")
def system(request):
    s = System(**getattr(request.module, "SYSTEM", {}))
    try:
        s.start()
        yield s
    finally:
        s.stop()


@pytest.fixture(autouse=True)
def healthy(request):
    if "system" not in request.fixturenames:
        yield
        return
    s = request.getfixturevalue("system")
    yield
    try:
        s.check_logs()
    finally:
        s.heal()


@pytest.fixture
def pair(system):
    """Two friends on different edges, with the key of their chat."""
    from chasqui import befriend

    x, y = system.person(1), system.person(2)
    befriend(x, y)
    yield x, y
    x.close()
    y.close()


@pytest.fixture
def target():
    """Where a backup may go: a name that does not exist yet."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cq-backup-"))
    yield folder / "b"
    shutil.rmtree(folder, ignore_errors=True)
