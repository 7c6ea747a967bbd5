import h5py
import numpy as np
import pytest
from recorded import with_checksum

from kerasext.storage import PredictionFile, PredictionFileWriter, RaggedOutput, RaggedRows
from kerasext.storage.columns import dimension_scales as dimensions
from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.dimension_scales import (
    axis_names,
    has_classes_last,
    is_scale,
    make_scales,
)
from kerasext.storage.columns.ragged_spec import RaggedSpec
from kerasext.storage.format.layout import RECORD, SUMS
from kerasext.storage.writing import empty_file

ROWS = 40
NAMES = ["cat", "größe", "ラベル"]
RNG = np.random.default_rng(0)
PROBABILITIES = RNG.random((ROWS, 3), "f4")
LABELS = PROBABILITIES.argmax(axis=1).astype("i4")
CLASSES = {"probabilities": PROBABILITIES, "labels": LABELS, "confidence": PROBABILITIES.max(1)}


def spec(name, *row_shape, dtype="f4"):
    """The spec of a dense output."""
    return DenseSpec(name, row_shape, np.dtype(dtype))


def specs(*row_shapes, **named):
    """Specs of dense outputs of these row shapes by name."""
    return {name: spec(name, *shape) for name, shape in [*row_shapes, *named.items()]}


def ragged_spec(name):
    """The spec of an output whose rows differ in shape."""
    return RaggedSpec(name, 1, spec(name))


def ragged(rows):
    """Rows of 0, 1, 2, 0, ... numbers."""
    lengths = np.arange(rows)[:, None] % 3
    return RaggedRows(np.arange(lengths.sum(), dtype="f4"), lengths)


