"""The published tracker's rule, rebuilt with our parts: both whole scans squeezed to one size, the outline warped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lesionlocator.align.field import FieldMap
from lesionlocator.align.nonrigid import deform
from lesionlocator.align.view import View, to_grey
from lesionlocator.geometry import AffineMap, Geometry, Index3
from lesionlocator.prompt import Box, Shape
from lesionlocator.resample import resample
from lesionlocator.segment import Ask, FollowedOutline, Outline, Prepared, Segmenter, load_segmenter
from lesionlocator.volume import Mask, Volume
from lesionlocator.weights import DEFAULT_MODEL, ModelCard

_SIDE = 175
"""Voxels along each side to which every scan is squeezed, whatever its proportions."""
_SAME_LENGTH = 20
_SLID_SIDE = 44
_NEAR_VOXELS = 8


@dataclass(frozen=True, eq=False)
class WholeField:
    """Follows by one registration of the whole field of view, and outlines what arrives.

    As the published tracker does: scans over 20 slices longer are cut to where the shorter differs least; both are
    squeezed to one size, and only their voxels' order counts, no header; one deformation without an affine start; the
    mask is carried nearest neighbour; what arrives is the prompt. Ours are the deformation and the segmenter. Where
    nothing arrives the published one looks at a random place, this one says outside.
    """

    card: ModelCard
    segmenter: Segmenter
    searched_side: int = 88
    """Voxels along each side on which the deformation is searched. At 175 it would take eight times as long."""

    @property
    def name(self) -> str:
        return self.card.id

    def prepare(self, volume: Volume) -> Prepared:
        return self.segmenter.prepare(volume)

    def outline(self, prepared: Prepared, asks: Sequence[Ask]) -> list[Outline]:
        return self.segmenter.outline(prepared, asks)

    def follow(self, baseline: Prepared, followup: Prepared, masks: Sequence[Mask]) -> list[FollowedOutline]:
        """One answer for each outline: None where nothing of it arrives, empty where nothing is found there."""
        field = squeeze(baseline.volume, followup.volume, self.searched_side)
        carried = [field.carry(mask) for mask in masks]
        asked = [number for number, mask in enumerate(carried) if not mask.is_empty]
        found = self.segmenter.outline(followup, [(Shape(carried[number]),) for number in asked])
        answers = [FollowedOutline(None) for _ in masks]
        for number, outline in zip(asked, found, strict=True):
            answers[number] = FollowedOutline(outline.mask or Mask.empty(followup.volume.geometry))
        return answers


WHOLE_FIELD = ModelCard(
    id="whole-field",
    kind="whole-field",
    title=f"The published tracker's rule with our deformation and {DEFAULT_MODEL}",
    licence="Apache-2.0",
    intended_use="Evaluation only: the rule that our own tracking has to be better than.",
    limits="Not a medical device, and not the published tracker: its networks are not in it.",
)


def whole_field() -> WholeField:
    """The rule with the default segmenter."""
    return WholeField(WHOLE_FIELD, load_segmenter(DEFAULT_MODEL))


@dataclass(frozen=True, eq=False)
class Squeezed:
    """Two scans on cubes of one size: `first` and `second` are where in the patient the voxels of the cubes lie."""

    followup: Geometry
    first: Geometry
    second: Geometry
    cube: Geometry
    there: FieldMap
    back: FieldMap

    def carry(self, mask: Mask) -> Mask:
        """The mask in the follow-up, nearest neighbour all the way; empty when nothing arrives."""
        region = self._region(mask)
        if region is None:
            return Mask.empty(self.followup)
        at = region.index_to_world(np.indices(region.shape).reshape(3, -1).T.astype(float))
        spots = _nearest(self.second, at)
        origins = _nearest(self.cube, self.back(self.cube.index_to_world(spots)))
        shown = np.all((origins >= 0) & (origins < _SIDE), axis=1) & np.all((spots >= 0) & (spots < _SIDE), axis=1)
        index = _nearest(mask.geometry, self.first.index_to_world(origins)).astype(int)
        shown &= np.all((index >= 0) & (index < np.array(mask.geometry.shape)), axis=1)
        carried = np.zeros(len(at), bool)
        carried[shown] = mask.array[tuple(index[shown].T)]
        return Mask.from_array(carried.reshape(region.shape), region)

    def _region(self, mask: Mask) -> Geometry | None:
        if mask.is_empty:
            return None
        arrived = self.there(self.cube.index_to_world(self.first.world_to_index(mask.points_mm)))
        index = self.cube.world_to_index(arrived)
        ends = np.stack([index.min(axis=0) - _NEAR_VOXELS, index.max(axis=0) + _NEAR_VOXELS])
        covered = self.followup.clip(
            *self.followup.around(self.second.index_to_world(Box.from_bounds(*ends).points_mm))
        )
        return None if covered is None else self.followup.crop(*covered)


def squeeze(baseline: Volume, followup: Volume, searched_side: int) -> Squeezed:
    """One registration of two whole scans."""
    spans = _same_part(baseline, followup)
    first, second = (scan.crop(*span) for scan, span in zip((baseline, followup), spans, strict=True))
    extent_mm = np.prod(np.array(first.geometry.shape) * first.geometry.spacing_mm)
    views = [_view(scan, searched_side, float(np.cbrt(extent_mm)) / searched_side) for scan in (first, second)]
    fields = deform(views[0], views[1], AffineMap.identity())
    if fields is None:
        still = FieldMap(np.zeros((3, 2, 2, 2), np.float32), views[0].geometry.crop((0, 0, 0), (2, 2, 2)))
        fields = still, still
    return Squeezed(
        followup.geometry,
        _fixed(first.geometry, (_SIDE, _SIDE, _SIDE)),
        _fixed(second.geometry, (_SIDE, _SIDE, _SIDE)),
        _fixed(views[0].geometry, (_SIDE, _SIDE, _SIDE)),
        *fields,
    )


def _view(scan: Volume, side: int, spacing_mm: float) -> View:
    """The whole field of view, on a cube that knows nothing of the patient."""
    shape = (side, side, side)
    everything = np.ones(shape, bool)
    grey = to_grey(np.nan_to_num(resample(scan, _fixed(scan.geometry, shape))), everything, scan.modality)
    affine = np.zeros((4, 4))
    affine[[0, 1, 2], [2, 1, 0]] = spacing_mm
    affine[3, 3] = 1
    return View(grey.astype(np.float32), everything, everything, Geometry(shape, affine))


def _same_part(baseline: Volume, followup: Volume) -> list[tuple[Index3, Index3]]:
    """What of each scan is looked at: all, or of one that is over 20 slices longer the part most like the shorter."""
    scans = baseline, followup
    whole: list[tuple[Index3, Index3]] = [((0, 0, 0), scan.geometry.shape) for scan in scans]
    thickness_mm = min(float(scan.geometry.spacing_mm[0]) for scan in scans)
    depths = [round(scan.geometry.shape[0] * float(scan.geometry.spacing_mm[0]) / thickness_mm) for scan in scans]
    if abs(depths[0] - depths[1]) <= _SAME_LENGTH:
        return whole
    longer = int(depths[1] > depths[0])
    slices = [_slices(scan, depth) for scan, depth in zip(scans, depths, strict=True)]
    start = _least_different(slices[longer], slices[1 - longer])
    share = scans[longer].geometry.shape[0] / depths[longer]
    low, high = round(start * share), round((start + depths[1 - longer]) * share)
    (_, (_, height, width)) = whole[longer]
    whole[longer] = (low, 0, 0), (max(high, low + 1), height, width)
    return whole


def _slices(scan: Volume, depth: int) -> Float[np.ndarray, "n p"]:
    shape = (depth, _SLID_SIDE, _SLID_SIDE)
    array = np.nan_to_num(resample(scan, _fixed(scan.geometry, shape)))
    return to_grey(array, np.ones(shape, bool), scan.modality).reshape(depth, -1)


def _least_different(longer: Float[np.ndarray, "m p"], shorter: Float[np.ndarray, "n p"]) -> int:
    """The first slice of the part with the least mean squared difference; the first such on a tie."""
    places = range(len(longer) - len(shorter) + 1)
    return int(np.argmin([float(((longer[at : at + len(shorter)] - shorter) ** 2).mean()) for at in places]))


def _fixed(geometry: Geometry, shape: Index3) -> Geometry:
    """A grid of this shape over the same extent, whatever becomes of the voxels' proportions."""
    scale = np.array(geometry.shape) / np.array(shape)
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.index_to_world(((scale - 1) / 2)[None])[0]
    affine[:3, :3] *= scale
    return Geometry(shape, affine, geometry.frame)


def _nearest(geometry: Geometry, at_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    return np.floor(geometry.world_to_index(at_mm) + 0.5)
