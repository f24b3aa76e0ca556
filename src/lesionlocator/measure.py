"""What a reader writes down: volume, diameters and intensities of each lesion in each scan, and how they changed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from lesionlocator.case import Case, Lesion, Status, Timepoint
from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask, Volume


@dataclass(frozen=True)
class Row:
    """One lesion in one scan. Numbers are None where there is no outline to measure."""

    scan: str
    lesion_id: str
    status: Status
    reason: str = ""
    confidence: float | None = None
    volume_ml: float | None = None
    long_axis_mm: float | None = None
    short_axis_mm: float | None = None
    mean: float | None = None
    min: float | None = None
    max: float | None = None
    unit: str = ""
    centre_x_mm: float | None = None
    centre_y_mm: float | None = None
    centre_z_mm: float | None = None


@dataclass(frozen=True)
class Change:
    """How one lesion of one scan compares with its first scan and with its smallest so far, in percent of those.

    None where it cannot be said: no earlier scan with an outline, or an outline missing for another reason than that
    the lesion is gone. A lesion that is gone has changed by -100 %; one that is part of another one now has no change
    of its own.
    """

    scan: str
    lesion_id: str
    volume_from_baseline_percent: float | None
    volume_from_nadir_percent: float | None
    long_axis_from_baseline_percent: float | None
    long_axis_from_nadir_percent: float | None


@dataclass(frozen=True, eq=False)
class Diameters:
    """Long axis and the longest chord perpendicular to it, on one axial slice; end points in LPS mm."""

    long_mm: float
    short_mm: float
    long_ends: Float[np.ndarray, "2 3"]
    short_ends: Float[np.ndarray, "2 3"]


def measure_case(case: Case) -> list[Row]:
    """One row for every lesion of every scan, in order of time; a lesion without an outline has a row with its reason.

    Every scan is loaded once, one at a time.
    """
    return [row for timepoint in case.timepoints for row in measure_timepoint(timepoint)]


def measure_timepoint(timepoint: Timepoint) -> list[Row]:
    """The rows of one scan. No lesions give no rows, and the scan is not loaded."""
    volume = timepoint.load() if any(lesion.mask is not None for lesion in timepoint.lesions) else None
    return [measure_lesion(lesion, timepoint.name, volume) for lesion in timepoint.lesions]


def measure_lesion(lesion: Lesion, scan: str, volume: Volume | None) -> Row:
    """The row of one lesion. Its mask must be on the scan's grid (to 0.01 mm)."""
    mask = lesion.mask
    if mask is None or mask.is_empty or volume is None:
        return Row(scan, lesion.id, lesion.status, lesion.reason, lesion.confidence)
    values = voxel_values(volume, mask)
    numbers = values[np.isfinite(values)]
    unknown = len(values) - len(numbers)
    diameters = measure_diameters(mask)
    x, y, z = (float(v) for v in mask.centroid_mm)
    return Row(
        scan=scan,
        lesion_id=lesion.id,
        status=Status.OUTLINED if lesion.status is Status.ASKED else lesion.status,
        reason=lesion.reason or (f"{unknown} of its voxels are not numbers in the scan" if unknown else ""),
        confidence=lesion.confidence,
        volume_ml=mask.volume_ml,
        long_axis_mm=diameters.long_mm,
        short_axis_mm=diameters.short_mm,
        mean=float(numbers.mean(dtype=np.float64)) if len(numbers) else None,
        min=float(numbers.min()) if len(numbers) else None,
        max=float(numbers.max()) if len(numbers) else None,
        unit=volume.unit,
        centre_x_mm=x,
        centre_y_mm=y,
        centre_z_mm=z,
    )


def voxel_values(volume: Volume, mask: Mask) -> Shaped[np.ndarray, " n"]:
    """The scan's values in the mask, which must be on the scan's grid."""
    start = mask.geometry.offset_in(volume.geometry)
    if start is None:
        raise Refused(
            found=f"a mask whose grid is not that of {volume.name}",
            needed="the same grid, to 0.01 mm",
            do="resample the mask to the scan first, or pass the scan that it was drawn on",
        )
    d, h, w = (a + n for a, n in zip(start, mask.array.shape, strict=True))
    return volume.crop(start, (d, h, w)).array[mask.array]


def measure_diameters(mask: Mask) -> Diameters:
    """Longest diameter in an axial slice and the short axis perpendicular to it, as RECIST 1.1 reads them.

    Axial is the array plane whose normal is nearest to the patient's long axis. Lengths reach from voxel face to voxel
    face: one voxel of 1 mm has a diameter of 1 mm. Of a lesion that shows in several parts on a slice, each is measured
    for itself, and the longest counts; chords are those of a part's convex hull.

    Reference: Eisenhauer et al. 2009, RECIST 1.1, doi:10.1016/j.ejca.2008.10.026.
    """
    if mask.is_empty:
        raise Refused(found="an empty mask", needed="a lesion to measure", do="ask `is_empty` first")
    axis = axial_axis(mask.geometry)
    slices = np.moveaxis(mask.array, axis, 0)
    positions = [int(position) for position in np.flatnonzero(slices.any(axis=(1, 2)))]
    hulls = [(at, _hull(part, mask.geometry, axis)) for at in positions for part in _parts(slices[at])]
    position, hull = max(hulls, key=lambda item: _longest(item[1])[0])
    return _in_world(_axes_of(hull), position, mask.geometry, axis)


def axial_axis(geometry: Geometry) -> int:
    """The array axis that runs most nearly head to foot."""
    return int(np.argmax(np.abs(geometry.affine[2, :3]) / geometry.spacing_mm))


