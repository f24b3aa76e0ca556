import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from lesionlocator.geometry import AffineMap, Alignment, Geometry
from lesionlocator.prompt import PROMPTS, Box, Click, Line, Shape
from lesionlocator.volume import Mask
from strategies import PERMUTATIONS, SHAPE, oblique_affines, ranges, stored

IDENTITY = Alignment.from_affine(AffineMap.identity())


def block(part):
    array = np.zeros(SHAPE, bool)
    array[tuple(slice(a, b) for a, b in zip(*part, strict=True))] = True
    return array


def one_of_each(geometry: Geometry):
    mask = Mask.from_array(block(((1, 2, 3), (4, 7, 9))), geometry)
    ends = geometry.index_to_world(np.array([[1.0, 2, 3], [3.0, 6, 8]]))
    return [Click.inside(mask), Box.around(mask), Line(ends[0], ends[1]), Shape(mask)]


@given(affine=oblique_affines(), part=ranges())
def test_a_box_around_a_block_paints_just_that_block(affine, part):
    geometry = Geometry(SHAPE, affine)
    mask = Mask.from_array(block(part), geometry)
    assert_array_equal(Box.around(mask).paint(geometry), block(part))
    start, stop = (np.array(p, float) for p in part)
    assert_array_equal(Box.from_index(start, stop, geometry).paint(geometry), block(part))


@given(affine=oblique_affines(), turn=st.sampled_from(PERMUTATIONS))
def test_every_prompt_paints_the_same_place_in_any_order_of_storage(affine, turn):
    geometry = Geometry(SHAPE, affine)
    _, other = stored(np.zeros(SHAPE), geometry, *turn)
    for prompt in one_of_each(geometry):
        painted, _ = stored(prompt.paint(geometry), geometry, *turn)
        assert_array_equal(prompt.paint(other), painted)


@given(affine=oblique_affines())
def test_a_prompt_moved_by_nothing_is_itself(affine):
    geometry = Geometry(SHAPE, affine)
    for prompt in one_of_each(geometry):
        assert_array_equal(prompt.moved(IDENTITY, geometry).paint(geometry), prompt.paint(geometry))


@given(affine=oblique_affines(), by=oblique_affines())
def test_a_box_is_moved_exactly_by_an_affine_alignment(affine, by):
    box = Box.from_index(np.array([1.0, 2, 3]), np.array([4.0, 5, 9]), Geometry(SHAPE, affine))
    moved = box.moved(Alignment.from_affine(AffineMap(by)), Geometry(SHAPE, affine))
    assert_allclose(moved.points_mm, AffineMap(by)(box.points_mm), atol=1e-6)


@pytest.mark.parametrize("kind", PROMPTS)
def test_every_kind_of_prompt_is_in_the_table_under_its_name(kind):
    assert PROMPTS[kind].kind == kind
    assert {prompt.kind for prompt in one_of_each(Geometry(SHAPE, np.eye(4)))} == set(PROMPTS)


def test_the_ellipsoid_in_a_box_has_its_volume():
    geometry = Geometry((40, 40, 40), np.eye(4))
    box = Box.from_index(np.array([2.0, 5, 8]), np.array([38.0, 33, 32]), geometry)
    assert box.paint_ellipsoid(geometry).sum() == pytest.approx(np.pi / 6 * 36 * 28 * 24, rel=0.01)


def test_a_prompt_outside_the_scan_paints_nothing():
    geometry = Geometry(SHAPE, np.eye(4))
    away = Alignment.from_affine(AffineMap.shift(np.full(3, 100.0)))
    assert not any(prompt.moved(away, geometry).paint(geometry).any() for prompt in one_of_each(geometry))


def test_a_box_partly_outside_paints_its_part_inside():
    geometry = Geometry((4, 4, 4), np.eye(4))
    assert Box.from_bounds(np.array([1.5, -9.0, -9.0]), np.array([9.0, 9.0, 9.0])).paint(geometry).sum() == 2 * 4 * 4


def test_a_box_grown_by_a_voxel_takes_one_more_on_each_side():
    geometry = Geometry((9, 9, 9), np.eye(4))
    box = Box.from_index(np.array([3.0, 3, 3]), np.array([6.0, 6, 6]), geometry)
    assert_allclose(box.grown(1.0).size_mm, [5, 5, 5])
    assert box.grown(1.0).paint(geometry).sum() == 125


def test_a_click_touches_the_voxel_that_it_is_in():
    geometry = Geometry((4, 4, 4), np.diag([2.0, 1.0, 1.0, 1.0]))
    painted = Click(np.array([2.9, 1.4, 0.6])).paint(geometry)
    assert np.argwhere(painted).tolist() == [[1, 1, 1]]


def test_a_line_touches_every_voxel_on_its_way():
    geometry = Geometry((1, 1, 9), np.eye(4))
    line = Line(np.array([0.0, 0, 1]), np.array([0.0, 0, 6]))
    assert line.length_mm == 5
    assert np.flatnonzero(line.paint(geometry)).tolist() == [1, 2, 3, 4, 5, 6]


def test_the_json_of_a_box_is_its_bounds_in_millimetres():
    box = Box.from_bounds(np.array([0.0, -52, 298]), np.array([25.0, -28, 322]))
    assert box.to_json() == {"min": [0.0, -52.0, 298.0], "max": [25.0, -28.0, 322.0]}
    assert Click(np.array([1.0, 2, 3]), positive=False).to_json() == {"at": [1.0, 2.0, 3.0], "positive": False}
