"""A made-up patient as DICOM for the reading room: a CT and a PET on one table, and an MR."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from dicom_visits import write_visit
from lesionlocator.geometry import Geometry
from test_formats_dicom import tracer
from visits import Ball, grid, scan

HOT = Ball(-30, 0, 0, 12)
HOT_SUV, BODY_SUV = 8.0, 1.0
BRIGHT, DIM = 600, 300
SCRIPT = "Evil^<svg onload=document.title='stolen'>"
# 1000 stored is SUV 1: slope * 70000 g / (350 MBq halved by 3600 s of 6586.2 s) = 0.001.
_PET = {
    "Units": "BQML",
    "DecayCorrection": "START",
    "PatientWeight": 70.0,
    "CorrectedImage": ["ATTN", "DECY"],
    "SeriesTime": "101500",
    "AcquisitionDate": "20240131",
    "AcquisitionTime": "101600",
    "RescaleType": "US",
    "RescaleSlope": f"{0.001 * 350e6 * 2 ** (-3600 / 6586.2) / 70000:.10f}",
    "RadiopharmaceuticalInformationSequence": tracer(),
}


def write_ct(folder: Path, number: int = 0, **fields) -> Path:
    """A CT of fat with the lesion, of a patient whose name is a script."""
    geometry = grid()
    voxels = np.asarray(scan([HOT], geometry, 1 + number).array)
    return _write(folder, voxels, geometry, number, **fields)


def write_pet(folder: Path, **fields) -> Path:
    """The PET that goes with it, on a coarser grid in the same frame: SUV 1 in the body, 8 in the lesion."""
    affine = np.array([[0, 0, 4.0, -70], [0, 4.0, 0, -70], [4.0, 0, 0, -72], [0, 0, 0, 1.0]])
    geometry = Geometry((37, 36, 36), affine)
    x, y, z = geometry.index_to_world(np.indices(geometry.shape).reshape(3, -1).T.astype(float)).T
    suv = np.where((x / 68) ** 2 + (y / 60) ** 2 <= 1, BODY_SUV, 0.0)
    suv[(x - HOT.x) ** 2 + (y - HOT.y) ** 2 + (z - HOT.z) ** 2 <= HOT.radius**2] = HOT_SUV
    voxels = (1000 * suv).reshape(geometry.shape).astype(np.int16)
    said = {"SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.7.0.9", **_PET, **fields}
    return _write(folder, voxels, geometry, 0, modality="PT", **said)


def write_mr(folder: Path) -> Path:
    """An MR whose left half is bright, its right half dim."""
    geometry = grid()
    x, y, _ = geometry.index_to_world(np.indices(geometry.shape).reshape(3, -1).T.astype(float)).T
    values = np.where((x / 68) ** 2 + (y / 60) ** 2 <= 1, np.where(x > 0, BRIGHT, DIM), 0)
    voxels = values.reshape(geometry.shape).astype(np.int16)
    return _write(folder, voxels, geometry, 1, modality="MR", RescaleType="US")


def zipped(folder: Path) -> bytes:
    """The files of a series as one zip file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return packed.getvalue()


def _write(folder: Path, voxels: np.ndarray, geometry: Geometry, number: int, **fields) -> Path:
    x, y, z = geometry.affine[:3, 3]
    dz, dy, dx = geometry.spacing_mm
    said = {"PixelSpacing": [dy, dx], "SliceThickness": dz, "PatientName": SCRIPT, **fields}
    return write_visit(folder, voxels, number, [(x, y, z + dz * d) for d in range(len(voxels))], **said)
