"""Rows for trial readers: CDISC SDTM domains TU (tumours), TR (their sizes) and RS (response), as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from lesionlocator.case import Event, Status
from lesionlocator.criteria import Assessment, Role, assess, course_of
from lesionlocator.criteria import Visit as CourseVisit
from lesionlocator.errors import Refused
from lesionlocator.export.outcome import Outcome, Visit
from lesionlocator.export.sources import Source
from lesionlocator.geometry import Geometry
from lesionlocator.measure import Row, axial_axis
from lesionlocator.report import table

_CRITERION, _CATEGORY = "recist-1.1", "RECIST 1.1"
_METHODS = {"CT": "CT SCAN", "MR": "MRI", "PT": "PET SCAN"}
_ROLES = {Role.TARGET: ("TARGET", "T"), Role.NON_TARGET: ("NON-TARGET", "NT"), Role.NEW: ("NEW", "NEW")}
_HEAD = ("STUDYID", "DOMAIN", "USUBJID")
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "TU": ("SEQ", "LNKID", "TESTCD", "TEST", "ORRES", "STRESC", "METHOD", "EVAL"),
    "TR": (
        *("SEQ", "LNKID", "LNKGRP", "TESTCD", "TEST", "ORRES", "ORRESU", "STRESC", "STRESN", "STRESU", "STAT"),
        *("REASND", "METHOD", "EVAL"),
    ),
    "RS": ("SEQ", "LNKGRP", "TESTCD", "TEST", "CAT", "ORRES", "STRESC", "EVAL"),
}
_MEASURED = (
    ("LDIAM", "Longest Diameter", "long_axis_mm", "mm"),
    ("LPERP", "Longest Perpendicular", "short_axis_mm", "mm"),
    ("VOLUME", "Volume", "volume_ml", "mL"),
)
_STATED = {Status.OUTLINED: "PRESENT", Status.ABSENT: "ABSENT"}


@dataclass(frozen=True)
class Naming:
    """STUDYID and USUBJID of every row."""

    study: str
    subject: str


def trial_tables(
    outcome: Outcome, sources: Mapping[str, Source | Refused], naming: Naming
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The CSV text of each domain by its file's name, and what has to be said.

    Targets are those that the criteria package proposes; a reader may choose others, which these rows do not know.
    """
    dates = {scan: source.series.date for scan, source in sources.items() if isinstance(source, Source)}
    assessment, told = _assessed(outcome, dates)
    links = _link_ids(outcome, assessment)
    trial = _Trial(outcome, dates, assessment, links)
    domains = {"TU": _identified(trial), "TR": _sizes(trial), "RS": _responses(trial)}
    return {domain.lower(): _text(domain, list(rows), naming) for domain, rows in domains.items()}, told


@dataclass(frozen=True, eq=False)
class _Trial:
    outcome: Outcome
    dates: Mapping[str, str | None]
    assessment: Assessment | None
    link_ids: Mapping[str, tuple[str, str]]
    """Lesion id -> what it counts as, and its name in the rows."""

    def at(self, visit: Visit) -> dict[str, Any]:
        return {
            "VISITNUM": visit.order + 1,
            "VISIT": visit.scan,
            "DTC": self.dates.get(visit.scan) or "",
            "METHOD": _METHODS.get(visit.modality, ""),
            "LNKGRP": f"V{visit.order + 1}",
        }


def _assessed(outcome: Outcome, dates: Mapping[str, str | None]) -> tuple[Assessment | None, tuple[str, ...]]:
    visits = [
        CourseVisit(visit.scan, _day(dates.get(visit.scan)), _slice_mm(visit.geometry)) for visit in outcome.visits
    ]
    rows = [row for visit in outcome.visits for row in visit.rows]
    try:
        return assess(course_of(rows, outcome.links, visits=visits), _CRITERION), ()
    except Refused as refused:
        return None, (f"no response could be told: {refused}",)


def _slice_mm(geometry: Geometry | None) -> float | None:
    return None if geometry is None else float(geometry.spacing_mm[axial_axis(geometry)])


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


def _link_ids(outcome: Outcome, assessment: Assessment | None) -> dict[str, tuple[str, str]]:
    """T01, NT01, NEW01 and so on. A lesion that the criteria do not name counts as a target of its own."""
    roles = {one.lesion_id: one.role for one in assessment.chosen} if assessment else {}
    if assessment:
        roles |= {new: Role.NEW for one in assessment.responses for new in one.new_lesions}
    counts: dict[str, int] = {}
    found: dict[str, tuple[str, str]] = {}
    for lesion_id in outcome.lesion_ids:
        said, prefix = _ROLES.get(roles.get(lesion_id, Role.NON_TARGET), _ROLES[Role.NON_TARGET])
        counts[prefix] = counts.get(prefix, 0) + 1
        found[lesion_id] = (said, f"{prefix}{counts[prefix]:02d}")
    return found


