import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import h5py
import ml_dtypes
import numpy as np
import pytest
from h5py._objects import phil
from interrupting import interrupted

import kerasext
from kerasext.storage import PredictionFile, PredictionFileWriter
from kerasext.storage.writing.chunk_writer import ChunkWriter

DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16", ">f4"]


def too_many_axes():
    """A step that HDF5 can't store; NumPy 1 has no such arrays."""
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        return {}
    return {"too many axes": {"a": np.zeros((4, 3), "f4"), "b": np.zeros((4, *[1] * 32))}}


BAD_FIRST_STEPS = {
    "no outputs": {},
    "other number of rows": {"a": np.zeros((4, 3), "f4"), "b": np.zeros(5, "i4")},
    "reserved name": {"a": np.zeros((4, 3), "f4"), "_kerasext": np.zeros(4, "i4")},
    "clash of names": {"a": np.zeros((4, 3), "f4"), "a/b": np.zeros(4, "i4")},
    "no rows axis": {"a": np.zeros((4, 3), "f4"), "b": np.array(1, "i4")},
    "no HDF5 type": {"a": np.zeros((4, 3), "f4"), "b": np.zeros(4, "M8[s]")},
    "mixed objects": {"a": np.zeros((4, 3), "f4"), "b": np.array([1, "a", 2, 3], object)},
    **too_many_axes(),
    "string too long": {"a": np.zeros((4, 3), "f4"), "b": np.array(["a" * 65] * 4)},
    "huge row": {"a": np.broadcast_to(np.float32(0), (4, 2**30)), "b": np.zeros(4, "i4")},
}
BAD_LATER_STEPS = {
    **BAD_FIRST_STEPS,
    "missing output": {"a": np.zeros((4, 3), "f4")},
    "one output more": {"a": np.zeros((4, 3), "f4"), "b": np.zeros(4, "i4"), "c": np.zeros(4)},
    "other dtype": {"a": np.zeros((4, 3), "f4"), "b": np.zeros(4, "i8")},
    "other row shape": {"a": np.zeros((4, 2), "f4"), "b": np.zeros(4, "i4")},
}
# What can't go on in the file of `make_step(...)`, but could begin one of its own.
OTHER_FILES = {
    name: BAD_LATER_STEPS[name]
    for name in ("missing output", "one output more", "other dtype", "other row shape")
}
PREAMBLE = """
import os, resource, signal, sys
import numpy as np
from kerasext.storage import PredictionFile, PredictionFileWriter
path = sys.argv[1]
"""


def make_step(first, rows):
    """A step of two outputs whose rows tell where they stand."""
    index = np.arange(first, first + rows)
    return {"a": np.stack([index, -index, index % 7], axis=1).astype("f4"), "b": index.astype("i4")}


def make_steps(sizes, first=0):
    """Consecutive steps of these sizes."""
    starts = first + np.cumsum([0, *sizes])
    return [make_step(start, rows) for start, rows in zip(starts, sizes, strict=False)]


def write(path, steps, **arguments):
    """Writes a complete file."""
    writer = PredictionFileWriter(path, **arguments)
    try:
        for step in steps:
            writer.append(step)
        writer.finish()
    finally:
        writer.close()


def read(path):
    """The outputs and the record of a file, as plain h5py reads them."""
    outputs = {}
    with h5py.File(path, "r") as file:

        def visit(name, node):
            is_ours = name.startswith("_kerasext")
            if isinstance(node, h5py.Dataset) and not is_ours and not node.is_scale:
                outputs[name] = node[()]

        file.visititems(visit)
        return outputs, file["_kerasext/record"][()]


def check_rows(path, rows, *, complete=True):
    """The file is closed, has these rows of `make_step`, and is alone in its folder."""
    outputs, record = read(path)
    assert (record["rows"], bool(record["complete"])) == (rows, complete)
    assert outputs.keys() == {"a", "b"}
    for name, expected in make_step(0, rows).items():
        np.testing.assert_array_equal(outputs[name], expected, strict=True)
    assert list(path.parent.iterdir()) == [path]


