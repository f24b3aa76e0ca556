"""The numbered stories of overview.md."""

import numpy as np
import pytest

from lesionlocator.case import Case, Event, Lesion, Status, Timepoint
from lesionlocator.geometry import AffineMap, Alignment
from lesionlocator.prompt import Box, Click
from lesionlocator.propose import proposals
from lesionlocator.segment import load_segmenter
from lesionlocator.track import Following, track_case
from visits import Ball, ball_mask, grid, scan, story, visit

LEFT, RIGHT, LOW, HIGH = Ball(-30, 0, 10, 9), Ball(28, -5, 0, 8), Ball(0, -20, -40, 8), Ball(5, -15, 45, 8)


@pytest.fixture(scope="module")
def segmenter():
    return load_segmenter()


def follow(case: Case, segmenter, align="header", **settings) -> Case:
    return track_case(case, segmenter, settings=Following(align=align, **settings))


def events(case: Case, to_scan: int) -> list[tuple[str, str, str | None]]:
    return sorted((h.lesion_id, h.event.value, h.to_lesion_id) for h in case.events() if h.to_scan == to_scan)


def dice(lesion: Lesion | None, ball: Ball, timepoint: Timepoint, shift_mm: float = 0.0) -> float:
    assert lesion is not None and lesion.mask is not None
    truth = ball_mask(ball, timepoint.geometry, shift_mm)
    return 2 * lesion.mask.overlap(truth) / (lesion.mask.voxels + truth.voxels)


def test_01_an_unchanged_lesion_is_the_same(segmenter):
    case = follow(story({"1": LEFT}, visit(1, [LEFT])), segmenter)
    assert events(case, 1) == [("1", "same", "1")]
    assert dice(case.timepoints[1].lesion("1"), LEFT, case.timepoints[1]) > 0.8


def test_02_ids_stay_over_three_visits(segmenter):
    balls = {"2": LEFT, "5": RIGHT, "9": LOW}
    case = follow(story(balls, visit(1, list(balls.values())), visit(2, list(balls.values()))), segmenter)
    for index in (1, 2):
        assert events(case, index) == [("2", "same", "2"), ("5", "same", "5"), ("9", "same", "9")]
        assert [lesion.id for lesion in case.timepoints[index].lesions] == ["2", "5", "9"]
    assert len(case.tracks()) == 3


@pytest.mark.parametrize(("factor", "tolerance"), [(4.0, 0.25), (0.25, 0.35)])
def test_03_04_a_lesion_that_grew_or_shrank_is_outlined_at_its_new_size(segmenter, factor, tolerance):
    changed = LEFT.scaled(factor)
    case = follow(story({"1": LEFT}, visit(1, [changed])), segmenter)
    assert events(case, 1) == [("1", "same", "1")]
    found = case.timepoints[1].lesion("1")
    assert found.mask.volume_ml == pytest.approx(ball_mask(changed, grid()).volume_ml, rel=tolerance)


def test_05_a_lesion_that_is_gone_has_vanished(segmenter):
    case = follow(story({"1": LEFT, "2": RIGHT}, visit(1, [RIGHT])), segmenter)
    assert events(case, 1) == [("1", "vanished", None), ("2", "same", "2")]
    gone = case.timepoints[1].lesion("1")
    assert gone.mask is None and gone.status is Status.ABSENT and gone.reason
    assert {link.decided_by for link in case.links if link.before == (0, "1")} == {"rule"}


def test_06_a_lesion_below_the_follow_up_is_outside(segmenter):
    short = grid((-25.0, 75.0))
    case = follow(story({"1": LEFT, "2": LOW}, visit(1, [LEFT, LOW], short)), segmenter)
    assert events(case, 1) == [("1", "same", "1"), ("2", "outside", None)]
    assert case.timepoints[1].lesion("2").status is Status.OUTSIDE


def test_07_lesions_that_grew_together_are_merged(segmenter):
    one, other = Ball(-12, 0, 0, 9), Ball(12, 0, 0, 8)
    grown = [Ball(-7, 0, 0, 11), Ball(7, 0, 0, 10)]
    case = follow(story({"3": one, "4": other}, visit(1, grown)), segmenter)
    assert events(case, 1) == [("3", "merged", "3"), ("4", "merged", "3")]
    assert case.timepoints[1].lesion("4").mask is None
    truth = ball_mask(grown[0], grid()).on(grid()) | ball_mask(grown[1], grid()).on(grid())
    assert case.timepoints[1].lesion("3").mask.voxels == pytest.approx(truth.sum(), rel=0.25)


