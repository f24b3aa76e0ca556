"""What leaves the room: the output folder of a case, its standard objects and report, as one archive."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lesionlocator.case import Status
from lesionlocator.errors import Refused
from lesionlocator.formats.disk import whole
from lesionlocator.report import Record
from lesionlocator.run import finish_case
from lesionlocator.segment import Segmenter
from lesionlocator.server.reading import Reading

Say = Callable[[str], None]
ARCHIVE = "result.zip"
RESULT, OBJECTS, REPORT = "result", "objects", "report"


def write_result(reading: Reading, scans: Sequence[Path], segmenter: Segmenter, folder: Path, *, say: Say) -> list[str]:
    """The output folder, as `segment` and `track` write it, with what the reader decided in its record.

    Returns:
        What has to be said about it.
    """
    result = folder / RESULT
    for old in (result, folder / OBJECTS, folder / REPORT):
        shutil.rmtree(old, ignore_errors=True)
    say("measuring, and writing outlines and tables")
    names = [timepoint.name for timepoint in reading.case.timepoints]
    decisions = {f"{names[scan]}/{lesion_id}": said for (scan, lesion_id), said in reading.decisions.items()}
    lines = {f"{names[scan]}/{lesion_id}": line.to_json() for (scan, lesion_id), line in reading.lines.items()}
    record = Record("serve", {"scans": [str(path) for path in scans], "decisions": decisions, "lines": lines})
    # A lesion that was asked for and never outlined has no row to stand in; it is named instead.
    waiting = [
        f"{timepoint.name}: lesion {lesion.id} was never outlined and is not in these files"
        for timepoint in reading.case.timepoints
        for lesion in timepoint.lesions
        if lesion.status is Status.ASKED
    ]
    record.warnings.extend(waiting)
    timepoints = tuple(
        timepoint.with_lesions(tuple(one for one in timepoint.lesions if one.status is not Status.ASKED))
        for timepoint in reading.case.timepoints
    )
    finish_case(replace(reading.case, timepoints=timepoints), scans, segmenter.card, record, result)
    return waiting


def write_objects(folder: Path, targets: Sequence[str], scans: Sequence[Path], *, say: Say) -> list[str]:
    """The standard objects, from the output folder; what cannot be made is said, the rest is written."""
    from lesionlocator.export.run import run_export
    from lesionlocator.export.settings import ExportSettings

    dicom = tuple(path for path in scans if path.is_dir())
    said: list[str] = []
    for target in targets:
        say(f"writing {target}")
        try:
            done = run_export(folder / RESULT, ExportSettings(to=target, out=folder / OBJECTS, source=dicom))
        except Refused as problem:
            said.append(f"{target}: {problem}")
        else:
            said.extend(f"{target}: {one.scan}: {one.reason}" for one in done.failed)
    return said


def write_document(folder: Path, criteria: str, *, say: Say) -> list[str]:
    """The report of the output folder; why there is none, if there is none."""
    from lesionlocator.report.documents import write_documents
    from lesionlocator.report.settings import ReportSettings

    say("writing the report")
    try:
        done = write_documents(folder / RESULT, ReportSettings(out=folder / REPORT, criteria=(criteria,)), say)
    except Refused as problem:
        return [f"report: {problem}"]
    return [f"report: {warning}" for warning in done.warnings]


def pack(folder: Path) -> Path:
    """All that an export wrote, as one zip file."""
    path = folder / ARCHIVE
    with whole(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for name in (RESULT, OBJECTS, REPORT):
            for file in sorted((folder / name).rglob("*")):
                if file.is_file():
                    packed.write(file, file.relative_to(folder))
    return path
