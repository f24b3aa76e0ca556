"""Segmenters: what a lesion's outline has to be, whatever the model."""

from __future__ import annotations

import time
import tracemalloc
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import phantoms
from lesionlocator.errors import Refused
from lesionlocator.formats import read_label_map, read_volume
from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box, Click, Line, Shape
from lesionlocator.segment import MODELS, load_segmenter
from lesionlocator.segment.contrast import border_step, separation, tightness
from lesionlocator.segment.window import look
from lesionlocator.volume import Mask, Volume
from strategies import PERMUTATIONS

GRID = phantoms.upright((50, 56, 60), 1.5, (0.0, 0.0, 0.0))
CENTRE = (3.0, -2.0, 1.0)
RADIUS_MM = 14.0
BALL = phantoms.in_ellipsoid(GRID, CENTRE, (RADIUS_MM,) * 3)
TRUTH = Mask.from_array(BALL, GRID)
LIVER = phantoms.painted(GRID, {phantoms.LIVER_HU: BALL})
MIDDLE = np.array(CENTRE)
BOX = Box.around(TRUTH)
ACROSS = np.array([RADIUS_MM, 0.0, 0.0])
ASKS = {
    "box": (BOX,),
    "click": (Click(MIDDLE),),
    "line": (Line(MIDDLE - ACROSS, MIDDLE + ACROSS),),
    "mask": (Shape(TRUTH),),
    "box and clicks": (BOX, Click(MIDDLE), Click(MIDDLE + 2 * ACROSS, positive=False)),
    "line and click": (Line(MIDDLE - ACROSS, MIDDLE + ACROSS), Click(MIDDLE)),
}

every_model = pytest.mark.parametrize("name", MODELS)


def dice(one: Mask, other: Mask) -> float:
    return 2 * one.overlap(other) / (one.voxels + other.voxels)


segmenter_of = cache(load_segmenter)
"""By its name; opening one takes longer than many an outline."""


@cache
def prepared_liver(name):
    return segmenter_of(name).prepare(LIVER)


def outline(name, volume, *prompts):
    segmenter = segmenter_of(name)
    prepared = prepared_liver(name) if volume is LIVER else segmenter.prepare(volume)
    return segmenter.outline(prepared, [prompts])[0]


@cache
def of_the_ball(name, how):
    """What is said of the ball as it is stored."""
    return outline(name, LIVER, *ASKS[how])


# ------------------------------------------------------------------------------------------- every row of MODELS


@every_model
def test_a_model_says_its_name_licence_and_limits(name):
    segmenter = load_segmenter(name)
    assert segmenter.name == name
    assert segmenter.card.licence
    assert "Not a medical device" in segmenter.card.limits


@every_model
@pytest.mark.parametrize("how", ASKS)
def test_a_ball_with_contrast_is_outlined_from_any_prompt(name, how):
    found = of_the_ball(name, how)
    # A line says nothing about the width of a lesion, and the ellipsoid does not look.
    lowest = 0.7 if "line" in how and name == "ellipsoid" else 0.9
    assert dice(found.mask, TRUTH) > lowest


@every_model
def test_several_lesions_are_answered_in_the_order_in_which_they_were_asked(name):
    segmenter, prepared = segmenter_of(name), prepared_liver(name)
    outside = (Click(np.array([500.0, 0.0, 0.0])),)
    answers = segmenter.outline(prepared, [outside, ASKS["box"]])
    assert [answer.mask is None for answer in answers] == [True, False]
    assert segmenter.outline(prepared, []) == []


@every_model
def test_the_other_lesions_of_a_call_never_change_an_outline(name):
    segmenter, prepared = segmenter_of(name), prepared_liver(name)
    asks = [ASKS["box"], ASKS["click"], (Box.from_bounds(MIDDLE - 5, MIDDLE + 9),)]
    alone = [segmenter.outline(prepared, [ask])[0].mask for ask in asks]
    together = [answer.mask for answer in segmenter.outline(prepared, asks)]
    backwards = [answer.mask for answer in segmenter.outline(prepared, asks[::-1])][::-1]
    for one, two, three in zip(alone, together, backwards, strict=True):
        assert_array_equal(one.on(GRID), two.on(GRID))
        assert_array_equal(one.on(GRID), three.on(GRID))


