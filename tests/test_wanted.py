"""What is looked at once more as one, and what a reader's prompts say of an outline."""

import numpy as np
import pytest

from lesionlocator.case import Lesion, Status
from lesionlocator.follow.locate import Sighting
from lesionlocator.follow.verified import at_clicks, confirms
from lesionlocator.follow.wanted import Carried, doubts, wanted
from lesionlocator.geometry import Geometry
from lesionlocator.parts import join
from lesionlocator.prompt import Box, Click, Shape
from lesionlocator.volume import Mask

GRID = Geometry((20, 40, 40), np.diag([2.0, 1.0, 1.0, 1.0]))


def block(low: tuple[int, int, int], high: tuple[int, int, int]) -> Mask:
    array = np.zeros(GRID.shape, bool)
    array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return Mask.from_array(array, GRID)


LEFT, RIGHT, NEAR = block((5, 5, 5), (10, 12, 12)), block((5, 5, 22), (10, 12, 29)), block((5, 5, 12), (10, 12, 22))


def carried(name: str, before: Mask, parts: tuple[Mask, ...] = (), contrast: float = 50.0) -> Carried:
    around = join(parts) if parts else None
    return Carried((0, name), Lesion(name), before, Sighting(before, 1.0, parts, around, contrast=contrast))


def answered(name: str, *masks: Mask) -> list[Lesion]:
    return [Lesion(name, (Shape(mask),), mask, Status.OUTLINED) for mask in masks]


def test_lesions_that_were_apart_and_whose_outlines_touch_are_looked_at_as_one():
    asked = wanted([carried("1", LEFT), carried("2", RIGHT)])
    (doubt,) = doubts(asked, [answered("1", LEFT), answered("2", NEAR)])
    assert doubt.numbers == (0, 1) and {item.lesion.id for item in doubt.as_one.group} == {"1", "2"}
    assert doubt.is_settled_by(join([LEFT, NEAR]))
    assert not doubt.is_settled_by(LEFT) and not doubt.is_settled_by(None)
    assert not doubts(asked, [answered("1", LEFT), answered("2", RIGHT)])


def test_lesions_that_touched_before_are_left_alone():
    asked = wanted([carried("1", LEFT), carried("2", NEAR)])
    assert not doubts(asked, [answered("1", LEFT), answered("2", NEAR)])


def test_a_split_stands_only_where_all_as_one_comes_out_in_pieces():
    whole = join([LEFT, NEAR, RIGHT])
    asked = wanted([carried("1", whole, (LEFT, RIGHT))])
    assert len(asked[0].asks) == 2
    (doubt,) = doubts(asked, [answered("1", LEFT, RIGHT)])
    assert doubt.is_settled_by(whole)
    assert not doubt.is_settled_by(join([LEFT, RIGHT]))


def test_a_few_specks_are_what_is_left_of_one_lesion():
    whole = block((2, 2, 2), (18, 34, 34))
    specks = block((5, 5, 5), (7, 7, 7)), block((12, 20, 20), (14, 22, 22))
    assert len(wanted([carried("1", whole, specks)])[0].asks) == 1


def test_what_is_brighter_does_not_merge_with_what_is_darker():
    bright, dark = carried("1", LEFT, (LEFT,)), carried("2", RIGHT, (NEAR,), contrast=-50.0)
    assert len(wanted([bright, dark])) == 2
    assert len(wanted([bright, carried("2", RIGHT, (NEAR,))])) == 1


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ((Click.inside(LEFT),), True),
        ((Box.around(LEFT), Click.inside(LEFT)), True),
        ((Box.around(LEFT),), False),
        ((Box.around(RIGHT), Click.inside(LEFT)), False),
        ((Click.inside(RIGHT),), False),
        ((Click.inside(LEFT), Click.inside(RIGHT)), False),
        ((Click.inside(LEFT), Click(Click.inside(LEFT).at, positive=False)), False),
        ((Click.inside(LEFT), Click(Click.inside(RIGHT).at, positive=False)), True),
        ((Click.inside(LEFT), Shape(LEFT)), False),
        ((), False),
    ],
)
def test_what_a_readers_prompts_say_of_an_outline(prompts, said):
    assert confirms(prompts, LEFT) is said


def test_a_click_beside_a_lesion_takes_its_outline_there():
    item = carried("1", LEFT)
    near = Click(LEFT.deepest_mm + np.array([0.0, 0.0, 5.0]))
    far = Click(RIGHT.deepest_mm)
    beside, away = (at_clicks(item, (click,), GRID).keeper.sighting.carried for click in (near, far))
    assert beside.voxels == away.voxels == LEFT.voxels
    assert np.allclose(away.deepest_mm, RIGHT.deepest_mm)
    assert 0 < beside.centroid_mm[2] - LEFT.centroid_mm[2] <= 5
    assert at_clicks(item, (Box.around(LEFT), near), GRID) is None
