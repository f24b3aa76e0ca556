import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal

from lesionlocator.errors import Refused
from lesionlocator.geometry import AffineMap, Alignment, Geometry
from lesionlocator.volume import Mask, Volume, bounds
from strategies import PERMUTATIONS, SHAPE, oblique_affines, ranges, stored


def block(part, shape=SHAPE):
    array = np.zeros(shape, bool)
    array[tuple(slice(a, b) for a, b in zip(*part, strict=True))] = True
    return array


@given(affine=oblique_affines(), part=ranges())
def test_a_mask_is_the_same_on_its_grid_as_before_it_was_cropped(affine, part):
    geometry = Geometry(SHAPE, affine)
    mask = Mask.from_array(block(part), geometry)
    assert_array_equal(mask.on(geometry), block(part))
    assert mask.array.shape == tuple(b - a for a, b in zip(*part, strict=True))
    assert mask.volume_ml == pytest.approx(block(part).sum() * geometry.voxel_ml)


@given(affine=oblique_affines(), part=ranges())
def test_a_mask_moved_by_whole_voxels_lands_on_them(affine, part):
    geometry = Geometry(SHAPE, affine)
    mask = Mask.from_array(block(part), geometry)
    shift = AffineMap.shift(affine[:3, :3] @ np.array([1.0, 0, 0]))
    moved = mask.warped(geometry, Alignment.from_affine(shift)).on(geometry)
    expected = np.zeros(SHAPE, bool)
    expected[1:] = block(part)[:-1]
    assert_array_equal(moved, expected)


@pytest.mark.parametrize(("order", "signs"), PERMUTATIONS[::5])
def test_a_mask_means_the_same_place_in_any_order_of_storage(order, signs):
    geometry = Geometry(SHAPE, np.diag([3.0, 0.7, 0.8, 1.0]))
    array = block(((1, 2, 3), (4, 7, 5)))
    other, other_geometry = stored(array, geometry, order, signs)
    mask, twin = Mask.from_array(array, geometry), Mask.from_array(other, other_geometry)
    assert_allclose(twin.centroid_mm, mask.centroid_mm, atol=1e-9)
    assert_allclose(np.linalg.norm(twin.deepest_mm - mask.deepest_mm), 0, atol=3.0)
    assert_array_equal(twin.placed(geometry).on(geometry), array)


def test_the_deepest_voxel_of_a_horseshoe_lies_in_it_though_its_centroid_does_not():
    array = np.zeros((3, 9, 9), bool)
    array[:, 1:8, 1:8] = True
    array[:, 1:6, 3:6] = False
    mask = Mask.from_array(array, Geometry((3, 9, 9), np.eye(4)))
    index = np.round(mask.deepest_mm).astype(int)
    assert array[tuple(index)]


def test_of_equally_deep_voxels_the_one_nearest_the_centroid_is_taken():
    mask = Mask.from_array(np.ones((1, 1, 5), bool), Geometry((1, 1, 5), np.eye(4)))
    assert_allclose(mask.deepest_mm, [0, 0, 2])


def test_an_empty_mask_is_one_voxel_that_is_not_set():
    geometry = Geometry(SHAPE, np.eye(4))
    mask = Mask.from_array(np.zeros(SHAPE, bool), geometry)
    assert mask.is_empty and mask.volume_ml == 0 and not mask.on(geometry).any()
    assert mask.warped(geometry, Alignment.from_affine(AffineMap.identity())).is_empty
    with pytest.raises(Refused, match="empty mask"):
        _ = mask.centroid_mm


def test_what_lies_outside_a_smaller_grid_is_cut_off():
    geometry = Geometry((4, 4, 4), np.eye(4))
    mask = Mask.from_array(np.ones((4, 4, 4), bool), geometry)
    part = geometry.crop((2, 2, 2), (6, 6, 6))
    assert mask.placed(part).voxels == 8
    assert mask.on(part).sum() == 8
    assert mask.placed(geometry.crop((9, 9, 9), (10, 10, 10))).is_empty


def test_a_mask_keeps_its_volume_on_a_finer_grid():
    geometry = Geometry((10, 10, 10), np.diag([2.0, 2.0, 2.0, 1.0]))
    array = np.zeros(geometry.shape, bool)
    array[3:7, 3:7, 3:7] = True
    mask = Mask.from_array(array, geometry)
    assert mask.placed(geometry.respaced(np.ones(3))).volume_ml == pytest.approx(mask.volume_ml)


def test_overlap_counts_shared_voxels():
    geometry = Geometry((4, 4, 4), np.eye(4))
    one, other = np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
    one[0:3], other[2:4] = True, True
    assert Mask.from_array(one, geometry).overlap(Mask.from_array(other, geometry)) == 16


def test_pasting_onto_another_lattice_is_refused():
    mask = Mask.from_array(np.ones((2, 2, 2), bool), Geometry((2, 2, 2), np.eye(4)))
    with pytest.raises(Refused, match="another grid"):
        mask.on(Geometry((2, 2, 2), np.diag([2.0, 1, 1, 1])))


def test_voxels_and_grid_must_agree():
    with pytest.raises(Refused, match="one voxel for every grid point"):
        Volume(np.zeros((2, 2, 3)), Geometry((2, 2, 2), np.eye(4)), "CT")


def test_a_crop_of_a_volume_is_a_view():
    volume = Volume(np.zeros((4, 4, 4), np.int16), Geometry((4, 4, 4), np.eye(4)), "CT")
    part = volume.crop((1, 1, 1), (3, 3, 3))
    assert np.shares_memory(part.array, volume.array)
    assert part.unit == "HU"


def test_bounds_of_nothing_are_none():
    assert bounds(np.zeros((2, 2, 2), bool)) is None
