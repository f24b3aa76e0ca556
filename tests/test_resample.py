import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose

from lesionlocator.geometry import AffineMap, Geometry
from lesionlocator.resample import resample, sample, warp
from lesionlocator.volume import Volume
from strategies import PERMUTATIONS, oblique_affines, stored


def ramp(geometry: Geometry, slope=(1.0, -2.0, 0.5)) -> Volume:
    """Values that grow linearly in the patient's space, which linear interpolation must give back exactly."""
    index = np.indices(geometry.shape).reshape(3, -1).T.astype(float)
    values = geometry.index_to_world(index) @ np.array(slope)
    return Volume(values.reshape(geometry.shape).astype(np.float32), geometry, "MR")


@given(affine=oblique_affines())
def test_a_linear_ramp_stays_one_on_a_finer_grid(affine):
    affine[:3, 3] /= 20
    volume = ramp(Geometry((9, 10, 11), affine))
    inner = volume.geometry.crop((2, 2, 2), (7, 8, 9)).respaced(volume.geometry.spacing_mm / 1.5)
    assert_allclose(resample(volume, inner), ramp(inner).array, atol=2e-2)


@pytest.mark.parametrize(("order", "signs"), PERMUTATIONS[::5])
def test_the_order_of_storage_does_not_change_what_is_seen(order, signs):
    geometry = Geometry((9, 10, 11), np.diag([3.0, 0.8, 0.7, 1.0]))
    array = np.random.default_rng(0).normal(size=geometry.shape).astype(np.float32)
    turned = Volume(*stored(array, geometry, order, signs), "MR")
    onto = geometry.respaced(np.array([4.0, 2.0, 2.0]))
    assert_allclose(resample(turned, onto), resample(Volume(array, geometry, "MR"), onto), atol=1e-4)


def test_a_coarser_grid_averages_and_does_not_alias():
    geometry = Geometry((40, 40, 40), np.eye(4))
    checker = np.where(np.indices(geometry.shape).sum(axis=0) % 2, 100.0, 0.0)
    coarse = resample(Volume(checker, geometry, "MR"), geometry.respaced(np.full(3, 4.0)))
    assert np.abs(coarse[1:-1, 1:-1, 1:-1] - 50).max() < 5


def test_outside_the_scan_the_value_asked_for_is_given_or_the_nearest():
    volume = ramp(Geometry((4, 4, 4), np.eye(4)))
    beside = volume.geometry.crop((-3, 0, 0), (-1, 4, 4))
    assert (resample(volume, beside, outside=-7.0) == -7.0).all()
    assert_allclose(resample(volume, beside)[0], volume.array[0], atol=1e-5)
    far = volume.geometry.crop((100, 100, 100), (101, 101, 101))
    assert resample(volume, far)[0, 0, 0] == pytest.approx(volume.array[-1, -1, -1])


def test_a_warp_shows_what_lies_where_the_map_points():
    volume = ramp(Geometry((20, 20, 20), np.eye(4)))
    shift = AffineMap.shift(np.array([2.0, 1.0, -1.0]))
    inner = volume.geometry.crop((5, 5, 5), (15, 15, 15))
    expected = resample(volume, volume.geometry.crop((7, 6, 4), (17, 16, 14)))
    assert_allclose(warp(volume, inner, shift), expected, atol=1e-4)


def test_a_point_has_the_value_of_its_place():
    volume = ramp(Geometry((5, 5, 5), np.eye(4)))
    assert_allclose(sample(volume, np.array([[1.5, 2.0, 3.0]])), [1.5 - 4.0 + 1.5], atol=1e-5)
