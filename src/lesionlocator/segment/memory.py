"""A lesion outlined in a later scan with the earlier one in memory: both seen in one view, through the alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from lesionlocator.engine import Engine, load_engine
from lesionlocator.geometry import Alignment, Geometry, PointMap, index3
from lesionlocator.prompt import Box
from lesionlocator.segment.ask import Outline, Prepared, Remembered, SeenAgain
from lesionlocator.segment.extent import at_least_a_voxel
from lesionlocator.segment.first import Glimpse
from lesionlocator.segment.learned import Learned, upright
from lesionlocator.segment.zoom import CHANNELS, PATCH, TOLD, Hints, Patch, View, hint, look, show, views_of
from lesionlocator.volume import Mask, Volume
from lesionlocator.weights import ModelCard

CONTEXT = 0.4
"""How much of each side of a view a carried-over lesion takes: less than a prompted one, as it may have moved."""

_MARGIN = 8.0
"""Voxels of the scan that a view shows at least on either side of it, whatever its size."""
_HARDLY = 0.1
_GONE = 0.5
_VIEWS = CHANNELS.index("like in")
_SEEN, _PRIOR, _TOLD = (CHANNELS.index(name) for name in ("seen", "prior", "modality"))


def view_again(carried: Box, scan: Geometry, share: float | Float[np.ndarray, "3"] = CONTEXT) -> View:
    """The view of a later scan in which a carried-over lesion is looked for."""
    index = scan.world_to_index(carried.points_mm)
    size = np.maximum(index.max(axis=0) - index.min(axis=0), 1.0)
    return View.on_box(carried, scan, size / np.maximum(size / share, size + 2 * _MARGIN))


def seen_through(baseline: Volume, outline: Mask, view: View, backward: PointMap) -> tuple[Glimpse, Patch]:
    """A baseline as it lies in a view of the follow-up, and how much of each voxel the lesion's outline takes there."""
    axes = np.meshgrid(*view.at_index, indexing="ij")
    at_mm = backward(view.scan.index_to_world(np.stack(axes, axis=-1).reshape(-1, 3)))
    grid = baseline.geometry
    index = grid.world_to_index(at_mm)
    step_mm = view.scan.affine[:3, :3] * view.step
    ratio = np.abs(np.linalg.solve(grid.affine[:3, :3], step_mm)).max(axis=1)
    seen = np.all((index >= -0.5) & (index <= np.array(grid.shape) - 0.5), axis=1).astype(np.float32)
    covered = grid.clip(index3(np.floor(index.min(axis=0) - ratio)), index3(np.ceil(index.max(axis=0) + ratio) + 1))
    if covered is None:
        nothing = np.zeros((PATCH, PATCH, PATCH), np.float32)
        return Glimpse(nothing, nothing, baseline.modality), nothing
    part = baseline.crop(*covered).array
    if part.dtype.kind == "f" and not (finite := np.isfinite(part)).all():
        seen *= _values_at(finite.astype(np.float32), index - np.array(covered[0]), ratio, "nearest") > 0.99
        part = np.where(finite, part, np.median(part[finite]) if finite.any() else 0.0)
    values = _values_at(part, index - np.array(covered[0]), ratio, "nearest")
    within = _values_at(outline.array, outline.geometry.world_to_index(at_mm), ratio, "grid-constant")
    cube = (PATCH, PATCH, PATCH)
    glimpse = Glimpse(values.reshape(cube), seen.reshape(cube), baseline.modality)
    return glimpse, np.clip(within, 0, 1).reshape(cube) * glimpse.seen


def show_both(
    now: Glimpse, then: Glimpse, outline: Patch, expected: Float[np.ndarray, "2 3"]
) -> Float[np.ndarray, "26 48 48 48"]:
    """All channels of both visits: the follow-up asked for by the carried-over outline, then the baseline.

    `expected` are the bounds of the carried-over outline in patch voxels.
    """
    nowhere = np.zeros((0, 3))
    hints = Hints(nowhere, nowhere, None, outline, expected)
    out = np.zeros((2 * len(CHANNELS), PATCH, PATCH, PATCH), np.float32)
    out[: len(CHANNELS)] = show(now, hints)
    memory = out[len(CHANNELS) :]
    memory[:_VIEWS] = views_of(then, hints)
    memory[_SEEN], memory[_PRIOR] = then.seen, outline
    memory[_TOLD] = TOLD[then.modality]
    return out


