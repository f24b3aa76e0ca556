"""Scores of mask files: two files, or two folders with files of the same names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from lesionlocator.errors import Refused
from lesionlocator.formats import LabelMap, label_masks, on_one_grid, read_label_map, scan_stem
from lesionlocator.score import MaskScore, score_masks
from lesionlocator.volume import Mask

MISSING = "no prediction of this name"
_MEANS = ("dice", "nsd", "hd95_mm", "volume_error_ml", "volume_error_percent", "diameter_error_mm")


@dataclass(frozen=True)
class ScoredLesion:
    """One lesion of one file. Without a score, `reason` says why; it also says when one side has no such lesion."""

    name: str
    lesion_id: str
    score: MaskScore | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Name, id, reason and every score, flat; None where there is none."""
        scores = {field.name: getattr(self.score, field.name, None) for field in fields(MaskScore)}
        return {"name": self.name, "lesion_id": self.lesion_id, **scores, "reason": self.reason}


def score_files(predicted: Path, truth: Path) -> list[ScoredLesion]:
    """Every lesion of the truth, and every predicted one that is not in the truth, scored.

    Two binary masks are one lesion, whatever their labels; label maps are matched by id. In folders, files are matched
    by name without ending. A file without a prediction is scored as an empty one, with that reason; one without a
    truth, on another grid, or with a namesake in its folder is a row with its reason and no score.

    Raises:
        Refused: Two files that cannot be compared, or two folders without a file in common or at all.
    """
    if predicted.is_dir() != truth.is_dir():
        raise Refused(
            found=f"a file and a folder ({predicted}, {truth})",
            needed="two files or two folders",
            do="name two of a kind",
        )
    if not truth.is_dir():
        return list(_score_maps(scan_stem(truth), read_label_map(predicted), read_label_map(truth)))
    (given, twice_given), (expected, twice_expected) = _masks_in(predicted), _masks_in(truth)
    if not expected or not given:
        empty = truth if not expected else predicted
        raise Refused(
            found=f"no mask in {empty}", needed="mask files with the same names in both folders", do="check it"
        )
    unclear = {**twice_given, **twice_expected}
    return [
        row
        for name in sorted({*given, *expected, *unclear})
        for row in (
            [ScoredLesion(name, "", None, unclear[name])] if name in unclear else _score_named(name, given, expected)
        )
    ]


def mean_scores(lesions: Sequence[ScoredLesion]) -> dict[str, float | None]:
    """Mean of each score over the lesions that have it; None where none has."""
    means: dict[str, float | None] = {}
    for name in _MEANS:
        values = [getattr(lesion.score, name) for lesion in lesions if lesion.score is not None]
        known = [float(value) for value in values if value is not None]
        means[name] = sum(known) / len(known) if known else None
    return means


def _score_named(name: str, given: Mapping[str, Path], expected: Mapping[str, Path]) -> Iterator[ScoredLesion]:
    if name not in expected:
        yield ScoredLesion(name, "", None, "predicted, but there is no truth of this name")
        return
    try:
        truth = read_label_map(expected[name])
        predicted = read_label_map(given[name]) if name in given else None
        scored = _score_maps(name, predicted or LabelMap(np.zeros_like(truth.values), truth.geometry), truth)
        # A case that nobody predicted counts as found in no part: leaving it out would make a method look better.
        yield from scored if predicted else (replace(row, reason=MISSING) for row in scored)
    except Refused as refused:
        yield ScoredLesion(name, "", None, str(refused))


def _score_maps(name: str, predicted: LabelMap, truth: LabelMap) -> Iterator[ScoredLesion]:
    predicted, truth = _together(predicted, truth)
    if not predicted.geometry.same_as(truth.geometry):
        raise Refused(
            found=f"{name}: a prediction whose grid is not that of the truth",
            needed="the same grid, to 0.01 mm",
            do="resample the prediction to the truth",
        )
    found, true = label_masks(predicted, split=False), label_masks(truth, split=False)
    if len(found) <= 1 and len(true) <= 1:
        # Two binary masks: 255 in one and 1 in the other are the same lesion.
        name_of_it = next(iter(true), next(iter(found), "1"))
        found = dict.fromkeys([name_of_it], next(iter(found.values()), Mask.empty(truth.geometry)))
        true = dict.fromkeys([name_of_it], next(iter(true.values()), Mask.empty(truth.geometry)))
    for label in sorted({*found, *true}, key=lambda text: (len(text), text)):
        reason = "" if label in found and label in true else _one_sided(label in true)
        score = score_masks(found.get(label, Mask.empty(truth.geometry)), true.get(label, Mask.empty(truth.geometry)))
        yield ScoredLesion(name, label, score, reason)


def _together(predicted: LabelMap, truth: LabelMap) -> tuple[LabelMap, LabelMap]:
    """Where one is a DICOM SEG, which holds only the slices with outlines: both on the grid of the other."""
    if predicted.named is not None and truth.named is not None:
        lattice = truth.geometry
        ends = np.concatenate([lattice.corners_mm, predicted.geometry.corners_mm])
        shared = lattice.crop(*lattice.around(ends))
        return on_one_grid(predicted, shared) or predicted, on_one_grid(truth, shared) or truth
    return on_one_grid(predicted, truth.geometry) or predicted, on_one_grid(truth, predicted.geometry) or truth


def _one_sided(is_true: bool) -> str:
    return "not predicted" if is_true else "predicted, but no such lesion in the truth"


def _masks_in(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Mask files by name; and names that two files have, each with that reason: nobody can say which one is meant."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    named: dict[str, list[Path]] = {}
    for file in files:
        if scan_stem(file) != file.name:
            named.setdefault(scan_stem(file), []).append(file)
    twice = {
        name: f"{len(paths)} files of this name in {folder.name}: {', '.join(path.name for path in paths)}"
        for name, paths in named.items()
        if len(paths) > 1
    }
    return {name: paths[0] for name, paths in named.items() if len(paths) == 1}, twice
