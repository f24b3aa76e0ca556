"""How another scanner would have seen the same patient: widths, noise and edges against what was drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pytest import approx
from scipy import ndimage

from lesionlocator.synth.appearance import BiasField, ContrastPhase, MetalStreak, Protocol, UptakeScale
from lesionlocator.synth.changes import CHANGES, from_json, to_json
from lesionlocator.synth.scanner import FWHM, CountNoise, Dose, Kernel, MrNoise, Reslice, Resolution, noise_sd, profile
from lesionlocator.synth.visit import Visit
from lesionlocator.volume import Mask, Volume
from phantoms import in_ellipsoid, stored_otherwise, upright

GRID = upright((40, 64, 64), 1.0, (0.0, 0.0, 0.0))


def even(value=40.0, modality="CT", grid=GRID) -> Visit:
    return Visit.of(Volume(np.full(grid.shape, value, np.float32), grid, modality), {})


def seen(change, visit: Visit) -> np.ndarray:
    return change.apply(visit).visit.volume.array


def spread_mm(line: np.ndarray, spacing_mm: float) -> float:
    """Standard deviation of a profile that is zero but for one peak."""
    at = np.arange(len(line)) * spacing_mm
    middle = (line * at).sum() / line.sum()
    return float(np.sqrt((line * (at - middle) ** 2).sum() / line.sum()))


def power_in_plane(noise: np.ndarray) -> np.ndarray:
    """Power of planes by frequency."""
    return (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0) / noise[0].size


def frequencies(plane: np.ndarray) -> np.ndarray:
    """Of a plane with voxels of 1 mm, per mm."""
    return np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in plane.shape), indexing="ij"))


def in_rings(power: np.ndarray) -> np.ndarray:
    """Means over rings of frequency, up to half a wave per mm."""
    rings = np.round(frequencies(power) * 32).astype(int)
    return np.array([power[rings == ring].mean() for ring in range(17)])


@pytest.mark.parametrize("sigma", [0.4, 0.5, 0.85, 2.0])
def test_a_slice_profile_is_as_wide_as_asked_for_even_below_a_voxel(sigma):
    weights = profile(sigma)
    assert weights.sum() == approx(1.0)
    assert spread_mm(weights, 1.0) == approx(sigma, rel=0.02)


@pytest.mark.parametrize(("slice_mm", "profile_mm"), [(1.0, 2.5), (3.0, 4.0), (5.0, 6.0), (2.0, 2.4)])
def test_a_thin_plate_is_spread_over_thicker_slices_as_the_profile_says(slice_mm, profile_mm):
    plate = np.zeros(GRID.shape, np.float32)
    plate[20] = 1000.0
    # Interpolation may go below the plate's surroundings, but never below the scan's lowest value.
    plate[:, 0, 0] = -1000.0
    change = Reslice(slice_mm, profile_mm, 1.0)
    new = change.apply(Visit.of(Volume(plate, GRID, "CT"), {})).visit.volume
    assert new.geometry.spacing_mm[0] == approx(slice_mm)
    assert new.geometry.shape[0] == round(40 / slice_mm)
    line = new.array[:, 32, 32]
    assert line.sum() * slice_mm == approx(1000.0, rel=0.03)
    at_mm = new.geometry.index_to_world(np.argwhere(np.ones(new.geometry.shape)).astype(float))[:, 2]
    where = at_mm.reshape(new.geometry.shape)[:, 32, 32]
    plate_mm = GRID.index_to_world(np.array([[20.0, 0, 0]]))[0, 2]
    assert (line * where).sum() / line.sum() == approx(plate_mm, abs=0.35 * slice_mm)
    # The plate itself is a voxel thick, and thin slices are interpolated.
    assert spread_mm(line, slice_mm) == approx(np.hypot(profile_mm / FWHM, 0.3), rel=0.15)


def test_another_pixel_size_keeps_bodies_where_they_are_and_as_large():
    ball = in_ellipsoid(GRID, (3.0, -5.0, 2.0), (12.0, 9.0, 8.0))
    visit = Visit.of(Volume(np.where(ball, 100, 0).astype(np.int16), GRID, "CT"), {"1": Mask.from_array(ball, GRID)})
    new = Reslice(2.0, 2.0, 1.25).apply(visit).visit
    assert_allclose(new.geometry.spacing_mm, [2.0, 1.25, 1.25], rtol=0.05)
    assert new.lesions["1"].volume_ml == approx(visit.lesions["1"].volume_ml, rel=0.01)
    assert_allclose(new.lesions["1"].centroid_mm, visit.lesions["1"].centroid_mm, atol=0.3)
    bright = Mask.from_array(new.volume.array > 50, new.geometry)
    assert_allclose(bright.centroid_mm, visit.lesions["1"].centroid_mm, atol=0.3)


def test_slices_are_those_of_the_patient_whatever_the_order_of_storage():
    rng = np.random.default_rng(0)
    volume = Volume(ndimage.gaussian_filter(rng.normal(0, 100, GRID.shape), 2).astype(np.float32), GRID, "CT")
    other = stored_otherwise(volume, (2, 0, 1), (1, -1, 1))
    for change in (Reslice(3.0, 3.0, 1.0), Kernel(1.2, 0.0, 1.0), Kernel(0.0, 0.8, 1.0)):
        one, two = seen(change, Visit.of(volume, {})), seen(change, Visit.of(other, {}))
        assert_allclose(two[:, ::-1].transpose(1, 2, 0), one, atol=1e-3)


@pytest.mark.parametrize("change", [Kernel(1.1, 0.0, 1.0), Kernel(0.0, 0.9, 1.3)])
def test_a_kernel_changes_the_noise_power_by_the_square_of_its_drawn_transfer(change):
    noise = np.random.default_rng(0).normal(0, 20, GRID.shape).astype(np.float32)
    after = seen(change, Visit.of(Volume(noise, GRID, "CT"), {}))
    # A window: at the scan's edge there are no neighbours to smooth with.
    fading = np.hanning(64)[:, None] * np.hanning(64)
    before = power_in_plane(noise * fading)
    drawn = change.transfer(frequencies(before).ravel()).reshape(before.shape) ** 2 * before
    # Leaves out the middle, which has few waves, and what is next to nothing.
    measured, expected = in_rings(power_in_plane(after * fading)), in_rings(drawn)
    kept = (expected > 0.02 * expected.max()) & (np.arange(17) > 1) & (np.arange(17) < 15)
    assert kept.sum() >= 6
    assert_allclose(measured[kept], expected[kept], rtol=0.1)


@pytest.mark.parametrize("change", [Kernel(1.5, 0.0, 1.0), Kernel(0.0, 0.6, 1.5)])
def test_an_edge_in_the_plane_becomes_as_soft_or_sharp_as_drawn(change):
    edge = np.zeros(GRID.shape, np.float32)
    edge[:, :, 32:] = 100.0
    response = np.diff(seen(change, Visit.of(Volume(edge, GRID, "CT"), {}))[20, 32]) / 100.0
    frequency = np.fft.rfftfreq(len(response))
    measured = np.abs(np.fft.rfft(response))
    assert_allclose(measured[:20], change.transfer(frequency[:20]), atol=0.03)


def test_across_the_slices_a_kernel_changes_nothing():
    steps = np.repeat(np.random.default_rng(0).normal(0, 100, (40, 1, 1)), 64 * 64, 1).reshape(GRID.shape)
    volume = Volume(steps.astype(np.float32), GRID, "CT")
    assert_allclose(seen(Kernel(1.5, 0.0, 1.0), Visit.of(volume, {})), volume.array, atol=1e-3)


def test_less_dose_adds_as_much_noise_as_drawn_with_the_power_that_was_drawn():
    change = Dose(added_hu=25.0, peak_per_mm=0.2, slice_mm=0.0, seed=5)
    noise = seen(change, even()) - 40.0
    assert noise.std() == approx(25.0, rel=0.01)
    power = power_in_plane(noise)
    drawn = change.power(frequencies(power))
    drawn *= 25.0**2 / drawn.mean()
    assert_allclose(in_rings(power)[1:], in_rings(drawn)[1:], rtol=0.1)


def test_neighbouring_slices_share_noise_as_their_overlap_says():
    noise = Dose(added_hu=25.0, peak_per_mm=0.2, slice_mm=1.2, seed=5).noise(GRID)
    assert noise.std() == approx(25.0, rel=0.02)
    shared = [np.corrcoef(noise[:-step].ravel(), noise[step:].ravel())[0, 1] for step in (1, 2, 3)]
    assert_allclose(shared, [np.exp(-(step**2) / (4 * 1.2**2)) for step in (1, 2, 3)], atol=0.05)


def test_air_has_less_noise_than_the_body():
    body = in_ellipsoid(GRID, (-16.0, 0.0, 0.0), (16.0, 60.0, 60.0))
    visit = Visit.of(Volume(np.where(body, 40.0, -1000.0).astype(np.float32), GRID, "CT"), {})
    added = seen(Dose(30.0, 0.2, 0.5, 1), visit) - visit.volume.array
    assert added[:, 20:44, :6].std() > 1.2 * added[:, 20:44, -6:].std()


def test_the_noise_of_a_scan_is_found_to_a_tenth():
    array = np.random.default_rng(0).normal(40, 18, GRID.shape).astype(np.float32)
    assert noise_sd(Volume(array, GRID, "CT")) == approx(18.0, rel=0.1)


def test_noise_of_magnitude_images_is_never_negative_and_lifts_the_dark():
    dark, bright = (seen(MrNoise(10.0, 3), even(value, "MR")) for value in (0.001, 500.0))
    # A Rayleigh distribution: its mean is the standard deviation times the root of half of pi.
    assert dark.min() >= 0 and dark.mean() == approx(10 * np.sqrt(np.pi / 2), rel=0.01)
    assert bright.std() == approx(10.0, rel=0.02)


def test_noise_of_counts_grows_with_the_root_of_the_uptake():
    low, high = (seen(CountNoise(0.1, 4.0, 2), even(value, "PT")) for value in (1.0, 9.0))
    assert low.std() == approx(0.1, rel=0.05)
    assert high.std() == approx(0.3, rel=0.05)
    line = np.array([np.mean(low[:, :, :-s] * low[:, :, s:]) - low.mean() ** 2 for s in (1, 2)]) / low.var()
    assert_allclose(line, [np.exp(-(s**2) / (4 * (4.0 / FWHM) ** 2)) for s in (1, 2)], atol=0.05)


def test_less_resolution_spreads_a_point_as_wide_as_drawn():
    point = np.zeros(GRID.shape, np.float32)
    point[20, 32, 32] = 1000.0
    after = seen(Resolution(6.0), Visit.of(Volume(point, GRID, "PT"), {}))
    for axes in ((1, 2), (0, 2), (0, 1)):
        assert spread_mm(after.sum(axis=axes), 1.0) == approx(6.0 / FWHM, rel=0.03)


def test_contrast_agent_changes_perfused_tissue_and_neither_bone_nor_fat_nor_the_noise():
    array = np.full(GRID.shape, -100.0)
    array[:, 16:32], array[:, 32:48], array[:, 48:] = 70.0, 120.0, 900.0
    array += np.random.default_rng(0).normal(0, 15, GRID.shape)
    visit = Visit.of(Volume(array.astype(np.float32), GRID, "CT"), {})
    added = seen(ContrastPhase((0.0, 5.0, 30.0, 40.0, 60.0, 0.0), ()), visit) - visit.volume.array
    assert_allclose([added[:, rows].mean() for rows in (slice(3, 12), slice(52, 60))], 0.0, atol=0.1)
    assert added[:, 20:28].mean() == approx(30.0, abs=2.0)
    assert added[:, 36:41].mean() == approx(40.0, abs=3.0)
    assert added[:, 20:28].std() < 5.0


def test_a_known_organ_becomes_brighter_by_its_own_amount():
    liver = in_ellipsoid(GRID, (0.0, 0.0, 0.0), (15.0, 15.0, 12.0))
    visit = Visit.of(even(-60.0).volume, {}, {"liver": Mask.from_array(liver, GRID)})
    added = seen(ContrastPhase((0.0,) * 6, (("liver", 25.0),)), visit) + 60.0
    assert added[20, 32, 32] == approx(25.0) and added[2, 2, 2] == 0.0
    assert added.sum() == approx(25.0 * liver.sum(), rel=0.01)


def test_metal_is_where_it_was_drawn_and_its_streaks_stay_in_its_slices():
    change = MetalStreak((4.0, -6.0, 3.0), 3.0, 200.0, 30.0, 9)
    after = seen(change, even())
    at = GRID.world_to_index(np.array([change.at_mm]))[0]
    hot = Mask.from_array(after > 2000, GRID)
    assert_allclose(GRID.world_to_index(hot.centroid_mm[None])[0], at, atol=0.6)
    changed = np.flatnonzero((after != 40.0).any(axis=(1, 2)))
    assert np.abs(changed - at[0]).max() <= 6.0
    # Streaks are bright and dark, and weaken with the distance.
    plane = after[round(at[0])] - 40.0
    away = np.hypot(*(np.indices(plane.shape) - at[1:, None, None]))
    assert plane[away > 4].min() < -20 and plane[away > 4].max() > 20
    assert plane[(away > 6) & (away < 12)].std() > 1.3 * plane[away > 30].std()


def test_a_bias_field_is_smooth_and_as_strong_as_drawn():
    factor = seen(BiasField(0.2, 20.0, 4), even(100.0, "MR")) / 100.0
    assert np.log(factor).std() == approx(0.2, rel=0.35)
    assert np.abs(np.diff(np.log(factor), axis=2)).max() < 0.2


def test_another_sequence_can_turn_the_order_of_tissues_round():
    change = Protocol((0.0, 0.9, 0.3), 2.0, 100.0)
    values = np.linspace(0, 100, GRID.shape[2], dtype=np.float32)
    visit = Visit.of(Volume(np.broadcast_to(values, GRID.shape).copy(), GRID, "MR"), {})
    line = seen(change, visit)[0, 0]
    assert line[0] == 0.0 and line[-1] == approx(60.0)
    assert line.max() == approx(180.0, rel=0.02)


def test_uptake_is_scaled_by_one_factor():
    assert_allclose(seen(UptakeScale(1.2), even(5.0, "PT")), 6.0, rtol=1e-6)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_every_change_of_the_scanner_comes_back_from_json_and_makes_the_same_voxels(modality):
    grid = upright((20, 40, 44), 3.0, (0.0, 0.0, 0.0))
    bone, lesion = (in_ellipsoid(grid, at, (12.0, 12.0, 15.0)) for at in ((35.0, 30.0, 0.0), (-35.0, -20.0, 0.0)))
    array = np.random.default_rng(0).normal(50, 8, grid.shape) + 500.0 * bone + 40 * lesion
    array = array if modality != "PT" else np.abs(array) / 50
    visit = Visit.of(Volume(array.astype(np.float32), grid, modality), {"1": Mask.from_array(lesion, grid)})
    drawn_names = set()
    for name, kind in CHANGES.items():
        drawn = kind.draw(np.random.default_rng(2), visit) if kind.of == "scanner" else None
        if drawn is None:
            continue
        drawn_names.add(name)
        again = from_json(json.loads(json.dumps(to_json(drawn))))
        assert again == drawn
        one, two = drawn.apply(visit), again.apply(visit)
        assert_array_equal(one.visit.volume.array, two.visit.volume.array)
        assert one.fates == {"1": ("1",)}
    only = {
        "CT": {"contrast_phase", "metal_streak", "reslice", "kernel", "dose"},
        "MR": {"protocol", "reslice", "resolution", "bias_field", "mr_noise"},
        "PT": {"uptake_scale", "reslice", "resolution", "count_noise"},
    }
    assert drawn_names == only[modality]
