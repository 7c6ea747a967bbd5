"""Several processes write a file each, and one index makes them one file."""

import subprocess
import sys

import numpy as np
import pytest

from kerasext.shards import index_shards
from kerasext.storage import PredictionFile, PredictionFileWriter

STUB = """
import sys
import numpy as np
from kerasext.storage import PredictionFileWriter
rank, ranks, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
rows = np.load(folder + "/../rows.npy", mmap_mode="r")
mine = np.array_split(np.arange(len(rows)), ranks)[rank]
writer = PredictionFileWriter(f"{folder}/rank-{rank:02}.h5")
for part in np.array_split(mine, 4):
    writer.append({"probabilities": rows[part] * 2, "ids": part})
writer.finish()
"""
KERAS = """
import sys
import keras
import numpy as np
from kerasext.callbacks import HDF5PredictionWriter
rank, ranks, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
rows = np.load(folder + "/../rows.npy", mmap_mode="r")
mine = np.array_split(np.arange(len(rows)), ranks)[rank]
model = keras.saving.load_model(folder + "/../model.keras")
writer = HDF5PredictionWriter(f"{folder}/rank-{rank:02}.h5", accumulate=False, ids=mine)
model.predict(rows[mine], batch_size=16, verbose=0, callbacks=[writer])
"""
ROWS = np.random.default_rng(0).normal(size=(203, 8)).astype("f4")


def run(code, folder, ranks=3):
    """Starts the processes, and waits for all of them."""
    np.save(folder.parent / "rows.npy", ROWS)
    command = [sys.executable, "-c", code]
    arguments = [[str(rank), str(ranks), str(folder)] for rank in range(ranks)]
    running = [
        subprocess.Popen([*command, *some], stderr=subprocess.PIPE, text=True) for some in arguments
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors


def test_like_one_file(folder, tmp_path):
    """What three processes write at once is what one would have written."""
    run(STUB, folder)
    writer = PredictionFileWriter(tmp_path / "one.h5")
    writer.append({"probabilities": ROWS * 2, "ids": np.arange(len(ROWS))})
    writer.finish()
    with (
        PredictionFile(index_shards(folder)) as many,
        PredictionFile(tmp_path / "one.h5") as one,
    ):
        assert list(many) == list(one)
        for name in one:
            np.testing.assert_array_equal(many[name][:], one[name][:], strict=True)


@pytest.mark.slow
def test_like_one_predict(folder, tmp_path):
    """So it is with models of one process each, which have one fingerprint."""
    keras = pytest.importorskip("keras")
    models = pytest.importorskip("kerasext.models")
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(3, activation="softmax")(inputs)
    model = models.ClassifierModel(inputs, outputs, class_names=["a", "b", "c"])
    model.save(tmp_path / "model.keras")
    code = "import kerasext.models\n" + KERAS
    run(code, folder)
    expected = model.predict(ROWS, batch_size=16, verbose=0)
    with PredictionFile(index_shards(folder)) as many:
        assert many.class_names == ["a", "b", "c"]
        assert many["ids"][:].tolist() == list(range(len(ROWS)))
        for name in ("labels", "confidence", "probabilities"):
            np.testing.assert_allclose(many[name][:], expected[name], rtol=1e-5)
        many.verify()
