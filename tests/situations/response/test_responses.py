"""The numbered stories of recist.md, irecist.md and others.md, read from these pages."""

from __future__ import annotations

import datetime
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lesionlocator.criteria import (
    About,
    Course,
    RecistRules,
    Role,
    Seen,
    State,
    Visit,
    assess_irecist,
    assess_percist,
    assess_recist,
    assess_volumes,
)

HERE = Path(__file__).parent
WORDS = {
    "complete": "CR",
    "partial": "PR",
    "stable": "SD",
    "progression": "PD",
    "neither": "Non-CR/Non-PD",
    "unevaluable": "NE",
    "free": "ND",
}
IWORDS = {word: code if code == "NE" else f"i{code}" for word, code in WORDS.items()} | {
    "unconfirmed": "iUPD",
    "confirmed": "iCPD",
}
PET_WORDS = {"complete": "CMR", "partial": "PMR", "stable": "SMD", "progression": "PMD", "unevaluable": "NE"}


def rows_of(page, heading=""):
    text = (HERE / page).read_text(encoding="utf-8")
    text = text[text.index(heading) :] if heading else text
    text = text.split("\n## ")[0] if not heading else text.split("\n## ")[0 if text.startswith("## ") else 1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [pytest.param(*row[2:], id=f"{row[0]} {row[1]}") for row in rows if row[0].isdigit()]


def course_from(lesions, also, quantity="mm"):
    read = [lesion(text) for text in lesions.split(";")]
    count = len(read[0][1])
    visits = [Visit(f"v{index}") for index in range(count)]
    about = {one.lesion_id: one for one, _ in read}
    for said in filter(None, (part.strip() for part in also.split(";"))):
        add(said, visits, about)
    scale = 10.0 if "cm" in also.split("; ") else 1.0
    seen = [
        seen_as(one.lesion_id, visit.name, value, quantity, scale)
        for one, values in read
        for visit, value in zip(visits, values, strict=True)
        if value != "."
    ]
    return Course(tuple(visits), tuple(seen), tuple(about.values()))


def lesion(text):
    name, values = text.split(":")
    lesion_id, *words = name.split()
    organ = next((word for word in words if word.isalpha() and word not in ("unmeasurable", "target", "watched")), "")
    role = Role.TARGET if "target" in words else Role.NON_TARGET if "watched" in words else None
    parent = next((word.removeprefix("part-of-") for word in words if word.startswith("part-of-")), "")
    unmeasurable = "a reader's word" * ("unmeasurable" in words)
    is_node = organ == "node"
    about = About(lesion_id, "" if is_node else organ, is_node, role, unmeasurable, fragment_of=parent)
    return about, [value.strip() for value in values.split(",")]


def add(said, visits, about):
    what, _, at = said.partition("@")
    index = int(at) if at else 0
    if what.startswith("days"):
        days = [int(day) for day in re.findall(r"\d+", what)]
        start = datetime.date(2026, 1, 1)
        visits[:] = [replace(v, date=start + datetime.timedelta(d)) for v, d in zip(visits, days, strict=True)]
    elif what.startswith("slices"):
        visits[:] = [replace(v, slice_mm=float(what.split()[1])) for v in visits]
    elif what.startswith("liver"):
        mean, sd = (float(word) for word in what.split()[1:])
        visits[index] = replace(visits[index], liver_mean=mean, liver_sd=sd)
    elif what.endswith("doubtful"):
        name = what.split()[0]
        about[name] = replace(about[name], doubtful_at=(visits[index].name,))
    elif what not in ("cm", "confirm"):
        known = {
            "progression": {"non_target_progression": "much larger"},
            "new disease": {"new_disease": "on a bone scan"},
            "missed": {"missed": True},
            "markers raised": {"markers": "raised"},
        }
        visits[index] = replace(visits[index], **known[what])


def seen_as(lesion_id, visit, value, quantity, scale):
    states = {"-": State.ABSENT, "?": State.NOT_EVALUABLE, "s": State.TOO_SMALL}
    if value in states:
        return Seen(visit, lesion_id, states[value], reason="blurred" * (value == "?"))
    if value.startswith(">"):
        return Seen(visit, lesion_id, State.MERGED, into=value[1:])
    number = float(value) * scale
    if quantity == "mm":
        return Seen(visit, lesion_id, long_mm=number, short_mm=number, volume_ml=number**3 / 1910)
    return Seen(visit, lesion_id, long_mm=20.0, short_mm=20.0, **{quantity: number})


def expected(answer, words):
    each, best = answer.split("; best ")
    return [words[word.strip()] for word in each.split(",")], words[best]


def told(assessment):
    return [one.category for one in assessment.responses[1:]], assessment.best


@pytest.mark.parametrize(("lesions", "also", "answer"), rows_of("recist.md"))
def test_recist(lesions, also, answer):
    course = course_from(lesions, also)
    assessment = assess_recist(course, RecistRules(confirm="confirm" in also))
    assert told(assessment) == expected(answer, WORDS)
    assert all(one.reasons for one in assessment.responses) and assessment.best_reason


@pytest.mark.parametrize(("lesions", "also", "answer"), rows_of("irecist.md"))
def test_irecist(lesions, also, answer):
    count = len(lesions.split(";")[0].split(","))
    also = (
        also if "days" in also else f"{also}; days {', '.join(str(42 * index) for index in range(count))}".lstrip("; ")
    )
    assessment = assess_irecist(course_from(lesions, also))
    assert told(assessment) == expected(answer, IWORDS)
    assert all(one.reasons for one in assessment.responses)


@pytest.mark.parametrize(("lesions", "also", "answer"), rows_of("others.md", "## PERCIST"))
def test_percist(lesions, also, answer):
    course = course_from(lesions, also, "peak")
    visits = tuple(v if v.liver_mean is not None else replace(v, liver_mean=2.0, liver_sd=0.2) for v in course.visits)
    assert told(assess_percist(replace(course, visits=visits))) == expected(answer, PET_WORDS)


@pytest.mark.parametrize(("lesions", "also", "answer"), rows_of("others.md", "## Volume"))
def test_volume(lesions, also, answer):
    assert told(assess_volumes(course_from(lesions, also, "volume_ml"))) == expected(answer, WORDS)


def test_there_are_at_least_sixty_situations():
    count = len(rows_of("recist.md")) + len(rows_of("irecist.md")) + len(rows_of("others.md", "## PERCIST"))
    assert count + len(rows_of("others.md", "## Volume")) >= 60
