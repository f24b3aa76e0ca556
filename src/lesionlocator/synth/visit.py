"""A patient at one visit, and what a change makes of it: the new visit, the maps between both, and who became whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from lesionlocator.case import Event
from lesionlocator.geometry import AffineMap, Geometry, PointMap, compose
from lesionlocator.synth.carry import carry_mask, carry_volume
from lesionlocator.volume import Mask, Volume

IDENTITY: PointMap = AffineMap.identity()

Fates = Mapping[str, tuple[str, ...]]
"""Old lesion id -> the ids that it has in the new visit: itself, several after a split, none when it vanished.

A new lesion is one that nothing became. Merged lesions share an id (that of the largest).
"""


@dataclass(frozen=True, eq=False)
class Visit:
    """A scan, the lesions in it and, where known, organs.

    Make one with `Visit.of`. Deformations only note their map (`moved`), and the scan is interpolated once, from its
    source, when `volume` is first read; `edited` sets new voxels, from which later maps start.

    Lesions and organs are masks on the lattice of `geometry`, whole even where they reach beyond the scan.
    Organs go by plain names: `body`, `lung`, `bone`, `liver`, `soft tissue`, ...
    """

    source: Volume
    source_lesions: Mapping[str, Mask]
    source_organs: Mapping[str, Mask]
    geometry: Geometry
    """The grid on which the visit is seen."""
    from_source: PointMap = IDENTITY
    """Where a point of the source is here, in LPS mm."""
    to_source: PointMap = IDENTITY
    order: Literal[1, 3] = 3
    """Interpolation: cubic keeps the noise as it is, linear is four times as fast and smooths it."""
    past_ids: frozenset[str] = frozenset()
    """Ids of lesions that are gone: an id is one lesion's for ever."""

    @staticmethod
    def of(
        volume: Volume,
        lesions: Mapping[str, Mask],
        organs: Mapping[str, Mask] | None = None,
        *,
        order: Literal[1, 3] = 3,
    ) -> Visit:
        """A scan as it was read."""
        return Visit(volume, dict(lesions), dict(organs or {}), volume.geometry, order=order)

    @cached_property
    def volume(self) -> Volume:
        """The scan as it looks here; its own voxels where nothing moved."""
        return carry_volume(self.source, self.geometry, self._to_source, self.order)

    @cached_property
    def lesions(self) -> dict[str, Mask]:
        """Lesion id -> its outline here, as large as the maps make it (to a voxel)."""
        return {name: self._carried(mask) for name, mask in self.source_lesions.items()}

    @cached_property
    def organs(self) -> dict[str, Mask]:
        """Organ name -> its outline here."""
        return {name: self._carried(mask) for name, mask in self.source_organs.items()}

    def moved(self, forward: PointMap, backward: PointMap, geometry: Geometry | None = None) -> Visit:
        """Everything carried along: what was at x is now at forward(x). Nothing is interpolated yet."""
        return replace(
            self,
            geometry=geometry or self.geometry,
            from_source=_joined(self.from_source, forward),
            to_source=_joined(backward, self.to_source),
        )

    def seen_on(self, geometry: Geometry) -> Visit:
        """The same patient on another grid, such as a smaller field of view. Nothing is interpolated yet.

        To look at a part only, read `seen_on(part).volume`: the rest is not interpolated.
        """
        return replace(self, geometry=geometry)

    def glimpse(self, geometry: Geometry) -> Volume:
        """A quick linear look at the scan on any grid, coarse ones too."""
        return carry_volume(self.source, geometry, self._to_source, 1)

    def edited(
        self,
        *,
        volume: Volume | None = None,
        lesions: Mapping[str, Mask] | None = None,
        organs: Mapping[str, Mask] | None = None,
    ) -> Visit:
        """With other voxels or outlines; what is not given stays as it is here."""
        made = Visit.of(
            self.volume if volume is None else volume,
            self.lesions if lesions is None else lesions,
            self.organs if organs is None else organs,
            order=self.order,
        )
        return replace(made, past_ids=self.past_ids | frozenset(self.source_lesions))

    def new_lesion_id(self) -> str:
        """The smallest number that no lesion has or had as its id."""
        number = 1
        while str(number) in self.source_lesions or str(number) in self.past_ids:
            number += 1
        return str(number)

    @property
    def _to_source(self) -> PointMap | None:
        return None if self.to_source is IDENTITY else self.to_source

    def _carried(self, mask: Mask) -> Mask:
        return carry_mask(mask, self.geometry, self.from_source, self._to_source)


