"""The published tracker's rule with our parts: what it can, and where it must fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lesionlocator.evaluate.methods import find_card, find_segmenter
from lesionlocator.evaluate.whole_field import WholeField, squeeze
from lesionlocator.geometry import Geometry
from lesionlocator.segment import load_segmenter
from lesionlocator.volume import Mask, Volume
from visits import Ball, ball_mask, grid, scan

LEFT = Ball(-30, 0, 10, 8)
SIDE = 32


@pytest.fixture(scope="module")
def baseline() -> Volume:
    return scan([LEFT], grid(), 0)


def dice(one: Mask, other: Mask) -> float:
    return 2 * one.overlap(other) / (one.voxels + other.voxels)


def test_nothing_moved_so_the_outline_stays_whatever_the_header_says(baseline):
    followup = scan([LEFT], grid(), 1)
    elsewhere = replace(followup, geometry=Geometry(followup.geometry.shape, grid(shift_mm=400.0).affine))
    carried = squeeze(baseline, elsewhere, SIDE).carry(ball_mask(LEFT, grid()))
    assert dice(carried, ball_mask(LEFT, elsewhere.geometry, 400.0)) > 0.85


def test_a_longer_scan_is_cut_to_the_part_that_looks_alike():
    upper = grid((-15.0, 75.0))
    carried = squeeze(scan([LEFT], upper, 0), scan([LEFT], grid(), 1), SIDE).carry(ball_mask(LEFT, upper))
    assert dice(carried, ball_mask(LEFT, grid())) > 0.6


def test_a_lesion_that_arrives_is_outlined_again_and_one_that_was_cut_off_is_outside(baseline):
    model = WholeField(find_card("whole-field"), load_segmenter("ellipsoid"), SIDE)
    upper = scan([LEFT], grid((-15.0, 75.0)), 1)
    low = Ball(20, 0, -60, 6)
    masks = [ball_mask(LEFT, grid()), ball_mask(low, grid())]
    found = model.follow(model.prepare(baseline), model.prepare(upper), masks)
    assert dice(found[0].mask, ball_mask(LEFT, upper.geometry)) > 0.5
    assert found[1].mask is None


def test_the_rule_goes_by_its_name_in_a_protocol():
    assert find_segmenter("whole-field").name == "whole-field"
    assert find_card("whole-field").kind == "whole-field"
