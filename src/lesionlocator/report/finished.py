"""A finished case read back from its output folder, and what a reader adds to it."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from lesionlocator.case import Status
from lesionlocator.errors import Refused
from lesionlocator.formats import label_masks, read_geometry, read_label_map
from lesionlocator.formats.json_text import as_id
from lesionlocator.geometry import Geometry
from lesionlocator.measure import Row, axial_axis
from lesionlocator.repeatability import Spread, read_spread
from lesionlocator.report.outputs import REPEATABILITY_FILE, RUN_FILE
from lesionlocator.volume import Mask

_TEXTS = ("scan", "lesion_id", "status", "reason", "unit")


@dataclass(frozen=True, eq=False)
class FinishedCase:
    """What `segment` or `track` left in a folder. Masks are read when they are asked for."""

    folder: Path
    run: Mapping[str, Any]
    rows: tuple[Row, ...]
    links: tuple[Mapping[str, Any], ...]
    spreads: tuple[Spread, ...] = ()

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def scans(self) -> tuple[str, ...]:
        """Names of the scans, oldest first."""
        return tuple(str(name) for name in self.run["scans"])

    @cached_property
    def lesion_ids(self) -> tuple[str, ...]:
        """Every lesion once, in the order of the rows."""
        return tuple(dict.fromkeys(row.lesion_id for row in self.rows))

    def row(self, scan: str, lesion_id: str) -> Row | None:
        return self._rows.get((scan, lesion_id))

    def spread(self, scan: str, lesion_id: str) -> Spread | None:
        return self._spreads.get((scan, lesion_id))

    def input(self, scan: str) -> Mapping[str, Any]:
        """Path, checksum and modality of a scan, as the run wrote them down."""
        entries = self.run.get("inputs", [])
        return next((one for one in entries if isinstance(one, dict) and one.get("scan") == scan), {})

    def mask(self, scan: str, lesion_id: str) -> Mask | None:
        """The outline of a lesion; None where there is no file of it."""
        path = self._mask_path(scan, lesion_id)
        if path is None:
            return None
        found = list(label_masks(read_label_map(path)).values())
        return found[0] if found else None

    def grid(self, scan: str) -> Geometry | None:
        """The scan's grid, from the header of any mask of it; None if it has none."""
        paths = [self._mask_path(scan, lesion_id) for lesion_id in self.lesion_ids]
        path = next((path for path in paths if path is not None), None)
        return read_geometry(path) if path is not None else None

    def slice_mm(self, scan: str) -> float | None:
        """Distance of the scan's slices."""
        grid = self.grid(scan)
        return None if grid is None else float(grid.spacing_mm[axial_axis(grid)])

    def _mask_path(self, scan: str, lesion_id: str) -> Path | None:
        row = self.row(scan, lesion_id)
        path = self.folder / f"{scan}_lesion_{lesion_id}.nii.gz"
        return path if row is not None and row.status is Status.OUTLINED and path.is_file() else None

    @cached_property
    def _rows(self) -> dict[tuple[str, str], Row]:
        return {(row.scan, row.lesion_id): row for row in self.rows}

    @cached_property
    def _spreads(self) -> dict[tuple[str, str], Spread]:
        return {(one.scan, one.lesion_id): one for one in self.spreads}


def read_finished(folder: Path) -> FinishedCase:
    """The output folder of `segment` or `track`.

    Raises:
        Refused: It is none, it has not finished, or a table in it was changed beyond reading.
    """
    run = _run(folder)
    rows = tuple(_row(cells, folder) for cells in _table(folder / "lesions.csv"))
    repeated = _table(folder / REPEATABILITY_FILE) if (folder / REPEATABILITY_FILE).exists() else []
    try:
        spreads = tuple(read_spread(cells) for cells in repeated)
    except ValueError as problem:
        raise _not_ours(folder, f"{REPEATABILITY_FILE} cannot be read ({problem})") from problem
    return FinishedCase(folder, run, rows, tuple(_table(folder / "links.csv")), spreads)


def find_finished(folder: Path) -> list[Path]:
    """The folders of the cases: the folder itself, or those in it (the output of a batch), by name.

    Raises:
        Refused: There is none.
    """
    if (folder / RUN_FILE).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{RUN_FILE}")) if folder.is_dir() else []
    if not found:
        raise Refused(
            found=f"{folder}, in which there is no finished case (no {RUN_FILE}, and no folder that has one)",
            needed="the output folder of `segment`, `track` or `batch`",
            do="check the path, or run one of these first",
        )
    return found


def as_date(text: str, where: str) -> date:
    """A day as 2026-03-01 or 20260301."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Refused(found=f"{where}: {text!r}", needed="a date such as 2026-03-01", do="correct it") from None


def _run(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise _not_ours(folder, f"{RUN_FILE} cannot be read ({problem})") from problem
    if not isinstance(content, dict) or content.get("version") != 1 or not isinstance(content.get("scans"), list):
        raise _not_ours(folder, f"{RUN_FILE} is not of version 1")
    return content


def _table(path: Path) -> Sequence[Mapping[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as problem:
        raise _not_ours(path.parent, f"{path.name} cannot be read ({problem})") from problem
    if "lesion_id" not in (reader.fieldnames or ()):
        raise _not_ours(path.parent, f"{path.name} cannot be read (it has no column lesion_id)")
    return rows


def _row(cells: Mapping[str, str], folder: Path) -> Row:
    try:
        found: dict[str, Any] = {name: cells.get(name) or "" for name in _TEXTS}
        found["status"], found["lesion_id"] = Status(found["status"]), as_id(found["lesion_id"], "lesions.csv")
        numbers = [name for name in Row.__dataclass_fields__ if name not in _TEXTS]
        found |= {name: float(cells[name]) if cells.get(name) else None for name in numbers}
    except ValueError as problem:
        raise _not_ours(folder, f"a row of lesions.csv cannot be read ({problem})") from problem
    return Row(**found)


def _not_ours(folder: Path, why: str) -> Refused:
    return Refused(
        found=f"{folder}: {why}",
        needed="the output folder of a `segment` or `track` that has finished, unchanged",
        do="name that folder, or run the command again",
    )
