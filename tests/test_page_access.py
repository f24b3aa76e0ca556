"""The reading room's page for everybody: by keyboard alone, in light and dark, with text that can be read."""

from __future__ import annotations

import shutil

import pytest

from files import LEFT, RIGHT

pytest.importorskip("fastapi", reason="needs the extra `server`")

from page_work import NAME, Reader, Server, save_two_visits  # noqa: E402

pytestmark = pytest.mark.slow

# Contrast of every text that is shown with what lies behind it, as WCAG 2 defines it; the smallest, and whose.
CONTRAST = """() => {
    const numbers = (colour) => {
        const found = colour.match(/[\\d.]+/g).map(Number);
        const scale = colour.startsWith('color(') ? 255 : 1;
        return [...found.slice(0, 3).map((n) => n * scale), found[3] ?? 1];
    };
    const over = (top, below) => [0, 1, 2].map((k) => top[k] * top[3] + below[k] * (1 - top[3])).concat(1);
    const behind = (one) => {
        const layers = [];
        for (let at = one; at; at = at.parentElement) layers.push(numbers(getComputedStyle(at).backgroundColor));
        return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
    };
    const light = (colour) => {
        const [r, g, b] = colour.map((n) => (n /= 255) <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const one = walk.currentNode.parentElement;
        if (!walk.currentNode.data.trim() || !one.getClientRects().length) continue;
        if (one.closest(':disabled, svg, option')) continue;
        const ground = behind(one);
        const levels = [light(over(numbers(getComputedStyle(one).color), ground)), light(ground)].sort((a, b) => b - a);
        found.push([(levels[0] + 0.05) / (levels[1] + 0.05), walk.currentNode.data]);
    }
    found.sort((a, b) => a[0] - b[0]);
    return [found.length, ...found[0]];
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory, built_page):
    cases = save_two_visits(tmp_path_factory.mktemp("access"))
    shutil.copytree(cases / NAME, cases / "painted")
    with Server(cases, "--modality", "CT") as started:
        yield started


class Keys:
    """A person without a mouse."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.press = reader, reader.page.keyboard.press

    def tab_to(self, selector: str) -> None:
        for _ in range(80):
            if self.reader.page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            self.press("Tab")
        pytest.fail(f"no way to {selector} with the Tab key")

    def go_to(self, x: float, y: float) -> None:
        """The cursor of the picture that has the focus; voxels are 1.5 mm."""
        cursor = "() => document.querySelector('.side.active .side-foot').textContent"
        for _ in range(20):
            words = self.reader.page.evaluate(cursor).split(" · ")[-1].split()
            now = dict(zip(words[0:6:2], map(float, words[1:6:2]), strict=True))
            right = x - (now["L"] if "L" in now else -now["R"])
            back = y - (now["P"] if "P" in now else -now["A"])
            if abs(right) <= 1.5 and abs(back) <= 1.5:
                return
            for off, keys in ((right, ("ArrowLeft", "ArrowRight")), (back, ("ArrowUp", "ArrowDown"))):
                if abs(off) > 1.5:
                    self.reader.press(keys[off > 0], int(abs(off) // 1.5))
        pytest.fail("the cursor does not get there")


def outline_by_keys(keys: Keys) -> None:
    """A box from corner to corner with Enter, and a click with Enter."""
    reader = keys.reader
    reader.go_to_slice(LEFT.z)
    keys.press("b")
    keys.go_to(LEFT.x - 11, LEFT.y - 11)
    keys.press("Enter")
    keys.go_to(LEFT.x + 11, LEFT.y + 11)
    with reader.step_made():
        keys.press("Enter")
    assert float(reader.cells("1")[0]) == pytest.approx(3.05, rel=0.15)  # 4/3 pi 0.9^3
    keys.press("l")
    reader.go_to_slice(RIGHT.z)
    keys.press("c")
    keys.go_to(RIGHT.x, RIGHT.y)
    with reader.step_made():
        keys.press("Enter")
    assert float(reader.cells("2")[0]) == pytest.approx(2.14, rel=0.25)  # 4/3 pi 0.8^3


def painted(reader) -> Reader:
    """The other case, with two lesions painted in the first scan if there are none."""
    reader.open("painted")
    while reader.page.locator("[data-lesion]").count() < 2:
        reader.page.keyboard.press("l")
        reader.page.keyboard.press("p")
        with reader.step_made():
            reader.click(0, 30 * reader.page.locator("[data-lesion]").count(), 0)
    return reader


def decide_next(reader) -> None:
    """The least sure lesion: one that is there is accepted, one that is gone is said to be gone."""
    keys = reader.page.keyboard
    keys.press("n")
    reader.rest()
    chosen = reader.page.locator("tr.selected [data-lesion]").get_attribute("data-lesion")
    gone = reader.what_happened()[chosen] == "vanished"
    with reader.step_made():
        keys.press("r" if gone else "a")


def test_a_case_is_read_to_its_report_without_a_mouse(server, context):
    reader = Reader(context, server)
    page, keys = reader.page, Keys(reader)
    page.wait_for_selector(".case")
    keys.press("?")
    assert "Next unsure lesion" in page.inner_text("dialog")
    keys.press("Escape")
    keys.tab_to(".case")
    keys.press("Enter")
    reader.rest()
    keys.tab_to('canvas[data-side="0"][data-plane="axial"]')
    outline_by_keys(keys)
    with reader.step_made():
        keys.press("f")
    for _ in range(2):
        decide_next(reader)
    assert page.inner_text('[data-key="next"]') == "Next unsure (0)"
    assert {"accepted", "said by you"} == {said.split(", ")[-1] for said in reader.what_happened().values()}
    keys.press("s")
    keys.tab_to("dialog .primary")
    keys.press("Enter")
    page.wait_for_selector("dialog a.button")
    keys.tab_to("dialog a.button")
    with page.context.expect_page() as opening:
        keys.press("Enter")
    opening.value.wait_for_load_state()
    assert opening.value.locator("table").count() > 0
    assert reader.errors == []


def test_keys_turn_windows_planes_scans_and_lesions(server, context):
    reader = Reader(context, server)
    page, keys = painted(reader).page, Keys(reader)

    def chosen(key: str) -> str:
        options = page.locator(f'[data-side="0"] [data-key="{key}"] option')
        return options.evaluate_all("all => all.find((one) => one.selected).textContent")

    keys.press("w")
    assert chosen("window") == "Lung"
    keys.press("g")
    assert chosen("plane") == "coronal"
    keys.press("g")
    keys.press("g")
    assert chosen("plane") == "axial"
    keys.press("t")
    assert page.locator(".side.active").get_attribute("data-side") == "1"
    assert "followup" in page.inner_text(".lesions h2")
    keys.press("t")
    keys.press("l")
    for key, lesion_id in (("j", "1"), ("j", "2"), ("j", "1"), ("k", "2")):
        keys.press(key)
        assert page.locator("tr.selected [data-lesion]").get_attribute("data-lesion") == lesion_id
    keys.press("p")
    size = page.inner_text(".size output")
    keys.press("]")
    assert float(page.inner_text(".size output").split()[0]) > float(size.split()[0])


def readable(page) -> None:
    count, smallest, text = page.evaluate(CONTRAST)
    assert count > 8
    assert smallest >= 4.5, text


def test_light_and_dark_can_be_read_and_are_remembered(server, context):
    reader = Reader(context, server)
    page = reader.page
    theme = "() => document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "dark"
    page.wait_for_selector(".case")
    for wanted in ("dark", "light"):
        if page.evaluate(theme) != wanted:
            page.click('[title="Light or dark"]')
        assert page.evaluate(theme) == wanted
        page.reload()
        page.wait_for_selector(".case")
        assert page.evaluate(theme) == wanted
        readable(page)
        painted(reader).select("1")
        readable(page)
        page.keyboard.press("s")
        readable(page)
        page.keyboard.press("Escape")
        page.click("text=‹ Cases")
        page.wait_for_selector(".case")
