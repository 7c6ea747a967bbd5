import importlib

import numpy as np

from kerasext.callbacks.figures_log import FiguresLog


def read_log(folder):
    """The figures by tag and step, and the plugins of TensorBoard that show them."""
    tf = importlib.import_module("tensorflow")
    found, plugins = {}, {}
    for file in sorted(folder.iterdir()):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                found[value.tag, event.step] = tf.make_ndarray(value.tensor)
                if value.metadata.plugin_data.plugin_name:
                    plugins[value.tag] = value.metadata.plugin_data.plugin_name
    return found, plugins


def test_what_is_written_can_be_read(tmp_path):
    """Numbers are scalars, histograms rows of left, right and count; NaN is left out."""
    log = FiguresLog(tmp_path)
    edges = np.linspace(0, 1, 3)
    log.write(10, {"a": 0.5, "b": float("nan")}, {"h": (np.array([3, 4]), edges)})
    log.write(20, {"a": 0.25, "b": 1}, {})
    log.close()
    found, plugins = read_log(tmp_path)
    assert {key: value.tolist() for key, value in found.items()} == {
        ("a", 10): 0.5,
        ("a", 20): 0.25,
        ("b", 20): 1,
        ("h", 10): [[0, 0.5, 3], [0.5, 1, 4]],
    }
    assert plugins == {"a": "scalars", "b": "scalars", "h": "histograms"}
