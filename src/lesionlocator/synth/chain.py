"""A patient over several visits, made from one scan: the scans, the outlines, and the truth of every change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import UInt16

from lesionlocator.case import Case, Ending, Lesion, Link, Place, Status, Timepoint
from lesionlocator.errors import Refused
from lesionlocator.geometry import Alignment
from lesionlocator.measure import Row, measure_case
from lesionlocator.synth.outlines import hollow
from lesionlocator.synth.story import STAGES, Drawing, Draws, Stage, Story, StorySettings, Telling
from lesionlocator.synth.visit import IDENTITY, Change, Changed, Fates, Visit, joined_fates
from lesionlocator.volume import Mask, Volume

INSIDE_SHARE = 0.5
"""A lesion with less of it than this inside the scan is outside, as the tracking says it."""
_ASKED_POINTS = 4000


@dataclass(frozen=True, eq=False)
class Scan:
    """One visit of the chain as the scanner shows it. `lesions` are whole, also where they reach beyond the scan."""

    volume: Volume
    lesions: Mapping[str, Mask]

    @cached_property
    def seen(self) -> dict[str, Mask]:
        """What the scan shows of each lesion; those of which it shows nothing are left out."""
        shown = {name: mask.placed(self.volume.geometry) for name, mask in self.lesions.items() if not mask.is_empty}
        return {name: mask for name, mask in shown.items() if not mask.is_empty}

    def is_inside(self, lesion_id: str) -> bool:
        """Whether at least half of the lesion lies in the scan."""
        mask, shown = self.lesions[lesion_id], self.seen.get(lesion_id)
        return shown is not None and shown.voxels >= INSIDE_SHARE * mask.voxels

    def label_map(self, ids: Mapping[str, int]) -> UInt16[np.ndarray, "d h w"]:
        """The lesions as one array of labels; where two overlap the smaller one is on top."""
        labels = np.zeros(self.volume.geometry.shape, np.uint16)
        for name, mask in sorted(self.seen.items(), key=lambda item: -item[1].voxels):
            labels[mask.on(self.volume.geometry)] = ids[name]
        return labels


@dataclass(frozen=True, eq=False)
class Chain:
    """Scans of one made-up patient, oldest first, and all that is true of them.

    Contract: `alignment(a, b)` has the contract of `Alignment` between scans a and b. An id is one lesion for ever.
    """

    story: Story
    scans: tuple[Scan, ...]
    fates: tuple[Fates, ...]
    """For each scan but the last: lesion id -> its ids in the next one."""
    poses: tuple[Alignment, ...]
    """For each scan: from the undisturbed body at that time to where its points are in the scan."""
    growth: tuple[Alignment, ...]
    """For each scan but the last: from the undisturbed body at that time to that at the next."""

    def alignment(self, first: int, second: int) -> Alignment:
        """How scan `first` corresponds to a later scan `second`."""
        found = self.poses[first].inverse()
        for step in self.growth[first:second]:
            found = found.then(step)
        return replace(found.then(self.poses[second]), method="synthetic")

    def fates_between(self, first: int, second: int) -> dict[str, tuple[str, ...]]:
        """What became of every lesion of scan `first` until scan `second`."""
        found: dict[str, tuple[str, ...]] = {name: (name,) for name in self.scans[first].lesions}
        for step in self.fates[first:second]:
            found = joined_fates(found, step)
        return found

    def composition_error_mm(self, first: int, second: int, seed: int = 0) -> tuple[float, float]:
        """How far backward(forward(x)) is from x: 95th percentile and maximum over points drawn in scan `first`."""
        geometry, maps = self.scans[first].volume.geometry, self.alignment(first, second)
        index = np.random.default_rng(seed).uniform(-0.5, np.array(geometry.shape) - 0.5, (_ASKED_POINTS, 3))
        at_mm = geometry.index_to_world(index)
        error = np.linalg.norm(maps.backward(maps.forward(at_mm)) - at_mm, axis=1)
        return float(np.percentile(error, 95)), float(error.max())

    @cached_property
    def labels(self) -> dict[str, int]:
        """Lesion id -> its label in every label map: the id itself where all are numbers."""
        names = sorted({name for scan in self.scans for name in scan.lesions}, key=_by_number)
        if all(name.isdecimal() and name == str(int(name)) and 0 < int(name) < 2**16 for name in names):
            return {name: int(name) for name in names}
        return {name: number for number, name in enumerate(names, start=1)}

    def case(self, names: Sequence[str] | None = None) -> Case:
        """The truth as a case: outlines, links and endings as a perfect tracking would report them."""
        names = names or [f"visit {number}" for number in range(1, len(self.scans) + 1)]
        links: list[Link] = []
        last_seen: dict[str, Place] = {}
        ended: dict[str, Ending] = {}
        timepoints: list[Timepoint] = []
        for index, scan in enumerate(self.scans):
            lesions = [
                Lesion(name, (), scan.seen[name], Status.OUTLINED) for name in scan.lesions if scan.is_inside(name)
            ]
            shown = [lesion.id for lesion in lesions]
            for lesion_id, place in list(last_seen.items()):
                became = self.fates_between(place[0], index)[lesion_id]
                after = [name for name in became if name in shown]
                if after:
                    links.extend(Link(place, index, (index, name), decided_by="rule") for name in after)
                    ended.pop(lesion_id, None)
                ending = Ending.OUTSIDE if became else Ending.VANISHED
                if not after and ended.get(lesion_id) is not ending:
                    links.append(Link(place, index, ending, decided_by="rule"))
                    ended[lesion_id] = ending
                if lesion_id not in shown:
                    status = Status.OUTSIDE if became and not after else Status.ABSENT
                    lesions.append(Lesion(lesion_id, (), None, status))
                if after and lesion_id not in shown:
                    del last_seen[lesion_id]
            last_seen.update({name: (index, name) for name in shown})
            timepoints.append(_timepoint(names[index], scan.volume, tuple(lesions)))
        return Case(tuple(timepoints), tuple(links))

    def measurements(self) -> list[Row]:
        """Volume, diameters and intensities of every lesion in every scan, as the tracking would report them."""
        return measure_case(self.case())


def draw_chain(source: Visit, seed: int, settings: StorySettings | None = None, *, voxels: bool = True) -> Chain:
    """A chain with everything drawn from the seed; what was drawn is its `story`.

    Args:
        source: A scan with its lesions (none are needed) and, where known, its organs.
        seed: The same seed, source and settings draw the same story.
        settings: How many visits, and what may happen.
        voxels: Without them the same is drawn, and outlines, maps and events are the same, at half the cost; the scans
            are hollow (all 0).
    """
    settings = settings or StorySettings()
    if settings.visits < 1 or not 0 <= (settings.source_at or 0) < settings.visits:
        raise Refused(
            found=f"a chain of {settings.visits} visits with the source at {settings.source_at}",
            needed="at least one visit, and the source among them",
            do="correct the settings",
        )
    source_at = settings.source_at
    if source_at is None:
        source_at = int(np.random.default_rng([seed, settings.visits]).integers(settings.visits))
    return _told(source, source_at, settings.visits, Drawing(seed, settings, voxels))


def tell(source: Visit, story: Story, *, voxels: bool = True) -> Chain:
    """The chain of a story that was drawn before, from the same source; without `voxels` its scans are hollow."""
    return _told(source, story.source_at, len(story.visits), Telling(story, voxels))


def _told(source: Visit, source_at: int, count: int, choose: Drawing | Telling) -> Chain:
    told = _Told(source_at, choose, {source_at: source}, {}, {})
    for index in range(source_at + 1, count):
        told.grow(index, index - 1)
    # An id that a later visit gave away is taken for the earlier ones too.
    taken = frozenset(name for body in told.bodies.values() for name in (*body.source_lesions, *body.past_ids))
    told.bodies[source_at] = replace(source, past_ids=taken - frozenset(source.source_lesions))
    for index in range(source_at - 1, -1, -1):
        told.grow(index, index + 1)
    told.bodies[source_at] = source
    return told.chain(count)


@dataclass
class _Told:
    """The state of one telling: bodies by visit, and the steps between neighbours by the earlier of both."""

    source_at: int
    choose: Drawing | Telling
    bodies: dict[int, Visit]
    steps: dict[int, Changed]
    drawn: dict[tuple[int, Stage], tuple[Change, ...]]

    def grow(self, index: int, neighbour: int) -> None:
        """The body at visit `index`, from that of its neighbour on the source's side."""
        old = self.bodies[neighbour]
        self.drawn[index, "lesion"], changed = self.choose(index, "lesion", old)
        self.bodies[index] = changed.visit
        self.steps[min(index, neighbour)] = changed if index > neighbour else changed.reversed(old)

    def chain(self, count: int) -> Chain:
        """Every body laid down and scanned, one after another."""
        scans: list[Scan] = []
        poses: list[Alignment] = []
        for index in range(count):
            pose = self._scanned(index)
            volume = pose.visit.volume if self.choose.voxels else hollow(pose.visit)
            scans.append(Scan(_stored_as(volume, self.bodies[self.source_at].source), pose.visit.lesions))
            poses.append(Alignment(pose.forward, pose.backward, "synthetic"))
        steps = [self.steps[index] for index in range(count - 1)]
        story = Story(
            self.source_at,
            tuple(Draws(*(self.drawn.get((index, stage), ()) for stage in STAGES)) for index in range(count)),
        )
        growth = tuple(Alignment(step.forward, step.backward, "synthetic") for step in steps)
        return Chain(story, tuple(scans), tuple(step.fates for step in steps), tuple(poses), growth)

    def _scanned(self, index: int) -> Changed:
        body = self.bodies[index]
        if index == self.source_at:
            return Changed.kept(body, body, IDENTITY, IDENTITY)
        self.drawn[index, "patient"], lying = self.choose(index, "patient", body)
        self.drawn[index, "scanner"], seen = self.choose(index, "scanner", lying.visit)
        return lying.then(seen)


def _stored_as(volume: Volume, source: Volume) -> Volume:
    """In the source's kind of number: whole HU stay whole HU, or a look at the file would tell which scan was made."""
    kind = source.array.dtype
    if volume.array.dtype == kind:
        return volume
    if kind.kind not in "iu":
        return replace(volume, array=volume.array.astype(kind))
    ends = np.iinfo(kind)
    return replace(volume, array=np.clip(np.rint(volume.array), ends.min, ends.max).astype(kind))


def _timepoint(name: str, volume: Volume, lesions: tuple[Lesion, ...]) -> Timepoint:
    return Timepoint(name, volume.geometry, lambda: volume, lesions)


def _by_number(name: str) -> tuple[int, str]:
    return (int(name), name) if name.isdecimal() else (2**31, name)
