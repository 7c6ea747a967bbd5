import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(
    importlib.util.find_spec("keras.src.trainers.trainer_test") is None,
    reason="this Keras comes without its own tests, as those before 3.15 do",
)
def test_keras_predict_tests_pass_with_a_writer_attached(tmp_path):
    """Keras's own tests of `predict` pass with the callback, and each file equals the result."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider"]
    command += ["-p", "writer_on_every_predict", "--rootdir", str(tmp_path)]
    command += ["--pyargs", "keras.src.trainers.trainer_test", "-k", "predict"]
    # torch's compiler would take minutes for a few layers.
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "TORCHDYNAMO_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) >= 10
    assert int(re.search(r"compared (\d+) files", run.stdout)[1]) >= 10
