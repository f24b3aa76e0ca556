"""Synthetic pairs made once and kept in files, from which any number of samples are drawn in any order."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import ndimage

from lesionlocator.geometry import Geometry, PointMap, index3
from lesionlocator.resample import along_axes, axis_weights, resample
from lesionlocator.synth.paint import RegionSettings, draw_region
from lesionlocator.synth.pairs import Pair, PairSettings, training_pairs
from lesionlocator.synth.scene import Backgrounds
from lesionlocator.synth.story import StorySettings
from lesionlocator.synth.visit import Visit
from lesionlocator.train.memory import PairRegion
from lesionlocator.train.sources import Outlined
from lesionlocator.volume import Mask, Modality, Volume, bounds

GONE = "gone"
"""What the names of pairs say whose lesion is not there any more."""

_SIDE, _ROOM = 72, 4
_NODES = 4
_LARGEST = 0.42
"""Of a region's side, what a lesion takes at most before anything happens to it."""


def _weights() -> dict[str, float]:
    # Vanished lesions are half of what there is to learn, and rare in life.
    return {
        "same": 2,
        "grow": 3,
        "shrink": 3,
        "vanish": 3,
        "split": 1,
        "merge": 1,
        "necrosis": 1,
        "rim": 0.5,
        "uptake": 1,
    }


def _settings() -> PairSettings:
    chances = {"weight_change": 0.2, "breathing": 0.6, "table_shift": 0.5}
    story = StorySettings(lesion_weights=_weights(), appearing=0.8, patient_chances=chances)
    return PairSettings((_SIDE, _SIDE, _SIDE), _ROOM, visits=7, poses=2, at_once=1, story=story)


@dataclass(frozen=True)
class StoreSettings:
    """How pairs are made."""

    each: int = 12
    """Pairs of one source: its visits cost much, another pair of them little."""
    pairs: PairSettings = field(default_factory=_settings)


def painted_visit(rng: np.random.Generator, backgrounds: Backgrounds) -> Visit:
    """A painted lesion with room around it, as a patient's scan."""
    settings = RegionSettings(side=_SIDE, difficulty=float(rng.uniform(0.2, 1.0)), organ_share=0.0, cut_share=0.0)
    while True:
        region = draw_region(rng, backgrounds, settings)
        found = bounds(region.mask)
        if found is None or region.valid.mean() < 0.97:
            continue
        if np.subtract(found[1], found[0]).max() <= _LARGEST * _SIDE:
            break
    even_mm = float(np.prod(region.spacing_mm)) ** (1 / 3)
    modalities: dict[str, Modality] = {"CT": "CT", "MR": "MR", "PT": "PT"}
    return _roomy(region.image, region.mask, np.full(3, even_mm), modalities[region.modality])


def real_visit(lesion: Outlined) -> Visit:
    """An outlined lesion with what lies around it, in voxels that make it small enough for a region."""
    scan, size = lesion.scan.geometry, np.array(lesion.mask.array.shape)
    spacing_mm = scan.spacing_mm * np.maximum(1.0, size / (_LARGEST * 0.85 * _SIDE))
    reach_mm = spacing_mm * _SIDE / 2 + size * scan.spacing_mm / 2
    start = np.array(lesion.mask.geometry.offset_in(scan) or (0, 0, 0))
    reach = np.ceil(reach_mm / scan.spacing_mm).astype(int)
    low, high = np.maximum(start - reach, 0), np.minimum(start + size + reach, scan.shape)
    part = scan.crop(index3(low), index3(high))
    grid = part.respaced(spacing_mm)
    inside = Volume(lesion.mask.on(part).astype(np.float32), part, "CT")
    shown = np.nan_to_num(resample(lesion.scan, grid))
    return _roomy(shown, resample(inside, grid) >= 0.5, grid.spacing_mm, lesion.scan.modality)


