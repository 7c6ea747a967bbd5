"""Which mixin a plain model is dressed in, by its output or as the user says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kerasext.cli.messages import InputError

if TYPE_CHECKING:
    import keras

    from kerasext.models import PredictionMixin

KINDS = ("classifier", "binary", "multilabel", "regressor", "plain")


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
        kind: String out of `KINDS`; `None` for what `suggest_tasks` suggests for each head, and
            plain if that is nothing.
        from_logits: Bool. Setting of the mixin; of several heads for those that are linear, unless
            all have the same task.
        class_names: Setting of the mixin.

    Returns:
        Tuple of the model, and what to tell the user.

    Raises:
        InputError: If the model has a mixin of another kind, or settings are given for none.
        TypeError: See `ClassifierModel.from_model`.
        ValueError: If the output is not what the mixin takes.
    """
    import kerasext.models as ready  # noqa: PLC0415 - needs Keras

    settings: dict[str, Any] = {}
    if from_logits:
        settings["from_logits"] = True
    if class_names is not None:
        settings["class_names"] = class_names
    if isinstance(model, ready.PredictionMixin):
        return model, _keep_mixin(model, kind, settings)
    task: str | dict[str, str | None] | None = None if kind == "plain" else kind
    said, choose = "as asked", ""
    if kind is None:
        task, possible, said = _suggested(model, from_logits=from_logits)
        others = "|".join(other for other in possible if other != (task or "plain"))
        choose = f"; --as {others} chooses otherwise" if others else ""
    if task is None:
        if settings:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in settings)
            raise InputError(
                f"{options} can't be used with a model that is stored plain, {said}{choose}."
            )
        return model, f"model {model.name!r} is stored plain, {said}{choose}"
    dressed = _dress(model, task, settings)
    return dressed, f"model {model.name!r} is stored as {_shown(task)}, {said}{choose}"


def _keep_mixin(model: PredictionMixin, kind: str | None, settings: dict[str, Any]) -> str:
    """Gives a model that has a mixin the settings, and tells the user."""
    task = model.prediction_metadata()["task"]
    if kind not in (None, task):
        raise InputError(f"The model is a {_shown(task)} model already. Received: --as {kind}")
    for name, value in settings.items():
        setattr(model, name, value)
    return f"model {model.name!r} is a {_shown(task)} model"


def _dress(
    model: keras.Model, task: str | dict[str, str | None], settings: dict[str, Any]
) -> keras.Model:
    import kerasext.models as ready  # noqa: PLC0415 - needs Keras

    if isinstance(task, str):
        ready_made: dict[str, type[ready.FromModel]] = {
            "classifier": ready.ClassifierModel,
            "binary": ready.BinaryClassifierModel,
            "multilabel": ready.MultiLabelClassifierModel,
            "regressor": ready.RegressorModel,
        }
        return ready_made[task].from_model(model, **settings)
    if settings.get("from_logits"):
        ends = ready.endings(model)
        settings["from_logits"] = {head: True for head in task if ends[head][0] == "linear"}
    return ready.PredictionModel.from_model(model, tasks=task, **settings)


def _shown(task: str | Mapping[str, str | None] | None) -> str:
    """A task, or the tasks by head, for a message."""
    if not isinstance(task, Mapping):
        return task or "plain"
    return ", ".join(f"{head!r} {name or 'plain'}" for head, name in task.items())


def _suggested(
    model: keras.Model, *, from_logits: bool
) -> tuple[str | dict[str, str | None] | None, Sequence[str], str]:
    """The tasks that the outputs suggest, the kinds that are possible for all heads, and why."""
    from kerasext import models  # noqa: PLC0415 - needs Keras
    from kerasext.keras_internals import own_methods  # noqa: PLC0415 - needs Keras

    if own_methods(model, "predict_step"):
        return None, KINDS, "because its own `predict_step` may return anything"
    ends = models.endings(model)
    if not ends:
        return None, KINDS, "because its file does not tell its last layer"
    suggested = models.suggest_tasks(model, from_logits=from_logits)
    tasks = suggested if isinstance(suggested, dict) else {"": suggested}
    units = {units for _, units in ends.values()}
    possible = ["plain"]
    if len(set(tasks.values())) == 1:
        suggested = next(iter(tasks.values()))
        if units == {1}:
            possible = ["binary", "plain"]
        elif not units & {1, None}:
            possible = ["classifier", "multilabel", "plain"]
    return suggested, possible, f"because it ends in {models.reasons(model)}"
