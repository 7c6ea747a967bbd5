"""What all results of a fit have in common: checks, and a form that JSON keeps bit for bit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

Numbers = float | tuple[float, ...]
"""A number, or one for each class or label."""


@dataclasses.dataclass(frozen=True)
class Result:
    """A frozen dataclass that converts to a dict of plain Python types and back."""

    def as_json(self) -> dict[str, Any]:
        """The fields as strings, numbers, bools and lists of numbers; NaN becomes `None`."""
        return {
            field.name: _to_json(getattr(self, field.name)) for field in dataclasses.fields(self)
        }

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any]) -> Self:
        """The result that `as_json` was called on.

        Args:
            mapping: Dict, as `as_json` returns it.

        Raises:
            ValueError: If it lacks a field, has another one, or a value is not possible.
        """
        if not isinstance(mapping, Mapping):
            raise ValueError(
                f"A {cls.__name__} must be a dict, as `as_json` returns it. Received: {mapping!r}"
            )
        fields = dataclasses.fields(cls)
        unknown = sorted(set(map(str, mapping)) - {field.name for field in fields})
        missing = [
            field.name
            for field in fields
            if field.name not in mapping and field.default is dataclasses.MISSING
        ]
        if unknown or missing:
            raise ValueError(
                f"A {cls.__name__} must have the keys of `as_json`. "
                f"Received: missing={missing}, unknown={unknown}"
            )
        return cls(**{name: _from_json(value) for name, value in mapping.items()})


def check_numbers(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    positive: bool = False,
    may_be_nan: bool = False,
) -> None:
    """Raises `ValueError` if a field is not a number, or a tuple of numbers, in a range."""
    numbers = value if isinstance(value, tuple) and value else (value,)
    for number in numbers:
        is_number = isinstance(number, int | float | np.floating) and not isinstance(number, bool)
        if is_number and may_be_nan and math.isnan(number):
            continue
        is_fine = is_number and math.isfinite(number) and low <= number <= high
        if not is_fine or (positive and number <= 0):
            wanted = "positive" if positive else f"in [{low:g}, {high:g}]"
            raise ValueError(f"`{name}` must be finite and {wanted}. Received: {name}={value!r}")


def check_single(name: str, value: Any) -> None:
    """Raises `ValueError` if a field is a tuple."""
    if isinstance(value, tuple):
        raise ValueError(f"`{name}` must be one number. Received: {name}={value!r}")


def check_same_length(first: str, one: Any, second: str, other: Any) -> None:
    """Raises `ValueError` if one field has a number for each class or label and another has not."""
    if np.shape(one) != np.shape(other):
        raise ValueError(
            f"`{first}` and `{second}` must both be one number, or have the same length. "
            f"Received: {first}={one!r}, {second}={other!r}"
        )


def check_row_count(value: Any) -> None:
    """Raises `ValueError` if the field `rows` is not a number of rows."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`rows` must be a positive integer. Received: rows={value!r}")


def check_texts(**texts: Any) -> None:
    """Raises `ValueError` if a field is not a string."""
    for name, value in texts.items():
        if not isinstance(value, str):
            raise ValueError(f"`{name}` must be a string. Received: {name}={value!r}")


def as_numbers(values: np.ndarray) -> Numbers:
    """An array of shape `()` or `(n,)` as a Python float or a tuple of them."""
    return float(values) if values.ndim == 0 else tuple(values.astype(float).tolist())


def shown(value: Numbers) -> str:
    """A number, or the range of several, for people."""
    if isinstance(value, tuple):
        known = [number for number in value if not math.isnan(number)]
        if not known:
            return "nan"
        least, most = f"{min(known):.4g}", f"{max(known):.4g}"
        return least if least == most else f"{least} to {most}"
    return f"{value:.4g}"


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_json(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_from_json(entry) for entry in value)
    return math.nan if value is None else value
