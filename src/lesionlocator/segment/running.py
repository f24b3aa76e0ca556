"""How a model is to run: where, how carefully, and with how much of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lesionlocator.errors import Refused

Quality = Literal["fast", "balanced", "max"]
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Running:
    """What a model is told when it is loaded. `folds` and `mirroring` go before what the quality says.

    `folder` is where the model's files are; None for an embedded model.
    """

    device: str = "auto"
    quality: Quality = "balanced"
    precision: Precision = "fp32"
    folds: tuple[int, ...] = ()
    mirroring: bool | None = None
    folder: Path | None = None

    def refuse_network_settings(self, model: str) -> None:
        """For a model that is no network: folds, mirroring and precision would change nothing."""
        given = {
            "--precision": self.precision != "fp32",
            "--folds": bool(self.folds),
            "--no-mirroring": self.mirroring is not None,
        }
        if names := [name for name, is_given in given.items() if is_given]:
            raise Refused(
                found=f"{', '.join(names)} for the model {model}, which has no networks",
                needed="a published checkpoint folder as --model, the only models that these are for",
                do=f"leave {' and '.join(names)} out, or choose such a model",
            )
        if self.device not in ("auto", "cpu"):
            raise Refused(
                found=f"the device {self.device!r}",
                needed=f"`cpu`, where {model} runs",
                do="leave the device out, or choose cpu",
            )