@dataclass(frozen=True)
class Happened:
    """One event of the truth, in the words of `links.csv`, with the ids it joins."""

    event: Event
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Changed:
    """What a change made of a visit.

    Contract: `visit.volume(forward(x))` shows the tissue of the old `volume(x)`, in LPS mm, and `backward(forward(x))`
    is within half a voxel of x. `fates` names every lesion of the old visit.
    """

    visit: Visit
    fates: Fates
    forward: PointMap = IDENTITY
    backward: PointMap = IDENTITY

    @staticmethod
    def kept(old: Visit, new: Visit, forward: PointMap = IDENTITY, backward: PointMap = IDENTITY) -> Changed:
        """Every lesion is the same lesion as before."""
        return Changed(new, {name: (name,) for name in old.source_lesions}, forward, backward)

    @property
    def events(self) -> tuple[Happened, ...]:
        """What happened, read off the fates as `Case.events` reads it off links."""
        return read_events(self.fates, tuple(self.visit.source_lesions))

    def then(self, later: Changed) -> Changed:
        """Both changes as one; `later` starts from this visit."""
        return Changed(
            later.visit,
            joined_fates(self.fates, later.fates),
            _joined(self.forward, later.forward),
            _joined(later.backward, self.backward),
        )

    def reversed(self, old: Visit) -> Changed:
        """The way back to the visit from which it started: what vanished appears, and what split merges."""
        return Changed(old, reversed_fates(self.fates, tuple(self.visit.source_lesions)), self.backward, self.forward)


@runtime_checkable
class Change(Protocol):
    """Something that can happen between two visits: a frozen dataclass, drawn first and then applied.

    Its fields are what was drawn, in units that their names say, and of JSON's kinds (numbers, strings, None and
    tuples of them): they are the ground truth, and with the old visit they make the new one, bit for bit. One that
    needs many random numbers (noise) keeps a `seed`.
    """

    name: ClassVar[str]
    """Its name in `CHANGES` and in the recipe."""
    of: ClassVar[Literal["lesion", "patient", "scanner"]]

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> Change | None:
        """One that suits this visit; None where none does.

        A change of lesions chooses among the ids that it gets (a merge two of them), or among all when it gets none.
        """
        ...

    def apply(self, visit: Visit) -> Changed:
        """What it makes of the visit."""
        ...


@dataclass(frozen=True)
class InTurn:
    """Changes one after another, as one; none at all change nothing."""

    changes: tuple[Change, ...] = ()

    def apply(self, visit: Visit) -> Changed:
        changed = Changed.kept(visit, visit)
        for change in self.changes:
            changed = changed.then(change.apply(changed.visit))
        return changed


def joined_fates(first: Fates, second: Fates) -> dict[str, tuple[str, ...]]:
    """Who became whom over two changes."""
    return {
        name: tuple(dict.fromkeys(last for between in became for last in second.get(between, ())))
        for name, became in first.items()
    }


def reversed_fates(fates: Fates, after: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Who came from whom; a lesion that came from none is a vanished one, seen backwards."""
    return {name: tuple(old for old, became in fates.items() if name in became) for name in after}


def read_events(fates: Fates, after: tuple[str, ...]) -> tuple[Happened, ...]:
    """The events of the fates: merged where several lesions became one, split where one became several."""
    sources = reversed_fates(fates, after)
    found: list[Happened] = []
    for name, became in fates.items():
        merged = tuple(new for new in became if len(sources.get(new, ())) > 1)
        if not became:
            found.append(Happened(Event.VANISHED, (name,), ()))
        elif not merged:
            found.append(Happened(Event.SAME if len(became) == 1 else Event.SPLIT, (name,), became))
    for name, olds in sources.items():
        if len(olds) > 1:
            found.append(Happened(Event.MERGED, olds, (name,)))
        elif not olds:
            found.append(Happened(Event.NEW, (), (name,)))
    return tuple(found)


def _joined(first: PointMap, second: PointMap) -> PointMap:
    if first is IDENTITY or second is IDENTITY:
        return second if first is IDENTITY else first
    return compose(first, second)
