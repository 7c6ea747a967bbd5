"""Telling a model of Keras 3 from everything else."""

from __future__ import annotations

from typing import Any

import keras


def check_model(model: Any) -> None:
    """Checks that something is a `keras.Model`.

    Raises:
        TypeError: If it is not, with what to do with a model of Keras 2.
    """
    if isinstance(model, keras.Model):
        return
    if any(base.__module__.partition(".")[0] == "tf_keras" for base in type(model).__mro__):
        raise TypeError(
            "`model` must be a keras.Model of Keras 3, and tf_keras is Keras 2; call "
            "`model.export(folder)`, and pass "
            "`keras.Sequential([keras.layers.TFSMLayer(folder, call_endpoint='serve')])`, which "
            f"needs the TensorFlow backend. Received: a tf_keras {type(model).__name__}"
        )
    raise TypeError(f"`model` must be a keras.Model. Received: model={model!r}")
