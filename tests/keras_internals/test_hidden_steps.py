import functools

import keras
import pytest

from kerasext.keras_internals.hidden_steps import hides_next
from kerasext.models import ClassifierMixin


def halved(step):
    """A decorator that changes what a step returns."""

    @functools.wraps(step)
    def wrapper(self, data):
        return step(self, data) / 2

    return wrapper


def unwrapped(step):
    """A decorator that leaves no trace of what it decorates but in its closure."""
    return lambda self, data: step(self, data) / 2


def helper_that_goes_on(model, data):
    """A function that calls the mixin's step for the model."""
    return ClassifierMixin.predict_step(model, data)


def helper_that_does_not(model, data):
    """A function that calls the model only."""
    return model(data)


class Calls:
    """Steps that go on, each in another way."""

    def super_with_state(self, *args):
        *state, data = args
        return super().predict_step(*state, data * 2)

    def old_super(self, data):
        return super(Calls, self).predict_step(data)  # noqa: UP008 - as it may be written

    def parent_by_name(self, data):
        return ClassifierMixin.predict_step(self, data)

    def by_getattr(self, data):
        return getattr(super(), "predict_step")(data)  # noqa: B009 - as it may be written

    def in_a_function(self, data):
        def step(part):
            return super(Calls, self).predict_step(part)

        return keras.tree.map_structure(step, data)

    def in_a_comprehension(self, data):
        return sum(super(Calls, self).predict_step(data + shift) for shift in range(3))

    def in_a_lambda(self, data):
        return keras.ops.cond(data > 0, lambda: ClassifierMixin.predict_step(self, data), None)

    def postprocess_itself(self, data):
        return self.postprocess(self(data))

    def by_a_method(self, data):
        return self._twice(data)

    def _twice(self, data):
        return self._once(data) + self._once(-data)

    def _once(self, data):
        return super().predict_step(data)

    def by_a_function(self, data):
        return helper_that_goes_on(self, data)

    decorated = halved(super_with_state)
    decorated_without_a_trace = unwrapped(super_with_state)
    static = staticmethod(helper_that_goes_on)
    no_python = len
    partial = functools.partialmethod(super_with_state)


class DoesNot:
    """Steps that do not go on."""

    def plain(self, data):
        return self(data)

    def with_a_docstring(self, data):
        """Not super().predict_step, and no postprocess."""
        return self(data)

    def another_super(self, data):
        return super().call(data)

    def by_a_method(self, data):
        return self._call(data)

    def _call(self, data):
        return self(data)

    def by_a_function(self, data):
        return helper_that_does_not(self, data)

    def recursive(self, data):
        return self.recursive(data) if data else self(data)

    decorated = halved(plain)
    decorated_without_a_trace = unwrapped(plain)
    static = staticmethod(helper_that_does_not)


def steps(cls):
    """The steps of a class, by name."""
    return {name: step for name, step in vars(cls).items() if not name.startswith("_")}


@pytest.mark.parametrize("name", steps(Calls))
def test_steps_that_go_on(name):
    """A step that goes on, however it is written, and one that can't be read, is not accused."""
    assert not hides_next(vars(Calls)[name], Calls)


@pytest.mark.parametrize("name", steps(DoesNot))
def test_steps_that_do_not(name):
    """A step that never comes to another class's, itself or by its helpers, is found."""
    assert hides_next(vars(DoesNot)[name], DoesNot)
