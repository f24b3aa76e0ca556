"""The tissue that a painted region shows before any lesion: crops of real scans, or random label maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Integer, Shaped
from scipy import ndimage

from lesionlocator.geometry import Index3, index3
from lesionlocator.synth.lattice import (
    Matrix,
    along,
    average_matrix,
    blur_matrix,
    linear_matrix,
    nearest_matrix,
    smooth_noise,
)

_PLACES = 20_000
_AIR_HU = -400.0
_DIAMETERS_MM = {"lung": (6.0, 60.0), "bone": (10.0, 60.0)}


@dataclass(frozen=True, eq=False)
class Background:
    """One scan without tumours: voxels (d, h, w), their size, and where in it a lesion may be centred.

    `places` names kinds of tissue ("soft", "lung", "bone") and holds indices of voxels in each, a sample of them.
    `scale` is the robust range of intensities inside the body. `organs` may name outlined organs by number.
    """

    array: Shaped[np.ndarray, "d h w"]
    spacing_mm: tuple[float, float, float]
    modality: str
    places: dict[str, Integer[np.ndarray, "n 3"]]
    scale: float
    floor: float
    organs: Integer[np.ndarray, "d h w"] | None = None

    @staticmethod
    def from_array(
        array: Shaped[np.ndarray, "d h w"],
        spacing_mm: tuple[float, float, float],
        modality: str,
        organs: Integer[np.ndarray, "d h w"] | None = None,
    ) -> Background:
        """Finds the body and its tissues once (a second or less for each scan)."""
        coarse = np.asarray(array, np.float32)
        floor = _AIR_HU if modality == "CT" else _dark(coarse)
        body = _body(coarse > floor)
        tissues = {"soft": body & (coarse > floor)}
        if modality == "CT":
            tissues["soft"] = body & (coarse > -150) & (coarse < 250)
            tissues["lung"] = ndimage.binary_erosion(body & (coarse < -650) & (coarse > -980), iterations=2)
            tissues["bone"] = body & (coarse > 250) & (coarse < 1800)
        picked = np.random.default_rng(0)
        places = {name: _some(np.argwhere(found), picked) for name, found in tissues.items() if found.sum() > 50}
        low, high = np.percentile(coarse[body], [5, 95]) if body.any() else (0.0, 1.0)
        return Background(array, spacing_mm, modality, places, max(float(high - low), 1e-3), floor, organs)


@dataclass(frozen=True, eq=False)
class Backgrounds:
    """All scans that regions may be cut from; the caller reads the files."""

    items: tuple[Background, ...]

    @staticmethod
    def gather(items: Iterable[Background]) -> Backgrounds:
        return Backgrounds(tuple(items))

    def of(self, modality: str, place: str = "soft") -> tuple[Background, ...]:
        """Those of one modality that have such a place."""
        return tuple(b for b in self.items if b.modality == modality and place in b.places)


def pick(rng: np.random.Generator, items: Sequence[Background]) -> Background:
    """One of these; a hundred scans of one make do not push out the two of another."""
    makes = [(b.modality, *np.round(b.spacing_mm).astype(int)) for b in items]
    weights = np.array([makes.count(make) ** -0.75 for make in makes])
    return items[int(rng.choice(len(items), p=weights / weights.sum()))]


@dataclass(frozen=True, eq=False)
class Lattice:
    """The voxels that the scanner made, coarser than the region's by `ratio` along each axis.

    `down` averages the region's fine voxels over the scanner's; `up` shows the scanner's voxels on the region, either
    interpolated or in steps.
    """

    side: int
    ratio: tuple[float, float, float]
    shape: Index3
    down: tuple[Matrix, Matrix, Matrix]
    up: tuple[Matrix, Matrix, Matrix]

    @staticmethod
    def of(side: int, ratio: Float[np.ndarray, "3"], *, stepped: bool = False) -> Lattice:
        """Scanner's voxels of so many region voxels, shown interpolated or in steps."""
        shape = index3(np.ceil(side / ratio))
        at = [(np.arange(side) + 0.5) / r - 0.5 for r in ratio]
        show = nearest_matrix if stepped else linear_matrix
        down = [average_matrix(side, n, r) for n, r in zip(shape, ratio, strict=True)]
        up = [show(a, n) for a, n in zip(at, shape, strict=True)]
        sizes = (float(ratio[0]), float(ratio[1]), float(ratio[2]))
        return Lattice(side, sizes, shape, (down[0], down[1], down[2]), (up[0], up[1], up[2]))