def write(path, outputs, *, finish=True, steps=3, **options):
    """Writes a file in some steps."""
    writer = PredictionFileWriter(path, **options)
    rows = len(next(iter(outputs.values())))
    for start in range(0, rows or 1, -(-rows // steps) or 1):
        stop = min(start + -(-rows // steps), rows)
        writer.append({name: values[start:stop] for name, values in outputs.items()})
        writer.commit()
    if finish:
        writer.finish()
    writer.close()
    return path


def make(path, specs, columns, *, class_names=None, complete=1):
    """A file made from specs alone, with these columns in it."""
    kinds = {"attributes": {}, "class_names": class_names, "compression": None}
    path.write_bytes(empty_file.content_of(specs, expected_rows=None, **kinds))
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        for name, values in columns.items():
            file[name].resize(len(values), axis=0)
            file[name][:] = values.astype(file[name].dtype)
            rows = len(values)
        record = file[RECORD][()]
        record["rows"], record["data_rows"], record["complete"] = rows, rows, complete
        record["closed"] = 1
        file[RECORD][()] = with_checksum(record)
    return path


@pytest.fixture
def opened():
    """Opens files, or groups of them, in xarray as anybody does who knows nothing of kerasext."""
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")

    def open_dataset(path, group=None):
        with xarray.open_dataset(path, engine="h5netcdf", group=group) as dataset:
            return dataset.load()

    return open_dataset


def check_values(path, opened):
    """All dense outputs are in xarray what `PredictionFile` has, by rows; returns their axes."""
    dims = {}
    with PredictionFile(path) as predictions:
        for name, output in predictions.items():
            if isinstance(output, RaggedOutput):
                continue
            head, _, last = name.rpartition("/")
            variable = opened(path, head or None)[last]
            values = variable.values
            if values.dtype.kind == "S":  # as this engine has text of a fixed width
                values = np.char.decode(values, "utf-8")
            np.testing.assert_array_equal(values, output[:])
            dims[name] = variable.dims
            assert variable.sizes["row"] == predictions.rows
    return dims


# The names


@pytest.mark.parametrize(
    ("name", "shapes", "expected"),
    [
        ("probabilities", {"probabilities": (3,)}, True),
        ("labels", {"labels": (), "probabilities": (3,)}, False),
        ("labels", {"labels": (3,), "probabilities": (3,)}, True),
        ("confidence", {"confidence": (5, 3), "probabilities": (5, 3)}, True),
        ("labels", {"labels": (3,), "probabilities": (3, 3)}, False),  # tokens, each of one class
        ("probabilities", {"probabilities": ()}, False),  # of two classes, one number a row
        ("labels", {"labels": ()}, False),
        ("labels", {"labels": (), "probabilities": ()}, False),
        ("logits", {"logits": (3,), "probabilities": (3,)}, False),
        ("a/labels", {"a/labels": (3,), "a/probabilities": (3,)}, True),
        ("a/labels", {"a/labels": (3,), "probabilities": (3,)}, False),
        ("tokens/labels", {"tokens/probabilities": (3,)}, False),  # it is ragged itself
        ("prediction_set", {"prediction_set": (3,)}, True),
        ("prediction_set", {"prediction_set": (5, 3), "probabilities": (5, 3)}, True),
        ("prediction_set", {"prediction_set": (3,), "probabilities": (4,)}, False),
        ("prediction_set", {"prediction_set": ()}, False),
        ("a/abstained", {"a/abstained": (3,), "a/prediction_set": (3,)}, True),
        ("abstained", {"abstained": (5,), "probabilities": (5, 3)}, False),
        ("abstained", {"abstained": (3,)}, False),
        ("labels", {"labels": (3,), "prediction_set": (3,)}, True),
        ("set_size", {"set_size": (3,), "probabilities": (3,)}, False),
    ],
)
def test_classes_last(name, shapes, expected):
    """Probabilities and sets, and labels of the same shape, have classes on the last axis."""
    assert has_classes_last(name, shapes) is expected


def test_names_of_axes():
    """The first axis is the rows, classes are those of the head, others are named and counted."""
    outputs = specs(
        ("head/probabilities", (3,)),
        ("head/labels", ()),
        ("head/mask", (2, 4)),
        probabilities=(5, 7),
        labels=(5,),
        scalar=(),
    )
    assert axis_names(outputs, ()) == {
        "head/probabilities": ("row", "head/class"),
        "head/labels": ("row",),
        "head/mask": ("row", "head/mask_axis_1", "head/mask_axis_2"),
        "probabilities": ("row", "probabilities_axis_1", "class"),
        "labels": ("row", "labels_axis_1"),
        "scalar": ("row",),
    }


def test_names_that_are_taken():
    """No axis has the name of an output, of a group or of an output whose rows differ in shape."""
    outputs = specs(
        ("a", (2, 2, 2, 2)),
        ("a_axis_1", ()),
        ("a_axis_1_", (2,)),
        ("a_axis_2/x", ()),
        ("h/probabilities", (3,)),
        ("h/class", (3,)),
        ("h/row", (2,)),
        ("g/probabilities", (3,)),
        ("g/class/x", ()),
    ) | {"a_axis_3": ragged_spec("a_axis_3")}
    names = axis_names(outputs, ())
    assert names["a"] == ("row", "a_axis_1__", "a_axis_2_", "a_axis_3_", "a_axis_4")
    assert names["h/probabilities"] == ("row", "h/class_")
    assert names["h/class"] == ("row", "h/class_axis_1")
    assert names["h/row"] == ("row", "h/row_axis_1")
    assert names["g/probabilities"] == ("row", "g/class_")
    assert "a_axis_3" not in names


def test_column_of_row_numbers_names_itself():
    """A column `row` is the scale of the rows, its own too."""
    outputs = specs(row=(), ids=())
    assert axis_names(outputs, {"row", "ids"}) == {"row": ("row",), "ids": ("row",)}


@pytest.mark.parametrize("name", ["row", "row/x", "class", "class/x"])
def test_outputs_named_as_scales(name):
    """An output called as a scale, or a head, leaves the scale another name."""
    outputs = specs((name, ()), probabilities=(3,))
    scales = ["row", "class"]
    expected = tuple(f"{scale}_" if scale == name.split("/")[0] else scale for scale in scales)
    assert axis_names(outputs, ()) == {name: expected[:1], "probabilities": expected}


# The scales


def test_scales_in_plain_h5py(path):
    """Scales are standard ones: of no bytes where there are no values, with names as text."""
    write(path, {**CLASSES, "mask": np.zeros((ROWS, 2, 4), "i1")}, class_names=NAMES)
    with h5py.File(path) as file:
        scales = {"row", "class", "mask_axis_1", "mask_axis_2"}
        assert set(file) == {"_kerasext", "mask", *CLASSES, *scales}
        for name in file:
            if name != "_kerasext":
                assert is_scale(file[name]) == h5py.h5ds.is_scale(file[name].id) == (name in scales)
        for name, axes in axis_names(specs(probabilities=(3,), labels=(), mask=(2, 4)), ()).items():
            found = [dim[0].name for dim in file[name].dims]
            assert found == [f"/{axis}" for axis in axes]
        assert file["class"].asstr()[:].tolist() == NAMES
        assert (file["row"].shape, file["row"].maxshape, file["row"].dtype) == ((0,), (None,), "i8")
        for name, length in {"mask_axis_1": 2, "mask_axis_2": 4}.items():
            assert (file[name].shape, file[name].maxshape) == ((length,), (length,))
            assert file[name].attrs["NAME"].endswith(b"variable.%10d" % length)
        assert [file[name].id.get_storage_size() for name in scales - {"class"}] == [0] * 3


def test_attributes_are_of_a_fixed_width(path):
    """No attribute is text of variable length, which would stand in a heap without a checksum."""
    text = np.array(["ä", "b"] * 20, "U64")
    write(path, {**CLASSES, "text": text, "a/text": text}, class_names=NAMES)
    with h5py.File(path) as file:
        for name in (*CLASSES, "class", "row", "text", "a/text"):
            for attribute in set(file[name].attrs) - {"DIMENSION_LIST", "REFERENCE_LIST"}:
                assert file[name].attrs.get_id(attribute).dtype.kind == "S"


@pytest.mark.parametrize("mark", [None, 1, "text", b"DIMENSION_SCAL", b"DIMENSION_SCALES", ["a"]])
def test_what_is_no_scale(path, mark):
    """A dataset with another mark, or one of another type, is none, and no error."""
    with h5py.File(path, "w") as file:
        file["a"] = 1
        if mark is not None:
            file["a"].attrs["CLASS"] = np.bytes_(mark) if isinstance(mark, bytes) else mark
        assert is_scale(file["a"]) is False


def test_no_scales_for_very_many_axes(path, monkeypatch):
    """Beyond a number of axes, those of the rows included, there are no scales but all rows."""
    outputs = {"a": np.zeros((ROWS, 2)), "b": np.zeros(ROWS)}
    for most, expected in [(3, True), (2, False)]:
        monkeypatch.setattr(dimensions, "_MOST_AXES", most)
        write(path, outputs, mode="w")
        with h5py.File(path) as file:
            assert ("row" in file) is ("a_axis_1" in file) is expected
        with PredictionFile(path) as predictions:
            assert sorted(predictions) == ["a", "b"]
            predictions.verify()


def test_as_many_scales_as_there_may_be(path):
    """At the most axes that get scales, the attributes of a scale fit into its header."""
    outputs = specs(*((f"o{number}", ()) for number in range(dimensions._MOST_AXES)))
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for name in outputs:
            file.create_dataset(name, (0,), maxshape=(None,), chunks=(8,))
        make_scales(file, outputs, ())
        assert len(file["row"].attrs["REFERENCE_LIST"]) == len(outputs)
    # The heap of attributes that are not in a header; the links of the root have the only other.
    assert path.read_bytes().count(b"FRHP") <= 1


# Reading


def test_scales_are_no_outputs(path):
    """The outputs of a file are those that were written, whatever their axes are called."""
    outputs = {
        **CLASSES,
        "h/probabilities": PROBABILITIES,
        "h/row": LABELS,
        "h/x": RNG.random((ROWS, 2)),
        "h/x_axis_1": LABELS,
    }
    with PredictionFile(write(path, outputs, class_names=NAMES)) as predictions:
        assert sorted(predictions) == sorted(outputs)
        predictions.verify()


def test_scale_without_its_mark_is_no_output(path):
    """A scale that lost its mark does not become an output."""
    write(path, {"x": np.zeros((ROWS, 2))})
    for scale in ("x_axis_1", "row"):
        with h5py.File(path, "r+", libver=("v110", "v110")) as file:
            file[scale].attrs["CLASS"] = np.bytes_(b"NO_SCALE")
        with PredictionFile(path) as predictions:
            assert list(predictions) == ["x"]
            predictions.verify()


@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_heap_of_the_scales_is_not_read(path, byte):
    """What scales are attached to is in a heap, without a checksum: its loss costs no row."""
    write(path, CLASSES, class_names=NAMES)
    content = path.read_bytes()
    start = content.index(b"GCOL")
    path.write_bytes(content[:start] + byte * 4096 + content[start + 4096 :])
    with PredictionFile(path) as predictions:
        predictions.verify()
        for name, values in CLASSES.items():
            np.testing.assert_array_equal(predictions[name][:], values)
    write(path, CLASSES, mode="a")
    with PredictionFile(path) as predictions:
        assert predictions.rows == 2 * ROWS


COLUMNS = {
    "ids": np.array([f"ö{number}" for number in range(ROWS)], "U64"),
    "targets": np.arange(ROWS, dtype="i8") % 3,
    "row": np.arange(ROWS, dtype="i8") * 2,
    "x": RNG.random((ROWS, 2)),
}
COLUMN_SPECS = {
    "x": spec("x", 2, dtype="f8"),
    "ids": spec("ids", dtype="S64"),
    "targets": spec("targets", dtype="i8"),
    "row": spec("row", dtype="i8"),
}


def encoded(columns):
    """The same columns with text as bytes."""
    return {
        name: np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values
        for name, values in columns.items()
    }


def test_columns_of_the_data_are_outputs(path):
    """Ids, targets and numbers of rows are read as outputs are; none of them has a scale's name."""
    make(path, COLUMN_SPECS, encoded(COLUMNS))
    with PredictionFile(path) as predictions:
        assert sorted(predictions) == sorted(COLUMNS)
        for name, values in COLUMNS.items():
            np.testing.assert_array_equal(predictions[name][:], values)
        assert "coordinates" not in predictions.origin


def test_row_is_a_column_if_the_file_lists_it(path):
    """The list of outputs decides, and not whether `row` has checksums."""
    make(path, COLUMN_SPECS, encoded(COLUMNS))
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        del file[f"{SUMS}/row"]
    with PredictionFile(path) as predictions:
        assert sorted(predictions) == ["ids", "row", "targets", "x"]


# xarray


def test_xarray_names_rows_and_classes(path, opened):
    """The dimensions are rows and classes, the classes are labelled with their names."""
    write(path, CLASSES, class_names=NAMES)
    assert check_values(path, opened) == {
        "probabilities": ("row", "class"),
        "labels": ("row",),
        "confidence": ("row",),
    }
    dataset = opened(path)
    assert dict(dataset.sizes) == {"row": ROWS, "class": 3}
    assert list(dataset.coords) == ["class"]
    assert dataset["class"].values.tolist() == NAMES
    chosen = dataset["probabilities"].sel({"class": "größe"})
    np.testing.assert_array_equal(chosen.values, PROBABILITIES[:, 1])


@pytest.mark.parametrize("names", [None, ["a", "b"], []])
def test_xarray_without_names_of_classes(path, opened, names):
    """Without names, or with fewer than there are classes, classes are a dimension all the same."""
    write(path, CLASSES, class_names=names)
    assert check_values(path, opened)["probabilities"] == ("row", "class")
    assert dict(opened(path).sizes) == {"row": ROWS, "class": 3}
    assert list(opened(path).coords) == []


def test_xarray_multi_label(path, opened):
    """Where a row has several labels, labels and confidence have the classes too."""
    outputs = dict.fromkeys(CLASSES, PROBABILITIES * 2) | {"logits": PROBABILITIES}
    write(path, outputs, class_names=NAMES)
    dims = check_values(path, opened)
    assert [dims[name] for name in CLASSES] == [("row", "class")] * 3
    assert dims["logits"] == ("row", "logits_axis_1")


@pytest.mark.parametrize("with_probabilities", [True, False])
def test_xarray_prediction_sets(path, opened, with_probabilities):
    """Sets have the dimension and the names of the classes, also without probabilities."""
    sets = PROBABILITIES > 0.5
    size, abstained = sets.sum(1).astype("i4"), LABELS > 1
    outputs = {**CLASSES, "prediction_set": sets, "set_size": size, "abstained": abstained}
    if not with_probabilities:
        del outputs["probabilities"]
    write(path, outputs, class_names=NAMES)
    dims = check_values(path, opened)
    assert dims["prediction_set"] == ("row", "class")
    assert dims["set_size"] == dims["abstained"] == ("row",)
    chosen = opened(path)["prediction_set"].sel({"class": "größe"})
    np.testing.assert_array_equal(chosen.values, sets[:, 1])
    with PredictionFile(path) as predictions:
        assert predictions.class_names == NAMES


def test_xarray_sets_of_labels(path, opened):
    """Of a multi-label head, whether the model abstains has the labels on its last axis."""
    outputs = {
        "tags/labels": (PROBABILITIES > 0.5).astype("i4"),
        "tags/prediction_set": PROBABILITIES > 0.2,
        "tags/set_size": LABELS,
        "tags/abstained": PROBABILITIES < 0.4,
    }
    write(path, outputs, class_names={"tags": NAMES})
    dims = check_values(path, opened)
    for name in ("labels", "prediction_set", "abstained"):
        assert dims[f"tags/{name}"] == ("row", "class")
    assert dims["tags/set_size"] == ("row",)
    assert opened(path, "tags")["class"].values.tolist() == NAMES


def test_xarray_heads(path, opened):
    """Each head has its own classes, and all heads have the rows of the file."""
    kind, size = RNG.random((ROWS, 2)), RNG.random((ROWS, 4, 3))
    outputs = {"kind/probabilities": kind, "deep/size/probabilities": size, "0": kind}
    write(path, outputs, class_names={"kind": ["ü", "v"], "deep/size": NAMES})
    assert check_values(path, opened) == {
        "0": ("row", "0_axis_1"),
        "kind/probabilities": ("row", "class"),
        "deep/size/probabilities": ("row", "probabilities_axis_1", "class"),
    }
    assert opened(path, "kind")["class"].values.tolist() == ["ü", "v"]
    assert opened(path, "deep/size")["class"].values.tolist() == NAMES


def test_xarray_other_axes(path, opened):
    """Further axes are dimensions by the name of the output and their number, of any length."""
    outputs = {
        "embedding": RNG.random((ROWS, 8)).astype("f2"),
        "mask": RNG.random((ROWS, 2, 3)) < 0.5,
        "nothing": np.zeros((ROWS, 0, 2)),
        "words": np.array([["ä", "b"]] * ROWS, "U64"),
        "big": np.arange(ROWS, dtype=">i8"),
    }
    write(path, outputs)
    assert check_values(path, opened) == {
        "embedding": ("row", "embedding_axis_1"),
        "mask": ("row", "mask_axis_1", "mask_axis_2"),
        "nothing": ("row", "nothing_axis_1", "nothing_axis_2"),
        "words": ("row", "words_axis_1"),
        "big": ("row",),
    }


def test_xarray_outputs_with_names_of_axes(path, opened):
    """Outputs that have the names of axes are read, each with its own values."""
    outputs = {
        "x": RNG.random((ROWS, 2)),
        "x_axis_1": RNG.random((ROWS, 3)),
        "h/probabilities": PROBABILITIES,
        "h/class": RNG.random((ROWS, 2)),
        "g/row": LABELS,
        "g/x": LABELS,
    }
    write(path, outputs, class_names={"h": NAMES})
    assert check_values(path, opened) == {
        "x": ("row", "x_axis_1_"),
        "x_axis_1": ("row", "x_axis_1_axis_1"),
        "h/probabilities": ("row", "class_"),
        "h/class": ("row", "class_axis_1"),
        "g/row": ("row",),
        "g/x": ("row",),
    }


def test_xarray_ragged_beside_dense(path, opened):
    """Outputs whose rows differ in shape are groups, which do not disturb the others."""
    outputs = {"labels": LABELS, "tokens": ragged(ROWS), "h/labels": LABELS, "h/t": ragged(ROWS)}
    write(path, outputs, ragged=["tokens", "h/t"])
    assert check_values(path, opened) == {"labels": ("row",), "h/labels": ("row",)}
    assert list(opened(path)) == ["labels"]


def test_xarray_ragged_only(path, opened):
    """A file without dense outputs opens, has no scales and shows where it comes from."""
    write(path, {"tokens": ragged(ROWS)}, ragged=True)
    assert opened(path).attrs["format"] == "kerasext.predictions"
    with h5py.File(path) as file:
        assert set(file) == {"_kerasext", "tokens"}


def test_xarray_no_rows(path, opened):
    """A file of zero rows has its dimensions."""
    write(path, {name: values[:0] for name, values in CLASSES.items()}, class_names=NAMES)
    assert check_values(path, opened)["probabilities"] == ("row", "class")
    assert dict(opened(path).sizes) == {"row": 0, "class": 3}


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_xarray_compressed(path, opened, compression):
    """Compressed outputs have their dimensions, and their values where the filter is there."""
    if compression != "gzip":
        pytest.importorskip("hdf5plugin")
    write(path, CLASSES, class_names=NAMES, compression=compression)
    assert check_values(path, opened)["probabilities"] == ("row", "class")


@pytest.mark.parametrize(("mode", "finish"), [("resume", False), ("a", True)])
def test_xarray_of_a_file_that_went_on(path, opened, mode, finish):
    """Rows that are added later belong to the same dimensions."""
    first = {name: values[:23] for name, values in CLASSES.items()}
    write(path, first, finish=finish, class_names=NAMES)
    assert dict(opened(path).sizes) == {"row": 23, "class": 3}
    rest = {name: values[23:] for name, values in CLASSES.items()}
    write(path, rest, mode=mode, class_names=NAMES)
    assert check_values(path, opened)["probabilities"] == ("row", "class")
    np.testing.assert_array_equal(opened(path)["probabilities"].values, PROBABILITIES)


def test_xarray_shows_what_was_committed(path, opened):
    """A file that was read while it grew, and left incomplete, has its committed rows."""
    writer = PredictionFileWriter(path, class_names=NAMES)
    for start in (0, 10):
        writer.append({name: values[start : start + 10] for name, values in CLASSES.items()})
        writer.commit()
        with PredictionFile(path) as predictions:
            assert (predictions.rows, sorted(predictions)) == (start + 10, sorted(CLASSES))
    writer.close()
    np.testing.assert_array_equal(opened(path)["probabilities"].values, PROBABILITIES[:20])


def test_xarray_columns_of_the_data(path, opened):
    """Numbers of rows label the rows, ids are a coordinate of them; targets are values."""
    make(path, COLUMN_SPECS, encoded(COLUMNS))
    assert set(check_values(path, opened).values()) == {("row",), ("row", "x_axis_1")}
    dataset = opened(path)
    assert sorted(dataset.coords) == ["ids", "row"]
    assert np.char.decode(dataset["ids"].values, "utf-8").tolist() == COLUMNS["ids"].tolist()
    np.testing.assert_array_equal(dataset["row"].values, COLUMNS["row"])
    np.testing.assert_array_equal(dataset["x"].sel(row=4).values, COLUMNS["x"][2])
    assert dataset["targets"].dims == ("row",)


def test_xarray_ids_without_row_numbers(path, opened):
    """Ids are a coordinate of rows that have no numbers, too; and may be numbers themselves."""
    columns = {"ids": np.arange(ROWS) * 7, "x": RNG.random(ROWS)}
    make(path, {"ids": spec("ids", dtype="i8"), "x": spec("x", dtype="f8")}, columns)
    assert list(opened(path).coords) == ["ids"]
    assert opened(path)["ids"].dims == ("row",)
    np.testing.assert_array_equal(opened(path)["ids"].values, columns["ids"])
