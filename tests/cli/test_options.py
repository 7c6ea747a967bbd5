import argparse

import pytest

from kerasext.cli.options import lines, names, names_or_file, positive


def test_names(tmp_path):
    """Names stand between commas, or one a line in a file."""
    assert names("a, b") == ["a", "b"]
    assert names_or_file("a,b") == ["a", "b"]
    (tmp_path / "names").write_text("a,b\nc d\n")
    assert names_or_file(str(tmp_path / "names")) == ["a,b", "c d"]
    with pytest.raises(argparse.ArgumentTypeError, match=r"no file 'x\.txt'"):
        names_or_file("x.txt")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"\xef\xbb\xbfa\r\nb\r\n", ["a", "b"]),
    ],
)
def test_lines(tmp_path, content, expected):
    """A line for each row: an empty one counts, the end of the last one does not."""
    (tmp_path / "ids.txt").write_bytes(content)
    assert lines(tmp_path / "ids.txt") == expected


def test_positive():
    """Whole numbers from 1 on."""
    assert positive("32") == 32
    for text in ("0", "-1", "1.5", "x", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="from 1 on"):
            positive(text)
