"""Shape and brightness: the ellipsoid of the prompt, corrected by what the picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lesionlocator.errors import Refused
from lesionlocator.segment.ask import Ask, NotOutlined, Outline, Prepared, answer
from lesionlocator.segment.contrast import Rules
from lesionlocator.segment.grow import read_extents
from lesionlocator.segment.refine import refine
from lesionlocator.volume import Mask, Volume
from lesionlocator.weights import ModelCard

VOXELS = {"fast": 32, "balanced": 48, "max": 64}
"""Most voxels a side of the picture that is worked on, by quality."""


@dataclass(frozen=True, eq=False)
class Intensity:
    """Outlines what differs in brightness from its surroundings, near the ellipsoid that the prompts suggest.

    From a box the outline stays within the box grown by 5 %; where brightness says nothing it is close to the inscribed
    ellipsoid, and where it says nonsense (nothing that fills the box) it is that ellipsoid. From a line or clicks alone
    the extent is a guess and the outline may leave its box by 30 %. On CT and PET holes are filled; on MR a dark core
    stays out of a bright ring.
    """

    card: ModelCard
    rules: Rules = Rules()
    voxels: int = VOXELS["balanced"]

    @staticmethod
    def from_card(card: ModelCard, quality: str) -> Intensity:
        """With the rules on a card; rules that are not on it stay as they are."""
        wrong = [name for name, value in card.settings.items() if not _is_rule(name, value)]
        if wrong:
            raise Refused(
                found=f"the settings {', '.join(wrong)} on the card of {card.id}",
                needed=f"numbers for some of {', '.join(Rules.__dataclass_fields__)}",
                do="mend the model card",
            )
        numbers: dict[str, Any] = dict(card.settings)
        return Intensity(card, replace(Rules(), **numbers), VOXELS[quality])

    @property
    def name(self) -> str:
        return self.card.id

    def prepare(self, volume: Volume) -> Prepared:
        return Prepared(volume)

    def outline(self, prepared: Prepared, asks: Sequence[Ask]) -> list[Outline]:
        return [answer(prepared.volume, ask, self._draw) for ask in asks]

    def _draw(self, volume: Volume, ask: Ask) -> Mask:
        extents = read_extents(volume, ask)
        masks = [refine(volume, ask, extent, self.rules, self.voxels) for extent in extents]
        return masks[0] if len(masks) == 1 else _together(masks, volume)


def _is_rule(name: str, value: object) -> bool:
    if name == "rounds":
        return isinstance(value, int) and not isinstance(value, bool) and value > 0
    return name in Rules.__dataclass_fields__ and isinstance(value, int | float) and not isinstance(value, bool)


def _together(masks: Sequence[Mask], volume: Volume) -> Mask:
    covered = volume.geometry.clip(
        *volume.geometry.around(np.concatenate([mask.geometry.corners_mm for mask in masks]))
    )
    if covered is None:
        raise NotOutlined("the prompt lies outside the scan")
    region = volume.geometry.crop(*covered)
    array = np.zeros(region.shape, bool)
    for mask in masks:
        array |= mask.on(region)
    return Mask.from_array(array, region)
