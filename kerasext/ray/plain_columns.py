"""The columns of an Arrow table as a prediction file can have them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
_TEXT = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


def plain(table: pa.Table) -> pa.Table:
    """The table without dictionaries, of numbers, booleans and text, and lists of them.

    Tensors of Ray stay as they are.

    Raises:
        TypeError: If a column is something else, naming it.
        ValueError: If a value is missing, in a list, too, naming the column.
    """
    columns = {name: _plain(name, table[name]) for name in table.column_names}
    return pa.table(columns)


def text_bytes(table: pa.Table) -> dict[str, tuple[int, float]]:
    """How wide the text of a table is, where every value is as wide as the longest.

    Args:
        table: What `plain` has returned.

    Returns:
        Dict from each column that is text to the bytes of its longest value, at least 1, and to the
        bytes of a row.
    """
    found = {}
    for name in table.column_names:
        *_, values = _levels(table[name])
        if _is(values.type, _TEXT):
            width = max(pc.max(pc.binary_length(values)).as_py() or 0, 1)
            found[name] = width, width * len(values) / max(table.num_rows, 1)
    return found


def _plain(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_fixed_size_binary(column.type) or pa.types.is_binary_view(column.type):
        column = column.cast(pa.large_binary())
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    for values in _levels(column):
        if values.null_count:
            raise ValueError(
                "Rows must have a value in each column; fill in or drop those without. "
                f"Received: no value in some rows of {name!r}"
            )
    if not isinstance(values.type, pa.BaseExtensionType) and not _is(values.type, _NUMBERS + _TEXT):
        raise TypeError(
            f"Column {name!r} must be of numbers, booleans or text, or of lists of them; cast or "
            f"drop it in a function before. Received: type={column.type}"
        )
    return column


def _levels(column: pa.ChunkedArray) -> Iterator[Any]:
    """A column, what is in its lists, what is in theirs, and so on."""
    yield column
    while _is(column.type, _LISTS):
        column = pc.list_flatten(column)
        yield column


def _is(kind: pa.DataType, tests: Any) -> bool:
    return any(test(kind) for test in tests)
