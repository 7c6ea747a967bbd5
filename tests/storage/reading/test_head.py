import json
import pickle
import tracemalloc

import h5py
import numpy as np
import pytest

from kerasext.shards import index_shards
from kerasext.storage import Head, PredictionFile, PredictionFileWriter, RaggedRows

ROWS = 70
TASKS = {"kind": "classifier", "sick": "binary", "tags": "multilabel", "age": "regressor"}
NAMES = {"kind": ["cat", "dog", "eel"], "sick": ["no", "yes"], "tags": ["old", "wet"]}
RNG = np.random.default_rng(0)


def make_columns(rows=ROWS):
    """Outputs of four heads with tasks and of one that is passed on, and targets."""
    kind, tags = RNG.dirichlet(np.ones(3), rows).astype("f4"), RNG.random((rows, 2)).astype("f4")
    sick = RNG.random((rows, 1)).astype("f4")
    return {
        "kind/probabilities": kind,
        "kind/labels": kind.argmax(axis=1).astype("i4"),
        "kind/confidence": kind.max(axis=1),
        "sick/probabilities": np.concatenate([1 - sick, sick], axis=1),
        "sick/labels": (sick[:, 0] > 0.5).astype("i4"),
        "sick/confidence": np.maximum(sick, 1 - sick)[:, 0],
        "tags/probabilities": tags,
        "tags/labels": (tags > 0.5).astype("i4"),
        "tags/confidence": np.maximum(tags, 1 - tags),
        "age/prediction": RNG.random(rows).astype("f4"),
        "age/scale": RNG.random(rows).astype("f4"),
        "embedding": RNG.random((rows, 8)).astype("f4"),
        "targets/kind": np.arange(rows) % 3,
    }


def write(path, columns, *, task=None, class_names=None, **attributes):
    """A complete file of these columns."""
    described = {"prediction_metadata": json.dumps({"task": task})}
    ragged = [name for name, values in columns.items() if isinstance(values, RaggedRows)]
    writer = PredictionFileWriter(
        path,
        mode="w",
        attributes={**described, **attributes},
        class_names=class_names,
        ragged=ragged,
    )
    writer.append(columns)
    writer.finish()
    writer.close()
    return path


def write_metadata(path, columns, **metadata):
    """A complete file with these entries of the prediction metadata."""
    return write(path, columns, prediction_metadata=json.dumps(metadata))


@pytest.fixture
def columns():
    """What is stored."""
    return make_columns()


@pytest.fixture
def predictions(path, columns):
    """A file with five heads."""
    write(path, columns, task={**TASKS, "embedding": None, "gone": None}, class_names=NAMES)
    with PredictionFile(path) as predictions:
        yield predictions


def test_heads(predictions, columns):
    """The heads of a file are listed, and each view has the outputs of its group."""
    assert sorted(predictions.heads) == ["age", "embedding", "kind", "sick", "tags"]
    for name, task in TASKS.items():
        head = predictions.head(name)
        assert isinstance(head, Head)
        assert (head.name, head.task) == (name, task)
        assert head.class_names == NAMES.get(name)
        for output in ("probabilities", "labels", "confidence", "prediction", "scale"):
            stored, found = columns.get(f"{name}/{output}"), getattr(head, output)
            assert (found is None) == (stored is None)
            if stored is not None:
                np.testing.assert_array_equal(found[:], stored, strict=True)
    assert [head.is_multilabel for head in map(predictions.head, TASKS)] == [False] * 2 + [
        True,
        False,
    ]
    assert [head.is_regression for head in map(predictions.head, TASKS)] == [False] * 3 + [True]
    assert [head.classes for head in map(predictions.head, TASKS)] == [3, 2, 2, None]


def test_a_head_that_is_passed_on(predictions, columns):
    """A head without a task is its own prediction."""
    head = predictions.head("embedding")
    assert (head.task, head.labels, head.class_names) == (None, None, None)
    assert not head.is_regression
    np.testing.assert_array_equal(head.prediction[:], columns["embedding"])


def test_targets(predictions, path, columns):
    """A head has the targets of its name, else those that all heads share, else none."""
    np.testing.assert_array_equal(predictions.head("kind").targets[:], columns["targets/kind"])
    assert predictions.head("sick").targets is None
    shared = {"a/labels": np.zeros(3, "i4"), "targets": np.ones(3, "i4")}
    with PredictionFile(write(path, shared)) as other:
        assert other.head("a").targets[:].tolist() == [1, 1, 1]


