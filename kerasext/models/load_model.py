"""Loading models whose classes are kerasext's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import keras


def load_model(
    filepath: str | os.PathLike[str],
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,  # noqa: A002 - the name of Keras's argument
    safe_mode: bool = True,
) -> keras.Model:
    """Loads a saved model, as `keras.saving.load_model` does after `import kerasext.models`.

    Keras finds the classes of a model only if they are registered. `ClassifierModel` and the other
    ready-made models are registered when `kerasext.models` is imported, or when `kerasext` is
    imported after Keras. This function needs no such order. Classes of your own must be registered
    with `keras.saving.register_keras_serializable`, or given as `custom_objects`.

    Args:
        filepath: String or path-like. The `.keras` file.
        custom_objects: Mapping from name to class or function. Defaults to `None`.
        compile: Bool. Whether to compile the model if it was compiled. Defaults to `True`.
        safe_mode: Bool. Whether to refuse files that bring code, such as `Lambda` layers. Pass
            `False` only for files whose source you trust. Defaults to `True`.

    Returns:
        The model.

    Raises:
        TypeError: If a class of the model is not registered.
        ValueError: If the file is not a saved model, or `safe_mode` refuses it.

    Example:

    ```python
    model = kerasext.load_model("digits.keras")
    model.predict(images)["labels"]
    ```
    """
    return keras.saving.load_model(
        os.fspath(filepath),
        custom_objects=None if custom_objects is None else dict(custom_objects),
        compile=compile,
        safe_mode=safe_mode,
    )
