"""The reading room in a browser: opening a CT of 512 x 512 x 300, and from a click to its outline on the screen.

Needs chromium, the page (`make page`) and the extras `server` and `test`. The CT is a made-up body of fat with lesions.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
from playwright.sync_api import sync_playwright

PORT, TOKEN = 8899, "a-token-for-timing"
SHAPE, SPACING_MM = (300, 512, 512), (1.0, 0.75, 0.75)
CENTRES = [(150, 256, 160 + 40 * n) for n in range(6)]
RADIUS_MM = 12
DRAWN = "step => Number(document.querySelector('canvas[data-plane=axial]').dataset.step ?? 0) > step"


def make_ct(path: Path) -> None:
    """Fat, air around it, and six balls that stand out."""
    rng = np.random.default_rng(0)
    d, h, w = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    body = ((h - 256) / 190) ** 2 + ((w - 256) / 240) ** 2 <= 1
    array = np.where(body, np.int16(-90), np.int16(-1000)) + np.zeros(SHAPE, np.int16)
    for at in CENTRES:
        away = sum(((axis - c) * mm) ** 2 for axis, c, mm in zip((d, h, w), at, SPACING_MM, strict=True))
        array[away <= RADIUS_MM**2] = 60
    array += rng.integers(-12, 13, SHAPE, dtype=np.int16)
    affine = np.diag([-SPACING_MM[2], -SPACING_MM[1], SPACING_MM[0], 1.0])
    nib.save(nib.Nifti1Image(array.T, affine), path)


def serve(folder: Path) -> subprocess.Popen:
    start = "from lesionlocator.cli import main; main()"
    words = ["serve", str(folder / "cases"), "--port", str(PORT), "--token", TOKEN, "--state", str(folder / "state")]
    words += ["--modality", "CT", *sys.argv[1:]]  # for instance: --model intensity
    return subprocess.Popen([sys.executable, "-c", start, *words], stderr=subprocess.DEVNULL)


def read(page) -> dict[str, list[float]]:
    """Seconds to open the case, twice (the second time the server has read it), and from each click to its outline."""
    found: dict[str, list[float]] = {"open": [], "click": []}
    for _ in range(2):
        page.goto(f"http://127.0.0.1:{PORT}/?token={TOKEN}")
        page.wait_for_selector(".case")
        begun = time.perf_counter()
        page.click(".case")
        page.wait_for_selector("canvas[data-plane=axial][data-step]")
        found["open"].append(time.perf_counter() - begun)
    for at in CENTRES:
        box = page.locator("canvas[data-plane=axial]").bounding_box()
        size = min(box["width"], box["height"])
        left, top = box["x"] + (box["width"] - size) / 2, box["y"] + (box["height"] - size) / 2
        page.keyboard.press("l")
        step = int(page.get_attribute("canvas[data-plane=axial]", "data-step"))
        begun = time.perf_counter()
        page.mouse.click(left + size * at[2] / SHAPE[2], top + size * at[1] / SHAPE[1])
        page.wait_for_function(DRAWN, arg=step)
        found["click"].append(time.perf_counter() - begun)
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder = Path(name)
        (folder / "cases" / "large").mkdir(parents=True)
        make_ct(folder / "cases" / "large" / "ct.nii")
        server = serve(folder)
        try:
            browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1400, "height": 850})
            page.set_default_timeout(120_000)
            for _ in range(120):
                with suppress(OSError), socket.create_connection(("127.0.0.1", PORT), 1):
                    break
                time.sleep(0.5)
            found = read(page)
            browser.close()
        finally:
            server.terminate()
            server.wait(20)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; CT of 512 x 512 x 300 (int16, not packed)")
    print(f"case opened and drawn, first time:      {found['open'][0]:.2f} s")
    print(f"case opened and drawn, second time:     {found['open'][1]:.2f} s")
    print(f"click to drawn outline, first:          {found['click'][0]:.2f} s")
    warm = found["click"][1:]
    print(f"click to drawn outline, warm (median):  {statistics.median(warm):.2f} s, slowest {max(warm):.2f} s")


if __name__ == "__main__":
    main()
