import pytest

from kerasext.storage.format.layout import COLUMNS, check_names, check_not_reserved


@pytest.mark.parametrize(
    "names",
    [
        ["predictions"],
        ["0", "1", "10"],
        ["head/labels", "head/probabilities", "other/labels"],
        ["a/b", "ab", "a b", "A"],
        ["a/b/c", "a/b/d", "a/c"],
        ["größe", "ラベル/確率", "...", "a.b"],
        ["head/_kerasext", "head/ids", "head/targets", "head/row", "head/class"],
        ["class", "ids/a", "targets/a", "row"],
        ["_kerasext2", "rows", "classes", "id"],
    ],
)
def test_usable_names(names):
    """Any path of non-empty parts is a name, and reserved words are free below the root."""
    assert check_names(names) is None


@pytest.mark.parametrize("name", ["_kerasext"])
@pytest.mark.parametrize("rest", ["", "/labels", "/a/b"])
def test_reserved_names(name, rest):
    """A reserved name at the root is refused, alone and as a group, and the error repeats it."""
    with pytest.raises(ValueError, match=f"reserved.*name='{name}{rest}'"):
        check_names(["labels", name + rest])


@pytest.mark.parametrize("name", ["ids", "targets/a", "row"])
def test_columns_are_no_outputs(name):
    """A name that a column needs is refused for an output."""
    assert check_names([name]) is None
    with pytest.raises(ValueError, match=f"reserved.*name='{name}'"):
        check_not_reserved(["labels", name], COLUMNS)


@pytest.mark.parametrize(
    "name", ["", "/", "/a", "a/", "a//b", ".", "..", "a/.", "../a", "a/../b", "\0", "a\0b", "a/b\0"]
)
def test_names_that_are_no_path(name):
    """A name that HDF5 would cut, resolve or take for another one is refused and repeated."""
    with pytest.raises(ValueError, match="path of non-empty parts") as error:
        check_names(["labels", name])
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("names", [["a", "a"], ["x/a", "b", "x/a"]])
def test_duplicates(names):
    """Two outputs never share a dataset."""
    with pytest.raises(ValueError, match=f"same path.*{names[0]!r} twice"):
        check_names(names)


@pytest.mark.parametrize(
    ("parent", "child"), [("a", "a/b"), ("a/b", "a/b/c"), ("a", "a/b/c"), ("0", "0/0")]
)
@pytest.mark.parametrize("swap", [False, True])
def test_dataset_in_place_of_a_group(parent, child, swap):
    """An output at a path where another one needs a group is refused in either order."""
    names = ["z", child, parent] if swap else ["z", parent, child]
    with pytest.raises(ValueError, match=f"needs a group.*{parent!r} and {child!r}"):
        check_names(names)


def test_names_may_come_from_an_iterator():
    """The check sees every name of an iterable that can be read only once."""
    with pytest.raises(ValueError, match="'a' and 'a/b'"):
        check_names(iter(["a/b", "a"]))