@every_model
@pytest.mark.parametrize("how", ["box", "click", "mask"])
@pytest.mark.parametrize(("order", "signs"), PERMUTATIONS[5::17])
def test_the_order_in_which_a_scan_is_stored_does_not_change_the_outline(name, how, order, signs):
    other = phantoms.stored_otherwise(LIVER, order, signs)
    expected = of_the_ball(name, how).mask
    found = outline(name, other, *ASKS[how]).mask
    assert_array_equal(found.placed(GRID).on(GRID), expected.on(GRID))


@every_model
@pytest.mark.parametrize("how", ["box", "mask", "line", "click"])
def test_what_a_negative_click_touches_is_left_out(name, how):
    beside = Click(MIDDLE + 0.7 * ACROSS, positive=False)
    found = outline(name, LIVER, *ASKS[how], beside)
    assert not np.any(found.mask.on(GRID) & beside.paint(GRID))
    assert not found.mask.is_empty


@every_model
@pytest.mark.parametrize("how", ["box", "mask", "line", "click"])
def test_what_a_positive_click_touches_is_inside(name, how):
    more = Click(MIDDLE + 1.3 * ACROSS)
    found = outline(name, LIVER, *ASKS[how], more)
    assert np.all(found.mask.on(GRID)[more.paint(GRID)])


@every_model
def test_of_two_clicks_on_one_voxel_the_later_counts(name):
    there = Click(MIDDLE + 0.5 * ACROSS, positive=False)
    back = Click(there.at)
    assert np.all(outline(name, LIVER, BOX, there, back).mask.on(GRID)[there.paint(GRID)])
    assert not np.any(outline(name, LIVER, BOX, back, there).mask.on(GRID)[there.paint(GRID)])


@every_model
@pytest.mark.parametrize(
    "prompt",
    [
        Box.from_bounds(MIDDLE + 400, MIDDLE + 420),
        Click(MIDDLE + 400),
        Line(MIDDLE + 400, MIDDLE + 420),
        Shape(Mask(np.ones((2, 2, 2), bool), GRID.crop((400, 0, 0), (402, 2, 2)))),
    ],
    ids=lambda prompt: prompt.kind,
)
def test_a_prompt_outside_the_scan_gives_no_outline_and_says_so(name, prompt):
    answer = outline(name, LIVER, prompt)
    assert answer.mask is None
    assert "outside the scan" in answer.reason


@every_model
def test_a_box_partly_outside_the_scan_is_outlined_as_far_as_the_scan_goes(name):
    half = LIVER.crop((0, 0, 0), (25, 56, 60))
    found = outline(name, half, BOX).mask
    truth = Mask.from_array(BALL[:25], half.geometry)
    assert dice(found, truth) > 0.9


@every_model
def test_voxels_that_are_no_numbers_matter_only_where_the_lesion_is(name):
    array = np.array(LIVER.array)
    array[:8] = np.nan
    far = Volume(array, GRID, "CT")
    assert dice(outline(name, far, BOX).mask, TRUTH) > 0.9
    array = np.array(LIVER.array)
    array[25, 28, 30] = np.nan
    near = Volume(array, GRID, "CT")
    answer = outline(name, near, BOX)
    assert answer.mask is None
    assert "not numbers" in answer.reason


@every_model
def test_a_click_on_a_voxel_that_is_no_number_says_so(name):
    array = np.array(LIVER.array)
    array[20:30] = np.inf
    answer = outline(name, Volume(array, GRID, "CT"), *ASKS["click"])
    assert answer.mask is None
    assert "not" in answer.reason


@every_model
def test_clicks_beside_the_lesion_alone_say_nothing_about_where_it_is(name):
    answer = outline(name, LIVER, Click(MIDDLE, positive=False))
    assert answer.mask is None
    assert "no prompt says where" in answer.reason
    assert "no prompt says where" in outline(name, LIVER).reason


@every_model
def test_an_empty_mask_as_prompt_is_named(name):
    assert "empty" in outline(name, LIVER, Shape(Mask.empty(GRID))).reason


@every_model
@pytest.mark.parametrize("value", [0.0, -1000.0])
@pytest.mark.parametrize("how", ASKS)
def test_a_flat_picture_still_gives_an_outline_near_the_prompt(name, how, value):
    flat = Volume(np.full(GRID.shape, value, np.float32), GRID, "CT")
    found = outline(name, flat, *ASKS[how]).mask
    assert found.voxels > 0


