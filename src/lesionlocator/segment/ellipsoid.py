"""The ellipsoid inscribed in the prompt's box: what can be said without looking inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lesionlocator.errors import Refused
from lesionlocator.prompt import Click
from lesionlocator.segment.ask import Ask, Outline, Prepared, answer
from lesionlocator.segment.extent import inscribed
from lesionlocator.segment.grow import read_extents
from lesionlocator.volume import Mask, Volume
from lesionlocator.weights import ModelCard


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """Draws the inscribed ellipsoid of every box on the scan's own voxels."""

    card: ModelCard

    def __post_init__(self) -> None:
        if self.card.settings:
            raise Refused(
                found=f"the settings {', '.join(self.card.settings)} on the card of {self.card.id}",
                needed="none: an ellipsoid has no settings",
                do="mend the model card",
            )

    @property
    def name(self) -> str:
        return self.card.id

    def prepare(self, volume: Volume) -> Prepared:
        return Prepared(volume)

    def outline(self, prepared: Prepared, asks: Sequence[Ask]) -> list[Outline]:
        return [answer(prepared.volume, ask, draw_ellipsoids) for ask in asks]


def draw_ellipsoids(volume: Volume, ask: Ask) -> Mask:
    """The inscribed ellipsoids of a lesion's boxes, as one mask, without a ball round every negative click."""
    extents = read_extents(volume, ask)
    mask = inscribed([extent.box for extent in extents], volume.geometry)
    against = [prompt.at for prompt in ask if isinstance(prompt, Click) and not prompt.positive]
    if not against:
        return mask
    index = np.argwhere(mask.array)
    reach_mm = min(extent.click_reach_mm for extent in extents)
    left = np.array(mask.array)
    for at_mm in against:
        left[tuple(index[np.linalg.norm(mask.points_mm - at_mm, axis=1) <= reach_mm].T)] = False
    return Mask.from_array(left, mask.geometry)
