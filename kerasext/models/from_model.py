"""Dressing a trained model in a mixin, its weights shared."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

import keras

from kerasext.keras_internals import (
    PREDICTION_METHODS,
    Functional,
    check_model,
    listed,
    own_methods,
)
from kerasext.models import graph
from kerasext.models.prediction_mixin import PredictionMixin
from kerasext.models.settings import SETTINGS

if TYPE_CHECKING:
    from keras import Model as _Model
else:
    _Model = object

# What a class of one's own is derived from instead of these.
_KERAS_CLASSES = {
    keras.Model: "keras.Model",
    Functional: "keras.Model",
    keras.Sequential: "keras.Sequential",
}


class HeldModel(keras.Model):
    """A model that holds another one as its only layer.

    Args:
        model: The `keras.Model` that computes.
    """

    def __init__(self, model: keras.Model, **kwargs: Any) -> None:
        # Of the model's dtype policy, or the holder would cast the inputs to its own.
        super().__init__(**{"dtype": model.dtype_policy, **kwargs})
        self.model = model
        self.built = model.built
        # Keras's trainer gives `training` only to models that take it: so must it be here.
        self._call_has_training_arg = model._call_has_training_arg

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Calls the model held."""
        if self._call_has_training_arg:
            return self.model(inputs, training=training)
        return self.model(inputs)

    def get_config(self) -> dict[str, Any]:
        """The config, with the model held."""
        model = keras.saving.serialize_keras_object(self.model)
        return {**super().get_config(), "model": model}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> HeldModel:
        """Makes the model, and the one it holds, from a config."""
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        return cls(**{**config, "model": model})


class FromModel(_Model):
    """Adds `from_model` to the ready-made models."""

    _held: ClassVar[type[HeldModel]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__mro__[: cls.__mro__.index(FromModel)]
        if any("call" in base.__dict__ for base in own):
            # Keras rewrites the bases of a class built functionally: keras-team/keras#17270
            raise TypeError(
                "A ready-made model has no `call` of its own; subclass the mixin: "
                f"`{cls._class_line(cls)}`. Received: call defined in {cls.__name__}"
            )

    @classmethod
    def from_model(cls, model: keras.Model, **settings: Any) -> Any:
        """Dresses a trained model, sharing its weights.

        A functional or sequential model has its graph wrapped again, any other one is held as a
        layer. A model that has a mixin already gives its settings to the new one, except those that
        the new mixin lacks, and `class_names` between a binary model and one of another kind.
        Settings given here win, then those of the model that are not the default, then the class
        attributes of the new one. Not taken along: `compile`, which the new model may be given
        again.

        Args:
            model: A built `keras.Model`.
            **settings: The settings of the mixin, such as `from_logits` and `class_names`.

        Returns:
            A new model with the variables of `model`, of this class where there is a graph.

        Raises:
            TypeError: If `model` is not a `keras.Model`. If it or its class has methods of its own
                that would be lost: `predict`, `predict_on_batch`, `predict_step`,
                `make_predict_function`, `__call__`, or a mixin's `postprocess` or
                `prediction_metadata`; a class with the mixin keeps them. If a setting does not
                exist.

        Example:

        ```python
        model = keras.saving.load_model("digits.keras")
        outputs = ClassifierModel.from_model(model).predict(images)
        ```
        """
        check_model(model)
        own = own_methods(model, *PREDICTION_METHODS)
        if own:
            raise TypeError(
                "The model's own methods would be lost; make the model of a class that has them "
                f"and the mixin: `{cls._subclass_line(type(model))}`. "
                f"Received: model={model!r} with {listed(own)}"
            )
        for name in ("postprocess", "prediction_metadata"):
            method = getattr(type(model), name, None)
            kept = [getattr(base, name, None) for base in (PredictionMixin, cls)]
            if name in vars(model) or (method is not None and method not in kept):
                raise TypeError(
                    f"The model's own `{name}` would be lost; add the mixin to its class instead: "
                    f"`{cls._class_line(type(model))}`. Received: model={model!r}"
                )
        parameters = inspect.signature(cls).parameters.values()
        named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        cls._check_settings(settings, {*cls._held._settings, "name", *named})
        settings = {"name": model.name, **cls._settings_of(model), **settings}
        functional = graph.functional(model)
        if functional is not None:
            return cls(functional.input, functional.output, **settings)
        if "_held" not in cls.__dict__:
            raise TypeError(
                f"A model without a graph would lose what {cls.__name__} adds; add the mixin to "
                f"its class instead: `{cls._class_line(type(model))}`. Received: model={model!r}"
            )
        return cls._held(model, **settings)

    @classmethod
    def _settings_of(cls, model: keras.Model) -> dict[str, Any]:
        """The settings of a model that has a mixin, as far as they mean the same in this one."""
        if not isinstance(model, PredictionMixin):
            return {}
        names = set(model._settings).intersection(cls._held._settings)
        if model.task != cls._held.task and "binary" in (model.task, cls._held.task):
            names.discard("class_names")  # of two classes, where others name each unit
        values = {name: getattr(model, name) for name in names}
        return {name: value for name, value in values.items() if value != SETTINGS[name].default}

    @classmethod
    def _subclass_line(cls, model_class: type) -> str:
        """A class that adds the mixin to the first class of the model that has none."""
        mixin = cls._held.__bases__[0].__name__
        base = next(
            base
            for base in model_class.__mro__
            if issubclass(base, keras.Model) and not issubclass(base, PredictionMixin)
        )
        if base in _KERAS_CLASSES:
            return f"class MyModel({mixin}, {_KERAS_CLASSES[base]})"
        return f"class {base.__name__}{mixin.removesuffix('Mixin')}({mixin}, {base.__name__})"

    @classmethod
    def _class_line(cls, model_class: type) -> str:
        """The class with the mixin in place of another one, and its other bases."""
        if model_class in _KERAS_CLASSES:
            return cls._subclass_line(model_class)
        mixin = cls._held.__bases__[0].__name__
        bases = [base for base in model_class.__bases__ if not issubclass(base, PredictionMixin)]
        names = [_KERAS_CLASSES.get(base, base.__name__) for base in bases] or ["keras.Model"]
        return f"class {model_class.__name__}({', '.join([mixin, *names])})"
