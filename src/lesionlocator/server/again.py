"""Lesions of a reading followed through its later scans, with what a reader has decided left as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lesionlocator.case import Case, Ending, Lesion, Link, Place, Timepoint
from lesionlocator.errors import Refused
from lesionlocator.geometry import Alignment
from lesionlocator.segment import Segmenter
from lesionlocator.server.reading import Reading
from lesionlocator.track import Following, track_case

Say = Callable[[str], None]
AlignScans = Callable[[int, int], Alignment]


@dataclass(frozen=True, eq=False)
class Follower:
    """Follows a reading's lesions, scan after scan.

    Each scan starts from the reading as it stands, so a place that a reader moved is where its lesion is looked for
    next. Places that a reader accepted, moved or rejected stay as they are.
    """

    segmenter: Segmenter
    align: AlignScans

    def follow(self, reading: Reading, say: Say) -> Reading:
        """The reading with every later scan read.

        Raises:
            Refused: There is no later scan, or no outline in the first.
        """
        case = reading.case
        if len(case.timepoints) < 2 or not any(lesion.mask is not None for lesion in case.timepoints[0].lesions):
            raise Refused(
                found=f"{len(case.timepoints)} scans and no outline in the first"
                if len(case.timepoints) > 1
                else "one scan",
                needed="at least two scans, and a lesion that is outlined in the first",
                do="outline a lesion in the first scan, or open a case with a follow-up",
            )
        for index in range(1, len(case.timepoints)):
            reading = self._read(reading, index, say)
        return reading

    def _read(self, reading: Reading, index: int, say: Say) -> Reading:
        decided = {place[1] for place in reading.decisions if place[0] == index}
        lesions = [one for one in reading.case.timepoints[index].lesions if one.id in decided]
        links = [link for link in reading.case.links if link.to == index and _name(link) in decided]
        for source, group in _groups(reading, index, decided).items():
            found, new = self._follow_group(reading, source, index, group=group, say=say)
            lesions.extend(found)
            links.extend(new)
        kept = tuple(link for link in reading.case.links if link.to != index)
        timepoints = list(reading.case.timepoints)
        timepoints[index] = timepoints[index].with_lesions(tuple(lesions))
        return reading.followed(replace(reading.case, timepoints=tuple(timepoints), links=(*kept, *links)))

    def _follow_group(
        self, reading: Reading, source: int, index: int, *, group: tuple[Lesion, ...], say: Say
    ) -> tuple[list[Lesion], list[Link]]:
        """Lesions that were last seen in one scan, followed from there."""
        before = reading.case.timepoints[source].with_lesions(group)
        after: Timepoint = reading.case.timepoints[index].with_lesions(())
        alignment = None if self._brings_its_own() else self.align(source, index)
        settings = Following(None if alignment is None else lambda _baseline, _followup: alignment)
        pair = track_case(Case((before, after)), self.segmenter, settings=settings, say=say)
        names = self._names(reading, [one.id for one in pair.timepoints[1].lesions], {one.id for one in group})
        found = [replace(one, id=names[one.id]) for one in pair.timepoints[1].lesions]
        return found, [_moved(link, source, index, names) for link in pair.links]

    def _brings_its_own(self) -> bool:
        from lesionlocator.segment import Follower as OwnRegistration

        return isinstance(self.segmenter, OwnRegistration)

    @staticmethod
    def _names(reading: Reading, ids: list[str], known: set[str]) -> dict[str, str]:
        """New parts of a split get numbers that are free in the whole case, not only in these two scans."""
        used = {lesion.id for timepoint in reading.case.timepoints for lesion in timepoint.lesions} | known
        names: dict[str, str] = {}
        for lesion_id in ids:
            if lesion_id in known or lesion_id not in used:
                names[lesion_id] = lesion_id
            else:
                names[lesion_id] = next(str(n) for n in range(1, len(used) + 2) if str(n) not in used)
            used.add(names[lesion_id])
        return names


def _groups(reading: Reading, index: int, decided: set[str]) -> dict[int, tuple[Lesion, ...]]:
    """Scan -> the lesions that were last outlined there and are to be looked for in scan `index`."""
    merged_away = {
        link.before[1]
        for link in reading.case.links
        if link.before is not None and isinstance(link.after, tuple) and link.after[1] != link.before[1]
        and not any(other.after == (link.to, link.before[1]) for other in reading.case.links)
    }  # fmt: skip
    groups: dict[int, tuple[Lesion, ...]] = {}
    seen: set[str] = set()
    for source in reversed(range(index)):
        for lesion in reading.case.timepoints[source].lesions:
            if lesion.mask is None or lesion.id in seen:
                continue
            seen.add(lesion.id)
            gone_before = lesion.id in merged_away and source < index - 1
            if lesion.id not in decided and not gone_before and not _declared_gone(reading, lesion.id, source, index):
                groups[source] = (*groups.get(source, ()), lesion)
    return groups


def _declared_gone(reading: Reading, lesion_id: str, source: int, index: int) -> bool:
    places: list[Place] = [(scan, lesion_id) for scan in range(source + 1, index)]
    return any(reading.decisions.get(place) == "rejected" for place in places)


def _moved(link: Link, source: int, index: int, names: dict[str, str]) -> Link:
    before = None if link.before is None else (source, link.before[1])
    after = link.after if isinstance(link.after, Ending) else (index, names[link.after[1]])
    return replace(link, before=before, to=index, after=after)


def _name(link: Link) -> str:
    return link.before[1] if link.before is not None else link.after[1] if isinstance(link.after, tuple) else ""
