import pytest

from kerasext.report.markup import document, short, table, tag

EVIL = "<script>&\"'"


def test_text_is_escaped():
    """Strings are text wherever they stand."""
    body = tag("p", EVIL, tag("b", EVIL), EVIL, title=EVIL)
    page = document(EVIL, "p {}", body).decode()
    assert page.count("&lt;script&gt;&amp;\"'") == 4
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')


def test_order_of_children():
    """Text and elements stay in the order that they were given."""
    page = document("", "", tag("p", "a", "b", tag("i", "c"), "d", tag("br"), "e", "f")).decode()
    assert "<p>ab<i>c</i>d<br>ef</p>" in page


def test_names_of_attributes():
    """Attributes may be Python's words, and have hyphens."""
    assert tag("p", class_="x", aria_label="y").attrib == {"class": "x", "aria-label": "y"}


def test_table():
    """Numbers stand at the right, headings are those of their columns, and a caption is above."""
    page = document("", "", table(["A", "B"], [["x", "1"]], numbers=[1], caption="What.")).decode()
    assert "<figcaption>What.</figcaption>" in page
    assert '<th scope="col">A</th><th class="number" scope="col">B</th>' in page
    assert '<td>x</td><td class="number">1</td>' in page


@pytest.mark.parametrize(("value", "expected"), [("abc", "abc"), ("abcd", "abc…"), (12345, "123…")])
def test_short(value, expected):
    """What is long loses its end, and shows that it did."""
    assert short(value, 3) == expected
