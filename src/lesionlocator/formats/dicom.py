"""A folder with one DICOM series becomes a scan; what cannot be one scan is refused by name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lesionlocator.errors import Refused
from lesionlocator.formats.dicom_stack import Slice, Stack, read_slice, stack_slices
from lesionlocator.formats.disk import size_of
from lesionlocator.formats.intensities import settle_modality
from lesionlocator.formats.itk import quiet_itk
from lesionlocator.formats.suv import suv_scale
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Modality, Volume

_TAGS = [
    *("SOPClassUID", "Modality", "ImageType", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel"),
    *("SeriesInstanceUID", "SeriesDescription", "SeriesNumber", "FrameOfReferenceUID"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("RescaleSlope", "RescaleIntercept", "Units", "SUVType", "DecayCorrection", "CorrectedImage", "PatientWeight"),
    *("RadiopharmaceuticalInformationSequence", "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime"),
    *("StudyDate", "ContentDate"),
]
_MODALITIES: dict[str, Modality] = {"CT": "CT", "MR": "MR", "PT": "PT"}
_NAMED_AS_DICOM = {".dcm", ".ima"}
_INT16 = np.iinfo(np.int16)


def read_dicom(path: Path, modality: Modality | None = None) -> Volume:
    """The one series in a folder (or one file of it): sorted by position, rescaled, PET as SUV where that can be."""
    stack, told = _stack(path)
    headers = [one.header for one in stack.slices]
    named = str(headers[0].get("Modality") or "")
    scale, about_suv = suv_scale(headers) if named == "PT" else (1.0, ())
    array = _voxels(stack, scale)
    found, about = _modality(named, modality, array)
    return Volume(array, stack.geometry, found, warnings=(*told, *stack.warnings, *about_suv, *about))


def read_dicom_geometry(path: Path) -> Geometry:
    """The grid of the series, from its headers alone."""
    return _stack(path)[0].geometry


def read_dicom_date(path: Path) -> str | None:
    """The day of the scan as YYYY-MM-DD, from the first image in the folder that tells it."""
    for file in _files(path):
        header = _header(file) or {}
        for name in ("AcquisitionDate", "SeriesDate", "StudyDate"):
            day = str(header.get(name) or "")
            if len(day) == 8 and day.isdigit():
                return f"{day[:4]}-{day[4:6]}-{day[6:]}"
    return None


def _modality(named: str, given: Modality | None, array: np.ndarray) -> tuple[Modality, tuple[str, ...]]:
    known = _MODALITIES.get(named)
    if known is None:
        return settle_modality(array, given)
    if given not in {None, known}:
        return known, (f"the header says {known}; --modality {given} was not used",)
    return known, ()


def _stack(path: Path) -> tuple[Stack, tuple[str, ...]]:
    headers, told = _images(path)
    series: dict[str, list[tuple[Path, Any]]] = {}
    for file, header in headers:
        series.setdefault(str(header.get("SeriesInstanceUID") or ""), []).append((file, header))
    _refuse_several(series, path)
    return stack_slices([read_slice(file, header) for file, header in headers]), told


def _images(path: Path) -> tuple[list[tuple[Path, Any]], tuple[str, ...]]:
    """The images of the folder with their headers; what else lies there is named in a warning."""
    images: list[tuple[Path, Any]] = []
    others: list[str] = []
    for file in _files(path):
        header = _header(file)
        if header is not None and _is_image(header, file):
            images.append((file, header))
        elif file.name != "DICOMDIR":
            others.append(file.name)
    scouts = [file.name for file, header in images if "LOCALIZER" in (header.get("ImageType") or ())]
    if scouts and len(scouts) < len(images):
        images = [(file, header) for file, header in images if file.name not in scouts]
        others += scouts
    if not images:
        raise Refused(
            found=f"{path}, in which no DICOM image was found ({len(others)} other files)",
            needed="a folder with one DICOM series",
            do="check the path",
        )
    shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
    return images, (f"{len(others)} files that are not slices were ignored ({shown})",) if others else ()


def _files(path: Path) -> list[Path]:
    """The files of the folder; those of its sub-folders where it holds no DICOM file itself."""
    if path.is_file():
        size_of(path)
        return [path]
    if not path.exists():
        raise Refused(found=f"no folder {path}", needed="a folder with one DICOM series", do="check the path")
    own = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    if any(_header(file) is not None for file in own):
        return own
    return sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))


def _header(file: Path) -> Any | None:
    """The header, or None for a file that is not DICOM."""
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
        raise _damaged(file, str(problem) or type(problem).__name__) from problem
    if "SOPClassUID" not in header and "MediaStorageSOPClassUID" not in header.file_meta:
        raise _damaged(file, "it has no DICOM header")
    return header


def _is_image(header: Any, file: Path) -> bool:
    uid = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    name = str(getattr(uid, "name", ""))
    if "Rows" in header and "Columns" in header and "SOPClassUID" in header:
        return name not in {"Segmentation Storage", "RT Dose Storage", "Label Map Segmentation Storage"}
    if "Image Storage" in name or uid is None:
        raise _damaged(file, "its header ends early")
    return False


def _damaged(file: Path, why: str) -> Refused:
    return Refused(
        found=f"{file}, which cannot be read ({' '.join(why.split())[:200]})",
        needed="whole DICOM files",
        do="copy the series again from its source, or remove the file if it does not belong to it",
    )


def _refuse_several(series: dict[str, list[tuple[Path, Any]]], path: Path) -> None:
    if len(series) == 1:
        return
    rows = [
        f"{header.get('SeriesDescription') or 'without a name'} ({header.get('Modality')}, {len(members)} images, "
        f"{uid or 'no UID'})"
        for uid, members in series.items()
        for _, header in members[:1]
    ]
    raise Refused(
        found=f"{len(series)} series in {path}: {'; '.join(rows[:8])}{'; ...' if len(rows) > 8 else ''}",
        needed="one series",
        do="put each into a folder of its own and name the one to be read",
    )


def _voxels(stack: Stack, scale: float) -> np.ndarray:
    """Rescaled slices, int16 when that is exact for all of them and float32 otherwise."""
    rows, columns = stack.slices[0].shape
    array = np.empty((0, rows, columns), np.int16)
    for index, one in enumerate(stack.slices):
        stored, slope, intercept = _pixels(one)
        if index == 0:  # Not before a slice has shown that the sizes in the header are those of its pixels.
            array = np.empty((len(stack.slices), rows, columns), np.int16)
        slope, intercept = slope * scale, intercept * scale
        if array.dtype == np.int16 and not _fits(stored, slope, intercept):
            array = array.astype(np.float32)
        work = np.int64 if array.dtype == np.int16 else np.float32
        array[index] = stored.astype(work) * work(slope) + work(intercept)
    return array if stack.is_regular else _evened(array, stack)


def _fits(stored: np.ndarray, slope: float, intercept: float) -> bool:
    whole = stored.dtype.kind in "iu" and float(slope).is_integer() and float(intercept).is_integer()
    ends = [int(end) * slope + intercept for end in (stored.min(), stored.max())]
    return whole and min(ends) >= _INT16.min and max(ends) <= _INT16.max


def _pixels(one: Slice) -> tuple[np.ndarray, float, float]:
    """Stored numbers with the slope and intercept of this slice."""
    from pydicom import dcmread

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = dcmread(one.path, force=True)
            syntax = _syntax(dataset)
            rescaled = _decoded_by_itk(one.path) if syntax.is_compressed else None
            stored = np.asarray(dataset.pixel_array) if rescaled is None else rescaled
        except Exception as problem:  # As above: no common ancestor.
            raise _not_decoded(one.path, problem) from problem
    if stored.shape != one.shape:
        raise _damaged(one.path, f"its pixels have the shape {stored.shape}")
    return (stored, *_rescale(one)) if rescaled is None else (stored, 1.0, 0.0)


def _syntax(dataset: Any) -> Any:
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
    return dataset.file_meta.TransferSyntaxUID


def _not_decoded(path: Path, problem: Exception) -> Refused:
    from pydicom import dcmread

    damaged = _damaged(path, str(problem) or type(problem).__name__)
    try:
        syntax = _syntax(dcmread(path, force=True, stop_before_pixels=True))
        if not syntax.is_compressed:
            return damaged
    except Exception:  # As above.
        return damaged
    return Refused(
        found=f"{path}, packed as {syntax.name}, which could not be unpacked",
        needed="a whole file in a transfer syntax that is known here (uncompressed, RLE, JPEG, JPEG-LS, JPEG 2000)",
        do="copy it again, unpack the series with `gdcmconv --raw`, or install the decoders of `python-gdcm`",
    )


def _decoded_by_itk(path: Path) -> np.ndarray | None:
    """Pixels of a compressed file, rescaled already: SimpleITK brings decoders that pydicom needs extras for."""
    import SimpleITK

    reader: Any = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        with quiet_itk():
            array = np.asarray(SimpleITK.GetArrayFromImage(reader.Execute()))
    except RuntimeError:
        return None
    return array.reshape(array.shape[-2:])


def _rescale(one: Slice) -> tuple[float, float]:
    slope, intercept = one.header.get("RescaleSlope"), one.header.get("RescaleIntercept")
    pair = (float(slope) if slope is not None else 1.0, float(intercept) if intercept is not None else 0.0)
    if pair[0] == 0 or not np.isfinite(pair).all():
        raise _damaged(one.path, f"its rescale slope and intercept are {slope} and {intercept}")
    return pair


def _evened(array: np.ndarray, stack: Stack) -> np.ndarray:
    """Linear interpolation between unevenly spaced slices."""
    count = stack.geometry.shape[0]
    out = np.empty((count, *array.shape[1:]), array.dtype)
    at: Float[np.ndarray, " n"] = np.clip(np.arange(count), 0, stack.along[-1])
    below = np.clip(np.searchsorted(stack.along, at, side="right") - 1, 0, len(array) - 2)
    part = (at - stack.along[below]) / (stack.along[below + 1] - stack.along[below])
    for index, (low, t) in enumerate(zip(below, part, strict=True)):
        mixed = array[low].astype(np.float32) * np.float32(1 - t) + array[low + 1].astype(np.float32) * np.float32(t)
        out[index] = np.round(mixed) if out.dtype == np.int16 else mixed
    return out
