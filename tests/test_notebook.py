"""A case in a notebook: its HTML, opened in a real browser, holds the picture and the numbers and runs nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lesionlocator import segment_case, track_case
from lesionlocator.case import Case
from lesionlocator.notebook import show
from lesionlocator.segment import load_segmenter
from lesionlocator.track import Following
from visits import Ball, story, visit

SCRIPT = "<img src=x onerror=document.title='stolen'>"
ROW = "all => all.map((row) => [...row.children].map((cell) => cell.textContent))"


@pytest.fixture(scope="module")
def case() -> Case:
    """One lesion of 10 mm that grows to 12 mm, and one that vanishes."""
    one, other = Ball(-30, 0, 0, 10), Ball(28, -5, 0, 8)
    return followed(story({"1": one, "2": other}, visit(1, [Ball(-30, 0, 0, 12)])))


def followed(case: Case) -> Case:
    return track_case(case, load_segmenter("intensity"), settings=Following("header"))


def test_the_table_says_what_was_measured_and_what_happened(case):
    lines = [line.split("\t") for line in repr(show(case)).splitlines()]
    heads, *rows = lines
    assert heads[:3] == ["Scan", "Lesion", "Volume, ml"]
    told = {(row[0], row[1]): row for row in rows}
    assert float(told["visit0", "1"][2]) == pytest.approx(4.19, rel=0.1)
    assert float(told["visit1", "1"][2]) == pytest.approx(7.24, rel=0.1)
    # 12 mm instead of 10 mm: (12 / 10)^3 - 1.
    assert float(told["visit1", "1"][6].removesuffix(" %")) == pytest.approx(73, abs=10)
    assert [told["visit1", name][7] for name in ("1", "2")] == ["same", "vanished"]
    assert told["visit1", "2"][2:5] == ["", "", ""]


def test_lesions_that_merge_and_split_are_told_as_such():
    two, one = {"1": Ball(-14, 0, 0, 8), "2": Ball(6, 0, 0, 8)}, Ball(28, -20, 0, 12)
    merged = story({**two, "3": one}, visit(1, [Ball(-4, 0, 0, 17), Ball(20, -20, 0, 6), Ball(36, -20, 0, 6)]))
    rows = [line.split("\t") for line in repr(show(followed(merged))).splitlines()]
    told = {row[1]: row[7] for row in rows if row[0] == "visit1"}
    assert sorted(word.split()[0] for word in told.values()) == ["merged", "merged", "part", "split"]


@pytest.mark.slow
def test_its_html_is_whole_in_a_browser_without_a_network(case, context):
    page = context.new_page()
    asked: list[str] = []
    page.route("**/*", lambda route: (asked.append(route.request.url), route.abort()))
    page.set_content(show(case, title=SCRIPT)._repr_html_())
    page.wait_for_function("() => document.images.length === 1 && document.images[0].complete")
    width, height = page.evaluate("() => [document.images[0].naturalWidth, document.images[0].naturalHeight]")
    assert width > 600
    assert height > 600
    assert SCRIPT in page.get_attribute("img", "alt")
    rows = page.eval_on_selector_all("tbody tr", ROW)
    assert ["\t".join(row) for row in rows] == repr(show(case)).splitlines()[1:]
    assert page.title() == ""
    assert [url for url in asked if not url.startswith("data:")] == []


def test_names_with_markup_stay_text():
    named = story({"1": Ball(-30, 0, 0, 10)})
    evil = replace(named, timepoints=(replace(named.timepoints[0], name=SCRIPT),))
    html = show(segment_case(evil, load_segmenter("intensity"))).html
    assert "<img src=x" not in html
    assert html.count("<img ") == 1


def test_a_case_that_was_not_outlined_yet_shows_its_scans_and_says_so():
    shown = show(story({"1": Ball(-30, 0, 0, 10)}))
    assert "not outlined yet" in shown.text
    assert "data:image/png;base64," in shown.html
