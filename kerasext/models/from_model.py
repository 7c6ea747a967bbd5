"""Dressing a trained model in a mixin, its weights shared."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import keras

from kerasext.keras_internals import (
    PREDICTION_METHODS,
    Functional,
    check_model,
    listed,
    own_methods,
    saving,
)
from kerasext.models import graph
from kerasext.models.prediction_mixin import PredictionMixin
from kerasext.models.settings import SETTINGS, checked
from kerasext.models.suggest_tasks import reasons, suggest_tasks
from kerasext.models.tasks import has_setting, task_of

if TYPE_CHECKING:
    from keras import Model as _Model
else:
    _Model = object

_logger = logging.getLogger("kerasext")

Made = TypeVar("Made", bound="FromModel")

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
    """Adds `from_model` to the ready-made models, which list it after their mixin.

    A ready-made model is of one of two subclasses of its class: with a graph, or holding a model.
    The class itself is neither, so that objects of both are instances of it.
    """

    _functional: ClassVar[Any]
    _held: ClassVar[Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__mro__[: cls.__mro__.index(FromModel)]
        if any("call" in base.__dict__ for base in own):
            raise TypeError(
                "A ready-made model has no `call` of its own; subclass the mixin: "
                f"`{cls._class_line(cls)}`. Received: call defined in {cls.__name__}"
            )
        is_ready_made = FromModel in cls.__bases__
        is_held = issubclass(cls, HeldModel)
        if isinstance(Functional, type) and not (
            is_ready_made or is_held or issubclass(cls, Functional)
        ):
            # As Keras does when it makes the first object, which it would do to the ready-made
            # class as well: keras-team/keras#17270
            cls.__bases__ = (*cls.__bases__, Functional)

    if not TYPE_CHECKING:  # the arguments are those of `__init__`

        def __new__(cls, *args: Any, **kwargs: Any) -> Self:
            """Makes the form with a graph of the ready-made class itself."""
            has_graph = saving.is_made_of_a_graph(cls, args, kwargs)
            return super().__new__(
                vars(cls).get("_functional", cls) if has_graph else cls, *args, **kwargs
            )

    @classmethod
    def from_model(cls, model: keras.Model, **settings: Any) -> Self:
        """Dresses a trained model, sharing its weights.

        A functional or sequential model has its graph wrapped again, any other one is held as a
        layer. A model that has a mixin already gives its settings to the new one, except those that
        the new mixin lacks, and `class_names` of heads that are binary in one of the two only.
        `PredictionModel` also takes the tasks of its heads.
        Settings given here win, then those of the model that are not the default, then the class
        attributes of the new one. Not taken along: `compile`, which the new model may be given
        again.

        Args:
            model: A built `keras.Model`.
            **settings: The settings of the mixin, such as `tasks` and `class_names`. `tasks="auto"`
                takes what `suggest_tasks` suggests; the logger `kerasext` says what, at INFO.

        Returns:
            A new model of this class with the variables of `model`.

        Raises:
            TypeError: If `model` is not a `keras.Model`. If it or its class has methods of its own
                that would be lost: `predict`, `predict_on_batch`, `predict_step`,
                `make_predict_function`, `__call__`, or a mixin's `postprocess` or
                `prediction_metadata`; a class with the mixin keeps them. If a setting does not
                exist.
            ValueError: If `tasks="auto"` is given for a model without a graph, or a head is not
                what its task takes.

        Example:

        ```python
        model = keras.saving.load_model("digits.keras")
        outputs = ClassifierModel.from_model(model).predict(images)
        outputs = PredictionModel.from_model(model, tasks="auto").predict(images)
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
        cls._check_settings(settings, {*cls._settings, "name", *named})
        if settings.get("tasks") == "auto":
            settings["tasks"] = cls._suggested_tasks(model, settings)
        settings = {"name": model.name, **cls._settings_of(model, settings), **settings}
        functional = graph.functional(model)
        if functional is not None:
            return cls(functional.input, functional.output, **settings)
        if "_held" not in cls.__dict__:
            raise TypeError(
                f"A model without a graph would lose what {cls.__name__} adds; add the mixin to "
                f"its class instead: `{cls._class_line(type(model))}`. Received: model={model!r}"
            )
        held: Self = cls._held(model, **settings)
        return held

    @classmethod
    def _suggested_tasks(cls, model: keras.Model, settings: Mapping[str, Any]) -> Any:
        if graph.outputs(model) is None:
            raise ValueError(
                "`tasks='auto'` needs a model with a graph, which shows its last layers; give each "
                f"head its task, as `tasks={{'kind': 'classifier'}}`. Received: model={model!r}"
            )
        tasks = suggest_tasks(model, settings.get("from_logits") or False)
        _logger.info(f"Model {model.name!r} ends in {reasons(model)}: tasks={tasks!r}")
        return tasks

    @classmethod
    def _settings_of(cls, model: keras.Model, given: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a model that has a mixin, as far as they mean the same in this one."""
        if not isinstance(model, PredictionMixin):
            return {}
        tasks = given["tasks"] if "tasks" in given else cls._tasks_of(model)
        tasks = checked("tasks", tasks)
        heads = model._known_heads() or ("",)
        before = {head: model._task_of(head) for head in heads}
        after = {head: task_of(head, tasks, cls.task) for head in heads}
        values: dict[str, Any] = {"tasks": tasks}
        for name in set(model._settings).intersection(cls._settings) - {"tasks"}:
            value = getattr(model, name)
            kept = {head for head in heads if has_setting(after[head], name)}
            if name == "class_names":  # of two classes if binary, where others name each unit
                kept = {h for h in kept if (before[h] == "binary") == (after[h] == "binary")}
            if isinstance(value, Mapping):
                value = {h: entry for h, entry in value.items() if h in kept or h not in before}
            elif not kept:
                continue
            if value not in (SETTINGS[name].default, {}):
                values[name] = value
        return values

    @classmethod
    def _tasks_of(cls, model: PredictionMixin) -> Any:
        """The tasks of a model's heads, as far as this class would give them others."""
        if cls.task is not None:
            return model.tasks if isinstance(model.tasks, Mapping) else None
        if model.task is None or isinstance(model.tasks, str):
            return model.tasks
        heads = model._known_heads()
        if model.tasks is None and heads in ((), ("",)):
            return model.task
        tasks: dict[str, str | None] = dict.fromkeys(heads, model.task)
        return {**tasks, **(model.tasks or {})}

    @classmethod
    def _subclass_line(cls, model_class: type) -> str:
        """A class that adds the mixin to the first class of the model that has none."""
        mixin = cls._mixin().__name__
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
        mixin = cls._mixin().__name__
        bases = [base for base in model_class.__bases__ if not issubclass(base, PredictionMixin)]
        names = [_KERAS_CLASSES.get(base, base.__name__) for base in bases] or ["keras.Model"]
        return f"class {model_class.__name__}({', '.join([mixin, *names])})"

    @classmethod
    def _mixin(cls) -> type:
        """The mixin of the ready-made class."""
        return next(
            base
            for base in cls.__mro__
            if issubclass(base, PredictionMixin) and not issubclass(base, keras.Model)
        )


def ready_made(cls: type[Made]) -> type[Made]:
    """Makes the forms of a ready-made class, and makes them known to Keras."""
    register = keras.saving.register_keras_serializable
    held = f"Held{cls.__name__.removesuffix('Model')}"
    doc = f"A `{cls.__name__}` that `from_model` made of a model without a graph."
    space: dict[str, Any] = {"__module__": cls.__module__, "__doc__": doc}
    space["__qualname__"] = f"{cls.__name__}._held"  # by which pickle finds it
    cls._held = register("kerasext")(type(held, (cls, HeldModel), space))
    # Files have the name of the class that users write.
    space = {**space, "__doc__": cls.__doc__, "_held": cls._held}
    space["__qualname__"] = f"{cls.__name__}._functional"
    if isinstance(Functional, type):  # else Keras is another one, and no model has a graph
        cls._functional = register("kerasext")(type(cls.__name__, (cls, Functional), space))
    return cls