def measure_changes(rows: Iterable[Row], merged: Container[tuple[str, str]] = ()) -> list[Change]:
    """Change of every row from its lesion's first outline and from its smallest before this scan (nadir).

    Args:
        rows: In order of time.
        merged: What `Case.merged` says: those are not gone, so their change cannot be said.
    """
    volumes: dict[str, list[float]] = {}
    diameters: dict[str, list[float]] = {}
    changes: list[Change] = []
    for row in rows:
        is_gone = row.status is Status.ABSENT and (row.scan, row.lesion_id) not in merged
        volume, diameter = (0.0, 0.0) if is_gone else (row.volume_ml, row.long_axis_mm)
        past_volumes = volumes.setdefault(row.lesion_id, [])
        past_diameters = diameters.setdefault(row.lesion_id, [])
        changes.append(
            Change(
                row.scan,
                row.lesion_id,
                _percent(volume, past_volumes[:1]),
                _percent(volume, past_volumes),
                _percent(diameter, past_diameters[:1]),
                _percent(diameter, past_diameters),
            )
        )
        if volume is not None and diameter is not None:
            past_volumes.append(volume)
            past_diameters.append(diameter)
    return changes


def _percent(now: float | None, past: list[float]) -> float | None:
    smallest = min(past, default=0.0)
    return None if now is None or smallest <= 0 else 100.0 * (now / smallest - 1.0)


@dataclass(frozen=True, eq=False)
class _Hull:
    """Convex hull of a slice's voxels: the same points in mm on the plane, and as in-plane indices."""

    plane_mm: Float[np.ndarray, "n 2"]
    index: Float[np.ndarray, "n 2"]


@dataclass(frozen=True, eq=False)
class _Axes:
    long_mm: float
    short_mm: float
    long_index: Float[np.ndarray, "2 2"]
    short_index: Float[np.ndarray, "2 2"]


def _parts(slice_: Bool[np.ndarray, "a b"]) -> Iterator[Bool[np.ndarray, "a b"]]:
    from scipy.ndimage import label

    labels, count = label(slice_, np.ones((3, 3)))
    return (np.asarray(labels == part) for part in range(1, int(count) + 1))


def _hull(slice_: Bool[np.ndarray, "a b"], geometry: Geometry, axis: int) -> _Hull:
    from scipy.spatial import ConvexHull

    # Voxels whose four neighbours are all set cannot be on the hull.
    padded = np.pad(slice_, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    border = np.argwhere(slice_ & ~inner).astype(float)
    faces = np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])
    index = (border[:, None] + faces).reshape(-1, 2)
    plane_mm = index @ _plane(geometry, axis)
    corners = ConvexHull(plane_mm).vertices
    return _Hull(plane_mm[corners], index[corners])


def _plane(geometry: Geometry, axis: int) -> Float[np.ndarray, "2 2"]:
    """In-plane index to millimetres on the plane (lengths and angles kept, sheared grids too)."""
    first, second = (geometry.affine[:3, a] for a in range(3) if a != axis)
    unit = first / np.linalg.norm(first)
    along = float(second @ unit)
    across = float(np.linalg.norm(second - along * unit))
    return np.array([[np.linalg.norm(first), 0.0], [along, across]])


def _longest(hull: _Hull) -> tuple[float, int, int]:
    between = np.linalg.norm(hull.plane_mm[:, None] - hull.plane_mm[None], axis=2)
    one, other = np.unravel_index(int(np.argmax(between)), between.shape)
    return float(between[one, other]), int(one), int(other)


def _axes_of(hull: _Hull) -> _Axes:
    points = hull.plane_mm
    long_mm, one, other = _longest(hull)
    direction = (points[other] - points[one]) / long_mm
    along = points @ direction
    across = points @ np.array([-direction[1], direction[0]])
    short_mm, at, ends = _widest(along, across)
    # Back from the plane to indices, which is linear, by two of the hull's own points and a third.
    to_index = np.linalg.lstsq(np.c_[points, np.ones(len(points))], hull.index, rcond=None)[0]
    perpendicular = np.array([-direction[1], direction[0]])
    short_points = at * direction + np.array(ends)[:, None] * perpendicular
    return _Axes(
        long_mm,
        short_mm,
        hull.index[[one, other]],
        np.c_[short_points, np.ones(2)] @ to_index,
    )


def _widest(
    along: Float[np.ndarray, " n"], across: Float[np.ndarray, " n"]
) -> tuple[float, float, tuple[float, float]]:
    """The longest chord perpendicular to `along`: on a convex polygon it runs through a corner."""
    ends = np.c_[along, across], np.roll(np.c_[along, across], -1, axis=0)
    start, stop = ends
    best = (0.0, float(along[0]), (float(across[0]), float(across[0])))
    for at in along:
        span = stop[:, 0] - start[:, 0]
        crossed = (np.minimum(start[:, 0], stop[:, 0]) <= at) & (at <= np.maximum(start[:, 0], stop[:, 0]))
        share = np.where(np.abs(span) > 1e-12, (at - start[:, 0]) / np.where(np.abs(span) > 1e-12, span, 1.0), 0.0)
        met = np.r_[(start[:, 1] + share * (stop[:, 1] - start[:, 1]))[crossed], across[along == at]]
        low, high = float(met.min()), float(met.max())
        if high - low > best[0]:
            best = (high - low, float(at), (low, high))
    return best


def _in_world(axes: _Axes, position: int, geometry: Geometry, axis: int) -> Diameters:
    def place(index: Float[np.ndarray, "2 2"]) -> Float[np.ndarray, "2 3"]:
        return geometry.index_to_world(np.insert(index, axis, float(position), axis=1))

    return Diameters(axes.long_mm, axes.short_mm, place(axes.long_index), place(axes.short_index))