@dataclass(frozen=True, eq=False)
class Framing:
    """Where in the region the lesion will be, in region voxels."""

    side: int
    centre: Float[np.ndarray, "3"]
    radius: Float[np.ndarray, "3"]

    @staticmethod
    def draw(rng: np.random.Generator, side: int) -> Framing:
        centre = (side - 1) / 2 + rng.uniform(-0.08, 0.08, 3) * side
        return Framing(side, centre, rng.uniform(0.26, 0.66) * rng.uniform(0.9, 1.1, 3) * side / 2)

    def lattice(
        self, rng: np.random.Generator, voxel_mm: Float[np.ndarray, "3"], diameter_mm: float
    ) -> tuple[Lattice, Float[np.ndarray, "3"]]:
        """A scanner's voxels for a lesion of this size, and how many of the given voxels each of them is long.

        In-plane they are up to 3.2 region voxels long, slices up to 6.5; what would be finer than the region is not.
        """
        fine_mm = diameter_mm / (2 * self.radius.mean()) * np.exp(rng.normal(0, 0.12, 3))
        steps = rng.uniform(0.8, 1.5) * rng.uniform(0.9, 1.1, 3)
        if rng.random() < 0.45:
            thick = int(np.argmax(voxel_mm)) if rng.random() < 0.7 else int(rng.integers(3))
            steps[thick] *= rng.uniform(1.5, 4.0)
        ratio = steps * voxel_mm / fine_mm
        most = np.full(3, 3.2)
        most[np.argmax(ratio)] = 6.5
        ratio = ratio / max(1.0, float(np.max(ratio / most)))
        steps = steps * np.maximum(1.0, 1.0 / ratio)
        return Lattice.of(self.side, np.maximum(ratio, 1.0), stepped=bool(rng.random() < 0.15)), steps


@dataclass(frozen=True, eq=False)
class Scene:
    """A region before painting, on the scanner's voxels.

    `inside` is False where a lesion cannot grow (air around the body, when the lesion is of soft tissue). `scale` is
    the range of intensities that counts as strong contrast, `valid` what lies inside the file, on the region's voxels.
    """

    image: Float32[np.ndarray, "d h w"]
    inside: Bool[np.ndarray, "d h w"]
    lattice: Lattice
    modality: str
    place: str
    scale: float
    spacing_mm: tuple[float, float, float]
    valid: Bool[np.ndarray, "n n n"]
    organ: Bool[np.ndarray, "d h w"] | None = None


def cut_scene(rng: np.random.Generator, background: Background, place: str, framing: Framing) -> Scene:
    """A part of a real scan with one voxel of `place` where the lesion will be."""
    order = rng.permutation(3)
    voxel_mm = np.array(background.spacing_mm)[order]
    low, high = _DIAMETERS_MM.get(place, (12.0, 150.0))
    lattice, steps = framing.lattice(rng, voxel_mm, float(np.exp(rng.uniform(np.log(low), np.log(high)))))
    spots = background.places[place]
    drawn = spots[rng.integers(len(spots), size=4 if rng.random() < 0.75 else 1)].astype(float)[:, order]
    # Of several places the one that shows most of the scan: files end often enough without choosing it.
    reach = np.array(lattice.shape) * steps / 2
    shown = np.minimum(drawn, np.array(background.array.shape)[order] - 1 - drawn) / reach
    spot = drawn[int(np.argmax(shown.clip(max=1).sum(axis=1)))]
    at = _looked_at(rng, lattice, steps, spot, framing)
    image, valid = _seen(background, order, at, lattice, steps)
    if place == "lung":
        inside = np.ones(lattice.shape, bool)
    elif background.modality == "CT":
        inside = image > background.floor
    else:
        # Dark fluid is no air: only where it is dark all around does the body end.
        inside = along(image, [blur_matrix(n, 2.0) for n in lattice.shape]) > background.floor
    spacing = _sizes(voxel_mm * steps, lattice)
    return Scene(image, inside, lattice, background.modality, place, background.scale, spacing, valid)


