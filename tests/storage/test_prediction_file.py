import subprocess
import sys
from collections.abc import Mapping

import h5py
import numpy as np
import pytest
from recorded import with_checksum

from kerasext.storage import ClassNames, DenseOutput, PredictionFile, PredictionFileWriter

ROWS = 70
RECORD = "_kerasext/record"
BIG_STEPS = 11  # of 8 MiB each, more than a writer keeps to itself


def make_step(first, rows):
    """A step of outputs of several kinds whose rows tell where they stand."""
    index = np.arange(first, first + rows)
    return {
        "probabilities": np.stack([index, index + 0.5], axis=1).astype("f4"),
        "labels": (index % 2).astype("i4"),
        "head/text": np.array([f"größe {i}" for i in index], "U64"),
    }


def make_file(path, steps=(23, 23, 23, 1), *, complete=True, **arguments):
    """Writes a file with steps of these sizes."""
    writer = PredictionFileWriter(path, **arguments)
    first = 0
    for rows in steps:
        writer.append(make_step(first, rows))
        first += rows
    if complete:
        writer.finish()
    writer.close()
    return path


@pytest.fixture
def predictions(path):
    """An open file of 70 rows."""
    with PredictionFile(make_file(path, class_names=["cat", "dog"])) as predictions:
        yield predictions


def test_is_a_mapping(predictions):
    """A file is a mapping from the names of its outputs to arrays, and ours are not among them."""
    names = ["head/text", "labels", "probabilities"]
    assert isinstance(predictions, Mapping)
    assert sorted(predictions) == sorted(predictions.keys()) == names
    assert len(predictions) == 3
    assert "labels" in predictions
    assert predictions.get("missing") is None
    assert [name in predictions for name in ("head", RECORD, "/labels", "")] == [False] * 4
    for name, output in predictions.items():
        assert isinstance(output, DenseOutput)
        assert output.name == name


def test_outputs(predictions):
    """Each output is what was written."""
    for name, expected in make_step(0, ROWS).items():
        np.testing.assert_array_equal(predictions[name], expected, strict=True)


def test_missing_output(predictions):
    """The error for an output that is not there names those that are."""
    with pytest.raises(KeyError, match=r"head/text.*labels.*probabilities.*Received: 'logits'"):
        predictions["logits"]
    with pytest.raises(KeyError, match="the nearest is 'labels'"):
        predictions["label"]
    assert predictions.get("logits") is None
    assert predictions.get("labels") is predictions["labels"]


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("steps", [(23, 23, 24), (0,), (1,)])
def test_rows_and_completeness(path, steps, complete):
    """Every output has the committed rows, and the file says whether the call came to its end."""
    with PredictionFile(make_file(path, steps, complete=complete)) as predictions:
        assert predictions.rows == sum(steps)
        assert predictions.complete is complete
        assert {len(output) for output in predictions.values()} == {sum(steps)}


def test_rows_without_a_commit_are_not_shown(path):
    """What the record does not count is no row, though it stands in the datasets."""
    make_file(path)
    with h5py.File(path, "r+") as file:
        record = file[RECORD][()]
        record["rows"], record["complete"] = 46, 0
        file[RECORD][()] = with_checksum(record)
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (46, False)
        for name, expected in make_step(0, 46).items():
            np.testing.assert_array_equal(predictions[name], expected, strict=True)
            np.testing.assert_array_equal(predictions[name][-1], expected[-1])


def test_metadata_and_origin(path):
    """The user's metadata, the model's and the origin come back as what they were."""
    attributes = {"metadata": '{"a": [1, "ö"]}', "prediction_metadata": '{"task": "binary"}'}
    make_file(path, attributes={**attributes, "model_name": "net", "size": 32})
    with PredictionFile(path) as predictions:
        assert predictions.metadata == {"a": [1, "ö"]}
        assert predictions.prediction_metadata == {"task": "binary"}
        origin = predictions.origin
        assert origin["model_name"] == "net"
        assert (origin["size"], type(origin["size"])) == (32, int)
        assert origin["batch_size"] is None
        assert origin["h5py_version"] == h5py.__version__
        assert origin.keys() >= {"format", "format_version", "created", "kerasext_version"}
        assert not origin.keys() & attributes.keys()


