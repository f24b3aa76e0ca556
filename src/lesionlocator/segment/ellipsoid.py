"""The ellipsoid inscribed in the prompt's box: what can be said without looking inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box
from lesionlocator.segment.ask import Ask, NotOutlined, Outline, Prepared, answer
from lesionlocator.segment.extent import known, read_extents
from lesionlocator.volume import Mask, Volume
from lesionlocator.weights import ModelCard


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """Draws the inscribed ellipsoid of every box on the scan's own voxels."""

    card: ModelCard

    @property
    def name(self) -> str:
        return self.card.id

    def prepare(self, volume: Volume) -> Prepared:
        return Prepared(volume)

    def outline(self, prepared: Prepared, asks: Sequence[Ask]) -> list[Outline]:
        return [answer(prepared.volume, ask, draw_ellipsoids) for ask in asks]


def draw_ellipsoids(volume: Volume, ask: Ask) -> Mask:
    """The inscribed ellipsoids of a lesion's boxes, as one mask."""
    boxes = [extent.box for extent in read_extents(volume, ask)]
    for box in boxes:
        known(volume, box)
    return inscribed(boxes, volume.geometry)


def inscribed(boxes: Sequence[Box], geometry: Geometry) -> Mask:
    """The voxels whose centres lie in one of the inscribed ellipsoids; a box that holds no centre gives its middle."""
    covered = geometry.clip(*geometry.around(np.concatenate([box.points_mm for box in boxes])))
    if covered is None:
        raise NotOutlined("the prompt lies outside the scan")
    region = geometry.crop(*covered)
    array = np.zeros(region.shape, bool)
    for box in boxes:
        painted = box.paint_ellipsoid(region)
        if not painted.any() and bool(region.contains(box.centre[None])[0]):
            painted[tuple(np.round(region.world_to_index(box.centre[None])[0]).astype(int))] = True
        array |= painted
    return Mask.from_array(array, region)
