"""DICOM segmentations read back: a mask and a name for each segment, wherever its frames lie."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from lesionlocator.errors import Refused
from lesionlocator.formats.dicom_files import class_of
from lesionlocator.formats.dicom_frames import Slice, functional_group, read_slices
from lesionlocator.formats.disk import size_of, unreadable
from lesionlocator.formats.json_text import as_id
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask

_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_OFF_GRID = 0.05
"""How far, in slice spacings, a frame may lie from where equal spacing puts it."""
_MOST_SLICES = 5000
"""More than a person has; a damaged header would ask for all of the memory."""


@dataclass(frozen=True, eq=False)
class Segment:
    """One segment. `lesion_id` is its Tracking ID where that can be an id, else its label, else its number."""

    lesion_id: str
    label: str
    tracking_uid: str
    mask: Mask


@dataclass(frozen=True, eq=False)
class Segmentation:
    """All segments of one object, on the lattice of its frames."""

    segments: tuple[Segment, ...]
    geometry: Geometry

    @property
    def masks(self) -> Mapping[str, Mask]:
        """By lesion id; empty segments are left out."""
        return {segment.lesion_id: segment.mask for segment in self.segments if not segment.mask.is_empty}


def is_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM segmentation, by its header alone. False for anything that is no DICOM file."""
    return class_of(path) in _CLASSES


def read_segmentation(path: Path) -> Segmentation:
    """The segments of a SEG, binary, fractional (half or more counts) or label map.

    Frames without outline may be missing from the file: the grid reaches from its first frame to its last.
    """
    from pydicom import dcmread
    from pydicom.pixels.utils import pixel_array

    size_of(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(path)
            described = list(dataset.get("SegmentSequence") or ())
            slices = read_slices(path, dataset)
            shared = next(iter(dataset.get("SharedFunctionalGroupsSequence") or ()), None)
            groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
            numbers = [_segment_number(group, shared) for group in groups]
            pixels = np.asarray(pixel_array(dataset)).reshape(len(slices), *slices[0].shape)
            geometry, places = _lattice(slices)
            inside = _inside(dataset, pixels)
            segments = _segments(described, _Frames(geometry, places, numbers, inside, _kind(dataset)))
    except Refused:
        raise
    except Exception as problem:  # As above.
        raise unreadable(path, problem) from problem
    return Segmentation(segments, geometry)


@dataclass(frozen=True, eq=False)
class _Frames:
    """`voxels` are booleans, or segment numbers in a label map; `places` the slice of the grid of each frame."""

    geometry: Geometry
    places: Sequence[int]
    numbers: Sequence[int | None]
    voxels: np.ndarray
    kind: str

    def mask(self, number: int) -> Mask:
        full: Bool[np.ndarray, "d h w"] = np.zeros(self.geometry.shape, bool)
        for place, of, frame in zip(self.places, self.numbers, self.voxels, strict=True):
            if self.kind == "LABELMAP":
                full[place] |= frame == number
            elif of == number:
                full[place] |= frame
        return Mask.from_array(full, self.geometry)


def _segments(described: Sequence[Any], frames: _Frames) -> tuple[Segment, ...]:
    taken: set[str] = set()
    found: list[Segment] = []
    for item in described:
        number = int(item.SegmentNumber)
        if frames.kind == "LABELMAP" and number == 0:  # The background, which newer label maps describe as well.
            continue
        label = str(item.get("SegmentLabel") or "")
        lesion_id = _id_of((str(item.get("TrackingID") or ""), label, str(number)), taken)
        taken.add(lesion_id)
        found.append(Segment(lesion_id, label, str(item.get("TrackingUID") or ""), frames.mask(number)))
    return tuple(found)


def _id_of(names: Sequence[str], taken: set[str]) -> str:
    for name in names:
        try:
            if as_id(name, "segment") not in taken:
                return name
        except Refused:
            continue
    return next(str(n) for n in range(1, len(taken) + 2) if str(n) not in taken)


def _kind(dataset: Any) -> str:
    return str(dataset.get("SegmentationType") or "BINARY")


def _inside(dataset: Any, pixels: np.ndarray) -> np.ndarray:
    if _kind(dataset) == "LABELMAP":
        return pixels
    if _kind(dataset) == "FRACTIONAL":
        return pixels * 2 >= int(dataset.get("MaximumFractionalValue") or 255)
    return pixels > 0


def _segment_number(own: Any, shared: Any) -> int | None:
    """The segment that a frame belongs to; it may be said once for all frames. None in a label map."""
    item = functional_group("SegmentIdentificationSequence", own, shared)
    return None if item is None else int(item.value[0].ReferencedSegmentNumber)


def _lattice(slices: Sequence[Slice]) -> tuple[Geometry, list[int]]:
    """The grid that the frames lie on, and where each lies on its first axis."""
    first = min(slices, key=lambda one: float(one.position @ slices[0].normal))
    last = max(slices, key=lambda one: float(one.position @ slices[0].normal))
    normal = first.normal
    depth = np.array([float((one.position - first.position) @ normal) for one in slices])
    spacing = _spacing_mm(first.header, depth)
    count = round(min(float(depth.max()) / spacing, _MOST_SLICES + 1.0))
    if count > _MOST_SLICES:
        raise Refused(
            found=f"{first.path}, whose frames lie {depth.max():.0f} mm apart at a spacing of {spacing:.3g} mm",
            needed=f"a grid of {_MOST_SLICES} slices at most",
            do="check its spacing and positions",
        )
    step = normal * spacing if count == 0 else (last.position - first.position) / count
    places = np.round(depth / spacing).astype(int)
    expected = first.position + places[:, None] * step
    off = np.linalg.norm(np.stack([one.position for one in slices]) - expected, axis=1)
    if off.max() > max(_OFF_GRID * spacing, 0.1):
        raise Refused(
            found=f"{first.path}, whose frames are not evenly spaced ({off.max():.2f} mm off)",
            needed="frames on the slices of one grid",
            do="read it on the series that it was drawn on, or convert it to NIfTI",
        )
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 3] = step, first.position
    affine[:3, 1], affine[:3, 2] = first.column * first.spacing_mm[0], first.row * first.spacing_mm[1]
    frame = str(first.header.get("FrameOfReferenceUID") or "") or None
    return Geometry((count + 1, *first.shape), affine, frame), [int(place) for place in places]


def _spacing_mm(header: Any, depth: Float[np.ndarray, " n"]) -> float:
    """As the file says, else the smallest distance of two frames, else their thickness."""
    said = abs(float(header.get("SpacingBetweenSlices") or 0.0))
    gaps = np.diff(np.unique(depth.round(3)))
    usual = float(gaps.min()) if len(gaps) else abs(float(header.get("SliceThickness") or 0.0)) or 1.0
    # A spacing that the frames do not keep is a slip of the pen.
    return said if said > 0 and (not len(gaps) or abs(usual / said - round(usual / said)) < _OFF_GRID) else usual
