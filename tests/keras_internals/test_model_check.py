"""What is no model of Keras 3 is refused in the same way wherever a model is taken."""

import numpy as np
import pytest

from kerasext import compile_predict, predict_to_hdf5, tune_batch_size
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.models import ClassifierModel

X = np.zeros((200, 8), "float32")

TAKES_A_MODEL = {
    "compile_predict": compile_predict,
    "from_model": ClassifierModel.from_model,
    "predict_to_hdf5": lambda model: predict_to_hdf5(model, X, "none.h5"),
    "tune_batch_size": lambda model: tune_batch_size(model, X),
    "writer": lambda model: HDF5PredictionWriter("none.h5").set_model(model),
}


class Base:
    """Stands for a class of tf_keras, which has its own `Model`."""

    __module__ = "tf_keras.src.engine.training"


class OfKeras2(Base):
    """A user's class derived from it."""


@pytest.mark.parametrize("function", TAKES_A_MODEL)
@pytest.mark.parametrize(
    ("made", "message"),
    [(OfKeras2, "tf_keras is Keras 2; call.*TFSMLayer"), (object, r"must be a keras\.Model\. R")],
    ids=["of tf_keras", "an object"],
)
def test_no_model(made, message, function):
    """The error names what to do with a model of Keras 2, and blames no version of Keras."""
    with pytest.raises(TypeError, match=message) as caught:
        TAKES_A_MODEL[function](made())
    assert "version of Keras" not in str(caught.value)
