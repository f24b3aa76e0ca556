"""Each lesion at each visit: the axial slice of its longest diameter with its outline, all at one zoom and window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from lesionlocator.case import Status
from lesionlocator.errors import Refused
from lesionlocator.formats import read_volume
from lesionlocator.measure import Row, measure_diameters
from lesionlocator.picture import axial_plane, on_plane, window_of
from lesionlocator.report.drawing import Drawing, Grey, Mark, Stroke, Words
from lesionlocator.report.finished import FinishedCase
from lesionlocator.resample import resample
from lesionlocator.volume import Mask, Volume

SIDE = 132.0
_PIXELS = 240
_NEAREST_FIELD_MM, _WIDEST_FIELD_MM = 40.0, 200.0
_SHADOW = "#000000"


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """One lesion at one visit. Without a drawing, `words` say why."""

    drawing: Drawing | None
    words: str = ""


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """What could be shown: (scan, lesion) -> thumbnail, and the scans that could not be read, with the reason."""

    shown: Mapping[tuple[str, str], Thumbnail]
    unread: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class _View:
    """What is the same for a lesion at every visit."""

    field_mm: float
    window: tuple[float, float] | None
    colour: str


Read = Callable[[str], Volume]
"""The scan of this name; raises Refused or OSError where it cannot be read."""


def draw_thumbnails(case: FinishedCase, colours: Mapping[str, str], read: Read) -> Thumbnails:
    """A thumbnail of each lesion at each visit; every scan is read once.

    Zoom is that of the lesion's largest extent over all visits. Grey values are the same at all visits in CT and PET;
    in MR, whose numbers mean nothing by themselves, each scan has its own. Where a lesion is gone or was not evaluable,
    its place is estimated (where it was last seen, moved as the lesions that are still seen moved on average) and shown
    without an outline.
    """
    masks = {
        (scan, lesion_id): mask
        for scan in case.scans
        for lesion_id in case.lesion_ids
        if (mask := case.mask(scan, lesion_id)) is not None and not mask.is_empty
    }
    fields = {
        lesion_id: _field_mm(mask for (_, name), mask in masks.items() if name == lesion_id)
        for lesion_id in case.lesion_ids
    }
    windows: dict[str, tuple[float, float]] = {}
    last: dict[str, tuple[str, Mask]] = {}
    shown: dict[tuple[str, str], Thumbnail] = {}
    unread: dict[str, str] = {}
    for scan in case.scans:
        try:
            volume: Volume | None = read(scan)
        except (Refused, OSError) as problem:
            volume, unread[scan] = None, str(problem)
        for lesion_id in case.lesion_ids:
            mask = masks.get((scan, lesion_id))
            if volume is not None and mask is not None:
                mask = mask if mask.geometry.offset_in(volume.geometry) is not None else mask.placed(volume.geometry)
                if volume.modality != "MR":
                    windows.setdefault(lesion_id, _window(volume, mask))
            view = _View(fields[lesion_id], windows.get(lesion_id), colours.get(lesion_id, "#ffffff"))
            shown[scan, lesion_id] = _thumbnail(case, (scan, lesion_id), volume, (mask, last.get(lesion_id)), view)
            last |= {lesion_id: (scan, mask)} if mask is not None else {}
    return Thumbnails(shown, unread)


def scan_reader(case: FinishedCase) -> Read:
    """Reads the scans where the run found them, if they are still the same grid."""

    def read(scan: str) -> Volume:
        entry = case.input(scan)
        if not entry.get("path"):
            raise Refused(found=f"no path of {scan} in run.json", needed="where the scan is", do="run it again")
        modality = entry.get("modality")
        volume = read_volume(Path(str(entry["path"])), modality if modality in ("CT", "MR", "PT") else None)
        grid = case.grid(scan)
        if grid is not None and not volume.geometry.same_as(grid, 0.5):
            raise Refused(found=f"another grid in {entry['path']}", needed="the scan of the run", do="put it back")
        return volume

    return read


def _thumbnail(
    case: FinishedCase,
    place: tuple[str, str],
    volume: Volume | None,
    masks: tuple[Mask | None, tuple[str, Mask] | None],
    view: _View,
) -> Thumbnail:
    mask, before = masks
    row = case.row(*place)
    if mask is None and before is None:
        return Thumbnail(None, "not there yet" if row is None else _said(row.status))
    if volume is None:
        return Thumbnail(None, "scan not readable")
    if mask is not None:
        return Thumbnail(_drawn(volume, mask, _middle(mask), view))
    status = row.status if row is not None else Status.FAILED
    at_mm = None if before is None else _middle(before[1]) + _moved_mm(case, before[0], place[0])
    if at_mm is None or status is Status.OUTSIDE or not volume.geometry.contains(at_mm[None])[0]:
        return Thumbnail(None, _said(status))
    return Thumbnail(_drawn(volume, None, at_mm, view), _said(status))


def _moved_mm(case: FinishedCase, before: str, now: str) -> Float[np.ndarray, "3"]:
    """How far the lesions that are in both scans have moved between them, on average; nothing if there is none."""
    moves: list[Float[np.ndarray, "3"]] = []
    for lesion_id in case.lesion_ids:
        one, other = _centre_mm(case.row(before, lesion_id)), _centre_mm(case.row(now, lesion_id))
        if one is not None and other is not None:
            moves.append(other - one)
    return np.mean(moves, axis=0) if moves else np.zeros(3)


def _centre_mm(row: Row | None) -> Float[np.ndarray, "3"] | None:
    if row is None or row.centre_x_mm is None or row.centre_y_mm is None or row.centre_z_mm is None:
        return None
    return np.array([row.centre_x_mm, row.centre_y_mm, row.centre_z_mm])


def _said(status: Status) -> str:
    words = {Status.ABSENT: "gone", Status.OUTSIDE: "outside the scan", Status.FAILED: "not outlined"}
    return words.get(status, "not read yet")


def _middle(mask: Mask) -> Float[np.ndarray, "3"]:
    """The lesion's middle, on the slice of its longest diameter."""
    at_mm = mask.centroid_mm.copy()
    ends = measure_diameters(mask).long_ends
    at_mm[2] = ends[:, 2].mean()
    return at_mm


