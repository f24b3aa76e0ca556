"""What the patient does between two visits: where points and outlines go, by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pytest import approx

from lesionlocator.case import Event
from lesionlocator.geometry import AffineMap, Geometry
from lesionlocator.synth.chain import Scan
from lesionlocator.synth.changes import CHANGES, from_json, to_json
from lesionlocator.synth.patient import Breathing, FieldOfView, TableShift, WeightChange, body_of, control_grid
from lesionlocator.synth.visit import Changed, Happened, Visit, joined_fates, read_events, reversed_fates
from lesionlocator.volume import Mask, Volume
from phantoms import AIR_HU, FAT_HU, in_ellipsoid, upright

GRID = upright((24, 40, 44), 3.0, (5.0, -8.0, 100.0))
LESION = in_ellipsoid(GRID, (0.0, 0.0, 105.0), (12.0, 9.0, 10.0))


def a_visit(order=3) -> Visit:
    array = np.where(in_ellipsoid(GRID, (5.0, -8.0, 100.0), (55.0, 45.0, 500.0)), FAT_HU, AIR_HU)
    array[LESION] = 60.0
    array += np.random.default_rng(0).normal(0, 8, GRID.shape)
    volume = Volume(array.astype(np.int16), GRID, "CT")
    return Visit.of(volume, {"2": Mask.from_array(LESION, GRID)}, order=order)


def points(visit: Visit, count=500) -> np.ndarray:
    index = np.random.default_rng(1).uniform(-0.5, np.array(visit.geometry.shape) - 0.5, (count, 3))
    return visit.geometry.index_to_world(index)


def test_a_shift_of_seven_millimetres_moves_the_outline_and_the_scan_by_seven_millimetres():
    shift = AffineMap.shift(np.array([7.0, 0.0, 0.0]))
    for spacing_mm, off_mm in ((1.0, 0.0), (2.0, 1.0)):
        grid = upright((20, 30, 50), spacing_mm, (0.0, 0.0, 0.0))
        ball = in_ellipsoid(grid, (-5.0, 0.0, 0.0), (6.0, 8.0, 7.0))
        scan = Volume(np.where(ball, 100, 0).astype(np.int16), grid, "CT")
        visit = Visit.of(scan, {"2": Mask.from_array(ball, grid)})
        moved = visit.moved(shift, shift.inverse())
        before, after = visit.lesions["2"], moved.lesions["2"]
        # An outline has whole voxels: it lies within half of one. What the scan shows lies between them.
        assert_allclose(after.centroid_mm, before.centroid_mm + [7.0, 0.0, 0.0], atol=off_mm + 1e-6)
        assert after.voxels == before.voxels
        weight = moved.volume.array[moved.volume.array > 0].astype(float)
        at_mm = grid.index_to_world(np.argwhere(moved.volume.array > 0).astype(float))
        middle = weight @ at_mm / weight.sum()
        assert_allclose(middle, before.centroid_mm + [7.0, 0.0, 0.0], atol=0.05)


def test_a_shift_of_whole_voxels_keeps_every_intensity_and_every_voxel_of_the_outline():
    visit = a_visit()
    shift = AffineMap.shift(np.array([6.0, -3.0, 9.0]))
    moved = visit.moved(shift, shift.inverse())
    assert_array_equal(moved.volume.array[3:, :-1, 2:], visit.volume.array[:-3, 1:, :-2])
    assert_array_equal(moved.lesions["2"].on(GRID)[3:, :-1, 2:], LESION[:-3, 1:, :-2])


def test_there_and_back_is_the_scan_itself_because_maps_are_joined_before_anything_is_interpolated():
    visit = a_visit()
    turn = TableShift((3.3, -4.1, 5.2), (2.0, 1.0, -3.0)).apply(visit)
    back = turn.visit.moved(turn.backward, turn.forward, GRID)
    assert_array_equal(back.volume.array, visit.volume.array)
    assert_array_equal(back.lesions["2"].on(GRID), LESION)


def test_what_lies_beyond_the_source_is_its_lowest_value():
    visit = a_visit()
    shift = AffineMap.shift(np.array([31.0, 0.0, 0.0]))
    shown = visit.moved(shift, shift.inverse()).volume.array
    assert (shown[:, :, :10] == visit.volume.array.min()).all()


@pytest.mark.parametrize("change", [Breathing(9.0, 45.0, 1.5, 4), WeightChange(6.0, 25.0), WeightChange(-5.0, 20.0)])
def test_the_way_back_leads_back_and_tissue_never_folds(change):
    visit = a_visit()
    changed = change.apply(visit)
    at_mm = points(visit)
    gone = changed.forward(at_mm)
    assert np.linalg.norm(gone - at_mm, axis=1).max() > 1.0
    assert np.linalg.norm(changed.backward(gone) - at_mm, axis=1).max() < 0.5 * GRID.spacing_mm.min()
    assert changed.forward.volume_change().min() > 0
    assert changed.backward.nearly.volume_change().min() > 0


@given(seed=st.integers(0, 10**6))
@settings(max_examples=8)
def test_breathing_moves_as_far_as_drawn_at_most_and_no_lesion_changes_its_volume_by_it(seed):
    visit = a_visit(order=1)
    drawn = Breathing.draw(np.random.default_rng(seed), visit)
    assert drawn is not None and 2.0 <= drawn.amplitude_mm <= 20.0
    changed = drawn.apply(visit)
    at_mm = points(visit, 200)
    gone = changed.forward(at_mm)
    assert np.linalg.norm(gone - at_mm, axis=1).max() <= 1.02 * drawn.amplitude_mm
    assert np.linalg.norm(changed.backward(gone) - at_mm, axis=1).max() < 0.5 * GRID.spacing_mm.min()
    assert changed.visit.lesions["2"].voxels == approx(visit.lesions["2"].voxels, rel=0.05)


def test_with_more_fat_the_skin_lies_further_out_and_the_inside_stays():
    visit = a_visit()
    changed = WeightChange(skin_mm=8.0, layer_mm=25.0).apply(visit)
    right_side = np.array([[5.0 - 55.0, -8.0, 100.0]])
    assert changed.forward(right_side)[0, 0] == approx(-50.0 - 8.0, abs=1.5)
    middle = np.array([[0.0, 0.0, 105.0]])
    assert_allclose(changed.forward(middle), middle, atol=0.1)
    grid = control_grid(GRID, 3.0, 0.0)
    grown = body_of(changed.visit, grid).sum() / body_of(visit, grid).sum()
    assert grown == approx((63 * 53) / (55 * 45), rel=0.05)


def test_a_table_shift_changes_where_the_patient_lies_and_not_what_is_scanned():
    visit = a_visit()
    changed = TableShift((31.0, -12.0, 250.0), (0.0, 0.0, 0.0)).apply(visit)
    assert_array_equal(changed.visit.volume.array, visit.volume.array)
    assert_allclose(changed.visit.geometry.centre_mm, GRID.centre_mm + [31.0, -12.0, 250.0])
    assert_allclose(changed.visit.lesions["2"].centroid_mm, visit.lesions["2"].centroid_mm + [31.0, -12.0, 250.0])
    assert_allclose(changed.forward(np.zeros((1, 3))), [[31.0, -12.0, 250.0]])


def test_a_lesion_beyond_the_new_field_of_view_is_whole_in_the_truth_and_not_in_the_scan():
    visit = a_visit()
    start, stop = visit.lesions["2"].geometry.offset_in(GRID), GRID.shape
    assert start is not None
    upper = FieldOfView((float(start[0]) + 5.0, 0.0, 0.0), (stop[0] - start[0] - 5, 40, 44)).apply(visit).visit
    assert upper.lesions["2"].voxels == visit.lesions["2"].voxels
    scan = Scan(upper.volume, upper.lesions)
    assert not scan.is_inside("2") and 0 < scan.seen["2"].voxels < visit.lesions["2"].voxels / 2
    assert_array_equal(scan.volume.array, visit.volume.array[start[0] + 5 :])


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25)
def test_a_drawn_field_of_view_lies_in_the_scan_and_shows_the_middle_of_a_lesion(seed):
    visit = a_visit(order=1)
    drawn = FieldOfView.draw(np.random.default_rng(seed), visit)
    assert drawn is not None
    assert np.all(np.array(drawn.start) >= 0)
    assert np.all(np.array(drawn.start) + drawn.shape <= GRID.shape)
    seen = drawn.apply(visit).visit
    assert seen.geometry.contains(visit.lesions["2"].centroid_mm[None])[0]


@pytest.mark.parametrize("name", [name for name, change in CHANGES.items() if change.of == "patient"])
def test_what_was_drawn_makes_the_same_scan_after_a_way_through_json(name):
    visit = a_visit(order=1)
    drawn = CHANGES[name].draw(np.random.default_rng(8), visit)
    assert drawn is not None
    again = from_json(json.loads(json.dumps(to_json(drawn))))
    assert again == drawn
    assert_array_equal(again.apply(visit).visit.volume.array, drawn.apply(visit).visit.volume.array)


def test_a_small_outline_keeps_at_least_one_voxel_on_coarse_slices():
    one = np.zeros(GRID.shape, bool)
    one[12, 20, 20] = True
    visit = Visit.of(a_visit().volume, {"1": Mask.from_array(one, GRID)})
    coarse = visit.seen_on(GRID.respaced(np.array([15.0, 6.0, 6.0])))
    assert coarse.lesions["1"].voxels == 1
    assert coarse.geometry.contains(coarse.lesions["1"].points_mm)[0]


def test_events_of_changes_one_after_another_are_those_of_the_whole():
    first = {"1": ("1", "4"), "2": ("2",), "3": ("3",)}
    second = {"1": ("1",), "4": ("4",), "2": ("2",), "3": ("2",)}
    whole = joined_fates(first, second)
    assert read_events(whole, ("1", "4", "2", "5")) == (
        Happened(Event.SPLIT, ("1",), ("1", "4")),
        Happened(Event.MERGED, ("2", "3"), ("2",)),
        Happened(Event.NEW, (), ("5",)),
    )
    back = reversed_fates(whole, ("1", "4", "2", "5"))
    assert read_events(back, ("1", "2", "3")) == (
        Happened(Event.SPLIT, ("2",), ("2", "3")),
        Happened(Event.VANISHED, ("5",), ()),
        Happened(Event.MERGED, ("1", "4"), ("1",)),
    )


def test_a_way_there_and_its_way_back_change_nothing():
    visit = a_visit()
    changed = Breathing(6.0, 45.0, 1.2, 3).apply(visit)
    both = changed.then(changed.reversed(visit))
    at_mm = points(visit)
    assert_allclose(both.forward(at_mm), at_mm, atol=0.1)
    assert both.fates == {"2": ("2",)} and both.visit is visit


def test_an_id_that_was_given_is_never_given_again():
    visit = a_visit()
    without = visit.edited(lesions={})
    assert without.new_lesion_id() == "1"
    assert visit.edited(lesions={"1": visit.lesions["2"]}).new_lesion_id() == "3"


def test_a_turned_scan_is_carried_on_its_own_axes():
    """Storage along w, d, h and from the other ends: the outline and the scan stay together."""
    visit = a_visit()
    affine = GRID.affine[:, [2, 0, 1, 3]].copy()
    affine[:3, 3] += affine[:3, 0] * 43
    affine[:3, 0] *= -1
    other = Geometry((44, 24, 40), affine)
    seen = visit.seen_on(other)
    assert_array_equal(seen.volume.array, visit.volume.array.transpose(2, 0, 1)[::-1])
    assert_array_equal(seen.lesions["2"].on(other), LESION.transpose(2, 0, 1)[::-1])
    shift = AffineMap.shift(np.array([3.0, 6.0, -3.0]))
    moved = visit.moved(shift, shift.inverse(), other)
    bright = Mask.from_array(moved.volume.array > 0, other)
    assert_allclose(bright.centroid_mm, moved.lesions["2"].centroid_mm, atol=1e-6)


def test_kept_changes_name_every_lesion_as_the_same():
    visit = a_visit()
    assert Changed.kept(visit, visit).events == (Happened(Event.SAME, ("2",), ("2",)),)
