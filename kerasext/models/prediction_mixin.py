"""The mixin with a task per head: settings, a cooperative `predict_step`, and `postprocess`."""

from __future__ import annotations

import difflib
import functools
import itertools
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import keras

from kerasext.keras_internals import cooperative, hides_next, saving
from kerasext.models import graph
from kerasext.models.settings import SETTINGS, as_json, checked
from kerasext.models.tasks import TASKS, Head, has_setting, task_of

if TYPE_CHECKING:
    from keras import Model as _Model
else:
    # Plain, no metaclass and no `abc`: Keras sets `__bases__` of what it builds functionally.
    _Model = object


_versions = itertools.count(1)


class PredictionMixin(_Model):
    """Makes `predict` return named outputs, by the task of each head.

    A head is one output of the model, and its task is what it predicts:

    | task | the head has | outputs |
    |---|---|---|
    | `"classifier"` | one unit per class | those of `ClassifierMixin` |
    | `"binary"` | one unit | those of `BinaryClassifierMixin` |
    | `"multilabel"` | one unit per label | those of `MultiLabelClassifierMixin` |
    | `"regressor"` | one unit per number | those of `RegressorMixin` |
    | `None` | anything | the head as it is |

    With several heads `predict` returns a dict by head: of the dict of outputs of a head that has a
    task, else of its tensor. Heads have the keys of a dict; in a list the name of their layer, if
    the model has a graph and the name is unique and not one that Keras gives (`dense_3`); else
    their position, as `"0"`.

    `fit`, `evaluate`, `model(x)` and `export` are not touched: only what `predict` and
    `predict_on_batch` return changes.

    List the mixin before the Keras class. A class whose own `predict_step` calls neither
    `super().predict_step` nor `postprocess` hides the mixin, and a warning says so. Settings may
    also be class attributes, which `keras.models.clone_model` keeps where it keeps the class: of a
    Sequential it makes a plain one.

    Args:
        tasks: String of a task for all heads, or a dict from head to task. Heads that the dict does
            not name keep the task of the mixin: under `PredictionMixin` they are passed on as they
            are. Defaults to `None`, for no other task than that.
        from_logits: Setting of a classifier, binary or multilabel head, as of their mixins. Each
            setting is one value, for all heads that have it, or a dict by head.
        class_names: Setting of the same.
        scores: Setting of the same.
        threshold: Setting of a binary or multilabel head.
        top_k: Setting of a classifier head.
        scale: Setting of a regressor head.

    Raises:
        TypeError: If the mixin stands right of the Keras class, or a setting has the wrong type.
        ValueError: If `tasks` or a setting names a head that does not exist, or a head is not what
            its task takes. Where the model has a graph it is raised when the model is made, else in
            the first predict.

    Example:

    ```python
    class Patient(PredictionMixin, keras.Model):
        tasks = {"kind": "classifier", "sick": "binary", "age": "regressor"}
        class_names = {"kind": ["cat", "dog", "horse"]}

    outputs = model.predict(images)
    outputs["kind"]["labels"], outputs["sick"]["confidence"], outputs["age"]["prediction"]
    ```
    """

    tasks: Any = SETTINGS["tasks"].default
    from_logits: Any = SETTINGS["from_logits"].default
    class_names: Any = SETTINGS["class_names"].default
    scores: Any = SETTINGS["scores"].default

    settings_version = 0  # another one after each change, for what compiles the settings
    task: ClassVar[str | None] = None  # of heads that `tasks` does not name
    _settings: ClassVar[tuple[str, ...]] = tuple(SETTINGS)
    _heads: tuple[str, ...] = ()  # of the last trace

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        order = cls.__mro__
        if keras.Model in order and order.index(keras.Model) < order.index(PredictionMixin):
            bases = sorted(cls.__bases__, key=lambda base: not issubclass(base, PredictionMixin))
            line = f"class {cls.__name__}({', '.join(base.__name__ for base in bases)})"
            raise TypeError(
                "A mixin must stand left of the Keras class, or Keras's own `predict_step` hides "
                f"it; write `{line}`. "
                f"Received: bases=({', '.join(base.__name__ for base in cls.__bases__)})"
            )
        saving.show_constructor(cls)
        cls._warn_of_hidden_mixin()

    @classmethod
    def _warn_of_hidden_mixin(cls) -> None:
        for base in cls.__mro__[: cls.__mro__.index(PredictionMixin)]:
            step = vars(base).get("predict_step")
            was_checked = base is not cls and issubclass(base, PredictionMixin)
            if step is not None and not was_checked and hides_next(step, cls):
                warnings.warn(
                    f"`predict_step` of {base.__name__} hides the mixin, so `predict` returns what "
                    "it returns, without labels and confidence; call `super().predict_step` in it, "
                    "or return `self.postprocess(y_pred)`. "
                    f"Received: class {cls.__name__} with a `predict_step` that does neither",
                    stacklevel=3,
                )

    @cooperative
    def __init__(
        self,
        *args: Any,
        tasks: str | Mapping[str, str | None] | None = None,
        from_logits: bool | Mapping[str, bool] | None = None,
        class_names: Sequence[str] | Mapping[Any, Any] | None = None,
        scores: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        threshold: float | Sequence[float] | Mapping[str, float | Sequence[float]] | None = None,
        top_k: int | Mapping[str, int] | None = None,
        scale: str | Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        given = {
            "tasks": tasks,
            "from_logits": from_logits,
            "class_names": class_names,
            "scores": scores,
            "threshold": threshold,
            "top_k": top_k,
            "scale": scale,
        }
        settings = {name: given.pop(name) for name in self._settings}
        # The class right of a mixin may have an argument that is a setting of other mixins.
        kwargs |= {name: value for name, value in given.items() if value is not None}
        if saving.is_made_of_a_graph(type(self), args, kwargs):
            kerass = {"inputs", "outputs", "trainable", "dtype"}
            self._check_settings(kwargs.keys() - kerass, {*self._settings, "name"})
        super().__init__(*args, **kwargs)
        for name, value in settings.items():
            default = getattr(type(self), name, SETTINGS[name].default)
            setattr(self, name, default if value is None else value)
        # What a Sequential ends with shows later.
        if graph.functional(self) is self and self._passes_its_outputs():
            self._check(graph.heads(graph.by_name(self, graph.outputs(self))))

    @classmethod
    def _check_settings(cls, given: Iterable[str], known: Collection[str]) -> None:
        """Raises `TypeError` for an unknown one, which Keras's functional constructor ignores."""
        for name in sorted(set(given).difference(known)):
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"; the nearest is {near[0]!r}" if near else ""
            if name in SETTINGS:
                remedy = "; `PredictionMixin` and `PredictionModel` have those of all tasks"
            raise TypeError(
                f"The settings of {cls.__name__} are {sorted(known)}{remedy}. Received: {name!r}"
            )

    def _passes_its_outputs(self) -> bool:
        # A user's `postprocess`, or a `predict_step` right of the mixin, may pass on other tensors
        # than those that the graph knows.
        is_kerass = super().predict_step.__func__ is keras.Model.predict_step
        return is_kerass and type(self).postprocess is PredictionMixin.postprocess

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._settings:
            super().__setattr__(name, value)
            return
        super().__setattr__(name, checked(name, value))
        # What was compiled has the old value. After the new one is set, or another thread could
        # compile the old one once more.
        self.predict_function = None
        self.settings_version = next(_versions)

    def get_config(self) -> dict[str, Any]:
        """The model's config with the mixin's settings in it.

        Raises:
            NotImplementedError: If Keras would refuse to save the model without the mixin.
        """
        config = saving.config_without_mixin(self, PredictionMixin, super().get_config)
        tasks = {} if self.tasks is None else {"tasks": as_json(self.tasks)}
        config.pop("tasks", None)  # Keras puts arguments with defaults there
        return {**config, **self._settings_as_json(), **tasks}

    def _settings_as_json(self) -> dict[str, Any]:
        return {name: as_json(getattr(self, name)) for name in self._settings if name != "tasks"}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Makes the model that `get_config` described."""
        settings = {name: config[name] for name in cls._settings if name in config}
        config = saving.without_unknown(cls, config, cls._settings)
        # Keras documents and calls `from_config(cls, config)`: the next class need not take more.
        options = {} if custom_objects is None else {"custom_objects": custom_objects}
        model: Self = super().from_config(config, **options)
        for name, value in settings.items():  # the constructor may not have had them
            setattr(model, name, value)
        return model

    @cooperative
    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        """One step of `predict`: Keras's, or the class's own, followed by `postprocess`."""
        result = super().predict_step(*args, **kwargs)
        if keras.backend.backend() == "jax":
            y_pred, state = result
            return self.postprocess(y_pred), state
        return self.postprocess(result)

    def postprocess(self, y_pred: Any) -> Any:
        """Turns what the model computed into named outputs. The hook to override.

        Runs inside the compiled predict step, so it is made of `keras.ops`.

        Args:
            y_pred: What the model's `call` returned: a tensor of shape `(batch, ..., units)`, or a
                dict, list or tuple of them, one per head.

        Returns:
            Dict from output name to tensor of shape `(batch, ...)`. With several heads a dict of
            such dicts, by the name of the head. A head without a task is its tensor.

        Raises:
            ValueError: If the tensors are not what the mixin and its settings declare, or are other
                heads than those of the call before.

        Example:

        ```python
        class DigitNet(ClassifierMixin, keras.Model):
            def postprocess(self, y_pred):
                outputs = super().postprocess(y_pred)
                p = outputs["probabilities"]
                outputs["gini"] = 1 - keras.ops.sum(p * p, axis=-1)
                return outputs
        ```
        """
        named = graph.by_name(self, y_pred)
        tensors = graph.heads(named)
        heads, passes = tuple(tensors), self._passes_its_outputs()
        if passes and self._heads and set(heads) != set(self._heads):
            raise ValueError(
                "A model must return the same heads in every call; return all of them each time, "
                f"or make a model for each set of heads. Received: {self._shown(heads)} after "
                f"{self._shown(self._heads)}"
            )
        self._check(tensors)
        if heads != self._heads:  # once, not in every trace
            self._heads = heads
            for head in heads if passes else ():
                self._warn_of_activation(head)
        return self._postprocess(named, "")

    def _postprocess(self, named: Any, head: str) -> Any:
        if isinstance(named, Mapping):
            items = named.items()
            return {
                key: self._postprocess(value, f"{head}/{key}".lstrip("/")) for key, value in items
            }
        task = self._task_of(head)
        if task is None:
            return named
        return TASKS[task].outputs(named, functools.partial(self._setting, head=head))

    def prediction_metadata(self) -> dict[str, Any]:
        """What a file of predictions should say of the model's outputs.

        Returns:
            Dict of JSON-serializable values: `task` and the settings of the mixin, class names by
            head where there are several and the model has predicted. `task` is a string, or `None`,
            if all heads have the same one, else a dict by head. Override it to add your own, with
            `super()`.
        """
        settings = self._settings_as_json()
        names = settings.get("class_names")
        if isinstance(names, list) and self._heads not in ((), ("",)):
            named = [head for head in self._heads if self._has("class_names", head)]
            settings["class_names"] = dict.fromkeys(named, names)
        return {"task": self._task_by_head(), **settings}

    def _task_by_head(self) -> str | dict[str, str | None] | None:
        heads = self._known_heads()
        if not heads and isinstance(self.tasks, Mapping):
            return dict(self.tasks)
        tasks = {head: self._task_of(head) for head in heads or ("",)}
        return tasks if len(set(tasks.values())) > 1 else next(iter(tasks.values()))

    def _known_heads(self) -> tuple[str, ...]:
        """The names of the heads, `("",)` for a single one, `()` if not known before a predict."""
        outputs = graph.outputs(self)
        if self._heads or outputs is None or not self._passes_its_outputs():
            return self._heads
        return tuple(graph.heads(graph.by_name(self, outputs)))

    def _task_of(self, head: str) -> str | None:
        """The name of the task of a head."""
        return task_of(head, self.tasks, self.task)

    def _has(self, setting: str, head: str) -> bool:
        return has_setting(self._task_of(head), setting)

    def _setting(self, name: str, head: str) -> Any:
        # A mixin has no settings of other tasks, which `tasks` may give its heads.
        value = getattr(self, name, SETTINGS[name].default)
        if isinstance(value, Mapping):
            return value.get(head, SETTINGS[name].default)
        return value

    @staticmethod
    def _shown(heads: Iterable[str]) -> str:
        heads = sorted(heads)
        return "one output only" if heads == [""] else f"the heads {heads}"

    def _check(self, tensors: Mapping[str, Any]) -> None:
        for name in self._settings:
            value = getattr(self, name)
            for head in sorted(value) if isinstance(value, Mapping) else ():
                self._check_entry(name, head, tensors)
        self._check_one_kind(tensors)
        for head, tensor in tensors.items():
            if self._task_of(head) is not None:
                self._check_head(head, tensor)

    def _check_entry(self, name: str, head: str, heads: Collection[str]) -> None:
        """Checks that a setting by head is for a head, and one that has it."""
        if head not in heads:
            near = difflib.get_close_matches(head, heads, n=1)
            raise ValueError(
                f"`{name}` given as a dict must be by head, and the model has "
                f"{self._shown(heads)}{f'; the nearest is {near[0]!r}' if near else ''}. "
                f"Received: {name} for {[head]}"
            )
        if name != "tasks" and not self._has(name, head):
            of = [task.name for task in TASKS.values() if name in task.settings]
            raise ValueError(
                f"`{name}` is a setting of heads with one of the tasks {of}; drop it for head "
                f"{head!r}, or give that another task with `tasks`. "
                f"Received: {name} for {[head]}, whose task is {self._task_of(head)!r}"
            )

    def _check_one_kind(self, tensors: Mapping[str, Any]) -> None:
        if self.task not in ("classifier", "binary") or isinstance(self.tasks, str):
            return
        named: Mapping[str, Any] = self.tasks or {}
        rest = {head: tensor for head, tensor in tensors.items() if head not in named}
        one = {head for head, tensor in rest.items() if tuple(tensor.shape)[-1:] == (1,)}
        if not one or len(one) == len(rest):
            return
        others: dict[str, str | None] = dict.fromkeys(sorted(one), "binary")
        if self.task == "binary":
            fitting = {"sigmoid": "multilabel", "linear": None}
            squashed = {head: graph.activation(self, head) for head in sorted(rest.keys() - one)}
            others = {
                head: fitting.get(name or "", "classifier") for head, name in squashed.items()
            }
        raise ValueError(
            "All heads must be of one kind if `tasks` does not name them, and this model has heads "
            f"of one unit beside heads of several; pass `tasks={others}`, with `None` for a head "
            "to pass on, or override `postprocess`: pass the heads that fit to "
            "`super().postprocess` in a dict, and add the others to what it returns. "
            f"Received: the heads {sorted(rest)}, of which {sorted(one)} have one unit"
        )

    def _check_head(self, head: str, tensor: Any) -> None:
        task = TASKS[self._task_of(head) or ""]
        known = Head(
            head,
            tuple(getattr(tensor, "shape", ())),
            functools.partial(self._setting, head=head),
            functools.partial(self._way_to, head=head),
        )
        dtype = getattr(tensor, "dtype", None)
        if dtype is None or not keras.backend.is_float_dtype(dtype):
            what = "a number" if task.name == "regressor" else "probabilities or logits"
            shown = None if dtype is None else keras.backend.standardize_dtype(dtype)
            raise ValueError(
                f"The output{known.of} must be floating point, {what}; "
                f"{self._way_to(None, head)} passes on a head as it is. Received: dtype={shown}"
            )
        classes = task.check_shape(known)
        names = self._setting("class_names", head) if self._has("class_names", head) else None
        if names is not None and classes is not None and len(names) != classes:
            raise ValueError(
                f"`class_names` must name each of the {classes} classes{known.of}. "
                f"Received: {len(names)} names"
            )
        squashed = graph.activation(self, head) if self._passes_its_outputs() else None
        if self._from_logits(head) and squashed in ("softmax", "sigmoid"):
            raise ValueError(
                f"`from_logits=True` needs logits, but the last layer{known.of} applies "
                f"{squashed}; drop `from_logits`, or the activation. Received: from_logits=True"
            )
        task.check_settings(known)

    def _from_logits(self, head: str) -> bool:
        return self._has("from_logits", head) and bool(self._setting("from_logits", head))

    def _way_to(self, task: str | None, head: str) -> str:
        """How the user gives a head another task."""
        if task is not None and not head and self.tasks is None and self.task is not None:
            names = {"binary": "Binary", "multilabel": "MultiLabel"}
            return f"`{names.get(task, '')}ClassifierMixin`"
        if task is None and not head:
            return "`PredictionModel` without `tasks`"
        value = {head: task} if head else task
        return f"`tasks={value!r}`"

    def _warn_of_activation(self, head: str) -> None:
        name, squashed = self._task_of(head), graph.activation(self, head)
        expected = None if name is None else TASKS[name].activation
        if expected is None or self._from_logits(head) or squashed in (None, expected):
            return
        if squashed == "linear":
            flag = f"{{{head!r}: True}}" if head else "True"
            remedy = f"pass `from_logits={flag}` if it yields logits"
            if head:
                remedy += f", or {self._way_to(None, head)} if it is no classifier"
        elif squashed in ("softmax", "sigmoid"):
            remedy = "use the mixin that fits it" if self.tasks is None else "use a task that fits"
        else:
            return
        warnings.warn(
            f"{type(self).__name__} expects probabilities from a last layer with "
            f"activation='{expected}'; {remedy}. "
            f"Received: activation='{squashed}'" + (f" of head {head!r}" if head else ""),
            stacklevel=2,
        )
