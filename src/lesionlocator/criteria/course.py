"""A patient's course as response criteria read it: visits, lesions, and what was seen of each lesion at each visit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from functools import cached_property
from typing import Any

from lesionlocator.case import Event, Status
from lesionlocator.errors import Refused
from lesionlocator.measure import Row

UNWRITTEN = "not written down at this visit"


class State(StrEnum):
    """What was seen of a lesion at a visit."""

    MEASURED = "measured"
    ABSENT = "gone"
    TOO_SMALL = "too small to measure"
    NOT_EVALUABLE = "not evaluable"
    MERGED = "merged"


class Role(StrEnum):
    """What a lesion counts as."""

    TARGET = "target"
    NON_TARGET = "non-target"
    NEW = "new"
    NONE = "not counted"


@dataclass(frozen=True)
class Seen:
    """One lesion at one visit. Lengths in mm; `peak` is SULpeak (or SUVpeak), `mean` the mean uptake."""

    visit: str
    lesion_id: str
    state: State = State.MEASURED
    long_mm: float | None = None
    short_mm: float | None = None
    volume_ml: float | None = None
    peak: float | None = None
    mean: float | None = None
    into: str = ""
    """Of a merged lesion: the lesion that it is part of now."""
    reason: str = ""


@dataclass(frozen=True)
class About:
    """What is known of a lesion besides its measurements; all of it may be left out."""

    lesion_id: str
    organ: str = ""
    is_node: bool = False
    role: Role | None = None
    """A reader's choice. None: it is proposed by the rules."""
    unmeasurable: str = ""
    """Why a reader cannot measure it reproducibly: ascites, a blastic bone lesion, irradiated, cystic, ..."""
    doubtful_at: tuple[str, ...] = ()
    """Visits at which a reader is not sure that this new lesion is a tumour."""
    fragment_of: str = ""
    """The lesion that it broke off from."""


@dataclass(frozen=True)
class Visit:
    """One visit, and what a reader adds that no outline says."""

    name: str
    date: date | None = None
    slice_mm: float | None = None
    """Distance of the scan's slices; None counts as 5 mm or less."""
    missed: bool = False
    non_target_progression: str = ""
    """Why a reader calls the non-target lesions unequivocally progressed (iRECIST: or further increased)."""
    new_disease: str = ""
    """New disease that is not outlined, in words."""
    markers: str = ""
    """`normal`, `raised` or nothing: tumour markers, which have to be normal for a complete response."""
    liver_mean: float | None = None
    liver_sd: float | None = None
    uptake_unit: str = ""
    """`SUL` where uptake is normalised to lean body mass."""


