"""Pieces of a page. Text is escaped by the serializer, so that nothing has to be trusted."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

MOST_TEXT = 300
"""Characters of a text of the file that are shown."""

Child = ET.Element | str

# Control characters, but for those that end lines, and those that change the direction of text, by
# which a file could show something else than it has.
_SHOWN_AS_ESCAPES = {
    code: ascii(chr(code))[1:-1]
    for code in (
        *range(9),
        *range(11, 32),
        *range(127, 160),
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
    )
}


def tag(kind: str, /, *children: Child, **attributes: str) -> ET.Element:
    """An element with children, of which strings are text.

    Args:
        kind: String. The tag.
        *children: Elements and strings.
        **attributes: Strings. `_` at the end is left out, and stands for `-` elsewhere.
    """
    names = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    element = ET.Element(kind, names)
    for child in children:
        if not isinstance(child, str):
            element.append(child)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + child
        else:
            element.text = (element.text or "") + child
    return element


def table(
    head: Sequence[str], rows: Iterable[Sequence[Child]], *, numbers: Sequence[int], caption: str
) -> ET.Element:
    """A table under its caption.

    Args:
        head: Headings of the columns.
        rows: The cells of each row.
        numbers: Indices of columns with numbers, which stand at the right.
        caption: What the table shows.
    """

    def cell(kind: str, place: int, content: Child) -> ET.Element:
        shown = tag(kind, content, class_="number") if place in numbers else tag(kind, content)
        if kind == "th":
            shown.set("scope", "col")
        return shown

    heading = tag("tr", *(cell("th", place, text) for place, text in enumerate(head)))
    body = [tag("tr", *(cell("td", i, content) for i, content in enumerate(row))) for row in rows]
    return captioned(tag("table", tag("thead", heading), tag("tbody", *body)), caption)


def captioned(content: ET.Element, caption: str) -> ET.Element:
    """A table under its caption, in a box that scrolls, also by the keyboard, where it is wide."""
    box = tag("div", content, class_="scroll", tabindex="0", role="group", aria_label=caption)
    return tag("figure", tag("figcaption", caption), box, class_="table")


def pairs(values: Iterable[tuple[str, Child]]) -> ET.Element:
    """A list of names and values."""
    items = (tag("div", tag("dt", name), tag("dd", value)) for name, value in values)
    return tag("dl", *items)


def short(value: object, most: int = MOST_TEXT) -> str:
    """A text of the file as it is shown, its end left out where it is long."""
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}…"


def document(title: str, style: str, *body: ET.Element) -> bytes:
    """The page as UTF-8."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", style),
    )
    page = tag("html", head, tag("body", *body), lang="en")
    text = ET.tostring(page, encoding="unicode", method="html")
    text = text.translate(_SHOWN_AS_ESCAPES)
    # JSON may have halves of characters, which UTF-8 has not.
    return f"<!DOCTYPE html>\n{text}\n".encode("utf-8", "replace")
