"""Which tasks the last layers of a model suggest."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from kerasext.models.heads import graph


def suggest_tasks(
    model: keras.Model, from_logits: bool | Mapping[str, bool] = False
) -> str | dict[str, str | None] | None:
    """Suggests a task for each head of a model, by its last layer.

    A softmax over two units or more suggests a classifier, a sigmoid over one unit a binary head,
    over several a multilabel one. A linear layer with `from_logits` suggests a classifier, or a
    binary head if it has one unit; without, it may yield numbers, logits or an embedding, so that
    nothing is suggested.

    Args:
        model: A `keras.Model`. One without a graph, such as a subclass with a `call` of its own,
            does not show its last layer.
        from_logits: Bool, or dict from head to bool. Whether heads that are linear yield logits.
            Defaults to `False`.

    Returns:
        What the argument `tasks` of `PredictionModel` takes. If the model has one output, the name
        of its task; if it has several heads, a dict from head to the name of its task. `None`
        stands for no suggestion.

    Example:

    ```python
    suggest_tasks(model)  # {"kind": "classifier", "sick": "binary", "embedding": None}
    PredictionModel.from_model(model, tasks="auto")  # takes them
    ```
    """
    tasks = {
        head: _task_of(
            activation,
            units,
            from_logits.get(head, False) if isinstance(from_logits, Mapping) else from_logits,
        )
        for head, (activation, units) in endings(model).items()
    }
    return tasks.get("") if tasks.keys() <= {""} else tasks


def endings(model: keras.Model) -> dict[str, tuple[str | None, int | None]]:
    """What each head ends in: the name of the function, and its units. None without a graph."""
    outputs = graph.outputs(model)
    tensors = {} if outputs is None else graph.heads(graph.by_name(model, outputs))
    return {
        head: (graph.activation(model, head), tensor.shape[-1] if len(tensor.shape) > 1 else None)
        for head, tensor in tensors.items()
    }


def reasons(model: keras.Model) -> str:
    """What the heads of a model with a graph end in, for a message."""
    found = [
        f"{f'{head!r} ' if head else ''}{activation or 'an unknown layer'} over {units} units"
        for head, (activation, units) in endings(model).items()
    ]
    return ", ".join(found).replace(" 1 units", " 1 unit")


def _task_of(activation: str | None, units: int | None, from_logits: bool) -> str | None:
    if units is None:
        return None
    if activation == "sigmoid":
        return "binary" if units == 1 else "multilabel"
    if activation == "softmax" and units > 1:
        return "classifier"
    if from_logits and activation == "linear":
        return "binary" if units == 1 else "classifier"
    return None
