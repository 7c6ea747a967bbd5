"""The mixin with a task per head: settings, a cooperative `predict_step`, and `postprocess`."""

from __future__ import annotations

import difflib
import functools
import itertools
import os
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import keras

from kerasext.calibration import Abstention, Calibration, PredictionSets, ThresholdChoice
from kerasext.keras_internals import cooperative, hides_next, is_for_xla, saving
from kerasext.models.confidence import fitting
from kerasext.models.confidence.fitting_rows import fitting_rows
from kerasext.models.confidence.stale import stale_settings, warn_if_stale
from kerasext.models.heads import graph
from kerasext.models.heads.checks import check_heads, check_same_heads, warn_of_activation
from kerasext.models.heads.tasks import FITTED, TASKS, ModelHead, task_of
from kerasext.models.settings import SETTINGS, as_json, checked
from kerasext.storage import PredictionFile

if TYPE_CHECKING:
    from keras import Model as _Model
else:
    # Plain, no metaclass and no `abc`: Keras sets `__bases__` of what it builds functionally.
    _Model = object


_versions = itertools.count(1)
_HALF = ("float16", "bfloat16")
_ONLY_IF_SET = ("tasks", *FITTED)  # in configs and files


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

    `calibrate`, `conformalize`, `abstain` and `tune_threshold` fit settings to rows with targets.
    With a calibration `probabilities`, `labels` and `confidence` are calibrated. Prediction sets
    and abstention add outputs to heads that yield probabilities:

    - `prediction_set`: bool of the shape of `probabilities`. The classes, or labels, whose
      probability reaches a threshold; none where `confidence` is NaN.
    - `set_size`: shape `(batch, ...)`, int32. How many these are, possibly 0.
    - `abstained`: bool of the shape of `confidence`. Whether that is below a threshold, or NaN;
      `labels` are the same either way.

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
        calibration: `kerasext.calibration.Calibration`, or a dict of them by head. What
            `calibrate` has fitted. Defaults to `None`; so do the next two.
        prediction_sets: `PredictionSets`, or a dict of them by head. What `conformalize` has
            fitted.
        abstention: `Abstention`, or a dict of them by head. What `abstain` has fitted.

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
    calibration: Any = SETTINGS["calibration"].default
    prediction_sets: Any = SETTINGS["prediction_sets"].default
    abstention: Any = SETTINGS["abstention"].default

    settings_version = 0  # another one after each change, for what compiles the settings
    task: ClassVar[str | None] = None  # of heads that `tasks` does not name
    _settings: ClassVar[tuple[str, ...]] = tuple(SETTINGS)
    _heads: tuple[str, ...] = ()  # of the last trace
    _half_heads: frozenset[str] = frozenset()  # that yield less than float32

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
        calibration: Calibration | Mapping[str, Calibration] | None = None,
        prediction_sets: PredictionSets | Mapping[str, PredictionSets] | None = None,
        abstention: Abstention | Mapping[str, Abstention] | None = None,
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
            "calibration": calibration,
            "prediction_sets": prediction_sets,
            "abstention": abstention,
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
            self._checked_heads(graph.heads(graph.by_name(self, graph.outputs(self))))

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
        for name in _ONLY_IF_SET:  # Keras puts arguments with defaults there
            config.pop(name, None)
        return {**config, **self._settings_as_json()}

    def _settings_as_json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self._settings}
        return {
            name: as_json(value)
            for name, value in values.items()
            if value is not None or name not in _ONLY_IF_SET
        }

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
        tensors, passes = graph.heads(named), self._passes_its_outputs()
        if passes:
            check_same_heads(tensors, self._heads)
        heads = self._checked_heads(tensors)
        if tuple(heads) != self._heads:  # once, not in every trace
            self._heads = tuple(heads)
            for head in heads.values() if passes else ():
                warn_of_activation(head, type(self).__name__, has_tasks=self.tasks is not None)
        return self._by_task(named, heads, "")

    def _checked_heads(self, tensors: Mapping[str, Any]) -> dict[str, ModelHead]:
        heads = {name: self._head(name, tensor) for name, tensor in tensors.items()}
        half = [name for name, tensor in tensors.items() if _is_half(tensor)]
        self._half_heads = frozenset(half)
        settings = {name: getattr(self, name) for name in self._settings}
        check_heads({name: (head, tensors[name]) for name, head in heads.items()}, settings)
        return heads

    def _by_task(self, named: Any, heads: Mapping[str, ModelHead], name: str) -> Any:
        if isinstance(named, Mapping):
            return {
                key: self._by_task(value, heads, f"{name}/{key}" if name else key)
                for key, value in named.items()
            }
        head = heads[name]
        return named if head.task is None else TASKS[head.task].outputs(named, head)

    @cooperative
    @functools.wraps(keras.Model.predict)
    def predict(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - Keras's own
        warn_if_stale(self)
        return super().predict(*args, **kwargs)

    def calibrate(
        self,
        x: Any,
        y: Any = None,
        *,
        method: str | None = None,
        head: str = "",
        rows: Any = None,
        batch_size: int | None = None,
    ) -> Calibration:
        """Fits a map of the probabilities, so that a confidence of 0.8 is right 8 times out of 10.

        Fit it on rows that the model was not trained on. It becomes the setting `calibration`: from
        now on `predict` returns calibrated probabilities, and labels and confidence made of them.
        Prediction sets and abstention that were fitted before are dropped, with a warning.

        Args:
            x: Rows to predict, as `predict` takes them; or a `PredictionFile`, or the path of one,
                of this model and these weights, which needs no second pass.
            y: The target of each row: integer classes of the shape of `labels`, one-hot, or names
                of `class_names`; of several labels 0 and 1. Of a file also the name of a column.
                Defaults to `None`, for the targets that the file has.
            method: String. `"temperature"` scales the logits of all classes by one number, which
                changes no label (Guo et al., 2017); `"vector"` those of each class on their own,
                with a bias, which needs many rows of each class and may change labels; `"platt"`
                fits a scale and a bias for a binary head, or for each label of several (Platt,
                1999). Defaults to `None`, for `"temperature"`, or `"platt"` if the head is binary
                or has several labels.
            head: String. The head. Defaults to `""`, for the only one that yields probabilities.
            rows: Slice or array of indices: which rows of a file are used. Defaults to `None`, for
                all.
            batch_size: Int. As of `predict`.

        Returns:
            `kerasext.calibration.Calibration`, which is also the new setting.

        Raises:
            TypeError: If the targets are of the wrong dtype.
            ValueError: If the targets are no classes of the head, or of another length; if there
                are too few rows, all are right, or the model is worse than chance; if the head does
                not yield probabilities, or in half precision; if the file is of another model,
                incomplete, has rows that `keep` chose, or has no probabilities of full precision.
                The model is unchanged then.

        Example:

        ```python
        print(model.calibrate(x_val, y_val))
        model.calibrate("validation.h5")  # was written with targets
        model.save("calibrated.keras")
        ```
        """
        given = {name: getattr(self, name) for name in FITTED}
        if not isinstance(x, PredictionFile | str | os.PathLike):
            # What a calibration has made 0 or 1 can't be undone.
            self.calibration = self.prediction_sets = self.abstention = None
        try:
            found = fitting_rows(self, x, y, head=head, rows=rows, batch_size=batch_size)
        finally:
            for name, value in given.items():
                setattr(self, name, value)
        return fitting.calibrate(self, found, method)

    def conformalize(
        self,
        x: Any,
        y: Any = None,
        *,
        confidence_level: float = 0.9,
        method: str = "lac",
        class_conditional: bool = False,
        head: str = "",
        rows: Any = None,
        batch_size: int | None = None,
    ) -> PredictionSets:
        """Fits prediction sets, which hold the target of a row with a probability that you choose.

        They become the setting `prediction_sets`: from now on `predict` also returns
        `prediction_set` and `set_size`. The promise is for rows that are like the fitting rows
        (exchangeable), and on average over all of them. It is kept whatever the model is like; a
        worse model has larger sets.

        - One class for each row: a class is in the set if its probability reaches a threshold
          (LAC; Sadinle, Lei and Wasserman, 2019).
        - One class for each position, as in pixels and tokens: the share of the positions of a row
          whose class is in its set is `confidence_level` on average (conformal risk control;
          Angelopoulos et al., 2024).
        - Several labels: the share of the true labels of a row that are in its set is
          `confidence_level` on average, by the same method.

        Args:
            x: As of `calibrate`. Vector scaling must have been fitted on other rows.
            y: As of `calibrate`.
            confidence_level: Float in (0, 1). 0.95 needs 19 rows, 0.99 needs 99.
            method: String. `"lac"` is the only one.
            class_conditional: Bool. Whether the promise holds for the rows of each class, by a
                threshold of its own (Vovk, 2012). A class with too few rows is in every set. Only
                for heads with one class for each row.
            head: As of `calibrate`.
            rows: As of `calibrate`.
            batch_size: As of `calibrate`.

        Returns:
            `kerasext.calibration.PredictionSets`, which is also the new setting.

        Raises:
            TypeError: As `calibrate`.
            ValueError: As `calibrate`; if `confidence_level` is not in (0, 1), there are too few
                rows for it, or vector scaling was fitted on the same rows.

        Example:

        ```python
        model.conformalize(x_val, y_val, confidence_level=0.9)
        outputs = model.predict(x)
        outputs["prediction_set"]  # bool, (rows, classes): 90 % of them hold the true class
        ```
        """
        return fitting.conformalize(
            self,
            fitting_rows(self, x, y, head=head, rows=rows, batch_size=batch_size),
            confidence_level=confidence_level,
            method=method,
            class_conditional=class_conditional,
        )

    def abstain(
        self,
        x: Any,
        y: Any = None,
        *,
        risk: float = 0.05,
        confidence_level: float = 0.95,
        head: str = "",
        rows: Any = None,
        batch_size: int | None = None,
    ) -> Abstention:
        """Fits the confidence below which the model abstains, so that the rest is rarely wrong.

        It becomes the setting `abstention`: from now on `predict` also returns `abstained`. Of the
        labels of rows that are not abstained at most `risk` are wrong, in at least
        `confidence_level` of all draws of fitting rows. Labels stay as they are.

        The threshold is not looked up on a curve, which would break the promise in more than half
        of all draws: thresholds fixed beforehand are tested from the strictest one on by an exact
        binomial bound, until one fails (Learn then Test; Angelopoulos et al., 2021).

        Args:
            x: As of `calibrate`.
            y: As of `calibrate`.
            risk: Float in (0, 1). The share of kept labels that may be wrong.
            confidence_level: Float in (0, 1). How often the promise must hold.
            head: As of `calibrate`. Several labels get a threshold each, and the promise is for
                each on its own. A head with a class for each position has none, because positions
                of one row depend on each other.
            rows: As of `calibrate`.
            batch_size: As of `calibrate`.

        Returns:
            `kerasext.calibration.Abstention`, which is also the new setting.

        Raises:
            TypeError: As `calibrate`.
            ValueError: As `calibrate`; if a level is not in (0, 1), or no threshold keeps the
                promise.

        Example:

        ```python
        model.abstain(x_val, y_val, risk=0.05)
        outputs = model.predict(x)
        doubtful = x[outputs["abstained"]]  # for a person
        ```
        """
        found = fitting_rows(self, x, y, head=head, rows=rows, batch_size=batch_size)
        return fitting.abstain(self, found, risk=risk, confidence_level=confidence_level)

    def tune_threshold(
        self,
        x: Any,
        y: Any = None,
        *,
        metric: str = "f1",
        head: str = "",
        rows: Any = None,
        batch_size: int | None = None,
    ) -> ThresholdChoice:
        """Sets `threshold` to the one with the best metric, for each label on its own.

        Args:
            x: As of `calibrate`.
            y: As of `calibrate`.
            metric: String. `"f1"`, the harmonic mean of precision and recall, as scikit-learn's
                `f1_score`; or `"youden"`, recall plus specificity minus 1 (Youden, 1950).
            head: As of `calibrate`. It must be binary or have several labels.
            rows: As of `calibrate`.
            batch_size: As of `calibrate`.

        Returns:
            `kerasext.calibration.ThresholdChoice`.

        Raises:
            TypeError: As `calibrate`.
            ValueError: As `calibrate`; if the head is neither binary nor multi-label, or there is
                no such metric.

        Example:

        ```python
        model.tune_threshold(x_val, y_val, metric="f1").threshold
        ```
        """
        found = fitting_rows(self, x, y, head=head, rows=rows, batch_size=batch_size)
        return fitting.tune_threshold(self, found, metric)

    def prediction_metadata(self) -> dict[str, Any]:
        """What a file of predictions should say of the model's outputs.

        Returns:
            Dict of JSON-serializable values: `task` and the settings of the mixin, class names by
            head where there are several and the model has predicted. `task` is a string, or `None`,
            if all heads have the same one, else a dict by head. Override it to add your own, with
            `super()`.
        """
        settings = self._settings_as_json()
        settings.pop("tasks", None)
        names = settings.get("class_names")
        if isinstance(names, list) and self._heads not in ((), ("",)):
            named = [head for head in self._heads if self._head(head).has("class_names")]
            settings["class_names"] = dict.fromkeys(named, names)
        stale: Any = stale_settings(self)
        if stale:
            settings["stale"] = stale.get("", stale)
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

    def _head(self, name: str, tensor: Any = None) -> ModelHead:
        return ModelHead(
            name,
            self._task_of(name),
            functools.partial(self._setting, head=name),
            functools.partial(self._way_to, head=name),
            tuple(getattr(tensor, "shape", ())),
            graph.activation(self, name) if self._passes_its_outputs() else None,
            # `top_k` takes half the time on TensorFlow, up to twice as much where XLA sorts.
            keras.backend.backend() == "tensorflow" and not is_for_xla(self),
        )

    def _setting(self, name: str, head: str) -> Any:
        # A mixin has no settings of other tasks, which `tasks` may give its heads.
        value = getattr(self, name, SETTINGS[name].default)
        if isinstance(value, Mapping):
            return value.get(head, SETTINGS[name].default)
        return value

    def _way_to(self, task: str | None, head: str) -> str:
        """How the user gives a head another task."""
        if task is not None and not head and self.tasks is None and self.task is not None:
            names = {"binary": "Binary", "multilabel": "MultiLabel"}
            return f"`{names.get(task, '')}ClassifierMixin`"
        if task is None and not head:
            return "`PredictionModel` without `tasks`"
        value = {head: task} if head else task
        return f"`tasks={value!r}`"


def _is_half(tensor: Any) -> bool:
    dtype = getattr(tensor, "dtype", None)
    return dtype is not None and str(keras.backend.standardize_dtype(dtype)) in _HALF
