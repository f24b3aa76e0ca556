"""Masks and label maps: read as lesions, written on the scan's grid in the scan's format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer, Shaped

from lesionlocator.errors import Refused
from lesionlocator.formats.case_folder import scan_stem
from lesionlocator.formats.dicom_seg import is_segmentation, read_segmentation
from lesionlocator.formats.itk import write_itk
from lesionlocator.formats.lattice import on_lattice
from lesionlocator.formats.nifti import write_nifti
from lesionlocator.formats.scans import read_volume
from lesionlocator.geometry import Geometry, Index3
from lesionlocator.volume import Mask, Volume

_EXACT_IN_FLOAT32 = 1 << 24
_DENSE = 1 << 16


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A whole number for each voxel: 0 is background, any other is the id of a lesion.

    `named` are the lesions of a file that names them itself and lets them overlap (DICOM SEG); `values` are then their
    places in it, counted from 1.
    """

    values: Integer[np.ndarray, "d h w"]
    geometry: Geometry
    name: str = "labels"
    named: Mapping[str, Mask] | None = None


def read_label_map(path: Path) -> LabelMap:
    """A label map or a mask in any image format, or a DICOM SEG."""
    if is_segmentation(path):
        segmentation = read_segmentation(path)
        numbered = dict(enumerate(segmentation.masks.values(), start=1))
        values = _painted(numbered, segmentation.geometry)
        return LabelMap(values, segmentation.geometry, scan_stem(path), segmentation.masks)
    # The modality is not used; naming one spares the guess.
    volume = read_volume(path, "MR")
    values = volume.array
    if values.dtype.kind == "f":
        values = _integral(values, path)
    if values.min() < 0:
        raise Refused(
            found=f"{path}, which has the label {values.min()}",
            needed="labels of 0 (background) and above",
            do="check that this is the label map and not the scan",
        )
    return LabelMap(values, volume.geometry, volume.name)


def label_masks(label_map: LabelMap, split: bool = False) -> dict[str, Mask]:
    """One mask for each label, by ascending label; ids are the labels. None for an empty map.

    With `split`, one for each 26-connected part of each label, with the ids "1", "2", ...: parts of lower labels first,
    parts of one label by their first voxel in array order (d, then h, then w).
    """
    from scipy import ndimage

    if label_map.named is not None:
        return dict(label_map.named) if not split else _parts_of(label_map.named)
    values, names = _dense(label_map.values)
    masks: list[tuple[str, Mask]] = []
    for index, slices in enumerate(ndimage.find_objects(values), start=1):
        if slices is None:
            continue
        crop = values[slices] == index
        start = _starts(slices)
        if not split:
            masks.append((str(names[index]), _placed(crop, start, label_map.geometry)))
            continue
        parts = np.zeros(crop.shape, np.int32)
        ndimage.label(crop, np.ones((3, 3, 3), bool), output=parts)
        for part, inner in enumerate(ndimage.find_objects(parts), start=1):
            shift = _starts(inner)
            at = (start[0] + shift[0], start[1] + shift[1], start[2] + shift[2])
            masks.append((str(len(masks) + 1), _placed(parts[inner] == part, at, label_map.geometry)))
    return dict(masks)


def on_one_grid(label_map: LabelMap, geometry: Geometry) -> LabelMap | None:
    """A DICOM SEG on the grid of a scan; any other label map as it is.

    None where a voxel of a lesion is no voxel of that grid.
    """
    if label_map.named is None:
        return label_map
    refuse_other_frame(label_map, geometry)
    found = {name: on_lattice(mask, geometry) for name, mask in label_map.named.items()}
    masks = {name: mask for name, mask in found.items() if mask is not None}
    if len(masks) < len(found):
        return None
    values = _painted(dict(enumerate(masks.values(), start=1)), geometry)
    return LabelMap(values, geometry, label_map.name, masks)


def refuse_other_frame(label_map: LabelMap, geometry: Geometry) -> None:
    """Refuses outlines of another frame of reference: the same millimetres are another place in the patient there."""
    drawn, wanted = label_map.geometry.frame, geometry.frame
    if drawn is not None and wanted is not None and drawn != wanted:
        raise Refused(
            found=f"{label_map.name}, drawn in the frame of reference {drawn}",
            needed=f"that of the scan, {wanted}",
            do="name the scan that it was drawn on, or register the two first",
        )


def write_mask(path: Path, mask: Mask, geometry: Geometry) -> None:
    """A mask on the whole grid of its scan: 0 and 1, uint8. The format follows the ending."""
    _writer(path)(path, mask.on(geometry).view(np.uint8), geometry)


