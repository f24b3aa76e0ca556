"""The same patient as DICOM and as NIfTI: the same places in mm, and the structure set is the mask."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from provenance import ROOT, header, write

from lesionlocator.formats import label_masks, read_label_map, read_rtstruct, read_volume

SHARED = ROOT.parent / "shared" / "data"


def main():
    text = header("DICOM and NIfTI of one patient", "python evidence/dicom_and_nifti.py")
    series = SHARED / "sarcoma_dicom" / "STS_042"
    if not series.is_dir():
        write(
            "dicom_and_nifti", text + "\nSkipped: needs the scans of STS_042, which are not part of the repository.\n"
        )
        return
    text += """
STS_042 of the Soft-tissue-Sarcoma collection (doi:10.7937/K9/TCIA.2015.7GO2GSKS, CC BY 3.0), read from its DICOM series
and from the NIfTI files made from it by others; RTSTRUCT filled by us against the NIfTI mask.

| series | grid | largest distance of a corner, mm | voxels that differ | Dice of RTSTRUCT and mask |
|---|---|---|---|---|
"""
    worst = 1.0
    for name, kind in (("CT", "CT"), ("PET", "PT"), ("MR_T1", "MR")):
        row, dice = compare(series / name, SHARED / "sarcoma" / "STS_042", name, kind)
        text += row
        worst = min(worst, dice)
    write("dicom_and_nifti", text)
    if worst < 0.95:
        sys.exit(f"a structure set agrees with its mask to {worst:.3f} only")


def compare(series: Path, patient: Path, name: str, kind: str):
    dicom = read_volume(series / "image")
    image = next(path for path in sorted(patient.rglob("*.nii.gz")) if name in str(path) and "mask" not in str(path))
    mask_file = next(path for path in sorted(patient.rglob("*.nii.gz")) if name in str(path) and "mask" in str(path))
    nifti = read_volume(image, kind)
    mask = next(iter(label_masks(read_label_map(mask_file)).values()))
    drawn = next(iter(read_rtstruct(series / "mask" / "RS.dcm", dicom.geometry).values()))
    # Corners in any order of storage: each one's distance to the nearest of the other grid.
    between = np.linalg.norm(dicom.geometry.corners_mm[:, None] - nifti.geometry.corners_mm[None], axis=2)
    index = np.indices(dicom.geometry.shape).reshape(3, -1).T.astype(float)
    there = np.round(nifti.geometry.world_to_index(dicom.geometry.index_to_world(index))).astype(int)
    differing = np.count_nonzero(np.abs(dicom.array.ravel() - nifti.array[tuple(there.T)]) > 1e-3)
    placed = mask.placed(dicom.geometry)
    dice = 2 * drawn.overlap(placed) / (drawn.voxels + placed.voxels)
    shape = " x ".join(str(n) for n in dicom.geometry.shape)
    return f"| {name} | {shape} | {between.min(axis=1).max():.5f} | {differing} | {dice:.4f} |\n", dice


if __name__ == "__main__":
    main()
