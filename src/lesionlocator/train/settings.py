"""What the `train` command can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lesionlocator.volume import Modality


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """A training run. A run that stopped goes on where it was, to the bit on the same machine."""

    out: Path
    """Folder for checkpoints, the log, the curves and, at the end, the model."""
    steps: int = 5000
    """Batches that the network learns from."""
    batch: int = 4
    """Samples in a batch, on each device."""
    rate: float = 3e-3
    """Highest learning rate (AdamW; warm-up, then a cosine down to zero)."""
    seed: int = 20261123
    """Of every random draw."""
    devices: int = 1
    """How many processes or GPUs learn together."""
    accelerator: str = "auto"
    """`cpu`, `gpu` or `auto`."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the convolutions while it learns; `bf16` is faster where the processor or GPU has it."""
    reuse: int = 1
    """How often a sample is learned from, each time turned and mirrored anew: 1, 2, 3, 4 or 6. Making one costs about
    as much as learning from it once."""
    threads: int = 0
    """Processor threads for each device; 0 leaves it to torch."""
    loaders: int = 1
    """Processes that make samples; 0 makes them in between."""
    corrected: float = 0.25
    """Share of the batches in which the network sees its own answer again, with a click in its largest error."""
    save_every: int = 250
    """Steps between checkpoints and between points of the curves."""
    ramp: float = 0.6
    """Share of the training over which painted lesions get harder."""
    judged: int = 1000
    """Answers that the confidence is fitted on, once the outlines are learned; 0 gives a model without confidence."""
    modality: Modality | None = None
    """Of all scans, where their files do not say it."""
    painted: float = 0.5
    """Share of painted lesions beside outlined ones, so that nothing is forgotten."""
    name: str = "trained"
    """Of the model."""
    licence: str = "to be chosen by its maker"
    """Of the model."""
