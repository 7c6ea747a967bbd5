"""Losses of power at random moments, replayed from the recorded writes of a process."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
import power_loss

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux") or shutil.which("cc") is None,
        reason="the writes are recorded by a library that needs Linux and a C compiler",
    ),
]
LAYOUTS = ["many small chunks", "compressed small chunks", "rows of any shape"]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """What records the writes."""
    return power_loss.build_library(tmp_path_factory.mktemp("library"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_with_fsync_no_commit_is_lost(layout, library, tmp_path):
    """Whatever was written since the last sync is lost, each commit that returned is there."""
    found = power_loss.crash(tmp_path, library, layout, fsync=True, points=15, seed=1)
    assert len(found) == 15
    for result in found:
        assert result["file"] in {"right", "there is none"}, result
        assert "lost" not in result, result
        assert result.get("resume") in {"right", "refused", None}, result
    assert sum(result.get("resume") == "right" for result in found) > 10


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_fsync_nothing_deceives(layout, library, tmp_path):
    """Files may be damaged, but no wrong row passes `verify` or is in a file that was resumed."""
    found = power_loss.crash(tmp_path, library, layout, fsync=False, points=15, seed=2)
    assert len(found) == 15
    assert not [result for result in found if power_loss.is_deceiving(result)]


def test_the_disk_loses_what_was_not_synced(library, tmp_path):
    """The replay is no easy one: without syncs most files are not what was written."""
    found = power_loss.crash(tmp_path, library, LAYOUTS[0], fsync=False, points=30, seed=3)
    assert sum(result["file"] != "right" for result in found) > 5
