"""`lesionlocator synthesize`: a data set of follow-ups, made from single scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from lesionlocator.cli.answer import DONE, NOTHING, PARTLY, Answer, Flat, say
from lesionlocator.dataset.settings import SynthesizeSettings

_SETTINGS = SynthesizeSettings()


def synthesize(source: str, out: Path, /, *, settings: Annotated[SynthesizeSettings, Flat] = _SETTINGS) -> Answer:
    """Make synthetic follow-ups of single scans, with the truth of every change; finished items are kept.

    Parameters
    ----------
    source
        A folder of scans: `images` and `labels` if there are any, nnU-Net, Medical Segmentation Decathlon, autoPET IV
        or the published LesionLocator set. `archive`: four public scans, fetched once.
    out
        The data set: a folder for each visit, the recipe that remakes it, and the truth.
    """
    from lesionlocator.dataset.make import run_synthesize
    from lesionlocator.dataset.validate import validate_folder

    if settings.validate:
        checked = validate_folder(source, out, settings, say)
        rows = [row.to_json() for row in checked]
        good = sum(row.ok for row in checked)
        bad = "\n".join(f"{row.name}: {row.finding}" for row in checked if not row.ok)
        text = f"{bad}\n{good} of {len(checked)} items are as the recipe says".lstrip()
        return Answer({"out": str(out), "items": rows}, text, DONE if good == len(checked) else PARTLY)
    made = run_synthesize(source, out, settings, say)
    text = f"{made.cost.text}\n{len(made.recipe.items)} items in {out}, {len(made.failed)} failed"
    value = {
        "out": str(out),
        "items": [item.name for item in made.recipe.items],
        "failed": dict(made.failed),
        "seconds": list(made.cost.seconds),
    }
    return Answer(value, text, DONE if not made.failed else PARTLY if made.recipe.items else NOTHING)
