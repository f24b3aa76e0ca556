"""What became of lesions, said by a reader at the page: merged, split, gone, new; and lesions found by keys alone."""

from __future__ import annotations

import csv
import io

import pytest

from files import save_scan
from visits import Ball

pytest.importorskip("fastapi", reason="needs the extra `server`")

from page_work import Reader, Server  # noqa: E402

pytestmark = pytest.mark.slow

BASELINE = {"1": Ball(-30, 0, 0, 9), "2": Ball(-8, 0, 0, 8), "3": Ball(30, -5, 0, 8), "4": Ball(0, -38, 0, 8)}
JOINED, UPPER, LOWER, NEW = Ball(-19, 0, 0, 13), Ball(30, -15, 0, 6), Ball(30, 6, 0, 6), Ball(-30, -34, 0, 6)


@pytest.fixture(scope="module")
def server(tmp_path_factory, built_page):
    case = tmp_path_factory.mktemp("visits") / "cases" / "miller"
    case.mkdir(parents=True)
    save_scan(case / "1_january.nii.gz", list(BASELINE.values()), 1)
    save_scan(case / "2_april.nii.gz", [JOINED, UPPER, LOWER, NEW], 2)
    with Server(case.parent, "--modality", "CT") as started:
        yield started


def box(reader, side: int, ball: Ball) -> None:
    reader.page.keyboard.press("b")
    with reader.step_made():
        reader.drag(side, ball, 2)


def outline_baseline(reader) -> None:
    reader.go_to_slice(0)
    for ball in BASELINE.values():
        reader.page.keyboard.press("l")
        box(reader, 0, ball)


def say(reader, lesion_id: str, relation: str, other: str) -> None:
    reader.select(lesion_id)
    with reader.step_made():
        reader.page.select_option(f'[data-key="{relation}"]', other)


def links_of(archive) -> set[tuple[str, str, str, str]]:
    text = archive.read("result/links.csv").decode()
    return {
        (row["lesion_id"], row["event"], row["to_lesion_id"], row["decided_by"])
        for row in csv.DictReader(io.StringIO(text))
    }


SAID = {
    "1": "merged, placed by you",
    "2": "merged into 1, said by you",
    "3": "split, placed by you",
    "4": "vanished, said by you",
    "5": "part of 3, accepted",
    "6": "new, placed by you",
}


def say_what_became_of_them(reader) -> None:
    page = reader.page
    reader.select("1")
    box(reader, 1, JOINED)
    say(reader, "2", "merged_into", "1")
    assert reader.what_happened()["2"] == SAID["2"]
    # Taken back, and said again.
    with reader.step_made():
        page.keyboard.press("z")
    assert reader.what_happened()["2"] == "not in this scan"
    with reader.step_made():
        page.keyboard.press("y")
    reader.select("3")
    box(reader, 1, UPPER)
    page.keyboard.press("l")
    box(reader, 1, LOWER)
    assert reader.what_happened()["5"] == "new, placed by you"
    say(reader, "5", "part_of", "3")
    reader.select("4")
    with reader.step_made():
        page.click("button.reject")
    page.keyboard.press("l")
    box(reader, 1, NEW)


def test_what_a_reader_says_became_of_lesions_is_kept_and_written(server, context):
    reader = Reader(context, server)
    page = reader.page
    reader.open()
    outline_baseline(reader)
    page.keyboard.press("t")
    reader.go_to_slice(0, side=1)
    assert set(reader.what_happened().values()) == {"not in this scan"}
    say_what_became_of_them(reader)
    assert reader.what_happened() == SAID
    # Gone is a change of -100 %; of what is in another lesion now no change can be said.
    assert [reader.cells(lesion_id)[2] for lesion_id in ("2", "4")] == ["", "−100 %"]
    page.reload()
    reader.rest()
    assert reader.what_happened() == SAID
    archive, report = reader.export()
    assert links_of(archive) == {
        ("1", "merged", "1", "reader"),
        ("2", "merged", "1", "reader"),
        ("3", "split", "3", "reader"),
        ("3", "split", "5", "reader"),
        ("4", "vanished", "", "reader"),
        ("6", "new", "6", "reader"),
    }
    told = report.inner_text("body")
    assert all(word in told for word in ("merged", "split", "vanished", "new"))
    assert reader.errors == []
