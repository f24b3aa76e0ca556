"""What the released program answered on made-up weights, and how to ask ours the same (see parity/README.md)."""

from __future__ import annotations

import json
import runpy
import shutil
import tempfile
import zlib
from functools import cache
from pathlib import Path

import numpy as np

from lesionlocator.formats import label_masks, read_label_map, read_prompts, read_volume
from lesionlocator.prompt import Shape
from lesionlocator.published.ensemble import Effort, Ensemble
from lesionlocator.published.following import follow_all
from lesionlocator.published.outlining import outline_all
from lesionlocator.published.prompts import paint
from lesionlocator.published.scan import PlannedScan

FOLDER = Path(__file__).with_name("parity")
NEAR_EMPTY = 20
"""Up to so many voxels a mask counts as near-empty: two voxels may differ, Dice says nothing."""


def checkpoint() -> Path:
    """The made-up checkpoint, written once a machine (285 MB, in the folder for temporary files)."""
    stamp = zlib.crc32((FOLDER / "state_dict.json").read_bytes() + (FOLDER / "make_checkpoint.py").read_bytes())
    folder = Path(tempfile.gettempdir()) / f"lesionlocator-parity-{stamp:08x}"
    if not folder.is_dir():
        part = Path(tempfile.mkdtemp(prefix=folder.name + "-"))
        runpy.run_path(str(FOLDER / "make_checkpoint.py"))["main"](part)
        try:
            part.rename(folder)
        except OSError:
            shutil.rmtree(part)
    return folder


@cache
def ensemble(part: str, mirroring: bool = False) -> Ensemble:
    return Ensemble(checkpoint(), part, Effort(mirroring=mirroring))


@cache
def scan(name: str):
    return read_volume(FOLDER / f"{name}.nii.gz", "CT")


@cache
def planned(name: str) -> PlannedScan:
    return PlannedScan(scan(name), ensemble("track").plans)


def outlines(case: str, only: tuple[int, ...] | None = None) -> dict[str, np.ndarray]:
    """Our masks of a segmentation case, by the name of the released program's file."""
    kind = "box" if "_box" in case else "point"
    asked = ensemble(kind, "_tta" in case)
    prepared = PlannedScan(scan("bl"), asked.plans)
    if "json" in case:
        file = FOLDER / ("boxes.json" if kind == "box" else "points.json")
        prompts = [lesion.prompts for lesion in read_prompts(file, scan("bl").geometry)]
    else:
        prompts = [(Shape(mask),) for mask in labels("bl_lab")]
    numbers = [n for n in range(1, len(prompts) + 1) if only is None or n in only]
    painted = [paint(prompts[n - 1], prepared, kind) for n in numbers]
    found = outline_all(prepared, painted, asked)
    return {f"{case}/bl_lesion_{n}": mask.on(scan("bl").geometry) for n, mask in zip(numbers, found, strict=True)}


def followed(case: str) -> dict[str, np.ndarray]:
    """Our masks of a tracking case."""
    masks = labels("bl_lab2" if case == "track_auto" else "bl_lab")
    chain = {"track_same": ["fu"], "track_zshift": ["fu2"], "track_auto": ["fu", "fu2"]}[case]
    found, before = {}, "bl"
    for name in chain:
        masks = [answer.mask for answer in follow_all(planned(before), planned(name), masks, ensemble("track"))]
        found |= {f"{case}/{name}_lesion_{n}": m.on(scan(name).geometry) for n, m in enumerate(masks, start=1)}
        before = name
    return found


def labels(name: str):
    return list(label_masks(read_label_map(FOLDER / f"{name}.nii.gz")).values())


def released(key: str) -> np.ndarray:
    with np.load(FOLDER / "masks.npz") as stored:
        shape = tuple(stored[f"{key}/shape"])
        return np.unpackbits(stored[key])[: np.prod(shape)].reshape(shape).astype(bool)


def agreement(key: str, ours: np.ndarray) -> tuple[float, int]:
    """Dice with the released program's mask, and how many voxels differ."""
    theirs = released(key)
    both, total = int((ours & theirs).sum()), int(ours.sum() + theirs.sum())
    return (2 * both / total if total else 1.0), int((ours ^ theirs).sum())


def agrees(key: str, ours: np.ndarray) -> bool:
    dice, differing = agreement(key, ours)
    return differing <= 2 if released(key).sum() <= NEAR_EMPTY else dice >= 0.99


def plans() -> dict:
    return json.loads((FOLDER / "plans.json").read_text())
