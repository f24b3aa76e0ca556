"""Outlines drawn for radiotherapy (RTSTRUCT) as masks on a grid."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from lesionlocator.errors import Refused
from lesionlocator.formats.dicom_files import class_of
from lesionlocator.formats.disk import size_of, unreadable
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask

_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
_CLOSED = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}


def is_rtstruct(path: Path) -> bool:
    """Whether a file is a DICOM structure set, by its header alone."""
    return class_of(path) == _CLASS


def read_rtstruct(path: Path, geometry: Geometry) -> dict[str, Mask]:
    """Name of each region -> its mask on `geometry`; regions without closed contours are left out.

    A voxel belongs to a region when its centre lies inside the contours of its slice, by the even-odd rule, so that a
    contour within another is a hole. Contours may be drawn on other slices than those of the grid: a slice takes the
    nearest plane of contours that is no further than half the distance between such planes.
    """
    dataset = _dataset(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _regions(dataset, path, geometry)
    except Refused:
        raise
    except Exception as problem:  # Values are only decoded when they are asked for: any of them may be damaged.
        raise unreadable(path, problem) from problem


def _regions(dataset: Any, path: Path, geometry: Geometry) -> dict[str, Mask]:
    _refuse_other_frame(dataset, path, geometry)
    names = {int(roi.ROINumber): str(roi.get("ROIName") or roi.ROINumber) for roi in dataset.StructureSetROISequence}
    masks: dict[str, Mask] = {}
    for region in dataset.get("ROIContourSequence") or ():
        contours = [_points(contour, path) for contour in region.get("ContourSequence") or () if _is_closed(contour)]
        if not contours:
            continue
        number = int(region.ReferencedROINumber)
        name = names.get(number, str(number))
        masks[name if name not in masks else f"{name} ({number})"] = _filled(
            contours, geometry, f"{path}, region {name!r}"
        )
    return masks


def _dataset(path: Path) -> Any:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    size_of(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(path)
            is_structures = str(dataset.get("Modality")) == "RTSTRUCT" and "StructureSetROISequence" in dataset
    except (InvalidDicomError, OSError, EOFError, ValueError, AttributeError) as problem:
        raise unreadable(path, problem) from problem
    if not is_structures:
        raise Refused(
            found=f"{path}, a DICOM object of the modality {dataset.get('Modality')}",
            needed="an RTSTRUCT with at least one region",
            do="name the file of the structure set",
        )
    return dataset


def _refuse_other_frame(dataset: Any, path: Path, geometry: Geometry) -> None:
    frames = {str(item.FrameOfReferenceUID) for item in dataset.get("ReferencedFrameOfReferenceSequence") or ()}
    if geometry.frame is not None and frames and geometry.frame not in frames:
        raise Refused(
            found=f"{path}, drawn in the frame of reference {', '.join(sorted(frames))}",
            needed=f"that of the scan, {geometry.frame}",
            do="name the scan that it was drawn on, or register the two first",
        )


def _is_closed(contour: Any) -> bool:
    return str(contour.get("ContourGeometricType")) in _CLOSED and len(contour.get("ContourData") or ()) >= 9


def _points(contour: Any, path: Path) -> Float[np.ndarray, "n 3"]:
    try:
        values = np.array([float(v) for v in contour.ContourData], np.float64)
        return values.reshape(-1, 3)
    except ValueError as problem:
        raise unreadable(path, problem) from problem


def _filled(contours: list[Float[np.ndarray, "_ 3"]], geometry: Geometry, where: str) -> Mask:
    drawn = [geometry.world_to_index(points) for points in contours]
    axis = _stacking_axis(drawn, where)
    in_plane = [a for a in range(3) if a != axis]
    levels = np.array([points[:, axis].mean() for points in drawn])
    planes = _merged(levels)
    reach = max(0.5, 0.5 * float(np.median(np.diff(planes)))) if len(planes) > 1 else 0.5
    full = np.zeros(geometry.shape, bool)
    stacked = np.moveaxis(full, axis, 0)
    for index in range(stacked.shape[0]):
        nearest = int(np.argmin(np.abs(planes - index)))
        if abs(planes[nearest] - index) > reach + 1e-3:
            continue
        for points, level in zip(drawn, levels, strict=True):
            if int(np.argmin(np.abs(planes - level))) == nearest:
                _toggle(stacked[index], points[:, in_plane])
    return Mask.from_array(full, geometry)


def _stacking_axis(drawn: list[Float[np.ndarray, "_ 3"]], where: str) -> int:
    """The array axis along which no contour moves."""
    spread = np.max([np.ptp(points, axis=0) for points in drawn], axis=0)
    axis = int(np.argmin(spread))
    if spread[axis] > 0.5:
        raise Refused(
            found=f"{where}, whose contours run across the slices of this grid",
            needed="contours that lie in its slices",
            do="read it on the scan that it was drawn on",
        )
    return axis


def _merged(levels: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    """The planes of contours, those within a tenth of a voxel taken as one."""
    ordered = np.sort(levels)
    first = np.concatenate([[True], np.diff(ordered) > 0.1])
    return ordered[first]


def _toggle(plane: Bool[np.ndarray, "a b"], points: Float[np.ndarray, "n 2"]) -> None:
    from skimage.measure import points_in_poly

    low = np.maximum(np.floor(points.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(points.max(axis=0)) + 1, plane.shape).astype(int)
    if np.any(high <= low):
        return
    centres = np.indices(tuple(high - low)).reshape(2, -1).T + low
    inside = np.asarray(points_in_poly(centres, points)).reshape(tuple(high - low))
    plane[low[0] : high[0], low[1] : high[1]] ^= inside
