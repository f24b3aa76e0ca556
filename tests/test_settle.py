"""Places of all lesions decided together: common shifts, neighbours, claims; and what two outlines share."""

import numpy as np
import pytest

from lesionlocator.case import Case, Event, Status
from lesionlocator.follow.locate import locate, locate_all
from lesionlocator.follow.scene import Scene, seek
from lesionlocator.follow.settle import settle
from lesionlocator.geometry import AffineMap, Alignment
from lesionlocator.parts import components, share_out
from lesionlocator.segment import load_segmenter
from lesionlocator.track import Following, track_case
from lesionlocator.volume import Mask
from visits import Ball, ball_mask, grid, scan, story, visit

ROW = [Ball(-30, 0, 0, 6), Ball(-14, 0, 0, 6), Ball(2, 0, 0, 6), Ball(20, -10, 10, 5)]
STILL = Alignment.from_affine(AffineMap.identity())


def wrong_by(x: float, y: float = 0.0, z: float = 0.0) -> Alignment:
    """An alignment that does not know that the patient moved by so much."""
    return Alignment.from_affine(AffineMap.shift(-np.array([x, y, z])))


def scene(first: list[Ball], later: list[Ball], alignment: Alignment = STILL) -> Scene:
    masks = [ball_mask(ball, grid()) for ball in first]
    return Scene(scan(first, grid(), 0), scan(later, grid(), 1), alignment, masks)


def places(sightings) -> list[float]:
    """Where the largest part of each lies, along x."""
    return [float(sighting.parts[0].centroid_mm[0]) for sighting in sightings]


@pytest.mark.parametrize("off_mm", [6.0, 9.0, 12.0])
def test_neighbours_that_are_all_carried_too_far_move_back_together(off_mm):
    settled = settle(seek(scene(ROW, ROW, wrong_by(off_mm))))
    for one in settled:
        assert one.shift_mm == pytest.approx([off_mm, 0, 0], abs=1.0)
        assert one.claim is not None and one.apart_mm < 1.5 and one.sureness > 0.5
    assert places(locate(scene(ROW, ROW, wrong_by(off_mm)))) == pytest.approx([ball.x for ball in ROW], abs=1.0)


def test_a_right_alignment_is_left_alone_though_lesions_grow_and_shrink():
    later = [ball.scaled(factor) for ball, factor in zip(ROW, (2.0, 0.4, 1.5, 0.7), strict=True)]
    assert all(not one.shift_mm.any() for one in settle(seek(scene(ROW, later))))


def test_two_lesions_never_claim_one_place():
    gone = ROW[1]
    settled = settle(seek(scene(ROW, [ball for ball in ROW if ball is not gone])))
    claims = [one.claim.centre_mm[0] for one in settled if one.claim is not None]
    assert len(claims) == 3 and len({round(x) for x in claims}) == 3
    assert settled[1].claim is None


def test_a_lesion_alone_that_was_carried_beside_itself_is_found_there():
    one = Ball(-20, 0, 5, 5)
    (sighting,) = locate(scene([one], [one], wrong_by(10.0)))
    assert places([sighting]) == pytest.approx([one.x], abs=1.0)
    assert sighting.strayed_mm == pytest.approx(10.0, abs=1.0)


def test_a_lesion_that_is_gone_does_not_take_what_was_beside_it_before():
    one, other = Ball(-20, 0, 5, 5), Ball(-6, 0, 5, 5)
    first = scan([one, other], grid(), 0)
    (sighting,) = locate(Scene(first, scan([other], grid(), 1), STILL, [ball_mask(one, grid())]))
    assert sighting.decisive and sighting.parts == ()


def test_lesions_last_seen_at_different_visits_are_judged_together():
    first, second = ROW[0], ROW[1]
    after = scan([second], grid(), 2)
    early = Scene(scan([first, second], grid(), 0), after, STILL, [ball_mask(first, grid())])
    late = Scene(scan([second], grid(), 1), after, STILL, [ball_mask(second, grid())])
    (gone,), (there,) = locate_all([early, late])
    assert gone.parts == () and len(there.parts) == 1


def test_what_two_outlines_share_goes_to_the_lesion_whose_place_is_nearer():
    one, other = ball_mask(Ball(-8, 0, 0, 7), grid()), ball_mask(Ball(8, 0, 0, 7), grid())
    both = Mask.from_array(one.on(grid()) | other.on(grid()), grid())
    first, second = share_out([both, both], [one, other], [0, 1])
    assert (first.voxels, second.voxels) == (one.voxels, other.voxels)
    assert first.overlap(one) == one.voxels and second.overlap(other) == other.voxels


def test_outlines_that_only_touch_are_left_as_they_are():
    one, other = ball_mask(Ball(-6, 0, 0, 7), grid()), ball_mask(Ball(6, 0, 0, 7), grid())
    assert share_out([one, other], [one, other], [0, 1]) == [one, other]


def test_the_parts_of_a_mask_are_counted_largest_first():
    small, large = ball_mask(Ball(-20, 0, 0, 4), grid()), ball_mask(Ball(10, 0, 0, 8), grid())
    both = Mask.from_array(small.on(grid()) | large.on(grid()), grid())
    assert [part.voxels for part in components(both)] == [large.voxels, small.voxels]


def test_every_link_and_ending_says_how_sure_it_is_and_a_gone_lesion_where_it_was_looked_for():
    segmenter = load_segmenter("intensity")
    case = story({"1": ROW[0], "2": ROW[3]}, visit(1, [ROW[0]]), masks=True)
    followed: Case = track_case(case, segmenter, settings=Following("header"))
    by_event = {happening.event: happening.link for happening in followed.events()}
    for event in (Event.SAME, Event.VANISHED):
        link = by_event[event]
        assert link is not None and link.confidence is not None and 0.5 < link.confidence <= 1.0
    gone = followed.timepoints[1].lesion("2")
    assert gone is not None and gone.status is Status.ABSENT
    (click,) = gone.prompts
    assert np.linalg.norm(click.points_mm[0] - [ROW[3].x, ROW[3].y, ROW[3].z]) < 3.0


def test_a_lesion_that_was_gone_for_two_visits_is_linked_to_where_it_was_last_seen():
    segmenter = load_segmenter("intensity")
    later = [visit(1, [ROW[0]]), visit(2, [ROW[0]]), visit(3, [ROW[0], ROW[3]])]
    followed = track_case(
        story({"1": ROW[0], "2": ROW[3]}, *later, masks=True), segmenter, settings=Following("header")
    )
    (back,) = [link for link in followed.links if link.after == (3, "2")]
    assert back.before == (0, "2")
    endings = [link for link in followed.links if link.before == (0, "2") and not isinstance(link.after, tuple)]
    assert [link.to for link in endings] == [1]
