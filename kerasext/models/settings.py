"""The settings of the mixins, checked and made immutable."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Set
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from kerasext.calibration import Abstention, Calibration, PredictionSets
from kerasext.models.heads.scores import SCORES
from kerasext.models.heads.tasks import TASKS

Fitted = TypeVar("Fitted", Calibration, PredictionSets, Abstention)


def checked(name: str, value: Any) -> Any:
    """The value of a setting, or of each entry of a dict from head to value, in its one form.

    Raises:
        TypeError: If the value is of the wrong type.
        ValueError: If it is out of range.
    """
    check = SETTINGS[name].check
    if isinstance(value, Mapping) and not SETTINGS[name].is_one(value):
        return MappingProxyType({str(head): check(name, entry) for head, entry in value.items()})
    return check(name, value)


def as_json(value: Any) -> Any:
    """The setting in the types that a Keras config and JSON have."""
    if isinstance(value, Mapping):
        return {head: as_json(entry) for head, entry in value.items()}
    if isinstance(value, Calibration | PredictionSets | Abstention):
        return value.as_json()
    return list(value) if isinstance(value, tuple) else value


def _check_flag(name: str, value: Any) -> bool:
    """Checks a setting that is on or off."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"`{name}` must be True or False. Received: {name}={value!r}")
    return bool(value)


def _numbers_classes(value: Mapping[Any, Any]) -> bool:
    """Whether a dict is from number to name, as `id2label`, or from name to number."""
    if all(isinstance(entry, str) for entry in value.values()):
        # JSON makes text of keys.
        return all(_is_int(key) or (isinstance(key, str) and key.isdecimal()) for key in value)
    return all(map(_is_int, value.values()))


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _in_order(name: str, value: Mapping[Any, Any]) -> list[Any]:
    """The names of a dict from number to name, or from name to number, in the order of numbers."""
    by_number = {
        int(key if isinstance(entry, str) else entry): entry if isinstance(entry, str) else key
        for key, entry in value.items()
    }
    if sorted(by_number) != list(range(len(value))):
        raise ValueError(
            f"`{name}` must be numbered from 0 on, each class once, if it is a dict of numbers. "
            f"Received: {name}={dict(value)!r}"
        )
    return [by_number[number] for number in range(len(value))]


def _check_class_names(name: str, value: Any) -> tuple[str, ...] | None:
    """Checks names of classes, in the order of the model's units."""
    if value is None:
        return None
    if isinstance(value, Mapping) and _numbers_classes(value):
        value = _in_order(name, value)
    if isinstance(value, str | Set | Mapping) or not isinstance(value, Iterable):
        raise TypeError(
            f"`{name}` must be a sequence of strings, a dict from the number of each class to its "
            f"name or from name to number, or a dict of those by head. Received: {name}={value!r}"
        )
    names = tuple(value)
    wrong = [entry for entry in names if not isinstance(entry, str)]
    if wrong or not names:
        raise TypeError(
            f"`{name}` must be a sequence of at least one string. "
            f"Received: {name}={value!r}" + (f" with {wrong[0]!r}" if wrong else "")
        )
    return tuple(map(str, names))


def _check_threshold(name: str, value: Any) -> float | tuple[float, ...]:
    """Checks a threshold on probabilities: a number, or one for each label."""
    try:
        values = np.asarray(value)
    except ValueError:  # a ragged sequence
        values = np.asarray(None)
    if values.dtype.kind not in "fiu":
        values = np.asarray(np.nan)
    if values.ndim > 1 or not values.size or not np.all((values >= 0) & (values <= 1)):
        raise ValueError(
            f"`{name}` must be in [0, 1], one number or one for each label. "
            f"Received: {name}={value!r}"
        )
    return float(values) if values.ndim == 0 else tuple(values.tolist())


def _check_scores(name: str, value: Any) -> tuple[str, ...]:
    """Checks names of scores, and puts them into one order: it makes no other model."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(
            f"`{name}` must be a sequence out of {list(SCORES)}. Received: {name}={value!r}"
        )
    given = tuple(value)
    unknown = [entry for entry in given if entry not in tuple(SCORES)]
    if unknown:
        raise ValueError(
            f"`{name}` must be out of {list(SCORES)}. "
            f"Received: {name}={value!r} with {unknown[0]!r}"
        )
    return tuple(score for score in SCORES if score in given)


def _check_top_k(name: str, value: Any) -> int | None:
    """Checks a number of classes to name."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"`{name}` must be an integer or None. Received: {name}={value!r}")
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1. Received: {name}={value!r}")
    return int(value)


def _check_task(name: str, value: Any) -> str | None:
    """Checks the name of a task."""
    if value is None or (isinstance(value, str) and value in TASKS):
        return value
    near = difflib.get_close_matches(str(value), TASKS, n=1)
    remedy = f"; the nearest is {near[0]!r}" if near else ""
    if value == "auto":
        remedy = "; `from_model` and `suggest_tasks` take or make what the last layers suggest"
    raise ValueError(
        f"`{name}` must be out of {list(TASKS)} or None, one for all heads or a dict by "
        f"head{remedy}. Received: {name}={value!r}"
    )


def _check_scale(name: str, value: Any) -> str | None:
    """Checks what the second half of a regressor's units is."""
    if value not in (None, "std", "log_std"):
        raise ValueError(f"`{name}` must be 'std', 'log_std' or None. Received: {name}={value!r}")
    return value  # type: ignore[no-any-return]


def _fitted(kind: type[Fitted]) -> Setting:
    """A setting that a method of the model fits: an object of a class, or its JSON."""

    def check(name: str, value: Any) -> Fitted | None:
        if value is None or isinstance(value, kind):
            return value
        if isinstance(value, Mapping):
            return kind.from_json(value)
        raise TypeError(
            f"`{name}` must be a `{kind.__name__}`, its `as_json()` or None. "
            f"Received: {name}={value!r}"
        )

    return Setting(None, check, lambda value: not all(map(_may_be_fitted, value.values())))


def _may_be_fitted(value: Any) -> bool:
    return value is None or isinstance(value, Mapping | Calibration | PredictionSets | Abstention)


class Setting(NamedTuple):
    """What a setting is where nobody gave it, and what it must be.

    Args:
        default: The value where nobody gave one.
        check: Function from the name of the setting and a value to the value in its one form.
        is_one: Function from a dict to whether it is one value, not a dict by head.
    """

    default: Any
    check: Callable[[str, Any], Any]
    is_one: Callable[[Mapping[Any, Any]], bool] = lambda _: False


SETTINGS = {
    "from_logits": Setting(False, _check_flag),
    "class_names": Setting(None, _check_class_names, _numbers_classes),
    "scores": Setting((), _check_scores),
    "threshold": Setting(0.5, _check_threshold),
    "top_k": Setting(None, _check_top_k),
    "scale": Setting(None, _check_scale),
    "tasks": Setting(None, _check_task),
    "calibration": _fitted(Calibration),
    "prediction_sets": _fitted(PredictionSets),
    "abstention": _fitted(Abstention),
}
