"""When an outlined lesion is not believed in: by what is left at its place."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionlocator.case import Ending, Lesion, Status
from lesionlocator.follow.endings import disbelieved, outside, unseen
from lesionlocator.follow.locate import Sighting, locate
from lesionlocator.follow.remains import remains_of
from lesionlocator.follow.scene import Scene, look_of
from lesionlocator.follow.wanted import Carried, Wanted
from lesionlocator.geometry import AffineMap, Alignment
from lesionlocator.prompt import Shape
from lesionlocator.volume import Volume
from visits import Ball, ball_mask, grid, scan

LAYERED = Ball(0, 0, 0, 6)
"""In a layer of muscle between fat and bone: the bone is brighter, the fat darker, so brightness alone says little."""
SPACING = np.full(3, 2.0)


def layers(balls: list[Ball], seed: int, modality="CT") -> Volume:
    x = grid().index_to_world(np.indices(grid().shape).reshape(3, -1).T.astype(float))[:, 0]
    values = np.select([x < -6.0, x < 6.0], [-100.0, 50.0], 400.0)
    for ball in balls:
        values[ball_mask(ball, grid()).on(grid()).ravel()] = 180.0
    values += np.random.default_rng(seed).normal(0, 12, values.shape)
    return Volume(values.reshape(grid().shape).astype(np.float32), grid(), modality)


def judged(before: Volume, after: Volume, ball: Ball, outline: Ball, off_mm: float = 0.0):
    """What is said of a lesion that was outlined in the later scan all the same."""
    alignment = Alignment.from_affine(AffineMap.shift(np.array([0.0, off_mm, 0.0])))
    mask = ball_mask(ball, grid())
    (sighting,) = locate(Scene(before, after, alignment, [mask]))
    want, found = asked(mask, sighting), ball_mask(outline, grid())
    return disbelieved(want, [Lesion("1", (), found, Status.OUTLINED)], after)


def asked(mask, sighting: Sighting) -> Wanted:
    item = Carried((0, "1"), Lesion("1", (), mask, Status.OUTLINED), mask, sighting)
    return Wanted((item,), ((Shape(mask),),))


def test_a_lesion_among_unlike_tissues_is_known_to_be_gone_by_what_changed():
    assert not look_of(layers([LAYERED], 0), ball_mask(LAYERED, grid())).stands_out(1.0)
    ended = judged(layers([LAYERED], 0), layers([], 1), LAYERED, LAYERED)
    assert ended is not None and ended.ending is Ending.VANISHED and ended.decided_by == "rule"
    assert ended.confidence is not None and 0.5 < ended.confidence <= 1.0


@pytest.mark.parametrize("off_mm", [0.0, 3.0])
def test_a_lesion_among_unlike_tissues_that_is_still_there_is_not_called_gone(off_mm):
    assert judged(layers([LAYERED], 0), layers([LAYERED], 1), LAYERED, LAYERED, off_mm) is None


def test_without_a_unit_what_did_not_stand_out_is_not_called_gone():
    assert judged(layers([LAYERED], 0, "MR"), layers([], 1, "MR"), LAYERED, LAYERED) is None


@pytest.mark.parametrize("factor", [0.1, 0.25, 0.5, 2.0, 4.0])
def test_what_is_left_of_a_lesion_that_shrank_or_grew_is_believed(factor):
    ball = Ball(0, 0, 0, 10)
    now = ball.scaled(factor)
    assert judged(scan([ball], grid(), 0), scan([now], grid(), 1), ball, now) is None


def test_of_a_few_voxels_it_is_left_open_whether_they_are_gone():
    tiny = Ball(0.75, 0.75, 1.25, 1.9)
    assert 2 <= ball_mask(tiny, grid()).voxels < 16
    ended = judged(layers([tiny], 0), layers([], 1), tiny, tiny)
    assert ended is not None and ended.ending is Ending.UNSURE and ended.confidence is None


def test_lesions_that_grew_together_and_those_without_an_outline_are_not_asked_about():
    mask, later = ball_mask(LAYERED, grid()), layers([], 1)
    (sighting,) = locate(Scene(layers([LAYERED], 0), later, Alignment.from_affine(AffineMap.identity()), [mask]))
    want, outlined = asked(mask, sighting), Lesion("1", (), mask, Status.OUTLINED)
    assert disbelieved(want, [outlined], later) is not None
    assert disbelieved(replace(want, group=want.group * 2), [outlined], later) is None
    assert disbelieved(want, [Lesion("1", (), None, Status.FAILED)], later) is None


def test_what_is_outside_or_unseen_ends_before_anything_is_outlined():
    mask = ball_mask(LAYERED, grid())
    assert outside(Sighting(mask, inside=0.4), 0.5).ending is Ending.OUTSIDE
    assert outside(Sighting(mask, inside=0.5), 0.5) is None
    assert unseen(Sighting(mask, inside=1.0, decisive=True)).ending is Ending.VANISHED
    assert unseen(Sighting(mask, inside=1.0, decisive=True, parts=(mask,))) is None
    assert unseen(Sighting(mask, inside=1.0, decisive=False)) is None


# ------------------------------------------------------------------------------------------ what is left, by hand


def place(radius_mm: float = 8.0) -> np.ndarray:
    """A ball in the middle of a cube of 64 mm."""
    index = (np.indices((32, 32, 32)).transpose(1, 2, 3, 0) - 15.5) * SPACING
    return np.linalg.norm(index, axis=-1) <= radius_mm


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 5, (32, 32, 32))


NOTHING = np.zeros((32, 32, 32), bool)


def test_nothing_is_lost_of_a_lesion_that_stayed():
    left = remains_of(100 * place() + noise(0), 100 * place() + noise(1), place(), NOTHING, SPACING)
    assert left.lost == pytest.approx(0, abs=0.03)
    assert left.pattern == pytest.approx(1, abs=0.05)
    assert left.changed == pytest.approx(0, abs=0.3)


def test_all_is_lost_of_a_lesion_that_went():
    left = remains_of(100 * place() + noise(0), noise(1), place(), NOTHING, SPACING)
    assert left.lost == pytest.approx(1, abs=0.05)
    assert left.pattern == pytest.approx(0, abs=0.05)
    assert left.changed > 1.4


def test_half_is_lost_of_a_lesion_that_faded_by_half():
    left = remains_of(100 * place() + noise(0), 50 * place() + noise(1), place(), NOTHING, SPACING)
    assert left.lost == pytest.approx(0.5, abs=0.05)
    assert left.pattern == pytest.approx(0.5, abs=0.05)


def test_another_lesion_beside_it_that_went_is_not_counted():
    near = np.roll(place(4.0), 9, axis=0)
    before = 100 * place() + 100 * near + noise(0)
    left = remains_of(before, 100 * place() + noise(1), place(), near, SPACING)
    assert left.lost == pytest.approx(0, abs=0.03)


def test_with_too_little_around_nothing_is_said():
    everywhere = np.ones((32, 32, 32), bool)
    assert remains_of(noise(0), noise(1), everywhere, NOTHING, SPACING) is None
    assert remains_of(noise(0), noise(1), NOTHING, NOTHING, SPACING) is None


@settings(max_examples=25, deadline=None)
@given(st.floats(-500, 500), st.floats(0.2, 5.0), st.floats(-1.0, 1.5))
def test_neither_a_level_nor_a_scale_of_both_scans_changes_what_is_left(level, scale, stays):
    before, now = 100 * place() + noise(0), 100 * stays * place() + noise(1)
    plain = remains_of(before, now, place(), NOTHING, SPACING)
    other = remains_of(scale * before, scale * now + level, place(), NOTHING, SPACING)
    assert list(asdict(other).values()) == pytest.approx(list(asdict(plain).values()), abs=1e-6)
