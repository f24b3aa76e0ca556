"""How many checks reach which detection rate."""

import pytest

from lesionlocator.evaluate.checks import Answered, detection_by_checks


def test_checking_the_least_sure_fifth_mends_the_two_that_were_wrong():
    wrong = [Answered(0.1, False, True), Answered(None, False, True)]
    right = [Answered(0.5 + n / 20, True, True) for n in range(8)]
    found = {one.share: one for one in detection_by_checks([*right, *wrong], (0.0, 0.1, 0.2, 1.0))}
    assert [found[share].checks for share in (0.0, 0.1, 0.2, 1.0)] == [0, 1, 2, 10]
    assert [found[share].detection for share in (0.0, 0.1, 0.2, 1.0)] == pytest.approx([0.8, 0.9, 1.0, 1.0])


def test_a_lesion_that_is_gone_costs_a_check_and_detects_nothing():
    answers = [Answered(0.1, False, False, present=False), Answered(0.2, False, True), Answered(0.9, True, True)]
    none, one, two = detection_by_checks(answers, (0.0, 1 / 3, 2 / 3))
    assert (none.detection, one.detection, two.detection) == (0.5, 0.5, 1.0)


def test_what_a_check_cannot_mend_is_not_counted_against_the_confidence():
    answers = [Answered(0.1, False, False), Answered(0.9, True, True)]
    assert detection_by_checks(answers, (0.0,))[0].of_full == 1.0


def test_without_a_lesion_that_is_there_nothing_is_said():
    assert detection_by_checks([Answered(0.5, False, False, present=False)]) == []
