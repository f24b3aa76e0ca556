import numpy as np
import pytest

from lesionlocator.case import Case, Ending, Event, Lesion, Link, Status, Timepoint
from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask

GRID = Geometry((3, 3, 3), np.eye(4))
MASK = Mask.from_array(np.ones((3, 3, 3), bool), GRID)


def no_voxels():
    raise AssertionError("nobody asked for voxels")


def visit(name: str, *ids: str) -> Timepoint:
    lesions = tuple(Lesion(lesion_id, (), MASK, Status.OUTLINED) for lesion_id in ids)
    return Timepoint(name, GRID, no_voxels, lesions)


def told(case: Case) -> list[tuple[str, str, str | None]]:
    return [(happening.lesion_id, happening.event.value, happening.to_lesion_id) for happening in case.events()]


def test_one_link_in_and_one_out_is_the_same_lesion():
    case = Case((visit("a", "2"), visit("b", "2")), (Link((0, "2"), 1, (1, "2")),))
    assert told(case) == [("2", "same", "2")]


def test_two_links_into_one_lesion_are_a_merge():
    links = (Link((0, "2"), 1, (1, "2")), Link((0, "5"), 1, (1, "2")))
    assert told(Case((visit("a", "2", "5"), visit("b", "2")), links)) == [("2", "merged", "2"), ("5", "merged", "2")]


def test_two_links_out_of_one_lesion_into_one_scan_are_a_split():
    links = (Link((0, "9"), 1, (1, "9")), Link((0, "9"), 1, (1, "10")))
    assert told(Case((visit("a", "9"), visit("b", "9", "10")), links)) == [("9", "split", "9"), ("9", "split", "10")]


def test_links_into_different_scans_are_no_split():
    links = (Link((0, "9"), 1, Ending.VANISHED), Link((0, "9"), 2, (2, "9")))
    case = Case((visit("a", "9"), visit("b"), visit("c", "9")), links)
    assert told(case) == [("9", "vanished", None), ("9", "same", "9")]


@pytest.mark.parametrize("ending", list(Ending))
def test_an_ending_says_its_own_name_and_reason(ending):
    case = Case((visit("a", "1"), visit("b")), (Link((0, "1"), 1, ending, "because"),))
    (happening,) = case.events()
    assert (happening.event.value, happening.to_lesion_id, happening.link.reason) == (ending.value, None, "because")


def test_a_lesion_that_no_link_reaches_is_new_after_the_first_scan_only():
    case = Case((visit("a", "1"), visit("b", "1", "4")), (Link((0, "1"), 1, (1, "1")),))
    assert told(case) == [("1", "same", "1"), ("4", "new", "4")]


def test_a_lesion_that_no_link_leaves_has_not_been_read_yet():
    assert told(Case((visit("a", "1"), visit("b")))) == []


def test_merging_and_splitting_branches_are_one_track():
    links = (
        Link((0, "1"), 1, (1, "1")),
        Link((0, "2"), 1, (1, "1")),
        Link((1, "1"), 2, (2, "1")),
        Link((1, "1"), 2, (2, "4")),
    )
    case = Case((visit("a", "1", "2", "3"), visit("b", "1"), visit("c", "1", "4")), links)
    assert case.tracks() == (((0, "1"), (0, "2"), (1, "1"), (2, "1"), (2, "4")), ((0, "3"),))


def test_events_come_in_order_of_time():
    links = (Link((1, "1"), 2, Ending.OUTSIDE), Link((0, "1"), 1, (1, "1")))
    case = Case((visit("a", "1"), visit("b", "1"), visit("c")), links)
    assert [happening.event for happening in case.events()] == [Event.SAME, Event.OUTSIDE]


def test_an_id_twice_in_one_scan_is_refused():
    with pytest.raises(Refused, match="'2' twice"):
        visit("a", "2", "2")


def test_a_link_to_nowhere_is_refused():
    with pytest.raises(Refused, match="not there"):
        Case((visit("a", "1"), visit("b")), (Link((0, "1"), 1, (1, "1")),))
