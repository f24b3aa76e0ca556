"""Lesions outlined in a later scan by their own brightness: rims whose dark core a reader left out."""

from __future__ import annotations

import numpy as np
import pytest

from lesionlocator.case import Case, Lesion, Status, Timepoint
from lesionlocator.follow.recall import halfway, recalled, told_by_brightness
from lesionlocator.geometry import AffineMap, Alignment, Geometry
from lesionlocator.segment import load_segmenter
from lesionlocator.track import Following, track_case
from lesionlocator.volume import Mask, Volume

GRID = Geometry((40, 48, 48), np.array([[0, 0, 1.0, 0], [0, 1.0, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]]))
STILL = Alignment.from_affine(AffineMap.identity())


def shells(centre, outer, inner):
    z, y, x = np.indices(GRID.shape)
    away = np.sqrt(((z - centre[0]) * 2.0) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
    return away <= outer, away <= inner


def ring(centre=(20, 24, 24), outer=14.0, inner=8.0, seed=0):
    """A bright rim round a core as dark as what is around, and the rim alone as its outline."""
    whole, core = shells(centre, outer, inner)
    values = np.where(whole & ~core, 300.0, 100.0) + np.random.default_rng(seed).normal(0, 10, GRID.shape)
    return Volume(values.astype(np.float32), GRID, "MR"), Mask.from_array(whole & ~core, GRID)


def test_brightness_tells_a_rim_and_not_a_lesion_that_is_as_bright_as_what_is_around():
    scan, rim = ring()
    assert told_by_brightness(rim, scan, 200.0) > 0.97
    assert told_by_brightness(rim, scan, -200.0) == 0.0
    flat = Volume(np.random.default_rng(1).normal(100, 10, GRID.shape).astype(np.float32), GRID, "MR")
    assert told_by_brightness(rim, flat, 0.0) < 0.7


def test_a_rim_that_moved_by_some_voxels_is_read_off_where_it_is_now():
    _, rim = ring()
    later, truth = ring((21, 26, 25), 15.0, 8.0, seed=2)
    found = recalled(rim, (), later, 200.0)
    assert found.dice(truth) > 0.85 > rim.dice(truth)


def test_what_was_seen_counts_where_the_alignment_is_far_off():
    later, truth = ring((24, 34, 34), 8.0, 4.0, seed=3)
    _, elsewhere = ring((14, 14, 14), 8.0, 4.0)
    assert recalled(elsewhere, [truth], later, 200.0).dice(truth) > 0.9


@pytest.mark.parametrize("values", [np.full(GRID.shape, 100.0), np.full(GRID.shape, np.nan)])
def test_nothing_is_recalled_where_nothing_differs(values):
    _, rim = ring()
    found = halfway(rim, Volume(values.astype(np.float32), GRID, "MR"), contrast=200.0)
    assert found is None or found.is_empty


def test_an_outline_outside_the_scan_recalls_nothing():
    scan, rim = ring()
    affine = rim.geometry.affine.copy()
    affine[:3, 3] += 5000.0
    assert halfway(Mask(rim.array, Geometry(rim.geometry.shape, affine)), scan) is None


def test_track_outlines_a_rim_as_the_reader_did_whatever_the_segmenter_would_fill():
    scan, rim = ring()
    later, truth = ring((20, 25, 25), 15.0, 8.0, seed=4)
    lesion = Lesion("1", (), rim, Status.OUTLINED)
    case = Case((Timepoint("march", GRID, lambda: scan, (lesion,)), Timepoint("june", GRID, lambda: later)))
    followed = track_case(case, load_segmenter("ellipsoid"), settings=Following(align=lambda one, other: STILL))
    (found,) = followed.timepoints[1].lesions
    assert found.mask.dice(truth) > 0.9
    assert found.confidence == pytest.approx(told_by_brightness(rim, scan, 200.0), abs=1e-3)
