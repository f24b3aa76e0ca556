"""Response criteria: what holds for every course, and how rows of a run become one."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionlocator.case import Status
from lesionlocator.criteria import (
    CATEGORIES,
    CRITERIA,
    About,
    Course,
    Role,
    Seen,
    State,
    Visit,
    assess,
    assess_recist,
    choose,
    course_of,
)
from lesionlocator.errors import Refused
from lesionlocator.measure import Row

RANK = {"CR": 0, "PR": 1, "Non-CR/Non-PD": 2, "SD": 2, "ND": 2, "UPD": 3.5, "CPD": 4, "NE": 3, "PD": 4}
ORGANS = st.sampled_from(["lung", "liver", "bone", ""])
DIAMETERS = st.floats(0.5, 120.0).map(lambda value: round(value, 1))


LOOKS = st.one_of(DIAMETERS, DIAMETERS, DIAMETERS, st.sampled_from(["-", "s", "?"]))
STATES = {"-": State.ABSENT, "s": State.TOO_SMALL, "?": State.NOT_EVALUABLE}
RARELY = st.sampled_from([True, *[False] * 9])


def plans(most_visits=5):
    """For each visit: missed, watched lesions progressed; for each lesion: organ, node or not, a look at each visit."""

    def with_lesions(visits):
        lesion = st.tuples(ORGANS, st.booleans(), st.lists(LOOKS, min_size=len(visits), max_size=len(visits)))
        return st.tuples(st.just(visits), st.lists(lesion, min_size=1, max_size=5))

    return st.lists(st.tuples(RARELY, RARELY), min_size=2, max_size=most_visits).flatmap(with_lesions)


def built(plan):
    """The course of a plan (not made in a strategy, where the type checks' draws are not welcome)."""
    visits = tuple(
        Visit(
            f"v{index}",
            datetime.date(2026, 1, 1) + datetime.timedelta(days=45 * index),
            missed=index > 0 and missed,
            non_target_progression="larger" * (index > 0 and worse),
            liver_mean=2.0,
            liver_sd=0.1,
        )
        for index, (missed, worse) in enumerate(plan[0])
    )
    seen = tuple(
        made(visit.name, str(number), STATES.get(look, State.MEASURED), None if look in STATES else look)
        for number, (_, _, looks) in enumerate(plan[1], start=1)
        for visit, look in zip(visits, looks, strict=True)
        if not visit.missed
    )
    about = tuple(About(str(number), organ, is_node) for number, (organ, is_node, _) in enumerate(plan[1], start=1))
    return Course(visits, seen, about)


def made(visit, name, state, value):
    volume = None if value is None else value**3 / 1910
    return Seen(visit, name, state, value, value, volume, peak=value, mean=value)


def rank(category):
    return RANK[category.removeprefix("i") if category.startswith("i") else metabolic(category)]


def metabolic(category):
    return {"CMR": "CR", "PMR": "PR", "SMD": "SD", "PMD": "PD"}.get(category, category)


@pytest.mark.parametrize("name", [name for name in CRITERIA if name != "recist-1.1-confirmed"])
@settings(max_examples=30, deadline=None)
@given(plan=plans(), at=st.integers(1, 4), value=st.floats(10.0, 60.0))
def test_a_new_lesion_never_improves_a_response(name, plan, at, value):
    course = built(plan)
    visit = course.visits[min(at, len(course.visits) - 1)]
    if visit.missed:
        return
    later = [v for v in course.visits[course.order[visit.name] :] if not v.missed]
    new = tuple(made(v.name, "99", State.MEASURED, value) for v in later)
    try:
        before = assess(course, name)
    except Refused:
        return
    after = assess(replace(course, seen=(*course.seen, *new)), name)
    for one, other in zip(before.responses[1:], after.responses[1:], strict=True):
        assert rank(other.category) >= rank(one.category)
    assert rank(after.best) >= rank(before.best)


@pytest.mark.parametrize("name", CRITERIA)
@settings(max_examples=25, deadline=None)
@given(plan=plans(), random=st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(name, plan, random):
    course = built(plan)
    seen, about = list(course.seen), list(course.about)
    random.shuffle(seen)
    random.shuffle(about)
    try:
        said = assess(course, name)
    except Refused:
        return
    assert assess(replace(course, seen=tuple(seen), about=tuple(about)), name) == said


@settings(max_examples=60, deadline=None)
@given(plan=plans())
def test_every_category_has_a_meaning_and_comes_with_its_rule(plan):
    course = built(plan)
    for name in CRITERIA:
        try:
            said = assess(course, name)
        except Refused:
            continue
        assert {one.category for one in said.responses} <= set(CATEGORIES) | {"iNon-CR/Non-PD", "iND"}
        assert all(one.reasons and all(one.reasons) for one in said.responses)
        assert said.responses[0].category == "baseline" and len(said.responses) == len(course.visits)


@settings(max_examples=60, deadline=None)
@given(plan=plans(), factor=st.floats(1.0, 2.0))
def test_larger_lesions_never_improve_the_last_visit(plan, factor):
    course = built(plan)
    last = course.visits[-1].name
    grown = tuple(
        made(one.visit, one.lesion_id, one.state, one.long_mm * factor)
        if one.visit == last and one.long_mm is not None
        else one
        for one in course.seen
    )
    before, after = assess_recist(course), assess_recist(replace(course, seen=grown))
    assert rank(after.responses[-1].category) >= rank(before.responses[-1].category)


@settings(max_examples=60, deadline=None)
@given(plan=plans())
def test_at_most_five_targets_and_two_an_organ_are_proposed_and_each_is_measurable(plan):
    course = built(plan)
    targets = [one for one in choose(course) if one.role is Role.TARGET]
    assert len(targets) <= 5 and all(one.proposed for one in targets)
    for organ in {one.organ for one in targets if one.organ and not one.is_node}:
        assert sum(one.organ == organ and not one.is_node for one in targets) <= 2
    assert sum(one.is_node for one in targets) <= 2
    for one in targets:
        assert course.at("v0", one.lesion_id).long_mm >= (15.0 if one.is_node else 10.0)


# ------------------------------------------------------------------------------------------------------ rows of a run


def outlined(scan, lesion_id, long_mm):
    return Row(scan, lesion_id, Status.OUTLINED, long_axis_mm=long_mm, short_axis_mm=long_mm, volume_ml=1.0, unit="HU")


def link(before, to_scan, after, event):
    return {"lesion_id": before, "to_scan": to_scan, "to_lesion_id": after, "event": event}


def test_rows_and_links_of_a_run_become_a_course():
    rows = [
        *(outlined("march", name, 20.0) for name in "1234"),
        outlined("june", "1", 45.0),
        Row("june", "2", Status.ABSENT, "merged into lesion 1"),
        outlined("june", "3", 12.0),
        outlined("june", "5", 9.0),
        Row("june", "4", Status.OUTSIDE, "12 % of it would lie inside the scan"),
    ]
    links = [link("1", "june", "1", "merged"), link("2", "june", "1", "merged")]
    links += [link("3", "june", "3", "split"), link("3", "june", "5", "split")]
    course = course_of(rows, links, about=[About("3", "liver")])
    assert course.at("june", "2").state is State.MERGED and course.at("june", "2").into == "1"
    assert course.of("5").fragment_of == "3" and course.of("5").organ == "liver"
    assert course.at("june", "4").state is State.NOT_EVALUABLE and "outside" in course.at("june", "4").reason
    june = assess_recist(course).at("june")
    words = {share.lesion_id: (share.value, share.words) for share in june.shares}
    assert words["1"] == (45.0, "long axis 45.0 mm") and words["2"] == (0.0, "measured together with lesion 1")
    assert words["3"][0] == 21.0 and words["4"][0] is None
    assert june.category == "PD" or "4" in june.reasons[0]


def test_a_lesion_that_a_reader_saw_vanish_stays_gone_when_nobody_writes_it_down_again():
    rows = [outlined("march", "1", 20.0), Row("june", "1", Status.ABSENT, "not among the lesions that a reader placed")]
    visits = [Visit("march"), Visit("june"), Visit("october"), Visit("december", missed=True)]
    said = assess_recist(course_of(rows, visits=visits))
    assert [one.category for one in said.responses[1:]] == ["CR", "CR", "NE"]


def test_a_lesion_first_found_in_a_part_of_the_body_that_the_baseline_did_not_show_is_new():
    rows = [outlined("march", "1", 20.0), Row("march", "2", Status.OUTSIDE, "the prompt lies outside the scan")]
    rows += [outlined("june", "1", 20.0), outlined("june", "2", 20.0)]
    june = assess_recist(course_of(rows)).at("june")
    assert june.category == "PD" and june.new_lesions == ("2",)


def test_a_choice_of_a_reader_holds_and_is_not_called_a_proposal():
    course = course_of(
        [outlined("march", "1", 40.0), outlined("march", "2", 20.0), outlined("june", "1", 40.0)]
        + [outlined("june", "2", 40.0)],
        about=[About("1", "lung", role=Role.NON_TARGET), About("2", "lung", role=Role.TARGET)],
    )
    said = assess_recist(course)
    assert [(one.lesion_id, one.role, one.proposed) for one in said.chosen] == [
        ("1", Role.NON_TARGET, False),
        ("2", Role.TARGET, False),
    ]
    assert said.at("june").category == "PD" and not any("proposed" in note for note in said.notes)


def test_proposed_targets_are_marked_and_an_unknown_organ_is_said():
    rows = [outlined(scan, str(name), 20.0 + name) for scan in ("march", "june") for name in range(1, 5)]
    said = assess_recist(course_of(rows))
    assert "targets were proposed by rule, not chosen by a reader" in said.notes
    assert any("nobody said in which organ" in note for note in said.notes)


def test_a_growth_of_watched_lesions_is_a_question_to_a_reader_and_no_verdict():
    rows = [outlined("march", "1", 40.0), outlined("june", "1", 40.0)]
    rows += [replace(outlined("march", "2", 8.0), volume_ml=1.0), replace(outlined("june", "2", 20.0), volume_ml=5.0)]
    june = assess_recist(course_of(rows)).at("june")
    assert june.category == "SD" and any("a reader should say" in note for note in june.notes)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Course((), ()), "no visit"),
        (lambda: Course((Visit("a"), Visit("a")), ()), "twice"),
        (lambda: Course((Visit("a"),), (Seen("b", "1"),)), "lesions at b"),
        (lambda: Course((Visit("a"),), (Seen("a", "1"), Seen("a", "1"))), "a lesion twice"),
        (
            lambda: Course((Visit("a", datetime.date(2026, 3, 1)), Visit("b", datetime.date(2026, 1, 1))), ()),
            "in the order",
        ),
        (lambda: assess(Course((Visit("a"),), ()), "recist-2"), "the criterion 'recist-2'"),
        (lambda: assess(Course((Visit("a"),), ()), "percist-1.0"), "no peak uptake"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_words(make, said):
    with pytest.raises(Refused, match=said):
        make()
