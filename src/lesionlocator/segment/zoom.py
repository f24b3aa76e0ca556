"""The zoom: a lesion of any size fills a steady share of one small patch, for training and for use alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from lesionlocator.geometry import Geometry, Index3, index3
from lesionlocator.prompt import Box, Click
from lesionlocator.resample import along_axes, axis_weights
from lesionlocator.segment.first import Glimpse, first_belief, squared_radius
from lesionlocator.volume import Mask, Modality, Volume

PATCH = 48
"""Voxels of a patch on each side."""

SHARE = 0.6
"""How much of each side of the patch a lesion's box takes."""

CHANNELS = (
    "local",
    "threshold",
    "patch",
    "ct window",
    "evidence",
    "like in",
    "like out",
    "seen",
    "click in",
    "click out",
    "box",
    "prior",
    "modality",
)
"""What a network is shown. The first seven are views of the scan, zero where it has no voxels; the last is the same
everywhere and tells the modality (`TOLD`)."""

TOLD: dict[Modality, float] = {"MR": -1.0, "CT": 0.0, "PT": 1.0}

_CLICK_REACH = 1.5
_LIMIT = 4.0
_SOFT_TISSUE_HU = (40.0, 200.0)
_BINS = 64
_FEWEST = 8
_VIEWS = 5
_LIKE = 0.25
_SURE = 1.5
_BELL = np.exp(-((np.arange(7) - 3) ** 2) / (2 * 1.5**2))

Patch = Float[np.ndarray, "48 48 48"]


