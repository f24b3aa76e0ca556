"""A patient's scans and prompts as files: how they are named, opened and found in a folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lesionlocator.case import Case, Lesion, Status, Timepoint
from lesionlocator.errors import Refused
from lesionlocator.formats.dicom import split_selector
from lesionlocator.formats.dicom_web import is_address
from lesionlocator.volume import Modality

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
PROMPT_STEMS = ("prompts", "labels")


def scan_stem(path: Path) -> str:
    """A scan's file name without its ending; a folder's own name; of an address, its last part.

    A series that is chosen behind a `#` adds its number or UID.
    """
    if is_address(path):
        return _harmless(path.name)
    path, selector = split_selector(path.resolve())
    if selector is not None:
        return f"{scan_stem(path)}_{_harmless(selector)}"
    lower = path.name.lower()
    ending = next((ending for ending in (*_ENDINGS, ".zip") if lower.endswith(ending)), "")
    return path.name[: len(path.name) - len(ending)] or path.name


def _harmless(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


def scan_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """The names that outputs get: the stems if they differ, else PARENT_STEM, else t0_STEM, t1_STEM and so on."""
    resolved = [path if is_address(path) else path.resolve() for path in paths]
    stems = [scan_stem(path) for path in resolved]
    with_parent = [f"{path.parent.name}_{stem}" for path, stem in zip(resolved, stems, strict=True)]
    unique = tuple(stem if stems.count(stem) == 1 else longer for stem, longer in zip(stems, with_parent, strict=True))
    if len(set(unique)) == len(unique):
        return unique
    return tuple(f"t{index}_{stem}" for index, stem in enumerate(stems))


def open_case(
    scans: Sequence[Path],
    prompts: Path | None = None,
    *,
    kind: Literal["box", "click", "mask"] | None = None,
    split: bool = False,
    modality: Modality | None = None,
) -> Case:
    """A case from scan files, oldest first, and the prompts for the first. Headers are read now, voxels on need."""
    from lesionlocator.formats import open_timepoint, read_prompts

    if not scans:
        raise Refused(found="no scan", needed="at least one", do="name the scans, oldest first")
    names = scan_names(scans)
    timepoints = [open_timepoint(path, modality, name=name) for path, name in zip(scans, names, strict=True)]
    if prompts is not None:
        lesions = read_prompts(prompts, timepoints[0], kind=kind, split=split)
        timepoints[0] = timepoints[0].with_lesions(lesions)
    return Case(tuple(timepoints))


def read_case(folder: Path | str) -> Case:
    """A case from a folder: its scans (oldest first by name) and one prompt file for the first of them.

    The prompt file is `prompts.json`, another `.json`, or a label map whose name starts with `prompts` or `labels`, or
    ends with `_prompts` or `_labels`.
    """
    scans, prompts = find_case_files(Path(folder))
    return open_case(scans, prompts)


def find_case_files(folder: Path) -> tuple[tuple[Path, ...], Path]:
    """The scans of a case folder, in the order of their names, and its one prompt file."""
    if not folder.is_dir():
        raise Refused(found=f"no folder {folder}", needed="a folder with scans and prompts", do="check the path")
    scans, prompts = list_case_files(folder)
    if not scans:
        raise Refused(
            found=f"no scan in {folder}", needed="NIfTI, NRRD or MHA files, or DICOM folders", do="put the scans there"
        )
    if len(prompts) != 1:
        listed = ", ".join(path.name for path in prompts) or "none"
        raise Refused(
            found=f"{len(prompts)} prompt files in {folder} ({listed})",
            needed="exactly one, for the first scan",
            do="keep `prompts.json`, or one label map named `prompts` or `..._labels`",
        )
    return scans, prompts[0]


def list_case_files(folder: Path) -> tuple[tuple[Path, ...], list[Path]]:
    """The scans of a folder and its prompt files, in the order of their names; hidden entries are left out."""
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    prompts = [path for path in entries if _is_prompt_file(path)]
    return tuple(path for path in entries if path not in prompts and _is_scan(path)), prompts


def checksum(path: Path, files: Sequence[Path] | None = None) -> str:
    """SHA-256 of a file; of a folder, or of some files, that of their names and contents in order of name."""
    digest = hashlib.sha256()
    if files is None:
        files = [path] if path.is_file() else [inner for inner in path.rglob("*") if inner.is_file()]
    for file in sorted(files):
        if file != path:
            digest.update(str(file.relative_to(path) if file.is_relative_to(path) else file.name).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _is_prompt_file(path: Path) -> bool:
    if path.suffix == ".json":
        return True
    stem = scan_stem(path).lower()
    named = any(stem.startswith(word) or stem.endswith(f"_{word}") for word in PROMPT_STEMS)
    return path.is_file() and named and path.name.lower().endswith(_ENDINGS)


def _is_scan(path: Path) -> bool:
    if path.is_dir():
        return any(inner.is_file() for inner in path.rglob("*"))
    return path.name.lower().endswith((*_ENDINGS, ".zip"))


def open_masks(scan: Path, masks: Sequence[Path], modality: Modality | None = None) -> Timepoint:
    """A scan with outlines that exist already: mask files, folders of them, or label maps, all on its grid.

    A file named `..._lesion_ID` is the lesion ID. Another file with one label is named after the file if there are
    several files, else after the label; a file with several labels is one lesion for each. In a folder, files of other
    scans (`OTHER_lesion_ID`) and the joint map (`NAME_lesions`) are left out when single lesion files of this scan are
    there.
    """
    from lesionlocator.formats import open_timepoint

    timepoint = open_timepoint(scan, modality)
    files = [file for path in masks for file in _mask_files(path, timepoint.name)]
    if not files:
        raise Refused(
            found=f"no mask in {', '.join(str(path) for path in masks)}",
            needed="mask files, a folder of them, or a label map",
            do="check the path",
        )
    lesions = [lesion for file in files for lesion in _lesions_of(file, timepoint, alone=len(files) == 1)]
    return timepoint.with_lesions(tuple(lesions))


def _mask_files(path: Path, scan: str) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name.lower().endswith(_ENDINGS))
    singles = [file for file in files if "_lesion_" in scan_stem(file)]
    ours = [file for file in singles if scan_stem(file).startswith(f"{scan}_lesion_")]
    return ours or singles or files


def _lesions_of(file: Path, timepoint: Timepoint, *, alone: bool) -> list[Lesion]:
    from lesionlocator.formats import label_masks, on_one_grid, read_label_map

    label_map = on_one_grid(read_label_map(file), timepoint.geometry)
    if label_map is None or not label_map.geometry.same_as(timepoint.geometry):
        raise Refused(
            found=f"{file}, whose grid is not that of the scan {timepoint.name}",
            needed="the same grid, to 0.01 mm",
            do="resample the mask to the scan, or name the scan that it was drawn on",
        )
    found = label_masks(label_map, split=False)
    stem = scan_stem(file)
    name = stem.rsplit("_lesion_", 1)[1] if "_lesion_" in stem else stem
    if not found:
        return [Lesion(name, (), None, Status.ABSENT, f"{file.name} is empty")]
    if label_map.named or len(found) > 1 or (alone and "_lesion_" not in stem):
        return [Lesion(label, (), mask, Status.OUTLINED) for label, mask in found.items()]
    return [Lesion(name, (), next(iter(found.values())), Status.OUTLINED)]
