"""Whether the heads of a model are what its tasks and settings say."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import keras

from kerasext.models.heads.tasks import FITTED, TASKS, ModelHead


def check_same_heads(heads: Collection[str], before: Collection[str]) -> None:
    """Checks that a call returns the heads of the call before.

    Raises:
        ValueError: If it returns others.
    """
    if before and set(heads) != set(before):
        raise ValueError(
            "A model must return the same heads in every call; return all of them each time, "
            f"or make a model for each set of heads. Received: {_shown(heads)} after "
            f"{_shown(before)}"
        )


def check_heads(heads: Mapping[str, tuple[ModelHead, Any]], settings: Mapping[str, Any]) -> None:
    """Checks heads against the settings of their model.

    Args:
        heads: Dict from name to the head and its tensor, symbolic or not.
        settings: Dict from the name of a setting to its value, by head or for all.

    Raises:
        ValueError: If a setting by head names one that does not exist, or that does not have it; or
            a tensor is not what the task of its head takes.
    """
    for name, value in settings.items():
        for head in sorted(value) if isinstance(value, Mapping) else ():
            if head not in heads:
                near = difflib.get_close_matches(head, heads, n=1)
                raise ValueError(
                    f"`{name}` given as a dict must be by head, and the model has "
                    f"{_shown(heads)}{f'; the nearest is {near[0]!r}' if near else ''}. "
                    f"Received: {name} for {[head]}"
                )
            if name != "tasks":
                _check_has(heads[head][0], name)
    for head, tensor in heads.values():
        if head.task is not None:
            _check_head(head, tensor)


def _shown(heads: Iterable[str]) -> str:
    heads = sorted(heads)
    return "one output only" if heads == [""] else f"the heads {heads}"


def _check_has(head: ModelHead, setting: str) -> None:
    if not head.has(setting):
        of = [task.name for task in TASKS.values() if setting in task.settings]
        raise ValueError(
            f"`{setting}` is a setting of heads with one of the tasks {of}; drop it for head "
            f"{head.name!r}, or give that another task with `tasks`. "
            f"Received: {setting} for {[head.name]}, whose task is {head.task!r}"
        )


def _check_head(head: ModelHead, tensor: Any) -> None:
    task = TASKS[head.task or ""]
    dtype = getattr(tensor, "dtype", None)
    if dtype is None or not keras.backend.is_float_dtype(dtype):
        what = "a number" if task.name == "regressor" else "probabilities or logits"
        shown = None if dtype is None else keras.backend.standardize_dtype(dtype)
        raise ValueError(
            f"The output{head.of} must be floating point, {what}; "
            f"{head.way_to(None)} passes on a head as it is. Received: dtype={shown}"
        )
    classes = task.check_shape(head)
    names = head.setting("class_names") if head.has("class_names") else None
    if names is not None and classes is not None and len(names) != classes:
        raise ValueError(
            f"`class_names` must name each of the {classes} classes{head.of}. "
            f"Received: {len(names)} names"
        )
    if head.from_logits and head.activation in ("softmax", "sigmoid"):
        raise ValueError(
            f"`from_logits=True` needs logits, but the last layer{head.of} applies "
            f"{head.activation}; drop `from_logits`, or the activation. Received: from_logits=True"
        )
    task.check_settings(head)
    for name in FITTED:
        fitted = head.setting(name) if head.has(name) else None
        if fitted is not None:
            _check_fitted(head, name, fitted, classes)


def _check_fitted(head: ModelHead, name: str, fitted: Any, classes: int | None) -> None:
    """Checks that what was fitted has a number for each class, or label, of the head."""
    values = fitted.scale if name == "calibration" else fitted.threshold
    fits = not isinstance(values, tuple) or classes in (None, len(values))
    if name == "calibration":
        fits &= (fitted.method == "platt") == (head.task != "classifier")
        fits &= head.task == "classifier" or isinstance(values, tuple) == (
            head.task == "multilabel"
        )
    if not fits:
        raise ValueError(
            f"`{name}` must be fitted on a head of this kind; fit it again{head.of}. "
            f"Received: {name}={fitted!r} for a {head.task} with {classes} classes"
        )


def warn_of_activation(head: ModelHead, model_class: str, *, has_tasks: bool) -> None:
    """Warns if the last layer of a head does not yield what its task takes.

    Args:
        head: The head.
        model_class: String. The name of the class, for the warning.
        has_tasks: Bool. Whether the user gave the heads their tasks.
    """
    expected = None if head.task is None else TASKS[head.task].activation
    if expected is None or head.from_logits or head.activation in (None, expected):
        return
    if head.activation == "linear":
        flag = f"{{{head.name!r}: True}}" if head.name else "True"
        remedy = f"pass `from_logits={flag}` if it yields logits"
        if head.name:
            remedy += f", or {head.way_to(None)} if it is no classifier"
    elif head.activation in ("softmax", "sigmoid"):
        remedy = "use a task that fits" if has_tasks else "use the mixin that fits it"
    else:
        return
    warnings.warn(
        f"{model_class} expects probabilities from a last layer with "
        f"activation='{expected}'; {remedy}. "
        f"Received: activation='{head.activation}'{head.of}",
        stacklevel=2,
    )
