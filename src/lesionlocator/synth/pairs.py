"""Endless training pairs: one lesion's surroundings at two visits, with prompts and the place that an aligner gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from lesionlocator.errors import Refused
from lesionlocator.geometry import AffineMap, Alignment, Geometry, Index3, compose, index3
from lesionlocator.prompt import Box, Click, Prompt, Shape
from lesionlocator.resample import resample
from lesionlocator.synth.carry import carry_mask
from lesionlocator.synth.chain import Scan
from lesionlocator.synth.story import Drawing, StorySettings
from lesionlocator.synth.visit import Changed, Visit
from lesionlocator.volume import Mask, Volume


def _in_training() -> StorySettings:
    # A field of view needs no drawing here: every pair is cropped anew, each of its scans elsewhere.
    return StorySettings(patient_chances={"weight_change": 0.2, "breathing": 0.7, "table_shift": 0.8})


@dataclass(frozen=True)
class PairSettings:
    """How training pairs are drawn."""

    shape: Index3 = (64, 64, 64)
    """Voxels of either scan's region."""
    room: int = 8
    """Voxels on every side by which a region may be off the lesion's middle."""
    spacing_mm: tuple[float, float, float] | None = None
    """Voxel size along the scan's own axes; None: that of each scan as it is."""
    visits: int = 16
    """Visits that are made of one lesion at a time; any two of them, in either order, are a pair."""
    poses: int = 3
    """Visits with the same state of the lesions, in which only patient and scanner differ."""
    at_once: int = 4
    """Lesions whose visits are mixed."""
    carried_sd_voxels: tuple[float, float] = (3.0, 6.0)
    """The carried-over prompt is off by this standard deviation along each axis, drawn anew for each pair."""
    story: StorySettings = field(default_factory=_in_training)


@dataclass(frozen=True, eq=False)
class Pair:
    """A lesion at two visits. `alignment` is the truth; `carried` is what a tracking would start from."""

    baseline: Volume
    followup: Volume
    lesion_id: str
    became: tuple[str, ...]
    """Its ids in the follow-up; none when it is gone there. What lies outside the region has an id but no outline."""
    baseline_lesions: dict[str, Mask]
    followup_lesions: dict[str, Mask]
    prompts: tuple[Prompt, ...]
    """A click on, a box around and the outline of the lesion in the baseline."""
    followup_prompts: tuple[Prompt, ...]
    """The same in the follow-up, as a reader would give them there; none when it is gone."""
    carried: tuple[Prompt, ...]
    """The baseline's prompts in the follow-up, off by an aligner's error."""
    alignment: Alignment


@dataclass(frozen=True, eq=False)
class _Look:
    """One of the visits made of a lesion, with the way to it from the source."""

    scan: Scan
    way: Changed
    asked: dict[str, tuple[Prompt, ...]] = field(default_factory=dict[str, tuple[Prompt, ...]])

    def prompts(self, lesion_id: str) -> tuple[Prompt, ...]:
        """A click, a box and the outline of one lesion; found once for all pairs."""
        if lesion_id not in self.asked:
            mask = self.scan.seen[lesion_id]
            self.asked[lesion_id] = (Click.inside(mask), Box.around(mask), Shape(mask))
        return self.asked[lesion_id]


@dataclass(frozen=True, eq=False)
class _Subject:
    """The visits of one lesion, and which pairs of them are still to be given."""

    region: Visit
    looks: tuple[_Look, ...]
    left: list[tuple[int, int]]


def training_pairs(
    sources: Sequence[Visit],
    seed: int,
    settings: PairSettings | None = None,
    errors_mm: Float[np.ndarray, "n 3"] | None = None,
) -> Iterator[Pair]:
    """Pairs without end, made from the sources in memory; the same seed gives the same pairs.

    Making a visit is the costly part, so some visits of a lesion are made at a time and every two of them given as a
    pair, lesions mixed.

    Args:
        sources: Scans with at least one lesion each.
        seed: Workers take different seeds.
        settings: Sizes, and how visits are drawn.
        errors_mm: Errors of a real aligner, one of which is drawn for each pair; None: as the settings say.
    """
    settings = settings or PairSettings()
    whole = [source for source in sources if any(not mask.is_empty for mask in source.lesions.values())]
    if not whole:
        raise Refused(found="no source with a lesion", needed="at least one", do="give scans with outlines")
    rng = np.random.default_rng(seed)
    subjects: list[_Subject] = []
    while True:
        while len(subjects) < settings.at_once:
            subjects.append(_subject(whole[int(rng.integers(len(whole)))], rng, settings))
        at = int(rng.integers(len(subjects)))
        subject = subjects[at]
        if subject.left:
            pair = _pair(subject, subject.left.pop(), rng, settings, errors_mm)
            if pair is not None:
                yield pair
        else:
            subjects.pop(at)


def _subject(source: Visit, rng: np.random.Generator, settings: PairSettings) -> _Subject:
    names = [name for name, mask in source.lesions.items() if not mask.is_empty]
    region = _region(source, names[int(rng.integers(len(names)))], settings)
    looks = [_Look(Scan(region.volume, region.lesions), Changed.kept(region, region))]
    taken, body = region.past_ids, Changed.kept(region, region)
    for number in range(settings.visits - 1):
        drawing = Drawing(int(rng.integers(2**53)), settings.story)
        if number % settings.poses == 0:
            _, body = drawing(0, "lesion", replace(region, past_ids=taken))
            taken = taken | frozenset(body.visit.source_lesions) - frozenset(region.source_lesions)
        way = body
        for stage in ("patient", "scanner"):
            _, step = drawing(0, stage, way.visit)
            way = way.then(step)
        looks.append(_Look(_on_own_grid(way.visit, region.geometry), way))
    every = [(a, b) for a in range(len(looks)) for b in range(len(looks)) if a != b]
    return _Subject(region, tuple(looks), [every[int(i)] for i in rng.permutation(len(every))])


