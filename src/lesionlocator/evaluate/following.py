"""Tracks scored against true ones: each lesion's outline at later visits, what was said to happen, and its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lesionlocator.case import Case, Ending, Lesion, Link, Place, Timepoint
from lesionlocator.score import count_identity_switches
from lesionlocator.score.retrieval import DETECTED_DICE
from lesionlocator.volume import Mask, Volume

Declared = tuple[int, str, int, str]
"""A true link that ids alone do not say: (from visit, lesion, to visit, lesion there, or `outside`)."""

NO_SUCH_LESION = "outlined, but no such lesion in the truth"

Told = tuple[tuple[str, int, str], str]
"""((case, visit, lesion), event): what `score_events` compares.

From which visit a lesion comes is left out: one that was wrongly seen in between would make its return wrong as well.
"""


@dataclass(frozen=True, eq=False)
class Followed:
    """One lesion at one later visit: what is true and what was said."""

    lesion: str
    visit: int
    truth: Mask
    said: Mask | None
    reason: str = ""
    confidence: float | None = None


def true_case(visits: Sequence[tuple[Volume, Mapping[str, Mask]]], declared: Sequence[Declared] = ()) -> Case:
    """Truth as a case: an id is the same lesion for ever, one that is not there any more has vanished.

    A lesion that comes back is linked to where it was last. Splits, merges and lesions outside the scan cannot be read
    off ids and have to be declared; a declared lesion follows its declared links alone, at that visit.
    """
    timepoints = tuple(
        Timepoint(
            f"visit{i}", scan.geometry, _Kept(scan), tuple(Lesion(name, (), mask) for name, mask in masks.items())
        )
        for i, (scan, masks) in enumerate(visits)
    )
    last: dict[str, Place] = {name: (0, name) for name in visits[0][1]}
    ended: set[str] = set()
    links: list[Link] = []
    for index in range(1, len(visits)):
        here = visits[index][1]
        for name, before in list(last.items()):
            after = _after(name, before, index, here, declared)
            if any(isinstance(place, tuple) for place in after):
                ended.discard(name)
                last[name] = (index, name) if name in here else before
                if name not in here:
                    last.pop(name)
            elif name in ended:
                continue
            else:
                ended.add(name)
            links += [Link(before, index, place) for place in after]
        last |= {name: (index, name) for name in here if name not in last}
    return Case(timepoints, tuple(links))


def compare(said: Case, truth: Case) -> Iterator[Followed]:
    """Every lesion of the first scan at every later visit, and every outline that stands for no true lesion.

    Lesions are followed along links, so what a lesion became, in one part or several, is compared as one outline.
    """
    for index in range(1, len(truth.timepoints)):
        met: set[str] = set()
        for lesion in truth.timepoints[0].lesions:
            found = reached(said, lesion.id, index)
            met |= {one.id for one in found}
            true = _together([one.mask for one in reached(truth, lesion.id, index)], truth.timepoints[index])
            own = said.timepoints[index].lesion(lesion.id)
            answer = _together([one.mask for one in found], truth.timepoints[index]) if found else None
            reason = "" if found or own is None else own.reason
            sure = _sureness(said, lesion.id, index, found)
            yield Followed(lesion.id, index, true, answer, reason, sure)
        for lesion in said.timepoints[index].lesions:
            if lesion.id in met or lesion.mask is None:
                continue
            twin = truth.timepoints[index].lesion(lesion.id)
            empty = Mask.empty(truth.timepoints[index].geometry)
            true = twin.mask if twin is not None and twin.mask is not None else empty
            yield Followed(lesion.id, index, true, lesion.mask, "" if twin else NO_SUCH_LESION, lesion.confidence)


def _sureness(said: Case, lesion_id: str, index: int, found: Sequence[Lesion]) -> float | None:
    """The confidence of the link that led here, or of the ending; if none was said, that of the outline."""
    places = {(index, one.id) for one in found}
    links = [link for link in said.links if link.after in places]
    ended = [link for link in said.links if link.before and link.before[1] == lesion_id and link.to <= index]
    known = [link.confidence for link in (links or ended[-1:]) if link.confidence is not None]
    outlines = [one.confidence for one in found if one.confidence is not None]
    return next(iter([*known, *outlines]), None)


def reached(case: Case, lesion_id: str, index: int) -> list[Lesion]:
    """What a lesion of the first scan has become at a later visit: the lesions with an outline that links lead to."""
    places: set[Place] = {(0, lesion_id)}
    for link in sorted(case.links, key=lambda link: link.to):
        if link.before in places and isinstance(link.after, tuple):
            places.add(link.after)
    found = [case.at(place) for place in sorted(places) if place[0] == index]
    return [lesion for lesion in found if lesion is not None and lesion.mask is not None and not lesion.mask.is_empty]


def told(case: Case, name: str) -> list[Told]:
    """What a case says to have happened, for `score_events`. New lesions go by the visit at which they appear."""
    return [((name, event.to_scan, event.lesion_id), event.event.value) for event in case.events()]


def identity_switches(said: Case, truth: Case) -> tuple[int, int]:
    """How often a true lesion is found under another name than before, and of how many times that it was found again.

    At each visit a true lesion is found under the name of the outline that covers it best (Dice above 0.3); each
    outline stands for one lesion.
    """
    return count_identity_switches(
        [_found_names(mine, true) for mine, true in zip(said.timepoints, truth.timepoints, strict=True)]
    )


def _found_names(said: Timepoint, truth: Timepoint) -> dict[str, str]:
    pairs = [
        (mine.mask.dice(true.mask), true.id, mine.id)
        for true in truth.lesions
        for mine in said.lesions
        if true.mask is not None and mine.mask is not None
    ]
    names: dict[str, str] = {}
    for dice, true_id, name in sorted(pairs, reverse=True):
        if dice > DETECTED_DICE and true_id not in names and name not in names.values():
            names[true_id] = name
    return names


def _after(
    name: str, before: Place, index: int, here: Mapping[str, Mask], declared: Sequence[Declared]
) -> list[Place | Ending]:
    own = [link for link in declared if link[1] == name and link[2] == index]
    if own:
        return [Ending.OUTSIDE if link[3] == "outside" else (index, link[3]) for link in own]
    return [(index, name)] if name in here else [Ending.VANISHED]


def _together(masks: Sequence[Mask | None], timepoint: Timepoint) -> Mask:
    known = [mask for mask in masks if mask is not None and not mask.is_empty]
    if len(known) == 1:
        return known[0]
    full = timepoint.geometry
    if not known:
        return Mask.empty(full)
    corners_mm = np.concatenate([mask.geometry.corners_mm for mask in known])
    start, stop = full.clip(*full.around(corners_mm)) or ((0, 0, 0), full.shape)
    region = full.crop(start, stop)
    array = known[0].on(region)
    for mask in known[1:]:
        array |= mask.on(region)
    return Mask.from_array(array, region)


@dataclass(frozen=True, eq=False)
class _Kept:
    """A scan that is in memory already."""

    scan: Volume

    def __call__(self) -> Volume:
        return self.scan
