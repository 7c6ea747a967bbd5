"""Whether what was fitted for a model still fits its weights and settings."""

from __future__ import annotations

import hashlib
import json
import warnings
from typing import TYPE_CHECKING, Any

from kerasext.models.fingerprint import fingerprint
from kerasext.models.heads.tasks import FITTED

if TYPE_CHECKING:
    from kerasext.models.prediction_mixin import PredictionMixin

METHODS = {
    "calibration": "calibrate",
    "prediction_sets": "conformalize",
    "abstention": "abstain",
}
"""The method of a model that fits each setting."""


def weights_digest(model: PredictionMixin) -> str:
    """A digest of the weights alone."""
    return fingerprint(model, "")


def fitted_on(model: PredictionMixin, head: str, name: str, weights: str) -> str:
    """A digest of all that something fitted for a head depends on.

    Args:
        model: The model.
        head: String. The head.
        name: String. The setting: `"calibration"`, `"prediction_sets"` or `"abstention"`.
        weights: String. What `weights_digest` returns for the model.
    """
    depends = {"task": model._task_of(head), "from_logits": model._setting("from_logits", head)}
    calibration = model._setting("calibration", head)
    if name != "calibration":
        depends["calibration"] = None if calibration is None else calibration.as_json()
    if name == "abstention":
        depends["threshold"] = model._setting("threshold", head)
    text = json.dumps([weights, depends], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def stale_settings(model: PredictionMixin) -> dict[str, list[str]]:
    """What was fitted on other weights or settings than the model has now.

    Returns:
        Dict from head to the names of its stale settings. Heads without any are left out.
    """
    heads = model._known_heads() or ("",)
    fitted = {
        (head, name): value
        for head in heads
        for name in FITTED
        if model._head(head).has(name) and (value := model._setting(name, head)) is not None
    }
    found: dict[str, list[str]] = {}
    if not fitted or not model.built:
        return found
    weights = weights_digest(model)
    for (head, name), value in fitted.items():
        # A value that the user made by hand does not say what it was fitted on.
        if value.fitted_on and value.fitted_on != fitted_on(model, head, name, weights):
            found.setdefault(head, []).append(name)
    return found


def warn_if_stale(model: Any) -> None:
    """Warns if something was fitted on other weights or settings; takes any `keras.Model`."""
    stale = stale_settings(model) if hasattr(model, "prediction_sets") else {}
    for head, names in stale.items():
        calls = " and ".join(f"`model.{METHODS[name]}`" for name in names)
        warnings.warn(
            "The weights and settings of a model must be those that its confidence was fitted on; "
            f"fit it again with {calls}, or set it to `None`. Received: model={model.name!r} with "
            f"other ones than {' and '.join(names)}" + (f" of head {head!r}" if head else ""),
            stacklevel=3,
        )
