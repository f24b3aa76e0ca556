"""Can a classifier tell a changed lesion from an untouched one? Texture and edges around lesions, left-out patients."""

from __future__ import annotations

import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from provenance import header, write
from scipy import ndimage, optimize
from synthesis_sources import DATA, lesions, parotids

from lesionlocator.errors import Refused
from lesionlocator.synth.lesion import Appear, Graft, Grow, Necrosis, RimChange, Shrink, Split, UptakeChange, Vanish
from lesionlocator.synth.lesion.choice import levels, suitable
from lesionlocator.synth.lesion.resize import room
from lesionlocator.synth.visit import Visit
from lesionlocator.volume import Mask

DRAWS = 2
PATIENTS = 10
MOST_VOXELS = 12_000
"""Larger lesions are left out, so that the whole takes minutes."""
FOLDS = 10
INSIDE = (Necrosis, RimChange, UptakeChange, Split)


def main():
    if not DATA.exists():
        sys.exit("no ../shared/data here: this evidence needs its scans")
    text = header("Realism: can changed lesions be told from untouched ones?", "python evidence/realism.py")
    text += INTRODUCTION
    text += "\n## Lesions\n\n" + table(gathered(lesions(), (*INSIDE, Graft, Appear)))
    text += "\n## Parotid glands in place of lesions\n\n" + table(gathered(parotids(PATIENTS), INSIDE))
    write("realism", text)


INTRODUCTION = f"""
A logistic regression (ridge, squares too) sees 18 features of noise, grain and edge in three shells around the outline,
from 4 voxels inside to 4 outside, and has to say whether the scan was changed there. Patients are left out in {FOLDS}
folds; 0.5 is chance, and the aim is at most 0.65. The untouched lesions stand against {DRAWS} draws of each change.
`published` is the anatomy-informed deformation (gradient of the blurred mask, noise interpolated with the rest), with
the same volume factors, left out where it folds. Vanished and new lesions have no untouched twin: a filled place stands
against a place of the same scan where tissue is as bright as around the lesion, a painted lesion against the real ones,
so that those rows also see where and what, not only how. Brackets: 2.5 to 97.5 % of 500 bootstrap samples of patients.
"""


def gathered(
    source: Iterator[tuple[str, Visit]], kinds: tuple[type, ...]
) -> dict[str, list[tuple[str, int, np.ndarray]]]:
    """Kind of change -> (patient, 1 when changed, features)."""
    found: dict[str, list[tuple[str, int, np.ndarray]]] = defaultdict(list)
    for patient, visit in source:
        for lesion_id in suitable(visit, (), 30):
            if visit.lesions[lesion_id].voxels > MOST_VOXELS:
                continue
            before = features(visit, visit.lesions[lesion_id])
            for kind, changed_to in changed(patient, visit, lesion_id, kinds):
                other, mask, untouched = changed_to
                if untouched is not None:
                    found[kind].append((patient, 0, features(visit, untouched)))
                else:
                    found[kind].append((patient, 0, before))
                found[kind].append((patient, 1, features(other, mask)))
        print(f"{patient} {visit.source.modality}", file=sys.stderr, flush=True)
    return found


def changed(
    patient: str, visit: Visit, lesion_id: str, kinds: tuple[type, ...]
) -> Iterator[tuple[str, tuple[Visit, Mask, Mask | None]]]:
    """(Kind, (the changed visit, the outline to look around, an untouched place to compare with))."""
    rng = np.random.default_rng(zlib.crc32(f"{patient} {visit.source.modality} {lesion_id}".encode()))
    for _ in range(DRAWS):
        yield from resized(rng, visit, lesion_id)
        for kind in kinds:
            found = applied(kind.draw(rng, visit, (lesion_id,)), visit)
            new = visit.new_lesion_id() if kind in (Graft, Appear) else lesion_id
            if found is not None and found.lesions[new].voxels >= 30:
                yield kind.name, (found, found.lesions[new], None)
        found = applied(Vanish.draw(rng, visit, (lesion_id,)), visit)
        elsewhere = at_another_place(rng, visit, visit.lesions[lesion_id])
        if found is not None and elsewhere is not None:
            yield "vanish, filled", (found, visit.lesions[lesion_id], elsewhere)


def resized(rng, visit, lesion_id):
    most = min(3.0, room(visit, lesion_id))
    factors = [np.exp(rng.uniform(np.log(0.2), np.log(0.85)))]
    if most > 1.2:
        factors.append(np.exp(rng.uniform(np.log(1.15), np.log(most))))
    for factor in factors:
        kind = Grow if factor > 1 else Shrink
        for method, name in (("flow", kind.name), ("blurred gradient", f"{kind.name}, published")):
            drawn = kind(lesion_id, float(factor), (1.0, 1.0, 1.0), int(rng.integers(2**31)), method, 40)
            found = applied(drawn, visit)
            if found is not None:
                yield name, (found, found.lesions[lesion_id], None)


def applied(drawn, visit):
    if drawn is None:
        return None
    try:
        return drawn.apply(visit).visit
    except Refused:
        return None


def at_another_place(rng, visit, mask):
    """The outline moved to where tissue is as bright as around the lesion, and no lesion is."""
    level = levels(visit, next(key for key, known in visit.lesions.items() if known is mask))[1]
    near = max(30.0, 0.1 * abs(level)) if visit.source.modality == "CT" else 0.4 * abs(level)
    taken = np.logical_or.reduce([known.on(visit.geometry) for known in visit.lesions.values()])
    for _ in range(300):
        start = rng.integers(0, np.maximum(1, np.array(visit.geometry.shape) - np.array(mask.array.shape)))
        place = tuple(slice(a, a + n) for a, n in zip(start.tolist(), mask.array.shape, strict=True))
        values = visit.volume.array[place]
        if values.shape != mask.array.shape or taken[place].any():
            continue
        if abs(float(np.median(values[mask.array])) - level) < near:
            stop = tuple((start + np.array(mask.array.shape)).tolist())
            return Mask(mask.array, visit.geometry.crop(tuple(start.tolist()), stop))
    return None


