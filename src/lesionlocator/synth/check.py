"""What a change claims, against what can be read off its maps, outlines and voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lesionlocator.case import Case, Ending, Lesion, Link, Status, Timepoint
from lesionlocator.geometry import Alignment, Geometry, PointMap, index3
from lesionlocator.parts import shared_share
from lesionlocator.synth.deform import least_determinant
from lesionlocator.synth.visit import Changed, Visit

_SAME_PLACE = 0.3
"""A lesion lies where another one went if they share this much of the smaller one."""
_EDIT_MM = 12.0
"""How far from a lesion voxels may be edited without being moved: its blur, and the seam of what replaces it."""

Event = tuple[str, tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Checked:
    """The figures of one change, each with what it has to be."""

    least_volume_change: float
    """Of both maps; must be above 0."""
    largest_error_voxels: float
    """Of backward(forward(x)); must be below half a voxel."""
    strayed_voxels: int
    """Voxels that changed though they neither moved nor lie at a changed lesion; must be 0."""
    events: tuple[Event, ...]
    """As the change says."""
    events_read: tuple[Event, ...]
    """As read off the outlines by the rules that the tracker's links are read by; must be the same."""

    @property
    def passed(self) -> bool:
        return (
            self.least_volume_change > 0
            and self.largest_error_voxels < 0.5
            and self.strayed_voxels == 0
            and self.events == self.events_read
        )


def check(old: Visit, changed: Changed) -> Checked:
    """Everything that can be checked of one change without knowing what was drawn."""
    region = _affected(old, changed)
    least = min(least_volume_change(changed.forward, region), least_volume_change(changed.backward, region))
    told = tuple(sorted((event.event.value, event.before, event.after) for event in changed.events))
    error = largest_error_voxels(changed, region)
    return Checked(least, error, strayed_voxels(old, changed), told, read_off(old, changed))


def read_off(old: Visit, changed: Changed) -> tuple[Event, ...]:
    """The events as the outlines tell them: lesions carried through the maps, linked to what lies there."""
    new = changed.visit
    alignment = Alignment(changed.forward, changed.backward)
    links: list[Link] = []
    for name, mask in old.lesions.items():
        carried = mask.warped(new.geometry, alignment)
        found = [other for other, outline in new.lesions.items() if shared_share(carried, outline) > _SAME_PLACE]
        links += [Link((0, name), 1, (1, other)) for other in found] or [Link((0, name), 1, Ending.VANISHED)]
    return _events(Case((_timepoint(old, "before"), _timepoint(new, "after")), tuple(links)))


def _events(case: Case) -> tuple[Event, ...]:
    """A split or merge is one event for each lesion in a case's own reading; here its ids are gathered."""
    found: dict[tuple[str, str], tuple[set[str], set[str]]] = {}
    for happening in case.events():
        event, after = happening.event.value, happening.to_lesion_id
        key = (event, after or "") if event in ("merged", "new") else (event, happening.lesion_id)
        before, afters = found.setdefault(key, (set(), set()))
        if happening.from_scan is not None:
            before.add(happening.lesion_id)
        if after is not None:
            afters.add(after)
    order = [lesion.id for lesion in case.timepoints[0].lesions] + [lesion.id for lesion in case.timepoints[1].lesions]
    return tuple(
        sorted(
            (event, tuple(sorted(before, key=order.index)), tuple(sorted(after, key=order.index)))
            for (event, _), (before, after) in found.items()
        )
    )


def _timepoint(visit: Visit, name: str) -> Timepoint:
    lesions = tuple(Lesion(key, (), mask, Status.OUTLINED) for key, mask in visit.lesions.items())
    return Timepoint(name, visit.geometry, lambda: visit.volume, lesions)


def least_volume_change(point_map: PointMap, region: Geometry) -> float:
    """The smallest Jacobian determinant of a map on the points of a grid, by differences to its neighbours."""
    at_mm = _points(region)
    steps = region.world_to_index(point_map(at_mm)) - region.world_to_index(at_mm)
    return least_determinant(np.ascontiguousarray(steps.T.reshape(3, *region.shape)))


def largest_error_voxels(changed: Changed, region: Geometry) -> float:
    """How far backward(forward(x)) is from x at worst, in voxels of the new visit, on the points of a grid."""
    at_mm = _points(region)
    missed_mm = changed.backward(changed.forward(at_mm)) - at_mm
    voxels = missed_mm @ np.linalg.inv(changed.visit.geometry.affine[:3, :3]).T
    return float(np.linalg.norm(voxels, axis=1).max())


def strayed_voxels(old: Visit, changed: Changed) -> int:
    """Voxels of the same grid that changed for no reason: not moved, and not near a lesion that changed."""
    geometry = old.geometry
    if not geometry.same_as(changed.visit.geometry):
        return 0
    index = np.argwhere(old.volume.array != changed.visit.volume.array).astype(float)
    if len(index) == 0:
        return 0
    at_mm = geometry.index_to_world(index)
    moved = np.linalg.norm(geometry.world_to_index(changed.backward(at_mm)) - index, axis=1) > 5e-4
    still = at_mm[~moved]
    near = np.zeros(len(still), bool)
    for visit in (old, changed.visit):
        for mask in visit.lesions.values():
            near |= _within(still, mask.geometry, _EDIT_MM)
    return int(np.count_nonzero(~near))


def _within(at_mm: Float[np.ndarray, "n 3"], box: Geometry, margin_mm: float) -> np.ndarray:
    index = box.world_to_index(at_mm)
    margin = 0.5 + margin_mm / box.spacing_mm
    return np.all((index >= -margin) & (index <= np.array(box.shape) - 1 + margin), axis=1)


def _points(region: Geometry) -> Float[np.ndarray, "n 3"]:
    return region.index_to_world(np.indices(region.shape).reshape(3, -1).T.astype(float))


def _affected(old: Visit, changed: Changed) -> Geometry:
    """A grid of at most some ten thousand points over all voxels that changed, or the lesions when none did."""
    geometry = old.geometry
    index = (
        np.argwhere(old.volume.array != changed.visit.volume.array)
        if geometry.same_as(changed.visit.geometry)
        else np.empty((0, 3))
    )
    if len(index) == 0:
        return geometry.respaced(geometry.spacing_mm * max(1.0, (np.prod(geometry.shape) / 6e4) ** (1 / 3)))
    box = geometry.crop(index3(index.min(axis=0) - 2), index3(index.max(axis=0) + 3))
    finer = max(1.0, (float(np.prod(box.shape)) / 6e4) ** (1 / 3))
    return box.respaced(box.spacing_mm * finer) if finer > 1 else box
