"""The reading room's page, used as a reader uses it: a real browser, a real server, a mouse and keys."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager, suppress

import pytest

from files import LEFT, RIGHT, save_scan
from visits import Ball

pytest.importorskip("fastapi", reason="needs the extra `server`")
browsers = pytest.importorskip("playwright.sync_api", reason="needs playwright (in the extra `test`)")

TOKEN = "a-token-for-the-page"
NAME = "<img src=x onerror=document.title='stolen'>"
HALF_MM = 72.0
GROWN = Ball(LEFT.x, LEFT.y, LEFT.z, LEFT.radius + 2)
MOVED = Ball(RIGHT.x - 3, RIGHT.y - 20, RIGHT.z, RIGHT.radius)
# The other scan's cursor is on its way for as long as that takes on a busy machine.
LATE = """() => {
    const fetch = window.fetch;
    window.fetch = async (path, ...rest) => {
        if (String(path.url ?? path).includes('/place')) await new Promise((later) => setTimeout(later, 400));
        return fetch(path, ...rest);
    };
}"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """A patient whose name is a script, with two lesions: one grew, one is elsewhere than the program will look."""
    folder = tmp_path_factory.mktemp("page") / "cases"
    (folder / NAME.replace("/", "")).mkdir(parents=True)
    save_scan(folder / NAME / "baseline.nii.gz", [LEFT, RIGHT], 1)
    save_scan(folder / NAME / "followup.nii.gz", [GROWN, MOVED], 2)
    return folder


class Server:
    """`lesionlocator serve`, in a process of its own that can be killed and started again."""

    def __init__(self, cases) -> None:
        self.cases, self.state = cases, cases.parent / "state"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        words = ["serve", str(self.cases), "--port", str(self.port), "--token", TOKEN, "--state", str(self.state)]
        start = "from lesionlocator.cli import main; main()"
        command = [sys.executable, "-c", start, *words, "--modality", "CT", "--align", "header"]
        self.log = (self.state.parent / "server.log").open("w+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)

    def wait(self) -> None:
        """Until it answers."""
        until = time.monotonic() + 90
        while time.monotonic() < until:
            assert self.process.poll() is None, (self.state.parent / "server.log").read_text()
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.1)
        pytest.fail("the server did not start in 90 s")

    def kill(self) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self.log.close()


@pytest.fixture(scope="module")
def server(cases, built_page):
    started = Server(cases)
    yield started
    started.kill()


@pytest.fixture(scope="module")
def browser(debian_program):
    with browsers.sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=debian_program("chromium", "chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield opened
        opened.close()


class Reader:
    """A person at the page."""

    def __init__(self, context, server) -> None:
        self.errors: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.on("pageerror", lambda problem: self.errors.append(str(problem)))
        self.page.on("console", lambda line: self.errors.append(line.text) if "Content Security" in line.text else None)
        server.wait()
        self.page.goto(f"http://127.0.0.1:{server.port}/?token={TOKEN}")

    def open(self) -> None:
        self.page.click(".case")
        self.rest()

    def place(self, side: int, x: float, y: float) -> tuple[float, float]:
        """Where a point of the patient, in LPS mm, is on the screen: the large axial picture of a side."""
        box = self.page.locator(f'canvas[data-side="{side}"][data-plane="axial"]').bounding_box()
        size = min(box["width"], box["height"])
        left, top = box["x"] + (box["width"] - size) / 2, box["y"] + (box["height"] - size) / 2
        return left + size * (x + HALF_MM) / (2 * HALF_MM), top + size * (y + HALF_MM) / (2 * HALF_MM)

    def drag(self, side: int, ball: Ball, margin: float) -> None:
        self.page.mouse.move(*self.place(side, ball.x - ball.radius - margin, ball.y - ball.radius - margin))
        self.page.mouse.down()
        self.page.mouse.move(*self.place(side, ball.x, ball.y))
        self.page.mouse.move(*self.place(side, ball.x + ball.radius + margin, ball.y + ball.radius + margin))
        self.page.mouse.up()

    def click(self, side: int, x: float, y: float) -> None:
        self.page.mouse.click(*self.place(side, x, y))

    def go_to_slice(self, z_mm: float) -> None:
        """With the keys of the picture; slices are 2.5 mm."""
        picture = self.page.locator('canvas[data-side="0"][data-plane="axial"]')
        picture.focus()
        for _ in range(60):
            ahead = round((z_mm + 73.75) / 2.5) - int(picture.get_attribute("data-slice"))
            if ahead == 0:
                return
            self.page.keyboard.press("PageUp" if ahead > 0 else "PageDown")
            self.page.wait_for_timeout(60)

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

    def cells(self, lesion_id: str) -> list[str]:
        """What the list says of a lesion: volume, diameter, change, sureness, what happened."""
        row = self.page.locator("tr", has=self.page.locator(f'[data-lesion="{lesion_id}"]'))
        return row.locator("td").all_inner_texts()

    @property
    def said(self) -> str:
        return self.page.inner_text(".notice")

    def colours(self, side: int, x: float, y: float, half_mm: float) -> int:
        """How many coloured pixels a patch of the picture has: grey is the scan, colour is what was drawn on it."""
        left, top = self.place(side, x - half_mm, y - half_mm)
        right, bottom = self.place(side, x + half_mm, y + half_mm)
        script = """([side, left, top, right, bottom]) => {
            const canvas = document.querySelector(`canvas[data-side="${side}"][data-plane="axial"]`);
            const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
            const data = canvas.getContext('2d').getImageData((left - box.left) * scale, (top - box.top) * scale,
                (right - left) * scale, (bottom - top) * scale).data;
            let count = 0;
            for (let at = 0; at < data.length; at += 4)
                if (data[at] - data[at + 2] > 90) count++;
            return count;
        }"""
        return self.page.evaluate(script, [side, left, top, right, bottom])


@pytest.fixture
def context(browser):
    opened = browser.new_context(viewport={"width": 1400, "height": 850}, color_scheme="dark")
    yield opened
    opened.close()


def outline_both(reader):
    """The first lesion by a box and a click, the second by a click alone."""
    page = reader.page
    reader.go_to_slice(LEFT.z)
    assert reader.colours(0, LEFT.x, LEFT.y, 11) == 0
    page.keyboard.press("b")
    with reader.step_made():
        reader.drag(0, LEFT, 2)
    assert reader.colours(0, LEFT.x, LEFT.y, 11) > 100
    volume, diameter, *_ = reader.cells("1")
    assert float(volume) == pytest.approx(3.05, rel=0.15)  # 4/3 pi 0.9^3
    assert float(diameter) == pytest.approx(18, rel=0.12)
    page.keyboard.press("c")
    with reader.step_made():
        reader.click(0, LEFT.x + 3, LEFT.y + 3)
    assert float(reader.cells("1")[0]) == pytest.approx(3.05, rel=0.15)
    page.keyboard.press("l")
    reader.go_to_slice(RIGHT.z)
    with reader.step_made():
        reader.click(0, RIGHT.x, RIGHT.y)
    assert float(reader.cells("2")[0]) == pytest.approx(2.14, rel=0.25)  # 4/3 pi 0.8^3


def check_followup(reader):
    """The second lesion is put where it is, the first accepted, the second rejected, undone and redone."""
    page = reader.page
    page.evaluate(LATE)
    assert "followup" in page.inner_text(".lesions h2")
    assert page.inner_text('[data-key="next"]') == "Next unsure (2)"
    page.click('[data-lesion="2"]')
    reader.rest()
    page.keyboard.press("m")
    with reader.step_made():
        reader.click(1, MOVED.x, MOVED.y)
    assert reader.cells("2")[-1].endswith("placed by you")
    assert float(reader.cells("2")[0]) == pytest.approx(2.14, rel=0.25)
    page.click('[data-lesion="1"]')
    with reader.step_made():
        page.keyboard.press("a")
    assert reader.cells("1")[2].startswith("+") and reader.cells("1")[-1].endswith("accepted")
    page.click('[data-lesion="2"]')
    with reader.step_made():
        page.keyboard.press("r")
    assert reader.cells("2")[2:] == ["−100 %", "", "vanished, rejected"]
    with reader.step_made():
        page.keyboard.press("z")
    assert reader.cells("2")[-1].endswith("placed by you")
    with reader.step_made():
        page.keyboard.press("y")
    assert reader.cells("2")[-1] == "vanished, rejected"


def take_away(reader):
    """Everything exported; gives the names of the files, and the report's page."""
    page = reader.page
    page.keyboard.press("s")
    for box in page.locator("dialog input[type=checkbox]").all():
        box.uncheck()
    page.click("dialog .primary")
    page.wait_for_selector("dialog a.button")
    with page.expect_download() as coming:
        page.click("text=Download everything")
    with page.context.expect_page() as opening:
        page.click("text=Open the report")
    opening.value.wait_for_load_state()
    return zipfile.ZipFile(coming.value.path()).namelist(), opening.value