def run_python(code, *arguments):
    """Runs code in a process of its own, which must end well and quietly."""
    command = [sys.executable, "-W", "error", "-c", PREAMBLE + code, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


@pytest.fixture
def public_folder():
    """A folder that every user can reach, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


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
    "sizes", [[23, 23, 23, 1], [1], [0, 5], [5, 0, 0, 2], [1] * 300, [20_000, 1], [7, 50_000, 7]]
)
@pytest.mark.parametrize("expected_rows", [None, 1, 100, 10**6])
def test_outputs_advance_together(path, sizes, expected_rows):
    """Steps of any size, without rows too, end up as whole rows of every output."""
    write(path, make_steps(sizes), expected_rows=expected_rows)
    check_rows(path, sum(sizes))


def test_no_rows(path):
    """A file without rows is complete and keeps the outputs' shapes and dtypes."""
    write(path, [make_step(0, 0)])
    check_rows(path, 0)


@pytest.mark.parametrize("row_shape", [(0,), (3, 0), (0, 2)])
def test_rows_of_width_zero(path, row_shape):
    """An output whose rows are empty is kept beside the others."""
    write(path, [{"x": np.zeros((n, *row_shape), "f4"), "b": np.arange(n)} for n in (4, 3)])
    outputs, _ = read(path)
    assert outputs["x"].shape == (7, *row_shape)
    assert outputs["b"].tolist() == [0, 1, 2, 3, 0, 1, 2]


def test_arrays_may_be_used_again(path):
    """Rows are kept as they were on `append`, whatever the caller does to the array later."""
    step = make_step(0, 40_000)
    writer = PredictionFileWriter(path)
    for first in (0, 40_000, 80_000):
        for name, array in make_step(first, 40_000).items():
            step[name][:] = array
        writer.append(step)
    step["a"][:] = step["b"][:] = 0
    writer.finish()
    check_rows(path, 120_000)


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


def test_new_file_must_be_new(path):
    """Under "x" a present file is refused at once, with the other modes, and stays."""
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"mode='resume'.*mode='a'.*mode='w'"):
        PredictionFileWriter(path)
    assert path.read_bytes() == b"mine"
    assert list(path.parent.iterdir()) == [path]


def test_file_that_appears_meanwhile(path):
    """Under "x" a file that another program made after the start is not replaced."""
    writer = PredictionFileWriter(path)
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        writer.append(make_step(0, 3))
    writer.close()
    assert path.read_bytes() == b"mine"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_modes_make_a_file(path, mode):
    """Every mode makes the file where there is none, and none of them before the first step."""
    writer = PredictionFileWriter(path, mode=mode)
    assert not path.exists()
    writer.append(make_step(0, 5))
    assert path.exists()
    writer.finish()
    check_rows(path, 5)


@pytest.mark.parametrize("mode", ["r", "r+", "", None])
def test_unknown_modes(path, mode):
    """An unknown mode is refused with the known ones."""
    with pytest.raises(ValueError, match=re.escape("('x', 'w', 'a', 'resume')")):
        PredictionFileWriter(path, mode=mode)


@pytest.mark.parametrize("old", ["a prediction file", "no HDF5"])
def test_replacing(path, old):
    """Under "w" the old file stays as it is until the first step, and then it is gone."""
    write(path, [{"old": np.zeros(9)}])
    if old == "no HDF5":
        path.write_bytes(b"mine")
    before = path.read_bytes()
    writer = PredictionFileWriter(path, mode="w")
    assert path.read_bytes() == before
    writer.append(make_step(0, 4))
    writer.finish()
    check_rows(path, 4)


def test_replacing_under_a_reader(path):
    """Who has the old file open goes on reading the old rows."""
    write(path, [make_step(0, 70)])
    with PredictionFile(path) as old:
        write(path, [make_step(0, 4)], mode="w")
        assert old["b"][:].tolist() == list(range(70))
    check_rows(path, 4)


@pytest.mark.parametrize("mode", ["x", "w", "a"])
@pytest.mark.parametrize("end", [PredictionFileWriter.finish, PredictionFileWriter.close])
def test_no_step_at_all(path, mode, end):
    """Without a step nothing is made and nothing is changed."""
    writer = PredictionFileWriter(path, mode=mode)
    end(writer)
    assert list(path.parent.iterdir()) == []
    if mode != "x":
        write(path, [make_step(0, 4)])
        before = path.read_bytes()
        end(PredictionFileWriter(path, mode=mode))
        assert path.read_bytes() == before


@pytest.mark.parametrize("bad", BAD_FIRST_STEPS)
@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_first_step_is_refused(path, mode, bad):
    """A first step that is refused makes no file, and leaves an old one byte for byte."""
    before = None
    if mode != "x":
        write(path, [make_step(0, 4)])
        before = path.read_bytes()
    writer = PredictionFileWriter(path, mode=mode)
    with pytest.raises((ValueError, TypeError)):
        writer.append(BAD_FIRST_STEPS[bad])
    writer.close()
    assert (path.read_bytes() if path.exists() else None) == before
    assert len(list(path.parent.iterdir())) == (before is not None)