def _field_mm(masks: Iterator[Mask]) -> float:
    extents = [float(np.ptp(mask.points_mm, axis=0)[:2].max()) for mask in masks]
    wanted = np.ceil((2.2 * max(extents, default=0.0) + 8) / 5) * 5
    return float(np.clip(wanted, _NEAREST_FIELD_MM, _WIDEST_FIELD_MM))


def _window(volume: Volume, mask: Mask) -> tuple[float, float]:
    covered = volume.geometry.clip(*volume.geometry.around(mask.geometry.corners_mm, 15.0))
    around = volume.crop(*covered).array if covered else volume.array
    return window_of(volume.modality, around, around)


def _drawn(volume: Volume, mask: Mask | None, at_mm: Float[np.ndarray, "3"], view: _View) -> Drawing:
    plane = axial_plane(at_mm, view.field_mm, _PIXELS)
    image = resample(volume, plane, outside=-1024.0 if volume.modality == "CT" else 0.0)[0]
    low, high = view.window or window_of(volume.modality, image, image)
    grey = np.clip((np.nan_to_num(image) - low) / max(high - low, 1e-6), 0, 1)
    # PET is read dark on white.
    shades = np.round(255 * (1 - grey if volume.modality == "PT" else grey)).astype(np.uint8)
    marks: list[Mark] = [Grey((0.0, 0.0), (SIDE, SIDE), shades)]
    if mask is not None:
        marks += _outline(mask, at_mm, view)
    marks += _scale_bar(view.field_mm)
    says = "axial slice with the outline" if mask is not None else "axial slice at the estimated place"
    return Drawing(SIDE, SIDE, tuple(marks), says)


def _outline(mask: Mask, at_mm: Float[np.ndarray, "3"], view: _View) -> list[Mark]:
    from skimage.measure import find_contours

    soft = np.pad(on_plane(mask, axial_plane(at_mm, view.field_mm, _PIXELS)), 1)
    scale = SIDE / _PIXELS
    marks: list[Mark] = []
    for contour in find_contours(soft, 0.5):
        points = tuple((float((x - 0.5) * scale), float((y - 0.5) * scale)) for y, x in contour[::2])
        marks.append(Stroke(points, _SHADOW, 2.4, opacity=0.4, closed=True))
        marks.append(Stroke(points, view.colour, 1.3, closed=True))
    ends = (measure_diameters(mask).long_ends - at_mm)[:, :2] / view.field_mm * SIDE + SIDE / 2
    axis = tuple((float(x), float(y)) for x, y in ends)
    return [*marks, Stroke(axis, view.colour, 0.9, (1.5, 1.8))]


def _scale_bar(field_mm: float) -> Sequence[Mark]:
    length_mm = next(mm for mm in (50.0, 20.0, 10.0) if mm <= 0.3 * field_mm or mm == 10.0)
    long = length_mm / field_mm * SIDE
    right, y = SIDE - 6, SIDE - 6
    return [
        Stroke(((right - long - 0.6, y), (right + 0.6, y)), _SHADOW, 3.2, opacity=0.6),
        Stroke(((right - long, y), (right, y)), "#ffffff", 1.5),
        Words((right - long / 2 + 0.4, y - 3.1), f"{length_mm / 10:g} cm", 6.5, _SHADOW, "middle"),
        Words((right - long / 2, y - 3.5), f"{length_mm / 10:g} cm", 6.5, "#ffffff", "middle"),
    ]
