"""What a reader has done with a case so far: outlines, links and decisions, as one value that steps are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from lesionlocator.case import Case, Ending, Lesion, Link, Place, Status
from lesionlocator.errors import Refused
from lesionlocator.prompt import Line

Decision = Literal["accepted", "moved", "rejected"]


@dataclass(frozen=True, eq=False)
class Reading:
    """A case with a reader's decisions about its lesions, and the diameters that were set by hand."""

    title: str
    case: Case
    decisions: Mapping[Place, Decision] = field(default_factory=dict[Place, Decision])
    lines: Mapping[Place, Line] = field(default_factory=dict[Place, Line])

    def lesion(self, place: Place) -> Lesion:
        """The lesion at a place.

        Raises:
            Refused: There is none.
        """
        self.refuse_unknown_scan(place[0])
        found = self.case.at(place)
        if found is None:
            raise Refused(
                found=f"no lesion {place[1]!r} in {self.case.timepoints[place[0]].name}",
                needed="a lesion of this scan",
                do="reload the case: it may have been changed in another window",
            )
        return found

    def refuse_unknown_scan(self, scan: int) -> None:
        """Raises for a scan that the case does not have."""
        if not 0 <= scan < len(self.case.timepoints):
            raise Refused(
                found=f"scan {scan}", needed=f"0 to {len(self.case.timepoints) - 1}", do="choose a scan of the case"
            )

    def with_lesion(self, scan: int, lesion: Lesion) -> Reading:
        """The lesion put in place of the one with its id, or added."""
        self.refuse_unknown_scan(scan)
        lesions = self.case.timepoints[scan].lesions
        known = any(other.id == lesion.id for other in lesions)
        kept = tuple(lesion if other.id == lesion.id else other for other in lesions)
        return self._with_lesions(scan, kept if known else (*kept, lesion))

    def outlined(self, scan: int, lesion: Lesion) -> Reading:
        """A lesion that a reader pointed at, with its new outline.

        In a later scan it is linked to the lesion of this id in the scan before, and counts as moved; one that no
        earlier scan has is new.
        """
        reading = self.with_lesion(scan, replace(lesion, note=lesion.note or self._note((scan, lesion.id))))
        if scan == 0:
            return reading
        before = self._last_before(scan, lesion.id)
        reason = "placed by a reader"
        link = Link(before, scan, (scan, lesion.id), reason, 1.0, "reader")
        kept = tuple(other for other in reading.case.links if not _about(other, scan, lesion.id))
        return reading._linked((*kept, link))._decided((scan, lesion.id), "moved")

    def accepted(self, place: Place) -> Reading:
        """The reader agrees with what was found: an outline, or that the lesion ended before this scan."""
        scan, lesion_id = place
        lesion = self.lesion(place)
        if lesion.mask is None and lesion.status is Status.ABSENT:
            links = [replace(one, decided_by="reader") if _ended(one, place) else one for one in self.case.links]
            return (
                self._linked(tuple(links))
                .with_lesion(scan, replace(lesion, confidence=None))
                ._decided((scan, lesion_id), "accepted")
            )
        self._refuse_without_outline(place)
        return self._decided(place, "accepted")

    def rejected(self, place: Place) -> Reading:
        """The lesion is not there: in a later scan it has vanished; in the first it was none.

        One that an earlier scan has need not have been looked for in this one.
        """
        scan, lesion_id = place
        self.refuse_unknown_scan(scan)
        if scan == 0:
            return self.removed(place)
        before = self._last_before(scan, lesion_id)
        lesion = Lesion(lesion_id) if before is not None and self.case.at(place) is None else self.lesion(place)
        reason = "declared gone by a reader"
        gone = replace(lesion, prompts=(), mask=None, status=Status.ABSENT, reason=reason, confidence=None)
        reading = self.with_lesion(scan, gone)
        kept = tuple(link for link in self.case.links if not _about(link, scan, lesion_id))
        ending = () if before is None else (Link(before, scan, Ending.VANISHED, reason, 1.0, "reader"),)
        return reading._linked((*kept, *ending))._decided(place, "rejected")

    def removed(self, place: Place) -> Reading:
        """The lesion taken out of a scan, and in the first scan out of all: it was never one."""
        self.lesion(place)
        scan, lesion_id = place
        reading = self
        for index in range(len(self.case.timepoints)) if scan == 0 else (scan,):
            kept = tuple(link for link in reading.case.links if (index, lesion_id) not in (link.before, link.after))
            lesions = tuple(one for one in reading.case.timepoints[index].lesions if one.id != lesion_id)
            reading = reading._linked(kept)._with_lesions(index, lesions)._decided((index, lesion_id), None)
        return reading

    def merged(self, scan: int, lesion_id: str, into: str) -> Reading:
        """A lesion of the scan before is now part of another one."""
        target = self.lesion((scan, into))
        before = self._last_before(scan, lesion_id)
        if target.mask is None or before is None or lesion_id == into:
            raise Refused(
                found=f"lesion {lesion_id!r} to be merged into {into!r}",
                needed="an earlier lesion, and another one with an outline in this scan",
                do="outline the merged lesion first",
            )
        reason = f"merged into lesion {into}, says a reader"
        reading = self.with_lesion(scan, Lesion(lesion_id, (), None, Status.ABSENT, reason))
        kept = tuple(link for link in self.case.links if not _about(link, scan, lesion_id))
        link = Link(before, scan, (scan, into), reason, 1.0, "reader")
        return reading._linked((*kept, link))._decided((scan, lesion_id), "moved")

    def split_from(self, place: Place, parent: str) -> Reading:
        """A lesion of this scan is a part of what was another lesion before."""
        scan, lesion_id = place
        self._refuse_without_outline(place)
        before = self._last_before(scan, parent)
        if before is None or parent == lesion_id:
            raise Refused(
                found=f"lesion {lesion_id!r} to be a part of {parent!r}",
                needed="another lesion, with an outline in an earlier scan",
                do="choose the lesion that it came from",
            )
        kept = tuple(link for link in self.case.links if link.after != place)
        link = Link(before, scan, place, f"a part of lesion {parent}, says a reader", 1.0, "reader")
        return self._linked((*kept, link))._decided(place, "accepted")

    def noted(self, place: Place, note: str) -> Reading:
        """A remark beside a lesion."""
        return self.with_lesion(place[0], replace(self.lesion(place), note=note))

    def measured(self, place: Place, line: Line | None) -> Reading:
        """A diameter set by hand; None takes it away."""
        self.lesion(place)
        kept = {other: one for other, one in self.lines.items() if other != place}
        return replace(self, lines=kept if line is None else {**kept, place: line})

    def followed(self, case: Case) -> Reading:
        """The case as it came back from following its lesions; decisions about what is still there are kept."""
        decisions = {place: said for place, said in self.decisions.items() if case.at(place) is not None}
        return replace(self, case=case, decisions=decisions)

    def fresh_id(self) -> str:
        """A number that no lesion of the case has."""
        used = {lesion.id for timepoint in self.case.timepoints for lesion in timepoint.lesions}
        return next(str(number) for number in range(1, len(used) + 2) if str(number) not in used)

    def _note(self, place: Place) -> str:
        found = self.case.at(place)
        return found.note if found else ""

    def _refuse_without_outline(self, place: Place) -> None:
        if self.lesion(place).mask is None:
            raise Refused(found=f"lesion {place[1]!r} without an outline", needed="an outline", do="point at it first")

    def _last_before(self, scan: int, lesion_id: str) -> Place | None:
        places: list[Place] = [(index, lesion_id) for index in reversed(range(scan))]
        found = ((place, self.case.at(place)) for place in places)
        return next((place for place, lesion in found if lesion is not None and lesion.mask is not None), None)

    def _with_lesions(self, scan: int, lesions: tuple[Lesion, ...]) -> Reading:
        timepoints = list(self.case.timepoints)
        timepoints[scan] = timepoints[scan].with_lesions(lesions)
        return replace(self, case=replace(self.case, timepoints=tuple(timepoints)))

    def _linked(self, links: tuple[Link, ...]) -> Reading:
        return replace(self, case=replace(self.case, links=links))

    def _decided(self, place: Place, said: Decision | None) -> Reading:
        kept = {other: one for other, one in self.decisions.items() if other != place}
        return replace(self, decisions=kept if said is None else {**kept, place: said})


def _ended(link: Link, place: Place) -> bool:
    """Whether a link says that the lesion of this name ended before this scan, or in another lesion of it."""
    scan, lesion_id = place
    return link.to == scan and link.before is not None and link.before[1] == lesion_id and link.after != place


def _about(link: Link, scan: int, lesion_id: str) -> bool:
    """Whether a link says what became of a lesion in this scan, or where the one in this scan came from."""
    return link.after == (scan, lesion_id) or (
        link.to == scan and link.before is not None and link.before[1] == lesion_id
    )
