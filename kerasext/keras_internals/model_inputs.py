"""What a model takes: one tensor or a dict, which columns, how many rows in a batch.

Read off the graph of a functional or sequential model. Of other models Keras 3.12 to 3.15 keep
nothing, so that a symbolic call has to tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from kerasext.keras_internals.private_classes import Functional, graph_of


def takes_dict(model: keras.Model, x: dict[str, Any]) -> bool:
    """Whether a model takes a dict of one entry, rather than the entry itself.

    Args:
        model: The model. One without a graph should be built.
        x: The dict, of an array or tensor.
    """
    structure = _inputs(model)
    if structure is not None:
        return isinstance(structure, dict)
    (tensor,) = x.values()
    return _can_take(model, x) or not _can_take(model, tensor)


def columns_as_inputs(model: keras.Model, x: Any) -> Any:
    """The columns of a data frame as the inputs of a model that has several, or a dict of them.

    Args:
        model: The model.
        x: What `predict` takes, such as a data frame of pandas or polars.

    Returns:
        Dict or list of columns; `x` itself if it is no data frame, or the model takes one array.

    Raises:
        ValueError: If an input has no column.
    """
    structure = _inputs(model) if is_frame(x) else None
    if isinstance(structure, dict):
        names = list(structure)
    elif isinstance(structure, list | tuple) and len(structure) > 1:
        names = [getattr(tensor, "name", "") for tensor in structure]
    else:
        return x
    missing = [name for name in names if name not in x.columns]
    if missing:
        raise ValueError(
            "A data frame must have a column for each input of the model; rename its columns, or "
            f"pass a dict of arrays. Received: columns {list(x.columns)}, without {missing}"
        )
    # Frames of one column: TensorFlow does not take an axis more in one call than in another.
    columns = [x[[name]] for name in names]
    return dict(zip(names, columns, strict=True)) if isinstance(structure, dict) else columns


def is_frame(x: Any) -> bool:
    """Whether something is a data frame, of pandas, polars or their like."""
    return hasattr(x, "columns") and hasattr(x, "__array__")


def fixed_batch_size(model: keras.Model) -> int | None:
    """How many rows each batch must have, `None` if any number will do.

    Inputs with a `batch_shape` say so, and layers with a state for each row of a batch.
    """
    sizes = set()
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.InputLayer):
            sizes.add(layer.batch_shape[0])
        if getattr(layer, "stateful", False) is True:
            states = keras.tree.flatten(getattr(layer, "states", None) or [])
            sizes.update(state.shape[0] for state in states)
    sizes.discard(None)
    return int(min(sizes)) if sizes else None


def stateful_layers(model: keras.Model) -> list[str]:
    """The names of the layers whose outputs depend on earlier batches."""
    return [
        layer.name for layer in model._flatten_layers() if getattr(layer, "stateful", False) is True
    ]


def random_states(model: keras.Model) -> Iterator[tuple[int, tuple[int, ...]]]:
    """An identity and the state of each `SeedGenerator` of a model.

    Every number that one draws changes its state. Without a seed, torch draws dropout from another
    generator.
    """
    for layer in model._flatten_layers():
        for generator in layer._seed_generators:
            values = keras.ops.convert_to_numpy(generator.state.value)
            yield id(generator), tuple(values.tolist())


def _inputs(model: keras.Model) -> Any:
    """The structure of the symbolic inputs of a model with a graph, else `None`."""
    graph = graph_of(model) if isinstance(model, keras.Sequential) else model
    return graph.input if isinstance(graph, Functional) else None


def _can_take(model: keras.Model, x: Any) -> bool:
    try:
        specs = keras.tree.map_structure(_spec, x)
        model.compute_output_spec(specs)
    except Exception:  # noqa: BLE001 - whatever the model raises
        return False
    return True


def _spec(tensor: Any) -> keras.KerasTensor:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return keras.KerasTensor((None, *tensor.shape[1:]), dtype)