@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_first_step_may_be_tried_again(path, mode):
    """After a first step that was refused a good one begins the file."""
    writer = PredictionFileWriter(path, mode=mode)
    with pytest.raises(ValueError, match="number of rows"):
        writer.append(BAD_FIRST_STEPS["other number of rows"])
    writer.append(make_step(0, 4))
    writer.finish()
    check_rows(path, 4)


def test_unknown_names_in_dtypes(path):
    """A dtype for an output that there is not is refused with the outputs, and no file is made."""
    writer = PredictionFileWriter(path, dtypes={"a": "f2", "labels": "i1"})
    with pytest.raises(ValueError, match=r"`dtypes`.*\['a', 'b'\]\. Received: 'labels'"):
        writer.append(make_step(0, 4))
    writer.close()
    assert list(path.parent.iterdir()) == []


def test_dtypes_as_asked(path):
    """Outputs are stored in the dtypes asked for, and the others in their own."""
    write(path, make_steps([4, 3]), dtypes={"a": "f2"})
    outputs, _ = read(path)
    assert (outputs["a"].dtype, outputs["b"].dtype) == (np.float16, np.int32)
    np.testing.assert_array_equal(outputs["a"], make_step(0, 7)["a"])


@pytest.mark.parametrize("bad", BAD_LATER_STEPS)
def test_later_step_is_refused(path, bad):
    """A step that is refused adds nothing to any output, and the next good one goes on."""
    writer = PredictionFileWriter(path)
    writer.append(make_step(0, 5))
    for first in (5, 8):
        with pytest.raises((ValueError, TypeError)):
            writer.append(BAD_LATER_STEPS[bad])
        writer.append(make_step(first, 3))
    writer.finish()
    check_rows(path, 11)


def test_close_without_finish(path):
    """A file that was only closed has all its rows and says that it is incomplete."""
    writer = PredictionFileWriter(path)
    for step in make_steps([5, 40_000, 2]):
        writer.append(step)
    writer.close()
    check_rows(path, 40_007, complete=False)


