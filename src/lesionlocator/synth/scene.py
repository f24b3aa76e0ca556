"""The tissue that a painted region shows before any lesion: crops of real scans, or random label maps."""

from __future__ import annotations

from collections.abc import Iterable
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
            tissues["lung"] = ndimage.binary_erosion(body & (coarse < -650) & (coarse > -980), iterations=1)
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
    def draw(rng: np.random.Generator, side: int, coarse: float) -> Lattice:
        """In-plane voxels up to `coarse` times the region's; on two axes of three days slices up to six times."""
        ratio = np.full(3, 1.0 if rng.random() < 0.45 else rng.uniform(1.0, coarse))
        if rng.random() < 0.55:
            ratio[rng.integers(3)] *= rng.uniform(1.5, 6.0)
        ratio = np.minimum(ratio, 6.0)
        shape = index3(np.ceil(side / ratio))
        at = [(np.arange(side) + 0.5) / r - 0.5 for r in ratio]
        show = nearest_matrix if rng.random() < 0.2 else linear_matrix
        down = [average_matrix(side, n, r) for n, r in zip(shape, ratio, strict=True)]
        up = [show(a, n) for a, n in zip(at, shape, strict=True)]
        sizes = (float(ratio[0]), float(ratio[1]), float(ratio[2]))
        return Lattice(side, sizes, shape, (down[0], down[1], down[2]), (up[0], up[1], up[2]))


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


def cut_scene(
    rng: np.random.Generator, background: Background, place: str, lattice: Lattice, centre: Float[np.ndarray, "3"]
) -> Scene:
    """A part of a real scan with one voxel of `place` where the lesion will be (`centre`, in region voxels)."""
    organ = _organ_of(rng, background, place)
    spots = background.places[place] if organ is None else np.argwhere(organ)
    spot = spots[rng.integers(len(spots))].astype(float)
    order = rng.permutation(3)
    steps = rng.choice([-1.0, 1.0], 3) * rng.uniform(0.7, 1.6) * rng.uniform(0.85, 1.15, 3)
    array = background.array.transpose(order)
    at = [
        spot[o] + step * ((np.arange(n) + 0.5) - (c + 0.5) / r)
        for o, step, n, c, r in zip(order, steps, lattice.shape, centre, lattice.ratio, strict=True)
    ]
    image = _sampled(array, at, np.abs(steps), linear_matrix)
    known = [(a > -0.5) & (a < n - 0.5) for a, n in zip(at, array.shape, strict=True)]
    valid = _grown(lattice, known)
    found = None
    if organ is not None:
        found = _sampled(organ.transpose(order), at, np.ones(3), nearest_matrix) > 0.5
    floor = background.floor
    inside = image < -500 if place == "lung" else image > floor
    if place == "lung":
        inside = np.ones_like(inside)
    sizes = [abs(s) * background.spacing_mm[o] / r for s, o, r in zip(steps, order, lattice.ratio, strict=True)]
    spacing = (float(sizes[0]), float(sizes[1]), float(sizes[2]))
    return Scene(image, inside, lattice, background.modality, place, background.scale, spacing, valid, found)


def draw_label_scene(rng: np.random.Generator, lattice: Lattice, modality: str) -> Scene:
    """Random label maps with random intensities (SynthSeg, doi 10.1016/j.media.2023.102789)."""
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
    size = float(rng.uniform(0.6, 3.0))
    valid = np.ones((lattice.side,) * 3, bool)
    return Scene(np.ascontiguousarray(image), inside, lattice, modality, "soft", scale, (size, size, size), valid)


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


def _organ_of(rng: np.random.Generator, background: Background, place: str) -> Bool[np.ndarray, "d h w"] | None:
    if place != "organ" or background.organs is None:
        return None
    present = np.unique(background.organs)
    return background.organs == rng.choice(present[present > 0])


def _body(above: Bool[np.ndarray, "d h w"]) -> Bool[np.ndarray, "d h w"]:
    opened = ndimage.binary_opening(above)
    labels, count = ndimage.label(opened)
    if count == 0:
        return above
    largest = labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1
    return (
        np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(largest, _axial(largest), 0)], axis=0)
        if _axial(largest) == 0
        else np.moveaxis(
            np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(largest, _axial(largest), 0)]),
            0,
            _axial(largest),
        )
    )


def _axial(body: np.ndarray) -> int:
    """The axis across which the body goes through both ends of the file, most likely along the patient."""
    ends = [np.take(body, 0, axis=a).mean() + np.take(body, -1, axis=a).mean() for a in range(3)]
    return int(np.argmax(ends))


def _dark(array: Float32[np.ndarray, "d h w"]) -> float:
    high = float(np.percentile(array, 99))
    return 0.08 * high


def _some(index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return index if len(index) <= _PLACES else index[np.sort(rng.choice(len(index), _PLACES, replace=False))]
