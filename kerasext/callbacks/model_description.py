"""What a file of predictions says of the model that made them."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras

from kerasext.callbacks.step_outputs import Task
from kerasext.common import to_json
from kerasext.models import fingerprint


class ModelDescription(NamedTuple):
    """What is known of a model, as a file has it.

    Args:
        task: String. What the heads of the model predict, `None` of a model without a mixin; or a
            dict from head to one of these.
        class_names: List of the names of the classes, or dict from head to such a list, or `None`.
        attributes: Dict of the attributes of the file.
    """

    task: Task
    class_names: Any
    attributes: dict[str, str | float]


def describe(model: keras.Model) -> ModelDescription:
    """Describes a model that has predicted, for it may know its weights and heads only then.

    Raises:
        TypeError: If its `prediction_metadata` can't be written as JSON.
    """
    metadata: dict[str, Any] = getattr(model, "prediction_metadata", dict)()
    as_json = to_json(metadata, "prediction_metadata")
    return ModelDescription(
        metadata.get("task"),
        metadata.get("class_names"),
        {
            "model_name": model.name,
            "model_fingerprint": fingerprint(model, as_json),
            "keras_version": keras.__version__,
            "backend": keras.backend.backend(),
            "jit_compile": bool(model.jit_compile and not model.run_eagerly),
            "prediction_metadata": as_json,
        },
    )