def test_08_a_lesion_that_broke_in_two_is_split(segmenter):
    whole, parts = Ball(0, 0, 0, 14), [Ball(-9, 0, 0, 6.5), Ball(8, 0, 0, 5)]
    case = follow(story({"7": whole}, visit(1, parts)), segmenter)
    assert events(case, 1) == [("7", "split", "7"), ("7", "split", "8")]
    assert dice(case.timepoints[1].lesion("7"), parts[0], case.timepoints[1]) > 0.7
    assert dice(case.timepoints[1].lesion("8"), parts[1], case.timepoints[1]) > 0.7


def test_09_everything_at_once_is_told_apart(segmenter):
    one, other = Ball(-12, 0, 20, 9), Ball(12, 0, 20, 8)
    first = {"2": one, "5": other, "9": LOW, "12": Ball(-35, -10, -10, 7)}
    together = [Ball(-7, 0, 20, 11), Ball(7, 0, 20, 10)]
    apart = [Ball(-9, 0, 20, 8), Ball(10, 0, 20, 6)]
    short = grid((-25.0, 75.0))
    case = follow(story(first, visit(1, [*together, LOW], short), visit(2, apart, short)), segmenter)
    assert events(case, 1) == [
        ("12", "vanished", None),
        ("2", "merged", "2"),
        ("5", "merged", "2"),
        ("9", "outside", None),
    ]
    assert events(case, 2) == [("2", "split", "13"), ("2", "split", "2")]


def test_10_a_lesion_that_comes_into_view_again_keeps_its_id(segmenter):
    short = grid((-25.0, 75.0))
    case = follow(story({"1": LEFT, "2": LOW}, visit(1, [LEFT, LOW], short), visit(2, [LEFT, LOW])), segmenter)
    assert ("2", "outside", None) in events(case, 1)
    assert events(case, 2) == [("1", "same", "1"), ("2", "same", "2")]
    assert next(link for link in case.links if link.after == (2, "2")).before == (0, "2")


def test_11_a_lesion_that_comes_back_keeps_its_id(segmenter):
    case = follow(story({"1": LEFT, "2": RIGHT}, visit(1, [RIGHT]), visit(2, [LEFT, RIGHT])), segmenter)
    assert ("1", "vanished", None) in events(case, 1)
    assert events(case, 2) == [("1", "same", "1"), ("2", "same", "2")]


def test_12_near_neighbours_stay_apart(segmenter):
    balls = {"1": Ball(-11, 0, 0, 8), "2": Ball(11, 0, 0, 8)}
    case = follow(story(balls, visit(1, list(balls.values()))), segmenter)
    assert events(case, 1) == [("1", "same", "1"), ("2", "same", "2")]


def test_13_the_neighbour_of_a_vanished_lesion_is_not_taken_for_it(segmenter):
    balls = {"1": Ball(-11, 0, 0, 8), "2": Ball(11, 0, 0, 8)}
    case = follow(story(balls, visit(1, [balls["2"]])), segmenter)
    assert events(case, 1) == [("1", "vanished", None), ("2", "same", "2")]


def test_14_a_table_shift_is_normal(segmenter):
    moved = visit(1, [LEFT, RIGHT], grid(shift_mm=300.0), shift_mm=300.0)
    case = follow(story({"1": LEFT, "2": RIGHT}, moved), segmenter, align="rigid")
    assert events(case, 1) == [("1", "same", "1"), ("2", "same", "2")]
    assert dice(case.timepoints[1].lesion("1"), LEFT, case.timepoints[1], 300.0) > 0.8


def test_15_a_lesion_prompted_outside_the_scan_does_not_stop_the_others(segmenter):
    case = story({"1": LEFT}, visit(1, [LEFT]))
    away = Lesion("2", (Box.from_bounds(np.array([500.0, 0, 0]), np.array([520.0, 20, 20])),))
    first = case.timepoints[0]
    followed = follow(Case((first.with_lesions((*first.lesions, away)), case.timepoints[1])), segmenter)
    assert followed.timepoints[0].lesion("2").status is Status.OUTSIDE
    assert events(followed, 1) == [("1", "same", "1"), ("2", "unsure", None)]
    assert "outside" in next(link for link in followed.links if link.before == (0, "2")).reason


def test_16_what_a_reader_says_counts(segmenter):
    case = story({"1": LEFT, "2": RIGHT}, visit(1, [LEFT, RIGHT, HIGH]))
    placed = [Lesion(name, (Box.around(ball_mask(ball, grid())),)) for name, ball in {"1": LEFT, "3": HIGH}.items()]
    followed = follow(case, segmenter, verified={"visit1": placed})
    assert events(followed, 1) == [("1", "same", "1"), ("2", "vanished", None), ("3", "new", "3")]
    assert {link.decided_by for link in followed.links} == {"reader"}
    assert Event.NEW in {happening.event for happening in followed.events()}


