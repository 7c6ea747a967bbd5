import re
import shutil
import subprocess
from datetime import datetime

import h5py
import ml_dtypes
import numpy as np
import pytest
from two_outputs import make_step, make_steps, read, write

import kerasext
from kerasext.storage import PredictionFileWriter

DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16", ">f4"]


def test_root_attributes(path):
    """The root says format, versions, time and what the caller adds, in plain attributes."""
    attributes = {"model_name": "größe", "batch_size": 32, "metadata": '{"a": 1}', "ratio": 0.5}
    before = datetime.now().astimezone().replace(microsecond=0)
    write(path, [make_step(0, 3)], attributes=attributes)
    with h5py.File(path) as file:
        found = {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in file.attrs.items()
        }
        types = [file.attrs.get_id(name).get_type() for name in file.attrs]
        assert not any(isinstance(t, h5py.h5t.TypeStringID) and t.is_variable_str() for t in types)
    assert found.pop("format") == "kerasext.predictions"
    assert found.pop("format_version") == 2
    assert found.pop("kerasext_version") == kerasext.__version__
    assert found.pop("h5py_version") == h5py.__version__
    assert found.pop("hdf5_version") == h5py.version.hdf5_version
    assert before <= datetime.fromisoformat(found.pop("created")) <= datetime.now().astimezone()
    assert found == attributes


def test_record(path):
    """One small dataset says how many rows there are, where the call began and how it ended."""
    before = datetime.now().timestamp()
    write(path, make_steps([5, 2]))
    record = read(path)[1]
    assert record.dtype.names[:4] == ("rows", "first_row", "data_rows", "first_data_row")
    assert (record["rows"], record["first_row"], record["complete"]) == (7, 0, 1)
    assert before <= record["ended"] <= datetime.now().timestamp()


def test_names_become_paths(path):
    """An output is a dataset at its name, with groups on the way; what else is there is ours."""
    names = ["0", "deep/er/still", "head/labels", "head/ids", "labels", "größe"]
    write(path, [{name: np.full(3, number) for number, name in enumerate(names)}])
    outputs, _ = read(path)
    assert sorted(outputs) == sorted(names)
    assert [outputs[name].tolist() for name in names] == [[i] * 3 for i in range(len(names))]
    with h5py.File(path) as file:
        assert set(file) == {"0", "deep", "head", "labels", "größe", "row", "_kerasext"}
        assert set(file["_kerasext"]) == {"outputs", "record", "sums"}


@pytest.mark.parametrize("dtype", [*DTYPES, "S7"])
def test_dtypes_in_the_file(path, dtype):
    """Every dtype that HDF5 has is what plain h5py reads back."""
    array = np.array([[0, 1, 2], [3, 100, 1]]).astype(dtype)
    write(path, [{"x": array}, {"x": array[::-1]}], dtypes={"x": dtype})
    expected = np.concatenate([array, array[::-1]]).astype(dtype)
    np.testing.assert_array_equal(read(path)[0]["x"], expected, strict=True)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4])
def test_dtypes_that_hdf5_lacks(path, dtype):
    """Numbers of machine learning are plain numbers in the file, of the same value."""
    array = np.array([-2, 0, 7]).astype(dtype)
    write(path, [{"x": array}, {"x": array}])
    assert read(path)[0]["x"].tolist() == [-2, 0, 7] * 2


@pytest.mark.parametrize("values", [["größe", "", "a"], [b"gr\xc3\xb6\xc3\x9fe", b"", b"a"]])
def test_strings_in_the_file(path, values):
    """Strings are UTF-8 of fixed width, which every tool shows as text."""
    write(path, [{"x": np.array(values, object)}])
    with h5py.File(path) as file:
        info = h5py.check_string_dtype(file["x"].dtype)
        assert (info.encoding, info.length) == ("utf-8", 64)
        assert file["x"].asstr()[()].tolist() == ["größe", "", "a"]


@pytest.mark.parametrize("class_names", [["cat", "größe"], ("a",), ["n" * 40] * 3000])
def test_class_names(path, class_names):
    """The names stand on labels and probabilities at the root, as UTF-8 of fixed width."""
    outputs = ["labels", "probabilities", "confidence", "head/labels"]
    write(path, [{name: np.zeros(2) for name in outputs}], class_names=class_names)
    width = max(len(name.encode()) for name in class_names)
    with h5py.File(path) as file:
        for name in ("labels", "probabilities"):
            attributes = file[name].attrs
            info = h5py.check_string_dtype(attributes.get_id("class_names").dtype)
            assert (info.encoding, info.length) == ("utf-8", width)
            assert [text.decode() for text in attributes["class_names"]] == list(class_names)
        assert "class_names" not in file["confidence"].attrs
        assert "class_names" not in file["head/labels"].attrs


def test_what_is_known_at_the_first_step(path):
    """Attributes and names of classes may be set until the first step."""
    writer = PredictionFileWriter(path, attributes={"a": 1}, class_names=["x"])
    writer.set_description({"a": 1, "b": "ö"}, ["cat", "dog"])
    writer.append({"labels": np.zeros(2, "i4")})
    writer.finish()
    with h5py.File(path) as file:
        assert (file.attrs["a"], file.attrs["b"]) == (1, "ö".encode())
        assert file["labels"].attrs["class_names"].tolist() == [b"cat", b"dog"]


def test_class_names_of_heads(path):
    """Each head has the names of its own classes, and one without names has none."""
    step = {f"{head}/labels": np.zeros(2) for head in ("animal", "colour", "other")}
    write(path, [step], class_names={"animal": ["cat", "dog"], "colour": ["red"]})
    with h5py.File(path) as file:
        assert file["animal/labels"].attrs["class_names"].tolist() == [b"cat", b"dog"]
        assert file["colour/labels"].attrs["class_names"].tolist() == [b"red"]
        assert "class_names" not in file["other/labels"].attrs


@pytest.mark.parametrize(
    ("tool", "shows"),
    [
        (["h5dump"], r'DATASET "labels" .*\(0\): 0, 1, 2\s.*DATASET "s" .*\(0\): "gr'),
        (["h5ls", "-r"], r"/a +Dataset \{3/Inf, 3\}.*/labels +Dataset \{3/Inf\}"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_tools_of_the_hdf_group(path, tool, shows):
    """Where Debian's hdf5-tools are installed, they read a complete file."""
    if shutil.which(tool[0]) is None:
        pytest.skip(f"{tool[0]} is not installed")
    write(path, [{**make_step(0, 3), "labels": np.arange(3), "s": np.array(["größe"] * 3)}])
    run = subprocess.run([*tool, path], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    assert re.search(shows, run.stdout, re.DOTALL)