def test_an_output_called_targets(path):
    """An output of the model that is called `targets` is none."""
    outputs = {"labels": np.zeros(3, "i4"), "targets": np.ones(3, "i4")}
    with PredictionFile(write(path, outputs, plain_outputs="targets")) as other:
        assert other.head().targets is None


def test_unknown_heads(predictions):
    """A head that is not there is an error with those that are, and the nearest."""
    with pytest.raises(ValueError, match=r"'kind', 'sick', 'tags'\]; the nearest is 'kind'"):
        predictions.head("knid")
    with pytest.raises(ValueError, match=r"pass `head`, one of \['age', .*Received: head=''"):
        predictions.head()
    with pytest.raises(TypeError, match="Received: head=0"):
        predictions.head(0)


@pytest.mark.parametrize("group", ["", "kind/", "a/b/"])
def test_the_only_head(path, columns, group):
    """The only head with a task needs no name, with a group or without one."""
    outputs = {
        f"{group}{name.removeprefix('kind/')}": rows
        for name, rows in columns.items()
        if name.startswith("kind/")
    }
    head = group.removesuffix("/")
    if group:
        outputs["embedding"] = columns["embedding"]
    task = {head: "classifier", "embedding": None} if group else "classifier"
    with PredictionFile(write(path, outputs, task=task, class_names={head: NAMES["kind"]})) as file:
        view = file.head()
        assert (view.name, view.task, view.class_names) == (head, "classifier", NAMES["kind"])
        np.testing.assert_array_equal(view.labels[:], columns["kind/labels"])


def test_a_head_beside_the_root(path, columns):
    """The head without a name is not the other one."""
    outputs = {"labels": columns["kind/labels"], "a/labels": columns["sick/labels"]}
    with PredictionFile(write(path, outputs, class_names={"": NAMES["kind"]})) as file:
        assert sorted(file.heads) == ["", "a"]
        assert (file.head().class_names, file.head("a").class_names) == (NAMES["kind"], None)


def test_models_without_tasks(path):
    """A file without outputs of a task has one head, which says nothing."""
    with PredictionFile(write(path, {"encoder/mean": np.zeros((3, 2))})) as file:
        assert file.heads == [""]
        head = file.head()
        assert (head.task, head.labels, head.prediction, head.targets) == (None,) * 4
        with pytest.raises(ValueError, match=r"must have the output 'labels'.*\['encoder/mean'\]"):
            head.require("labels")


FITTED = ("calibration", "prediction_sets", "abstention")


def test_what_was_fitted(path):
    """A file of one head has what was fitted in its metadata, as it is stored."""
    outputs = {
        "labels": np.zeros(3, "i4"),
        "prediction_set": np.eye(3, dtype=bool),
        "set_size": np.ones(3, "i4"),
        "abstained": np.array([True, False, True]),
    }
    stored = {name: {"method": name, "rows": 7} for name in FITTED} | {"stale": ["calibration"]}
    with PredictionFile(write_metadata(path, outputs, task="classifier", **stored)) as file:
        head = file.head()
        for name in FITTED:
            assert getattr(head, name) == stored[name]
        assert head.stale == ["calibration"]
        for name in ("prediction_set", "set_size", "abstained"):
            np.testing.assert_array_equal(getattr(head, name)[:], outputs[name], strict=True)
        assert head.classes == 3


def test_what_was_fitted_by_head(path, columns):
    """A dict by head is told by its values, which all are dicts; other heads have nothing."""
    stored = {"calibration": {"kind": {"scale": 2.0}, "tags": {"scale": [1.0, 2.0]}}}
    stored |= {"prediction_sets": {"confidence_level": 0.9}, "stale": {"kind": ["calibration"]}}
    with PredictionFile(write_metadata(path, columns, task=TASKS, **stored)) as file:
        kind, sick, tags = map(file.head, ("kind", "sick", "tags"))
        assert (kind.calibration, sick.calibration) == ({"scale": 2.0}, None)
        assert tags.calibration == {"scale": [1.0, 2.0]}
        assert kind.prediction_sets == sick.prediction_sets == {"confidence_level": 0.9}
        assert kind.abstention is None
        assert (kind.stale, sick.stale) == (["calibration"], [])


@pytest.mark.parametrize("value", [3, "x", [], {}, {"": 3}, {"": {}}, {"other": {}}, None])
def test_what_was_fitted_may_be_anything(path, value):
    """What a file says instead of a dict, or of a list of names, is no error before it is used."""
    stored = dict.fromkeys((*FITTED, "stale"), value)
    with PredictionFile(write_metadata(path, {"labels": np.zeros(3, "i4")}, **stored)) as file:
        head = file.head("")
        assert all(isinstance(getattr(head, name), dict | None) for name in FITTED)
        assert head.stale == []