@pytest.mark.parametrize("end", [PredictionFileWriter.finish, PredictionFileWriter.close])
@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_nothing_after_the_end(path, end, mode):
    """Ending again changes nothing, and rows that come too late are refused, not written."""
    writer = PredictionFileWriter(path, mode=mode)
    writer.append(make_step(0, 5))
    end(writer)
    before = path.read_bytes()
    writer.close()
    writer.finish()
    with pytest.raises(ValueError, match=r"closed|ended|finished"):
        writer.append(make_step(5, 3))
    writer.close()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_file_is_not_finished(path, monkeypatch):
    """`finish` after a step that failed halfway raises an error; the file stays incomplete."""
    writer = PredictionFileWriter(path)
    writer.append(make_step(0, 5))
    with monkeypatch.context() as patch:
        patch.setattr(ChunkWriter, "append", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            writer.append(make_step(5, 5))
    with pytest.raises(ValueError, match="finished only if every step was written"):
        writer.finish()
    writer.finish()
    check_rows(path, 5, complete=False)


def test_a_complete_file_takes_no_rows_under_resume(path):
    """Under "resume" a complete file stays as it is, whatever is appended."""
    write(path, [make_step(0, 5)])
    before = path.read_bytes()
    writer = PredictionFileWriter(path, mode="resume")
    assert writer.is_complete
    with pytest.raises(ValueError, match="the same data in the same order"):
        writer.append(make_step(5, 5))
    writer.append(make_step(0, 5))
    writer.close()
    assert path.read_bytes() == before


@pytest.mark.parametrize("calls", [[[5], [3]], [[7, 50_000], [1], [0], [30_000, 2]], [[0], [4, 4]]])
def test_adding_rows(path, calls):
    """Under "a" each call goes on after the rows of the last, wherever their chunks end."""
    rows = 0
    for sizes in calls:
        write(path, make_steps(sizes, rows), mode="a")
        assert read(path)[1]["first_row"] == rows
        rows += sum(sizes)
        check_rows(path, rows)


def test_adding_rows_keeps_what_is_stored(path):
    """Added rows are cast and encoded as the present ones, and attributes stay as they are."""
    for text in ("a", "größe"):
        step = {"x": np.array([0.5], "f4"), "labels": np.array([text])}
        arguments = {"dtypes": {"x": "f2", "labels": "S8"}, "class_names": [text]}
        write(path, [step], mode="a", attributes={"model_name": text}, **arguments)
    outputs, _ = read(path)
    assert outputs["x"].dtype == np.float16
    assert [text.decode() for text in outputs["labels"]] == ["a", "größe"]
    with h5py.File(path) as file:
        assert file.attrs["model_name"] == b"a"
        assert file["labels"].attrs["class_names"].tolist() == [b"a"]


@pytest.mark.parametrize("other", OTHER_FILES)
def test_adding_other_outputs(path, other):
    """Under "a" other outputs, shapes and dtypes are refused, and the file stays byte for byte."""
    write(path, [make_step(0, 5)])
    before = path.read_bytes()
    writer = PredictionFileWriter(path, mode="a")
    with pytest.raises(ValueError, match=r"another file\. Stored: "):
        writer.append(OTHER_FILES[other])
    writer.close()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_adding_to_an_incomplete_file(path):
    """Under "a" an incomplete file is refused at once, and "resume" is named as the way out."""
    writer = PredictionFileWriter(path)
    writer.append(make_step(0, 5))
    writer.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"interrupted.*mode='resume'.*with 5 rows"):
        PredictionFileWriter(path, mode="a")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_complete_file_is_compared(path):
    """Under "resume" steps are compared with the first and the last rows of the last call."""
    write(path, [make_step(0, 5)])
    writer = PredictionFileWriter(path, mode="a")
    writer.append(make_step(5, 20))
    writer.finish()
    before = path.read_bytes()
    for first, last in ((make_step(5, 8), make_step(22, 3)), (make_step(5, 20), make_step(24, 1))):
        writer = PredictionFileWriter(path, mode="resume")
        assert writer.is_complete
        writer.append(first)
        writer.append(last)
        writer.commit()
        writer.finish()
        assert path.read_bytes() == before
    for steps in ([make_step(0, 5)], [make_step(6, 8)], [make_step(5, 8), make_step(21, 3)]):
        writer = PredictionFileWriter(path, mode="resume")
        *good, wrong = steps
        for step in good:
            writer.append(step)
        with pytest.raises(ValueError, match="same data in the same order"):
            writer.append(wrong)
        writer.close()
        assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_kept_rows_of_a_complete_file_are_compared(path):
    """Where some rows of the data are stored, they must be the same ones, and as many."""
    writer = PredictionFileWriter(path)
    rows = np.array([1, 2, 5, 17, 19])
    writer.append({**make_step(0, 5), "row": rows}, data_rows=20)
    writer.finish()

    def resume(first, last):
        writer = PredictionFileWriter(path, mode="resume")
        try:
            for part, data_rows in ((first, 8), (last, 4)):
                step = make_step(0, 5)
                step = {name: array[part] for name, array in {**step, "row": rows}.items()}
                writer.append(step, data_rows=data_rows)
        finally:
            writer.close()

    before = path.read_bytes()
    resume(slice(0, 3), slice(3, 5))
    for first, last in (((0, 2), (3, 5)), ((0, 3), (4, 5)), ((0, 3), (2, 5)), ((0, 4), (3, 5))):
        with pytest.raises(ValueError, match=r"same `keep`.*Stored: [23] of [84] rows"):
            resume(slice(*first), slice(*last))
    assert path.read_bytes() == before


def test_adding_is_interrupted(path):
    """A call that adds rows and does not finish leaves the earlier rows and says so."""
    write(path, [make_step(0, 5)])
    writer = PredictionFileWriter(path, mode="a")
    writer.append(make_step(5, 3))
    writer.close()
    assert read(path)[1]["first_row"] == 5
    check_rows(path, 8, complete=False)


def test_adding_to_a_foreign_file(path):
    """Under "a" an HDF5 file of another kind is refused and stays byte for byte."""
    with h5py.File(path, "w") as file:
        file["a"] = np.zeros((4, 3), "f4")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="must be a prediction file"):
        PredictionFileWriter(path, mode="a")
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_paths_that_can_not_be(tmp_path, mode):
    """A missing folder and a folder in place of the file are refused at once."""
    with pytest.raises(FileNotFoundError, match="folder of `path` must exist"):
        PredictionFileWriter(tmp_path / "missing" / "a.h5", mode=mode)
    with pytest.raises(IsADirectoryError, match="must be a file"):
        PredictionFileWriter(tmp_path, mode=mode)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [str, Path, os.path.relpath])
