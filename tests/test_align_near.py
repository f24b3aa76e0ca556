"""Around one lesion a second look corrects the alignment, and the lesion's own change leads nobody astray."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionlocator.align.near import refine_near
from lesionlocator.geometry import AffineMap, Alignment
from lesionlocator.volume import Mask, Volume
from phantoms import in_ellipsoid, torso, upright

AT_MM = (-30.0, -5.0, -5.0)
GRID = upright((44, 50, 50), 2.5, AT_MM)
TRUE_MM = np.array([3.0, -2.0, 4.0])


def visit(radius_mm: float | None, shift_mm: np.ndarray, seed: int, value: float = 20.0, centre=AT_MM) -> Volume:
    """Part of the trunk with a lesion drawn into it, all of it moved."""
    scan = torso(GRID, AffineMap.shift(-shift_mm), seed)
    if radius_mm is None:
        return scan
    where = in_ellipsoid(GRID, tuple(np.array(centre) + shift_mm), (radius_mm,) * 3)
    return replace(scan, array=np.where(where, np.float32(value), scan.array))


@pytest.fixture(scope="module")
def baseline() -> Volume:
    return visit(8.0, np.zeros(3), 0)


@pytest.fixture(scope="module")
def lesion() -> Mask:
    return Mask.from_array(in_ellipsoid(GRID, AT_MM, (8.0,) * 3), GRID)


def error_mm(found) -> float:
    centre = np.array([AT_MM])
    return float(np.linalg.norm(found.alignment.forward(centre) - centre - TRUE_MM))


@pytest.mark.parametrize(
    ("what", "radius_mm", "value"),
    [("as before", 8.0, 20.0), ("vanished", None, 0.0), ("grown to twice its diameter", 16.0, 20.0),
     ("shrunk", 3.0, 20.0), ("turned to calcium", 8.0, 500.0), ("turned to gas", 8.0, -900.0)],
)  # fmt: skip
def test_a_lesion_that_changed_does_not_drag_its_surroundings(what, radius_mm, value, baseline, lesion):
    followup = visit(radius_mm, TRUE_MM, 1, value)
    assert error_mm(refine_near(baseline, followup, identity(), lesion)) < 1.0, what


def test_a_lesion_that_grew_to_one_side_does_not_drag_the_alignment_with_it(baseline, lesion):
    followup = visit(13.0, TRUE_MM, 1, centre=np.array(AT_MM) + np.array([7.0, 0, 0]))
    assert error_mm(refine_near(baseline, followup, identity(), lesion)) < 1.0


def test_a_right_alignment_is_left_as_it_is(baseline, lesion):
    right = Alignment.from_affine(AffineMap.shift(TRUE_MM))
    found = refine_near(baseline, visit(None, TRUE_MM, 1), right, lesion)
    assert error_mm(found) < 0.5
    assert found.alignment is right


def test_without_a_mask_the_place_is_enough(baseline):
    found = refine_near(baseline, visit(8.0, TRUE_MM, 1), identity(), np.array(AT_MM))
    assert error_mm(found) < 1.0


def test_the_place_that_the_alignment_said_stays_among_the_hypotheses(baseline, lesion):
    found = refine_near(baseline, visit(8.0, TRUE_MM, 1), identity(), lesion)
    assert len(found.hypotheses) <= 3
    assert found.hypotheses[0].agreement == max(one.agreement for one in found.hypotheses)
    assert any(not one.shift_mm.any() for one in found.hypotheses)


def test_the_refined_alignment_leads_there_and_back(baseline, lesion):
    found = refine_near(baseline, visit(8.0, TRUE_MM, 1), identity(), lesion)
    at_mm = np.random.default_rng(0).normal(0, 200, (50, 3))
    assert np.abs(found.alignment.backward(found.alignment.forward(at_mm)) - at_mm).max() < 1e-9


def test_surroundings_outside_the_other_scan_say_nothing(baseline, lesion):
    far = Alignment.from_affine(AffineMap.shift(np.array([0.0, 0.0, 900.0])))
    found = refine_near(baseline, visit(8.0, TRUE_MM, 1), far, lesion)
    assert found.hypotheses == ()
    assert found.alignment is far


def test_even_tissue_moves_nothing(lesion):
    """Noise alone correlates a little at some shift; that is not enough."""
    draw = np.random.default_rng(0)
    first, second = (
        Volume(draw.normal(40, 10, GRID.shape).astype(np.float32), GRID, "CT", "even") for _ in range(2)
    )  # fmt: skip
    assert not refine_near(first, second, identity(), lesion).hypotheses[0].shift_mm.any()


@settings(max_examples=3, deadline=None)
@given(st.tuples(*[st.floats(-7, 7)] * 3))
def test_any_shift_within_reach_is_found_to_a_millimetre_and_a_half(baseline, lesion, shift):
    shift_mm = np.array(shift)
    found = refine_near(baseline, visit(10.0, shift_mm, 1), identity(), lesion)
    centre = np.array([AT_MM])
    assert np.linalg.norm(found.alignment.forward(centre) - centre - shift_mm) < 1.5


def identity() -> Alignment:
    return Alignment.from_affine(AffineMap.identity())