@dataclass(frozen=True, eq=False)
class View:
    """Where a patch lies in a scan: the index of its first face on each axis, and scan voxels for each patch voxel.

    Its axes are those of the scan's array, each with a step of its own, so that flat lesions fill it as round ones do.
    """

    start: Float[np.ndarray, "3"]
    step: Float[np.ndarray, "3"]
    scan: Geometry

    @staticmethod
    def on_box(box: Box, scan: Geometry, share: float | Float[np.ndarray, "3"] = SHARE) -> View:
        """The box in the middle, taking `share` of every side."""
        index = scan.world_to_index(box.points_mm)
        low, high = index.min(axis=0), index.max(axis=0)
        size = np.maximum(high - low, 1.0) / share
        return View((low + high) / 2 - size / 2, size / PATCH, scan)

    @staticmethod
    def on_point(at_mm: Float[np.ndarray, "3"], side_mm: float | Float[np.ndarray, "3"], scan: Geometry) -> View:
        """A cube of this side round a point."""
        size = side_mm / scan.spacing_mm
        return View(scan.world_to_index(at_mm[None])[0] - size / 2, size / PATCH, scan)

    @property
    def side_mm(self) -> Float[np.ndarray, "3"]:
        return self.step * PATCH * self.scan.spacing_mm

    @property
    def at_index(self) -> list[Float[np.ndarray, " n"]]:
        """Indices of the patch's voxel centres in the scan, for each axis."""
        return [self.start[axis] + (np.arange(PATCH) + 0.5) * self.step[axis] for axis in range(3)]

    def from_world(self, at_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Places in mm as indices of the patch's voxels."""
        return (self.scan.world_to_index(at_mm) - self.start) / self.step - 0.5

    def to_world(self, at_patch: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Indices of patch voxels as places in mm."""
        return self.scan.index_to_world(self.start + (at_patch + 0.5) * self.step)

    def inside(self) -> Bool[np.ndarray, "48 48 48"]:
        """Which patch voxels have their centre in the scan."""
        d, h, w = ((at >= -0.5) & (at <= n - 0.5) for at, n in zip(self.at_index, self.scan.shape, strict=True))
        return d[:, None, None] & h[:, None] & w

    def covered(self) -> tuple[Index3, Index3] | None:
        """Start and stop of the scan's voxels that it shows; None when it lies outside."""
        return self.scan.clip(index3(np.floor(self.start)), index3(np.ceil(self.start + self.step * PATCH) + 1))

    def reads(self) -> tuple[slice, slice, slice]:
        """The scan's voxels that it has to read: what it shows and a margin, at least one."""
        reach = np.ceil(np.maximum(self.step, 1.0)) + 1
        shape = np.array(self.scan.shape)
        low = np.clip(np.floor(self.start) - reach, 0, shape - 1).astype(int)
        high = np.clip(np.ceil(self.start + self.step * PATCH) + reach, low + 1, shape).astype(int)
        d, h, w = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        return d, h, w

    def cut(self, array: np.ndarray) -> Patch:
        """An array of the scan's grid as it is seen here; nearest values repeated beyond its ends."""
        return self.cut_part(array[self.reads()])

    def cut_part(self, part: np.ndarray) -> Patch:
        """The same from `array[view.reads()]`.

        Low-passed where the patch is coarser than the scan. However large the patch, at most about four voxels are
        read for each of its own along an axis.
        """
        every = np.maximum(1, self.step // 2).astype(int)
        strided = part[tuple(slice(None, None, int(step)) for step in every)]
        weights = [
            axis_weights((at - read.start) / step, self.step[axis] / step, strided.shape[axis])
            for axis, (at, read, step) in enumerate(zip(self.at_index, self.reads(), every, strict=True))
        ]
        return along_axes(strided, weights)

    def to_mask(self, belief: Patch, least: float = 0.5) -> Mask:
        """The scan's own voxels for which the belief, seen through their size, reaches `least`."""
        hit = belief >= min(least, 0.5) / 2
        if not hit.any():
            return Mask.empty(self.scan)
        ranges = [np.flatnonzero(hit.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
        low = np.array([found[0] for found in ranges]) - 1.0
        high = np.array([found[-1] for found in ranges]) + 2.0
        covered = self.scan.clip(
            index3(np.floor(self.start + low * self.step)), index3(np.ceil(self.start + high * self.step) + 1)
        )
        if covered is None:
            return Mask.empty(self.scan)
        weights: list[np.ndarray] = []
        for axis, (first, stop) in enumerate(zip(*covered, strict=True)):
            at = (np.arange(first, stop) - self.start[axis]) / self.step[axis] - 0.5
            rows = axis_weights(at, 1 / self.step[axis], PATCH)
            weights.append(rows * ((at > -1.0) & (at < PATCH))[:, None])
        # Rounded, so that a tie is not decided by the order in which an axis was stored.
        fine = np.round(along_axes(belief, weights), 4)
        return Mask.from_array(fine >= least, self.scan.crop(*covered))


@dataclass(frozen=True, eq=False)
class Hints:
    """A lesion's prompts in patch voxels: clicks (n, 3), the bounds of a box that a reader drew, a mask from before.

    `expected` are bounds that were only guessed, as round a click.
    """

    clicks_in: Float[np.ndarray, "n 3"]
    clicks_out: Float[np.ndarray, "m 3"]
    box: Float[np.ndarray, "2 3"] | None = None
    prior: Patch | None = None
    expected: Float[np.ndarray, "2 3"] | None = None


def look(volume: Volume, view: View) -> Glimpse:
    """What the scan shows in a view. Voxels that are no numbers, and those beyond the scan, are not seen."""
    seen = view.inside().astype(np.float32)
    part = volume.array[view.reads()]
    if part.dtype.kind == "f" and not (finite := np.isfinite(part)).all():
        seen *= view.cut_part(finite) > 0.99
        part = np.where(finite, part, np.median(part[finite]) if finite.any() else 0.0)
    return Glimpse(view.cut_part(part), seen, volume.modality)


def hint(
    view: View,
    clicks: Sequence[Click],
    box: Box | None = None,
    prior: Patch | None = None,
    expected: Box | None = None,
) -> Hints:
    """A lesion's prompts in the voxels of a view; `expected` is where it is guessed to be when there is no box."""
    places = [[click.at for click in clicks if click.positive is positive] for positive in (True, False)]
    inside, outside = (view.from_world(np.array(at)) if at else np.zeros((0, 3)) for at in places)
    drawn, guessed = (None if one is None else _bounds_in(view, one) for one in (box, expected))
    return Hints(inside, outside, drawn, prior, guessed)


def _bounds_in(view: View, box: Box) -> Float[np.ndarray, "2 3"]:
    corners = view.from_world(box.points_mm)
    return np.stack([corners.min(axis=0), corners.max(axis=0)])


def show(glimpse: Glimpse, hints: Hints) -> Float[np.ndarray, "13 48 48 48"]:
    """All channels of a patch, in the order of `CHANNELS`."""
    out = np.zeros((len(CHANNELS), PATCH, PATCH, PATCH), np.float32)
    out[:_VIEWS] = views_of(glimpse, hints)
    out[5] = like(out[0], hints.clicks_in) * glimpse.seen
    out[6] = like(out[0], hints.clicks_out) * glimpse.seen
    out[7] = glimpse.seen
    out[8] = paint_clicks(hints.clicks_in)
    out[9] = paint_clicks(hints.clicks_out)
    if hints.box is not None:
        out[10] = paint_box(hints.box)
    if hints.prior is not None:
        out[11] = hints.prior
    out[12] = TOLD[glimpse.modality]
    return out


def classical(glimpse: Glimpse, hints: Hints) -> Patch:
    """What the rules of the segmenter `intensity` believe of the patch, 0 to 1; one half where they say nothing."""
    near, _ = _focus(hints)
    clicks = (hints.clicks_in, hints.clicks_out)
    return first_belief(glimpse, near, hints.box is not None, clicks, hints.prior)


def views_of(glimpse: Glimpse, hints: Hints) -> Float[np.ndarray, "5 48 48 48"]:
    """The scan in five ways, so that neither unit, contrast nor range matters.

    Centred on the middle of where the lesion is expected, in units of the spread there; on the best threshold there
    (Otsu, doi:10.1109/TSMC.1979.4310076), in units of the distance of the two classes; by the range of the whole patch;
    of a CT, the soft tissue; and how much likelier each brightness is where the lesion is expected than around it.
    """
    values, seen = glimpse.values, glimpse.seen > 0.5
    out = np.zeros((_VIEWS, *values.shape), np.float32)
    if np.count_nonzero(seen) < _FEWEST:
        return out
    near, middle = _focus(hints)
    slices = tuple(slice(max(0, int(a)), min(PATCH, int(b) + 1)) for a, b in zip(*near, strict=True))
    around = values[slices][seen[slices]]
    low, high = np.percentile(values[seen][::3], (1, 99))
    if len(around) < _FEWEST:
        around = values[seen]
    inner = tuple(slice(max(0, int(a)), min(PATCH, int(b) + 1)) for a, b in zip(*middle, strict=True))
    core = values[inner][seen[inner]]
    least, most = np.percentile(around[:: 1 + len(around) // 20_000], (10, 90))
    spread = max(float(most - least), 0.02 * float(high - low), 1e-6)
    out[0] = (values - (np.median(core) if len(core) else np.median(around))) / spread
    below, cut, above = _split(np.clip(around, low, high))
    out[1] = 2 * (values - cut) / max(above - below, 0.02 * float(high - low), 1e-6)
    out[2] = 2 * (values - (low + high) / 2) / max(float(high - low), 1e-6)
    if glimpse.modality == "CT":
        out[3] = np.clip((values - _SOFT_TISSUE_HU[0]) / _SOFT_TISSUE_HU[1], -1.5, 1.5)
    out[4] = evidence(values, seen, near, (float(low), float(high)))
    np.clip(out, -_LIMIT, _LIMIT, out=out)
    out *= glimpse.seen
    return out


def evidence(
    values: Patch, seen: Bool[np.ndarray, "48 48 48"], near: Float[np.ndarray, "2 3"], limits: tuple[float, float]
) -> Patch:
    """Log ratio of how common each brightness is inside the expected ellipsoid and in the shell around it.

    It says which of bright and dark is the lesion, which a network is slow to find out by itself.
    """
    radius = squared_radius(near, values.shape, 1.0)
    low, high = limits
    if high - low < 1e-6:
        return np.zeros_like(values)
    bins = np.clip((values - low) * (_BINS / (high - low)), 0, _BINS - 1)
    rough = bins.astype(np.int32)
    found: list[np.ndarray] = []
    for part in ((radius < 1.0) & seen, (radius > 1.2) & (radius < 4.0) & seen):
        counts = np.bincount(rough[part], minlength=_BINS).astype(float)
        smooth = np.convolve(np.pad(counts, 3, mode="edge"), _BELL, mode="valid")
        found.append((smooth + 0.5) / (smooth.sum() + 0.5 * _BINS))
    odds = np.log(found[0] / found[1]) / _SURE
    return np.interp(bins, np.arange(_BINS) + 0.5, odds).astype(np.float32)


def like(local: Patch, at: Float[np.ndarray, "n 3"]) -> Patch:
    """How much each voxel of the local view looks like what was clicked on, from 0 to 1."""
    out = np.zeros_like(local)
    for place in at:
        index = np.floor(place + 0.5).astype(int)
        if np.any(index < 0) or np.any(index >= PATCH):
            continue
        d, h, w = (slice(max(0, int(i) - 1), int(i) + 2) for i in index)
        value = float(local[d, h, w].mean())
        np.maximum(out, np.exp(-(((local - value) / _LIKE) ** 2) / 2), out=out)
    return out


def paint_clicks(at: Float[np.ndarray, "n 3"]) -> Patch:
    """A soft ball round every click."""
    out = np.zeros((PATCH, PATCH, PATCH), np.float32)
    along = np.arange(PATCH)
    for place in at:
        d, h, w = (np.exp(-(((along - middle) / _CLICK_REACH) ** 2) / 2) for middle in place)
        np.maximum(out, d[:, None, None] * h[:, None] * w, out=out, casting="same_kind")
    return out


def paint_box(bounds: Float[np.ndarray, "2 3"]) -> Patch:
    """How much of each voxel lies in the box."""
    along = np.arange(PATCH)
    low, high = bounds
    d, h, w = (np.clip(np.minimum(along + 0.5, high[a]) - np.maximum(along - 0.5, low[a]), 0.0, 1.0) for a in range(3))
    return (d[:, None, None] * h[:, None] * w).astype(np.float32)


def grown_bounds(bounds: Float[np.ndarray, "2 3"], factor: float) -> Float[np.ndarray, "2 3"]:
    """Bounds about the same middle, this many times as wide."""
    middle = bounds.mean(axis=0)
    return middle + factor * (bounds - middle)


def _focus(hints: Hints) -> tuple[np.ndarray, np.ndarray]:
    """Where the lesion is expected, as bounds in patch voxels: all of it, and its middle."""
    if hints.box is not None:
        bounds = hints.box
    elif hints.expected is not None:
        bounds = hints.expected
    elif hints.prior is not None and (hints.prior > 0.5).any():
        hit = np.argwhere(hints.prior > 0.5)
        bounds = np.stack([hit.min(axis=0), hit.max(axis=0)]).astype(float)
    else:
        centre = hints.clicks_in.mean(axis=0) if len(hints.clicks_in) else np.full(3, (PATCH - 1) / 2)
        bounds = np.stack([centre - SHARE * PATCH / 2, centre + SHARE * PATCH / 2])
    centre, half = bounds.mean(axis=0), (bounds[1] - bounds[0]) / 2
    return np.stack([centre - half, centre + half]), np.stack([centre - half / 3, centre + half / 3])


def _split(values: Float[np.ndarray, " n"]) -> tuple[float, float, float]:
    """The threshold that parts the values best, and the means below and above it."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        return low, low, high
    counts, edges = np.histogram(values, _BINS, (low, high))
    middles = (edges[1:] + edges[:-1]) / 2
    under, total = np.cumsum(counts)[:-1], np.cumsum(counts * middles)[:-1]
    over = counts.sum() - under
    mean_under = total / np.maximum(under, 1)
    mean_over = (np.sum(counts * middles) - total) / np.maximum(over, 1)
    best = int(np.argmax(under * over * (mean_over - mean_under) ** 2))
    return float(mean_under[best]), float(edges[best + 1]), float(mean_over[best])