@every_model
@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
@pytest.mark.parametrize("stored_as", [np.int16, np.uint8, np.float64])
def test_every_kind_of_scan_and_number_is_taken_as_it_is(name, modality, stored_as):
    array = np.where(BALL, 200, 40).astype(stored_as)
    volume = Volume(array, GRID, modality)
    assert dice(outline(name, volume, BOX).mask, TRUTH) > 0.9


@every_model
@pytest.mark.parametrize("size_mm", [(0.0, 20.0, 20.0), (0.0, 0.0, 9.0), (0.0, 0.0, 0.0), (0.4, 0.4, 0.4)])
def test_a_flat_or_tiny_box_gives_the_voxels_that_it_touches(name, size_mm):
    half = np.array(size_mm) / 2
    found = outline(name, LIVER, Box.from_bounds(MIDDLE - half, MIDDLE + half)).mask
    assert found.voxels >= 1


@every_model
def test_a_scan_of_one_slice_or_one_voxel_is_no_special_case(name):
    slice_grid = phantoms.upright((1, 56, 60), 1.5, CENTRE)
    where = phantoms.in_ellipsoid(slice_grid, CENTRE, (RADIUS_MM,) * 3)
    one_slice = phantoms.painted(slice_grid, {phantoms.LIVER_HU: where})
    assert dice(outline(name, one_slice, BOX).mask, Mask.from_array(where, slice_grid)) > 0.9
    one_voxel = Volume(np.ones((1, 1, 1), np.int16), Geometry((1, 1, 1), np.eye(4)), "CT")
    assert outline(name, one_voxel, Click(np.zeros(3))).mask.voxels == 1


@every_model
def test_two_boxes_of_one_lesion_give_both_its_parts(name):
    second = (-25.0, 20.0, -20.0)
    where = phantoms.in_ellipsoid(GRID, second, (7.0,) * 3)
    volume = phantoms.painted(GRID, {phantoms.LIVER_HU: BALL | where})
    other = Box.around(Mask.from_array(where, GRID))
    assert dice(outline(name, volume, BOX, other).mask, Mask.from_array(BALL | where, GRID)) > 0.9


@every_model
def test_an_outline_never_changes_the_scan(name):
    before = LIVER.array.copy()
    for ask in ASKS.values():
        outline(name, LIVER, *ask)
    assert_array_equal(LIVER.array, before)


# ----------------------------------------------------------------------------------------------------- ellipsoid


def test_the_ellipsoid_in_a_box_has_pi_sixths_of_its_volume():
    grid = phantoms.upright((90, 80, 110), 0.5, (0.0, 0.0, 0.0))
    box = Box.from_bounds(np.array([-25.0, -18.0, -20.0]), np.array([25.0, 18.0, 20.0]))
    flat = Volume(np.zeros(grid.shape, np.int16), grid, "CT")
    found = outline("ellipsoid", flat, box).mask
    assert found.volume_ml == pytest.approx(np.pi / 6 * 50 * 36 * 40 / 1000, rel=0.005)


def test_a_line_alone_gives_an_ellipsoid_of_that_length_and_three_quarters_of_its_width():
    grid = phantoms.upright((90, 90, 110), 0.5, (0.0, 0.0, 0.0))
    flat = Volume(np.zeros(grid.shape, np.int16), grid, "CT")
    line = Line(np.array([-20.0, 0.0, 0.0]), np.array([20.0, 0.0, 0.0]))
    found = outline("ellipsoid", flat, line).mask
    assert found.volume_ml == pytest.approx(np.pi / 6 * 40 * 30 * 30 / 1000, rel=0.01)


def test_a_second_line_gives_the_width():
    grid = phantoms.upright((90, 90, 110), 0.5, (0.0, 0.0, 0.0))
    flat = Volume(np.zeros(grid.shape, np.int16), grid, "CT")
    long = Line(np.array([-20.0, 0.0, 0.0]), np.array([20.0, 0.0, 0.0]))
    short = Line(np.array([0.0, -10.0, 0.0]), np.array([0.0, 10.0, 0.0]))
    found = outline("ellipsoid", flat, short, long).mask
    assert found.volume_ml == pytest.approx(np.pi / 6 * 40 * 20 * 20 / 1000, rel=0.01)


# ----------------------------------------------------------------------------------------------------- intensity


