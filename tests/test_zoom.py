"""The zoom: places and sizes stay right, whatever the grid, and what is not in the scan is not seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box, Click
from lesionlocator.segment.zoom import CHANNELS, PATCH, SHARE, View, hint, look, show
from lesionlocator.volume import Mask, Volume

SPACING_MM = np.array([3.0, 1.0, 0.8])
SCAN = Geometry((40, 90, 100), np.array([[0, 0, 0.8, 5], [0, 1.0, 0, -7], [3.0, 0, 0, 11], [0, 0, 0, 1.0]]))


def ball(centre, radius_mm, geometry=SCAN):
    index = np.indices(geometry.shape).reshape(3, -1).T.astype(float)
    away = (index - np.array(centre)) * geometry.spacing_mm
    return (np.linalg.norm(away, axis=1) <= radius_mm).reshape(geometry.shape)


def scan_of(inside, bright=100.0):
    return Volume(np.where(inside, bright, 0.0).astype(np.float32), SCAN, "CT")


def dice(one, other):
    return 2 * one.overlap(other) / (one.voxels + other.voxels)


def test_a_lesion_fills_its_share_of_the_patch_on_every_axis_whatever_the_slice_thickness():
    truth = Mask.from_array(ball((20, 45, 50), 24), SCAN)
    view = View.on_box(Box.around(truth), SCAN)
    seen = np.argwhere(view.cut(truth.on(SCAN)) >= 0.5)
    sides = (seen.max(axis=0) - seen.min(axis=0) + 1) / PATCH
    assert sides == pytest.approx(np.full(3, SHARE), abs=0.06)  # a slice is 0.037 of the side


@given(
    centre=st.tuples(st.floats(14, 26), st.floats(35, 55), st.floats(40, 60)),
    radius_mm=st.floats(9, 30),
    share=st.floats(0.4, 0.75),
)
@settings(max_examples=25, deadline=None)
def test_an_outline_keeps_its_voxels_on_the_way_through_the_zoom_and_back(centre, radius_mm, share):
    truth = Mask.from_array(ball(centre, radius_mm), SCAN)
    view = View.on_box(Box.around(truth), SCAN, share)
    back = view.to_mask(view.cut(truth.on(SCAN)) * view.inside())
    assert dice(truth, back) > 0.96


@given(at=st.tuples(st.floats(0, 39), st.floats(0, 89), st.floats(0, 99)))
@settings(max_examples=25, deadline=None)
def test_a_place_keeps_its_millimetres_in_any_view(at):
    at_mm = SCAN.index_to_world(np.array([at]))
    view = View.on_point(SCAN.centre_mm, 60.0, SCAN)
    assert view.to_world(view.from_world(at_mm)) == pytest.approx(at_mm, abs=1e-6)


def test_a_cube_round_a_click_is_a_cube_in_millimetres():
    view = View.on_point(SCAN.centre_mm, 96.0, SCAN)
    assert view.side_mm == pytest.approx(np.full(3, 96.0))
    assert view.from_world(SCAN.centre_mm[None])[0] == pytest.approx(np.full(3, (PATCH - 1) / 2))


def test_beyond_the_end_of_the_scan_nothing_is_seen_and_nothing_is_outlined():
    inside = ball((0, 45, 50), 24)
    view = View.on_box(Box.around(Mask.from_array(inside, SCAN)), SCAN, 0.4)
    shown = show(look(scan_of(inside), view), hint(view, []))
    outside = ~view.inside()
    assert outside.any()
    assert not shown[:, outside].any()
    assert view.to_mask(np.ones((PATCH,) * 3, np.float32)).geometry.offset_in(SCAN)[0] >= 0


def test_voxels_that_are_no_numbers_are_not_seen():
    values = scan_of(ball((20, 45, 50), 20)).array.copy()
    values[20:22] = np.nan
    volume = Volume(values, SCAN, "MR")
    view = View.on_point(SCAN.centre_mm, 80.0, SCAN)
    glimpse = look(volume, view)
    assert np.isfinite(show(glimpse, hint(view, []))).all()
    unseen = (glimpse.seen < 0.5) & view.inside()
    assert 0.0 < unseen.mean() < 0.2


@given(gain=st.floats(0.1, 50.0), shift=st.floats(-500, 500))
@settings(max_examples=15, deadline=None)
def test_the_views_of_a_scan_do_not_depend_on_its_unit(gain, shift):
    inside = ball((20, 45, 50), 24)
    rng = np.random.default_rng(3)
    values = np.where(inside, 100.0, 0.0) + rng.normal(0, 10, SCAN.shape)
    box = Box.around(Mask.from_array(inside, SCAN))
    view = View.on_box(box, SCAN)
    one, other = (
        show(look(Volume(array.astype(np.float32), SCAN, "MR"), view), hint(view, [], box))[:3]
        for array in (values, gain * values + shift)
    )
    assert np.abs(one - other).mean() < 0.02


def test_clicks_and_box_are_painted_where_they_are():
    truth = Mask.from_array(ball((20, 45, 50), 24), SCAN)
    box = Box.around(truth)
    view = View.on_box(box, SCAN)
    away = Click(box.corner + box.edges @ np.array([0.1, 0.5, 0.5]), positive=False)
    shown = show(look(scan_of(truth.on(SCAN)), view), hint(view, [Click(truth.deepest_mm), away], box))
    channel = {name: shown[place] for place, name in enumerate(CHANNELS)}
    assert channel["box"].sum() == pytest.approx((SHARE * PATCH) ** 3, rel=0.01)
    for name, click in (("click in", Click(truth.deepest_mm)), ("click out", away)):
        brightest = np.unravel_index(channel[name].argmax(), channel[name].shape)
        assert np.array(brightest) == pytest.approx(view.from_world(click.points_mm)[0], abs=0.51)


def test_a_click_shows_what_looks_like_it():
    inside = ball((20, 45, 50), 24)
    view = View.on_box(Box.around(Mask.from_array(inside, SCAN)), SCAN)
    click = Click(SCAN.index_to_world(np.array([[20.0, 45.0, 50.0]]))[0])
    alike = show(look(scan_of(inside), view), hint(view, [click]))[CHANNELS.index("like in")]
    lesion = view.cut(inside)
    assert alike[lesion > 0.99].min() > 0.9
    assert alike[lesion < 0.01].max() < 0.1


def test_the_evidence_says_that_a_dark_lesion_is_the_dark_part():
    inside = ball((20, 45, 50), 24)
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 5, SCAN.shape)
    box = Box.around(Mask.from_array(inside, SCAN))
    view = View.on_box(box, SCAN)
    for bright in (100.0, -100.0):
        values = (np.where(inside, bright, 0.0) + noise).astype(np.float32)
        seen = show(look(Volume(values, SCAN, "MR"), view), hint(view, [], box))[CHANNELS.index("evidence")]
        lesion = view.cut(inside)
        assert seen[lesion > 0.99].mean() > 0.5
        assert seen[(lesion < 0.01) & view.inside()].mean() < -0.3
