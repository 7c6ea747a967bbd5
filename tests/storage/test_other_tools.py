"""One file, opened by the tools that people have, holds the same values in each."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.storage import PredictionFileWriter

ROWS = 300
CLASSES = ["cat", "dog", "größe"]
NAMES = [f"größe/{row}.png" for row in range(ROWS)]


@pytest.fixture
def written(path):
    """A file of every kind of column, of which not all rows of the data were kept."""
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1, 1], ROWS).astype("float32")
    probabilities[7] = np.nan
    columns = {
        "probabilities": probabilities,
        "labels": random.integers(-1, 3, ROWS, dtype=np.int32),
        "confidence": random.random(ROWS, dtype="float32"),
        "head/labels": random.integers(0, 3, ROWS, dtype=np.int8),
        "ids": np.char.encode(NAMES, "utf-8"),
        "targets": random.integers(0, 3, ROWS),
        "row": np.arange(ROWS) * 3 + 2**40,
    }
    writer = PredictionFileWriter(
        path, class_names=CLASSES, dtypes={"confidence": "uint8"}, compression="gzip"
    )
    for start in range(0, ROWS, 120):
        part = {name: array[start : start + 120] for name, array in columns.items()}
        writer.append(part, data_rows=2**39)
    writer.finish()
    with PredictionFile(path) as predictions:
        return path, {name: output[:] for name, output in predictions.items()}


@pytest.mark.parametrize("engine", ["h5netcdf", "netCDF4", None])
def test_xarray(written, engine):
    """In xarray there is every output of the root, by row, id and class, by both of its engines.

    Without one xarray takes netCDF4 if it is installed. With h5netcdf ids are bytes.
    """
    pytest.importorskip(engine or "netCDF4")
    xarray = pytest.importorskip("xarray")
    path, expected = written
    with xarray.open_dataset(path, engine=engine and engine.lower()) as dataset:
        assert (dataset["ids"].values.dtype.kind == "S") == (engine == "h5netcdf")
        if engine == "h5netcdf":
            expected["ids"] = np.char.encode(expected["ids"], "utf-8")
        for name in ("probabilities", "labels", "confidence", "ids", "targets", "row"):
            np.testing.assert_array_equal(dataset[name].values, expected[name])
        assert dataset["class"].values.tolist() == CLASSES
        assert set(dataset.coords) == {"row", "class", "ids"}
        one = dataset.sel({"row": 2**40 + 9, "class": "dog"})
        assert one["probabilities"].item() == expected["probabilities"][3, 1]


def test_pandas(written):
    """In pandas there is every output as columns, classes by name."""
    pytest.importorskip("pandas")
    path, expected = written
    with PredictionFile(path) as predictions:
        frame = predictions.to_pandas().set_index("ids")
    assert frame.index.tolist() == NAMES
    for name in ("labels", "confidence", "targets", "row", "head/labels"):
        np.testing.assert_array_equal(frame[name], expected[name])
    columns = [f"probabilities/{name}" for name in CLASSES]
    np.testing.assert_array_equal(frame[columns], expected["probabilities"])


def test_duckdb(written, tmp_path):
    """DuckDB has the same of the Parquet file, and joins it by the ids."""
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    path, expected = written
    with PredictionFile(path) as predictions:
        predictions.to_parquet(tmp_path / "p.parquet")
    table = duckdb.read_parquet(str(tmp_path / "p.parquet"))
    found = table.order("row").fetchnumpy()
    for name in ("labels", "confidence", "ids", "targets", "row", "head/labels"):
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_array_equal(np.stack(found["probabilities"]), expected["probabilities"])
    one = table.filter(f"ids = '{NAMES[5]}'").project("targets")
    assert one.fetchall() == [(expected["targets"][5],)]


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump is not installed")
def test_h5dump(written):
    """h5dump, which knows HDF5 and nothing else, prints the same numbers and strings."""
    path, expected = written

    def dump(name):
        command = [shutil.which("h5dump"), "-y", "-w", "0", "-m", "%.9g", "-d", f"/{name}", path]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return re.search(r"DATA \{(.*?)\}", text, re.DOTALL)[1].replace("\n", "").split(",")

    for name in ("labels", "targets", "row", "head/labels"):
        assert list(map(int, dump(name))) == expected[name].tolist()
    found = np.array(dump("probabilities"), float).reshape(-1, 3).astype("float32")
    np.testing.assert_array_equal(found, expected["probabilities"])
    assert len(dump("ids")) == ROWS
