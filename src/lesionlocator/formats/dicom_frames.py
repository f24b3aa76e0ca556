"""Images of a series as slices: one from a classic file, many from a multi-frame object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lesionlocator.errors import Refused

_PLACE = (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
_GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameContentSequence": ("FrameAcquisitionDateTime", "FrameAcquisitionDuration"),
    "RealWorldValueMappingSequence": (),
}
"""Where a multi-frame object keeps what a classic header says: functional group -> names in it."""
_KEPT = (
    *("SOPClassUID", "SOPInstanceUID", "Modality", "Rows", "Columns", "FrameOfReferenceUID", "SeriesInstanceUID"),
    *("Units", "SUVType", "DecayCorrection", "DecayCorrected", "CorrectedImage", "PatientWeight", "PatientSize"),
    *("PatientSex", "RadiopharmaceuticalInformationSequence", "SeriesDate", "SeriesTime", "AcquisitionDate"),
    *("AcquisitionTime", "AcquisitionDateTime", "DecayCorrectionDateTime", "Manufacturer"),
)


@dataclass(frozen=True, eq=False)
class Slice:
    """One image of a series: its header without the pixels, and where its first pixel's centre lies (LPS mm).

    `frame` counts from 0 in a multi-frame object; None is a classic file.
    """

    path: Path
    header: Any
    position: Float[np.ndarray, "3"]
    row: Float[np.ndarray, "3"]
    column: Float[np.ndarray, "3"]
    spacing_mm: tuple[float, float]
    shape: tuple[int, int]
    frame: int | None = None

    @property
    def normal(self) -> Float[np.ndarray, "3"]:
        return np.cross(self.row, self.column)

    @property
    def name(self) -> str:
        """The file's name, and which of its frames."""
        return self.path.name if self.frame is None else f"{self.path.name} (frame {self.frame + 1})"


def read_slices(path: Path, header: Any) -> list[Slice]:
    """Every image of one file, where it lies."""
    frames = int(header.get("NumberOfFrames") or 1)
    groups = header.get("PerFrameFunctionalGroupsSequence") or ()
    if not groups and frames <= 1:
        return [_slice(path, header)]
    if len(groups) != frames:
        said = "none of which says where it lies" if not groups else f"{len(groups)} of which say where they lie"
        raise Refused(
            found=f"{path}, an object of {frames} frames ({class_name(header)}), {said}",
            needed="a place in the patient for every frame",
            do="convert it to NIfTI (with dcm2niix, for example) or export it as a classic series",
        )
    shared = next(iter(header.get("SharedFunctionalGroupsSequence") or ()), None)
    return [_slice(path, _flat(header, shared, group), index) for index, group in enumerate(groups)]


def class_name(header: Any) -> str:
    """What kind of object it is, in the standard's words."""
    uid = header.get("SOPClassUID")
    return str(getattr(uid, "name", uid))


def _flat(header: Any, shared: Any, own: Any) -> Any:
    """The header of one frame, as a classic file would have it."""
    from pydicom.dataset import Dataset

    flat = Dataset()
    for name in _KEPT:
        if name in header:
            flat[name] = header[name]
    for group, names in _GROUPS.items():
        found = functional_group(group, own, shared)
        if found is not None and not names:
            flat[group] = found
        for name in names:
            if found is not None and name in found.value[0]:
                flat[name] = found.value[0][name]
    if "FrameAcquisitionDateTime" in flat:
        flat.AcquisitionDateTime = str(flat.FrameAcquisitionDateTime)
    return flat


def functional_group(name: str, own: Any, shared: Any) -> Any | None:
    """A functional group of a frame: its own, else the one that all frames share."""
    return next((item[name] for item in (own, shared) if item is not None and name in item and item[name].value), None)


def _slice(path: Path, header: Any, frame: int | None = None) -> Slice:
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise Refused(found=f"{path}, a colour image", needed="one number for each pixel", do="take the original")
    position, directions, spacing = (_numbers(path, header, *asked) for asked in _PLACE)
    row, column = directions[:3], directions[3:]
    norms = np.linalg.norm([row, column], axis=1)
    if np.any(np.abs(norms - 1) > 1e-3) or abs(row @ column) > 1e-3 or np.any(spacing <= 0):
        raise Refused(
            found=f"{path}, whose pixels measure {spacing.tolist()} mm along {row.tolist()} and {column.tolist()}",
            needed="sizes above zero along two directions at right angles",
            do="export the series again",
        )
    shape = (int(header.Rows), int(header.Columns))
    return Slice(path, header, position, row, column, (float(spacing[0]), float(spacing[1])), shape, frame)


def _numbers(path: Path, header: Any, name: str, count: int) -> Float[np.ndarray, " n"]:
    try:
        values = np.array([float(v) for v in header.get(name) or ()], np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if len(values) != count or not np.isfinite(values).all():
        raise Refused(
            found=f"{path}, whose {name} is {header.get(name)!r}",
            needed=f"{count} numbers that say where the slice lies",
            do="export the series again, or convert it to NIfTI with a tool that knows this scanner",
        )
    return values