def test_without_metadata(predictions):
    """A file without metadata has empty ones."""
    assert predictions.metadata == predictions.prediction_metadata == {}


@pytest.mark.parametrize(
    ("outputs", "class_names", "expected"),
    [
        (["labels", "probabilities"], ["cat", "dog"], ["cat", "dog"]),
        (["labels"], ["größe"] * 5000, ["größe"] * 5000),
        (["a/labels", "b/labels"], {"a": ["x"], "b": ["y", "z"]}, {"a": ["x"], "b": ["y", "z"]}),
        (["a/probabilities", "b/labels"], {"a": ["x"]}, {"a": ["x"]}),
        (["deep/er/labels"], {"deep/er": ["x"]}, {"deep/er": ["x"]}),
        (["top_k_labels"], ["cat", "dog"], ["cat", "dog"]),
        (["labels"], None, None),
        (["labels"], [], None),
        (["predictions"], ["cat", "dog"], None),
    ],
    ids=["one", "many", "heads", "some heads", "deep", "top k", "none", "no class", "no labels"],
)
def test_class_names(path, outputs, class_names, expected):
    """Names of the classes are one array, one per head if there are heads, or `None`."""
    writer = PredictionFileWriter(path, class_names=class_names)
    writer.append({name: np.zeros(2) for name in outputs})
    writer.finish()
    with PredictionFile(path) as predictions:
        assert predictions.class_names == expected
        if isinstance(expected, list):
            assert isinstance(predictions.class_names, ClassNames)


def test_names_of_labels(predictions):
    """`class_names[labels]` is the name of every row's class, as often as one asks."""
    for _ in range(2):
        assert predictions.class_names[predictions["labels"][:3]].tolist() == ["cat", "dog", "cat"]


@pytest.mark.parametrize("rows", [1, 23, 35, 69, 70, 71, 10**6, np.int64(40)])
def test_batches(predictions, rows):
    """Batches have the rows asked for, the last one what is left; together they are the file."""
    batches = list(predictions.iter_batches(rows))
    sizes = [len(batch["labels"]) for batch in batches]
    assert sizes == [min(rows, ROWS - start) for start in range(0, ROWS, rows)]
    for name, expected in make_step(0, ROWS).items():
        together = np.concatenate([batch[name] for batch in batches])
        np.testing.assert_array_equal(together, expected, strict=True)


def test_batches_of_no_rows(path):
    """A file without rows has no batches."""
    with PredictionFile(make_file(path, (0,))) as predictions:
        assert list(predictions.iter_batches(5)) == []


@pytest.mark.parametrize("rows", [0, -1])
def test_batches_of_impossible_size(predictions, rows):
    """A size that is not positive is refused at once, not at the first batch."""
    with pytest.raises(ValueError, match=f"rows={rows}$"):
        predictions.iter_batches(rows)


def test_repr(path):
    """The representation says path, rows, state, outputs, classes and origin."""
    make_file(path, [1500], class_names=list("abcdef"), attributes={"model_name": "net"})
    with PredictionFile(path) as predictions:
        text = repr(predictions)
    assert text.startswith(f"<PredictionFile '{path}': 1,500 rows, complete\n")
    assert text.endswith("from model 'net'>")
    for part in (
        "probabilities  float32  (1500, 2)",
        "head/text",
        "6 classes: 'a', 'b', 'c', 'd', ...",
    ):
        assert part in text


def test_repr_of_other_states(path):
    """The representation works for a file that is closed, empty, incomplete or without names."""
    with PredictionFile(make_file(path, (0,), complete=False)) as predictions:
        assert ": 0 rows, incomplete\n" in repr(predictions)
        assert "classes" not in repr(predictions)
        assert "model" not in repr(predictions)
    assert repr(predictions) == f"<PredictionFile '{path}': closed>"


@pytest.mark.parametrize(
    "access",
    [
        lambda predictions: predictions["labels"],
        lambda predictions: "labels" in predictions,
        dict,
        lambda predictions: predictions.class_names,
        lambda predictions: predictions.metadata,
        lambda predictions: predictions.prediction_metadata,
        lambda predictions: predictions.origin,
        lambda predictions: list(predictions.iter_batches(5)),
    ],
)
def test_closed_file(predictions, access):
    """What needs the file is a clear error after closing, and closing again is not."""
    predictions.close()
    predictions.close()
    with pytest.raises(ValueError, match="was closed; open it again"):
        access(predictions)


