"""One patient over time: scans, the lesions in each, and the links between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Prompt
from lesionlocator.volume import Mask, Volume


class Status(StrEnum):
    """What became of a lesion in one scan."""

    ASKED = "asked"
    OUTLINED = "outlined"
    ABSENT = "absent"
    OUTSIDE = "outside"
    FAILED = "failed"


class Ending(StrEnum):
    """Why a lesion is not linked to one in a later scan."""

    VANISHED = "vanished"
    OUTSIDE = "outside"
    UNSURE = "unsure"


class Event(StrEnum):
    """What happened to a lesion between two scans; read off the links, never stored."""

    SAME = "same"
    NEW = "new"
    VANISHED = "vanished"
    OUTSIDE = "outside"
    SPLIT = "split"
    MERGED = "merged"
    UNSURE = "unsure"


DecidedBy = Literal["model", "reader", "rule"]


@dataclass(frozen=True, eq=False)
class Lesion:
    """One lesion in one scan. Its id is its name for ever; over time it is a track, which is a view on links."""

    id: str
    prompts: tuple[Prompt, ...] = ()
    mask: Mask | None = None
    status: Status = Status.ASKED
    reason: str = ""
    confidence: float | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Timepoint:
    """One visit: a scan's name and grid, its lesions, and `load`, which brings the voxels on first need."""

    name: str
    geometry: Geometry
    load: Callable[[], Volume] = field(repr=False)
    lesions: tuple[Lesion, ...] = ()
    date: str | None = None

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for lesion in self.lesions:
            if lesion.id in seen:
                raise Refused(
                    found=f"lesion id {lesion.id!r} twice in {self.name}",
                    needed="one entry for each lesion",
                    do="merge the two entries, or give one of them another id",
                )
            seen.add(lesion.id)

    def lesion(self, lesion_id: str) -> Lesion | None:
        return next((lesion for lesion in self.lesions if lesion.id == lesion_id), None)

    def with_lesions(self, lesions: tuple[Lesion, ...]) -> Timepoint:
        return replace(self, lesions=lesions)


Place = tuple[int, str]
"""A lesion in a case: (index of the timepoint, lesion id)."""


@dataclass(frozen=True)
class Link:
    """Says that a lesion of one scan is a lesion of a later one, or why it is not.

    `before` is None for a lesion that a reader declares new. `to` is the index of the later timepoint, also when the
    lesion ended before it.
    """

    before: Place | None
    to: int
    after: Place | Ending
    reason: str = ""
    confidence: float | None = None
    decided_by: DecidedBy = "model"


@dataclass(frozen=True)
class Happening:
    """An event of one lesion between two scans, with the link it was read off (none for an unlinked new lesion)."""

    event: Event
    lesion_id: str
    from_scan: int | None
    to_scan: int
    to_lesion_id: str | None
    link: Link | None


@dataclass(frozen=True, eq=False)
class Case:
    """Timepoints, oldest first, and the links between their lesions."""

    timepoints: tuple[Timepoint, ...]
    links: tuple[Link, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for link in self.links:
            for place in (link.before, link.after):
                if isinstance(place, tuple) and self.at(place) is None:
                    raise Refused(
                        found=f"a link to lesion {place[1]!r} of scan {place[0]}, which is not there",
                        needed="links between lesions of the case",
                        do="add the lesion to its timepoint first",
                    )

    def at(self, place: Place) -> Lesion | None:
        index, lesion_id = place
        return self.timepoints[index].lesion(lesion_id) if 0 <= index < len(self.timepoints) else None

    def events(self) -> tuple[Happening, ...]:
        """Everything that happened, by scan and then by lesion.

        Two links into one lesion: merged. Two out of one lesion into one scan: split. One and one: same. An ending says
        its own name. A lesion after the first scan that no link reaches is new. A lesion that no link leaves has not
        been read yet and gives no event.
        """
        linked = [happening for link in self.links for happening in [self._read(link)]]
        reached = {link.after for link in self.links if isinstance(link.after, tuple)}
        new = [
            Happening(Event.NEW, lesion.id, None, index, lesion.id, None)
            for index, timepoint in enumerate(self.timepoints[1:], start=1)
            for lesion in timepoint.lesions
            if lesion.mask is not None and (index, lesion.id) not in reached
        ]
        return tuple(sorted([*linked, *new], key=lambda h: h.to_scan))

    def merged(self) -> frozenset[tuple[str, str]]:
        """(name of a scan, lesion id) of every lesion that has become part of another one in that scan."""
        return frozenset(
            (self.timepoints[one.to_scan].name, one.lesion_id)
            for one in self.events()
            if one.event is Event.MERGED and one.lesion_id != one.to_lesion_id
        )

    def tracks(self) -> tuple[tuple[Place, ...], ...]:
        """Lesions joined by links, each track in order of time; a merge or split joins its branches into one track."""
        places = [(i, lesion.id) for i, timepoint in enumerate(self.timepoints) for lesion in timepoint.lesions]
        leader = {place: place for place in places}

        def find(place: Place) -> Place:
            while leader[place] != place:
                place = leader[place]
            return place

        for before, after in self._pairs():
            leader[find(after)] = find(before)
        groups: dict[Place, list[Place]] = {}
        for place in places:
            groups.setdefault(find(place), []).append(place)
        return tuple(tuple(group) for group in groups.values())

    def _pairs(self) -> Iterator[tuple[Place, Place]]:
        for link in self.links:
            if link.before is not None and isinstance(link.after, tuple):
                yield link.before, link.after

    def _read(self, link: Link) -> Happening:
        before, after = link.before, link.after
        if before is None:
            event = Event.NEW
        elif isinstance(after, Ending):
            event = Event(after.value)
        elif sum(1 for _, other in self._pairs() if other == after) > 1:
            event = Event.MERGED
        elif sum(1 for other, to in self._pairs() if other == before and to[0] == after[0]) > 1:
            event = Event.SPLIT
        else:
            event = Event.SAME
        after_id = after[1] if isinstance(after, tuple) else None
        name = before[1] if before is not None else (after_id or "")
        return Happening(event, name, before[0] if before is not None else None, link.to, after_id, link)