@pytest.mark.parametrize("lesion_hu", [phantoms.LIVER_HU, 40.0])
def test_a_brick_is_followed_some_way_into_the_corners_of_its_box(lesion_hu):
    d, h, w = np.indices(GRID.shape)
    brick = (abs(d - 25) <= 8) & (abs(h - 28) <= 9) & (abs(w - 30) <= 10)
    volume = phantoms.painted(GRID, {lesion_hu: brick})
    truth = Mask.from_array(brick, GRID)
    assert dice(outline("intensity", volume, Box.around(truth)).mask, truth) > 0.83
    assert dice(outline("ellipsoid", volume, Box.around(truth)).mask, truth) < 0.72


def test_a_lesion_darker_than_the_liver_round_it_is_found():
    volume = phantoms.painted(GRID, {50.0: BALL}, background=phantoms.LIVER_HU)
    for how in ("box", "click"):
        assert dice(outline("intensity", volume, *ASKS[how]).mask, TRUTH) > 0.9


def test_the_dead_core_of_a_ring_stays_out_on_mr_and_belongs_to_the_lesion_on_pet():
    core = phantoms.in_ellipsoid(GRID, CENTRE, (9.0,) * 3)
    values = {10.0: BALL, 2.0: core}
    ring = Mask.from_array(BALL & ~core, GRID)
    mr = phantoms.painted(GRID, values, background=4.0, modality="MR", noise=0.4)
    pet = phantoms.painted(GRID, values, background=1.0, modality="PT", noise=0.1)
    assert dice(outline("intensity", mr, BOX).mask, ring) > 0.9
    assert dice(outline("intensity", pet, BOX).mask, TRUTH) > 0.9


def test_a_box_drawn_too_large_by_a_tenth_gives_nearly_the_same_outline():
    grown = BOX.grown(0.1 * float(BOX.size_mm.mean()))
    found = outline("intensity", LIVER, grown).mask
    assert dice(found, TRUTH) > 0.95
    assert dice(outline("ellipsoid", LIVER, grown).mask, TRUTH) < 0.8


def test_an_outline_from_a_box_stays_within_the_box_and_a_twentieth_more():
    everything = phantoms.painted(GRID, {phantoms.LIVER_HU: np.ones(GRID.shape, bool)})
    for volume in (LIVER, everything):
        small = Box.from_bounds(MIDDLE - 8, MIDDLE + 8)
        unit = small.to_unit(outline("intensity", volume, small).mask.points_mm)
        voxel = 1.5 / 16
        assert unit.min() > -0.025 - voxel
        assert unit.max() < 1.025 + voxel


def test_bone_in_a_corner_of_the_box_does_not_pull_the_outline_to_itself():
    bone = phantoms.in_ellipsoid(GRID, (14.0, -12.0, 10.0), (4.0,) * 3)
    volume = phantoms.painted(GRID, {40.0: BALL, 1200.0: bone})
    assert dice(outline("intensity", volume, BOX).mask, TRUTH) > 0.85


def test_a_click_finds_a_nodule_in_lung_and_a_large_tumour_alike():
    grid = phantoms.upright((60, 70, 70), 2.0, (0.0, 0.0, 0.0))
    for radius_mm in (7.0, 20.0, 40.0):
        where = phantoms.in_ellipsoid(grid, CENTRE, (radius_mm,) * 3)
        volume = phantoms.painted(grid, {30.0: where}, background=phantoms.LUNG_HU, noise=30.0)
        assert dice(outline("intensity", volume, Click(MIDDLE)).mask, Mask.from_array(where, grid)) > 0.9


@pytest.mark.parametrize("quality", ["fast", "balanced", "max"])
def test_quality_bounds_the_work_however_large_the_scan(quality):
    """A box as large as a trunk: a few megabytes of working copies, no more than a few seconds."""
    grid = phantoms.upright((160, 200, 200), 1.0, (0.0, 0.0, 0.0))
    volume = Volume(np.zeros(grid.shape, np.int16), grid, "CT")
    large = Box.from_bounds(np.array([-70.0, -70.0, -60.0]), np.array([70.0, 70.0, 60.0]))
    volume.array[phantoms.in_ellipsoid(grid, (0.0, 0.0, 0.0), (70.0, 70.0, 60.0))] = 100
    segmenter = load_segmenter("intensity", quality=quality)
    tracemalloc.start()
    started = time.process_time()
    found = segmenter.outline(segmenter.prepare(volume), [(large,)])[0].mask
    seconds = time.process_time() - started
    peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert found.volume_ml == pytest.approx(4 / 3 * np.pi * 70 * 70 * 60 / 1000, rel=0.05)
    assert peak_mb < 250
    assert seconds < 10


