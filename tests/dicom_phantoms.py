"""Small DICOM series and structure sets, made whole or with one thing wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
    generate_uid,
)

FRAME = "1.2.826.0.1.3680043.8.498.1"
SERIES = "1.2.826.0.1.3680043.8.498.2"
_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}


def dataset(sop_class, **fields) -> FileDataset:
    """An object with a header and nothing else."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    made.SeriesInstanceUID, made.FrameOfReferenceUID = SERIES, FRAME
    made.StudyDate, made.SeriesDescription = "20240131", "abdomen"
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def one_slice(pixels, position, modality="CT", orientation=(1, 0, 0, 0, 1, 0), **fields) -> FileDataset:
    """One image; `pixels` are stored as they are."""
    made = dataset(_CLASSES[modality], Modality=modality)
    made.ImagePositionPatient = [float(v) for v in position]
    made.ImageOrientationPatient = [float(v) for v in orientation]
    made.PixelSpacing, made.SliceThickness = [0.8, 0.7], 3.0
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    for name, value in fields.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


def write_series(folder: Path, voxels, positions=None, **fields) -> Path:
    """Voxels (d, h, w) as a series whose file names say nothing about the order."""
    folder.mkdir(parents=True, exist_ok=True)
    positions = [(-10, 20, 100 + 3 * d) for d in range(len(voxels))] if positions is None else positions
    for index, (pixels, position) in enumerate(zip(voxels, positions, strict=True)):
        name = f"{(index * 7) % 11:02d}_{index}.dcm"
        one_slice(pixels, position, InstanceNumber=len(voxels) - index, **fields).save_as(folder / name)
    return folder


def write_structures(path: Path, regions: dict[str, list[np.ndarray]], frame: str = FRAME) -> Path:
    """A structure set; each region is a list of contours, (n, 3) in mm."""
    made = dataset(RTStructureSetStorage, Modality="RTSTRUCT")
    reference = Dataset()
    reference.FrameOfReferenceUID = frame
    made.ReferencedFrameOfReferenceSequence = Sequence([reference])
    made.StructureSetROISequence, made.ROIContourSequence = Sequence(), Sequence()
    for number, (name, contours) in enumerate(regions.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, drawn.ReferencedROINumber = number, name, number
        drawn.ContourSequence = Sequence()
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points)
            contour.ContourData = [f"{v:.4f}" for v in np.ravel(points)]
            drawn.ContourSequence.append(contour)
        made.StructureSetROISequence.append(roi)
        made.ROIContourSequence.append(drawn)
    made.save_as(path)
    return path
