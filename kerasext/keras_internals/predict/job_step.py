"""A step of a job: what Keras's `predict` computes of one batch, without its dispatch.

What Keras 3.12 to 3.15 do in `predict`, and this does too, so that the outputs are the same:

- `predict_step` gets `x`, or `(x,)` if `x` is a list or tuple; on TensorFlow, whose data comes out
  of `tf.data`, lists have become tuples;
- TensorFlow compiles it by `tf.function` without AutoGraph; on JAX it is a pure function
  `(state, data) -> (outputs, state)`, compiled if `jit_compile` is on, as it is by default; torch
  runs it as it is, in evaluation mode.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import keras

from kerasext.keras_internals.predict import jax_state, predict_loop
from kerasext.keras_internals.predict.predict_functions import PredictFunctions
from kerasext.keras_internals.predict.xla import tracing_for
from kerasext.keras_internals.structures import filled, numbered


class JobStep(Protocol):
    """Computes batches, one after the other.

    Attributes:
        in_threads: Int. How many batches may be computed at the same time, each in a thread of its
            own; 1 if a step depends on the one before, or the backend needs no threads for that.
            Known after `prepare`.
        ahead: Int. How many further batches are begun before the outputs of one are waited for.
            Known after `prepare`.
        together: Int. How many small batches `several` may be given; 1 if they gain nothing. Known
            after `prepare`.
    """

    in_threads: int
    ahead: int
    together: int

    def prepare(self, batch: Any) -> None:
        """Compiles the step for batches like this one, if it is not compiled yet."""

    def __call__(self, batch: Any) -> Any:
        """Returns the outputs, in the structure and tensors of the model."""

    @property
    def several(self) -> Callable[[Sequence[Any]], Any] | None:
        """Function from `together` batches of equal size, each computed alone, to joined outputs.

        `None` if `together` is always 1.
        """

    def wait(self, outputs: Any) -> None:
        """Waits until outputs are computed, and raises the error if that fails."""


def job_step(model: keras.Model, *, jit_compile: bool) -> JobStep:
    """Makes the step of a job.

    Args:
        model: The model, which nobody else changes while the step is in use.
        jit_compile: Bool. Whether XLA, or `torch.compile`, compiles it.
    """
    steps: dict[str, Callable[..., JobStep]] = {
        "tensorflow": _TensorFlowStep,
        "jax": _JaxStep,
        "torch": _TorchStep,
    }
    return steps[keras.backend.backend()](model, jit_compile and not model.run_eagerly)


class _TensorFlowStep:
    """One concrete function for batches of any number of rows, where the model allows it."""

    def __init__(self, model: keras.Model, jit_compile: bool) -> None:
        self.in_threads = self.together = 1
        self.ahead = 0
        self._tf: Any = importlib.import_module("tensorflow")
        self._model = model
        self._jit_compile = jit_compile
        self._functions = PredictFunctions.of(model)
        self.of_any_rows: Any = None
        self._by_shape: dict[Hashable, Any] = {}

    def prepare(self, batch: Any) -> None:
        if self._model.run_eagerly:
            return
        tensors = _tensors(batch)
        self._kind = self._jit_compile, *((t.shape[1:], t.dtype) for t in tensors)
        function, self.of_any_rows = self._functions.kept(
            ("job step", self._kind), functools.partial(self._trace, batch)
        )
        self._function = function
        nbytes = sum(t.shape.num_elements() * (t.dtype.size or 8) for t in tensors)
        self.ahead = int(nbytes < _SMALL_BYTES)
        # With an accelerator a call returns early, and threads would lose its `tf.device`. Of large
        # batches each takes all cores, and several would take memory.
        is_for_threads = nbytes <= _LARGE_BYTES and not self._tf.config.list_logical_devices("GPU")
        concrete = self.of_any_rows
        if is_for_threads and concrete is not None and not _changes_state(concrete.graph):
            self.in_threads = 2
            if not self._jit_compile and _are_dense(concrete.structured_outputs):
                self.together = min(_MOST_TOGETHER, _SMALL_BYTES // max(nbytes, 1)) or 1

    def several(self, batches: Sequence[Any]) -> Any:
        function = self._functions.kept(
            ("several job steps", self._kind, len(batches), len(_tensors(batches[0])[0])),
            functools.partial(self._trace_several, batches),
        )
        return function(*[tensor for batch in batches for tensor in _tensors(batch)])

    def _trace_several(self, batches: Sequence[Any]) -> Any:
        """A loop in the graph over batches, which takes a fourth of the time of calls for each."""
        tf, numbers = self._tf, numbered(batches[0])
        inputs = len(_tensors(batches[0]))

        def predict_steps(*tensors: Any) -> Any:
            stacked = [tf.stack(tensors[at::inputs]) for at in range(inputs)]
            outputs = tf.map_fn(
                functools.partial(self._step, numbers),
                stacked,
                fn_output_signature=tf.nest.map_structure(
                    lambda t: tf.TensorSpec(t.shape, t.dtype), self.of_any_rows.structured_outputs
                ),
            )
            return tf.nest.map_structure(_first_axes_joined, outputs)

        function = tf.function(predict_steps, autograph=False)
        return function.get_concrete_function(*[t for batch in batches for t in _tensors(batch)])

    def _trace(self, batch: Any) -> tuple[Any, Any]:
        numbers = numbered(batch)
        tensors = _tensors(batch)

        def predict_step(*tensors: Any) -> Any:
            return self._step(numbers, tensors)

        function = self._tf.function(
            predict_step, autograph=False, jit_compile=self._jit_compile or None
        )
        specs = [self._tf.TensorSpec((None, *t.shape[1:]), t.dtype) for t in tensors]
        try:
            return function, function.get_concrete_function(*specs)
        except Exception:  # noqa: BLE001 - its own, raised again if it is not about the open axis
            function.get_concrete_function(*tensors)
            return function, None

    def _step(self, numbers: Any, tensors: Any) -> Any:
        with tracing_for(jit_compile=self._jit_compile):
            return self._model.predict_step(filled(numbers, tensors))

    def __call__(self, batch: Any) -> Any:
        if self._model.run_eagerly:
            return self._model.predict_step(batch)
        tensors = _tensors(batch)
        return (self.of_any_rows or self._of_rows(tensors))(*tensors)

    def _of_rows(self, tensors: list[Any]) -> Any:
        rows = len(tensors[0])
        if rows not in self._by_shape:
            self._by_shape[rows] = self._function.get_concrete_function(*tensors)
        return self._by_shape[rows]

    def wait(self, outputs: Any) -> None:
        """Nothing is left to do."""


def step_of_arrays(
    step: JobStep, batch_of: Callable[[list[Any]], Any]
) -> Callable[[list[Any]], Any]:
    """A prepared step on TensorFlow, as a function from NumPy arrays to NumPy arrays.

    Without what takes as long as a small model: taking structures apart and together.

    Args:
        step: `JobStep` of TensorFlow, prepared.
        batch_of: Callable from arrays to the batch that they are the leaves of.
    """
    tf: Any = importlib.import_module("tensorflow")

    def to_numpy(outputs: Any) -> Any:
        if isinstance(outputs, tf.Tensor):
            return outputs.numpy()
        if type(outputs) is dict:  # as the mixins return
            return {name: to_numpy(output) for name, output in outputs.items()}
        if keras.tree.is_nested(outputs):
            return keras.tree.map_structure(to_numpy, outputs)
        return keras.ops.convert_to_numpy(outputs)  # ragged or sparse

    of_any_rows = getattr(step, "of_any_rows", None)
    if of_any_rows is None:
        return lambda arrays: to_numpy(step(batch_of(arrays)))
    return lambda arrays: to_numpy(of_any_rows(*map(tf.constant, arrays)))


def _tensors(batch: Any) -> list[Any]:
    """The tensors of a batch, without optional inputs that are `None`."""
    return [tensor for tensor in keras.tree.flatten(batch) if tensor is not None]


def _first_axes_joined(output: Any) -> Any:
    """An output of several batches, of shape `(batches, rows, ...)`, as rows."""
    tf: Any = importlib.import_module("tensorflow")
    return tf.reshape(output, tf.concat([[-1], tf.shape(output)[2:]], axis=0))


def _are_dense(outputs: Any) -> bool:
    """Whether outputs are dense tensors with rows."""
    tf: Any = importlib.import_module("tensorflow")
    return all(isinstance(t, tf.Tensor) and t.shape.rank for t in keras.tree.flatten(outputs))


_MOST_TOGETHER = 16
_SMALL_BYTES = 1024 * 1024  # of input: batches that share a call, or are begun ahead
_LARGE_BYTES = 4 * 1024 * 1024
# They read variables and tables; what else has a state changes it, or depends on it.
_READS = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VarHandleOp"}
_READS |= {"LookupTableFindV2", "HashTableV2", "LookupTableSizeV2"}
# Whether these do is seen in their functions.
_CALLS = {"StatefulPartitionedCall", "While", "If", "Case", "XlaLaunch"}


def _changes_state(graph: Any) -> bool:
    """Whether a graph has an operation with a state that is more than read, such as a seed."""
    try:
        registry: Any = importlib.import_module("tensorflow.python.framework.op_def_registry")
    except ImportError:  # of a later TensorFlow; then nothing is known
        return True
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    kinds = {node.op for node in nodes} - _READS - _CALLS
    found = map(registry.get, kinds)
    return any(definition is not None and definition.is_stateful for definition in found)


class _JaxStep:
    """The jitted `predict_step`. The weights stay in the model while it computes."""

    in_threads = together = 1
    several = None

    def __init__(self, model: keras.Model, jit_compile: bool) -> None:
        self.ahead = 1
        self._jax: Any = importlib.import_module("jax")
        self._model = model
        self._jit_compile = jit_compile

    def prepare(self, batch: Any) -> None:
        model = self._model
        model.jax_state_sync()  # in a callback of `fit` the variables are empty without it
        jax_state.build(model, keras.utils.unpack_x_y_sample_weight(batch)[0])
        self._trainable = model.trainable_variables
        self._other = model.non_trainable_variables
        self._function = PredictFunctions.of(model).kept(
            ("job step", self._jit_compile),
            lambda: jax_state.compiled_changes(model, jit_compile=self._jit_compile),
        )
        # Waiting for each of many small steps would take as long as computing them.
        self.ahead = 8 if sum(t.nbytes for t in _tensors(batch)) < _SMALL_BYTES else 1

    def _state(self) -> tuple[list[Any], list[Any]]:
        return [v._value for v in self._trainable], [v._value for v in self._other]

    def __call__(self, batch: Any) -> Any:
        outputs, changed = self._function(self._state(), predict_loop.on_devices(batch))
        for index, value in changed.items():
            self._other[index]._value = value
        return outputs

    def wait(self, outputs: Any) -> None:
        self._jax.block_until_ready(outputs)


class _TorchStep:
    """Keras's own predict function, which nothing stands before on torch."""

    in_threads = together = 1
    ahead = 0
    several = None

    def __init__(self, model: keras.Model, jit_compile: bool) -> None:
        self._model = model
        functions = PredictFunctions.of(model)
        self._function = functions.kept(
            ("job step", jit_compile), lambda: functions.make_apart(jit_compile=jit_compile)
        )

    def prepare(self, batch: Any) -> None:
        """Nothing is compiled before the first call."""

    def __call__(self, batch: Any) -> Any:
        predict_loop.leave_training(self._model)  # in which `fit` leaves it
        return self._function([batch])

    def wait(self, outputs: Any) -> None:
        """Nothing is left to do: the thread that writes waits for a GPU."""
