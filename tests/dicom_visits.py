"""A made-up patient as DICOM: visits with a lesion, complete enough for other programs to take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset

from dicom_phantoms import write_series
from lesionlocator.case import Case, Lesion, Status
from lesionlocator.formats import open_timepoint
from lesionlocator.geometry import Geometry
from lesionlocator.measure import measure_case
from lesionlocator.report import Record, write_report
from lesionlocator.volume import Mask

STUDY = "1.2.826.0.1.3680043.8.498.7"
WHOLE = {
    "PatientID": "p-1",
    "PatientName": "Test^Patient",
    "PatientBirthDate": "19500101",
    "PatientSex": "M",
    "StudyID": "1",
    "StudyTime": "101010",
    "AccessionNumber": "",
    "ReferringPhysicianName": "",
    "SeriesNumber": 2,
    "ContentDate": "20240131",
    "ContentTime": "101010",
    "Manufacturer": "maker",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "RescaleType": "HU",
    "RescaleSlope": 1,
    "RescaleIntercept": 0,
    "KVP": 120,
    "AcquisitionNumber": 1,
    "PatientPosition": "HFS",
    "PositionReferenceIndicator": "",
}


def write_visit(folder: Path, voxels: np.ndarray, number: int = 0, positions=None, **fields) -> Path:
    """A series of a visit of its own, on a day of its own, with headers that a checker has nothing against."""
    said = {
        "StudyInstanceUID": f"{STUDY}.{number}",
        "SeriesInstanceUID": f"{STUDY}.{number}.1",
        "FrameOfReferenceUID": f"{STUDY}.{number}.2",
        "StudyDate": f"2024{1 + number:02d}31"[:8] if number % 2 == 0 else f"2024{1 + number:02d}28",
        **WHOLE,
        **fields,
    }
    said["SeriesDate"] = said["StudyDate"]
    write_series(folder, voxels, positions, **said)
    for file in folder.iterdir():
        whole = dcmread(file)
        meta = FileMetaDataset()
        meta.update(whole.file_meta)
        whole.file_meta = meta
        whole.save_as(file, enforce_file_format=True)
    return folder


def noise(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-100, 100, shape).astype(np.int16)


def block(geometry: Geometry, *ranges: tuple[int, int]) -> Mask:
    """The voxels of an index box."""
    array = np.zeros(geometry.shape, bool)
    array[tuple(slice(a, b) for a, b in ranges)] = True
    return Mask.from_array(array, geometry)


def finished(out: Path, series: list[Path], lesions: list[dict[str, Mask | None]], links=(), **arguments) -> Path:
    """The output folder of a run that outlined these lesions in these series; None is a lesion that is gone."""
    visits = [
        open_timepoint(path).with_lesions(
            tuple(
                Lesion(name, (), mask, Status.OUTLINED)
                if mask is not None
                else Lesion(name, (), None, Status.ABSENT, "no longer seen")
                for name, mask in found.items()
            )
        )
        for path, found in zip(series, lesions, strict=True)
    ]
    case = Case(tuple(visits), tuple(links))
    record = Record("track" if len(series) > 1 else "segment", arguments, {"id": "contrast-1", "kind": "contrast"})
    for path, visit in zip(series, visits, strict=True):
        modality = visit.load().modality
        record.inputs.append({"scan": visit.name, "path": str(path), "sha256": "0" * 64, "modality": modality})
    return write_report(case, measure_case(case), out, record)
