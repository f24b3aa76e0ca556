"""What goes wrong between two scans is said in words: two people, a turned header, nothing shared, nothing gained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lesionlocator.align import ALIGNERS
from lesionlocator.align.doubt import overlap_doubts, search_doubts
from lesionlocator.align.search import Found
from lesionlocator.align.turn import likely_turn, turned
from lesionlocator.align.view import View, views
from lesionlocator.geometry import AffineMap, Geometry
from lesionlocator.volume import Volume
from phantoms import torso, upright
from phantoms import turned as turned_patient

GRID = upright((56, 40, 56), 5.0, (0.0, 0.0, 0.0))
SHIFT = AffineMap.shift(np.array([12.0, -8.0, 60.0]))
PLACES = np.random.default_rng(1).uniform((-90, -60, -100), (90, 60, 100), (200, 3))


@pytest.fixture(scope="module")
def baseline() -> Volume:
    return torso(GRID)


@pytest.fixture(scope="module")
def pair(baseline, later) -> tuple[View, View]:
    return views(baseline, later)


@pytest.fixture(scope="module")
def later() -> Volume:
    at = GRID.affine.copy()
    at[:3, 3] += SHIFT.matrix[:3, 3] + 1.3
    return torso(Geometry(GRID.shape, at), SHIFT.inverse(), seed=1)


def with_header(scan: Volume, signs: tuple[int, int, int]) -> Volume:
    """The same voxels under a header that says the other way round along x, y, z."""
    mirror = np.diag([*signs, 1]).astype(float)
    mirror[:3, 3] = (1 - np.array(signs)) * scan.geometry.centre_mm
    return replace(scan, geometry=Geometry(scan.geometry.shape, mirror @ scan.geometry.affine))


HEADERS = {
    "on the belly": ((-1, -1, 1), "turned by 180 degrees: its header seems to swap left and right, and front and back"),
    "upside down": ((1, -1, -1), "turned by 180 degrees: its header seems to swap front and back, and head and feet"),
    "feet first": ((-1, 1, -1), "turned by 180 degrees: its header seems to swap left and right, and head and feet"),
    "slices backwards": ((1, 1, -1), "mirrored: its header seems to swap head and feet"),
    "left is right": ((-1, 1, 1), "mirrored: its header seems to swap left and right"),
}


@pytest.mark.parametrize("how", HEADERS)
def test_a_header_the_wrong_way_round_is_named(baseline, later, how):
    signs, words = HEADERS[how]
    turn = likely_turn(*views(baseline, with_header(later, signs)))
    assert turn is not None
    assert (turn.signs, turn.words) == (signs, words)


@pytest.mark.parametrize("how", ["feet first", "left is right"])
def test_with_a_header_the_wrong_way_round_the_tissue_is_found_all_the_same(baseline, later, how):
    signs, words = HEADERS[how]
    wrong = with_header(later, signs)
    answer = ALIGNERS["rigid"](baseline, wrong)
    assert words in " ".join(answer.warnings)
    mirror = np.linalg.solve(later.geometry.affine.T, wrong.geometry.affine.T).T
    away = np.linalg.norm(answer.forward(PLACES) - AffineMap(mirror)(SHIFT(PLACES)), axis=1)
    assert np.median(away) < 2.5
    assert np.abs(answer.backward(answer.forward(PLACES)) - PLACES).max() < 0.01


def test_a_right_header_is_not_called_wrong_and_raises_no_doubt(baseline, later):
    assert ALIGNERS["rigid"](baseline, later).warnings == ()


def test_a_patient_who_lies_a_little_turned_is_not_called_wrong(baseline):
    there = turned_patient(20)
    answer = ALIGNERS["rigid"](baseline, torso(GRID, there.inverse(), seed=2))
    assert not [words for words in answer.warnings if "header" in words]


def test_turning_a_picture_twice_gives_it_back(pair):
    once = turned(pair[0], (-1, 1, -1))
    again = turned(once.view, (-1, 1, -1))
    assert np.array_equal(again.view.array, pair[0].array)
    assert np.abs(once.back(once.back(PLACES)) - PLACES).max() < 1e-9


@pytest.mark.parametrize(
    ("agreement", "stretch", "words"),
    [
        (0.40, 1.00, None), (0.40, 1.20, None), (0.30, 1.05, None),
        (0.20, 1.00, "as little as those of two people"),
        (0.30, 1.12, "stretched by 12 %, as two people do"),
        (0.10, 1.00, "hardly resemble each other (agreement 0.10 of 1)"),
    ],
)  # fmt: skip
def test_two_people_are_suspected_where_little_agrees(pair, agreement, stretch, words):
    found = Found(SHIFT, agreement, plain=0.05, stretch=stretch)
    said = search_doubts(*pair, found, one_kind=True)
    assert (words is None) == (said == ())
    assert words is None or words in said[0]


def test_scans_of_two_modalities_are_not_taken_for_two_people(pair):
    assert search_doubts(*pair, Found(SHIFT, 0.2, plain=0.05), one_kind=False) == ()


def test_an_alignment_that_is_no_better_than_a_plain_shift_says_so(pair):
    said = search_doubts(*pair, Found(SHIFT, 0.20, plain=0.195), one_kind=False)
    assert said == (
        "the alignment is no better than a plain shift (agreement 0.20, by a shift alone 0.20): it has probably failed",
    )
    assert search_doubts(*pair, Found(SHIFT, 0.80, plain=0.80), one_kind=True) == ()


def test_scans_that_share_nothing_or_next_to_nothing_say_so(pair):
    apart = AffineMap.shift(np.array([0.0, 0.0, 900.0]))
    assert overlap_doubts(*pair, apart) == ("the aligned scans do not overlap",)
    (said,) = overlap_doubts(*pair, AffineMap.shift(np.array([12.0, -8.0, 300.0])))
    assert "share only" in said
    assert overlap_doubts(*pair, SHIFT) == ()


def test_another_patient_is_suspected_from_the_picture(baseline):
    """Somebody slimmer and taller with other organs in other places."""
    draw = np.random.default_rng(5)
    bent = [(draw.normal(0, 0.02, 3), draw.uniform(0, 6, 3)) for _ in range(6)]

    def elsewhere(at_mm: np.ndarray) -> np.ndarray:
        moved = at_mm * np.array([1.18, 1.12, 0.85])
        for wave, phase in bent:
            moved = moved + 12 * np.sin(at_mm @ wave * 3 + phase[0])[:, None] * np.cos(phase)
        return moved

    answer = ALIGNERS["affine"](baseline, torso(GRID, elsewhere, seed=4))
    assert "one patient" in " ".join(answer.warnings)
