"""A trained network as a segmenter: one look at a zoomed patch for a box, and one more for every correction."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from lesionlocator.engine import Engine, available_cores, load_engine
from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry, index3
from lesionlocator.prompt import Box, Click, Line, Shape
from lesionlocator.segment.ask import Ask, NotOutlined, Outline, Prepared, answer
from lesionlocator.segment.extent import at_least_a_voxel, inscribed, known
from lesionlocator.segment.grow import read_extents
from lesionlocator.segment.looks import Chosen, End, Look
from lesionlocator.segment.running import Running
from lesionlocator.segment.zoom import (
    Patch,
    View,
    classical,
    grown_bounds,
    hint,
    look,
    paint_box,
    show,
)
from lesionlocator.volume import Mask, Volume
from lesionlocator.weights import ModelCard, embedded_folder

_SHARES = {True: "classical_share_box", False: "classical_share_click"}
_HARDLY = 0.1
_LOOKS = 3
_SAME = 0.15
_MOST_AT_ONCE = 4
_CUBES_MM = (90.0, 40.0)
"""Further starts from a click, beside the guessed extent: what is missed from one size is found from another."""
_AGREED = 0.8
"""Two starts that end so much alike need no third."""
_BEYOND = 1.05
"""An outline stays within the box that a reader drew, grown by this factor."""


@dataclass(frozen=True, eq=False)
class Learned:
    """Outlines by a network. From a box, one look.

    How far a lesion reaches from a click alone, the classical search guesses (`grow`); the network looks there, and
    again at what it found, until both are about the same. It does so from two cubes of steady sizes as well; the end
    that has settled, has a sharp border and is met from another start too is the answer.

    Further clicks are corrections, in the order given: each is answered with the outline from before as a prior.

    A card's settings `sure_...` (`looks.SURE`) say what the confidence of an outline from a click follows from: how
    well the ends agree tells more than the network's own estimate.

    A card with the setting `confidence` off has a network whose estimate of itself is worth nothing: none is given.
    Its settings `classical_share_box` and `classical_share_click` say how much the classical outline of the same patch,
    which the network is shown anyway, counts in the mean with its own belief: where a reader drew a box, and elsewhere.
    """

    card: ModelCard
    folder: Path
    device: str = "auto"
    _engines: list[Engine] = field(default_factory=list["Engine"])

    @property
    def name(self) -> str:
        return self.card.id

    @property
    def engine(self) -> Engine:
        """Loaded when it is first needed, and once."""
        if not self._engines:
            self._engines.append(load_engine(self.folder, self.device))
        return self._engines[0]

    def prepare(self, volume: Volume) -> Prepared:
        return Prepared(volume)

    def outline(self, prepared: Prepared, asks: Sequence[Ask]) -> list[Outline]:
        workers = min(len(asks), available_cores(), _MOST_AT_ONCE) if self.engine.device == "cpu" else 1
        if workers < 2:
            return [self._answer(prepared.volume, ask) for ask in asks]
        # Half of an answer is numpy, which one core does while the network runs for another lesion.
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(partial(self._answer, prepared.volume), asks))

    def _answer(self, volume: Volume, ask: Ask) -> Outline:
        confidences: list[float] = []

        def draw(volume: Volume, ask: Ask) -> Mask:
            mask, confidence = self._draw(upright(volume), ask)
            confidences.append(confidence)
            return mask.placed(volume.geometry)

        outline = answer(volume, ask, draw)
        if outline.mask is None or not self.card.settings.get("confidence", True):
            return outline
        return replace(outline, confidence=round(confidences[0], 4))

    def _draw(self, volume: Volume, ask: Ask) -> tuple[Mask, float]:
        clicks = [prompt for prompt in ask if isinstance(prompt, Click)]
        boxes = [at_least_a_voxel(prompt, volume.geometry) for prompt in ask if isinstance(prompt, Box)]
        shapes = [prompt for prompt in ask if isinstance(prompt, Shape)]
        for box in boxes:
            known(volume, box)
        if not boxes and not shapes:
            return self._from_a_guess(volume, [prompt for prompt in ask if isinstance(prompt, Line)], clicks)
        starts: list[tuple[Box, Box | None]] = [(box, box) for box in boxes]
        starts = starts or [(at_least_a_voxel(Box.around(shape.mask), volume.geometry), None) for shape in shapes]
        given = _together(shapes, volume)
        answers = [self._from_box(volume, box, shown, clicks, given) for box, shown in starts]
        return _joined([mask for mask, _ in answers]), float(np.mean([confidence for _, confidence in answers]))

    def _from_box(
        self, volume: Volume, around: Box, box: Box | None, clicks: Sequence[Click], given: Mask | None
    ) -> tuple[Mask, float]:
        view = View.on_box(around, volume.geometry)
        prior = None if given is None else view.cut(given.on(volume.geometry).astype(np.float32))
        seen = self._look(volume, view, (), _Asked(box, around, prior))
        for count in range(1, len(clicks) + 1):
            before = (seen.belief >= 0.5).astype(np.float32)
            seen = self._look(volume, view, clicks[:count], _Asked(box, around, before))
        return _outlined(seen, around, volume), seen.confidence

    def _from_a_guess(self, volume: Volume, lines: Sequence[Line], clicks: Sequence[Click]) -> tuple[Mask, float]:
        """From what says where the lesion is but not how far it reaches: lines, or else the first click in it."""
        used = [] if lines else [next(click for click in clicks if click.positive)]
        (extent,) = read_extents(volume, (*lines, *used))
        try:
            seen = self._around(volume, tuple(used), extent.box)
        except NotOutlined:
            # In a single voxel there is nothing to look at.
            smallest = inscribed([extent.box], volume.geometry)
            if smallest.voxels > 1:
                raise
            return smallest, 0.0
        begun = seen.confidence
        for click in [other for other in clicks if other not in used]:
            used.append(click)
            box = _with_places(seen.box(used), [click.at for click in used if click.positive], volume)
            view = View.on_box(box, volume.geometry)
            before = (seen.seen_from(view) >= 0.5).astype(np.float32)
            seen = _something(self._look(volume, view, used, _Asked(None, box, before)))
        # A correction mends an outline, but seldom finds another lesion: what it began with counts as much.
        return seen.view.to_mask(seen.belief), float(np.sqrt(begun * seen.confidence))

    def _around(self, volume: Volume, clicks: Sequence[Click], guessed: Box) -> Look:
        """What is found from the guessed extent and, at a click, from cubes of steady sizes too.

        Any start may be far off, and a look at a wrong place finds something of its own; where different starts end at
        one outline, and looking again changes nothing, that is the lesion's.
        """
        if not clicks:
            return _something(self._looks(volume, clicks, guessed)[-1])
        chosen = Chosen.among(self.ends(volume, clicks, guessed))
        return _something(None if chosen is None else chosen.look(self.card.settings))

    def ends(self, volume: Volume, clicks: Sequence[Click], guessed: Box) -> list[End]:
        """Where the looks from the guessed extent and from the cubes round the first click end, as far as needed."""
        at = clicks[0].at
        ends = [End.of(self._looks(volume, clicks, guessed), clicks, guessed=True)]
        for side_mm in _CUBES_MM:
            cube = Box.from_bounds(at - side_mm / 2, at + side_mm / 2)
            ends.append(End.of(self._looks(volume, clicks, cube), clicks))
            if len(ends) == 2 and ends[0].agrees(ends[1]) > _AGREED:
                break
        return ends

    def _looks(self, volume: Volume, clicks: Sequence[Click], guessed: Box) -> list[Look]:
        """A look at the guessed extent, and again at what was found there, until both are about the same."""
        looks: list[Look] = []
        for _ in range(_LOOKS):
            seen = self._look(volume, View.on_box(guessed, volume.geometry), clicks, _Asked(None, guessed))
            looks.append(seen)
            if not seen.found:
                break
            found = _with_places(seen.box(clicks), [click.at for click in clicks if click.positive], volume)
            if np.all(np.abs(np.log(found.size_mm / guessed.size_mm)) < _SAME):
                break
            guessed = found
        return looks

    def _look(self, volume: Volume, view: View, clicks: Sequence[Click], asked: _Asked) -> Look:
        glimpse, hints = look(volume, view), hint(view, clicks, asked.box, asked.prior, asked.expected)
        beliefs, confidences = self.engine(show(glimpse, hints)[None])
        belief = beliefs[0]
        if share := float(self.card.settings.get(_SHARES[asked.box is not None], 0.0)):
            belief = (1 - share) * belief + share * classical(glimpse, hints)
        belief = (belief * (glimpse.seen > 0.5)).astype(np.float32)
        if hints.box is not None:
            belief *= paint_box(grown_bounds(hints.box, _BEYOND)) > 0.5
        return Look(view, belief, float(confidences[0]))


@dataclass(frozen=True, eq=False)
class _Asked:
    """A box that a reader drew, where the lesion is expected in any case, and the outline from before."""

    box: Box | None
    expected: Box
    prior: Patch | None = None


def upright(scan: Volume) -> Volume:
    """The same scan, without a copy, with its axes in the order of the world's, and running as those do.

    So a network sees a patient the same way round, and everything is worked out in the same order, however the file
    stores the slices.
    """
    columns = scan.geometry.affine[:3, :3] / scan.geometry.spacing_mm
    _, found = linear_sum_assignment(-np.abs(columns))
    axes = [int(axis) for axis in found]
    backwards = tuple(world for world, axis in enumerate(axes) if columns[world, axis] < 0)
    affine = scan.geometry.affine[:, [*axes, 3]].copy()
    for world in backwards:
        affine[:3, 3] += affine[:3, world] * (scan.geometry.shape[axes[world]] - 1)
        affine[:3, world] *= -1
    array = np.flip(np.transpose(scan.array, axes), backwards)
    return replace(scan, array=array, geometry=Geometry(index3(array.shape), affine, scan.geometry.frame))


def _something(seen: Look | None) -> Look:
    if seen is None or not seen.found:
        raise NotOutlined("nothing found at the prompt")
    return seen


def load_learned(card: ModelCard, running: Running) -> Learned:
    """The network of a model folder, or of an embedded model."""
    if running.folds or running.mirroring is not None or running.precision != "fp32":
        raise Refused(
            found=f"folds, mirroring or a precision for {card.id}, which is one network in single precision",
            needed="none of them",
            do="leave them out",
        )
    segmenter = Learned(card, running.folder or embedded_folder(card.id), running.device)
    if running.device not in ("auto", "cpu"):
        # Where a device is not there, one wants to hear it at once.
        _ = segmenter.engine
    return segmenter


def _outlined(seen: Look, around: Box, volume: Volume) -> Mask:
    """The outline; where the network believes in nothing, what it believes in most, or the box's ellipsoid."""
    mask = seen.view.to_mask(seen.belief)
    if not mask.is_empty:
        return mask
    most = float(seen.belief.max())
    faint = seen.view.to_mask(seen.belief, most / 2) if most > _HARDLY else mask
    return inscribed([around], volume.geometry) if faint.is_empty else faint


def _together(shapes: Sequence[Shape], volume: Volume) -> Mask | None:
    placed = [shape.mask.placed(volume.geometry) for shape in shapes]
    placed = [mask for mask in placed if not mask.is_empty]
    return _joined(placed) if placed else None


def _joined(masks: Sequence[Mask]) -> Mask:
    """Masks of one lattice as one."""
    if len(masks) == 1:
        return masks[0]
    lattice = masks[0].geometry
    region = lattice.crop(*lattice.around(np.concatenate([mask.geometry.corners_mm for mask in masks])))
    return Mask.from_array(np.logical_or.reduce([mask.on(region) for mask in masks]), region)


def _with_places(box: Box, places: Sequence[np.ndarray], volume: Volume) -> Box:
    """The box grown to hold these places, along the scan's axes."""
    index = volume.geometry.world_to_index(np.concatenate([box.points_mm, np.array(places).reshape(-1, 3)]))
    return Box.from_index(index.min(axis=0) + 0.5, index.max(axis=0) + 0.5, volume.geometry)