def test_17_masks_that_were_given_stay_as_they_are(segmenter):
    case = story({"1": LEFT}, visit(1, [LEFT]), masks=True)
    followed = follow(case, segmenter)
    assert followed.timepoints[0].lesion("1").mask is case.timepoints[0].lesion("1").mask
    assert events(followed, 1) == [("1", "same", "1")]


def test_18_without_comparable_intensities_nothing_is_called_vanished(segmenter):
    def as_mr():
        volume = scan([LEFT], grid(), 1)
        return type(volume)((volume.array + 1100).astype(np.int16), volume.geometry, "MR", "visit1")

    case = story({"1": LEFT}, Timepoint("visit1", grid(), as_mr))
    followed = follow(case, segmenter)
    assert events(followed, 1) == [("1", "same", "1")]


def test_19_neighbours_that_were_all_carried_too_far_keep_their_names(segmenter):
    balls = {"1": Ball(-30, 0, 0, 6), "2": Ball(-14, 0, 0, 6), "3": Ball(2, 0, 0, 6), "4": Ball(20, -10, 10, 5)}
    too_far = Alignment.from_affine(AffineMap.shift(np.array([-9.0, 0.0, 0.0])))
    case = follow(
        story(balls, visit(1, list(balls.values())), masks=True), segmenter, align=lambda _one, _other: too_far
    )
    assert events(case, 1) == [(name, "same", name) for name in balls]
    for name, ball in balls.items():
        assert dice(case.timepoints[1].lesion(name), ball, case.timepoints[1]) > 0.8


def test_20_proposals_accepted_unchanged_keep_what_was_found(segmenter):
    one, other = Ball(-12, 0, 20, 9), Ball(12, 0, 20, 8)
    first = {"2": one, "5": other, "7": Ball(0, 0, -30, 14), "12": Ball(-35, -10, -10, 7)}
    together = [Ball(-7, 0, 20, 11), Ball(7, 0, 20, 10)]
    apart = [Ball(-9, 0, -30, 6.5), Ball(8, 0, -30, 5)]
    case = story(first, visit(1, [*together, *apart]))
    automatic = follow(case, segmenter)
    ((timepoint, accepted),) = proposals(automatic)
    checked = follow(case, segmenter, verified={timepoint.name: accepted})
    assert (
        events(checked, 1)
        == events(automatic, 1)
        == [
            ("12", "vanished", None),
            ("2", "merged", "2"),
            ("5", "merged", "2"),
            ("7", "split", "13"),
            ("7", "split", "7"),
        ]
    )
    assert {(link.decided_by, link.confidence) for link in checked.links} == {("reader", 1.0)}
    for lesion in automatic.timepoints[1].lesions:
        kept = checked.timepoints[1].lesion(lesion.id)
        assert kept is not None and (kept.mask is None) == (lesion.mask is None)
        assert lesion.mask is None or np.array_equal(kept.mask.array, lesion.mask.array)


def test_21_a_readers_click_moves_what_is_known(segmenter):
    away = Alignment.from_affine(AffineMap.shift(np.array([0.0, 0.0, 45.0])))
    case = story({"1": LEFT, "2": RIGHT}, visit(1, [LEFT, RIGHT]))
    places = {"1": LEFT, "2": RIGHT}
    clicks = [Lesion(name, (Click(np.array([ball.x, ball.y, ball.z], float)),)) for name, ball in places.items()]
    followed = follow(case, segmenter, align=lambda *_: away, verified={"visit1": clicks})
    assert events(followed, 1) == [("1", "same", "1"), ("2", "same", "2")]
    for name, ball in places.items():
        assert dice(followed.timepoints[1].lesion(name), ball, followed.timepoints[1]) > 0.8


def test_22_a_reader_takes_a_merged_lesion_apart(segmenter):
    one, other = Ball(-12, 0, 0, 9), Ball(12, 0, 0, 8)
    case = story({"3": one, "4": other}, visit(1, [Ball(-7, 0, 0, 11), Ball(7, 0, 0, 10)]))
    boxes = [Lesion(name, (Box.around(ball_mask(ball, grid())),)) for name, ball in (("3", one), ("4", other))]
    followed = follow(case, segmenter, verified={"visit1": boxes})
    assert events(followed, 1) == [("3", "same", "3"), ("4", "same", "4")]
    assert {link.decided_by for link in followed.links} == {"reader"}
