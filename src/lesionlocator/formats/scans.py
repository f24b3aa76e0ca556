"""Any scan: which reader a path belongs to, its voxels now, or its grid now and its voxels on first need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from lesionlocator.case import Lesion, Timepoint
from lesionlocator.errors import Refused
from lesionlocator.formats.case_folder import checksum, scan_stem
from lesionlocator.formats.dicom import open_series, read_dicom, read_dicom_geometry, split_selector
from lesionlocator.formats.dicom_files import starts_like_dicom
from lesionlocator.formats.dicom_series import Series, find_series
from lesionlocator.formats.itk import read_itk, read_itk_geometry
from lesionlocator.formats.nifti import read_nifti, read_nifti_geometry
from lesionlocator.formats.sources import local
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Modality, Volume

Reader = Callable[[Path, Modality | None], Volume]

_DICOM = "dicom"


def read_volume(path: Path | str, modality: Modality | None = None) -> Volume:
    """The scan at `path`: a NIfTI, NRRD or MetaImage file, or a DICOM series: a folder, a zip, a DICOMweb address.

    `FOLDER#SERIES` and `ARCHIVE.zip#SERIES` say which series is meant where there are several.
    `modality` is for files that do not say it themselves; without it, it is guessed with a warning.
    """
    name, path = scan_stem(Path(path)), local(Path(path))
    volume = READERS[_kind(path)](path, modality)
    return replace(volume, name=name)


def read_geometry(path: Path) -> Geometry:
    """The grid of the scan at `path`, from headers alone where the format has them."""
    path = local(path)
    kind = _kind(path)
    return GEOMETRIES[kind](path) if kind in GEOMETRIES else READERS[kind](path, None).geometry


def open_timepoint(
    path: Path, modality: Modality | None = None, *, name: str | None = None, lesions: tuple[Lesion, ...] = ()
) -> Timepoint:
    """A visit whose grid is read now and whose voxels are read when `load` is called. It can be sent to a process."""
    date: str | None = None
    here = local(path)
    if _kind(here) == _DICOM:
        series, _ = open_series(here)
        geometry, date = series.stack.geometry, series.date
    else:
        geometry = read_geometry(here)
    return Timepoint(name or scan_stem(path), geometry, partial(read_volume, path, modality), lesions, date)


def scan_checksum(path: Path) -> str:
    """SHA-256 of all that a scan is read from, wherever it is: of the one series where a folder holds several."""
    here = local(path)
    return checksum(here) if here.exists() else checksum(here, [file.path for file in open_series(here)[0].files])


def series_of(path: Path) -> tuple[Series, ...]:
    """The DICOM series at a path: the one that would be read, or all of them where there are several."""
    path = local(path)
    if _kind(path) != _DICOM:
        return ()
    try:
        return (open_series(path)[0],)
    except Refused:
        if not path.is_dir():
            raise
        return find_series(path).series


def _kind(path: Path) -> str:
    folder, selector = split_selector(path)
    if path.is_dir() or path.suffix.lower() in {".dcm", ".ima"} or (selector is not None and folder.is_dir()):
        return _DICOM
    ending = _ending(path.name)
    if ending is not None:
        return ending
    if path.is_file() and starts_like_dicom(path):
        return _DICOM
    if not path.exists():
        raise Refused(found=f"no file or folder {path}", needed="a scan", do="check the path")
    raise Refused(
        found=f"{path}, whose ending names no format that is read here",
        needed=f"a folder with one DICOM series, or a file ending in {', '.join(e for e in READERS if e != _DICOM)}",
        do="convert it to NIfTI",
    )


def _ending(name: str) -> str | None:
    return next((ending for ending in READERS if ending != _DICOM and name.lower().endswith(ending)), None)


READERS: dict[str, Reader] = {
    ".nii.gz": read_nifti,
    ".nii": read_nifti,
    ".nrrd": read_itk,
    ".nhdr": read_itk,
    ".mha": read_itk,
    ".mhd": read_itk,
    _DICOM: read_dicom,
}
"""Ending of the file's name -> reader. A new format is one function and one row."""

GEOMETRIES: dict[str, Callable[[Path], Geometry]] = {
    ".nii.gz": read_nifti_geometry,
    ".nii": read_nifti_geometry,
    ".nrrd": read_itk_geometry,
    ".nhdr": read_itk_geometry,
    ".mha": read_itk_geometry,
    ".mhd": read_itk_geometry,
    _DICOM: read_dicom_geometry,
}
"""Where a format lets its grid be read without its voxels. A format without a row is read whole."""
