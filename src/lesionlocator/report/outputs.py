"""What a finished case leaves behind: masks, tables and the record of the run, in the folder that scripts rely on."""

from __future__ import annotations

import csv
import io
import json
import platform
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from lesionlocator.case import Case, Happening, Timepoint
from lesionlocator.formats import write_labels, write_mask
from lesionlocator.formats.disk import whole
from lesionlocator.measure import Change, Row, measure_changes
from lesionlocator.repeatability import CHANGES, Spread, judge_changes

LINK_COLUMNS = ("lesion_id", "from_scan", "to_scan", "to_lesion_id", "event", "reason", "confidence", "decided_by")
RUN_FILE = "run.json"
_WRITERS = 2
REPEATABILITY_FILE = "repeatability.csv"
_LIBRARIES = ("lesionlocator", "numpy", "scipy", "SimpleITK", "nibabel", "pydicom", "scikit-image")


@dataclass
class Record:
    """What a run did, gathered while it runs and written last, as `run.json`."""

    command: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    model: Mapping[str, Any] = field(default_factory=dict[str, Any])
    inputs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    timings_s: dict[str, float] = field(default_factory=dict[str, float])
    warnings: list[str] = field(default_factory=list[str])
    repeatability: list[Spread] = field(default_factory=list[Spread])

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Adds the seconds spent inside to the stage of this name."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings_s[name] = round(self.timings_s.get(name, 0.0) + time.perf_counter() - start, 3)


def write_report(case: Case, rows: Sequence[Row], folder: Path | str, record: Record | None = None) -> Path:
    """The output folder of a case; gives the folder back.

    Every file is written under another name first and then renamed, `run.json` last: a case is done when it exists.
    Files of an earlier run in the same folder that this one does not write again are removed, if that run listed them.

    Args:
        case: With its outlines and links.
        rows: From `measure_case`.
        folder: Made if it is not there.
        record: What the run did; without one, the versions alone are kept.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = record or Record("python")
    before = _listed(folder / RUN_FILE)
    (folder / RUN_FILE).unlink(missing_ok=True)
    labels = label_numbers([lesion.id for timepoint in case.timepoints for lesion in timepoint.lesions])
    with record.stage("write"):
        written = [name for timepoint in case.timepoints for name in _write_masks(timepoint, labels, folder, record)]
        write_text(folder / "lesions.csv", table([f.name for f in fields(Row)], (asdict(row) for row in rows)))
        write_text(folder / "links.csv", table(LINK_COLUMNS, link_rows(case)))
        changes = (asdict(change) for change in measure_changes(rows, case.merged()))
        write_text(folder / "changes.csv", table([f.name for f in fields(Change)], changes))
        written += ["lesions.csv", "links.csv", "changes.csv"]
        if record.repeatability:
            columns = [*(f.name for f in fields(Spread)), *CHANGES]
            write_text(folder / REPEATABILITY_FILE, table(columns, judge_changes(record.repeatability)))
            written.append(REPEATABILITY_FILE)
    for name in before:
        if name not in written and Path(name).name == name:
            (folder / name).unlink(missing_ok=True)
    write_text(folder / RUN_FILE, json.dumps(_run(record, case, labels, written), indent=2, default=str) + "\n")
    return folder


def link_rows(case: Case) -> list[dict[str, Any]]:
    """The rows of `links.csv`: one for every link, with the event that it means."""
    names = [timepoint.name for timepoint in case.timepoints]
    return [_link_row(happening, names) for happening in case.events()]


def label_numbers(lesion_ids: Sequence[str]) -> dict[str, int]:
    """The number of each lesion in a label map: its id where that is one, else the next free number."""
    ids = list(dict.fromkeys(lesion_ids))
    numbers = {i: int(i) for i in ids if i.isdecimal() and i.isascii() and 0 < int(i) < 65536 and str(int(i)) == i}
    free = (n for n in range(1, 65536) if n not in set(numbers.values()))
    return {i: numbers[i] if i in numbers else next(free) for i in ids}


def table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV text. None is an empty cell; numbers keep nine digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _cell(row[column]) for column in columns} for row in rows)
    return text.getvalue()


def write_text(path: Path, text: str) -> None:
    """A text file that is either whole or not there."""
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def _write_masks(timepoint: Timepoint, labels: Mapping[str, int], folder: Path, record: Record) -> list[str]:
    found = {lesion.id: lesion.mask for lesion in timepoint.lesions if lesion.mask is not None}
    names = {lesion_id: f"{timepoint.name}_lesion_{lesion_id}.nii.gz" for lesion_id in found}
    # Packing takes most of the time, and two files can be packed at once.
    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(lambda one: write_mask(folder / names[one], found[one], timepoint.geometry), found))
    written = list(names.values())
    if found:
        name = f"{timepoint.name}_lesions.nii.gz"
        write_labels(folder / name, {labels[i]: mask for i, mask in found.items()}, timepoint.geometry)
        written.append(name)
    ids = list(found)
    overlapping = [
        f"{one} and {other}" for n, one in enumerate(ids) for other in ids[n + 1 :] if found[one].overlap(found[other])
    ]
    if overlapping:
        record.warnings.append(
            f"{timepoint.name}: lesions {', '.join(overlapping)} overlap; shared voxels are 0 in the joint label map"
        )
    return written


def _link_row(happening: Happening, names: Sequence[str]) -> dict[str, Any]:
    link = happening.link
    return {
        "lesion_id": happening.lesion_id,
        "from_scan": names[happening.from_scan] if happening.from_scan is not None else None,
        "to_scan": names[happening.to_scan],
        "to_lesion_id": happening.to_lesion_id,
        "event": happening.event.value,
        "reason": link.reason if link else "",
        "confidence": link.confidence if link else None,
        "decided_by": link.decided_by if link else "rule",
    }


def _cell(value: Any) -> Any:
    return "" if value is None else format(value, ".9g") if isinstance(value, float) else value


def _listed(path: Path) -> list[str]:
    try:
        return [str(name) for name in json.loads(path.read_text(encoding="utf-8"))["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _run(record: Record, case: Case, labels: Mapping[str, int], written: list[str]) -> dict[str, Any]:
    return {
        "version": 1,
        "command": record.command,
        "arguments": dict(record.arguments),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _LIBRARIES}},
        "model": dict(record.model),
        "inputs": record.inputs,
        "modality": {entry["scan"]: entry["modality"] for entry in record.inputs if "modality" in entry},
        "scans": [timepoint.name for timepoint in case.timepoints],
        "labels": dict(labels),
        "timings_s": record.timings_s,
        "warnings": list(dict.fromkeys([*record.warnings, *case.warnings])),
        "files": written,
    }
