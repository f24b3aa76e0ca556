"""The numbered stories of scoring.md."""

import numpy as np
import pytest

from lesionlocator.case import Case
from lesionlocator.evaluate.following import NO_SUCH_LESION, compare, identity_switches, told, true_case
from lesionlocator.evaluate.rows import score_all
from lesionlocator.score import score_events
from lesionlocator.volume import Mask, Volume
from visits import Ball, ball_mask, grid

LEFT, RIGHT, MIDDLE = Ball(-12, 0, 0, 9), Ball(12, 0, 0, 8), Ball(0, -30, 0, 6)
EMPTY = Volume(np.zeros(grid().shape, np.int16), grid(), "CT")
MERGE_THEN_SPLIT = [(0, "3", 1, "3"), (0, "4", 1, "3"), (1, "3", 2, "3"), (1, "3", 2, "13")]


def case(*visits: dict[str, Ball | Mask], links=()) -> Case:
    """Visits with these lesions; ids are links, and `links` are what ids do not say."""
    return true_case([(EMPTY, {name: as_mask(ball) for name, ball in visit.items()}) for visit in visits], links)


def as_mask(ball: Ball | Mask) -> Mask:
    return ball_mask(ball, grid()) if isinstance(ball, Ball) else ball


def both(one: Ball, other: Ball) -> Mask:
    return Mask.from_array(ball_mask(one, grid()).on(grid()) | ball_mask(other, grid()).on(grid()), grid())


def scored(said: Case, truth: Case):
    """Dice by (visit, lesion), events by name, and changes of name."""
    dice = {(row.visit, row.lesion): score_all(row.said, row.truth)[0]["dice"] for row in compare(said, truth)}
    return dice, score_events(told(said, "a"), told(truth, "a")), identity_switches(said, truth)


def test_01_two_lesions_that_swap_places_keep_their_events_and_lose_their_names():
    truth, said = (
        case({"1": LEFT, "2": RIGHT}, {"1": LEFT, "2": RIGHT}),
        case({"1": LEFT, "2": RIGHT}, {"1": RIGHT, "2": LEFT}),
    )
    dice, events, switches = scored(said, truth)
    assert dice == {(1, "1"): 0.0, (1, "2"): 0.0}
    assert events["same"].f1 == 1.0 and switches == (2, 2)


def test_02_lesions_that_merge_and_split_again_can_be_told_wholly_right():
    truth = case({"3": LEFT, "4": RIGHT}, {"3": both(LEFT, RIGHT)}, {"3": LEFT, "13": RIGHT}, links=MERGE_THEN_SPLIT)
    dice, events, switches = scored(truth, truth)
    assert set(dice.values()) == {1.0} and set(dice) == {(1, "3"), (1, "4"), (2, "3"), (2, "4")}
    assert (events["merged"].right, events["merged"].true, events["split"].right) == (2, 2, 1)
    assert switches[0] == 0


def test_03_a_merger_told_as_growth_and_loss_is_wrong_about_both():
    truth = case({"3": LEFT, "4": RIGHT}, {"3": both(LEFT, RIGHT)}, {"3": LEFT, "13": RIGHT}, links=MERGE_THEN_SPLIT)
    said = case({"3": LEFT, "4": RIGHT}, {"3": both(LEFT, RIGHT)}, {"3": LEFT})
    dice, events, _ = scored(said, truth)
    assert (dice[1, "3"], dice[1, "4"]) == (1.0, 0.0)
    assert 0.5 < dice[2, "3"] < 1.0 and dice[2, "4"] == 0.0
    assert (events["merged"].recall, events["split"].recall, events["vanished"].precision) == (0.0, 0.0, 0.0)


def test_04_a_lesion_that_vanished_and_came_back_can_be_told_right():
    truth = case({"1": LEFT}, {}, {"1": LEFT})
    dice, events, switches = scored(truth, truth)
    assert dice == {(1, "1"): 1.0, (2, "1"): 1.0}
    assert events["vanished"].f1 == events["same"].f1 == 1.0 and switches == (0, 1)


def test_05_a_false_outline_while_a_lesion_was_gone_is_never_left_out():
    truth, said = case({"1": LEFT}, {}, {"1": LEFT}), case({"1": LEFT}, {"1": LEFT}, {"1": LEFT})
    dice, events, _ = scored(said, truth)
    assert dice == {(1, "1"): 0.0, (2, "1"): 1.0}
    false = next(row for row in compare(said, truth) if row.visit == 1)
    assert score_all(false.said, false.truth)[0]["false_positive_ml"] == pytest.approx(as_mask(LEFT).volume_ml)
    assert (events["vanished"].recall, events["same"].precision, events["same"].recall) == (0.0, 0.5, 1.0)


def test_06_outside_the_scan_is_not_vanished():
    truth = case({"1": LEFT, "2": RIGHT}, {"1": LEFT}, links=[(0, "2", 1, "outside")])
    dice, events, _ = scored(case({"1": LEFT, "2": RIGHT}, {"1": LEFT}), truth)
    assert dice == {(1, "1"): 1.0, (1, "2"): 1.0}
    assert (events["outside"].recall, events["vanished"].precision) == (0.0, 0.0)


def test_07_a_false_track_of_a_vanished_lesion_is_scored_nought():
    truth, said = case({"1": LEFT, "2": RIGHT}, {"1": LEFT}), case({"1": LEFT, "2": RIGHT}, {"1": LEFT, "2": MIDDLE})
    dice, events, switches = scored(said, truth)
    assert dice == {(1, "1"): 1.0, (1, "2"): 0.0}
    assert events["vanished"].recall == 0.0 and switches == (0, 1)


def test_08_a_lesion_that_was_never_there_has_a_row_with_its_reason():
    truth, said = case({"1": LEFT}, {"1": LEFT}), case({"1": LEFT}, {"1": LEFT, "9": MIDDLE})
    dice, events, _ = scored(said, truth)
    assert dice == {(1, "1"): 1.0, (1, "9"): 0.0}
    assert [row.reason for row in compare(said, truth)] == ["", NO_SUCH_LESION]
    assert (events["new"].precision, events["same"].f1) == (0.0, 1.0)


def test_09_a_new_lesion_that_nobody_saw_is_a_missed_event():
    dice, events, _ = scored(case({"1": LEFT}, {"1": LEFT}), case({"1": LEFT}, {"1": LEFT, "5": MIDDLE}))
    assert dice == {(1, "1"): 1.0} and events["new"].recall == 0.0
