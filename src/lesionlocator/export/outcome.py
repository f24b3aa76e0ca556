"""The output folder of `segment` or `track`, read back: visits with their rows and outlines, and the links."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lesionlocator.case import Status
from lesionlocator.errors import Refused
from lesionlocator.formats import label_masks, read_label_map
from lesionlocator.formats.json_text import as_id
from lesionlocator.geometry import Geometry
from lesionlocator.measure import Row
from lesionlocator.volume import Mask

_TEXTS = ("scan", "lesion_id", "reason", "unit")


@dataclass(frozen=True, eq=False)
class Visit:
    """One scan of a finished run. `geometry` is None where no lesion was outlined."""

    order: int
    scan: str
    path: str
    sha256: str
    modality: str
    rows: tuple[Row, ...]
    masks: Mapping[str, Mask]
    geometry: Geometry | None

    def row(self, lesion_id: str) -> Row:
        """The row of a lesion that is among `masks`."""
        return next(row for row in self.rows if row.lesion_id == lesion_id)


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished run. `run` is what its `run.json` says."""

    folder: Path
    run: Mapping[str, Any]
    visits: tuple[Visit, ...]
    links: tuple[Mapping[str, str], ...]

    @property
    def lesion_ids(self) -> tuple[str, ...]:
        """Every lesion of every visit, once, in order of appearance."""
        return tuple(dict.fromkeys(row.lesion_id for visit in self.visits for row in visit.rows))

    @property
    def model(self) -> str:
        return str(self.run.get("model", {}).get("id") or "unknown model")

    @property
    def version(self) -> str:
        """The version of lesionlocator that made the outlines."""
        return str(self.run.get("versions", {}).get("lesionlocator") or "unknown")

    def is_drawn(self, visit: Visit) -> bool:
        """Whether a reader drew the outlines of this visit, and the model only followed them."""
        return visit.order == 0 and self.run.get("arguments", {}).get("as") == "mask"


def read_outcome(folder: Path) -> Outcome:
    """The folder that `segment` or `track` wrote.

    Raises:
        Refused: It is not such a folder, or the run has not finished (no `run.json`).
    """
    run = _run(folder)
    rows = [_row(cells, folder) for cells in _table(folder / "lesions.csv")]
    inputs = {str(entry.get("scan")): entry for entry in run.get("inputs", []) if isinstance(entry, dict)}
    scans = [str(name) for name in run.get("scans", [])]
    visits = tuple(
        _visit(folder, order, scan, inputs.get(scan, {}), tuple(row for row in rows if row.scan == scan))
        for order, scan in enumerate(scans)
    )
    if not visits:
        raise _not_ours(folder, "its run.json names no scan")
    return Outcome(folder, run, visits, tuple(_table(folder / "links.csv")))


def _visit(folder: Path, order: int, scan: str, entry: Mapping[str, Any], rows: tuple[Row, ...]) -> Visit:
    if Path(scan).name != scan:
        raise _not_ours(folder, f"its run.json names the scan {scan!r}")
    outlined = [row.lesion_id for row in rows if row.status is Status.OUTLINED]
    masks: dict[str, Mask] = {}
    geometry: Geometry | None = None
    for lesion_id in outlined:
        label_map = read_label_map(folder / f"{scan}_lesion_{lesion_id}.nii.gz")
        geometry = label_map.geometry
        masks[lesion_id] = next(iter(label_masks(label_map).values()), Mask.empty(geometry))
    kept = {lesion_id: mask for lesion_id, mask in masks.items() if not mask.is_empty}
    said = [str(entry.get(name) or "") for name in ("path", "sha256", "modality")]
    return Visit(order, scan, said[0], said[1], said[2], rows, kept, geometry)


def _run(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _not_ours(folder, "it has no run.json") from None
    except (OSError, ValueError) as problem:
        raise _not_ours(folder, f"its run.json cannot be read ({problem})") from problem
    if not isinstance(content, dict) or content.get("version") != 1:
        raise _not_ours(folder, "its run.json is not of version 1")
    return content


def _table(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except (OSError, ValueError) as problem:
        raise _not_ours(path.parent, f"its {path.name} cannot be read ({problem})") from problem


def _row(cells: Mapping[str, str], folder: Path) -> Row:
    known = {name: cells.get(name) or "" for name in Row.__dataclass_fields__}
    try:
        numbers = {
            name: float(text) if text else None
            for name, text in known.items()
            if name not in _TEXTS and name != "status"
        }
        status = Status(known["status"])
    except ValueError as problem:
        raise _not_ours(folder, f"a row of its lesions.csv is {dict(cells)}") from problem
    if any(number is not None and not np.isfinite(number) for number in numbers.values()):
        raise _not_ours(folder, f"a row of its lesions.csv is {dict(cells)}")
    lesion_id = as_id(known["lesion_id"], "lesions.csv")
    return Row(
        scan=known["scan"],
        lesion_id=lesion_id,
        status=status,
        reason=known["reason"],
        unit=known["unit"],
        **numbers,
    )


def _not_ours(folder: Path, why: str) -> Refused:
    return Refused(
        found=f"{folder}: {why}",
        needed="the output folder of a `segment` or `track` that has finished",
        do="name that folder, or run the command again",
    )