def _region(source: Visit, lesion_id: str, settings: PairSettings) -> Visit:
    grid = source.geometry
    if settings.spacing_mm is not None:
        grid = grid.respaced(np.array(settings.spacing_mm))
    middle = np.rint(grid.world_to_index(source.lesions[lesion_id].centroid_mm[None])[0]).astype(int)
    size = np.array(settings.shape) + 2 * settings.room
    start = index3(middle - size // 2)
    wanted = grid.crop(start, index3(np.array(start) + size))
    seen = replace(source.seen_on(wanted), order=1)
    coarser = settings.spacing_mm is not None and not np.allclose(grid.spacing_mm, source.geometry.spacing_mm)
    volume = replace(source.volume, array=resample(source.volume, wanted), geometry=wanted) if coarser else seen.volume
    low, high = wanted.corners_mm.min(axis=0), wanted.corners_mm.max(axis=0)
    near = {
        name: mask
        for name, mask in seen.lesions.items()
        if np.all(mask.geometry.corners_mm.max(axis=0) >= low) and np.all(mask.geometry.corners_mm.min(axis=0) <= high)
    }
    return replace(Visit.of(volume, near, order=1), past_ids=frozenset(source.source_lesions) - frozenset(near))


def _on_own_grid(visit: Visit, grid: Geometry) -> Scan:
    """The visit as a network sees it: with the voxels of all the others."""
    if np.allclose(visit.geometry.spacing_mm, grid.spacing_mm):
        return Scan(visit.volume, visit.lesions)
    onto = visit.geometry.respaced(grid.spacing_mm)
    volume = replace(visit.volume, array=resample(visit.volume, onto), geometry=onto)
    return Scan(volume, {name: mask.placed(_beyond(mask, onto)) for name, mask in visit.lesions.items()})


def _beyond(mask: Mask, onto: Geometry) -> Geometry:
    return onto.crop(*onto.around(mask.geometry.corners_mm))


def _pair(
    subject: _Subject,
    which: tuple[int, int],
    rng: np.random.Generator,
    settings: PairSettings,
    errors_mm: Float[np.ndarray, "n 3"] | None,
) -> Pair | None:
    """None when the baseline shows no lesion to ask for."""
    first, second = (subject.looks[index] for index in which)
    seen = [name for name in first.scan.seen if first.scan.is_inside(name)]
    if not seen:
        return None
    lesion_id = seen[int(rng.integers(len(seen)))]
    way = first.way.reversed(subject.region).then(second.way)
    alignment = Alignment(way.forward, way.backward, "synthetic")
    mask = first.scan.seen[lesion_id]
    prompts = first.prompts(lesion_id)
    off_mm = _error_mm(second.scan.volume.geometry, rng, settings, errors_mm)
    wrong = AffineMap.shift(off_mm)
    guessed = Alignment(compose(way.forward, wrong), compose(wrong.inverse(), way.backward))
    onto = second.scan.volume.geometry
    outline = carry_mask(mask, onto, guessed.forward, guessed.backward, roughly=True)
    carried = (*(prompt.moved(guessed, onto) for prompt in prompts[:2]), Shape(outline))
    baseline = _cropped(first.scan, mask.centroid_mm, rng, settings)
    followup = _cropped(second.scan, guessed.forward(mask.centroid_mm[None])[0], rng, settings)
    became = way.fates[lesion_id]
    there = [name for name in became if name in followup.lesions]
    return Pair(
        baseline.volume,
        followup.volume,
        lesion_id,
        became,
        dict(baseline.lesions),
        dict(followup.lesions),
        prompts,
        second.prompts(max(there, key=lambda name: followup.lesions[name].voxels)) if there else (),
        carried,
        alignment,
    )


def _error_mm(
    geometry: Geometry,
    rng: np.random.Generator,
    settings: PairSettings,
    errors_mm: Float[np.ndarray, "n 3"] | None,
) -> Float[np.ndarray, "3"]:
    if errors_mm is not None:
        return errors_mm[int(rng.integers(len(errors_mm)))]
    sd = rng.uniform(*settings.carried_sd_voxels)
    return geometry.affine[:3, :3] @ rng.normal(0, sd, 3)


def _cropped(scan: Scan, at_mm: Float[np.ndarray, "3"], rng: np.random.Generator, settings: PairSettings) -> Scan:
    """The region around a place, a little off it, kept inside the scan as far as that is large enough."""
    geometry = scan.volume.geometry
    size = np.array(settings.shape)
    middle = geometry.world_to_index(at_mm[None])[0] + rng.uniform(-settings.room, settings.room, 3)
    start = np.clip(np.rint(middle - size / 2), 0, np.maximum(np.array(geometry.shape) - size, 0)).astype(int)
    stop = start + size
    if np.all(stop <= geometry.shape):
        volume = scan.volume.crop(index3(start), index3(stop))
    else:
        shown = np.minimum(stop, geometry.shape)
        part = scan.volume.crop(index3(start), index3(shown)).array
        rest = [(0, int(n)) for n in stop - shown]
        array = np.pad(part, rest, constant_values=scan.volume.array.min())
        volume = replace(scan.volume, array=array, geometry=geometry.crop(index3(start), index3(stop)))
    shown = {name: mask.placed(volume.geometry) for name, mask in scan.seen.items()}
    return Scan(volume, {name: mask for name, mask in shown.items() if not mask.is_empty})
