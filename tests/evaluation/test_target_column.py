import h5py
import numpy as np
import pytest

from kerasext.evaluation.target_column import TargetColumn
from kerasext.storage import PredictionFile, RaggedRows

CLASSES = np.array([2, 0, 1, 2, 1])
LABELS = np.zeros(5, "i4")


def read(
    store,
    targets=None,
    columns=(),
    *,
    head="",
    labels=LABELS,
    is_multilabel=False,
    classes=None,
    names=None,
):
    """Targets of all rows, as they are compared."""
    under = f"{head}/" if head else ""
    stored = {f"{under}labels": labels, **dict(columns)}
    if classes and not names:
        stored[f"{under}probabilities"] = np.zeros((*labels.shape, classes), "f4")
    options = {"class_names": {head: names}} if names else {}
    task = "multilabel" if is_multilabel else None
    with PredictionFile(store(stored, task=task, **options)) as predictions:
        column = TargetColumn(predictions, predictions.head(head), targets)
        return column.read(slice(0, 2)).tolist() + column.read(slice(2, 5)).tolist()


@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", "i8", "u8", ">i2", "f2", "f4", "f8"])
@pytest.mark.parametrize("form", ["flat", "column", "one-hot"])
def test_forms(store, dtype, form):
    """Classes may be whole numbers of any dtype, with an axis of length 1, or one-hot."""
    values = {"flat": CLASSES, "column": CLASSES[:, None], "one-hot": np.eye(3)[CLASSES]}[form]
    assert read(store, targets=values.astype(dtype)) == CLASSES.tolist()
    assert read(store, "truth", {"truth": values.astype(dtype)}) == CLASSES.tolist()


@pytest.mark.parametrize("form", ["flat", "column", "one-hot"])
def test_tokens(store, form):
    """So it is where a row has further axes."""
    classes = np.arange(10).reshape(5, 2) % 3
    values = {"flat": classes, "column": classes[..., None], "one-hot": np.eye(3)[classes]}[form]
    assert read(store, values, labels=np.zeros((5, 2), "i4")) == classes.tolist()


def test_one_hot_of_other_classes(store):
    """Where the classes are known, one-hot targets have as many."""
    one_hot = np.eye(3)[CLASSES]
    assert read(store, one_hot, classes=3) == CLASSES.tolist()
    with pytest.raises(ValueError, match=r"axis, of length 1 or 4\. Received.*\(5, 3\)"):
        read(store, one_hot, classes=4)


def test_booleans(store):
    """Booleans are 0 and 1."""
    assert read(store, np.array([True, False, True, True, False])) == [1, 0, 1, 1, 0]


def test_several_labels(store):
    """Several labels a row are as many indicators, no classes one-hot."""
    indicators = np.arange(15).reshape(5, 3) % 2
    labels = np.zeros((5, 3), "i4")
    assert read(store, indicators, labels=labels, is_multilabel=True) == indicators.tolist()
    with pytest.raises(ValueError, match=r"shape of the labels, \(5, 3\)\. Received"):
        read(store, indicators[..., None], labels=labels, is_multilabel=True)


def test_columns_of_the_file(store):
    """Targets of the head come first, and any column can be named."""
    columns = {"targets": CLASSES, "other": CLASSES[::-1]}
    assert read(store, None, columns, head="a") == CLASSES.tolist()
    assert read(store, "other", columns) == CLASSES[::-1].tolist()
    nested = {"targets/a": CLASSES, "targets/b": CLASSES[::-1]}
    assert read(store, None, nested, head="b") == CLASSES[::-1].tolist()
    assert read(store, "targets/b", nested) == CLASSES[::-1].tolist()


def test_lists_and_datasets(store, tmp_path):
    """Lists are good, and what is read lazily is not read at once."""
    assert read(store, CLASSES.tolist()) == CLASSES.tolist()
    with h5py.File(tmp_path / "targets.h5", "w") as file:
        assert read(store, file.create_dataset("y", data=CLASSES)) == CLASSES.tolist()


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (None, ValueError, r"'targets'; predict with `targets=True`.*a file with \['labels'\]"),
        ("truth", ValueError, r"must have the column 'truth'.*a file with \['labels'\]"),
        (CLASSES[:4], ValueError, r"shape of the labels, \(5,\).*of shape \(4,\)"),
        (np.eye(3)[CLASSES][None], ValueError, r"of shape \(1, 5, 3\)"),
        (CLASSES.astype("U1"), TypeError, "names of classes only if.*without `class_names`"),
        (CLASSES.astype("c8"), TypeError, "the numbers of the classes.*dtype complex64"),
        (CLASSES / 2, ValueError, r"whole numbers.*from 0\.5 to 1\.0"),
        (np.where(CLASSES, CLASSES, np.nan), ValueError, "whole numbers"),
        (CLASSES - 1, ValueError, "numbers of classes; rows without one.*from -1 to 1"),
        (CLASSES.astype("u8") + 2**63, ValueError, "numbers of classes"),
        (np.eye(3)[CLASSES] * 2, ValueError, "one 1 and otherwise 0"),
        (1 - np.eye(3)[CLASSES], ValueError, "one 1 and otherwise 0"),
        (np.eye(3)[CLASSES] * 0.5, ValueError, "whole numbers, not probabilities"),
    ],
)
def test_what_is_no_target(store, targets, error, message):
    """Each thing that is none is told with what it is, and what to do."""
    with pytest.raises(error, match=message):
        read(store, targets)


NAMES = ["ant", "größe", "cat"]


@pytest.mark.parametrize("form", ["list", "U", "S", "object", "column", "stored"])
def test_names(store, form):
    """Targets may be the names of the classes, in any form that text has."""
    names = [NAMES[number] for number in CLASSES]
    targets = {
        "list": names,
        "U": np.array(names),
        "S": np.char.encode(names, "utf-8"),
        "object": np.array(names, object),
        "column": np.array(names)[:, None],
        "stored": None,
    }[form]
    columns = {"targets": np.array(names)} if form == "stored" else {}
    assert read(store, targets, columns, classes=3, names=NAMES) == CLASSES.tolist()


@pytest.mark.parametrize(
    ("names", "is_multilabel", "error", "message"),
    [
        (None, False, TypeError, "without `class_names`"),
        (NAMES, True, TypeError, "several labels a row"),
        (["ant", "bee", "kat"], False, ValueError, "the nearest is 'kat'.*with 'cat'"),
        (["cat", "bee", "cat"], False, ValueError, "no two have the same"),
    ],
)
def test_names_that_are_none(store, names, is_multilabel, error, message):
    """Names that are not those of the file, or of no one class, are refused."""
    labels = np.zeros((5, 1) if is_multilabel else 5, "i4")
    targets = np.full(labels.shape, "cat")
    with pytest.raises(error, match=message):
        read(store, targets, labels=labels, is_multilabel=is_multilabel, names=names)


def test_nested_targets_without_a_head(store):
    """Where targets are nested, those that there are, are told."""
    with pytest.raises(ValueError, match=r"Received: a file with \['targets/a', 'targets/b'\]"):
        read(store, None, {"targets/a": CLASSES, "targets/b": CLASSES})


def test_ragged_targets(store):
    """Targets whose rows differ in shape are refused by name."""
    targets = RaggedRows(np.arange(10), np.array([[4], [0], [3], [2], [1]]))
    with pytest.raises(ValueError, match=r"Rows of different shapes.*'truth'"):
        read(store, "truth", {"truth": targets})
