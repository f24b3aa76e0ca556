"""`lesionlocator track`: one scan and those after it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from lesionlocator.cli.answer import Answer, Flat, outlined, say
from lesionlocator.run import TrackSettings


def track(baseline: Path, followups: list[Path], /, *, settings: Annotated[TrackSettings, Flat]) -> Answer:
    """Outline lesions in a baseline scan and follow them through later scans.

    Parameters
    ----------
    baseline
        The first scan.
    followups
        Later scans, oldest first.
    """
    from lesionlocator.run import run_track

    return outlined(run_track([baseline, *followups], settings, say))
