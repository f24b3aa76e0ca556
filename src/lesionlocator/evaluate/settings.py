"""What the `evaluate` command can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """What `evaluate` is told besides the protocol."""

    out: Path
    """Folder for report.html, results.json and results.csv; an evaluation that stopped there goes on."""
    model: tuple[str, ...] = ()
    """A model to measure beside the protocol's own methods; may be given again."""
    data: Path | None = None
    """Folder that holds the data sets; those that are not there are skipped, and the report says so."""