def test_paths_of_any_kind(path, kind):
    """A path may be a string, a path object or relative."""
    write(kind(path), [make_step(0, 3)])
    check_rows(path, 3)


def test_relative_path_is_that_of_the_start(path, tmp_path_factory, monkeypatch):
    """Changing the working folder meanwhile doesn't move the file."""
    monkeypatch.chdir(path.parent)
    writer = PredictionFileWriter(path.name)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    writer.append(make_step(0, 3))
    writer.finish()
    check_rows(path, 3)


def test_through_a_link(path, tmp_path_factory):
    """Writing through a link writes the file that it leads to, and the link stays one."""
    link = tmp_path_factory.mktemp("links") / "link.h5"
    link.symlink_to(path)
    for mode, first, rows in [("x", 0, 3), ("a", 3, 5), ("w", 0, 2)]:
        write(link, [make_step(first, rows - first)], mode=mode)
        assert link.is_symlink()
        check_rows(path, rows)


@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_folder_that_is_not_writable(public_folder, mode):
    """A folder without permission to write is refused at once, and so is a new file in it."""
    code = """
if os.getuid() == 0:
    os.setuid(65534)
try:
    PredictionFileWriter(path, mode=sys.argv[2])
except PermissionError as error:
    print(error)
"""
    public_folder.chmod(0o555)
    output = run_python(code, public_folder / "a.h5", mode)
    assert "folder of `path` must be writable" in output
    assert list(public_folder.iterdir()) == []


def test_file_that_is_not_writable(public_folder):
    """Under "a" a file without permission to write is refused at once and stays."""
    code = """
if os.getuid() == 0:
    os.setuid(65534)
try:
    PredictionFileWriter(path, mode="a")
except PermissionError as error:
    print(error)
"""
    path = public_folder / "a.h5"
    write(path, [make_step(0, 5)])
    path.chmod(0o444)
    public_folder.chmod(0o777)
    assert "must be writable" in run_python(code, path)
    check_rows(path, 5)


def wide_steps(sizes):
    """Steps whose outputs have chunks of unlike length, so that they fill at different times."""
    for step in make_steps(sizes):
        yield {**step, "wide": np.repeat(step["b"][:, None], 4096, axis=1)}


def check_wide_rows(path, allowed):
    """The file has one of these numbers of rows, the same in every output, and the right ones."""
    outputs, record = read(path)
    rows = len(outputs["b"])
    assert rows in allowed
    assert record["rows"] == rows
    (expected,) = wide_steps([rows])
    for name, array in expected.items():
        np.testing.assert_array_equal(outputs[name], array)


def test_interrupt_at_any_line(path):
    """Ctrl-C anywhere in a step leaves whole rows after closing: none or all of that step."""
    for line in range(1, 2000):
        writer = PredictionFileWriter(path, mode="w", expected_rows=5)
        first, second = wide_steps([5, 12])
        writer.append(first)
        came = interrupted(line, writer.append, second)
        writer.close()
        check_wide_rows(path, {5, 17} if came else {17})
        if not came:
            break
    assert 10 < line < 1999


def test_interrupt_at_any_line_and_further_steps(path):
    """After Ctrl-C in a step the next ones are kept in whole rows or refused, never shifted."""
    for line in range(1, 2000):
        writer = PredictionFileWriter(path, mode="w", expected_rows=5)
        first, second = wide_steps([5, 12])
        writer.append(first)
        came = interrupted(line, writer.append, second)
        try:
            writer.append(second)
        except (ValueError, RuntimeError, OSError):
            allowed = {5, 17}
        else:
            allowed = {17, 29}
        writer.close()
        outputs, _ = read(path)
        assert len({len(array) for array in outputs.values()}) == 1
        assert len(outputs["b"]) in allowed
        np.testing.assert_array_equal(outputs["a"][:, 0], outputs["b"])
        np.testing.assert_array_equal(outputs["wide"][:, -1], outputs["b"])
        if not came:
            break


