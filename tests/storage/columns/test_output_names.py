import pytest

from kerasext.storage.columns.output_names import find_outputs

NAMES = ["labels", "head/labels", "head/deep/x", "heads", "a/b"]


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ([], []),
        (["heads", "labels"], ["heads", "labels"]),
        (["head"], ["head/labels", "head/deep/x"]),
        (["head/deep", "head", "a"], ["head/deep/x", "head/labels", "a/b"]),
        (("labels", "labels"), ["labels"]),
        (iter(["a/b"]), ["a/b"]),
    ],
)
def test_outputs_and_groups(chosen, found):
    """In the order asked for, each once, groups with all that is in them."""
    assert find_outputs(NAMES, chosen, argument="outputs") == found


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("label", "the nearest is 'labels'"),
        ("hed", "the nearest is 'head'"),
        ("head/dep", "the nearest is 'head/deep'"),
        ("head/", "the nearest is 'head'"),
        ("zzz", "they are .'a/b', 'head/deep/x', 'head/labels', 'heads', 'labels'."),
        ("", "they are "),
    ],
)
def test_the_nearest_is_suggested(name, remedy):
    """An output or a group; all outputs where none is near."""
    message = f"`keep` must name outputs of it, or groups of them; {remedy}.* Received: {name!r}"
    with pytest.raises(ValueError, match=message):
        find_outputs(NAMES, ["labels", name], argument="keep", where="of it")


@pytest.mark.parametrize(
    ("name", "remedy"), [("head", "the nearest is 'heads'"), (0, "they are"), ("a", "they are")]
)
def test_where_no_group_will_do(name, remedy):
    """Groups are neither found nor suggested, and keys need not be strings."""
    message = f"`dtypes` must name outputs that are written; {remedy}.* Received: {name!r}"
    with pytest.raises(ValueError, match=message):
        find_outputs(NAMES, {name: "f4"}, argument="dtypes", groups=False)
