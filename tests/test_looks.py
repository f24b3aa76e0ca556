"""Which look of a network is believed from a click: phantoms of beliefs, whose answers are known by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Click
from lesionlocator.segment.looks import SURE, Chosen, End, Look
from lesionlocator.segment.zoom import PATCH, View

GRID = Geometry((64, 64, 64), np.eye(4))
AT = (Click(np.array([32.0, 32.0, 32.0])),)


def ball(radius_mm, side_mm=48.0, centre_mm=(32.0, 32.0, 32.0), *, confidence=0.5, blur=0.0):
    """A look at a cube of this side that believes in a ball, and half as much in what is `blur` mm round its border."""
    view = View.on_point(np.array([32.0, 32.0, 32.0]), side_mm, GRID)
    at_mm = view.to_world(np.indices((PATCH,) * 3).reshape(3, -1).T.astype(float))
    away = np.linalg.norm(at_mm - np.array(centre_mm), axis=1).reshape((PATCH,) * 3)
    belief = np.where(away <= radius_mm, 1.0, 0.0)
    belief[np.abs(away - radius_mm) < blur] = 0.5
    return Look(view, belief.astype(np.float32), confidence)


def settled(*looks):
    """Ends that do not move any more."""
    return [End(look, 0.0) for look in looks]


@pytest.mark.parametrize("side_mm", [40.0, 60.0])
def test_the_same_ball_seen_in_two_views_agrees(side_mm):
    assert ball(10).agrees(ball(10, side_mm)) > 0.95
    assert ball(10).agrees(ball(8, centre_mm=(50, 32, 32))) < 0.1


def test_what_two_starts_meet_at_is_believed_rather_than_what_is_surest():
    met, also, alone = settled(ball(10), ball(10, 60.0), ball(5, centre_mm=(32, 32, 44), confidence=0.99))
    chosen = Chosen.among([alone, met, also])
    assert chosen is not None and chosen.end in (met, also) and chosen.met > 0.95


def test_of_two_that_do_not_meet_the_settled_one_is_believed():
    (still,) = settled(ball(10, confidence=0.1))
    moving = End.of([ball(4), ball(14, confidence=0.9)], AT)
    assert_allclose(moving.drift, np.log((14 / 4) ** 3), atol=0.3)
    assert Chosen.among([moving, still]).end is still


def test_ends_that_run_away_do_not_outvote_one_that_stays():
    away = [End(ball(16), 0.8), End(ball(16, 60.0), 0.8)]
    (still,) = settled(ball(4))
    assert Chosen.among([*away, still]).end is still
    # Of what has settled, agreement does count.
    assert Chosen.among([*settled(away[0].look, away[1].look), still]).met > 0.95


def test_of_two_that_do_not_meet_the_one_with_a_sharp_border_is_believed():
    sharp, vague = settled(ball(10), ball(20, blur=2.0))
    assert sharp.blur == 0
    # Half believed are 4 mm at the border; each counts a quarter, for each voxel that is believed at least half.
    shell = (22**3 - 18**3) / 22**3
    assert_allclose(vague.blur, shell / 4, rtol=0.05)
    assert Chosen.among([vague, sharp]).end is sharp


def test_the_guessed_extent_wins_where_nothing_else_tells():
    first, second = settled(ball(5, centre_mm=(20, 32, 32)), ball(5, centre_mm=(44, 32, 32)))
    guessed = End(second.look, 0.0, guessed=True)
    assert Chosen.among([first, guessed]).end is guessed
    assert Chosen.among([guessed, first]).end is guessed


def test_where_nothing_is_found_nothing_is_believed():
    empty = ball(0, centre_mm=(90, 90, 90))
    assert Chosen.among([End.of([empty], AT)]) is None
    assert Chosen.among([End.of([empty], AT), End.of([ball(6)], AT)]).end.look.found


def test_the_last_look_that_found_something_is_the_end():
    first, lost = ball(8), ball(0, centre_mm=(90, 90, 90))
    assert End.of([first, lost], AT).look is first


def test_a_card_says_how_sure_an_outline_from_a_click_is():
    one, two = settled(ball(10, confidence=0.3), ball(10, confidence=0.3))
    chosen = Chosen.among([one, two])
    assert chosen.look({}).confidence == 0.3
    settings = dict(zip(SURE, (-1.0, 2.0, 3.0, -1.0, -1.0), strict=True))
    # Log odds: -1 + 2 * 0.3 + 3 * 1 = 2.6.
    assert_allclose(chosen.look(settings).confidence, 1 / (1 + np.exp(-2.6)))
    assert_allclose(chosen.look({SURE[0]: -1.0}).confidence, 1 / (1 + np.exp(1.0)))