# What is interrupted between opening a file and entering its `with` is closed by the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("every", [13, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_interrupt_in_the_first_step(tmp_path, mode, every):
    """Ctrl-C anywhere in the first step leaves no file, the old one, or one of whole rows."""
    for line in range(1, 2000, every):
        path = tmp_path / f"{line}.h5"
        if mode != "x":
            write(path, wide_steps([9]))
        writer = PredictionFileWriter(path, mode=mode)
        (step,) = wide_steps([5]) if mode != "a" else [list(wide_steps([9, 5]))[1]]
        came = interrupted(line, writer.append, step)
        writer.close()
        if path.exists():
            check_wide_rows(path, {"x": {0, 5}, "w": {0, 5, 9}, "a": {9, 14}}[mode])
        else:
            assert mode == "x"
        write(path, wide_steps([5]), mode="w")
        if not came:
            break
    assert 30 < line < 1999


DISK_FULL = """
limit, steps = int(sys.argv[2]), int(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
writer = PredictionFileWriter(path)
step = {"a": np.ones((1000, 256), "f4"), "b": np.ones(1000, "i4")}
try:
    for _ in range(steps):
        writer.append(step)
    writer.finish()
    print("finished")
except OSError:
    print("OSError")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    writer.append(step)
    print("went on")
except Exception as error:
    print("refused")
try:
    writer.finish()
except OSError:
    pass
writer.close()
"""


@pytest.mark.parametrize(
    ("limit", "steps"),
    [
        *((1, 2), (100, 2), (1000, 2), (5000, 2), (9000, 2), (12_000, 2)),  # making the file
        *((20_000, 2), (2_000_000, 10), (90_000_000, 120)),  # adding to it
        *((20_000, 1), (1_000_000, 1)),  # finishing it
    ],
)
def test_disk_full(path, limit, steps):
    """A full disk is an OSError for the caller; the process lives, the file opens, incomplete."""
    assert run_python(DISK_FULL, path, limit, steps).split() == ["OSError", "refused"]
    assert list(path.parent.iterdir()) in ([], [path])
    if path.exists():
        with PredictionFile(path) as predictions:
            assert not predictions.complete
            assert predictions.rows % 1000 == 0
            assert predictions.rows * 1028 <= limit
            assert (predictions["a"][:] == 1).all()
            assert predictions["b"][:].tolist() == [1] * predictions.rows


def test_killed_at_any_moment(path):
    """After SIGKILL the file opens, has whole steps only, and may be replaced at once."""
    code = (
        PREAMBLE
        + """
writer = PredictionFileWriter(path, mode="w")
for number in range(10**6):
    index = np.arange(number * 1000, (number + 1) * 1000)
    writer.append({"a": np.repeat(index[:, None], 256, axis=1).astype("f4"), "b": index})
    if number in (0, 80, 150):
        print(number, flush=True)
"""
    )
    for moment in ("0", "80", "150"):
        command = [sys.executable, "-c", code, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while process.stdout.readline().strip() != moment:
                assert process.poll() is None
            process.send_signal(signal.SIGKILL)
        with PredictionFile(path) as predictions:
            rows = predictions.rows
            assert not predictions.complete
            assert rows % 1000 == 0
            np.testing.assert_array_equal(predictions["b"][:], np.arange(rows))
            np.testing.assert_array_equal(predictions["a"][:, 255], np.arange(rows))
        with pytest.raises(ValueError, match="interrupted"):
            PredictionFileWriter(path, mode="a")
    write(path, [make_step(0, 5)], mode="w")
    check_rows(path, 5)


@pytest.mark.parametrize("how", ["", "del writer", "raise SystemExit(0)"])
def test_exit_without_closing(path, how):
    """A program that just ends does so quietly; its file opens and is incomplete."""
    step = "writer.append({'a': np.zeros((4, 3), 'f4'), 'b': np.arange(4, dtype='i4')})"
    run_python(f"writer = PredictionFileWriter(path)\n{step}\n{how}", path)
    with PredictionFile(path) as predictions:
        assert not predictions.complete
        assert predictions["b"][:].tolist() in ([], [0, 1, 2, 3])
    write(path, [make_step(0, 5)], mode="w")
    check_rows(path, 5)


def test_hdf5_is_called_by_one_thread_at_a_time(path, monkeypatch):
    """A call to HDF5 past h5py holds h5py's lock: without it, two threads corrupt its memory."""

    def is_locked():
        is_free = phil.acquire(False)
        if is_free:
            phil.release()
        return not is_free

    def call(*arguments):
        were_locked.append(other_thread.submit(is_locked).result())

    were_locked = []
    library = SimpleNamespace(H5Pset_metadata_read_attempts=call)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    with ThreadPoolExecutor(1) as other_thread:
        write(path, make_steps([5]))
        PredictionFileWriter(path, mode="a").close()
    assert were_locked
    assert all(were_locked)
