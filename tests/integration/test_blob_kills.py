# SPDX-License-Identifier: MPL-2.0
"""kill -9 of blobd, edges and the store during 200 uploads; tests/crash/run.sh --blobs does it for longer."""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "crash"))

from blob_kills import BlobKills  # noqa: E402


def test_every_url_gives_the_whole_blob_and_no_orphan_stays():
    kills = BlobKills(uploads=200, kills=15, size=1_000_000, seed=int(os.environ.get("CHASQUI_SEED", "0")) or None)
    print(kills.run())
