import importlib.util
import re
from pathlib import Path

import pytest

SCRIPT = """
    import os, sys
    import pytest

    folder, rootdir = sys.argv[1:]
    sys.path.insert(0, folder)  # where the plugin is
    sys.exit(pytest.main([
        "-q", "-c", os.devnull, "-p", "no:cacheprovider", "-p", "no:xdist",
        "-p", "writer_on_every_predict", "--rootdir", rootdir,
        "--pyargs", "keras.src.trainers.trainer_test", "-k", "predict",
    ]))
"""


@pytest.mark.skipif(
    importlib.util.find_spec("keras.src.trainers.trainer_test") is None,
    reason="this Keras comes without its own tests, as those before 3.15 do",
)
def test_keras_predict_tests_pass_with_a_writer_attached(keras_server, tmp_path):
    """Keras's own tests of `predict` pass with the callback, and each file equals the result."""
    # torch's compiler would take minutes for a few layers.
    environment = {"TORCHDYNAMO_DISABLE": "1"}
    arguments = (Path(__file__).parent, tmp_path)
    ended = keras_server.run(SCRIPT, *arguments, cwd=tmp_path, env=environment)
    assert ended.status == 0, ended.out[-4000:] + ended.errors[-2000:]
    assert int(re.search(r"(\d+) passed", ended.out)[1]) >= 10
    assert int(re.search(r"compared (\d+) files", ended.out)[1]) >= 10
