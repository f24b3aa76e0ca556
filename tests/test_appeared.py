"""Candidates for new lesions: proposed where something appeared, and nowhere else."""

import numpy as np
import pytest

from lesionlocator.appeared import as_prompts, find_new
from lesionlocator.geometry import AffineMap, Alignment
from lesionlocator.volume import Volume
from visits import Ball, ball_mask, grid, scan

OLD, NEW = Ball(-30, 0, 10, 8), Ball(25, -15, -20, 6)
STILL = Alignment.from_affine(AffineMap.identity())


def candidates(first, later, known=(), alignment=STILL):
    masks = [ball_mask(ball, grid()) for ball in known]
    return find_new(scan(list(first), grid(), 0), scan(list(later), grid(), 1), alignment, masks)


def test_a_lesion_that_appeared_is_the_best_candidate_at_its_place():
    best, *_ = candidates([OLD], [OLD, NEW], known=[OLD])
    assert np.linalg.norm(best.at_mm - [NEW.x, NEW.y, NEW.z]) < 3.0
    assert best.brighter and best.score > 0.5


def test_nothing_is_proposed_where_nothing_changed():
    assert candidates([OLD], [OLD], known=[OLD]) == []


def test_a_lesion_that_is_followed_or_has_grown_is_not_new():
    grown = OLD.scaled(2.0)
    assert candidates([OLD], [grown], known=[grown]) == []


def test_a_lesion_that_is_gone_is_not_new():
    assert candidates([OLD, NEW], [OLD], known=[OLD]) == []


def test_an_alignment_that_is_three_millimetres_wrong_makes_no_old_lesion_new():
    off = Alignment.from_affine(AffineMap.shift(np.array([3.0, 0.0, 0.0])))
    assert candidates([OLD, NEW], [OLD, NEW], known=[OLD], alignment=off) == []


def test_what_the_earlier_scan_did_not_show_is_not_new():
    short = scan([OLD], grid((-5.0, 75.0)), 0)
    assert find_new(short, scan([OLD, NEW], grid(), 1), STILL, [ball_mask(OLD, grid())]) == []


def test_scans_of_different_kinds_are_not_compared():
    later = scan([OLD, NEW], grid(), 1)
    assert find_new(scan([OLD], grid(), 0), Volume(later.array, grid(), "MR"), STILL, []) == []


def test_a_candidate_is_a_click_with_a_score_and_a_note_that_says_what_it_is():
    (lesion,) = as_prompts(candidates([OLD], [OLD, NEW], known=[OLD])[:1])
    assert lesion.id == "new-1" and "candidate" in lesion.note
    assert lesion.mask is None and lesion.confidence == pytest.approx(0.75, abs=0.25)