def _identified(trial: _Trial) -> Iterator[dict[str, Any]]:
    """Each lesion where it was first seen, and where lesions split or merged."""
    seen: set[str] = set()
    by_scan = {visit.scan: visit for visit in trial.outcome.visits}
    for visit in trial.outcome.visits:
        for row in visit.rows:
            if row.status is Status.OUTLINED and row.lesion_id not in seen:
                seen.add(row.lesion_id)
                yield _tumour(trial, visit, row.lesion_id, ("TUMIDENT", "Tumor Identification"))
    for link in trial.outcome.links:
        visit, into = by_scan.get(link.get("to_scan", "")), link.get("to_lesion_id", "")
        if visit is None or into not in trial.link_ids:
            continue
        if link["event"] == Event.SPLIT:
            yield _tumour(trial, visit, into, ("TUSPLIT", "Tumor Split"))
        elif link["event"] == Event.MERGED:
            yield _tumour(trial, visit, link["lesion_id"], ("TUMERGE", "Tumor Merged"))


def _tumour(trial: _Trial, visit: Visit, lesion_id: str, test: tuple[str, str]) -> dict[str, Any]:
    said, link = trial.link_ids[lesion_id]
    return {**trial.at(visit), "LNKID": link, "TESTCD": test[0], "TEST": test[1], "ORRES": said, "STRESC": said}


def _sizes(trial: _Trial) -> Iterator[dict[str, Any]]:
    for visit in trial.outcome.visits:
        for row in visit.rows:
            at = {**trial.at(visit), "LNKID": trial.link_ids[row.lesion_id][1]}
            yield from ({**at, **cells} for cells in _of_lesion(row))
        answer = trial.assessment.at(visit.scan) if trial.assessment else None
        if answer is not None and answer.sum is not None:
            yield {**trial.at(visit), "LNKID": "", **_number("SUMDIAM", "Sum of Diameter", answer.sum, "mm")}


def _of_lesion(row: Row) -> Iterator[dict[str, Any]]:
    state = _STATED.get(row.status)
    if state is None:
        reason = row.reason or row.status.value
        yield {"TESTCD": "TUMSTATE", "TEST": "Tumor State", "STAT": "NOT DONE", "REASND": reason}
        return
    yield {"TESTCD": "TUMSTATE", "TEST": "Tumor State", "ORRES": state, "STRESC": state}
    for code, name, column, unit in _MEASURED:
        value = 0.0 if row.status is Status.ABSENT else getattr(row, column)
        if value is not None:
            yield _number(code, name, value, unit)


def _number(code: str, name: str, value: float, unit: str) -> dict[str, Any]:
    text = f"{value:.9g}"
    return {
        **{"TESTCD": code, "TEST": name, "ORRES": text, "ORRESU": unit},
        **{"STRESC": text, "STRESN": text, "STRESU": unit},
    }


def _responses(trial: _Trial) -> Iterator[dict[str, Any]]:
    if trial.assessment is None:
        return
    for visit in trial.outcome.visits[1:]:
        answer = trial.assessment.at(visit.scan)
        tests = (
            ("TRGRESP", "Target Response", answer.target),
            ("NTRGRESP", "Non-target Response", answer.non_target),
            ("OVRLRESP", "Overall Response", answer.category),
        )
        for code, name, category in tests:
            if category:
                cells = {"TESTCD": code, "TEST": name, "CAT": _CATEGORY, "ORRES": category, "STRESC": category.upper()}
                yield {**trial.at(visit), **cells}


def _text(domain: str, rows: Sequence[Mapping[str, Any]], naming: Naming) -> str:
    names = _COLUMNS[domain]
    columns = [*_HEAD, *(f"{domain}{name}" for name in names), "VISITNUM", "VISIT", f"{domain}DTC"]
    full = [
        {
            **dict(zip(_HEAD, (naming.study, domain, naming.subject), strict=True)),
            **{f"{domain}{name}": row.get(name, "") for name in names},
            f"{domain}SEQ": number,
            "VISITNUM": row["VISITNUM"],
            "VISIT": row["VISIT"],
            f"{domain}DTC": row["DTC"],
        }
        for number, row in enumerate(rows, start=1)
    ]
    return table(columns, full)
