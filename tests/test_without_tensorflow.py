"""What a machine can do that has only NumPy and h5py."""

import csv
import subprocess
import sys

import numpy as np
import pytest

from kerasext.storage import PredictionFileWriter

ONLY_NUMPY_AND_H5PY = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""
MISSING = {
    "hdf5plugin", "jax", "keras", "matplotlib", "ml_dtypes", "netCDF4", "optree", "pandas", "PIL",
    "pyarrow", "ray", "rich", "scipy", "sklearn", "tensorflow", "torch", "xarray",
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """Runs a script in a process where nothing else can be imported."""

    def run_script(script):
        code = ONLY_NUMPY_AND_H5PY.format(missing=MISSING) + script
        ended = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    (tmp_path / "job").mkdir()
    for name, first in (("digits.h5", 0), ("more.h5", 5)):
        writer = PredictionFileWriter(tmp_path / "job" / name, class_names=("zero", "one"))
        labels = np.array([0, 1, -1, 1, 0], "i4")
        confidence = np.array([0.9, 0.8, np.nan, 0.75, 0.6], "f4")
        probabilities = np.stack([1 - confidence, confidence], axis=1)
        writer.append(
            {
                "labels": labels,
                "confidence": confidence,
                "probabilities": probabilities,
                "ids": np.arange(first, first + 5),
                "targets": np.maximum(labels, 0),
            }
        )
        writer.finish()
    return run_script


def test_commands(run, tmp_path):
    """Files are shown as plain text, verified, exported and joined."""
    out = run("""
from kerasext.cli import main

for line in (
    "info job/digits.h5", "info job", "info job/digits.h5 --json", "info job/more.h5 --follow",
    "verify job/digits.h5", "export job/digits.h5 digits.csv", "export job/digits.h5 digits.npz",
    "merge job -o merged.h5", "index job",
):
    assert main(line.split()) == 0, line
""")
    lines = [line.split() for line in out.splitlines()]
    for line in ("file job/digits.h5", "rows 5 complete", "class names zero, one"):
        assert line.split() in lines, out
    with (tmp_path / "digits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["labels/name"] for row in rows] == ["zero", "one", "", "one", "zero"]
    assert [row["confidence"] for row in rows] == ["0.9", "0.8", "", "0.75", "0.6"]
    assert np.load(tmp_path / "digits.npz")["labels"].tolist() == [0, 1, -1, 1, 0]


def test_python(run):
    """Files are read, followed, evaluated, compared, calibrated, indexed and merged."""
    run("""
import kerasext
from kerasext.calibration import fit_calibration
from kerasext.evaluation import compare, evaluate
from kerasext.shards import index_shards, merge_shards

assert evaluate("job/digits.h5").accuracy == 0.8
assert compare("job/digits.h5", "job/digits.h5").labels == 0
with kerasext.PredictionFile("job/digits.h5") as predictions:
    known = predictions["labels"][:] >= 0
    p, truth = predictions["probabilities"][:][known], [1, 1, 0, 1]
    assert fit_calibration(p, truth, task="classifier", method="temperature").temperature > 0
index_shards("job")
merge_shards("job", "all.h5")
with kerasext.PredictionFile("job/index.h5") as predictions:
    assert predictions["ids"][:].tolist() == list(range(10))
    assert sum(len(rows["labels"]) for rows in predictions.follow()) == 10
    predictions.to_csv("all.csv")
""")
