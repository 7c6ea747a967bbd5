"""Which mixin a plain model is dressed in, by its output or as the user says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kerasext.cli.messages import InputError

if TYPE_CHECKING:
    import keras

KINDS = ("classifier", "binary", "multilabel", "plain")


def wrap_model(
    model: keras.Model,
    kind: str | None,
    *,
    from_logits: bool,
    class_names: Sequence[str] | None,
) -> tuple[keras.Model, str]:
    """Dresses a model in a mixin, unless it has one.

    Args:
        model: The model.
        kind: String out of `KINDS`; `None` for what the output suggests: a classifier for a
            softmax over two units or more, binary for one unit with a sigmoid, multilabel for
            several, else plain. With `from_logits`, where the last layer has no activation, a
            classifier for two units or more, else binary. Of several heads all must be the same.
        from_logits: Bool. Setting of the mixin.
        class_names: Setting of the mixin.

    Returns:
        Tuple of the model, and what to tell the user.

    Raises:
        InputError: If the model has a mixin of another kind, or prediction methods of its own that
            would be lost, or settings are given for none.
        TypeError: See `ClassifierModel.from_model`.
        ValueError: If the output is not what the mixin takes.
    """
    import kerasext.models as ready  # noqa: PLC0415 - needs Keras
    from kerasext.keras_internals import (  # noqa: PLC0415 - needs Keras
        PREDICTION_METHODS,
        listed,
        own_methods,
    )

    settings: dict[str, Any] = {}
    if from_logits:
        settings["from_logits"] = True
    if class_names is not None:
        settings["class_names"] = class_names
    own = getattr(model, "task", None) if hasattr(model, "prediction_metadata") else None
    if own is not None:
        if kind not in (None, own):
            raise InputError(f"The model is a {own} model already. Received: --as {kind}")
        for name, value in settings.items():
            setattr(model, name, value)
        return model, f"model {model.name!r} is a {own} model"
    said, choose = "as asked", ""
    if kind is None:
        kind, possible, said = _suggested(model, from_logits=from_logits)
        others = "|".join(other for other in possible if other != kind)
        choose = f"; --as {others} chooses otherwise" if others else ""
    if kind == "plain":
        if settings:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in settings)
            raise InputError(
                f"{options} can't be used with a model that is stored plain, {said}{choose}."
            )
        return model, f"model {model.name!r} is stored plain, {said}{choose}"
    own = own_methods(model, *PREDICTION_METHODS)
    if own:
        raise InputError(
            f"{listed(own)} would be lost in a {kind} model; --as plain stores what the model's "
            "own `predict` returns. For labels, add a mixin to the model's class before it is "
            "saved, and --import its module. "
            f"Received: {model.name!r}, {said}"
        )
    ready_made = {
        "classifier": ready.ClassifierModel,
        "binary": ready.BinaryClassifierModel,
        "multilabel": ready.MultiLabelClassifierModel,
    }[kind]
    dressed = ready_made.from_model(model, **settings)
    return dressed, f"model {model.name!r} is stored as {kind}, {said}{choose}"


def _suggested(model: keras.Model, *, from_logits: bool) -> tuple[str, Sequence[str], str]:
    """The kind that the outputs suggest, those that are possible, and why."""
    from kerasext.models import graph  # noqa: PLC0415 - needs Keras

    outputs = graph.outputs(model)
    if outputs is None:
        return "plain", KINDS, "because its file does not tell its last layer"
    kinds, units_of_heads, reasons = set(), set(), []
    for head, tensor in graph.heads(outputs).items():
        units = tensor.shape[-1] if len(tensor.shape) > 1 else None
        activation = graph.activation(model, head)
        kinds.add(_kind_of(activation, units, from_logits=from_logits))
        units_of_heads.add(units)
        of_head = f"{head!r} " if head else ""
        reasons.append(f"{of_head}{activation or 'an unknown layer'} over {units} units")
    possible = ["plain"]
    if len(kinds) == 1 and units_of_heads == {1}:
        possible = ["binary", "plain"]
    elif len(kinds) == 1 and not units_of_heads & {1, None}:
        possible = ["classifier", "multilabel", "plain"]
    kind = kinds.pop() if len(kinds) == 1 else "plain"
    return kind, possible, f"because it ends in {', '.join(reasons)}".replace(" 1 units", " 1 unit")


def _kind_of(activation: str | None, units: int | None, *, from_logits: bool) -> str:
    is_one = units == 1
    if activation == "sigmoid" and units is not None:
        return "binary" if is_one else "multilabel"
    if (activation == "softmax" or (from_logits and activation == "linear")) and units is not None:
        if not is_one:
            return "classifier"
        return "binary" if from_logits else "plain"
    return "plain"
