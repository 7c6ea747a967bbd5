"""The options of a writer: one declaration, shown wherever they are taken."""

import inspect
from dataclasses import fields

import pytest

from kerasext import predict_to_hdf5
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.callbacks.writer_options import CheckedOptions, WriterOptions

OPTIONS = {field.name: field.default for field in fields(CheckedOptions) if field.init}


def test_type_checkers_know_the_same_options():
    """What type checkers see are the options that there are, with the same types."""
    declared = {field.name: field.type for field in fields(CheckedOptions) if field.init}
    known = {name: option.__forward_arg__ for name, option in WriterOptions.__annotations__.items()}
    assert known == declared


@pytest.mark.parametrize("function", [HDF5PredictionWriter, predict_to_hdf5])
def test_help_shows_them(function):
    """Each option is in the signature, with its default, and no `**options`."""
    parameters = inspect.signature(function).parameters
    shown = {name: parameters[name].default for name in OPTIONS}
    assert shown == OPTIONS
    assert all(p.kind is not p.VAR_KEYWORD for p in parameters.values())


def test_an_unknown_option(path):
    """A name that is no option is an error."""
    with pytest.raises(TypeError, match="compresion"):
        HDF5PredictionWriter(path, compresion="gzip")


def test_options_are_copied(path):
    """What the caller changes later is not what was checked."""
    dtypes, metadata = {"probabilities": "float16"}, {"fold": 1}
    options = CheckedOptions(dtypes=dtypes, metadata=metadata)
    dtypes["labels"] = metadata["fold"] = object
    assert list(options.dtypes) == ["probabilities"]
    assert (options.metadata, options.metadata_json) == ({"fold": 1}, '{"fold": 1}')
