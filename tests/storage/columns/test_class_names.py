import numpy as np
import pytest

from kerasext.storage import ClassNames

NAMES = ["cat", "größe", "ラベル"]


@pytest.fixture
def names():
    """Names of three classes."""
    return ClassNames(NAMES)


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("kind", [int, np.int32, np.uint8, np.int64, np.array])
def test_name_of_a_label(names, label, kind):
    """One label, of whatever integer type, gives one `str`."""
    assert names[kind(label)] == NAMES[label]
    assert type(names[kind(label)]) is str


def test_no_label(names):
    """The label -1 of a row without a prediction is the empty string, not the last class."""
    assert names[-1] == ""
    assert names[[2, -1, 0, -1]].tolist() == ["ラベル", "", "cat", ""]


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3, 1)])
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint64"])
def test_names_of_an_array(names, shape, dtype):
    """Labels of any shape give names of that shape."""
    labels = np.array([0, 1, 2, 2, 1, 0], dtype).reshape(shape)
    np.testing.assert_array_equal(names[labels], np.array(NAMES)[labels], strict=True)


@pytest.mark.parametrize("labels", [[2, 0], (0, 0, 1), range(3), [[0, 1], [2, -1]]])
def test_names_of_nested_sequences(names, labels):
    """Lists, tuples and ranges of labels work like arrays."""
    expected = np.array([*NAMES, ""])[np.array(labels)]
    np.testing.assert_array_equal(names[labels], expected, strict=True)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
@pytest.mark.parametrize("dtype", ["int32", "float64"])
def test_names_of_no_labels(names, shape, dtype):
    """Empty arrays, and the empty list, which NumPy takes for floats, give empty arrays."""
    assert names[np.zeros(shape, dtype)].shape == shape
    assert names[[]].shape == (0,)


@pytest.mark.parametrize("labels", [3, -2, [0, 3], [[0, -2]], np.array([2**63], "u8"), 2**31 - 1])
def test_labels_of_no_class(names, labels):
    """A label that no class has is an error with the range, never another class."""
    with pytest.raises(IndexError, match="from 0 to 2"):
        names[labels]


@pytest.mark.parametrize("mask", [[True, False, True], np.array([False, True, False]), [False] * 3])
def test_names_of_a_mask(names, mask):
    """A row of indicators gives the names of the classes that are on."""
    expected = [name for name, on in zip(NAMES, mask, strict=True) if on]
    assert names[mask].tolist() == expected


@pytest.mark.parametrize("mask", [[True], [True] * 4, np.ones((2, 3), bool)])
def test_mask_of_another_length(names, mask):
    """A mask of another length than there are classes is an error."""
    with pytest.raises(IndexError):
        names[mask]


@pytest.mark.parametrize("labels", [1.0, [0.5], np.array([1], "f4")])
def test_labels_that_are_no_integers(names, labels):
    """Probabilities in place of labels are an error."""
    with pytest.raises(IndexError):
        names[labels]


@pytest.mark.parametrize(
    "key", [np.s_[:], np.s_[1:], np.s_[:-1], np.s_[::-1], np.s_[-2:], np.s_[5:], np.s_[-9:1]]
)
def test_slices(names, key):
    """A slice counts over the classes only, as it does for a list."""
    assert list(names[key]) == NAMES[key]


def test_is_a_sequence(names):
    """Length, iteration, membership and lookup are those of the list of names."""
    assert len(names) == 3
    assert list(names) == NAMES
    assert [type(name) for name in names] == [str] * 3
    assert list(reversed(names)) == NAMES[::-1]
    assert "cat" in names
    assert "dog" not in names
    assert "" not in names
    assert names.index("ラベル") == 2
    assert names.count("cat") == 1


def test_equality(names):
    """Equal are the same names in the same order, also as a list; hashes agree."""
    assert names == ClassNames(NAMES)
    assert names == NAMES
    assert names != NAMES[::-1]
    assert names != NAMES[:2]
    assert names != 3
    assert hash(names) == hash(ClassNames(iter(NAMES)))


def test_a_string_is_not_its_letters():
    """Names of one letter each are not equal to the word that they spell."""
    assert ClassNames("ab") != "ab"


def test_as_an_array(names):
    """NumPy takes it for the array of the names, of its own that may be changed."""
    array = np.asarray(names)
    np.testing.assert_array_equal(array, np.array(NAMES))
    assert np.asarray(names, dtype=object).tolist() == NAMES
    array[0] = "x"
    assert names[0] == "cat"


def test_no_classes():
    """No names at all is a sequence of none, where only -1 has a name."""
    names = ClassNames([])
    assert (len(names), list(names), names[-1]) == (0, [], "")
    assert np.asarray(names).shape == (0,)
    with pytest.raises(IndexError):
        names[0]


def test_repr(names):
    """The representation shows the names and can be pasted back."""
    assert repr(names) == f"ClassNames({NAMES!r})"