@dataclass(frozen=True, eq=False)
class LearnedWithMemory(Learned):
    """Outlines by a network, and by another one where the lesion's earlier scan is known.

    The card's setting `vanished_below` says from which belief on a lesion counts as still there.
    """

    _memories: list[Engine] = field(default_factory=list["Engine"])

    @property
    def memory(self) -> Engine:
        """The network for later scans, loaded when it is first needed, and once."""
        if not self._memories:
            self._memories.append(load_engine(self.folder, self.device, memory=True))
        return self._memories[0]

    def look_again(
        self, baseline: Prepared, followup: Prepared, alignment: Alignment, lesions: Sequence[Remembered]
    ) -> list[SeenAgain]:
        scans = baseline.volume, followup.volume
        return [self._look_again(scans, alignment, lesion) for lesion in lesions]

    def _look_again(self, scans: tuple[Volume, Volume], alignment: Alignment, lesion: Remembered) -> SeenAgain:
        baseline, followup = scans[0], upright(scans[1])
        if lesion.carried.is_empty:
            return SeenAgain(Outline(None, None, "its place cannot be told in this scan"), 0.0, True)
        carried = at_least_a_voxel(Box.around(lesion.carried), followup.geometry)
        view = view_again(carried, followup.geometry)
        then, outline = seen_through(baseline, lesion.before, view, alignment.backward)
        bounds = hint(view, [], carried).box
        shown = show_both(look(followup, view), then, outline, np.zeros((2, 3)) if bounds is None else bounds)
        beliefs, said = self.memory(shown[None])
        belief = beliefs[0].astype(np.float32)
        confidence, presence = (round(float(word), 4) for word in said[0])
        if presence < float(self.card.settings.get("vanished_below", _GONE)):
            return SeenAgain(Outline(None, None, "nothing of it is seen any more"), presence, False)
        mask = _outlined(view, belief).placed(scans[1].geometry)
        if mask.is_empty:
            return SeenAgain(Outline(None, None, "nothing found at its place"), presence, True)
        return SeenAgain(Outline(mask, confidence), presence, True)


def with_memory(learned: Learned) -> LearnedWithMemory:
    """The same segmenter with the network for later scans in its folder."""
    return LearnedWithMemory(learned.card, learned.folder, learned.device)


def has_memory(card: ModelCard) -> bool:
    """Whether a model's card says that its network for later scans is to be used."""
    return bool(card.settings.get("memory", False))


def _values_at(
    array: np.ndarray, index: Float[np.ndarray, "n 3"], ratio: Float[np.ndarray, "3"], mode: str
) -> Float[np.ndarray, " n"]:
    """Linear values at places of an array, low-passed where places are further apart (`ratio`) than voxels."""
    every = np.maximum(1, ratio // 2).astype(int)
    strided = array[tuple(slice(None, None, int(step)) for step in every)].astype(np.float32)
    sigma = np.maximum(ratio / every - 1, 0) / 2
    if mode == "grid-constant":
        # Room for the border to fade out.
        reach = np.ceil(3 * sigma).astype(int) + 1
        strided = np.pad(strided, [(int(n), int(n)) for n in reach])
        index = index + reach * every
    if np.any(sigma > 0.05):
        strided = ndimage.gaussian_filter(strided, sigma, mode="nearest", truncate=3.0)
    return ndimage.map_coordinates(strided, (index / every).T, output=np.float32, order=1, mode=mode, prefilter=False)


def _outlined(view: View, belief: Patch) -> Mask:
    """The outline; where the network believes in nothing by half, what it believes in most."""
    mask = view.to_mask(belief)
    most = float(belief.max())
    return view.to_mask(belief, most / 2) if mask.is_empty and most > _HARDLY else mask
