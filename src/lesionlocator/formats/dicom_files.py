"""DICOM files as they lie in a folder: found, their headers read, images told from everything else."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionlocator.errors import Refused
from lesionlocator.formats.disk import size_of

_PHILIPS_SUV, _PHILIPS_ACTIVITY = 0x70531000, 0x70531009
_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "NumberOfFrames", "Rows", "Columns"),
    *("SamplesPerPixel", "BitsAllocated", "StudyInstanceUID", "SeriesInstanceUID", "SeriesDescription", "SeriesNumber"),
    *("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("SpacingBetweenSlices", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("RescaleSlope", "RescaleIntercept", "Units", "SUVType", "DecayCorrection", "CorrectedImage", "PatientWeight"),
    *("PatientSize", "PatientSex", "DecayCorrected", "DecayCorrectionDateTime", "FrameReferenceTime"),
    *("ActualFrameDuration", "RadiopharmaceuticalInformationSequence", "SeriesDate", "SeriesTime"),
    *("AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "StudyDate", "ContentDate", "Manufacturer"),
    *("RealWorldValueMappingSequence", 0x70530010, _PHILIPS_SUV, _PHILIPS_ACTIVITY),
]
_NAMED_AS_DICOM = {".dcm", ".ima"}
_DERIVED = {
    *("Segmentation Storage", "RT Dose Storage", "Label Map Segmentation Storage"),
    *("Parametric Map Storage", "Raw Data Storage"),
}


@dataclass(frozen=True, eq=False)
class DicomFile:
    """A file and its header without the pixels."""

    path: Path
    header: Any

    def text(self, name: str) -> str:
        """A value of the header as text; empty where there is none."""
        return str(self.header.get(name) or "").strip()

    @property
    def class_name(self) -> str:
        """What kind of object it is, in the standard's words."""
        uid = self.header.get("SOPClassUID") or self.header.file_meta.get("MediaStorageSOPClassUID")
        return str(getattr(uid, "name", uid))


def files_in(path: Path) -> list[Path]:
    """The files of a folder; those of its sub-folders where it holds no DICOM file itself. A file alone is itself."""
    if path.is_file():
        size_of(path)
        return [path]
    if not path.exists():
        raise Refused(found=f"no folder {path}", needed="a folder with DICOM files", do="check the path")
    own = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    if any(read_header(file) is not None for file in own if file.name != "DICOMDIR"):
        return own
    return sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))


def read_header(file: Path) -> DicomFile | None:
    """The header, or None for a file that is not DICOM. Refuses a damaged one by name."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    tags: list[Any] = list(_TAGS)
    named = file.suffix.lower() in _NAMED_AS_DICOM
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                header = dcmread(file, stop_before_pixels=True, specific_tags=tags)
            except InvalidDicomError:
                if not named:
                    return None
                # Old exports lack the preamble; the ending says that it is meant to be DICOM.
                header = dcmread(file, stop_before_pixels=True, specific_tags=tags, force=True)
            header.decode()  # Else each value is only looked at, and found broken, when it is asked for.
    except Exception as problem:  # What pydicom raises on damaged files has no common ancestor.
        raise damaged(file, str(problem) or type(problem).__name__) from problem
    if "SOPClassUID" not in header and "MediaStorageSOPClassUID" not in header.file_meta:
        raise damaged(file, "it has no DICOM header")
    return DicomFile(file, header)


def class_of(path: Path) -> str | None:
    """The SOP class of a file, by its header alone; None for anything that is no DICOM file."""
    from pydicom import dcmread

    try:
        if not path.is_file() or not starts_like_dicom(path):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return str(dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"]).get("SOPClassUID"))
    except Exception:  # What pydicom raises on damaged files has no common ancestor.
        return None


def starts_like_dicom(path: Path) -> bool:
    """Whether the mark of DICOM stands where it should."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_image(file: DicomFile) -> bool:
    """Whether it is a picture of the patient: not a report, an outline or a dose."""
    name = file.class_name
    if all(tag in file.header for tag in ("Rows", "Columns", "SOPClassUID")):
        return name not in _DERIVED
    if "Image Storage" in name or name == "None":
        raise damaged(file.path, "its header ends early")
    return False


def damaged(file: Path, why: str) -> Refused:
    """The refusal for a DICOM file that cannot be read."""
    return Refused(
        found=f"{file}, which cannot be read ({' '.join(why.split())[:200]})",
        needed="whole DICOM files",
        do="copy the series again from its source, or remove the file if it does not belong to it",
    )
