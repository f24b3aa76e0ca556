"""How far each aligner is off, in millimetres: known deformations of real scans, and real pairs of visits.

Prints the tables of docs/decisions/0003-deformable-aligner.md: `python benchmarks/align.py`.
Besides the rows of ALIGNERS it runs two deformable candidates that were not chosen: B-splines and demons of SimpleITK.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionlocator.align import ALIGNERS, Aligner
from lesionlocator.align.agreement import likeness
from lesionlocator.align.field import FieldMap
from lesionlocator.align.view import View, views
from lesionlocator.geometry import AffineMap, Alignment, Composed, Geometry, PointMap, compose
from lesionlocator.resample import warp
from lesionlocator.volume import Modality, Volume

LANDMARKS = 4000


@dataclass(frozen=True)
class Change:
    """What happens between two visits: deformation (95th percentile, mm), rotation, table shift, share cut off."""

    name: str
    deformation_mm: float
    rotation_deg: float
    shift_mm: tuple[float, float, float]
    cut: float
    respacing: float


CHANGES = (
    Change("5 mm", 5, 2, (3.0, -5.0, 8.0), 0.0, 1.0),
    Change("10 mm, table 260 mm", 10, 5, (30.0, -40.0, 260.0), 0.0, 1.25),
    Change("20 mm, table 320 mm, a third cut off", 20, 10, (-45.0, 60.0, -320.0), 1 / 3, 0.8),
)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two scans, and places of the baseline with the places of the same tissue in the follow-up, if known."""

    name: str
    change: str
    baseline: Volume
    followup: Volume
    here_mm: Float[np.ndarray, "n 3"] | None = None
    there_mm: Float[np.ndarray, "n 3"] | None = None
    back: PointMap | None = None


