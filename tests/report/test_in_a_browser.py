import html
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
DARK = "--blink-settings=preferredColorScheme=0"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="no Chromium is installed"),
]


@pytest.fixture
def page(report):
    """A page with everything in it, and with names that are long."""
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(30, 0.1), 300).astype("f4")
    columns = {
        "probabilities": probabilities,
        "labels": probabilities.argmax(axis=1).astype("i4"),
        "confidence": probabilities.max(axis=1),
        "targets": random.integers(0, 30, 300),
        "ids": np.array([f"{'unbroken' * 6}_{row}.png" for row in range(300)], "S64"),
    }
    return report(
        columns,
        class_names=[f"{'LongName' * (1 + i % 5)}{i}" for i in range(30)],
        attributes={"metadata": f'{{"note": "{"x" * 500}"}}', "model_name": "y" * 200},
        images=random.integers(0, 256, (300, 50, 60, 3), "u1"),
        title="z" * 200,
        complete=False,
    ).path


def browse(folder, *arguments):
    """What the browser prints."""
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout


@pytest.mark.parametrize("is_dark", [False, True])
def test_light_and_dark(page, tmp_path, is_dark):
    """The page is light or dark as its reader likes it, its text and charts the other."""
    shot = tmp_path / "shot.png"
    arguments = ["--window-size=1200,2000", f"--screenshot={shot}", page.as_uri()]
    browse(tmp_path, *([DARK] if is_dark else []), *arguments)
    grey = np.asarray(Image.open(shot).convert("L")).astype(int)
    paper = np.median(grey)
    assert paper < 60 if is_dark else paper > 200
    # Of large headings to the fine text of charts, some pixels are as far from the paper as can be.
    assert (np.abs(grey - paper) > 150).mean() > 0.005


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_nothing_is_wider_than_the_page(page, tmp_path, width):
    """On a phone the page is as wide as the screen: tables scroll in their own boxes."""
    frame = tmp_path / "frame.html"
    # A window is never as narrow as a phone, but a frame is.
    frame.write_text(
        f'<iframe style="width:{width}px;height:800px;border:0" srcdoc="'
        f'{html.escape(page.read_text())}"></iframe><p id="found"></p><script>'
        "onload = () => { const inner = frames[0]; const root = inner.document.documentElement;"
        "const boxes = [...inner.document.querySelectorAll('.scroll')];"
        "document.getElementById('found').textContent = [root.scrollWidth, inner.innerWidth,"
        "boxes.filter(box => box.scrollWidth > box.clientWidth).length].join(' ') }</script>"
    )
    found = re.search(
        r'id="found">(\d+) (\d+) (\d+)<', browse(tmp_path, "--dump-dom", frame.as_uri())
    )
    content, screen, scrolling = map(int, found.groups())
    assert screen == width
    assert content <= screen
    assert (scrolling > 0) or width > 1000
