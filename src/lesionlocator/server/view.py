"""A reading as the page sees it: plain JSON, with numbers measured and addresses of what is too large for it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from weakref import WeakKeyDictionary

from lesionlocator.case import Lesion, Timepoint
from lesionlocator.measure import Row, measure_changes, measure_lesion
from lesionlocator.prompt import Box, Prompt, Shape
from lesionlocator.report import link_rows
from lesionlocator.server.reading import Reading
from lesionlocator.server.store import Kept
from lesionlocator.volume import Mask, Volume


class Viewer:
    """Makes views. Rows of outlines that did not change are not measured again."""

    def __init__(self) -> None:
        self._rows: WeakKeyDictionary[Mask, Row] = WeakKeyDictionary()

    def view(self, kept: Kept, reading: Reading) -> dict[str, Any]:
        """The whole case."""
        rows = [self._row(timepoint, lesion) for timepoint in reading.case.timepoints for lesion in timepoint.lesions]
        changes = {
            (change.scan, change.lesion_id): asdict(change) for change in measure_changes(rows, reading.case.merged())
        }
        found = {(row.scan, row.lesion_id): row for row in rows}
        scans = [
            self._scan(reading, index, rows=found, changes=changes) for index in range(len(reading.case.timepoints))
        ]
        return {
            "id": kept.id,
            "title": kept.title,
            "revision": kept.revision,
            "last_action": kept.action,
            "can_undo": kept.can_undo,
            "can_redo": kept.can_redo,
            "scans": scans,
            "links": link_rows(reading.case),
            "warnings": list(reading.case.warnings),
            "next_lesion_id": reading.fresh_id(),
        }

    def measured(self, timepoint: Timepoint, lesion: Lesion, volume: Volume) -> None:
        """Measures a new outline while its scan is open, so that no view has to read the scan."""
        if lesion.mask is not None:
            self._rows[lesion.mask] = measure_lesion(lesion, timepoint.name, volume)

    def _row(self, timepoint: Timepoint, lesion: Lesion) -> Row:
        if lesion.mask is None:
            return measure_lesion(lesion, timepoint.name, None)
        if lesion.mask not in self._rows:
            self._rows[lesion.mask] = measure_lesion(lesion, timepoint.name, timepoint.load())
        return self._rows[lesion.mask]

    @staticmethod
    def _scan(
        reading: Reading,
        index: int,
        *,
        rows: dict[tuple[str, str], Row],
        changes: dict[tuple[str, str], dict[str, Any]],
    ) -> dict[str, Any]:
        timepoint = reading.case.timepoints[index]
        lesions: list[dict[str, Any]] = []
        for lesion in timepoint.lesions:
            place, key = (index, lesion.id), (timepoint.name, lesion.id)
            line = reading.lines.get(place)
            lesions.append(
                {
                    **asdict(rows[key]),
                    # Of the lesion as it is now: a row may be an older one with the same outline.
                    "status": lesion.status.value,
                    "reason": lesion.reason,
                    "confidence": lesion.confidence,
                    "note": lesion.note,
                    "prompts": [_prompt(prompt) for prompt in lesion.prompts],
                    "decision": reading.decisions.get(place),
                    "line": None if line is None else {**line.to_json(), "length_mm": line.length_mm},
                    "change": changes.get(key),
                    "has_outline": lesion.mask is not None,
                }
            )
        geometry = timepoint.geometry
        return {
            "name": timepoint.name,
            "date": timepoint.date,
            "shape_dhw": list(geometry.shape),
            "spacing_mm": geometry.spacing_mm.tolist(),
            "affine_dhw_to_lps": geometry.affine.tolist(),
            "lesions": lesions,
        }


def _prompt(prompt: Prompt) -> dict[str, Any]:
    if isinstance(prompt, Box):
        return {"kind": "box", **prompt.to_json()}
    if isinstance(prompt, Shape):
        return {"kind": "mask", **prompt.to_json()}
    return {"kind": prompt.kind, **prompt.to_json()}
