"""`lesionlocator train`: a network from data, or a better one for your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lesionlocator.cli.answer import DONE, Answer, Flat, say
from lesionlocator.errors import Refused
from lesionlocator.train.settings import TrainSettings


def train(
    data: Path,
    /,
    *,
    start: Annotated[str | None, Parameter(name="--from")] = None,
    settings: Annotated[TrainSettings, Flat],
) -> Answer:
    """Train a network on a folder of scans and label maps; with --from, go on from a model.

    Parameters
    ----------
    data
        Folder with `images/` and `labels/`, files of the same names. Scans without a label map get painted lesions.
    start
        A trained model to go on from, by name or folder. Without it a new network is trained.
    """
    try:
        from lesionlocator.train.run import run_training
    except ModuleNotFoundError as error:
        raise Refused(
            found=f"no {error.name} in this installation",
            needed="PyTorch and what training needs beside it",
            do='install them: pip install "lesionlocator[train]"',
        ) from error
    done = run_training(data, settings, start, say)
    last = dict(done.log[-1]) if done.log else {}
    value = {"model": str(done.model), "curves": str(done.curves), "last": last}
    return Answer(value, f"{done.model}\n{done.curves}", DONE)
