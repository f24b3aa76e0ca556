"""A user's own data: a folder of scans and label maps of the same names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lesionlocator.errors import Refused
from lesionlocator.formats import label_masks, read_label_map, read_volume
from lesionlocator.synth.scene import Background
from lesionlocator.train.sources import Outlined, as_background
from lesionlocator.volume import Modality

IMAGES, LABELS = "images", "labels"


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Lesions that somebody outlined, and scans without any, which painted lesions are put into."""

    lesions: Sequence[Outlined]
    backgrounds: Sequence[Background]


def read_training_data(folder: Path, modality: Modality | None) -> TrainingData:
    """All scans of `images/`, with their lesions from `labels/`.

    A label map has the name of its scan; every label is one lesion. A scan without a label map, or with an empty one,
    counts as free of lesions. `KIND_PATIENT_more.nii.gz` is not parsed: the name up to the first `_` is the patient.

    Raises:
        Refused: No scan, or a label map on another grid than its scan.
    """
    scans = sorted(
        path for path in (folder / IMAGES).glob("*") if path.name.endswith((".nii.gz", ".nii", ".nrrd", ".mha"))
    )
    if not scans:
        raise Refused(
            found=f"no scan in {folder / IMAGES}",
            needed=f"scans in `{IMAGES}` and label maps of the same names in `{LABELS}`",
            do="put them there, or name another folder",
        )
    lesions: list[Outlined] = []
    backgrounds: list[Background] = []
    for path in scans:
        volume = read_volume(path, modality)
        labels = folder / LABELS / path.name
        found = {}
        if labels.is_file():
            label_map = read_label_map(labels)
            if not label_map.geometry.same_as(volume.geometry):
                raise Refused(
                    found=f"{labels.name}, whose grid is not that of its scan",
                    needed="the same grid, to 0.01 mm",
                    do="resample the label map to its scan",
                )
            found = label_masks(label_map)
        patient = path.name.split("_")[0].split(".")[0]
        lesions += [Outlined(volume, mask, volume.modality, patient) for mask in found.values() if not mask.is_empty]
        if not found:
            backgrounds.append(as_background(volume))
    return TrainingData(lesions, backgrounds)
