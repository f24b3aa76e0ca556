import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lesionlocator.errors import Refused
from lesionlocator.geometry import AffineMap, Alignment, Geometry, compose
from strategies import SHAPE, oblique_affines, ranges, rotation

ORIGIN = np.zeros((1, 3))


@given(affine=oblique_affines(), part=ranges())
def test_a_crop_leaves_every_voxel_where_it_was(affine, part):
    whole = Geometry(SHAPE, affine)
    crop = whole.crop(*part)
    assert_allclose(crop.index_to_world(ORIGIN), whole.index_to_world(np.array([part[0]], float)), atol=1e-9)
    assert crop.offset_in(whole) == part[0]


@given(affine=oblique_affines(), at=st.tuples(*[st.floats(-50, 50)] * 3))
def test_an_index_comes_back_from_the_patient(affine, at):
    geometry = Geometry(SHAPE, affine)
    index = np.array([at])
    assert_allclose(geometry.world_to_index(geometry.index_to_world(index)), index, atol=1e-6)


@given(affine=oblique_affines(), part=ranges())
def test_the_corners_of_a_part_are_covered_by_just_that_part(affine, part):
    whole = Geometry(SHAPE, affine)
    assert whole.around(whole.crop(*part).corners_mm) == part


@given(affine=oblique_affines())
def test_a_respaced_grid_has_the_same_middle_and_nearly_the_same_extent(affine):
    geometry = Geometry((40, 50, 60), affine)
    other = geometry.respaced(np.array([2.0, 3.0, 4.0]))
    assert_allclose(other.centre_mm, geometry.centre_mm, atol=1e-6)
    extents = [np.array(g.shape) * g.spacing_mm for g in (geometry, other)]
    assert np.all(np.abs(extents[0] - extents[1]) <= np.array([2.0, 3.0, 4.0]) / 2 + 1e-6)


def test_voxel_volume_and_spacing_are_those_of_the_header():
    geometry = Geometry((2, 2, 2), np.diag([3.0, 0.5, 0.5, 1.0]))
    assert_allclose(geometry.spacing_mm, [3, 0.5, 0.5])
    assert geometry.voxel_ml == pytest.approx(0.00075)
    assert_allclose(geometry.corners_mm[0], [-1.5, -0.25, -0.25])


def test_a_point_on_the_outer_face_is_inside_and_one_beyond_is_not():
    geometry = Geometry((2, 2, 2), np.eye(4))
    found = geometry.contains(np.array([[-0.5, 0, 0], [1.5, 1.5, 1.5], [1.6, 0, 0], [0, -0.6, 0]]))
    assert found.tolist() == [True, True, False, False]


def test_only_the_overlap_with_the_grid_survives_clipping():
    geometry = Geometry((5, 5, 5), np.eye(4))
    assert geometry.clip((-2, 1, 4), (3, 9, 5)) == ((0, 1, 4), (3, 5, 5))
    assert geometry.clip((5, 0, 0), (6, 1, 1)) is None


def test_grids_that_are_not_parts_of_one_lattice_have_no_offset():
    geometry = Geometry((5, 5, 5), np.eye(4))
    moved = np.eye(4)
    moved[:3, 3] = 0.4
    assert Geometry((2, 2, 2), moved).offset_in(geometry) is None
    assert Geometry((2, 2, 2), np.diag([2.0, 1, 1, 1])).offset_in(geometry) is None


def test_axial_scans_are_told_from_oblique_ones():
    turned = np.eye(4)
    turned[:3, :3] = rotation([0.2, 0.0, 0.0])
    assert Geometry((2, 2, 2), np.array([[0, 0, 1.0, 0], [0, -1, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1]])).is_axial_aligned()
    assert not Geometry((2, 2, 2), turned).is_axial_aligned()


@pytest.mark.parametrize("shape", [(0, 1, 1), (3, -1, 2)])
def test_a_grid_without_voxels_is_refused(shape):
    with pytest.raises(Refused, match="at least one voxel"):
        Geometry(shape, np.eye(4))


@pytest.mark.parametrize("affine", [np.diag([1.0, 1.0, 0.0, 1.0]), np.full((4, 4), np.nan)])
def test_a_header_that_flattens_space_is_refused(affine):
    with pytest.raises(Refused, match="three independent axes"):
        Geometry((2, 2, 2), affine)


@given(matrix=oblique_affines(), at=st.tuples(*[st.floats(-100, 100)] * 3))
def test_an_affine_alignment_goes_forth_and_back(matrix, at):
    alignment = Alignment.from_affine(AffineMap(matrix))
    point = np.array([at])
    assert_allclose(alignment.backward(alignment.forward(point)), point, atol=1e-5)
    twice = alignment.then(alignment.inverse())
    assert_allclose(twice.forward(point), point, atol=1e-5)


def test_maps_are_composed_in_the_order_in_which_they_are_named():
    double = AffineMap(np.diag([2.0, 2, 2, 1]))
    shift = AffineMap.shift(np.array([1.0, 0, 0]))
    assert_allclose(compose(double, shift)(np.ones((1, 3))), [[3, 2, 2]])
    assert_allclose(compose()(np.ones((1, 3))), [[1, 1, 1]])


def test_values_and_refusals_travel_between_processes():
    alignment = Alignment.from_affine(AffineMap.shift(np.ones(3)), "given", ("a warning",))
    again = pickle.loads(pickle.dumps(alignment))
    assert_allclose(again.forward(ORIGIN), [[1, 1, 1]])
    refused = pickle.loads(pickle.dumps(Refused(found="a", needed="b", do="c")))
    assert (refused.found, refused.needed, refused.do) == ("a", "b", "c")
