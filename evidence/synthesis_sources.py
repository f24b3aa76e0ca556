"""The scans of ../shared/data that have lesions drawn by readers, as visits from which changes start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from provenance import ROOT
from scipy import ndimage

from lesionlocator import read_volume
from lesionlocator.synth.visit import Visit
from lesionlocator.volume import Mask, Modality, Volume

DATA = ROOT.parent / "shared" / "data"
EVERYWHERE = np.ones((3, 3, 3), bool)
PAROTIDS = (3, 4)
"""Labels of the head and neck scans: real outlines of something of a lesion's size, in a hundred patients."""


def lesions() -> Iterator[tuple[str, Visit]]:
    """(patient, visit) of every scan with lesions that are drawn; several scans may be of one patient."""
    yield "nodule", visit("nodule/ct", ["nodule/reader_votes"], "CT", above=1)
    yield "lung", visit("lung_ct/ct", ["lung_ct/tumour_mask", "lung_ct/node_mask"], "CT")
    for patient in sorted((DATA / "sarcoma").glob("STS_*")):
        for name, modality in (("CT", "CT"), ("MR_T1", "MR"), ("PET", "PT")):
            at = f"sarcoma/{patient.name}/{name}"
            yield patient.name, visit(f"{at}_image", [f"{at}_mask"], modality)
    for patient in sorted((DATA / "glioblastoma_pairs").glob("[0-9]*")):
        for when in ("baseline", "followup"):
            at = f"glioblastoma_pairs/{patient.name}/{when}"
            yield f"glioblastoma {patient.name}", visit(f"{at}_T1c", [f"{at}_mask"], "MR")


def parotids(count: int) -> Iterator[tuple[str, Visit]]:
    """(patient, visit) of head and neck scans, with the parotid glands in place of lesions."""
    for ct in sorted((DATA / "headneck").glob("*_ct.nii.gz"))[:count]:
        name = ct.name.split("_")[0]
        volume = read_volume(ct)
        organs = read_volume(ct.with_name(f"{name}_organs.nii.gz"))
        masks = {str(label): Mask.from_array(organs.array == label, volume.geometry) for label in PAROTIDS}
        yield name, Visit.of(volume, {key: mask for key, mask in masks.items() if mask.voxels >= 30})


def visit(image: str, masks: list[str], modality: Modality, above: int = 0) -> Visit:
    volume = replace(read_volume(DATA / f"{image}.nii.gz"), modality=modality)
    found: list[Mask] = []
    for path in masks:
        drawn: Volume = read_volume(DATA / f"{path}.nii.gz")
        labels, count = ndimage.label(drawn.array > above, EVERYWHERE)
        parts = [Mask.from_array(labels == label, volume.geometry) for label in range(1, count + 1)]
        found += [part for part in parts if part.voxels >= 8]
    return Visit.of(volume, {str(number): mask for number, mask in enumerate(found, start=1)})
