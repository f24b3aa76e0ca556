"""A folder with one DICOM series becomes a scan; what cannot be one scan is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from lesionlocator.formats.dicom_pixels import voxels_of
from lesionlocator.formats.dicom_series import Series, find_series, images_in, only_series, select_series
from lesionlocator.formats.dicom_stack import Stack
from lesionlocator.formats.intensities import settle_modality
from lesionlocator.formats.suv import SUV, Uptake, read_uptake
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Modality, Volume

_MODALITIES: dict[str, Modality] = {"CT": "CT", "MR": "MR", "PT": "PT"}
_HIGHEST_SUV = 1000.0
SELECTOR = "#"
"""What stands between a folder and the series in it that is meant."""


def read_dicom(path: Path, modality: Modality | None = None) -> Volume:
    """The one series in a folder (or one file of it): sorted by position, rescaled, PET as SUV where that can be.

    `FOLDER#SERIES` names one of several series by its number in the list, its UID or its description.
    """
    series, told = open_series(path)
    stack = series.stack
    headers = [one.header for one in stack.slices]
    named = series.modality
    uptake = read_uptake(headers) if named == "PT" else Uptake(1.0)
    array = voxels_of(stack.slices, uptake.scale)
    array = array if stack.is_regular else _evened(array, stack)
    found, about = _modality(named, modality, array)
    warnings = (*told, *stack.warnings, *uptake.warnings, *about)
    if found == "PT" and uptake.unit == SUV and float(array.max()) > _HIGHEST_SUV:
        warnings = (*warnings, f"the PET has values up to {float(array.max()):.0f}, too high to be SUV")
    own_unit = uptake.unit if found == "PT" and uptake.unit != SUV else None
    return Volume(array, stack.geometry, found, warnings=warnings, own_unit=own_unit)


def read_dicom_geometry(path: Path) -> Geometry:
    """The grid of the series, from its headers alone."""
    return open_series(path)[0].stack.geometry


def open_series(path: Path) -> tuple[Series, tuple[str, ...]]:
    """The series that a path means, with warnings about what else lies there."""
    folder, selector = split_selector(path)
    if selector is None:
        images, told = images_in(folder)
        series, left_out = only_series(images, folder)
        return series, (*told, *left_out)
    found = find_series(folder)
    told = tuple(f"left out: {problem}" for problem in found.problems)
    return select_series(found, selector), told


def split_selector(path: Path) -> tuple[Path, str | None]:
    """The folder, and what stands behind a `#` in a path that does not exist as it is."""
    name, mark, selector = path.name.rpartition(SELECTOR)
    if not mark or not name or path.exists():
        return path, None
    return path.with_name(name), selector


def _modality(named: str, given: Modality | None, array: np.ndarray) -> tuple[Modality, tuple[str, ...]]:
    known = _MODALITIES.get(named)
    if known is None:
        return settle_modality(array, given)
    if given not in {None, known}:
        return known, (f"the header says {known}; --modality {given} was not used",)
    return known, ()


def _evened(array: np.ndarray, stack: Stack) -> np.ndarray:
    """Linear interpolation between unevenly spaced slices."""
    count = stack.geometry.shape[0]
    out = np.empty((count, *array.shape[1:]), array.dtype)
    at: Float[np.ndarray, " n"] = np.clip(np.arange(count), 0, stack.along[-1])
    below = np.clip(np.searchsorted(stack.along, at, side="right") - 1, 0, len(array) - 2)
    part = (at - stack.along[below]) / (stack.along[below + 1] - stack.along[below])
    for index, (low, t) in enumerate(zip(below, part, strict=True)):
        mixed = array[low].astype(np.float32) * np.float32(1 - t) + array[low + 1].astype(np.float32) * np.float32(t)
        out[index] = np.round(mixed) if out.dtype == np.int16 else mixed
    return out
