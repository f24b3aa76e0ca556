"""Drawn shapes of lesions, and the axis-by-axis grids that they are painted with."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pytest import approx

from lesionlocator.synth.lattice import (
    along,
    average_matrix,
    blur_matrix,
    correlated_noise,
    linear_matrix,
    nearest_matrix,
    smooth_noise,
)
from lesionlocator.synth.shapes import (
    KINDS,
    READER,
    Body,
    Capsule,
    Noise,
    Outline,
    Shape,
    draw_rotation,
    occupancy,
    outline_of,
)

UNTURNED = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
STILL = Noise(0, 1.0)
BALL = Body((1.0, 1.0, 1.0), UNTURNED, 0.0, 0.0, 0.0, STILL, 0.0, STILL)


def axes(voxels_per_radius: float, reach: float = 2.0, shift: float = 0.0):
    count = int(2 * reach * voxels_per_radius)
    one = (np.arange(count) - (count - 1) / 2 + shift) / voxels_per_radius
    return one, one, one


def volume(level, voxels_per_radius: float) -> float:
    """In cubes of the radius."""
    return float(occupancy(level, float(voxels_per_radius)).sum()) / voxels_per_radius**3


def test_a_ball_has_the_volume_of_a_ball():
    assert volume(BALL.level(axes(16)), 16) == approx(4 / 3 * np.pi, rel=0.005)


def test_an_ellipsoid_has_its_volume_however_it_is_turned():
    body = replace(BALL, radii=(1.0, 0.8, 0.6), turn=draw_rotation(np.random.default_rng(3)))
    inside = np.count_nonzero(body.level(axes(24)) < 0) / 24**3
    assert inside == approx(4 / 3 * np.pi * 1.0 * 0.8 * 0.6, rel=0.01)


def test_a_tube_has_the_volume_of_a_cylinder_and_a_ball():
    tube = Capsule((-0.8, 0.0, 0.0), (0.8, 0.0, 0.0), 0.3, 0.3)
    assert volume(tube.level(axes(24)), 24) == approx(np.pi * 0.3**2 * 1.6 + 4 / 3 * np.pi * 0.3**3, rel=0.01)


def test_parts_that_touch_are_counted_once():
    twice = Shape("parts", capsules=(Capsule((0.0,) * 3, (0.0,) * 3, 0.5, 0.5),) * 2)
    assert volume(twice.levels(axes(16))[0], 16) == approx(4 / 3 * np.pi * 0.5**3, rel=0.01)


def test_the_core_of_a_ring_is_what_its_wall_leaves():
    ring = Shape("ring", BALL, wall=0.3, wall_variation=0.0, wall_noise=STILL)
    _, core = ring.levels(axes(20))
    assert core is not None
    assert volume(core, 20) == approx(4 / 3 * np.pi * 0.7**3, rel=0.01)


def test_a_voxel_on_the_border_counts_by_its_share():
    level = BALL.level((np.array([1.0]), np.array([0.0]), np.array([0.0])))
    assert float(occupancy(level, 10.0)[0, 0, 0]) == approx(0.5)
    quarter_out = BALL.level((np.array([1.025]), np.array([0.0]), np.array([0.0])))
    assert float(occupancy(quarter_out, 10.0)[0, 0, 0]) == approx(0.25, abs=1e-5)


def test_thick_slices_keep_the_volume():
    fine = occupancy(BALL.level(axes(16)), 16.0)
    thick = along(fine, [average_matrix(64, 11, 6.0), average_matrix(64, 64, 1.0), average_matrix(64, 64, 1.0)])
    assert float(thick.sum()) * 6 == approx(float(fine.sum()), rel=1e-4)
    assert float(thick.max()) <= 1 + 1e-5


def test_spikes_reach_beyond_the_body_only_where_they_point():
    body = replace(BALL, spikes=((1.0, 0.0, 0.0),), spike_length=0.5, spike_sharpness=40.0)
    along_it = body.level((np.array([1.4]), np.array([0.0]), np.array([0.0])))
    beside = body.level((np.array([0.0]), np.array([1.1]), np.array([0.0])))
    assert float(along_it[0, 0, 0]) < 0 < float(beside[0, 0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_the_same_again_and_fits_its_space(kind):
    for seed in range(12):
        shape = Shape.draw(np.random.default_rng(seed), kind)
        again = Shape.draw(np.random.default_rng(seed), kind)
        assert shape == again
        level, core = shape.levels(axes(8))
        np.testing.assert_array_equal(level, again.levels(axes(8))[0])
        assert level.min() < 0
        inner = np.zeros(level.shape, bool)
        inner[2:-2, 2:-2, 2:-2] = True
        assert not (level[~inner] < 0).any(), seed
        if core is not None:
            assert (core >= level - 1e-6).all() or shape.broken is not None


@pytest.mark.parametrize("kind", ["ring", "cystic", "necrotic", "calcified"])
def test_hollow_kinds_have_a_core_most_of_the_time(kind):
    found = 0
    for seed in range(20):
        _, core = Shape.draw(np.random.default_rng(seed), kind).levels(axes(10))
        assert core is not None
        found += bool((core < 0).any())
    assert found >= 16


def test_parts_are_several_and_branches_are_thin():
    from scipy import ndimage

    many = [Shape.draw(np.random.default_rng(s), "parts").levels(axes(12))[0] < 0 for s in range(15)]
    assert np.mean([ndimage.label(m)[1] > 1 for m in many]) > 0.5
    thin = [Shape.draw(np.random.default_rng(s), "branch").levels(axes(12))[0] < 0 for s in range(15)]
    depth = [ndimage.distance_transform_edt(m).max() / 12 for m in thin]
    filled = [Shape.draw(np.random.default_rng(s), "lobed").levels(axes(12))[0] < 0 for s in range(15)]
    assert np.median(depth) < 0.5 * np.median([ndimage.distance_transform_edt(m).max() / 12 for m in filled])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["lobed", "necrotic", "parts", "spiculated"]))
def test_a_shape_has_one_volume_on_any_grid(seed, kind):
    shape = Shape.draw(np.random.default_rng(seed), kind)
    coarse, fine = (np.count_nonzero(shape.levels(axes(n, shift=s))[0] < 0) / n**3 for n, s in ((16, 0.37), (26, 0.0)))
    assert coarse == approx(fine, rel=0.06)


def test_what_was_drawn_is_plain_numbers():
    for kind in KINDS:
        shape = Shape.draw(np.random.default_rng(5), kind)
        assert json.loads(json.dumps(asdict(shape)))["kind"] == kind


def test_a_shape_without_anything_in_it_is_an_error():
    with pytest.raises(ValueError, match="body or capsules"):
        Shape("lobed").levels(axes(4))


def test_interpolation_gives_a_ramp_back_and_repeats_the_ends():
    ramp = np.arange(10.0)
    at = np.array([-3.0, 0.25, 4.5, 20.0])
    np.testing.assert_allclose(linear_matrix(at, 10) @ ramp, [0, 0.25, 4.5, 9], atol=1e-5)
    np.testing.assert_allclose(nearest_matrix(at, 10) @ ramp, [0, 0, 5, 9])


def test_a_blur_keeps_what_is_even_and_widens_a_point_by_its_sigma():
    matrix = blur_matrix(41, 2.0)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-5)
    spread = matrix[:, 20] @ (np.arange(41) - 20.0) ** 2
    assert float(spread) == approx(4.0, rel=0.05)


def test_noise_has_unit_spread_and_the_correlation_asked_for():
    noise = correlated_noise(np.random.default_rng(0), (40, 40, 40), [0.0, 1.0, 0.0])
    assert float(noise.std()) == approx(1, rel=0.03)
    beside = float(np.mean(noise[:, 10:-10][:, :-1] * noise[:, 10:-10][:, 1:]))
    across = float(np.mean(noise[:-1] * noise[1:]))
    # Neighbours of white noise through a Gaussian correlate by exp(-1 / (4 sigma^2)).
    assert beside == approx(np.exp(-0.25), abs=0.05)
    assert across == approx(0, abs=0.03)


def test_smooth_noise_is_smooth_and_about_one_wide():
    fields = np.stack([smooth_noise(np.random.default_rng(s), (32, 32, 32), 6.0) for s in range(8)])
    assert float(fields.std()) == approx(1, abs=0.15)
    assert float(np.abs(np.diff(fields, axis=1)).mean()) < 0.35


# shapes that somebody drew


def egg(spacing_mm=(2.0, 0.8, 0.8)) -> Outline:
    """Of 8, 6 and 5 mm along d, h, w, drawn on slices of 2 mm."""
    at = [np.arange(-12, 12.01, mm) for mm in spacing_mm]
    z, y, x = np.meshgrid(*at, indexing="ij")
    return outline_of((z / 8) ** 2 + (y / 6) ** 2 + (x / 5) ** 2 <= 1, np.array(spacing_mm))


def test_a_drawn_outline_has_the_volume_and_the_axes_of_what_was_drawn():
    level, core = Shape(READER, outline=egg()).levels(axes(24))
    assert core is None
    assert volume(level, 24) == approx(4 / 3 * np.pi, rel=0.04)
    inside = level < 0
    sides = [np.count_nonzero(inside.any(axis=tuple(a for a in range(3) if a != axis))) / 48 for axis in range(3)]
    assert_allclose(sides, np.array([8, 6, 5]) / np.cbrt(240), rtol=0.06)


def test_a_drawn_outline_seen_from_another_side_is_as_large():
    outline = egg()
    for seed in range(6):
        turned = outline.turned(np.random.default_rng(seed))
        assert volume(turned.level(axes(16)), 16) == approx(volume(outline.level(axes(16)), 16), rel=1e-3)
    assert len({outline.turned(np.random.default_rng(seed)).packed for seed in range(6)}) > 1


def test_a_very_long_outline_is_drawn_to_its_ends():
    array = np.zeros((30, 5, 5), bool)
    array[2:28, 1:4, 1:4] = True
    level = outline_of(array, np.ones(3)).level(axes(20, reach=1.6))
    length = np.count_nonzero((level < 0).any(axis=(1, 2))) / 20
    thick = np.count_nonzero((level < 0).any(axis=(0, 2))) / 20
    assert length / thick == approx(26 / 3, rel=0.15)
    assert length < 2 * 1.6


def test_far_from_a_drawn_outline_nothing_of_it_is_left():
    level = egg().level(axes(8, reach=2.5))
    assert float(level[0].min()) > 0.5 and float(level[:, :, -1].min()) > 0.5