def test_a_case_is_read_from_the_first_box_to_the_report(server, context):
    reader = Reader(context, server)
    page = reader.page
    assert "token" not in page.url
    assert page.inner_text(".case strong") == NAME
    reader.open()
    outline_both(reader)
    with reader.step_made():
        page.keyboard.press("f")
    page.keyboard.press("n")
    reader.rest()
    check_followup(reader)
    before = [reader.cells("1"), reader.cells("2")]
    page.reload()
    reader.rest()
    assert [reader.cells("1"), reader.cells("2")] == before
    names, report = take_away(reader)
    assert any(name.endswith("lesions.csv") for name in names)
    assert any(name.endswith("baseline_lesion_1.nii.gz") for name in names)
    assert report.locator("table").count() > 0
    assert [page.title() == "stolen", report.title() == "stolen", reader.errors] == [False, False, []]


def test_two_windows_do_not_overwrite_each_other(server, context):
    first, second = Reader(context, server), Reader(context, server)
    for reader in (first, second):
        reader.open()
    first.go_to_slice(LEFT.z)
    first.page.keyboard.press("l")
    first.page.keyboard.press("p")
    with first.step_made():
        first.click(0, LEFT.x, LEFT.y)
    painted = first.page.locator("[data-lesion]").count()
    # The second window has not seen the stroke; its own is refused, and it shows the case as it is.
    second.page.keyboard.press("l")
    second.page.keyboard.press("p")
    second.click(0, 0, 0)
    second.page.wait_for_function("() => document.querySelector('.notice').textContent.includes('Conflict')")
    second.rest()
    assert second.page.locator("[data-lesion]").count() == painted
    assert second.step == first.step


