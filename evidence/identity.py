"""Whether near neighbours keep their names when scans are brought together some millimetres wrong."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
from provenance import header, write
from scipy import ndimage

from lesionlocator.case import Case, Lesion, Status
from lesionlocator.evaluate.following import compare, identity_switches, told, true_case
from lesionlocator.geometry import AffineMap, Alignment, Geometry
from lesionlocator.score.events import score_events
from lesionlocator.segment import load_segmenter
from lesionlocator.track import Following, track_case
from lesionlocator.volume import Mask, Volume

COUNTS, OFF_MM, PATIENTS, MODEL = (10, 20, 40), (0.0, 3.0, 6.0, 9.0), 3, "intensity"
SHAPE, SPACING_MM = (90, 110, 130), 2.0
FAT, LESION, VESSEL, NOISE = -90.0, 60.0, 180.0, 12.0


@dataclass(frozen=True)
class Ball:
    """A lesion or a stretch of vessel."""

    at: np.ndarray
    radius: float


def main(patients=PATIENTS):
    rows = [
        row
        for count in COUNTS
        for off_mm in OFF_MM
        for row in [counted(count, off_mm, int(patients))]
        if print(row, file=sys.stderr, flush=True) is None
    ]
    write("identity", page(rows, int(patients)))


def grid():
    affine = np.zeros((4, 4))
    affine[[0, 1, 2], [2, 1, 0]] = SPACING_MM
    affine[3, 3] = 1
    return Geometry(SHAPE, affine)


def counted(count, off_mm, patients):
    """Switches, links and events of some patients of so many lesions, each displaced by about `off_mm`."""
    switches = steps = 0
    said, true = [], []
    detected, present, outlined, gone, called = 0, 0, 0, 0, 0
    began = time.process_time()
    segmenter = load_segmenter(MODEL)
    for seed in range(patients):
        truth = patient(count, off_mm, np.random.default_rng((seed, count, int(off_mm))))
        first, second = truth.timepoints
        settings = Following(lambda _one, _other: Alignment.from_affine(AffineMap.identity(), "wrong"))
        found = track_case(Case((first, second.with_lesions(()))), segmenter, settings=settings)
        more, of = identity_switches(found, truth)
        switches, steps = switches + more, steps + of
        said += told(found, str(seed))
        true += told(truth, str(seed))
        for one in compare(found, truth):
            if first.lesion(one.lesion) is None:
                continue
            if one.truth.is_empty:
                gone, outlined = gone + 1, outlined + (one.said is not None)
                continue
            present += 1
            dice = 0.0 if one.said is None else 2 * one.said.overlap(one.truth) / (one.said.voxels + one.truth.voxels)
            detected += dice > 0.3
            own = found.timepoints[1].lesion(one.lesion)
            called += own is not None and own.status is Status.ABSENT
    scores = score_events(said, true)
    return {
        "lesions": count, "off": off_mm, "switches": switches, "links": steps, "detected": detected,
        "present": present, "called": called, "outlined": outlined, "gone": gone,
        "merged": scores["merged"].said, "split": scores["split"].said,
        "seconds": (time.process_time() - began) / patients,
    }  # fmt: skip


def patient(count, off_mm, draw, lesion_hu=LESION):
    """Two visits: balls in clusters, a tenth of them gone later, the rest grown or shrunk, all displaced smoothly."""
    balls = cluster(count, draw)
    vessels = [
        Ball(draw.uniform(20, np.array(SHAPE)[::-1] * SPACING_MM - 20), draw.uniform(2.5, 4.5)) for _ in range(30)
    ]
    vessels = [one for one in vessels if all(np.linalg.norm(one.at - b.at) > one.radius + b.radius + 4 for b in balls)]
    move = displacement(off_mm, draw)
    first = scan(balls, vessels, draw, lesion_hu)
    later = [Ball(b.at + move(b.at), b.radius * draw.uniform(0.8, 1.1)) for b in balls]
    gone = set(draw.choice(count, max(1, count // 10), replace=False).tolist())
    stay = [i for i in range(count) if i not in gone]
    second = scan([later[i] for i in stay], [Ball(v.at + move(v.at), v.radius) for v in vessels], draw, lesion_hu)
    masks = {str(i + 1): ball_mask(ball) for i, ball in enumerate(balls)}
    case = true_case([(first, masks), (second, {str(i + 1): ball_mask(later[i]) for i in stay})])
    lesions = tuple(Lesion(name, (), mask, Status.OUTLINED) for name, mask in masks.items())
    return Case((case.timepoints[0].with_lesions(lesions), case.timepoints[1]), case.links)


def cluster(count, draw):
    """Balls of 4 to 8 mm radius; three of four lie within 4 to 8 mm (border to border) of another one."""
    extent = np.array(SHAPE)[::-1] * SPACING_MM
    balls = []
    while len(balls) < count:
        radius = draw.uniform(4, 8)
        if balls and len(balls) % 4:
            near = balls[-1]
            way = draw.normal(size=3)
            at = near.at + way / np.linalg.norm(way) * (near.radius + radius + draw.uniform(4, 8))
        else:
            at = draw.uniform(30, extent - 30)
        clear = all(np.linalg.norm(at - b.at) > b.radius + radius + 4 for b in balls)
        if clear and np.all(at > 28) and np.all(at < extent - 28):
            balls.append(Ball(at, radius))
    return balls


def displacement(off_mm, draw):
    """A smooth displacement of `off_mm` in the mean: a common part and one that changes over some 100 mm."""
    common, waves = draw.normal(size=3), draw.normal(size=(2, 3, 3))
    phase = draw.uniform(0, 2 * np.pi, (2, 3))

    def raw(at):
        bend = sum(waves[k] @ np.sin(at / 35 + phase[k]) for k in range(2))
        return common / np.linalg.norm(common) + 0.15 * bend

    places = draw.uniform(0, np.array(SHAPE)[::-1] * SPACING_MM, (200, 3))
    mean = np.mean([np.linalg.norm(raw(at)) for at in places])
    return lambda at: off_mm * raw(at) / mean


def ball_mask(ball):
    return Mask.from_array(inside(ball), grid())


def inside(ball):
    where = grid()
    z, y, x = (np.arange(n) * SPACING_MM for n in where.shape)
    squared = (z[:, None, None] - ball.at[2]) ** 2 + (y[:, None] - ball.at[1]) ** 2 + (x - ball.at[0]) ** 2
    return squared <= ball.radius**2


def scan(balls, vessels, draw, lesion_hu):
    array = np.full(SHAPE, FAT)
    for one in vessels:
        array[inside(one)] = VESSEL
    for one in balls:
        array[inside(one)] = lesion_hu
    array = ndimage.gaussian_filter(array, 0.4) + draw.normal(0, NOISE, SHAPE)
    return Volume(array.astype(np.int16), grid(), "CT")


def page(rows, patients):
    text = header("Near neighbours keep their names", "python evidence/identity.py")
    text += f"""
Made-up patients ({patients} for each row): balls of 4 to 8 mm radius, three of four within 4 to 8 mm of a neighbour,
among bright balls that are no lesions; a tenth of them gone at the second visit, the others with 0.5 to 1.3 times
their volume. The second visit is displaced smoothly by the millimetres given, and the aligner does not know of it.
Outlines by `{MODEL}`. A switch is a lesion found under another one's name.

| Lesions | Off by (mm) | Switches | Dice > 0.3 | Called vanished | Gone, yet outlined | Merged / split | CPU s |
|---|---|---|---|---|---|---|---|
"""
    for row in rows:
        text += (
            f"| {row['lesions']} | {row['off']:.0f} | {row['switches']} of {row['links']} | "
            f"{row['detected']} of {row['present']} | {row['called']} | {row['outlined']} of {row['gone']} | "
            f"{row['merged']} / {row['split']} | {row['seconds']:.0f} |\n"
        )
    totals = [sum(row[key] for row in rows) for key in ("switches", "links")]
    text += f"\nAll rows: {totals[0]} switches in {totals[1]} links.\n"
    return text


if __name__ == "__main__":
    main(*sys.argv[1:])