@pytest.mark.parametrize("access", [lambda out: out[0], lambda out: out[:], np.asarray, list, sum])
@pytest.mark.parametrize("name", ["labels", "head/text"])
def test_output_of_a_closed_file(predictions, name, access):
    """An output that outlives its file is a clear error when it is read."""
    output = predictions[name]
    predictions.close()
    with pytest.raises(ValueError, match="closed"):
        access(output)


def test_context_manager(path):
    """`with` gives the file and closes it, after an error too."""
    make_file(path)
    with pytest.raises(KeyError), PredictionFile(path) as predictions:
        predictions["missing"]
    assert "closed" in repr(predictions)


def test_opening_changes_nothing(path):
    """Reading leaves the file byte for byte, and its folder too."""
    before = make_file(path).read_bytes()
    path.chmod(0o444)
    with PredictionFile(str(path)) as predictions:
        assert sum(predictions["labels"]) == ROWS // 2
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_missing_file(path):
    """A path without a file is an error that repeats it."""
    with pytest.raises(FileNotFoundError, match=path.name):
        PredictionFile(path)


@pytest.mark.parametrize("content", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n", b"\0" * 10_000])
def test_what_is_no_hdf5(path, content):
    """A file of another kind is a ValueError that repeats the path."""
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"must be HDF5.*{path.name}"):
        PredictionFile(path)


def test_folder_in_place_of_a_file(tmp_path):
    """A folder is no file to read."""
    with pytest.raises(ValueError, match="must be HDF5"):
        PredictionFile(tmp_path)


@pytest.mark.parametrize("kept", [0.01, 0.3, 0.9])
def test_truncated_file(path, kept):
    """A file that was cut off, as by a broken copy, is a ValueError."""
    content = make_file(path, [9000]).read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ValueError, match=path.name):
        PredictionFile(path)


@pytest.mark.parametrize("attributes", [{}, {"format": "other"}, {"format": 3}])
@pytest.mark.parametrize("with_record", [False, True])
def test_foreign_hdf5(path, attributes, with_record):
    """An HDF5 file of another kind is a ValueError, and can be written again right after."""
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        file["labels"] = np.zeros(3)
        if with_record:
            file[RECORD] = np.zeros(3)
    with pytest.raises(ValueError, match=f"must be a prediction file.*{path.name}"):
        PredictionFile(path)
    with h5py.File(path, "r+") as file:
        file["more"] = 1


@pytest.mark.parametrize("version", [3, 99])
def test_newer_version(path, version):
    """A file of a newer format says which one, and what to do."""
    make_file(path)
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = version
    with pytest.raises(ValueError, match=f"newer kerasext.*of version {version}"):
        PredictionFile(path)


def remove_record(file):
    """Leaves no record."""
    del file[RECORD]


def replace_record(value):
    """Puts something else in place of the record."""

    def damage(file):
        del file[RECORD]
        if value is None:
            file.create_group(RECORD)
        else:
            file[RECORD] = value

    damage.__name__ = repr(value)
    return damage


def claim_rows(rows):
    """Makes the record count rows that are not there."""

    def damage(file):
        record = file[RECORD][()]
        record["rows"] = rows
        file[RECORD][()] = with_checksum(record)

    damage.__name__ = f"{rows} rows"
    return damage


@pytest.mark.parametrize(
    "damage",
    [
        *(remove_record, replace_record(None), replace_record(3), replace_record(np.zeros(4))),
        *(claim_rows(ROWS + 1), claim_rows(-1), claim_rows(2**62)),
    ],
    ids=lambda damage: damage.__name__,
)
def test_damaged_file(path, damage):
    """A file whose record can't be is a ValueError, at the latest when rows are read."""
    make_file(path)
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(ValueError, match=path.name), PredictionFile(path) as predictions:
        predictions["labels"]


def big_step(number):
    """8 MiB whose rows tell where they stand."""
    index = np.arange(number * 8192, (number + 1) * 8192)
    return {"wide": np.repeat(index[:, None], 256, axis=1).astype("f4"), "index": index}