def read(path: Path, modality: Modality) -> Volume:
    """Any file that SimpleITK reads."""
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = (np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    array = sitk.GetArrayFromImage(image)
    return Volume(array, Geometry(array.shape, affine), modality, path.parent.name + "/" + path.name)


def changed(scan: Volume, change: Change, seed: int) -> Pair:
    """A made follow-up of a scan, and landmarks inside the body in both.

    The baseline is the inner part of the scan, so that the follow-up can show what moves in from beyond its border.
    """
    draw = np.random.default_rng(seed)
    margin = (np.array(scan.geometry.shape) * (0.15, 0.08, 0.08)).astype(int)
    inner = np.array(scan.geometry.shape) - margin
    baseline = scan.crop(_index3(margin), _index3(inner))
    there = _rigid(baseline.geometry.centre_mm, change, draw)
    back = compose(there.inverse(), _bending(scan.geometry, change.deformation_mm, draw))
    grid = _followup_grid(baseline.geometry, there, change)
    air = -1000.0 if scan.modality == "CT" else 0.0
    array = warp(scan, grid, back, outside=air)
    spread = 20.0 if scan.modality == "CT" else 0.02 * float(np.percentile(scan.array, 99))
    array = array + draw.normal(0, spread, array.shape).astype(np.float32)
    followup = Volume(np.clip(array, air, None), grid, scan.modality, scan.name + " changed")
    landmarks = _inside(_body(followup), grid, draw)
    origins = back(landmarks)
    kept = baseline.geometry.contains(origins)
    return Pair(scan.name, change.name, baseline, followup, origins[kept], landmarks[kept], back)


def _index3(values: np.ndarray) -> tuple[int, int, int]:
    d, h, w = (int(v) for v in values)
    return d, h, w


def _rigid(centre_mm: Float[np.ndarray, "3"], change: Change, draw: np.random.Generator) -> AffineMap:
    axis = draw.normal(size=3)
    angle = np.deg2rad(change.rotation_deg)
    rotation = sitk.VersorTransform((axis / np.linalg.norm(axis)).tolist(), float(angle))
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(rotation.GetMatrix(), (3, 3))
    matrix[:3, 3] = centre_mm + np.array(change.shift_mm) - matrix[:3, :3] @ centre_mm
    return AffineMap(matrix)


def _bending(geometry: Geometry, peak_mm: float, draw: np.random.Generator) -> FieldMap:
    """A smooth random displacement; its bumps are some 40 mm wide, narrower for a small crop."""
    extent_mm = np.ptp(geometry.corners_mm, axis=0)
    width_mm = float(min(40.0, extent_mm.min() / 3))
    grid = geometry.respaced(np.full(3, width_mm / 4))
    noise = draw.normal(size=(3, *grid.shape))
    smooth = np.stack([ndimage.gaussian_filter(part, 4.0, mode="nearest") for part in noise])
    peak_mm = min(peak_mm, width_mm / 2)
    return FieldMap(peak_mm * smooth / np.percentile(np.linalg.norm(smooth, axis=0), 95), grid)


def _followup_grid(source: Geometry, there: AffineMap, change: Change) -> Geometry:
    part = source.respaced(source.spacing_mm * change.respacing)
    affine = part.affine.copy()
    affine[:3, 3] += there(part.centre_mm[None])[0] - part.centre_mm
    kept = max(2, round(part.shape[0] * (1 - change.cut)))
    return Geometry(part.shape, affine).crop((0, 0, 0), (kept, part.shape[1], part.shape[2]))


def _body(volume: Volume) -> Bool[np.ndarray, "d h w"]:
    level = -300.0 if volume.modality == "CT" else 0.15 * float(np.percentile(volume.array, 99))
    smooth = ndimage.gaussian_filter(volume.array.astype(np.float32), 2.0 / volume.geometry.spacing_mm)
    opened = ndimage.binary_opening(smooth > level, iterations=2)
    parts, count = ndimage.label(opened)
    if count == 0:
        return smooth > level
    body = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return np.stack([ndimage.binary_fill_holes(part) for part in body])


def _inside(mask: Bool[np.ndarray, "d h w"], grid: Geometry, draw: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    index = np.argwhere(mask)
    chosen = index[draw.choice(len(index), min(LANDMARKS, len(index)), replace=False)]
    return grid.index_to_world(chosen.astype(float))


def synthetic_pairs(data: Path, quick: bool) -> Iterator[Pair]:
    """Scans of different parts and modalities, each with every change."""
    sources: list[tuple[str, Modality]] = [
        ("trunk_ct/ct.nii.gz", "CT"),
        ("headneck/002_ct.nii.gz", "CT"),
        ("headneck/054_ct.nii.gz", "CT"),
        ("liver_ct/CRLM-CT-1004.nii.gz", "CT"),
        ("sarcoma/STS_022/MR_T1_image.nii.gz", "MR"),
        ("lung_ct/ct.nii.gz", "CT"),
        ("petct_wholebody/pet_suv.nii.gz", "PT"),
        ("abdomen_mr_pair/baseline_T2.nii.gz", "MR"),
    ]
    for number, (name, modality) in enumerate(sources[::3] if quick else sources):
        path = data / name
        if not path.exists():
            print(f"skipped {name}: not in {data}", file=sys.stderr)
            continue
        volume = read(path, modality)
        for change in CHANGES:
            yield changed(volume, change, seed=number)


def real_pairs(data: Path) -> Iterator[Pair]:
    """Two visits of one patient; with landmarks where the data give transforms."""
    for folder in sorted((data / "ms_pairs").glob("patient*")):
        yield _multiple_sclerosis(folder)
    for folder in sorted((data / "glioblastoma_pairs").glob("[0-9]*")):
        scans = [read(folder / f"{visit}_T1c.nii.gz", "MR") for visit in ("baseline", "followup")]
        yield Pair(f"glioblastoma {folder.name}", "real", scans[0], scans[1])
    for kind in ("T2", "ADC"):
        paths = [data / "abdomen_mr_pair" / f"{visit}_{kind}.nii.gz" for visit in ("baseline", "followup")]
        if all(path.exists() for path in paths):
            yield Pair(f"abdomen {kind}", "real", read(paths[0], "MR"), read(paths[1], "MR"))


def _multiple_sclerosis(folder: Path) -> Pair:
    """Landmarks in the brain, through the common space that the data set gives (each transform: common -> visit)."""
    scans = [read(folder / f"study{visit}_FLAIR.nii.gz", "MR") for visit in (1, 2)]
    transforms = [sitk.ReadTransform(str(folder / f"study{visit}_FLAIR_to_common_space.txt")) for visit in (1, 2)]
    brain = read(folder / "brainmask.nii.gz", "MR")
    common = _inside(brain.array > 0, brain.geometry, np.random.default_rng(0))
    here, there = (np.array([t.TransformPoint(at.tolist()) for at in common]) for t in transforms)
    kept = scans[0].geometry.contains(here) & scans[1].geometry.contains(there)
    return Pair(f"MS {folder.name}", "real", scans[0], scans[1], here[kept], there[kept])


def bspline(baseline: Volume, followup: Volume) -> Alignment:
    """Candidate: cubic B-splines, 45 mm between control points, mutual information, LBFGS."""
    return _after_affine(baseline, followup, "bspline", _bspline_field)


def demons(baseline: Volume, followup: Volume) -> Alignment:
    """Candidate: diffeomorphic demons on three resolutions after histogram matching."""
    return _after_affine(baseline, followup, "demons", _demons_field)


def _after_affine(
    baseline: Volume, followup: Volume, name: str, search: Callable[[View, View], sitk.Image]
) -> Alignment:
    first, second = views(baseline, followup)
    affine = ALIGNERS["affine"](baseline, followup)
    start = affine.forward
    where = first.geometry
    moved = warp(Volume(second.array, second.geometry, "MR"), where, start)
    inside = second.geometry.contains(
        start(where.index_to_world(np.indices(where.shape).reshape(3, -1).T.astype(float)))
    )
    seen = View(moved, first.body, inside.reshape(where.shape), where)
    field = sitk.Cast(search(first, seen), sitk.sitkVectorFloat64)
    inverse = sitk.InvertDisplacementField(field, maximumNumberOfIterations=30, enforceBoundaryCondition=False)
    there, back = (
        FieldMap(np.moveaxis(sitk.GetArrayFromImage(part), -1, 0).astype(np.float32), where)
        for part in (field, inverse)
    )
    return Alignment(compose(there, affine.forward), compose(affine.backward, back), name)


def _image(array: np.ndarray, view: View) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetOrigin(view.geometry.affine[:3, 3].tolist())
    image.SetSpacing(view.geometry.spacing_mm.tolist())
    return image


def _bspline_field(first: View, second: View) -> sitk.Image:
    fixed, moving = _image(first.array, first), _image(second.array, second)
    mesh = [max(1, round(n * first.spacing_mm / 90)) for n in first.geometry.shape[::-1]]
    transform = sitk.BSplineTransformInitializer(fixed, mesh)
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(2)
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricFixedMask(_image((first.body & second.seen).astype(np.uint8), first))
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(min(1.0, 60_000 / first.body.sum()))
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsLBFGS2(numberOfIterations=40)
    method.SetInitialTransformAsBSpline(transform, inPlace=True, scaleFactors=[1, 2])
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([first.spacing_mm, 0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    found = method.Execute(fixed, moving)
    return sitk.TransformToDisplacementField(
        found, sitk.sitkVectorFloat64, fixed.GetSize(), fixed.GetOrigin(), fixed.GetSpacing(), fixed.GetDirection()
    )


def _demons_field(first: View, second: View) -> sitk.Image:
    # Where the follow-up shows nothing, the baseline's own values ask for no displacement.
    both = first.body & second.seen
    fixed = _image(first.array, first)
    moving = sitk.HistogramMatching(_image(np.where(both, second.array, first.array), first), fixed, 128, 10, True)
    field: sitk.Image | None = None
    for factor, sigma_mm in ((4, 20.0), (2, 15.0), (1, 10.0)):
        here, there = (sitk.BinShrink(image, [factor] * 3) if factor > 1 else image for image in (fixed, moving))
        search = sitk.DiffeomorphicDemonsRegistrationFilter()
        search.SetNumberOfThreads(2)
        search.SetNumberOfIterations(30)
        search.SetSmoothDisplacementField(True)
        search.SetStandardDeviations(sigma_mm / here.GetSpacing()[0] / 2)
        search.SetSmoothUpdateField(True)
        search.SetUpdateFieldStandardDeviations(1.0)
        if field is None:
            field = search.Execute(here, there)
        else:
            field = search.Execute(here, there, sitk.Resample(field, here, sitk.Transform(), sitk.sitkLinear))
    if field is None:
        raise RuntimeError("no round of demons ran")
    return field


CANDIDATES: dict[str, Aligner] = {**ALIGNERS, "bspline": bspline, "demons": demons}


@dataclass(frozen=True)
class Row:
    """What one aligner did to one pair."""

    pair: str
    change: str
    aligner: str
    seconds: float
    median_mm: float
    worst_mm: float
    likeness: float
    folds: int
    least_volume: float
    most_volume: float
    round_trip_mm: float
    warnings: tuple[str, ...]


def measure(pair: Pair, name: str) -> Row:
    """Run one aligner on one pair."""
    # Of the processor, not of the clock: the same on a busy machine.
    began = time.process_time()
    alignment = CANDIDATES[name](pair.baseline, pair.followup)
    seconds = time.process_time() - began
    first, second = views(pair.baseline, pair.followup)
    if pair.here_mm is not None and pair.there_mm is not None:
        here = pair.here_mm
        errors = np.linalg.norm(alignment.forward(here) - pair.there_mm, axis=1)
    else:
        here = first.geometry.index_to_world(np.argwhere(first.body)[::50].astype(float))
        errors = np.full(1, np.nan)
    trip = np.linalg.norm(alignment.backward(alignment.forward(here)) - here, axis=1)
    changes = [part.volume_change() for part in _parts(alignment.forward) if isinstance(part, FieldMap)]
    volumes = changes[0] if changes else np.ones(1)
    return Row(
        pair.name,
        pair.change,
        name,
        seconds,
        float(np.median(errors)),
        float(np.percentile(errors, 95)),
        likeness(first, second, alignment.forward),
        int((volumes <= 0).sum()),
        float(volumes.min()),
        float(volumes.max()),
        float(trip.max()),
        alignment.warnings,
    )


def _parts(point_map: PointMap) -> tuple[PointMap, ...]:
    return point_map.maps if isinstance(point_map, Composed) else (point_map,)


HEADINGS = ("scan", "change", "aligner", "median mm", "p95 mm", "likeness", "folds", "volume", "round trip mm", "CPU s")


def _line(row: Row) -> str:
    volume = f"{row.least_volume:.2f} to {row.most_volume:.2f}"
    errors = [f"{mm:.1f}" for mm in (row.median_mm, row.worst_mm)]
    rest = [f"{row.likeness:.2f}", str(row.folds), volume, f"{row.round_trip_mm:.2f}", f"{row.seconds:.1f}"]
    return _cells(row.pair, row.change, row.aligner, *errors, *rest)


def _cells(*texts: str) -> str:
    return "| " + " | ".join(texts) + " |"


def _summary(rows: list[Row], names: list[str]) -> Iterator[str]:
    """One line an aligner and change: medians over the scans."""
    yield _cells("aligner", "change", "median mm", "p95 mm", "likeness", "folded scans", "round trip mm", "CPU s")
    yield _cells(*["---"] * 8)
    for change in dict.fromkeys(row.change for row in rows):
        for name in names:
            mine = [row for row in rows if row.aligner == name and row.change == change]
            known = [row for row in mine if np.isfinite(row.median_mm)]
            errors = [f"{np.median([r.median_mm for r in known]):.1f}", f"{np.median([r.worst_mm for r in known]):.1f}"]
            yield _cells(
                name,
                change,
                *(errors if known else ["unknown"] * 2),
                f"{np.mean([r.likeness for r in mine]):.2f}",
                f"{sum(r.folds > 0 for r in mine)} of {len(mine)}",
                f"{max(r.round_trip_mm for r in mine):.2f}",
                f"{np.mean([r.seconds for r in mine]):.1f}",
            )


def grown_lesion(scan: Volume) -> Iterator[str]:
    """What each makes of a lesion that grew from 24 to 40 mm across while the body was bent (10 mm) and moved.

    The volume of the lesion's old part through the map, over what the bending alone makes of it. 1.0 is right: growth
    is left for the outline to show.
    """
    middle = scan.geometry.index_to_world(np.argwhere(_body(scan)).mean(axis=0)[None])[0] + [-55.0, 0.0, 0.0]
    index = np.indices(scan.geometry.shape).reshape(3, -1).T.astype(float)
    away = np.linalg.norm(scan.geometry.index_to_world(index) - middle, axis=1).reshape(scan.geometry.shape)
    small, grown = (
        Volume(np.where(away < radius, 30.0, scan.array).astype(np.float32), scan.geometry, "CT", name)
        for radius, name in ((12.0, "before"), (20.0, "grown"))
    )
    pair = changed(grown, CHANGES[1], seed=0)
    start = pair.baseline.geometry.offset_in(scan.geometry) or (0, 0, 0)
    baseline = small.crop(start, _index3(np.add(start, pair.baseline.geometry.shape)))
    corners = np.stack(np.meshgrid(*[np.linspace(-12, 12, 13)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = middle + corners[np.linalg.norm(corners, axis=1) <= 12]
    step = 0.5
    for name in ("rigid", "deformable", "bspline", "demons"):
        there_and_truly_back = compose(CANDIDATES[name](baseline, pair.followup).forward, pair.back or compose())
        slopes = [there_and_truly_back(inside + step * a) - there_and_truly_back(inside - step * a) for a in np.eye(3)]
        volume = np.linalg.det(np.stack(slopes, axis=-1) / (2 * step))
        yield _cells(name, f"{volume.mean():.2f}", f"{volume.min():.2f} to {volume.max():.2f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[1].parent / "shared" / "data")
    parser.add_argument("--scan", type=Path, help="a CT of your own for the made follow-ups, instead of --data")
    parser.add_argument("--quick", action="store_true", help="three scans instead of eight, no real pairs")
    parser.add_argument("--aligners", nargs="*", default=list(CANDIDATES))
    settings = parser.parse_args()
    if settings.scan is None and not settings.data.is_dir():
        print(f"skipped: no scans in {settings.data}; give a chest CT of your own with --scan", file=sys.stderr)
        return
    rows: list[Row] = []
    print(_cells(*HEADINGS))
    print(_cells(*["---"] * len(HEADINGS)))
    for pair in _pairs(settings.data, settings.scan, quick=settings.quick):
        for name in settings.aligners:
            try:
                rows.append(measure(pair, name))
            except RuntimeError as error:
                print(f"{pair.name}, {pair.change}, {name}: {error}", file=sys.stderr)
                continue
            print(_line(rows[-1]), flush=True)
    print()
    for line in _summary(rows, [name for name in settings.aligners if any(row.aligner == name for row in rows)]):
        print(line)
    scan = settings.scan or settings.data / "liver_ct" / "CRLM-CT-1004.nii.gz"
    print("\n" + _cells("a lesion that grew", "its old part, mean volume after / before", "least to most"))
    print(_cells(*["---"] * 3))
    for line in grown_lesion(read(scan, "CT")):
        print(line, flush=True)


def _pairs(data: Path, scan: Path | None, *, quick: bool) -> Iterator[Pair]:
    if scan is not None:
        yield from (changed(read(scan, "CT"), change, seed=0) for change in CHANGES)
        return
    yield from () if quick else real_pairs(data)
    yield from synthetic_pairs(data, quick)


if __name__ == "__main__":
    main()
