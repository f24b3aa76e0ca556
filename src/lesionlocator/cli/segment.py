"""`lesionlocator segment`: one scan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from lesionlocator.cli.answer import Answer, Flat, outlined, say
from lesionlocator.run import SegmentSettings


def segment(scan: Path, /, *, settings: Annotated[SegmentSettings, Flat]) -> Answer:
    """Outline lesions in a scan from clicks, boxes, lines or masks.

    Parameters
    ----------
    scan
        NIfTI, NRRD, MHA/MHD file, or DICOM: a folder, a zip, FOLDER#SERIES, or a DICOMweb address.
    """
    from lesionlocator.run import run_segment

    return outlined(run_segment(scan, settings, say))