def features(visit: Visit, mask: Mask) -> np.ndarray:
    """Noise, grain and edge around an outline; nothing that tells the lesion's size or its brightness."""
    scan = visit.volume
    finest = float(scan.geometry.spacing_mm.min())
    start, stop = scan.geometry.clip(*scan.geometry.around(mask.geometry.corners_mm, 6 * finest))
    part = scan.crop(start, stop)
    array, inside = np.asarray(part.array, np.float32), mask.on(part.geometry)
    spacing = part.geometry.spacing_mm
    depth = ndimage.distance_transform_edt(inside, spacing) - ndimage.distance_transform_edt(~inside, spacing)
    depth = -depth / finest
    plane = [1.0 if s < 1.5 * finest else 0.0 for s in spacing]
    fine = array - ndimage.gaussian_filter(array, [0.8 * p for p in plane])
    coarse = array - ndimage.gaussian_filter(array, [1.6 * p for p in plane])
    shells = [(depth > a) & (depth <= b) for a, b in ((-4, -1), (-1, 1), (1, 4))]
    typical = np.median(np.abs(fine[shells[2]])) + 1e-6 if shells[2].any() else 1.0
    found = []
    for shell in shells:
        found += of_shell(fine, coarse, shell, typical)
    step = np.sqrt(sum(ndimage.sobel(array, axis) ** 2 for axis in range(3) if plane[axis])) / 8
    contrast = abs(median(array, shells[0]) - median(array, shells[2])) + 3 * typical
    found += [np.log(median(step, shells[1]) / contrast + 1e-3)]
    found += [np.log((median(step, shells[k]) + typical) / (median(step, shells[1]) + typical)) for k in (0, 2)]
    return np.array(found, float)


def of_shell(fine, coarse, shell, typical):
    if np.count_nonzero(shell) < 20:
        return [0.0] * 5
    values = fine[shell]
    size = values.std() + 1e-6
    found = [np.log(size / typical), np.log(size / (coarse[shell].std() + 1e-6))]
    found.append(np.log(np.mean((values / size) ** 4) + 1e-6))
    for axis in (0, 2):
        both = shell & np.roll(shell, 1, axis)
        found.append(float(np.mean(fine[both] * np.roll(fine, 1, axis)[both])) / size**2 if both.any() else 0.0)
    return found


def median(array, shell):
    return float(np.median(array[shell])) if shell.any() else 0.0


def table(found) -> str:
    lines = ["| Change | Patients | Lesions seen, changed | AUC | Aim |", "|---|---|---|---|---|"]
    for kind in sorted(found):
        rows = found[kind]
        patients = np.array([row[0] for row in rows])
        if len(set(patients)) < 5:
            lines.append(f"| {kind} | {len(set(patients))} | {len(rows) // 2} | too few patients | - |")
            continue
        truth, seen = np.array([row[1] for row in rows]), np.stack([row[2] for row in rows])
        score = left_out(patients, truth, seen)
        value = auc(truth, score)
        low, high = bootstrap(patients, truth, score)
        said = "reached" if value <= 0.65 else "missed"
        lines.append(
            f"| {kind} | {len(set(patients))} | {len(rows) // 2} | {value:.2f} [{low:.2f}, {high:.2f}] | {said} |"
        )
    return "\n".join(lines) + "\n"


def left_out(patients, truth, seen):
    """Each patient's score from a classifier that never saw that patient; scores of folds made comparable."""
    names = sorted(set(patients), key=lambda name: zlib.crc32(name.encode()))
    score = np.zeros(len(truth))
    for fold in range(min(FOLDS, len(names))):
        test = np.isin(patients, names[fold :: min(FOLDS, len(names))])
        middle, spread = seen[~test].mean(axis=0), seen[~test].std(axis=0) + 1e-6
        scaled = np.clip((seen - middle) / spread, -4, 4)
        score[test] = expanded(scaled[test]) @ fitted(expanded(scaled[~test]), truth[~test])
    return score


def expanded(scaled):
    return np.concatenate([scaled, scaled**2 - 1, np.ones((len(scaled), 1))], axis=1)


def fitted(seen, truth, ridge=3.0):
    sign = 2.0 * truth - 1

    def loss(weights):
        margin = sign * (seen @ weights)
        pull = -sign / (1 + np.exp(np.clip(margin, -30, 30)))
        penalty = ridge * weights[:-1]
        gradient = seen.T @ pull + np.append(penalty, 0.0)
        return float(np.logaddexp(0, -margin).sum() + weights[:-1] @ penalty / 2), gradient

    return optimize.minimize(loss, np.zeros(seen.shape[1]), jac=True, method="L-BFGS-B").x


def auc(truth, score):
    from scipy.stats import rankdata

    ranks, ones = rankdata(score), int(truth.sum())
    zeros = len(truth) - ones
    return (ranks[truth == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros) if ones and zeros else float("nan")


def bootstrap(patients, truth, score, draws=500):
    rng = np.random.default_rng(0)
    names = sorted(set(patients))
    places = {name: np.flatnonzero(patients == name) for name in names}
    found = []
    for _ in range(draws):
        index = np.concatenate([places[names[k]] for k in rng.integers(len(names), size=len(names))])
        found.append(auc(truth[index], score[index]))
    return np.nanpercentile(found, (2.5, 97.5))


if __name__ == "__main__":
    main()