def test_several_labels_are_told_by_their_sets(path):
    """Without probabilities, labels of the shape of the sets are indicators."""
    sets, labels = np.ones((4, 3), bool), np.zeros((4, 3), "i4")
    with PredictionFile(write(path, {"labels": labels, "prediction_set": sets})) as file:
        assert (file.head().is_multilabel, file.head().classes) == (True, 3)
    with PredictionFile(write(path, {"labels": labels[:, 0], "prediction_set": sets})) as file:
        assert (file.head().is_multilabel, file.head().classes) == (False, 3)


def test_another_threshold_has_no_abstained(path, columns):
    """What is stored of the other labels is not shown with these."""
    columns["sick/abstained"] = np.zeros(ROWS, bool)
    with PredictionFile(write(path, columns, task=TASKS)) as file:
        assert file.head("sick").abstained is not None
        assert file.head("sick").at_threshold(0.2).abstained is None


@pytest.mark.parametrize("task", [3, ["a"], {"": 3}, {"labels": {}}])
def test_tasks_that_are_none(path, task):
    """A task that is no text is none, because a file may say anything."""
    with PredictionFile(write(path, {"labels": np.zeros(3, "i4")}, task=task)) as file:
        assert file.head("").task is None


def test_several_labels_are_told_by_their_shape(path, columns):
    """Without a task, labels of the shape of probabilities are indicators; one axis never is."""
    names = ("tags/labels", "tags/probabilities")
    with PredictionFile(write(path, {name: columns[name] for name in names})) as file:
        assert file.head("tags").is_multilabel
    flat = {"labels": np.zeros(3, "i4"), "probabilities": np.zeros(3, "f4")}
    with PredictionFile(write(path, flat)) as file:
        assert not file.head().is_multilabel


def model_labels(probabilities, threshold):
    """What the multi-label mixin yields."""
    above = probabilities > np.float32(threshold)
    labels = np.where(np.isnan(probabilities), -1, above).astype("i4")
    return labels, np.where(above, probabilities, 1 - probabilities)


@pytest.mark.parametrize("threshold", [0, 0.3, 1, [0.1, 0.9], np.array([0.5, 0.2], "f4")])
def test_labels_at(path, columns, threshold):
    """Labels and confidence by another threshold are those of the model; the file stays."""
    columns["tags/probabilities"][3, 1] = np.nan
    columns["tags/probabilities"][5] = np.float32(0.3)
    write(path, columns, task=TASKS, class_names=NAMES)
    before = path.read_bytes()
    with PredictionFile(path) as file:
        head = file.head("tags")
        labels, confidence = model_labels(columns["tags/probabilities"], threshold)
        found = head.labels_at(threshold)
        assert (found.shape, found.dtype, found.name) == ((ROWS, 2), np.dtype("i4"), "tags/labels")
        np.testing.assert_array_equal(found[:], labels, strict=True)
        moved = head.at_threshold(threshold)
        np.testing.assert_array_equal(moved.confidence[:], confidence, strict=True)
        np.testing.assert_array_equal(moved.labels[:], labels)
        assert (moved.name, moved.task, moved.class_names) == ("tags", "multilabel", NAMES["tags"])
        np.testing.assert_array_equal(head.labels[:], columns["tags/labels"])
        mask = np.arange(ROWS) % 3 == 0
        for key in (7, -1, slice(60, 5, -4), [9, 3, 9], mask, (slice(2, 9), 1), (Ellipsis, 0)):
            np.testing.assert_array_equal(found[key], labels[key])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(found))[:], labels)  # noqa: S301
    assert path.read_bytes() == before
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["tags/labels"][:], columns["tags/labels"])


def test_labels_at_of_a_binary_head(predictions, columns):
    """A binary head has one threshold, on the probability of class 1."""
    negative, positive = columns["sick/probabilities"].T
    head = predictions.head("sick").at_threshold(0.2)
    above = positive > np.float32(0.2)
    np.testing.assert_array_equal(head.labels[:], above.astype("i4"), strict=True)
    np.testing.assert_array_equal(head.confidence[:], np.where(above, positive, negative))


