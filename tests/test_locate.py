import numpy as np
import pytest
from numpy.testing import assert_array_equal

from lesionlocator.follow.locate import locate
from lesionlocator.follow.scene import Scene, carry, look_of, share_inside
from lesionlocator.geometry import AffineMap, Alignment, Geometry
from lesionlocator.volume import Mask, Volume
from visits import Ball, ball_mask, grid, scan

BALL = Ball(-20, 0, 5, 9)
STILL = Alignment.from_affine(AffineMap.identity())


def scene(later: list[Ball], alignment=STILL, geometry=None) -> Scene:
    geometry = geometry or grid()
    return Scene(scan([BALL], grid(), 0), scan(later, geometry, 1), alignment, [ball_mask(BALL, grid())])


def test_the_look_of_a_lesion_is_what_it_was_made_of():
    look = look_of(scan([BALL], grid(), 0), ball_mask(BALL, grid()))
    assert look.inside == pytest.approx(60, abs=3)
    assert look.around == pytest.approx(-90, abs=3)
    assert look.around_spread == pytest.approx(12, abs=3)
    assert look.stands_out(1.0)


def test_an_unchanged_lesion_is_one_part_of_its_own_size():
    (sighting,) = locate(scene([BALL]))
    assert sighting.inside == 1.0 and sighting.decisive and sighting.likeness > 0.8
    assert [part.voxels for part in sighting.parts] == [pytest.approx(ball_mask(BALL, grid()).voxels, rel=0.1)]


def test_an_alignment_that_is_four_millimetres_off_still_finds_it():
    off = Alignment.from_affine(AffineMap.shift(np.array([4.0, 0.0, 0.0])))
    (sighting,) = locate(scene([BALL], off))
    assert [part.voxels for part in sighting.parts] == [pytest.approx(ball_mask(BALL, grid()).voxels, rel=0.15)]


def test_a_lesion_that_is_gone_leaves_no_part():
    (sighting,) = locate(scene([]))
    assert sighting.decisive and sighting.parts == () and sighting.likeness < 0.3


def test_what_was_there_before_is_not_taken_for_the_lesion():
    neighbour = Ball(-3, 0, 5, 6)
    first, later = scan([BALL, neighbour], grid(), 0), scan([neighbour], grid(), 1)
    (sighting,) = locate(Scene(first, later, STILL, [ball_mask(BALL, grid())]))
    assert sighting.parts == ()


def test_a_lesion_like_its_surroundings_cannot_be_judged():
    noise = np.random.default_rng(0).normal(0, 20, grid().shape).astype(np.float32)
    volume = Volume(noise, grid(), "CT")
    (sighting,) = locate(Scene(volume, volume, STILL, [ball_mask(BALL, grid())]))
    assert not sighting.decisive and sighting.parts == ()


def test_the_share_inside_a_shorter_scan_is_counted_in_voxels():
    half = grid((5.0, 75.0))
    assert share_inside(ball_mask(BALL, grid()), scene([BALL], geometry=half)) == pytest.approx(0.5, abs=0.1)
    (sighting,) = locate(scene([BALL], geometry=grid((20.0, 75.0))))
    assert sighting.inside == 0.0 and sighting.parts == ()


def test_a_lesion_smaller_than_the_voxels_of_the_follow_up_is_carried_as_one_voxel():
    coarse = Geometry((12, 12, 12), grid().affine @ np.diag([5.0, 8.0, 8.0, 1.0]))
    tiny = Mask.from_array(ball_mask(Ball(-20, 0, 5, 2.0), grid()).on(grid()), grid())
    values = np.zeros(coarse.shape, np.int16)
    carried = carry(tiny, Scene(scan([], grid(), 0), Volume(values, coarse, "CT"), STILL, [tiny]))
    assert carried.voxels == 1
    assert coarse.contains(carried.centroid_mm[None])[0]


def test_locating_changes_nothing_that_was_given():
    given = scene([BALL])
    before = given.baseline.array.copy(), given.followup.array.copy(), given.lesions[0].array.copy()
    locate(given)
    for array, kept in zip((given.baseline.array, given.followup.array, given.lesions[0].array), before, strict=True):
        assert_array_equal(array, kept)


def test_the_scale_of_an_mr_does_not_matter():
    def as_mr(balls, seed, scale):
        volume = scan(balls, grid(), seed)
        return Volume((volume.array + 1100.0).astype(np.float32) * scale, grid(), "MR")

    lesions = [ball_mask(BALL, grid())]
    (present,) = locate(Scene(as_mr([BALL], 0, 1.0), as_mr([BALL], 1, 2.5), STILL, lesions))
    (gone,) = locate(Scene(as_mr([BALL], 0, 1.0), as_mr([], 1, 2.5), STILL, lesions))
    assert len(present.parts) == 1 and gone.parts == ()