def write_labels(path: Path, labels: Mapping[int, Mask] | Integer[np.ndarray, "d h w"], geometry: Geometry) -> None:
    """Several masks in one file, each with its number. A voxel that two lesions claim belongs to neither (0)."""
    array = labels if isinstance(labels, np.ndarray) else _painted(labels, geometry)
    _writer(path)(path, array.astype(_smallest(array), copy=False), geometry)


def write_volume(path: Path, volume: Volume) -> None:
    """A scan, with its numbers as they are: int16 or float32 (others are converted to the nearer of the two)."""
    array = volume.array
    if array.dtype.name not in {"int16", "float32"}:
        fits = array.dtype.kind in "biu" and array.min() >= -32768 and array.max() <= 32767
        array = array.astype(np.int16 if fits else np.float32)
    _writer(path)(path, array, volume.geometry)


def _parts_of(named: Mapping[str, Mask]) -> dict[str, Mask]:
    parts = [
        part
        for mask in named.values()
        for part in label_masks(LabelMap(mask.array.astype(np.uint8), mask.geometry), split=True).values()
    ]
    return {str(number): part for number, part in enumerate(parts, start=1)}


def _integral(values: np.ndarray, path: Path) -> Integer[np.ndarray, "d h w"]:
    whole = np.isfinite(values).all() and np.array_equal(values, np.round(values))
    if not whole or np.abs(values).max() >= _EXACT_IN_FLOAT32:
        odd = values[(values != np.round(values)) | (np.abs(values) >= _EXACT_IN_FLOAT32) | ~np.isfinite(values)]
        raise Refused(
            found=f"{path}, which has the value {odd.flat[0]:.6g}",
            needed=f"a label map: whole numbers from 0 to {_EXACT_IN_FLOAT32 - 1}",
            do="check that this is the label map and not the scan, and that it was resampled with nearest neighbour",
        )
    return values.astype(np.int32)


def _dense(values: Integer[np.ndarray, "d h w"]) -> tuple[Integer[np.ndarray, "d h w"], Mapping[int, int]]:
    """Labels that are close together, since the look-up below takes memory for every number up to the largest."""
    largest = int(values.max())
    if largest < _DENSE:
        return values, {index: index for index in range(1, largest + 1)}
    present = np.unique(values[values != 0])
    dense = np.zeros(values.shape, np.int32)
    dense[values != 0] = np.searchsorted(present, values[values != 0]) + 1
    return dense, {index: int(name) for index, name in enumerate(present, start=1)}


def _starts(slices: tuple[slice, ...]) -> Index3:
    d, h, w = (int(s.start) for s in slices)
    return d, h, w


def _placed(crop: np.ndarray, start: Index3, geometry: Geometry) -> Mask:
    stop = (start[0] + crop.shape[0], start[1] + crop.shape[1], start[2] + crop.shape[2])
    return Mask(crop, geometry.crop(start, stop))


def _painted(masks: Mapping[int, Mask], geometry: Geometry) -> Integer[np.ndarray, "d h w"]:
    if any(not 0 < number < 65536 for number in masks):
        raise Refused(
            found=f"the labels {sorted(masks)}", needed="labels from 1 to 65535", do="number the lesions from 1"
        )
    array = np.zeros(geometry.shape, np.uint16)
    claims = np.zeros(geometry.shape, np.uint8)
    for number, mask in masks.items():
        placed = mask.on(geometry)
        array[placed] = number
        claims[placed] = np.minimum(claims[placed] + 1, 2)
    array[claims > 1] = 0
    return array


def _smallest(array: np.ndarray) -> type[np.unsignedinteger]:
    largest = int(array.max())
    if int(array.min()) < 0 or largest > 65535:
        raise Refused(
            found=f"labels from {array.min()} to {largest}", needed="labels from 0 to 65535", do="number them again"
        )
    return np.uint8 if largest < 256 else np.uint16


def _writer(path: Path) -> Callable[[Path, Shaped[np.ndarray, "d h w"], Geometry], None]:
    name = path.name.lower()
    for ending, write in WRITERS.items():
        if name.endswith(ending):
            return write
    raise Refused(
        found=f"the output name {path.name}",
        needed=f"an ending that can be written: {', '.join(WRITERS)}",
        do="give it one of these endings",
    )


WRITERS: dict[str, Callable[[Path, Shaped[np.ndarray, "d h w"], Geometry], None]] = {
    ".nii.gz": write_nifti,
    ".nii": write_nifti,
    ".nrrd": write_itk,
    ".mha": write_itk,
}
"""Ending of the file's name -> writer. A new format is one function and one row."""