def check_growing(predictions, appended):
    """A file that is being written shows whole steps, at most what was appended."""
    assert not predictions.complete
    assert predictions.rows % 8192 == 0
    assert predictions.rows <= appended
    assert {len(output) for output in predictions.values()} == {predictions.rows}
    np.testing.assert_array_equal(predictions["index"][:], np.arange(predictions.rows))
    np.testing.assert_array_equal(predictions["wide"][:, 255], np.arange(predictions.rows))


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_reading_beside_the_writer(path, compression):
    """The process that writes a file can read it too, with several readers that come and go."""
    writer = PredictionFileWriter(path, compression=compression)
    writer.append(big_step(0))
    writer.commit()
    first = PredictionFile(path)
    check_growing(first, 8192)
    for number in range(1, BIG_STEPS):
        writer.append({name: array[:-5] for name, array in big_step(number).items()})
        writer.commit()
        writer.append({name: array[-5:] for name, array in big_step(number).items()})
        writer.commit()
        with PredictionFile(path) as another:
            check_growing(another, (number + 1) * 8192)
        assert first.rows == number * 8192
        first.refresh()
        assert first.rows == (number + 1) * 8192
        check_growing(first, first.rows)
    writer.finish()
    first.refresh()
    with PredictionFile(path) as another:
        for predictions in (first, another):
            assert (predictions.rows, predictions.complete) == (BIG_STEPS * 8192, True)
            np.testing.assert_array_equal(predictions["index"], np.arange(predictions.rows))
            predictions.verify()
    first.close()


def test_a_file_left_open(path):
    """A file that nobody closes is no trouble at the exit, whatever holds on to it."""
    make_file(path)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEFT_OPEN, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{ROWS}\n", "")


LEFT_OPEN = """
import ctypes, sys
from kerasext import PredictionFile
kept = PredictionFile(sys.argv[1])
ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept._source.column("labels").h5ds.id))
print(len(kept["labels"][:]))
"""


WRITE = """
import sys
import numpy as np
from kerasext.storage import PredictionFileWriter
writer = PredictionFileWriter(sys.argv[1])
for number in range(int(sys.argv[2])):
    index = np.arange(number * 8192, (number + 1) * 8192)
    writer.append({"wide": np.repeat(index[:, None], 256, axis=1).astype("f4"), "index": index})
    writer.commit()
    print(number, flush=True)
sys.stdin.read()
writer.finish()
"""


def test_reading_what_another_process_writes(path):
    """A file that another process has open for writing can be read meanwhile, by h5py as well."""
    command = [sys.executable, "-W", "error", "-c", WRITE, str(path), str(BIG_STEPS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for number in range(BIG_STEPS):
            assert process.stdout.readline() == f"{number}\n".encode()
            with PredictionFile(path) as predictions:
                check_growing(predictions, BIG_STEPS * 8192)
                assert predictions.rows >= (number + 1) * 8192
        with h5py.File(path, "r", swmr=True, locking=False) as file:
            rows = int(file[RECORD]["rows"])
            np.testing.assert_array_equal(file["index"][:rows], np.arange(rows))
        process.communicate()
        assert process.returncode == 0
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (BIG_STEPS * 8192, True)


READ = """
import sys
from kerasext import PredictionFile
predictions = PredictionFile(sys.argv[1])
for _ in range(3):
    print(predictions.rows, len(predictions["labels"]), *predictions["labels"][:], flush=True)
    sys.stdin.readline()
"""


def test_open_reader_keeps_its_view(path):
    """A reader shows the rows that were committed when it opened, while more are added."""
    make_file(path)
    labels = " ".join(str(label) for label in make_step(0, ROWS)["labels"])
    command = [sys.executable, "-W", "error", "-c", READ, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, bufsize=1, **pipes) as process:
        assert process.stdout.readline() == f"{ROWS} {ROWS} {labels}\n"
        writer = PredictionFileWriter(path, mode="a")
        writer.append(make_step(ROWS, 30))
        process.stdin.write("\n")
        assert process.stdout.readline() == f"{ROWS} {ROWS} {labels}\n"
        writer.finish()
        process.stdin.write("\n")
        assert process.stdout.readline() == f"{ROWS} {ROWS} {labels}\n"
        process.communicate("\n")
    with PredictionFile(path) as predictions:
        np.testing.assert_array_equal(predictions["labels"], make_step(0, ROWS + 30)["labels"])
