"""`lesionlocator export`: what other programs read."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from lesionlocator.cli.answer import DONE, PARTLY, Answer, Flat, say
from lesionlocator.export.settings import ExportSettings


def export(folder: Path, /, *, settings: Annotated[ExportSettings, Flat]) -> Answer:
    """Write outlines and measurements as DICOM SEG, label map, SR and RTSTRUCT, as NRRD, or as rows for trials.

    Parameters
    ----------
    folder
        The output folder of `segment` or `track`.
    """
    from lesionlocator.export.run import run_export

    done = run_export(folder, settings, say)
    lines = [f"{one.target:15} {one.scan:24} {one.path or 'not written: ' + one.reason}" for one in done.made]
    if done.stored:
        lines.append(f"{done.stored} objects stored at {settings.store}")
    value = {"out": str(done.out), "made": [asdict(one) for one in done.made], "stored": done.stored}
    return Answer(value, "\n".join(lines), PARTLY if done.failed else DONE)
