"""`lesionlocator measure`: numbers of outlines that are there already."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from lesionlocator.cli.answer import Answer, say
from lesionlocator.run import Modality


def measure(scan: Path, masks: list[Path], /, *, out: Path | None = None, modality: Modality | None = None) -> Answer:
    """Measure outlines: volume, RECIST diameters, intensities.

    Parameters
    ----------
    scan
        The scan that the outlines belong to.
    masks
        Mask files (one lesion each), a folder of them, or a label map (one lesion for each id).
    out
        Write the table there (CSV, or JSON if it ends so) instead of printing it.
    modality
        Modality of the scan. Default: what DICOM says, else guessed.
    """
    from dataclasses import fields

    from lesionlocator.formats import open_masks
    from lesionlocator.measure import Row, measure_timepoint
    from lesionlocator.report import table, write_text

    timepoint = open_masks(scan, masks, modality)
    rows = [asdict(row) for row in measure_timepoint(timepoint)]
    for warning in timepoint.load().warnings:
        say(f"warning: {warning}")
    text = table([f.name for f in fields(Row)], rows)
    if out is not None:
        write_text(out, json.dumps(rows, indent=2) if out.suffix == ".json" else text)
        return Answer(rows, f"{len(rows)} lesions measured: {out}")
    return Answer(rows, text)
