"""`lesionlocator prompts`: what readers pointed at, in files of all kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cyclopts import App

from lesionlocator.cli.answer import Answer

Kind = Literal["box", "click", "mask"]

app = App(name="prompts", help="Prompt files of all kinds.")


@app.command
def convert(
    file: Path, out: Path, /, *, scan: Path | None = None, as_: Kind | None = None, split: bool = False
) -> Answer:
    """Convert a prompt file of any kind that can be read into version 1 JSON, or into a label map.

    Parameters
    ----------
    file
        Prompt JSON (ours or LesionLocator's), label map, or 3D Slicer markups.
    out
        `.json` for a prompt file, an image ending for a label map.
    scan
        The scan that the prompts belong to; needed for prompts in voxels and for label maps out.
    as_
        For label maps: box (default), click or mask.
    split
        For label maps: one lesion for each 26-connected part.
    """
    from lesionlocator.run import convert_prompts

    lesions = convert_prompts(file, out, scan, kind=as_, split=split)
    return Answer({"out": str(out), "lesions": [lesion.id for lesion in lesions]}, f"{len(lesions)} lesions: {out}")
