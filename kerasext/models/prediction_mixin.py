"""What the mixins share: settings, a cooperative `predict_step`, and `postprocess`."""

from __future__ import annotations

import difflib
import itertools
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import keras

from kerasext.keras_internals import cooperative, hides_next, saving
from kerasext.models import graph
from kerasext.models.scores import scores_of
from kerasext.models.settings import SETTINGS, as_json, checked

if TYPE_CHECKING:
    from keras import Model as _Model
else:
    # Plain, no metaclass and no `abc`: Keras sets `__bases__` of what it builds functionally.
    _Model = object


_versions = itertools.count(1)


class PredictionMixin(_Model):
    """Makes `predict` return a dict of named outputs.

    `fit`, `evaluate`, `model(x)` and `export` are not touched: only what `predict` and
    `predict_on_batch` return changes. Subclasses say what one head of the model means.
    """

    from_logits: Any = SETTINGS["from_logits"].default
    class_names: Any = SETTINGS["class_names"].default
    scores: Any = SETTINGS["scores"].default

    settings_version = 0  # another one after each change, for what compiles the settings
    task: ClassVar[str]
    _activation: ClassVar[str]
    _settings: ClassVar[tuple[str, ...]] = ("from_logits", "class_names", "scores")
    _heads: tuple[str, ...] = ()

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
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if saving.is_made_of_a_graph(type(self), args, kwargs):
            kerass = {"inputs", "outputs", "trainable", "dtype"}
            self._check_settings(kwargs.keys() - kerass, {*self._settings, "name"})
        super().__init__(*args, **kwargs)

    @classmethod
    def _check_settings(cls, given: Iterable[str], known: Collection[str]) -> None:
        """Raises `TypeError` for an unknown one, which Keras's functional constructor ignores."""
        for name in sorted(set(given).difference(known)):
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"; the nearest is {near[0]!r}" if near else ""
            raise TypeError(
                f"The settings of {cls.__name__} are {sorted(known)}{remedy}. Received: {name!r}"
            )

    def _configure(self, **settings: Any) -> None:
        for name, value in settings.items():
            setattr(self, name, getattr(type(self), name) if value is None else value)
        # What a Sequential ends with shows later.
        if graph.functional(self) is self and self._passes_its_outputs():
            self._check(graph.outputs(self))

    def _passes_its_outputs(self) -> bool:
        # A user's `postprocess` may pass on other tensors than those that the graph knows.
        return type(self).postprocess is PredictionMixin.postprocess

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
        return {**config, **{name: as_json(getattr(self, name)) for name in self._settings}}

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

    def postprocess(self, y_pred: Any) -> dict[str, Any]:
        """Turns what the model computed into named outputs. The hook to override.

        Runs inside the compiled predict step, so it is made of `keras.ops`.

        Args:
            y_pred: What the model's `call` returned: a tensor of shape `(batch, ..., units)`, or a
                dict, list or tuple of them, one per head.

        Returns:
            Dict from output name to tensor of shape `(batch, ...)`. With several heads a dict of
            such dicts, by the key or position of the head.

        Raises:
            ValueError: If the tensors are not what the mixin and its settings declare.

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
        self._check(y_pred)
        heads = tuple(graph.heads(y_pred))
        if heads != self._heads:  # once, not in every trace
            self._heads = heads
            if self._passes_its_outputs():
                for head in heads:
                    self._warn_of_activation(head)
        return self._postprocess(y_pred, "")

    def _postprocess(self, y_pred: Any, head: str) -> dict[str, Any]:
        if isinstance(y_pred, Mapping):
            items = list(y_pred.items())
        elif isinstance(y_pred, list | tuple):
            items = list(enumerate(y_pred))
        else:
            return self._describe(y_pred, head)
        return {
            str(key): self._postprocess(value, f"{head}/{key}".lstrip("/")) for key, value in items
        }

    def _describe(self, y_pred: Any, head: str) -> dict[str, Any]:
        """The named outputs of one head."""
        raise NotImplementedError

    def _scores(self, probabilities: Any, head: str) -> dict[str, Any]:
        """The scores that the settings name, of distributions on the last axis."""
        names = self._setting("scores", head)
        return scores_of(names, probabilities) if names else {}

    def prediction_metadata(self) -> dict[str, Any]:
        """What a file of predictions should say of the model's outputs.

        Returns:
            Dict of JSON-serializable values: `task` and the settings of the mixin, class names by
            head where there are several and the model has predicted. Override it to add your own,
            with `super()`.
        """
        settings = {name: as_json(getattr(self, name)) for name in self._settings}
        names = settings["class_names"]
        if isinstance(names, list) and self._heads not in ((), ("",)):
            settings["class_names"] = dict.fromkeys(self._heads, names)
        return {"task": self.task, **settings}

    def _setting(self, name: str, head: str) -> Any:
        value = getattr(self, name)
        if isinstance(value, Mapping):
            return value.get(head, SETTINGS[name].default)
        return value

    def _check(self, y_pred: Any) -> None:
        tensors = graph.heads(y_pred)
        for name in self._settings:
            value = getattr(self, name)
            unknown = sorted(value.keys() - tensors.keys()) if isinstance(value, Mapping) else []
            if unknown:
                heads = "one output only" if "" in tensors else f"the heads {sorted(tensors)}"
                raise ValueError(
                    f"`{name}` given as a dict must be by head, and the model has {heads}. "
                    f"Received: {name} for {unknown}"
                )
        self._check_one_kind({head: tuple(tensor.shape) for head, tensor in tensors.items()})
        for head, tensor in tensors.items():
            self._check_head(head, tensor)

    def _check_one_kind(self, shapes: Mapping[str, tuple[int | None, ...]]) -> None:
        one = sorted(head for head, shape in shapes.items() if shape[-1:] == (1,))
        if one and len(one) < len(shapes) and self.task != "multilabel":
            raise ValueError(
                "All heads must be of one kind, and this model has heads of one unit beside heads "
                "of several; predict without a mixin, or override `postprocess`: pass the heads "
                "that fit to `super().postprocess` in a dict, and add the others to what it "
                f"returns. Received: the heads {sorted(shapes)}, of which {one} have one unit"
            )

    def _check_head(self, head: str, tensor: Any) -> None:
        of_head = f" of head {head!r}" if head else ""
        if not keras.backend.is_float_dtype(tensor.dtype):
            raise ValueError(
                f"The output{of_head} must be floating point, probabilities or logits. "
                f"Received: dtype={keras.backend.standardize_dtype(tensor.dtype)}"
            )
        names = self._setting("class_names", head)
        classes = self._number_of_classes(of_head, tensor.shape)
        if names is not None and classes is not None and len(names) != classes:
            raise ValueError(
                f"`class_names` must name each of the {classes} classes{of_head}. "
                f"Received: {len(names)} names"
            )
        squashed = graph.activation(self, head) if self._passes_its_outputs() else None
        if self._setting("from_logits", head) and squashed in ("softmax", "sigmoid"):
            raise ValueError(
                f"`from_logits=True` needs logits, but the last layer{of_head} applies {squashed}; "
                "drop `from_logits`, or the activation. Received: from_logits=True"
            )

    def _number_of_classes(self, of_head: str, shape: Any) -> int | None:
        """Number of classes of a tensor of this shape, `None` where it is not known."""
        raise NotImplementedError

    def _warn_of_activation(self, head: str) -> None:
        squashed = graph.activation(self, head)
        if self._setting("from_logits", head) or squashed in (None, self._activation):
            return
        if squashed == "linear":
            flag = f"{{{head!r}: True}}" if head else "True"
            remedy = f"pass `from_logits={flag}` if it yields logits"
            if head:
                remedy += ", or override `postprocess` if it is no classifier"
        elif squashed in ("softmax", "sigmoid"):
            remedy = "use the mixin that fits it"
        else:
            return
        warnings.warn(
            f"{type(self).__name__} expects probabilities from a last layer with "
            f"activation='{self._activation}'; {remedy}. "
            f"Received: activation='{squashed}'" + (f" of head {head!r}" if head else ""),
            stacklevel=2,
        )


def probabilities_dtype(y_pred: Any) -> str:
    """The dtype of `y_pred`, raised to at least float32: half precision ties and sums badly."""
    # Not by `keras.backend.result_type`, whose float64 is float32 on JAX and torch.
    dtype = str(keras.backend.standardize_dtype(y_pred.dtype))
    return dtype if dtype == "float64" else "float32"