def cut_organ(rng: np.random.Generator, background: Background, framing: Framing) -> Scene:
    """A real organ in its surroundings, its box where the lesion's would be."""
    organs = background.organs
    if organs is None:
        raise ValueError("this background has no outlined organs")
    present = np.unique(organs)
    organ = organs == rng.choice(present[present > 0])
    order = rng.permutation(3)
    hit = np.argwhere(organ)[:, order]
    low, high = hit.min(axis=0), hit.max(axis=0) + 1
    ratio = 2 * framing.radius / (high - low)
    steps = np.maximum(1.0, 1.0 / ratio)
    lattice = Lattice.of(framing.side, np.clip(ratio, 1.0, 6.5))
    at = _looked_at(rng, lattice, steps, (low + high - 1) / 2, framing)
    image, valid = _seen(background, order, at, lattice, steps)
    found = _sampled(organ.transpose(order), at, np.ones(3), nearest_matrix) > 0.5
    spacing = _sizes(np.array(background.spacing_mm)[order] * steps, lattice)
    inside = np.ones(lattice.shape, bool)
    return Scene(image, inside, lattice, background.modality, "organ", background.scale, spacing, valid, found)


def _looked_at(
    rng: np.random.Generator, lattice: Lattice, steps: np.ndarray, spot: np.ndarray, framing: Framing
) -> list[np.ndarray]:
    """Index along each axis of the background for every scanner voxel; any axis may run backwards."""
    signed = steps * rng.choice([-1.0, 1.0], 3)
    return [
        s + step * ((np.arange(n) + 0.5) - (c + 0.5) / r)
        for s, step, n, c, r in zip(spot, signed, lattice.shape, framing.centre, lattice.ratio, strict=True)
    ]


def _seen(
    background: Background, order: np.ndarray, at: list[np.ndarray], lattice: Lattice, steps: np.ndarray
) -> tuple[Float32[np.ndarray, "d h w"], Bool[np.ndarray, "n n n"]]:
    array = background.array.transpose(order)
    known = [(a > -0.5) & (a < n - 0.5) for a, n in zip(at, array.shape, strict=True)]
    return _sampled(array, at, steps, linear_matrix), _grown(lattice, known)


def _sizes(native_mm: np.ndarray, lattice: Lattice) -> tuple[float, float, float]:
    d, h, w = native_mm / np.array(lattice.ratio)
    return float(d), float(h), float(w)


def draw_label_scene(rng: np.random.Generator, framing: Framing, modality: str) -> Scene:
    """Random label maps with random intensities (SynthSeg, doi 10.1016/j.media.2023.102789)."""
    voxel_mm = np.full(3, 4.0 if modality == "PT" else 1.0)
    diameter_mm = float(np.exp(rng.uniform(np.log(12), np.log(150))))
    lattice, steps = framing.lattice(rng, voxel_mm, diameter_mm)
    shape = lattice.shape
    fields = [smooth_noise(rng, shape, rng.uniform(1.5, 6.0)) for _ in range(int(rng.integers(3, 9)))]
    labels = np.argmax(np.stack(fields), axis=0)
    pet = modality == "PT"
    values = rng.gamma(1.5, 0.6, len(fields)) if pet else rng.uniform(0, 1, len(fields))
    image = values.astype(np.float32)[labels]
    if rng.random() < 0.6:
        image += np.float32(rng.uniform(0.02, 0.15)) * smooth_noise(rng, shape, rng.uniform(4, 14)) * (image + 0.2)
    sigma = rng.uniform(0.6, 1.2) if pet else rng.uniform(0.2, 0.8)
    image = along(image, [blur_matrix(n, sigma) for n in shape])
    scale = 1.0
    if modality == "MR":
        scale = float(rng.uniform(200, 2000))
        image = image * np.float32(scale)
    elif modality == "CT":
        scale = float(rng.uniform(60, 400))
        image = image * np.float32(scale) + np.float32(rng.uniform(-150, 60))
    inside = np.ones(shape, bool)
    valid = np.ones((lattice.side,) * 3, bool)
    return Scene(
        np.ascontiguousarray(image), inside, lattice, modality, "soft", scale, _sizes(voxel_mm * steps, lattice), valid
    )