def test_a_killed_server_loses_nothing_and_the_page_goes_on(server, context):
    reader = Reader(context, server)
    reader.open()
    reader.page.wait_for_timeout(500)  # the alignment is on its way too, and must not keep the page from saying so
    before = reader.page.locator("tbody").inner_text() if reader.page.locator("tbody").count() else ""
    server.kill()
    reader.page.keyboard.press("l")
    reader.page.keyboard.press("p")
    reader.click(0, 0, 0)
    reader.page.wait_for_function("() => document.querySelector('.notice').textContent.includes('does not answer')")
    server.start()
    reader.page.wait_for_function("() => document.querySelector('.notice').textContent.includes('is back')")
    reader.rest()
    after = reader.page.locator("tbody").inner_text() if reader.page.locator("tbody").count() else ""
    assert after == before


def test_all_of_it_can_be_done_with_keys(server, context):
    reader = Reader(context, server)
    page = reader.page
    page.keyboard.press("?")
    assert "Next unsure lesion" in page.inner_text("dialog")
    page.keyboard.press("Escape")
    page.locator(".case").focus()
    page.keyboard.press("Enter")
    reader.rest()
    reader.go_to_slice(RIGHT.z)
    page.keyboard.press("l")
    page.keyboard.press("p")
    with reader.step_made():
        page.keyboard.press("Enter")
    assert "Painted" in reader.said
    with reader.step_made():
        page.keyboard.press("z")
