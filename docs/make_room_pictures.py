"""Draws the reading room's pictures anew: the demo's three visits, worked on in a real browser.

    python docs/make_room_pictures.py

Needs the extra `server`, the page (`make page`), Playwright and Debian's `chromium`. The scans are those of
`lesionlocator demo`: a public chest CT, and two later visits made from it.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from lesionlocator.demo import run_demo

HERE = Path(__file__).parent
SIZE = {"width": 1400, "height": 850}
TOKEN = "a-token-for-pictures"
COMMAND = "from lesionlocator.cli import main; main()"
REST = "() => document.querySelector('.reading > .status')?.dataset.busy === 'false'"


def main() -> None:
    """Both pictures, beside this file."""
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / "demo"
        run_demo(made, say=print)
        cases = Path(temporary) / "cases"
        cases.mkdir()
        (made / "scans").rename(cases / "demo")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = ["serve", str(cases), "--port", str(port), "--token", TOKEN, "--state", f"{temporary}/state"]
        server = subprocess.Popen([sys.executable, "-c", COMMAND, *words, "--modality", "CT"])
        try:
            wait_for(port)
            draw(f"http://127.0.0.1:{port}/?token={TOKEN}")
        finally:
            server.terminate()
            server.wait(30)


def wait_for(port: int) -> None:
    """Until the server answers."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise SystemExit("the server did not start")


def draw(address: str) -> None:
    """Opens the case, has its lesions outlined and followed, and takes the pictures."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="dark")
        page.set_default_timeout(300_000)
        page.goto(address)
        page.locator(".case").first.click()
        page.wait_for_function(REST)
        for key in ("asked", "follow"):
            page.click(f'[data-key="{key}"]')
            page.wait_for_timeout(1500)
            page.wait_for_function(REST)
        page.locator("[data-lesion]").first.click()
        page.wait_for_timeout(3000)
        page.wait_for_function(REST)
        shoot(page, "reading_room")
        page.keyboard.press("?")
        page.wait_for_timeout(500)
        shoot(page, "reading_room_keys")
        browser.close()


def shoot(page: Page, name: str) -> None:
    """A picture of the whole page as WebP."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        page.screenshot(path=file.name)
        Image.open(file.name).convert("RGB").save(HERE / f"{name}.webp", quality=88, method=6)


if __name__ == "__main__":
    main()
