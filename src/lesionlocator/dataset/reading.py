"""A made item read back: its scans, outlines and links as a case."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lesionlocator.case import Case, Ending, Lesion, Link, Place, Status, Timepoint
from lesionlocator.dataset.card import TRUTH, visit_folder
from lesionlocator.dataset.truth import LINKS
from lesionlocator.formats import label_masks, open_timepoint, read_label_map
from lesionlocator.volume import Modality

RUN = "run.json"
_ENDINGS = {Ending.VANISHED: Status.ABSENT, Ending.OUTSIDE: Status.OUTSIDE}


def read_run(out: Path, name: str) -> dict[str, Any]:
    """What the `run.json` of an item says."""
    return json.loads((out / TRUTH / name / RUN).read_text(encoding="utf-8"))


def read_item(out: Path, name: str, modality: Modality | None) -> Case:
    """The truth of an item as a case; scans are read on first need.

    Raises:
        Refused: A file of it cannot be read.
    """
    run = read_run(out, name)
    count = len(run["files"]) // 2
    ids = {str(label): lesion_id for lesion_id, label in run["labels"].items()}
    inside = [set(visit) for visit in run["inside"]]
    rows = _rows(out / TRUTH / name / LINKS)
    numbers = {visit_folder(number): number for number in range(count)}
    links = tuple(link for row in rows for link in [_link(row, numbers)] if link is not None)
    timepoints: list[Timepoint] = []
    for number in range(count):
        folder = out / visit_folder(number)
        opened = open_timepoint(folder / "images" / f"{name}.nii.gz", modality, name=visit_folder(number))
        masks = {
            ids[label]: mask
            for label, mask in label_masks(read_label_map(folder / "labels" / f"{name}.nii.gz")).items()
        }
        shown = [Lesion(one, (), mask, Status.OUTLINED) for one, mask in masks.items() if one in inside[number]]
        timepoints.append(opened.with_lesions((*shown, *_gone(links, number, inside[number]))))
    return Case(tuple(timepoints), links)


def _gone(links: tuple[Link, ...], number: int, inside: set[str]) -> Iterator[Lesion]:
    """Lesions that ended at this visit, or of which less than half is in the scan (their label is in the map)."""
    for link in links:
        if link.to == number and isinstance(link.after, Ending) and link.before and link.before[1] not in inside:
            yield Lesion(link.before[1], (), None, _ENDINGS[link.after])


def _link(row: Mapping[str, str], numbers: Mapping[str, int]) -> Link | None:
    if not row["from_scan"]:
        return None
    to = numbers[row["to_scan"]]
    before: Place = (numbers[row["from_scan"]], row["lesion_id"])
    after = (to, row["to_lesion_id"]) if row["to_lesion_id"] else Ending(row["event"])
    return Link(before, to, after, decided_by="rule")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
