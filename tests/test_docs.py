"""The scripts in the documentation do what they say."""

import re
import shutil
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[1]
KERAS = (ROOT / "docs/keras.md").read_text()
SECTIONS = re.findall(r"^## (.+?)$.*?```python\n(.+?)```", KERAS, re.DOTALL | re.MULTILINE)
# `spark.md` has a test of its own.
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "docs").glob("*.md")
    if path.stem not in {"keras", "spark"}
)
FIRST_PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
BLOCK = re.compile(r"^(<!-- not run: \S.*? -->\n)?```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
QUICKSTART = ROOT / "examples/quickstart.py"
MADE_BY_QUICKSTART = ["digits.keras", "digits.npy", "digits.h5"]
RUN = """
import shlex
from kerasext.cli import main

for place, language, code in {blocks!r}:
    if language == "python":
        exec(compile(code, place, "exec"), globals())
        continue
    for line in code.splitlines():
        command = shlex.split(line, comments=True)
        if command:
            assert command[0] == "kerasext", f"{{place}}: it is not known how to run {{line!r}}"
            assert main(command[1:]) == 0, f"{{place}}: {{line}}"
"""


def blocks_of(page):
    """The place, language and code of each block of a page that is to be run."""
    text = (ROOT / page).read_text()
    return [
        (f"{page}, line {text[: block.start(3)].count(chr(10)) + 1}", block[2], block[3])
        for block in BLOCK.finditer(text)
        if block[2] in {"python", "sh"} and not block[1]
    ]


@pytest.fixture(scope="module")
def made_by_quickstart(keras_server, tmp_path_factory):
    """A folder with the files that many pages use."""
    folder = tmp_path_factory.mktemp("quickstart")
    run = f"runpy.run_path({str(QUICKSTART)!r}, run_name='__main__')"
    ended = keras_server.run(f"import runpy, sys; del sys.argv[1:]; {run}", cwd=folder)
    assert ended.status == 0, ended.errors[-3000:]
    return folder


@pytest.mark.backends("tensorflow", reason="the pages are run once, with the default backend")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)])
def test_page(page, tmp_path, keras_server, request):
    """The Python blocks and the lines for a shell run as they stand, one after the other.

    A page that says that it uses the files of the quickstart finds them in its folder.
    """
    if f"({Path('..') / QUICKSTART.relative_to(ROOT)})" in (ROOT / page).read_text():
        for name in MADE_BY_QUICKSTART:
            shutil.copy(request.getfixturevalue("made_by_quickstart") / name, tmp_path)
    ended = keras_server.run(RUN.format(blocks=blocks_of(page)), cwd=tmp_path)
    assert ended.status == 0, ended.errors[-3000:]


@pytest.mark.backends("tensorflow", reason="the pages are run once, with the default backend")
def test_what_the_readme_prints(tmp_path, keras_server):
    """The first file runs as it stands and prints what is shown, but for its date and decimals."""
    shown = re.search(r"```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    ended = keras_server.run(RUN.format(blocks=blocks_of("README.md")), cwd=tmp_path)
    assert ended.status == 0, ended.errors[-3000:]

    def comparable(text):
        """The text without what differs from run to run."""
        text = re.sub(r"made \S+ by", "made", text)
        return re.sub(r"0\.\d+|1\.", "#", re.sub(r"[ \[]+", " ", text)).splitlines()

    assert comparable(ended.out) == comparable(shown)


@pytest.mark.parametrize("page", [*FIRST_PAGES, *PAGES, "docs/keras.md", "docs/spark.md"])
def test_links(page):
    """Every link to a file of the repository, or to a heading, leads to something."""
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, heading = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            names = [re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in headings]
            assert heading in names, link


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
    assert len(SECTIONS) == len(re.findall("^## ", KERAS, re.MULTILINE)) >= 9