def test_a_small_box_in_a_long_scan_needs_no_copy_of_the_scan():
    grid = phantoms.upright((1000, 128, 128), 1.0, (0.0, 0.0, 0.0))
    volume = Volume(np.zeros(grid.shape, np.int16), grid, "CT")
    small = Box.from_bounds(np.full(3, -10.0), np.full(3, 10.0))
    for name in MODELS:
        segmenter = load_segmenter(name)
        tracemalloc.start()
        segmenter.outline(segmenter.prepare(volume), [(small,), (Click(np.zeros(3)),)])
        peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        assert peak_mb < volume.array.nbytes / 1e6


def test_a_window_is_never_finer_than_the_scan_and_never_larger_than_allowed():
    for size_mm in (4.0, 30.0, 200.0):
        half = np.full(3, size_mm / 2)
        window = look(LIVER, Box.from_bounds(MIDDLE - half, MIDDLE + half), margin=1.5, voxels=32)
        assert max(window.grid.shape) <= 32
        assert np.all(window.grid.spacing_mm >= GRID.spacing_mm - 1e-9)


# ------------------------------------------------------------------------------------------------------- contrast


def test_separation_is_one_where_every_value_inside_is_higher():
    assert separation(np.array([5.0, 6.0, 7.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx((1.0, 0.0), abs=0.01)
    assert separation(np.array([1.0, 2.0, 3.0]), np.array([5.0, 6.0, 7.0])) == pytest.approx((0.0, 1.0), abs=0.01)


def test_tightness_is_the_share_of_the_box_that_the_tight_box_of_the_finding_covers():
    belief = np.zeros((10, 10, 10))
    in_box = np.zeros((10, 10, 10), bool)
    in_box[2:8, 2:8, 2:8] = True
    assert tightness(belief, in_box) == 0.0
    belief[2:8, 2:8, 2:5] = 1.0
    assert tightness(belief, in_box) == pytest.approx(0.5)
    belief[9, 9, 9] = 1.0
    assert tightness(belief, in_box) == pytest.approx(0.5)


def test_the_step_across_a_border_has_the_sign_of_the_contrast():
    values = np.zeros((12, 12, 12))
    values[4:8, 4:8, 4:8] = 1.0
    grid = phantoms.upright((12, 12, 12), 1.0, (0.0, 0.0, 0.0))
    assert border_step(values, values, grid) > 5
    assert border_step(1 - values, values, grid) < -5
    assert border_step(values, np.zeros_like(values), grid) == 0.0


# -------------------------------------------------------------------------------------------------- loading a model


def test_an_unknown_model_is_refused_with_the_names_that_there_are():
    with pytest.raises(Refused, match="ellipsoid") as refused:
        load_segmenter("no-such-model")
    assert "intensity" in refused.value.needed


@every_model
def test_a_device_that_a_model_cannot_use_is_refused_rather_than_ignored(name):
    assert load_segmenter(name, device="cpu").name == name
    with pytest.raises(Refused, match="cuda"):
        load_segmenter(name, device="cuda")


# ------------------------------------------------------------------------------------------------------- real scans


def test_the_ellipsoid_on_nine_real_sarcomas_has_the_dice_that_geometry_gives(shared_data):
    expected = {"CT": 0.834, "MR_T1": 0.834, "PET": 0.826}
    modalities = {"CT": "CT", "MR_T1": "MR", "PET": "PT"}
    for sequence, mean in expected.items():
        scores = []
        for patient in sorted((shared_data / "sarcoma").glob("STS_*")):
            volume = read_volume(patient / f"{sequence}_image.nii.gz", modalities[sequence])
            labels = read_label_map(patient / f"{sequence}_mask.nii.gz")
            truth = Mask.from_array(labels.values, labels.geometry)
            scores.append(dice(outline("ellipsoid", volume, Box.around(truth)).mask, truth))
        assert np.mean(scores) == pytest.approx(mean, abs=0.005)
