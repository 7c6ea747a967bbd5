"""A model from a `.keras` file, and what it takes."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasext.cli.messages import InputError, describe
from kerasext.cli.native_output import held_back

if TYPE_CHECKING:
    import keras


def load_model(path: Path, modules: Sequence[str] = (), *, quiet: bool = False) -> keras.Model:
    """Loads a model in Keras's safe mode, in which a file can't bring code of its own.

    Args:
        path: Path of the `.keras` file.
        modules: Names of the modules that define its custom classes and functions. They are looked
            for in the current folder first, as by `python -m`.
        quiet: Bool. Whether to drop what Keras's backend writes to stderr while it is imported.

    Raises:
        InputError: If there is no such module, or the model can't be loaded. What a module raises
            while it is imported is raised as it is.
    """
    with held_back() if quiet else contextlib.nullcontext():
        # Only here: the other commands do without Keras, and are fast.
        keras = importlib.import_module("keras")
        models = importlib.import_module("kerasext.models")
    custom_objects = _definitions(modules)
    try:
        model = models.load_model(path, custom_objects=custom_objects, compile=False)
    except Exception as error:
        raise InputError(f"{str(path)!r} can't be loaded: {_why(error)}") from error
    if not isinstance(model, keras.Model):
        raise InputError(f"{str(path)!r} is a {type(model).__name__}, and no keras.Model.")
    return model


def _definitions(modules: Sequence[str]) -> dict[str, Any]:
    """Imports modules; returns the classes and functions that they define, by name."""
    if modules and not sys.flags.safe_path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    found = {}
    for name in modules:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise InputError(
                "--import takes the name of a module, as `import` does, that is installed or in "
                f"the current folder. Received: --import {name}"
            ) from error
        package = name.partition(".")[0]
        for key, value in vars(module).items():
            is_definition = isinstance(value, type) or inspect.isfunction(value)
            if is_definition and value.__module__.partition(".")[0] == package:
                found[key] = value
    return found


def _why(error: Exception) -> str:
    """What Keras says of a model that it can't load, with what helps here."""
    text = describe(error)
    missing = re.search(r"Could not locate \w+ '[^']*'", text)
    if missing:  # Keras goes on with the whole config of the model
        return (
            f"{missing[0]}; --import MODULE imports the module that defines it, from the current "
            "folder or an installed package."
        )
    if "safe_mode" in text:
        text += (
            "\nHere models are always loaded in the safe mode. If you trust the source, load the "
            "model by kerasext.load_model(MODEL, safe_mode=False) in Python, and call "
            "kerasext.predict_to_hdf5."
        )
    return text


def check_rows(model: keras.Model, x: Any) -> None:
    """Raises `InputError` if the rows don't have the shape that the model takes, if it is known."""
    own_methods = importlib.import_module("kerasext.keras_internals.own_methods")
    inputs = _inputs(model)
    if inputs is None or own_methods.own_methods(model, *own_methods.PREDICTION_METHODS):
        return
    tensors = inputs if isinstance(inputs, dict) else {tensor.name: tensor for tensor in inputs}
    if not isinstance(x, dict):
        x = dict(zip(tensors, x if isinstance(x, list) else [x], strict=True))
    for name, tensor in tensors.items():
        wanted, given = tuple(tensor.shape[1:]), tuple(x[name].shape[1:])
        shapes = [wanted, (*wanted, 1)]  # Keras drops a last axis of length 1, or adds it
        if wanted[-1:] == (1,):
            shapes.append(wanted[:-1])
        if not any(_fits(given, shape) for shape in shapes):
            of_input = f" for its input {name!r}" if len(tensors) > 1 else ""
            raise InputError(
                f"The model takes rows of the shape {wanted}{of_input}. "
                f"Received: rows of the shape {given}"
            )


def _fits(given: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(given) == len(wanted) and all(
        length in (None, found) for found, length in zip(given, wanted, strict=True)
    )


def has_own_predict(model: keras.Model) -> bool:
    """Whether the model or its class has a `predict` that is not Keras's."""
    from kerasext.keras_internals import own_methods  # noqa: PLC0415 - needs Keras

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
        return None
    structure = found.input
    if isinstance(structure, dict):
        return structure
    return list(structure) if isinstance(structure, list | tuple) else [structure]
