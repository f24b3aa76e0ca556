"""Flows around lesions: they give the volume that is asked for, never fold, can be run backwards, and end somewhere."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import phantoms
from lesionlocator.errors import Refused
from lesionlocator.synth import deform
from lesionlocator.volume import Mask

GRID = phantoms.upright((48, 48, 48), 1.5, (3.0, -7.0, 11.0))
CENTRE = (4.0, -6.0, 10.0)
BALL = Mask.from_array(phantoms.in_ellipsoid(GRID, CENTRE, (9.0, 9.0, 9.0)), GRID)
FLATTENED = Mask.from_array(phantoms.in_ellipsoid(GRID, CENTRE, (6.0, 12.0, 9.0)), GRID)


def swollen(mask: Mask, factor: float, reach_mm: float = 18.0, bone: np.ndarray | None = None) -> deform.Flow:
    site = deform.site_of(GRID, mask, reach_mm, 32, None if bone is None else lambda grid: _ease(bone, grid))
    zone_mm = max(0.0, site.reached_mm(max(factor, 1.0)))
    deepest = -float(site.distance_mm.min())
    fade_mm = (zone_mm + 0.3 * (reach_mm - zone_mm), reach_mm)
    swelling = deform.Swelling(zone_mm + 2 * site.node_mm, 0.6 * deepest, fade_mm, factor < 1)
    flow = deform.solved(swelling.velocity(site), site.grid, mask, factor)
    assert flow is not None
    return flow


def volume_after(flow: deform.Flow, radii_mm: np.ndarray, fine: int = 2) -> float:
    """The volume of the tissue that was in an ellipsoid around CENTRE before, counted on half voxels."""
    grid = GRID.crop(*GRID.around(np.array([CENTRE]), 19.0)).respaced(GRID.spacing_mm / fine)
    at_mm = grid.index_to_world(np.indices(grid.shape).reshape(3, -1).T.astype(float))
    scaled = (flow.backward(at_mm) - np.array(CENTRE)) / radii_mm
    return float(np.count_nonzero(np.sum(scaled**2, axis=1) <= 1)) * grid.voxel_ml


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(factor=st.floats(0.1, 4.0), flat=st.booleans())
def test_a_lesion_gets_the_volume_that_is_asked_for(factor: float, flat: bool) -> None:
    mask, radii = (FLATTENED, np.array([6.0, 12.0, 9.0])) if flat else (BALL, np.array([9.0, 9.0, 9.0]))
    flow = swollen(mask, factor)
    before_ml = 4 / 3 * np.pi * float(np.prod(radii)) / 1000
    # Seen on voxels of 0.75 mm, a lesion of a tenth of the volume (radius 4 mm) is counted to some percent.
    assert_allclose(volume_after(flow, radii) / before_ml, factor, rtol=0.03 if factor > 0.3 else 0.08)
    assert flow.least_volume_change() > 0
    assert flow.largest_error(GRID) < 0.5


def test_what_lies_beyond_the_reach_does_not_move_at_all() -> None:
    flow = swollen(BALL, 2.0, reach_mm=15.0)
    at_mm = GRID.index_to_world(np.indices(GRID.shape).reshape(3, -1).T.astype(float))
    away_mm = np.linalg.norm(at_mm - np.array(CENTRE), axis=1)
    far = at_mm[away_mm > 9 + 15 + 3]
    # Splines ring by less than a thousandth of a voxel behind the last moving node, and not at all beyond the grid.
    assert_allclose(flow.forward(far), far, atol=2e-3)
    beyond = far[~np.all(np.abs(flow.grid.world_to_index(far)) < np.array(flow.grid.shape), axis=1)]
    assert_array_equal(flow.backward(beyond), beyond)


def test_growth_pushes_tissue_outwards_and_shrinking_pulls_it_in() -> None:
    beside = np.array([[CENTRE[0] + 12.0, CENTRE[1], CENTRE[2]]])
    assert swollen(BALL, 2.0).forward(beside)[0, 0] > beside[0, 0] + 1
    assert swollen(BALL, 0.3).forward(beside)[0, 0] < beside[0, 0] - 1


def test_the_border_of_a_ball_that_doubles_moves_by_a_quarter_of_its_radius() -> None:
    flow = swollen(BALL, 2.0)
    on_border = np.array(CENTRE) + 9 * np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
    moved_mm = np.linalg.norm(flow.forward(on_border) - np.array(CENTRE), axis=1)
    assert_allclose(moved_mm, 9 * 2 ** (1 / 3), atol=0.5)


def test_bone_resists() -> None:
    bone = phantoms.in_ellipsoid(GRID, (CENTRE[0] + 18.0, CENTRE[1], CENTRE[2]), (6.0, 40.0, 40.0))
    flow = swollen(BALL, 2.0, bone=bone)
    towards = np.array([[CENTRE[0] + 15.0, CENTRE[1], CENTRE[2]]])
    away = np.array([[CENTRE[0] - 15.0, CENTRE[1], CENTRE[2]]])
    into_bone_mm = np.linalg.norm(flow.forward(towards) - towards)
    elsewhere_mm = np.linalg.norm(flow.forward(away) - away)
    assert into_bone_mm < 0.5 * elsewhere_mm
    assert flow.least_volume_change() > 0


def test_voxels_are_looked_up_where_the_map_says() -> None:
    flow = swollen(FLATTENED, 1.7)
    part = GRID.crop((8, 10, 12), (40, 37, 41))
    index = np.indices(part.shape).reshape(3, -1).T.astype(float)
    from_map = part.world_to_index(flow.backward(part.index_to_world(index))) - index
    assert_allclose(flow.back.on(part).reshape(3, -1).T, from_map, atol=1e-3)


@given(turn=st.integers(0, 5), flips=st.tuples(st.booleans(), st.booleans(), st.booleans()))
@settings(max_examples=4, deadline=None)
def test_the_order_in_which_a_scan_is_stored_does_not_matter(turn: int, flips: tuple[bool, bool, bool]) -> None:
    from itertools import permutations

    volume = phantoms.painted(GRID, {1.0: FLATTENED.on(GRID)}, noise=0.0)
    order = list(permutations(range(3)))[turn]
    other = phantoms.stored_otherwise(volume, order, tuple(-1 if flip else 1 for flip in flips))
    mask = Mask.from_array(other.array == 1.0, other.geometry)
    site = deform.site_of(other.geometry, mask, 15.0, 24)
    velocity = deform.Swelling(2.0, 4.0, (4.0, 15.0)).velocity(site)
    flow = deform.solved(velocity, site.grid, mask, 1.5)
    straight = deform.site_of(GRID, FLATTENED, 15.0, 24)
    expected = deform.solved(deform.Swelling(2.0, 4.0, (4.0, 15.0)).velocity(straight), straight.grid, FLATTENED, 1.5)
    assert flow is not None
    assert expected is not None
    points = np.array(CENTRE) + np.random.default_rng(1).uniform(-15, 15, (50, 3))
    assert_allclose(flow.forward(points), expected.forward(points), atol=0.1)


def test_the_published_deformation_grows_along_the_blurred_gradient_and_its_inverse_is_found() -> None:
    maps = deform.blurred_gradient(BALL, GRID, 5.0)(20.0)
    border = np.array([[CENTRE[0] + 9.0, CENTRE[1], CENTRE[2]]])
    assert np.linalg.norm(maps.forward(border) - np.array(CENTRE)) > 9.3
    points = np.array(CENTRE) + np.random.default_rng(2).uniform(-14, 14, (200, 3))
    assert np.linalg.norm(maps.backward(maps.forward(points)) - points, axis=1).max() < 0.5 * 1.5


def test_an_amplitude_that_folds_space_is_refused() -> None:
    with pytest.raises(Refused, match="folds space"):
        deform.blurred_gradient(BALL, GRID, 2.0)(-200.0)


def test_a_lesion_without_room_gets_no_flow() -> None:
    site = deform.site_of(GRID, BALL, 4.0, 32)
    velocity = deform.Swelling(1.0, 5.0, (1.0, 3.0)).velocity(site)
    assert deform.solved(velocity, site.grid, BALL, 8.0) is None


def _ease(bone: np.ndarray, grid: deform.Geometry) -> np.ndarray:
    return deform.gives_way(Mask.from_array(bone, GRID).placed(grid).on(grid).astype(np.float32))
