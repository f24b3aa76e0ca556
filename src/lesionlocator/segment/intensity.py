"""Shape and brightness: the ellipsoid of the prompt, corrected by what the picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lesionlocator.segment.ask import Ask, Outline, Prepared, answer
from lesionlocator.segment.ellipsoid import inscribed
from lesionlocator.segment.extent import extents, known
from lesionlocator.volume import Mask, Volume
from lesionlocator.weights import ModelCard


@dataclass(frozen=True, eq=False)
class Intensity:
    """Otsu's threshold in the ellipsoid, on the side of the middle's brightness."""

    card: ModelCard
    quality: str = "balanced"

    @staticmethod
    def from_card(card: ModelCard, quality: str) -> Intensity:
        return Intensity(card, quality)

    @property
    def name(self) -> str:
        return self.card.id

    def prepare(self, volume: Volume) -> Prepared:
        return Prepared(volume)

    def outline(self, prepared: Prepared, asks: Sequence[Ask]) -> list[Outline]:
        return [answer(prepared.volume, ask, self._draw) for ask in asks]

    def _draw(self, volume: Volume, ask: Ask) -> Mask:
        from skimage.filters import threshold_otsu

        boxes = extents(volume, ask)
        for box in boxes:
            known(volume, box)
        body = inscribed(boxes, volume.geometry)
        start = body.geometry.offset_in(volume.geometry) or (0, 0, 0)
        stop = (start[0] + body.array.shape[0], start[1] + body.array.shape[1], start[2] + body.array.shape[2])
        values = volume.crop(start, stop).array.astype(np.float32)
        if values.min() == values.max():
            return body
        threshold = threshold_otsu(values)
        bright = float(np.median(values[body.array])) > threshold
        return Mask.from_array(body.array & ((values > threshold) == bright), body.geometry)
