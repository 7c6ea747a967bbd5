"""Dressing a trained model in a mixin, its weights shared."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import keras

from kerasext.keras_internals import (
    PREDICTION_METHODS,
    Functional,
    check_model,
    implementation,
    is_cooperative,
    own_methods,
    saving,
    sharing_state,
)
from kerasext.models.heads import graph
from kerasext.models.heads.suggest_tasks import reasons, suggest_tasks
from kerasext.models.heads.tasks import FITTED, has_setting, task_of
from kerasext.models.prediction_mixin import PredictionMixin
from kerasext.models.settings import SETTINGS, checked

if TYPE_CHECKING:
    from keras import Model as _Model
else:
    _Model = object

_logger = logging.getLogger("kerasext")

_KERAS_CLASSES = (keras.Model, keras.Sequential, Functional)
_KERAS_BASES = set(keras.Sequential.__mro__).union(getattr(Functional, "__mro__", ()))
_HOOKS = ("postprocess", "prediction_metadata")
_CHAINED = ("get_config", "from_config", "get_build_config")  # which call `super()`
_MODEL = "kerasext_model"  # the config of the model that was dressed


class CarriedModel:
    """What a ready-made model saves that is of the class of another model as well."""

    def get_config(self: Any) -> dict[str, Any]:
        """The config, with that of the model that was dressed."""
        model = keras.saving.serialize_keras_object(sharing_state(self._dressed, self))
        return {"name": self.name, _MODEL: model, **self._settings_as_json()}

    def get_build_config(self) -> None:
        """Nothing: the model that was dressed builds itself."""


class FromModel(_Model):
    """Adds `from_model` to the ready-made models, which list it after their mixin.

    A ready-made model is of a class that is made of the ready-made class, or a subclass of it, and
    the class of the model that it dresses; `Functional` if it has a graph and no other code. The
    ready-made class itself has no objects, so that all of them are instances of it.
    """

    _form_of: Any = None  # the ready-made class, in a class that was made of it
    _dressed: Any = None  # and the other class that it was made of

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_form_of" in vars(cls):
            return
        own = cls.__mro__[: cls.__mro__.index(FromModel)]
        if any("call" in base.__dict__ for base in own):
            mixin = next(base.__name__ for base in own if not issubclass(base, keras.Model))
            raise TypeError(
                "A ready-made model has no `call` of its own; subclass the mixin: "
                f"`class {cls.__name__}({mixin}, keras.Model)`. "
                f"Received: call defined in {cls.__name__}"
            )
        if isinstance(Functional, type) and FromModel not in cls.__bases__:
            # As Keras does when it makes the first object, which it would do to the ready-made
            # class as well: keras-team/keras#17270
            cls.__bases__ = (*cls.__bases__, Functional)

    if not TYPE_CHECKING:  # the arguments are those of `__init__`

        def __new__(cls, *args: Any, **kwargs: Any) -> Self:
            """Makes an object with a graph of the class that has one."""
            if FromModel in cls.__bases__ and saving.is_made_of_a_graph(cls, args, kwargs):
                cls = cls._form(Functional)  # noqa: PLW0642 - as the arguments ask for
            return super().__new__(cls, *args, **kwargs)

    def __reduce__(self) -> Any:
        """As Keras pickles models, by the name of the class that users know."""
        load, arguments = super().__reduce__()
        return getattr(self._form_of or type(self), load.__name__), arguments

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Makes the model that `get_config` described."""
        options = {} if custom_objects is None else {"custom_objects": custom_objects}
        if _MODEL not in config:
            plain: Self = super().from_config(config, **options)
            return plain
        model = keras.saving.deserialize_keras_object(config[_MODEL], **options)
        settings = {name: config[name] for name in ("name", *cls._settings) if name in config}
        made: Self = cls.from_model(model, **settings)
        return made

    @classmethod
    def from_model(cls, model: keras.Model, **settings: Any) -> Self:
        """Dresses a trained model, sharing its weights.

        The model keeps the methods and attributes of its class, such as a `predict` that prepares
        its data, `predict_step` and `train_step`. Its class stands right of the mixin: what its
        `predict_step` returns goes to `postprocess`, and what its `predict` gets from Keras's has
        the names of the mixin's outputs. A plain functional or sequential model has its graph
        wrapped again.

        A model that has a mixin already gives its settings to the new one, except those that the
        new mixin lacks, `class_names` of heads that are binary in one of the two only, and what was
        fitted for another task.
        `PredictionModel` also takes the tasks of its heads.
        Settings given here win, then those of the model that are not the default, then the class
        attributes of the new one. Not taken along: `compile`, which the new model may be given
        again.

        Args:
            model: A `keras.Model`, best one that is built.
            **settings: The settings of the mixin, such as `tasks` and `class_names`. `tasks="auto"`
                takes what `suggest_tasks` suggests; the logger `kerasext` says what, at INFO.

        Returns:
            A new model with the variables of `model`: an instance of this class, and of the model's
            own class if that is not one of Keras's.

        Raises:
            TypeError: If `model` is not a `keras.Model`, or a setting does not exist. If a method
                that makes its predictions was set on the model itself, or its class has an
                attribute of the name of a setting or method of the mixin. If this class has a
                constructor of its own, or no graph, and the model's class has one.
            ValueError: If `tasks="auto"` is given for a model without a graph, if a head is not
                what its task takes, or a class with a `build` of its own is not built.

        Example:

        ```python
        model = keras.saving.load_model("digits.keras")
        outputs = ClassifierModel.from_model(model).predict(images)
        outputs = PredictionModel.from_model(model, tasks="auto").predict(images)
        ```
        """
        cls = cls._form_of or cls  # noqa: PLW0642 - a form makes those of the class that it is of
        check_model(model)
        parameters = inspect.signature(cls).parameters.values()
        named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        cls._check_settings(settings, {*cls._settings, "name", *named})
        if settings.get("tasks") == "auto":
            settings["tasks"] = cls._suggested_tasks(model, settings)
        settings = {"name": model.name, **cls._settings_of(model, settings), **settings}
        model_class = _own_class(model)
        functional = graph.functional(model)
        cls._check_carried(model, model_class)
        if functional is not None and model_class in _KERAS_CLASSES:
            return cls(functional.input, functional.output, **settings)
        cls._check_form(model, model_class)
        dressed: Self = sharing_state(cls._form(model_class), model)
        if isinstance(model, PredictionMixin):
            state: Any = vars(dressed)
            for name in (*SETTINGS, "_heads", "_half_heads"):
                state.pop(name, None)
        dressed.name = settings["name"]
        for name in cls._settings:
            default = getattr(cls, name, SETTINGS[name].default)
            value = settings.get(name)
            setattr(dressed, name, default if value is None else value)
        outputs = graph.outputs(dressed)
        if outputs is not None and dressed._passes_its_outputs():
            dressed._checked_heads(graph.heads(graph.by_name(dressed, outputs)))
        return dressed

    @classmethod
    def _form(cls, model_class: Any) -> type[Self]:
        """The class that is made of this one and a class of models."""
        known = [made for made in model_class.__subclasses__() if vars(made).get("_form_of") is cls]
        form: Any = model_class if issubclass(model_class, cls) else next(iter(known), None)
        if form is None:
            names = ("task", "_settings", "__module__", "__doc__")
            space = {name: getattr(cls, name) for name in names}
            saved = () if model_class is Functional else (CarriedModel,)
            bases = (cls, *saved, model_class)
            form = type(cls.__name__, bases, {**space, "_form_of": cls, "_dressed": model_class})
            saving.share_registered_name(form, cls)
        made_of_both: type[Self] = form
        return made_of_both

    @classmethod
    def _check_carried(cls, model: keras.Model, model_class: type) -> None:
        """Checks that nothing of the model would be lost, or hide what the mixin needs."""
        own = [name for name, owner in own_methods(model, *PREDICTION_METHODS).items() if not owner]
        own += [name for name in _HOOKS if name in vars(model)]
        if own:
            raise TypeError(
                f"{_named(own)} was set on the model itself, and would go on to predict with that; "
                "define it in a class, and make the model of it. "
                f"Received: model={model!r} with {_named(own)} of its own"
            )
        if isinstance(model, PredictionMixin):
            return
        theirs = set(vars(model)).union(*map(vars, set(model_class.__mro__) - _KERAS_BASES))
        taken = sorted(theirs & cls._names())
        if taken:
            raise TypeError(
                f"{_named(taken)} of the model would be hidden by the mixin; rename it in "
                f"{model_class.__name__}, or wrap the model in a graph, which keeps no other "
                f"method than `call`: `{cls.__name__}(inputs, model(inputs))`. "
                f"Received: model={model!r} with {_named(taken)}"
            )

    @classmethod
    def _check_form(cls, model: keras.Model, model_class: Any) -> None:
        """Checks that a class can be made of this one and that of the model, and its object."""
        has_graph = issubclass(model_class, Functional)
        has_constructor = implementation(cls, "__init__")[0] not in _KERAS_CLASSES
        if not issubclass(model_class, cls) and (
            has_constructor or (issubclass(cls, Functional) and not has_graph)
        ):
            lost = "constructor" if has_constructor else "graph"
            raise TypeError(
                f"{cls.__name__} has a {lost} of its own, and can only dress a model with a graph "
                "and no code of its own; list the mixin before the model's class, and write what "
                f"{cls.__name__} adds in that class. Received: model={model!r}"
            )
        if not model.built and model_class.build not in [base.build for base in _KERAS_CLASSES]:
            raise ValueError(
                "A model with a `build` of its own must be built, or it and the new one would have "
                f"different variables; call it on a batch first. Received: model={model!r}"
            )

    @classmethod
    def _names(cls) -> set[str]:
        """What this class and its mixin define, but for methods that call the next class's."""
        found = set(cls._settings)
        for base in cls.__mro__[: cls.__mro__.index(FromModel) + 1]:
            found |= {name for name, value in vars(base).items() if not is_cooperative(value)}
        return {name for name in found.difference(_CHAINED) if not name.startswith("__")}

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
            if name in FITTED:  # which depend on what the probabilities are of
                kept = {h for h in kept if before[h] == after[h]}
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


def _own_class(model: keras.Model) -> type:
    """The class of a model, without the ready-made class that it was dressed in."""
    found = type(model)
    while vars(found).get("_form_of") and FromModel in vars(found)["_form_of"].__bases__:
        found = vars(found)["_dressed"]
    return found


def _named(names: list[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)