def _roomy(image: np.ndarray, mask: np.ndarray, spacing_mm: np.ndarray, modality: Modality) -> Visit:
    """With the tissue mirrored where a region would reach beyond the end of the scan."""
    low, high = bounds(mask) or ((0, 0, 0), (1, 1, 1))
    middle = (np.array(low) + np.array(high)) // 2
    side = _SIDE + 4 * _ROOM
    before = np.maximum(0, side // 2 - middle)
    after = np.maximum(0, middle + side // 2 - np.array(mask.shape))
    rest = [(int(a), int(b)) for a, b in zip(before, after, strict=True)]
    d, h, w = (int(n) + a + b for n, (a, b) in zip(mask.shape, rest, strict=True))
    geometry = Geometry((d, h, w), np.diag([*spacing_mm, 1.0]))
    scan = Volume(np.pad(image, rest, mode="symmetric").astype(np.float32), geometry, modality)
    return Visit.of(scan, {"1": Mask.from_array(np.pad(mask, rest), geometry)}, order=1)


def made_pairs(source: Visit, seed: int, kind: str, settings: StoreSettings) -> Iterator[PairRegion]:
    """Pairs of one source. Those that show nothing of what a lesion became, although it is there, are left out."""
    for pair in itertools.islice(training_pairs([source], seed, settings.pairs), settings.each):
        region = as_pair_region(pair, kind)
        if region is not None:
            yield region


def as_pair_region(pair: Pair, kind: str) -> PairRegion | None:
    """A pair on the follow-up's grid, its baseline brought there by the true map."""
    grid = pair.followup.geometry
    there = [pair.followup_lesions[name] for name in pair.became if name in pair.followup_lesions]
    asked = pair.baseline_lesions.get(pair.lesion_id)
    if asked is None or (pair.became and not there):
        return None
    places = _places(grid, pair.alignment.backward)
    index = pair.baseline.geometry.world_to_index(places)
    before = _at(pair.baseline.array, index, float("nan"))
    outline = _at(asked.array.astype(np.float32), asked.geometry.world_to_index(places), 0.0) >= 0.5
    before, outline = before.reshape(grid.shape), outline.reshape(grid.shape)
    if not outline.any():
        return None
    truth = np.zeros(grid.shape, bool)
    for mask in there:
        truth |= mask.on(grid)
    return PairRegion(pair.followup, before, outline, truth, kind if there else f"{kind} {GONE}")


def _places(grid: Geometry, backward: PointMap) -> np.ndarray:
    """Where every voxel's place is in the baseline, (n, 3) mm: the map asked at every fourth voxel, linear between."""
    counts = [max(2, -(-(n - 1) // _NODES) + 1) for n in grid.shape]
    nodes = np.stack(np.meshgrid(*(np.arange(n) * float(_NODES) for n in counts), indexing="ij"), axis=-1)
    at_mm = backward(grid.index_to_world(nodes.reshape(-1, 3))).reshape(*counts, 3)
    rows = [axis_weights(np.arange(n) / _NODES, 1.0, count) for n, count in zip(grid.shape, counts, strict=True)]
    # In double precision no node is far from the others: what is rounded is under a thousandth of a millimetre.
    return np.stack([along_axes(at_mm[..., axis], rows).ravel() for axis in range(3)], axis=1).astype(float)


def _at(array: np.ndarray, index: np.ndarray, outside: float) -> np.ndarray:
    return ndimage.map_coordinates(
        array, index.T, output=np.float32, order=1, mode="constant", cval=outside, prefilter=False
    )


def write_pair(region: PairRegion, file: Path) -> None:
    """Half precision, brightness of MR scaled to fit into it."""
    scale = 1.0
    if region.followup.modality == "MR":
        scale = 1000 / max(float(np.nanpercentile(np.abs(region.followup.array), 99)), 1e-6)
    pictures = [
        np.clip(array * scale, -60_000, 60_000).astype(np.float16) for array in (region.followup.array, region.before)
    ]
    masks = [np.packbits(mask) for mask in (region.outline, region.truth)]
    part = file.with_suffix(".part")
    with part.open("wb") as stream:
        np.savez(
            stream,
            followup=pictures[0],
            before=pictures[1],
            outline=masks[0],
            truth=masks[1],
            affine=region.followup.geometry.affine,
            words=np.array([region.followup.modality, region.kind]),
        )
    part.replace(file)


def read_pair(file: Path) -> PairRegion:
    """A pair from `write_pair`."""
    with np.load(file) as kept:
        followup, before = (kept[name].astype(np.float32) for name in ("followup", "before"))
        shape, count = followup.shape, followup.size
        outline, truth = (np.unpackbits(kept[name], count=count).reshape(shape) > 0 for name in ("outline", "truth"))
        modality, kind = (str(word) for word in kept["words"])
        grid = Geometry(index3(shape), kept["affine"])
    modalities: Mapping[str, Modality] = {"CT": "CT", "MR": "MR", "PT": "PT"}
    return PairRegion(Volume(followup, grid, modalities[modality]), before, outline, truth, kind)


@dataclass(frozen=True)
class Stored:
    """Pairs from files, a share of them with lesions that are gone; every group of names as often as the others."""

    files: Sequence[Path]
    gone: float = 0.25

    def __call__(self, rng: np.random.Generator, difficulty: float) -> PairRegion:
        absent = [file for file in self.files if GONE in file.stem]
        present = [file for file in self.files if GONE not in file.stem]
        among = absent if absent and (rng.random() < self.gone or not present) else present
        groups = sorted({_group(file) for file in among})
        group = groups[int(rng.integers(len(groups)))]
        own = [file for file in among if _group(file) == group]
        return read_pair(own[int(rng.integers(len(own)))])


def make_store(
    folder: Path, name: str, count: int, source: Callable[[np.random.Generator], tuple[Visit, str]], seed: int
) -> list[Path]:
    """Pairs of `count` sources in a folder; those that are there already are not made again.

    Args:
        folder: Gets one file for each pair, and an empty one for each source that is done.
        name: Of this group of pairs, in letters.
        count: How many sources.
        source: Draws one: a visit, and its kind.
        seed: Of every draw.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        done = folder / f"{name}-{number:05d}.done"
        if done.exists():
            continue
        rng = np.random.default_rng([seed, number])
        visit, kind = source(rng)
        for place, region in enumerate(made_pairs(visit, int(rng.integers(2**31)), kind, StoreSettings())):
            gone = f"-{GONE}" if region.kind.endswith(GONE) else ""
            write_pair(region, folder / f"{name}-{number:05d}-{place:02d}{gone}.npz")
        done.touch()
    return stored(folder)


def stored(folder: Path) -> list[Path]:
    """All pairs of a folder, in order."""
    return sorted(folder.glob("*.npz"))


def _group(file: Path) -> str:
    return re.match(r"[^-]*", file.stem).group()  # pyright: ignore[reportOptionalMemberAccess]
