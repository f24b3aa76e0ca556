"""What a reader adds to a case: organs, nodes, targets, dates, missed visits, and what no outline can say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from lesionlocator.criteria import About, Course, Role, Seen, State, Visit, course_of
from lesionlocator.errors import Refused
from lesionlocator.formats.json_text import as_id, as_list, as_number, as_object, as_text, load_object, only_keys
from lesionlocator.report.finished import FinishedCase, as_date

_KEYS = ("version", "patient", "reader", "length_unit", "visits", "lesions", "measurements")
_VISIT = ("name", "date", "missed", "non_target_progression", "new_disease", "markers", "liver", "uptake_unit")
_LESION = ("id", "organ", "node", "role", "unmeasurable", "doubtful_at")
_MEASUREMENT = ("visit", "id", "state", "long", "short", "peak")
_UNITS = {"mm": 1.0, "cm": 10.0}
_STATES = {
    "measured": State.MEASURED,
    "gone": State.ABSENT,
    "too small": State.TOO_SMALL,
    "not evaluable": State.NOT_EVALUABLE,
}
_ROLES = {"target": Role.TARGET, "non-target": Role.NON_TARGET, "new": Role.NEW, "none": Role.NONE}


@dataclass(frozen=True)
class ReaderNotes:
    """What a reader wrote down. Measurements go before those of the outlines."""

    patient: str = ""
    reader: str = ""
    visits: tuple[Visit, ...] = ()
    about: tuple[About, ...] = ()
    measured: tuple[Seen, ...] = ()


def read_notes(path: Path) -> ReaderNotes:
    """A reader's file, version 1 (docs/report.md).

    Raises:
        Refused: It says something that is not known, or not in the way that it has to be said.
    """
    content = load_object(path)
    only_keys(content, _KEYS, path.name)
    if content.get("version") != 1:
        raise Refused(found=f"{path} of version {content.get('version')!r}", needed='"version": 1', do="write that")
    unit = _one_of(content.get("length_unit", "mm"), _UNITS, "length_unit")
    visits = tuple(_visit(as_object(one, "visits")) for one in as_list(content.get("visits", []), "visits"))
    about = tuple(_about(as_object(one, "lesions")) for one in as_list(content.get("lesions", []), "lesions"))
    rows = as_list(content.get("measurements", []), "measurements")
    measured = tuple(_measured(as_object(one, "measurements"), unit) for one in rows)
    return ReaderNotes(_text(content, "patient"), _text(content, "reader"), visits, about, measured)


def course_for(case: FinishedCase, notes: ReaderNotes, dates: dict[str, date], peaks: Sequence[Seen] = ()) -> Course:
    """The course of a case: its rows and links, with what the reader says of visits and lesions.

    A visit that has no scan is a missed one; to have a place in time, it needs all visits to be listed.
    """
    said = {visit.name: visit for visit in notes.visits}
    order = [visit.name for visit in notes.visits] if set(case.scans) <= set(said) else list(case.scans)
    if unknown := [name for name in said if name not in order]:
        raise Refused(
            found=f"the visits {', '.join(unknown)} in the reader's file, of which {case.name} has no scan",
            needed=f"its scans ({', '.join(case.scans)}), and visits without a scan only where all are listed in order",
            do="correct the names, or list every visit, oldest first",
        )
    visits: list[Visit] = []
    for name in order:
        visit = said.get(name, Visit(name))
        known = replace(visit, date=visit.date or dates.get(name), slice_mm=case.slice_mm(name))
        visits.append(known if name in case.scans else replace(known, missed=True))
    course = course_of(case.rows, case.links, visits=visits, about=notes.about)
    return _with_measured(_with_peaks(course, peaks), notes.measured)


def _with_peaks(course: Course, peaks: Sequence[Seen]) -> Course:
    found = {(one.visit, one.lesion_id): one.peak for one in peaks}
    seen = tuple(replace(one, peak=found.get((one.visit, one.lesion_id), one.peak)) for one in course.seen)
    return replace(course, seen=seen)


def _with_measured(course: Course, measured: Sequence[Seen]) -> Course:
    if not measured:
        return course
    names = {visit.name for visit in course.visits}
    if unknown := sorted({one.visit for one in measured} - names):
        raise Refused(
            found=f"measurements at {', '.join(unknown)}", needed="visits of this case", do="correct the names"
        )
    before = {(one.visit, one.lesion_id): one for one in course.seen}
    for one in measured:
        old = before.get((one.visit, one.lesion_id))
        keeps = old if old is not None and one.state is State.MEASURED else Seen(one.visit, one.lesion_id)
        before[one.visit, one.lesion_id] = replace(
            one,
            long_mm=one.long_mm if one.long_mm is not None else keeps.long_mm,
            short_mm=one.short_mm if one.short_mm is not None else keeps.short_mm,
            volume_ml=keeps.volume_ml,
            peak=one.peak if one.peak is not None else keeps.peak,
            mean=keeps.mean,
        )
    ids = ", ".join(sorted({one.lesion_id for one in measured}))
    note = f"a reader's own measurements are used for lesion {ids} at the visits named in the reader's file"
    return replace(course, seen=tuple(before.values()), notes=(*course.notes, note))


def _visit(value: dict[str, Any]) -> Visit:
    only_keys(value, _VISIT, "visits")
    name = as_text(value.get("name"), "visits: name")
    liver = as_object(value.get("liver", {}), f"{name}: liver")
    only_keys(liver, ("mean", "sd"), f"{name}: liver")
    return Visit(
        name=name,
        date=as_date(as_text(value["date"], name), f"{name}: date") if value.get("date") else None,
        missed=_yes(value, "missed"),
        non_target_progression=_text(value, "non_target_progression"),
        new_disease=_text(value, "new_disease"),
        markers=_one_of(value.get("markers", ""), {"": "", "normal": "normal", "raised": "raised"}, "markers"),
        liver_mean=as_number(liver["mean"], f"{name}: liver mean") if "mean" in liver else None,
        liver_sd=as_number(liver["sd"], f"{name}: liver sd") if "sd" in liver else None,
        uptake_unit=_text(value, "uptake_unit"),
    )


def _about(value: dict[str, Any]) -> About:
    only_keys(value, _LESION, "lesions")
    doubtful = as_list(value.get("doubtful_at", []), "doubtful_at")
    return About(
        lesion_id=as_id(value.get("id"), "lesions: id"),
        organ=_text(value, "organ"),
        is_node=_yes(value, "node"),
        role=_one_of(value["role"], _ROLES, "role") if "role" in value else None,
        unmeasurable=_text(value, "unmeasurable"),
        doubtful_at=tuple(as_text(one, "doubtful_at") for one in doubtful),
    )


def _measured(value: dict[str, Any], unit: float) -> Seen:
    only_keys(value, _MEASUREMENT, "measurements")
    lesion_id = as_id(value.get("id"), "measurements: id")
    numbers = {
        name: as_number(value[name], f"{lesion_id}: {name}") for name in ("long", "short", "peak") if name in value
    }
    if any(number < 0 for number in numbers.values()):
        raise Refused(found=f"lesion {lesion_id}: {numbers}", needed="lengths of 0 and above", do="correct the file")
    return Seen(
        visit=as_text(value.get("visit"), "measurements: visit"),
        lesion_id=lesion_id,
        state=_one_of(value.get("state", "measured"), _STATES, "state"),
        long_mm=numbers["long"] * unit if "long" in numbers else None,
        short_mm=numbers["short"] * unit if "short" in numbers else None,
        peak=numbers.get("peak"),
        reason="a reader's own measurement",
    )


def _text(value: dict[str, Any], name: str) -> str:
    return as_text(value.get(name, ""), name)


def _yes(value: dict[str, Any], name: str) -> bool:
    found = value.get(name, False)
    if not isinstance(found, bool):
        raise Refused(found=f"{name}: {found!r}", needed="true or false", do="correct the file")
    return found


def _one_of(value: Any, known: dict[str, Any], where: str) -> Any:
    if not isinstance(value, str) or value not in known:
        names = ", ".join(name or "nothing" for name in known)
        raise Refused(found=f"{where}: {value!r}", needed=f"one of {names}", do="correct the file")
    return known[value]
