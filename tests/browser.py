"""A page seen in headless Chromium."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
needed = pytest.mark.skipif(not BROWSER, reason="no Chromium here")


def assert_looks_right(tmp_path, *, width, dark, least=3000):
    """`tmp_path`/report.html is no wider than a window of that width, logs nothing and is drawn
    light or dark.
    """
    (tmp_path / "frame.html").write_text(
        f'<body style="margin:0"><iframe id=f src="report.html" style="width:{width}px;height:3000px;border:0">'
        "</iframe><script>f.onload = () => { const d = f.contentDocument.documentElement;"
        "document.title = d.scrollWidth + ' ' + d.clientWidth + ' ' + d.scrollHeight;"
        "document.body.dataset.size = document.title }</script>"
    )
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--allow-file-access-from-files", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--window-size=1300,3000",
        "--virtual-time-budget=4000",
    ]  # fmt: skip
    address = (tmp_path / "frame.html").as_uri()
    done = subprocess.run(
        [*command, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True
    )
    content, seen, height = map(
        int, re.search(r'data-size="(\d+) (\d+) (\d+)"', done.stdout).groups()
    )
    assert seen == width
    assert content <= seen
    assert height > least
    assert "CONSOLE" not in done.stderr
    shot = tmp_path / "shot.png"
    subprocess.run(
        [*command, f"--screenshot={shot}", address], capture_output=True, timeout=120, check=True
    )
    pixels = np.asarray(Image.open(shot).convert("L"), float)[:, :width]
    assert pixels.std() > 10
    assert (np.median(pixels) < 60) == dark
