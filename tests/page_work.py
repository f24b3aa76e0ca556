"""A reader at the reading room's page: a real browser, a real server in a process of its own, a mouse and keys."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from files import LEFT, RIGHT, save_scan
from visits import Ball

TOKEN = "a-token-for-the-page"
NAME = "<img src=x onerror=document.title='stolen'>"
HALF_MM = 72.0
GROWN = Ball(LEFT.x, LEFT.y, LEFT.z, LEFT.radius + 2)
MOVED = Ball(RIGHT.x - 3, RIGHT.y - 20, RIGHT.z, RIGHT.radius)


def save_two_visits(folder: Path) -> Path:
    """A patient whose name is a script, with two lesions: one grew, one is elsewhere than the program will look."""
    case = folder / "cases" / NAME
    case.mkdir(parents=True)
    save_scan(case / "baseline.nii.gz", [LEFT, RIGHT], 1)
    save_scan(case / "followup.nii.gz", [GROWN, MOVED], 2)
    return folder / "cases"


class Server:
    """`lesionlocator serve`, in a process of its own that can be killed and started again."""

    def __init__(self, cases: Path, *words: str) -> None:
        self.cases, self.state, self.words = cases, cases.parent / "state", words
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        words = ["serve", str(self.cases), "--port", str(self.port), "--token", TOKEN, "--state", str(self.state)]
        start = "from lesionlocator.cli import main; main()"
        command = [sys.executable, "-c", start, *words, "--align", "header", *self.words]
        self.log = (self.state.parent / "server.log").open("w+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)

    def wait(self) -> None:
        """Until it answers."""
        until = time.monotonic() + 240
        while time.monotonic() < until:
            assert self.process.poll() is None, (self.state.parent / "server.log").read_text()
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.1)
        pytest.fail("the server did not start in 240 s")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(60)
        self.log.close()


class Reader:
    """A person at the page."""

    def __init__(self, context, server) -> None:
        self.errors: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(120_000)
        self.page.on("pageerror", lambda problem: self.errors.append(str(problem)))
        self.page.on("console", lambda line: self.errors.append(line.text) if "Content Security" in line.text else None)
        server.wait()
        self.page.goto(f"{server.address}/?token={TOKEN}")

    def open(self, title: str | None = None) -> None:
        self.page.locator(".case", has_text=title).first.click() if title else self.page.click(".case")
        self.rest()

    def place(self, side: int, x: float, y: float) -> tuple[float, float]:
        """Where a point of the patient, in LPS mm, is on the screen: the large axial picture of a side."""
        box = self.page.locator(f'canvas[data-side="{side}"][data-plane="axial"]').bounding_box()
        size = min(box["width"], box["height"])
        left, top = box["x"] + (box["width"] - size) / 2, box["y"] + (box["height"] - size) / 2
        return left + size * (x + HALF_MM) / (2 * HALF_MM), top + size * (y + HALF_MM) / (2 * HALF_MM)

    def drag(self, side: int, ball: Ball, margin: float) -> None:
        low = (ball.x - ball.radius - margin, ball.y - ball.radius - margin)
        self.pull(side, low, (ball.x + ball.radius + margin, ball.y + ball.radius + margin))

    def pull(self, side: int, start: tuple[float, float], end: tuple[float, float], button: str = "left") -> None:
        """The mouse from one place to another, with a button held."""
        mouse = self.page.mouse
        mouse.move(*self.place(side, *start))
        mouse.down(button=button)
        mouse.move(*self.place(side, (start[0] + end[0]) / 2, (start[1] + end[1]) / 2))
        mouse.move(*self.place(side, *end))
        mouse.up(button=button)

    def click(self, side: int, x: float, y: float) -> None:
        self.page.mouse.click(*self.place(side, x, y))

    def go_to_slice(self, z_mm: float, side: int = 0) -> None:
        """With the keys of the picture; slices are 2.5 mm."""
        picture = self.page.locator(f'canvas[data-side="{side}"][data-plane="axial"]')
        picture.focus()
        for _ in range(20):
            ahead = round((z_mm + 73.75) / 2.5) - int(picture.get_attribute("data-slice"))
            if ahead == 0:
                return
            self.press("PageUp" if ahead > 0 else "PageDown", abs(ahead))
        pytest.fail("the slice is not shown")

    def press(self, key: str, times: int) -> None:
        """A key so many times, and until what came of it is drawn."""
        for _ in range(times):
            self.page.keyboard.press(key)
        self.page.evaluate("() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")

    def rest(self) -> None:
        """Waits until nothing is on its way and every outline is drawn."""
        self.page.wait_for_function(
            """() => document.querySelector('.reading > .status')?.dataset.busy === 'false'
                && [...document.querySelectorAll('.pane.large canvas')].every((one) => one.dataset.step)
                && new Set(Array.from(document.querySelectorAll('.pane.large canvas'), (one) => one.dataset.step))
                    .size === 1
            """
        )

    @property
    def step(self) -> int:
        return int(self.page.locator('canvas[data-side="0"][data-plane="axial"]').get_attribute("data-step"))

    @contextmanager
    def step_made(self):
        """What is done inside makes a step; afterwards it is drawn."""
        step = self.step
        yield
        self.page.wait_for_function(
            "step => Number(document.querySelector('.pane.large canvas').dataset.step ?? 0) !== step", arg=step
        )
        self.rest()

    def select(self, lesion_id: str) -> None:
        self.page.click(f'[data-lesion="{lesion_id}"]')
        self.rest()

    def cells(self, lesion_id: str) -> list[str]:
        """What the list says of a lesion: volume, diameter, change, sureness, what happened."""
        row = self.page.locator("tr", has=self.page.locator(f'[data-lesion="{lesion_id}"]'))
        return row.locator("td").all_inner_texts()

    def what_happened(self) -> dict[str, str]:
        """Of each lesion of the list, its last column."""
        ids = self.page.locator("[data-lesion]").evaluate_all("all => all.map((one) => one.dataset.lesion)")
        return {lesion_id: self.cells(lesion_id)[-1] for lesion_id in ids}

    @property
    def said(self) -> str:
        return self.page.inner_text(".notice")

    def patch(self, side: int, x: float, y: float, half_mm: float) -> list[tuple[int, int, int]]:
        """The pixels of a square of the picture, as red, green and blue."""
        left, top = self.place(side, x - half_mm, y - half_mm)
        right, bottom = self.place(side, x + half_mm, y + half_mm)
        script = """([side, left, top, right, bottom]) => {
            const canvas = document.querySelector(`canvas[data-side="${side}"][data-plane="axial"]`);
            const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
            return [...canvas.getContext('2d').getImageData((left - box.left) * scale, (top - box.top) * scale,
                (right - left) * scale, (bottom - top) * scale).data];
        }"""
        data = self.page.evaluate(script, [side, left, top, right, bottom])
        return list(zip(data[0::4], data[1::4], data[2::4], strict=True))

    def colours(self, side: int, x: float, y: float, half_mm: float) -> int:
        """How many coloured pixels a patch of the picture has: grey is the scan, colour is what was drawn on it."""
        return sum(red - blue > 90 for red, _, blue in self.patch(side, x, y, half_mm))

    def export(self, *wanted: str) -> tuple[zipfile.ZipFile, object]:
        """Everything written, with the objects named, by one button: the archive, and the report's page."""
        page = self.page
        page.keyboard.press("s")
        for box in page.locator("dialog input[type=checkbox]").all():
            box.set_checked(box.get_attribute("value") in wanted)
        page.click("dialog .primary")
        page.wait_for_selector("dialog a.button")
        with page.expect_download() as coming:
            page.click("text=Download everything")
        with page.context.expect_page() as opening:
            page.click("text=Open the report")
        opening.value.wait_for_load_state()
        return zipfile.ZipFile(coming.value.path()), opening.value
