"""A folder with one DICOM series becomes a scan."""

from __future__ import annotations

from pathlib import Path

from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Modality, Volume


def read_dicom(path: Path, modality: Modality | None = None) -> Volume:
    raise Refused(found=str(path), needed="the DICOM reader", do="wait for it")


def read_dicom_geometry(path: Path) -> Geometry:
    raise Refused(found=str(path), needed="the DICOM reader", do="wait for it")


def read_dicom_date(path: Path) -> str | None:
    return None
