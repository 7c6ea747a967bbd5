import numpy as np
import pytest

from kerasext.storage import PredictionFileWriter, RaggedRows

CONTENT = {
    "labels": np.array([0, 1, -1], "i4"),
    "head/probabilities": np.array([[0.25, 0.75], [1, 0], [np.nan, 0.5]], "f4"),
    "ids": np.array(["a", "größe", ""]),
    "file": np.arange(3, dtype="u1"),
    "tokens": RaggedRows(np.arange(4, dtype="f4"), np.array([[1], [0], [3]])),
    "boxes": RaggedRows(np.arange(8, dtype="f4"), np.array([[1, 4], [0, 4], [2, 2]])),
}


@pytest.fixture
def file(path):
    """A complete file of three rows."""
    writer = PredictionFileWriter(path, ragged=["tokens", "boxes"])
    writer.append(CONTENT)
    writer.finish()
    return path


def test_npz(kerasext, file, tmp_path):
    """Every output is an array of its name, without pickles; varying shapes are stored flat."""
    out = tmp_path / "out.npz"
    assert kerasext("export", file, out) == (0, "", f"{out}: 3 rows\n")
    with np.load(out, allow_pickle=False) as arrays:
        assert set(arrays) == {
            *("labels", "head/probabilities", "ids", "file"),
            *("tokens/values", "tokens/row_splits"),
            *("boxes/values", "boxes/row_splits", "boxes/row_shapes"),
        }
        for name in ("labels", "head/probabilities", "ids", "file"):
            np.testing.assert_array_equal(arrays[name], CONTENT[name])
        assert arrays["tokens/row_splits"].tolist() == [0, 1, 1, 4]
        np.testing.assert_array_equal(arrays["boxes/values"], CONTENT["boxes"].values)
        assert arrays["boxes/row_shapes"].tolist() == [[1, 4], [0, 4], [2, 2]]


def test_chosen_outputs(kerasext, file, tmp_path):
    """Outputs and groups are chosen by name, and a wrong name is refused before anything is."""
    out = tmp_path / "out.npz"
    assert kerasext("export", file, out, "--outputs", "head, labels")[0] == 0
    with np.load(out) as arrays:
        assert list(arrays) == ["head/probabilities", "labels"]
    code, _, err = kerasext("export", file, tmp_path / "other.npz", "--outputs", "label")
    assert code == 2
    assert "the nearest is 'labels'" in err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.npz", file.name]


def test_csv_and_parquet(kerasext, file, tmp_path):
    """The suffix says the format, in capitals too."""
    pandas = pytest.importorskip("pandas")
    assert kerasext("export", file, tmp_path / "out.CSV", "--outputs", "labels,head")[0] == 0
    frame = pandas.read_csv(tmp_path / "out.CSV")
    assert list(frame) == ["labels", "head/probabilities/0", "head/probabilities/1"]
    assert frame["labels"].tolist() == [0, 1, -1]
    assert kerasext("export", file, tmp_path / "out.parquet")[0] == 0
    frame = pandas.read_parquet(tmp_path / "out.parquet")
    assert frame["ids"].tolist() == ["a", "größe", ""]


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
def test_file_that_exists(kerasext, file, tmp_path, suffix):
    """What exists is left alone unless it is to be replaced."""
    out = tmp_path / f"out{suffix}"
    out.write_text("precious")
    code, _, err = kerasext("export", file, out)
    assert code == 2
    assert "exists; --overwrite replaces it" in err
    assert out.read_text() == "precious"
    assert kerasext("export", file, out, "--overwrite")[0] == 0
    assert out.read_bytes()[:8] != b"precious"


@pytest.mark.parametrize("suffix", ["", ".xlsx"])
def test_unknown_suffix(kerasext, file, tmp_path, suffix):
    """What can be written is said."""
    code, _, err = kerasext("export", file, tmp_path / f"out{suffix}")
    assert code == 2
    assert ".parquet, .csv, .npz" in err


def test_incomplete_file(kerasext, path, tmp_path):
    """The rows so far go out, and that they are not all is said."""
    writer = PredictionFileWriter(path)
    writer.append({"labels": CONTENT["labels"]})
    writer.close()
    code, _, err = kerasext("export", path, tmp_path / "out.npz")
    assert code == 0
    assert err == f"{tmp_path / 'out.npz'}: 3 rows; {path} is incomplete\n"


def test_raw_cells(kerasext, path, tmp_path):
    """Text that looks like a formula goes out as it is only if it is asked for, and only as CSV."""
    pytest.importorskip("pandas")
    writer = PredictionFileWriter(path)
    writer.append({"ids": np.array(["=1+1", "a"])})
    writer.finish()
    for options, cell in (([], "'=1+1"), (["--raw-cells"], "=1+1")):
        assert kerasext("export", path, tmp_path / "out.csv", "--overwrite", *options)[0] == 0
        assert (tmp_path / "out.csv").read_text() == f"ids\n{cell}\na\n"
    code, _, err = kerasext("export", path, tmp_path / "out.npz", "--raw-cells")
    assert code == 2
    assert "--raw-cells is for .csv" in err
