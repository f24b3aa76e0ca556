"""Visits of which only the outlines are wanted: what another scanner does to the grid, and none of its voxels.

What is drawn, the outlines and the events of a chain need the voxels in which lesions change, but hardly ever those of
the scans that are made in the end, which cost most of the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from lesionlocator.synth.appearance import MetalStreak, Protocol
from lesionlocator.synth.scanner import Dose, MrNoise, Reslice
from lesionlocator.synth.visit import Change, Changed, Visit
from lesionlocator.volume import Volume

READS_VOXELS = frozenset({MetalStreak.name, Protocol.name, Dose.name, MrNoise.name})
"""Changes of the scanner whose `draw` looks at voxels; the others look at grid, modality and names of organs."""


def hollow(visit: Visit) -> Volume:
    """A scan on the visit's grid, its modality and kind of number, whose voxels are all 0 and take no memory."""
    array = np.broadcast_to(np.zeros((), visit.source.array.dtype), visit.geometry.shape)
    return replace(visit.source, array=array, geometry=visit.geometry)


def outlined(change: Change, visit: Visit) -> Changed:
    """What a change of the scanner makes of grid and outlines; voxels are hollow and organs left out."""
    there = visit.seen_on(change.grid(visit.geometry)) if isinstance(change, Reslice) else visit
    return Changed.kept(visit, there.edited(volume=hollow(there), organs={}))


@dataclass
class LateVoxels:
    """A visit under changes of the scanner whose voxels are made only when a draw asks for them."""

    outlines: Changed
    """As far as it is drawn, hollow."""
    voxels: Changed
    """As far as voxels were asked for."""
    waiting: list[Change] = field(default_factory=list[Change])

    @staticmethod
    def of(visit: Visit) -> LateVoxels:
        return LateVoxels(Changed.kept(visit, visit), Changed.kept(visit, visit))

    def seen_by(self, name: str) -> Visit:
        """The visit that the change of this name has to be drawn for."""
        if name not in READS_VOXELS:
            return self.outlines.visit
        for change in self.waiting:
            self.voxels = self.voxels.then(change.apply(self.voxels.visit))
        self.waiting.clear()
        return self.voxels.visit

    def add(self, change: Change) -> None:
        """One more change that was drawn."""
        self.outlines = self.outlines.then(outlined(change, self.outlines.visit))
        self.waiting.append(change)
