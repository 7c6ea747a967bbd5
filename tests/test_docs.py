"""The scripts in the documentation do what they say."""

import re
from pathlib import Path

import keras
import pytest

TEXT = (Path(__file__).parent.parent / "docs/keras.md").read_text()
SECTIONS = re.findall(r"^## (.+?)$.*?```python\n(.+?)```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("title", "script"), SECTIONS, ids=[title for title, _ in SECTIONS])
def test_what_keras_does(title, script, tmp_path, keras_server):
    """Each script of "What we work around in Keras" shows what it says, on its backends."""
    backends = re.search(r"^# backend: (.+)", script, re.MULTILINE)
    if backends and keras.backend.backend() not in backends[1].split(", "):
        pytest.skip(f"it is about {backends[1]}")
    environment = {}
    if "# devices: 2" in script:
        environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    ended = keras_server.run(script, cwd=tmp_path, env=environment)
    assert ended.status == 0, f"{title}: Keras {keras.__version__} does otherwise\n{ended.errors}"


def test_every_section_has_a_script():
    """No claim about Keras without a script."""
    assert len(SECTIONS) == len(re.findall("^## ", TEXT, re.MULTILINE)) >= 9
