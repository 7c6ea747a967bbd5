"""A model from a `.keras` file, and what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasext.cli.messages import InputError, describe

if TYPE_CHECKING:
    import keras


def load_model(path: Path) -> keras.Model:
    """Loads a model in Keras's safe mode, in which a file can't bring code of its own.

    Raises:
        InputError: If it can't be loaded.
    """
    import keras  # noqa: PLC0415 - the other commands do without it, and are fast

    import kerasext.models  # noqa: F401, PLC0415 - by which Keras knows its classes

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        remedy = ""
        if "safe_mode" in str(error):  # which is not to be had here
            remedy = (
                "\nHere models are always loaded in the safe mode; for one whose source you trust "
                "call kerasext.predict_to_hdf5 from Python."
            )
        raise InputError(f"{str(path)!r} can't be loaded: {describe(error)}{remedy}") from error
    if not isinstance(model, keras.Model):
        raise InputError(f"{str(path)!r} is a {type(model).__name__}, and no keras.Model.")
    return model


def has_own_predict(model: keras.Model) -> bool:
    """Whether the model or its class has a `predict` that is not Keras's."""
    from kerasext.keras_internals.own_methods import own_methods  # noqa: PLC0415 - needs Keras

    return bool(own_methods(model, "predict"))


def input_names(model: keras.Model) -> list[str] | None:
    """The names of a model's inputs, `None` where Python code decides."""
    inputs = _inputs_of_predict(model)
    if inputs is None:
        return None
    return list(inputs) if isinstance(inputs, dict) else [tensor.name for tensor in inputs]


def as_structure(model: keras.Model, arrays: Any) -> Any:
    """Arrays by the names of the inputs, in the structure that the model takes."""
    inputs = _inputs_of_predict(model)
    if not isinstance(arrays, dict) or inputs is None or isinstance(inputs, dict):
        return arrays
    return [arrays[tensor.name] for tensor in inputs]


def image_shape(model: keras.Model, size: tuple[int, int] | None) -> tuple[int, int, int]:
    """Height, width and channels of the images that a model takes.

    Args:
        model: The model.
        size: Height and width where the model takes any.

    Raises:
        InputError: If it takes no images, or the size is not known, or another one.
    """
    inputs = _inputs(model)
    shapes = (
        []
        if inputs is None
        else [
            tuple(tensor.shape[1:])
            for tensor in (inputs.values() if isinstance(inputs, dict) else inputs)
        ]
    )
    if len(shapes) != 1 or len(shapes[0]) != 3:
        known = f"inputs of the shapes {shapes}" if shapes else "inputs that its file does not tell"
        raise InputError(
            "For a folder of images the model must take one input of (height, width, channels). "
            f"Received: {known}"
        )
    *own, channels = shapes[0]
    if size is None and None in own:
        raise InputError(
            "The model takes images of any size; say which with --image-size HEIGHTxWIDTH. "
            f"Received: an input of shape {shapes[0]}"
        )
    height, width = (length or wanted for length, wanted in zip(own, size or own, strict=True))
    if size is not None and (height, width) != size:
        raise InputError(
            f"The model takes images of {height}x{width} only. "
            f"Received: --image-size {size[0]}x{size[1]}"
        )
    return height, width, channels


def _inputs_of_predict(model: keras.Model) -> Any:
    """As `_inputs`, and `None` where a `predict` of the model's own decides."""
    return None if has_own_predict(model) else _inputs(model)


def _inputs(model: keras.Model) -> Any:
    """A dict or list of symbolic tensors, `None` where there is no graph."""
    from kerasext.models import graph  # noqa: PLC0415 - needs Keras

    found = graph.functional(model)
    if found is None:
        # What `from_model` makes of a model without a graph holds it.
        held = getattr(model, "model", None)
        return None if held is None or not hasattr(held, "layers") else _inputs(held)
    structure = found.input
    if isinstance(structure, dict):
        return structure
    return list(structure) if isinstance(structure, list | tuple) else [structure]
