import numpy as np
import pytest

from kerasext.storage.columns.text import encode_text

TEXTS = ["a", "", "longer one", "größe", "ラベル", "a\0b"]


@pytest.mark.parametrize(
    "texts", [TEXTS, ["a", "bc"], [""], []], ids=["mixed", "ascii", "empty", "none"]
)
@pytest.mark.parametrize("kind", ["object", "str", "bytes as objects", "bytes"])
def test_every_kind_of_array(texts, kind):
    """Strings come out as the same UTF-8 from arrays of objects, of `U` and of `S`."""
    content = [text.encode() for text in texts]
    array = {
        "object": lambda: np.array(texts, object),
        "str": lambda: np.array(texts, np.str_),
        "bytes as objects": lambda: np.array(content, object),
        "bytes": lambda: np.array(content, np.bytes_),
    }[kind]()
    encoded = encode_text("ids", array)
    assert encoded.dtype.kind == "S"
    assert encoded.tolist() == content


def test_as_wide_as_the_longest():
    """The width is that of the longest string in bytes of UTF-8, not in characters."""
    assert encode_text("ids", np.array(["ab", "ßß"], object)).dtype == "S4"


def test_keeps_the_shape():
    """Arrays of any shape stay of that shape."""
    assert encode_text("ids", np.array([["a", "b"], ["c", "d"]])).tolist() == [
        [b"a", b"b"],
        [b"c", b"d"],
    ]


@pytest.mark.parametrize("value", [b"\xff", "\ud800"])
@pytest.mark.parametrize("other", [[], ["a"]])
def test_what_is_not_utf8(value, other):
    """Bytes that are not UTF-8, and lone surrogates, are refused and shown."""
    with pytest.raises(ValueError, match="must be UTF-8") as error:
        encode_text("ids", np.array([*other, value], object))
    assert repr(value) in str(error.value)


def test_bytes_of_fixed_width_that_are_not_utf8():
    """Arrays of `S` are looked at, too."""
    with pytest.raises(ValueError, match="must be UTF-8"):
        encode_text("ids", np.array([b"a", b"\xff"]))


@pytest.mark.parametrize("value", ["a\0", b"\0"])
def test_nul_at_the_end(value):
    """A string that would come back shorter is refused."""
    with pytest.raises(ValueError, match="must not end in NUL"):
        encode_text("ids", np.array(["a", value], object))


@pytest.mark.parametrize("value", [None, 1, 1.5, ["a"]])
def test_what_is_no_string(value):
    """Anything but strings is refused by its type."""
    array = np.empty(2, object)
    array[:] = ["a", value]
    with pytest.raises(TypeError, match=f"type {type(value).__name__}"):
        encode_text("ids", array)