@dataclass(frozen=True)
class Course:
    """Visits, oldest first; the first is the baseline. Order of `seen` and `about` does not matter."""

    visits: tuple[Visit, ...]
    seen: tuple[Seen, ...]
    about: tuple[About, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.visits:
            raise Refused(found="no visit", needed="a baseline at least", do="give the visits, oldest first")
        names = [visit.name for visit in self.visits]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        unknown = sorted({one.visit for one in self.seen} - set(names))
        if twice or unknown:
            said = f"the visits {', '.join(twice)} twice" if twice else f"lesions at {', '.join(unknown)}"
            raise Refused(found=said, needed="each visit once, and lesions of these visits", do="check the names")
        if len(self._at) < len(self.seen):
            raise Refused(found="a lesion twice at one visit", needed="one row for each", do="remove the other row")
        days = [visit.date for visit in self.visits if visit.date is not None]
        if days != sorted(days):
            raise Refused(
                found=f"visits in the order {', '.join(str(day) for day in days)}",
                needed="visits oldest first",
                do="sort the visits by date (the first is the baseline)",
            )

    @property
    def baseline(self) -> Visit:
        return self.visits[0]

    @cached_property
    def lesion_ids(self) -> tuple[str, ...]:
        """All lesions, in the order in which a person would count them."""
        return tuple(sorted({one.lesion_id for one in self.seen}, key=_counted))

    @cached_property
    def _ids(self) -> frozenset[str]:
        return frozenset(self.lesion_ids)

    def of(self, lesion_id: str) -> About:
        return self._about.get(lesion_id, About(lesion_id))

    def at(self, visit: str, lesion_id: str) -> Seen:
        """What was seen of a lesion; a lesion that nobody wrote down was not evaluated."""
        found = self._at.get((visit, lesion_id))
        return found or Seen(visit, lesion_id, State.NOT_EVALUABLE, reason=UNWRITTEN)

    def parts(self, lesion_id: str) -> tuple[str, ...]:
        """The lesion and all that broke off from it."""
        return (lesion_id, *(part for child in self._children.get(lesion_id, ()) for part in self.parts(child)))

    def root(self, lesion_id: str) -> str:
        """The lesion that it broke off from, or itself."""
        passed = {lesion_id}
        while (above := self.of(lesion_id).fragment_of) in self._ids and above not in passed:
            passed.add(above)
            lesion_id = above
        return lesion_id

    def first_seen(self, lesion_id: str) -> str | None:
        """The first visit at which it was there (measured, or too small to measure)."""
        return self._first.get(lesion_id)

    def days(self, earlier: str, later: str) -> int | None:
        """Days between two visits; None where a date is not known."""
        one, other = self._dates.get(earlier), self._dates.get(later)
        return None if one is None or other is None else (other - one).days

    @cached_property
    def _at(self) -> dict[tuple[str, str], Seen]:
        return {(one.visit, one.lesion_id): one for one in self.seen}

    @cached_property
    def _about(self) -> dict[str, About]:
        return {one.lesion_id: one for one in self.about}

    @cached_property
    def _children(self) -> dict[str, list[str]]:
        children: dict[str, list[str]] = {}
        for lesion_id in self.lesion_ids:
            if above := self.of(lesion_id).fragment_of:
                children.setdefault(above, []).append(lesion_id)
        return children

    @cached_property
    def order(self) -> dict[str, int]:
        """Visit -> its place in time."""
        return {visit.name: index for index, visit in enumerate(self.visits)}

    @cached_property
    def _first(self) -> dict[str, str]:
        order = self.order
        there = [one for one in self.seen if one.state in (State.MEASURED, State.TOO_SMALL)]
        first: dict[str, str] = {}
        for one in sorted(there, key=lambda one: order[one.visit]):
            first.setdefault(one.lesion_id, one.visit)
        return first

    @cached_property
    def _dates(self) -> dict[str, date | None]:
        return {visit.name: visit.date for visit in self.visits}


def course_of(
    rows: Iterable[Row],
    links: Iterable[Mapping[str, Any]] = (),
    *,
    visits: Sequence[Visit] = (),
    about: Iterable[About] = (),
) -> Course:
    """The course that the rows of `lesions.csv` and of `links.csv` tell.

    A lesion that merged is part of the other from then on. A lesion that a reader saw vanish and that nobody wrote down
    again stays gone. A lesion that is outside the scan or could not be outlined was not evaluable.

    Args:
        rows: Any order.
        links: Any order; without them, a merger cannot be told from a lesion that is gone.
        visits: Oldest first. Default: as the rows name them.
        about: What a reader knows of lesions.
    """
    rows = list(rows)
    visits = tuple(visits) or tuple(Visit(name) for name in dict.fromkeys(row.scan for row in rows))
    links = list(links)
    merged = {
        (link["to_scan"], link["lesion_id"]): str(link["to_lesion_id"])
        for link in links
        if link["event"] == Event.MERGED and link["to_lesion_id"] not in (None, "", link["lesion_id"])
    }
    seen = {(row.scan, row.lesion_id): _seen(row, merged.get((row.scan, row.lesion_id), "")) for row in rows}
    known = {one.lesion_id: one for one in about}
    for link in links:
        child, parent = link["to_lesion_id"], link["lesion_id"]
        if link["event"] == Event.SPLIT and child not in (None, "", parent):
            known[child] = replace(_like(known.get(child), child, known.get(parent)), fragment_of=parent)
    _carry_on(seen, [visit.name for visit in visits if not visit.missed])
    return Course(visits, tuple(seen.values()), tuple(known.values()))


def _like(child: About | None, child_id: str, parent: About | None) -> About:
    if child is not None or parent is None:
        return child or About(child_id)
    return About(child_id, parent.organ, parent.is_node)


def _seen(row: Row, into: str) -> Seen:
    if into and row.status is not Status.OUTLINED:
        return Seen(row.scan, row.lesion_id, State.MERGED, into=into, reason=f"merged into lesion {into}")
    if row.status is Status.ABSENT:
        return Seen(row.scan, row.lesion_id, State.ABSENT, reason=row.reason)
    if row.status is not Status.OUTLINED or row.long_axis_mm is None:
        said = row.reason or "no outline"
        words = f"outside the scan ({said})" if row.status is Status.OUTSIDE else said
        return Seen(row.scan, row.lesion_id, State.NOT_EVALUABLE, reason=words)
    return Seen(
        row.scan,
        row.lesion_id,
        State.MEASURED,
        row.long_axis_mm,
        row.short_axis_mm,
        row.volume_ml,
        mean=row.mean if row.unit.startswith("SU") else None,
    )


def _carry_on(seen: dict[tuple[str, str], Seen], visits: Sequence[str]) -> None:
    """A lesion that is gone or merged and not written down again is still so."""
    for lesion_id in {lesion_id for _, lesion_id in seen}:
        last: Seen | None = None
        for visit in visits:
            found = seen.get((visit, lesion_id))
            if found is None and last is not None and last.state in (State.ABSENT, State.MERGED):
                seen[visit, lesion_id] = found = replace(last, visit=visit)
            last = found or last


def _counted(lesion_id: str) -> tuple[tuple[int, int, str], ...]:
    """Key by which 2 comes before 10."""
    pieces = re.findall(r"\d+|\D+", lesion_id)
    return tuple((0, int(piece), "") if piece.isascii() and piece.isdigit() else (1, 0, piece) for piece in pieces)
