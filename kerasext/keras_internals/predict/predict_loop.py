"""The loop of `model.predict`, and how its steps are made.

The same on every backend but for what is said of JAX:

- it calls `callbacks.on_predict_batch_begin`, then `self.predict_function`, once per step;
- `predict` and `predict_on_batch` begin with `self.make_predict_function()`;
- it appends whatever structure `predict_function` returns: of `{}` it keeps nothing;
- `predict_function` takes a list of batches. On JAX it takes the model's state, too, and the
  iterator over the data, takes `steps_per_execution` batches from that, ends by `StopIteration`,
  and returns the outputs and the new state.

A callback's `logs` are no way to the outputs: they are flattened, converted and keyed by the
innermost name (keras-team/keras#20380). And nothing that a callback does keeps `predict` from
holding every output (keras-team/keras#21642).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from kerasext.keras_internals.own_methods import listed, own_methods
from kerasext.keras_internals.predict.predict_functions import PredictFunctions


def check_predict_loop(model: keras.Model) -> None:
    """Checks that the steps of a model's `predict` can be seen, and by this process alone.

    Args:
        model: A model in `on_predict_begin`.

    Raises:
        RuntimeError: If Keras has changed.
        ValueError: If other processes share it.
    """
    missing = [
        name
        for name in ("predict_function", "make_predict_function", "steps_per_execution")
        if not hasattr(model, name)
    ]
    if keras.backend.backend() == "jax":
        missing += [
            f"{type(variable).__name__}._value"
            for variable in model.variables[:1]
            if not hasattr(variable, "_value")
        ]
    if missing or "predict_function" not in vars(model):
        raise RuntimeError(
            "This version of Keras is not one that kerasext knows: the steps of `predict` can't be "
            "seen in it; use Keras 3.12 to 3.15, or a newer kerasext. "
            f"Received: keras {keras.__version__}, without {missing or ['predict_function']}"
        )
    processes = number_of_processes(model)
    if processes > 1:
        raise ValueError(
            "A `predict` that several processes share can't be written: each would write all rows, "
            "and one that stops or resumes would leave the others waiting. Let each predict a part "
            "of the data by itself, to a file of its own. "
            f"Received: {processes} processes"
        )


def make_predict_function_once(model: keras.Model) -> None:
    """Makes the predict function of a model before several threads do, which is rare on JAX.

    There only one thread may predict, and a model under a distribution must be built first.
    """
    if keras.backend.backend() != "jax" and vars(model).get("predict_function", 0) is None:
        PredictFunctions.of(model).function()


def is_predicting_with(callback: keras.callbacks.Callback) -> bool:
    """Whether this call comes from inside a `predict` with a callback.

    Keras's `predict` has its callbacks in a variable of that name.
    """
    frame = sys._getframe().f_back
    while frame is not None:
        if frame.f_code.co_name == "predict":
            callbacks = frame.f_locals.get("callbacks")
            if isinstance(callbacks, keras.callbacks.CallbackList) and any(
                one is callback for one in callbacks.callbacks
            ):
                return True
        frame = frame.f_back
    return False


def leave_training(model: keras.Model) -> None:
    """Puts a model of torch into evaluation mode, in which other backends always predict.

    Keras's `predict` does that, at least up to 3.15; its `predict_on_batch` and `predict_step`
    don't.
    """
    if keras.backend.backend() == "torch" and model.training:
        model.eval()


def number_of_processes(model: keras.Model) -> int:
    """How many processes share one `predict` of a model."""
    if keras.backend.backend() == "jax" and keras.distribution.distribution() is not None:
        return int(importlib.import_module("jax").process_count())
    resolver = getattr(strategy(model), "cluster_resolver", None)
    if resolver is None:
        return 1
    cluster = resolver.cluster_spec()
    return max(sum(int(cluster.num_tasks(job)) for job in cluster.jobs), 1)


def strategy(model: keras.Model) -> Any | None:
    """The `tf.distribute` strategy in whose scope a model was made, if any."""
    return getattr(model, "_distribute_strategy", None)


def data_shards() -> int:
    """Into how many parts `keras.distribution`, on JAX, cuts each batch, which must divide."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return 1
    mesh = distribution.device_mesh
    return int(mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)])


def number_of_rows(batch: Any, model: keras.Model) -> int | None:
    """Rows of a batch as `predict_function` gets it, `None` if its parts don't agree.

    Args:
        batch: Structure of tensors, or of values of a strategy's replicas.
        model: The model.
    """
    found = set()
    for leaf in _leaves(batch):
        lengths = [_length(part) for part in parts_of(leaf, model)]
        if None not in lengths:
            found.add(sum(lengths))
    return found.pop() if len(found) == 1 else None


def parts_of(tensor: Any, model: keras.Model) -> Sequence[Any]:
    """The tensors that a part of a batch is made of: one for each replica of a strategy."""
    distributed = strategy(model)
    return distributed.experimental_local_results(tensor) if distributed else (tensor,)


def _leaves(batch: Any) -> Iterator[Any]:
    # Not by `keras.tree`: on torch it leaves what it is given in a reference cycle.
    if isinstance(batch, dict | list | tuple):
        for part in batch.values() if isinstance(batch, dict) else batch:
            yield from _leaves(part)
    else:
        yield batch


def _length(tensor: Any) -> Any:
    shape: Any = getattr(tensor, "shape", ())
    if not len(shape):
        return None
    rows_of_ragged: Any = getattr(tensor, "nrows", lambda: None)
    return rows_of_ragged() if shape[0] is None else int(shape[0])


def on_devices(batch: Any) -> Any:
    """A batch on the devices that share it under `keras.distribution`, else as it is.

    As Keras's `predict` on JAX lays it out.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return batch
    return keras.tree.map_structure(
        lambda array: keras.distribution.distribute_tensor(
            array, distribution.get_data_layout(array.shape)
        ),
        batch,
    )


def why_keras_must_predict(model: keras.Model) -> str:
    """Why only Keras's own `predict` can predict with a model; empty if any loop can.

    Args:
        model: The model.
    """
    if strategy(model) is not None:
        return "the model belongs to a `tf.distribute` strategy"
    own = own_methods(model, "make_predict_function")
    if own:
        return f"the model has {listed(own)}"
    if keras.backend.backend() == "jax" and keras.config.is_nnx_enabled():
        return "Keras uses NNX"
    return ""


def why_not_jit_compiled(model: keras.Model) -> str:
    """Why XLA can't compile the steps of a model; empty if it can.

    As Keras looks at it (`model_supports_jit` in its `src/trainers/trainer.py`).
    """
    if model.run_eagerly:
        return "a model with run_eagerly=True"
    names = [layer.name for layer in model._flatten_layers() if not layer.supports_jit]
    return f"a model with the layers {names}" if names else ""