def remapped(rng: np.random.Generator, scene: Scene) -> Scene:
    """The same tissue with intensities sent through a random curve, as a modality that nobody has seen."""
    low, high = np.percentile(scene.image[::2, ::2, ::2], [1, 99])
    if scene.modality == "CT":
        low, high = max(low, -250.0), min(max(high, 100.0), 300.0)
    knots = np.linspace(low, max(high, low + 1e-3), int(rng.integers(4, 9)))
    heights = np.cumsum(rng.gamma(0.7, 1.0, len(knots)))
    if rng.random() < 0.5:
        heights = rng.permutation(heights)
    heights = (heights - heights.min()) / max(float(np.ptp(heights)), 1e-3)
    scale = float(rng.uniform(100, 2000))
    image = np.interp(scene.image, knots, heights * scale).astype(np.float32)
    return Scene(
        image, scene.inside, scene.lattice, "MR", scene.place, scale, scene.spacing_mm, scene.valid, scene.organ
    )


def _sampled(
    array: Shaped[np.ndarray, "d h w"], at: list[np.ndarray], widths: np.ndarray, matrix: object
) -> Float32[np.ndarray, "n m k"]:
    """The crop that is needed only, sent through one matrix per axis; ends repeat."""
    crop: list[slice] = []
    matrices: list[np.ndarray] = []
    for a, width, count in zip(at, widths, array.shape, strict=True):
        low = int(np.clip(np.floor(a.min()) - 2, 0, count - 1))
        high = int(np.clip(np.ceil(a.max()) + 3, low + 1, count))
        crop.append(slice(low, high))
        if matrix is nearest_matrix:
            matrices.append(nearest_matrix(a - low, high - low))
        else:
            matrices.append(linear_matrix(a - low, high - low, float(width)))
    return np.ascontiguousarray(along(np.asarray(array[tuple(crop)], np.float32), matrices))


def _grown(lattice: Lattice, known: list[np.ndarray]) -> Bool[np.ndarray, "n n n"]:
    """The scanner's voxels inside the file, shown on the region's."""
    fine: list[np.ndarray] = []
    for inside, ratio in zip(known, lattice.ratio, strict=True):
        of = np.minimum(np.floor((np.arange(lattice.side) + 0.5) / ratio).astype(int), len(inside) - 1)
        fine.append(inside[of])
    return fine[0][:, None, None] & fine[1][None, :, None] & fine[2][None, None, :]


def _body(above: Bool[np.ndarray, "d h w"]) -> Bool[np.ndarray, "d h w"]:
    opened = ndimage.binary_opening(above)
    labels, count = ndimage.label(opened)
    if count == 0:
        return above
    largest = labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1
    axis = _axial(largest)
    filled = [ndimage.binary_fill_holes(plane) for plane in np.moveaxis(largest, axis, 0)]
    return np.moveaxis(np.stack(filled), 0, axis)


def _axial(body: np.ndarray) -> int:
    """The axis across which the body goes through both ends of the file, most likely along the patient."""
    ends = [np.take(body, 0, axis=a).mean() + np.take(body, -1, axis=a).mean() for a in range(3)]
    return int(np.argmax(ends))


def _dark(array: Float32[np.ndarray, "d h w"]) -> float:
    high = float(np.percentile(array, 99))
    return 0.08 * high


def _some(index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return index if len(index) <= _PLACES else index[np.sort(rng.choice(len(index), _PLACES, replace=False))]