def test_labels_at_the_own_threshold_of_half_precision(path):
    """Half precision is compared as float32, which the mixins do."""
    probabilities = np.array([[0.1], [0.2]], "f2")
    columns = {"probabilities": probabilities, "labels": np.zeros((2, 1), "i4")}
    with PredictionFile(write(path, columns, task="multilabel")) as file:
        threshold = float(probabilities[0, 0]) - 1e-6
        assert file.head().labels_at(threshold)[:, 0].tolist() == [1, 1]


def test_labels_at_of_an_index(tmp_path, columns):
    """An index of several files has heads and other thresholds, too."""
    for shard in range(2):
        rows = {name: values[shard::2] for name, values in columns.items()}
        rows["ids"] = np.arange(ROWS)[shard::2]
        write(tmp_path / f"{shard}.h5", rows, task=TASKS, class_names=NAMES)
    index_shards(tmp_path, index="all.h5")
    with PredictionFile(tmp_path / "all.h5") as file:
        assert sorted(file.heads) == ["age", "kind", "sick", "tags"]
        expected, _ = model_labels(columns["tags/probabilities"], 0.7)
        np.testing.assert_array_equal(file.head("tags").labels_at(0.7)[:], expected)
        np.testing.assert_array_equal(file.head("tags").labels_at(0.7)[[40, 3]], expected[[40, 3]])


@pytest.mark.parametrize(
    ("head", "threshold", "message"),
    [
        ("kind", 0.5, "binary and multi-label heads.* head='kind' of the task 'classifier'"),
        ("age", 0.5, "binary and multi-label heads"),
        ("embedding", 0.5, "binary and multi-label heads"),
        ("sick", [0.5], r"of head 'sick' must be one number in \[0, 1\]\. Received"),
        ("tags", [0.5], "or one for each of its 2 labels"),
        ("tags", 1.1, r"in \[0, 1\], or one for each of its 2 labels\. Received: threshold=1.1"),
        ("tags", np.nan, "threshold=nan"),
        ("tags", "0.5", "threshold='0.5'"),
        ("tags", [[0.5], [0.5, 1]], "or one for each"),
    ],
)
def test_thresholds_that_do_not_fit(predictions, head, threshold, message):
    """A head without thresholds, and a threshold that is none, are errors at once."""
    with pytest.raises(ValueError, match=message):
        predictions.head(head).labels_at(threshold)


@pytest.mark.parametrize(
    ("probabilities", "error", "message"),
    [
        (None, ValueError, "must have the output 'probabilities'"),
        (np.zeros((3, 2), "i4"), TypeError, "Probabilities must be floats"),
        (np.zeros((3, 3), "f4"), ValueError, "the two classes of a binary head"),
        (np.zeros(3, "f4"), ValueError, "on the last axis"),
        (RaggedRows(np.zeros(3, "f4"), np.ones((3, 1), int)), ValueError, "one shape in all rows"),
    ],
)
def test_probabilities_that_are_none(path, probabilities, error, message):
    """Probabilities that are missing, or none of a binary head, are an error at once."""
    columns = {"labels": np.zeros(3, "i4")}
    if probabilities is not None:
        columns["probabilities"] = probabilities
    with (
        PredictionFile(write(path, columns, task="binary")) as file,
        pytest.raises(error, match=message),
    ):
        file.head().labels_at(0.5)


def test_labels_at_reads_in_constant_memory(path):
    """Some rows of labels need the memory of these rows only."""
    probabilities = np.zeros((400_000, 4), "f4")
    columns = {"probabilities": probabilities, "labels": probabilities.astype("i1")}
    with PredictionFile(write(path, columns, task="multilabel")) as file:
        labels = file.head().labels_at(0.5)
        labels[:10]
        tracemalloc.start()
        for start in range(0, 400_000, 10_000):
            labels[start : start + 10_000]
        assert tracemalloc.get_traced_memory()[1] < probabilities.nbytes / 2
        tracemalloc.stop()


def test_it_shows_what_it_has(predictions):
    """A view shows its task and its outputs."""
    assert repr(predictions.head("age")) == "<Head 'age', regressor: age/prediction, age/scale>"


def test_new_rows_are_seen(path):
    """A view of a file that grows has the rows that the file shows after `refresh`."""
    writer = PredictionFileWriter(path, mode="w")
    writer.append({"labels": np.zeros(3, "i4")})
    writer.commit()
    with PredictionFile(path) as file:
        head = file.head()
        assert len(head.labels) == 3
        writer.append({"labels": np.zeros(4, "i4")})
        writer.commit()
        file.refresh()
        assert len(head.labels) == 7
    writer.close()
