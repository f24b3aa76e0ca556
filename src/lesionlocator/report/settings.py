"""What the report command is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What `report` is told besides the folder."""

    out: Path
    """Folder for report.html (and report.pdf), and for the pages of a cohort's cases."""
    criteria: tuple[str, ...] = ("recist-1.1",)
    """Response criterion; may be given again. The first is the one on top: recist-1.1, recist-1.1-confirmed, irecist,
    percist-1.0, volume."""
    pdf: bool = False
    """Also write the same as PDF."""
    reader: Path | None = None
    """What a reader adds (JSON: organs, nodes, targets, dates, ...); for a cohort, a folder of CASE.json files."""
    cohort_only: bool = False
    """For a cohort: only its own page, none for each case."""
