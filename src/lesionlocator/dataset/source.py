"""One scan of a source, as its layout describes it, and what is read from it: voxels, lesions, organs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lesionlocator.errors import Refused
from lesionlocator.formats import LabelMap, checksum, label_masks, read_label_map, read_volume
from lesionlocator.volume import Mask, Modality, Volume

_UNSAFE = re.compile(r"[^A-Za-z0-9-]+")


@dataclass(frozen=True)
class Labels:
    """How a label map is to be read.

    `lesions` are the labels that are lesions (without any: all); `organs` gives names to others. With `split` each
    26-connected part of a lesion label is a lesion of its own; else a label is a lesion and its id. A label map that
    counts readers' votes has a lesion where there are `at_least` of them.
    """

    path: Path
    lesions: tuple[int, ...] = ()
    organs: tuple[tuple[int, str], ...] = ()
    split: bool = False
    at_least: int = 1


@dataclass(frozen=True)
class SourceScan:
    """A scan that a data set can be made from. Without labels of lesions it is a background.

    `complete` says that every lesion in it has a label; where nobody promised that, it is False.
    """

    id: str
    image: Path
    patient: str
    visit: int = 0
    labels: tuple[Labels, ...] = ()
    modality: Modality | None = None
    collection: str = ""
    complete: bool = True


@dataclass(frozen=True, eq=False)
class Opened:
    """What a source scan holds."""

    volume: Volume
    lesions: Mapping[str, Mask] = field(default_factory=dict[str, Mask])
    organs: Mapping[str, Mask] = field(default_factory=dict[str, Mask])


def safe_name(*parts: str) -> str:
    """A name for files, from words that may hold anything: letters, digits, `-`, and `_` for the rest."""
    joined = "_".join(part for part in parts if part)
    return _UNSAFE.sub("_", joined).strip("_") or "scan"


def open_source(scan: SourceScan) -> Opened:
    """Reads a source scan and its label maps.

    Lesions of several maps are numbered on, so that no two share an id.

    Raises:
        Refused: A file cannot be read, or a label map is on another grid than its scan.
    """
    volume = replace(read_volume(scan.image, scan.modality), name=scan.id)
    lesions: dict[str, Mask] = {}
    organs: dict[str, Mask] = {}
    for labels in scan.labels:
        label_map = read_label_map(labels.path)
        if not label_map.geometry.same_as(volume.geometry):
            raise Refused(
                found=f"{labels.path}, whose grid is not that of {scan.image}",
                needed="the same grid, to 0.01 mm",
                do="resample the labels to their scan (nearest neighbour)",
            )
        # The scan's own grid, so that masks and scan are on one lattice to the last digit.
        values = label_map.values
        organs |= {name: Mask.from_array(values == label, volume.geometry) for label, name in labels.organs}
        for name, mask in _lesions(LabelMap(values, volume.geometry), labels).items():
            lesions[_free(name, lesions)] = mask
    return Opened(volume, lesions, {name: mask for name, mask in organs.items() if not mask.is_empty})


def source_checksums(scan: SourceScan) -> dict[str, str]:
    """SHA-256 of the image and of every label map, by the name of the file."""
    return {str(path): checksum(path) for path in (scan.image, *(labels.path for labels in scan.labels))}


def _lesions(label_map: LabelMap, labels: Labels) -> dict[str, Mask]:
    values = label_map.values
    if labels.at_least > 1:
        values = (values >= labels.at_least).astype(np.int32)
    elif labels.lesions:
        values = np.where(np.isin(values, labels.lesions), values, 0)
    elif labels.organs:
        values = np.zeros_like(values)
    if labels.split and len(labels.lesions) > 1:
        # Parts of one tumour that have labels of their own (core, oedema) are one lesion.
        values = (values > 0).astype(np.int32)
    return label_masks(LabelMap(values, label_map.geometry), split=labels.split)


def _free(name: str, taken: Mapping[str, Mask]) -> str:
    number = len(taken) + 1
    while name in taken:
        name, number = str(number), number + 1
    return name
