"""How well the embedded segmenters outline real tumours, from a tight box, a moved box, a click and a line.

Prints the page and keeps it as docs/evidence/segmenters.md. `--shared DIR` and `--archive DIR` say where the scans are.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from provenance import ROOT, header, write
from scipy.spatial.distance import cdist
from skimage.filters import threshold_otsu

from lesionlocator.demo.archive import cache_folder, public_scans
from lesionlocator.errors import Refused
from lesionlocator.formats import label_masks, read_label_map, read_volume
from lesionlocator.prompt import Box, Click, Line
from lesionlocator.segment import MODELS, load_segmenter
from lesionlocator.volume import Mask

MOVES = 2
SEQUENCES = {"CT": "CT", "MR_T1": "MR", "PET": "PT"}
PROMPTS = ("tight box", "moved box", "click", "line")
RULES = ("Otsu, brighter", "Otsu, darker")
GROUPS = (
    *(f"sarcoma {modality}" for modality in SEQUENCES.values()),
    "glioblastoma MR",
    "lung cancer CT",
    "lymph nodes CT",
    "nodule CT",
    *(f"archive {name}" for name in ("lung1", "lung2", "brain1", "brain2")),
)


@dataclass
class Tumour:
    group: str
    name: str
    volume: object
    truth: Mask


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    options.add_argument("--archive", type=Path, default=cache_folder(), help="where the public scans are kept")
    chosen = options.parse_args()
    missing = []
    scores, seconds, sizes = defaultdict(list), defaultdict(list), defaultdict(list)
    for number, tumour in enumerate(tumours(chosen.shared, chosen.archive, missing)):
        sizes[tumour.group].append(tumour.truth.volume_ml)
        measure(tumour, number, scores, seconds)
    write("segmenters", page(scores, seconds, sizes, missing))


def measure(tumour, number, scores, seconds):
    prompts = {
        "tight box": [Box.around(tumour.truth)],
        "moved box": [moved(Box.around(tumour.truth), np.random.default_rng([number, move])) for move in range(MOVES)],
        "click": [Click.inside(tumour.truth)],
        "line": [longest_in_slice(tumour.truth)],
    }
    for model in MODELS:
        segmenter = load_segmenter(model)
        prepared = segmenter.prepare(tumour.volume)
        for how, given in prompts.items():
            for prompt in given:
                started = time.perf_counter()
                answer = segmenter.outline(prepared, [(prompt,)])[0]
                seconds[model, how].append(time.perf_counter() - started)
                scores[tumour.group, model, how].append(dice(answer.mask, tumour.truth))
    for rule, mask in zip(RULES, simplest_rules(tumour.volume, prompts["tight box"][0]), strict=True):
        scores[tumour.group, rule, "tight box"].append(dice(mask, tumour.truth))


def moved(box, draw):
    """Each face moved by up to a tenth of the box, in or out."""
    low, high = draw.uniform(-0.1, 0.1, 3), draw.uniform(-0.1, 0.1, 3)
    return Box(box.corner + box.edges @ low, box.edges * (1 + high - low))


def longest_in_slice(truth):
    """The longest diameter in one axial slice, as a reader measures it."""
    points_mm = truth.points_mm
    heights = np.round(points_mm[:, 2], 2)
    ends = [diameter(points_mm[heights == height]) for height in np.unique(heights)]
    start, end = max(ends, key=lambda pair: np.linalg.norm(pair[1] - pair[0]))
    return Line(start, end)


def diameter(points_mm):
    """The two furthest points of a slice; only the outermost of each row can be one of them."""
    rows = np.round(points_mm[:, 1], 2)
    outermost = [
        points_mm[rows == row][[points_mm[rows == row, 0].argmin(), points_mm[rows == row, 0].argmax()]]
        for row in np.unique(rows)
    ]
    border = np.concatenate(outermost)
    first, second = np.unravel_index(np.argmax(cdist(border, border)), (len(border), len(border)))
    return border[first], border[second]


def simplest_rules(volume, box):
    """Otsu's threshold in the box, both sides of it, cut with the ellipsoid."""
    covered = volume.geometry.clip(*volume.geometry.around(box.points_mm))
    region = volume.crop(*covered)
    body = box.paint_ellipsoid(region.geometry)
    values = region.array.astype(np.float32)
    cut = threshold_otsu(values[box.paint(region.geometry)])
    return [Mask.from_array(body & ((values > cut) == side), region.geometry) for side in (True, False)]


def dice(found, truth):
    return 0.0 if found is None else 2 * truth.overlap(found) / (truth.voxels + found.voxels)


def tumours(shared, archive, missing):
    """Every outlined tumour that can be read; what is not there goes to `missing`."""
    if shared.is_dir():
        yield from sarcomas(shared / "sarcoma")
        yield from glioblastomas(shared / "glioblastoma_pairs")
        yield from chest(shared / "lung_ct", shared / "nodule")
    else:
        missing.append("The shared scans are not here (`--shared`), so their groups are left out.")
    try:
        for name, (image, label) in public_scans(archive).items():
            volume = read_volume(image, "CT" if name.startswith("lung") else "MR")
            yield Tumour(f"archive {name}", name, volume, whole(label))
    except Refused as refused:
        missing.append(f"The public archive is left out: {refused.found}.")


def sarcomas(folder):
    for patient in sorted(folder.glob("STS_*")):
        for sequence, modality in SEQUENCES.items():
            volume = read_volume(patient / f"{sequence}_image.nii.gz", modality)
            truth = whole(patient / f"{sequence}_mask.nii.gz")
            yield Tumour(f"sarcoma {modality}", patient.name, volume, truth)


def glioblastomas(folder):
    for patient in sorted(folder.iterdir()):
        for visit in ("baseline", "followup"):
            volume = read_volume(patient / f"{visit}_T1c.nii.gz", "MR")
            yield Tumour("glioblastoma MR", f"{patient.name} {visit}", volume, whole(patient / f"{visit}_mask.nii.gz"))


def chest(lung, nodule):
    volume = read_volume(lung / "ct.nii.gz", "CT")
    yield Tumour("lung cancer CT", "tumour", volume, whole(lung / "tumour_mask.nii.gz"))
    for name, part in label_masks(read_label_map(lung / "node_mask.nii.gz"), split=True).items():
        if part.voxels > 10:
            yield Tumour("lymph nodes CT", name, volume, part)
    votes = read_label_map(nodule / "reader_votes.nii.gz")
    truth = Mask.from_array(votes.values >= 2, votes.geometry)
    yield Tumour("nodule CT", "nodule", read_volume(nodule / "ct.nii.gz", "CT"), truth)


def whole(path):
    labels = read_label_map(path)
    return Mask.from_array(labels.values, labels.geometry)


def page(scores, seconds, sizes, missing):
    text = header("The embedded segmenters on real tumours", "python evidence/segmenters.py")
    text += f"""
Dice with the expert's outline on the scan's own voxels, mean of a group. *Tight box*: that of the expert's outline.
*Moved box*: each of its faces moved by up to 10 % of the box, in or out, {MOVES} draws each. *Click*: one, on the voxel
furthest from the border. *Line*: the longest diameter in an axial slice. *Otsu*: the simplest rule that looks, as a
floor: Otsu's threshold in the tight box, one side of it, cut with the inscribed ellipsoid.

"""
    groups = [group for group in GROUPS if group in sizes]
    columns = [(model, how) for how in PROMPTS for model in MODELS] + [(rule, "tight box") for rule in RULES]
    titles = [f"{how}: {model}" if model in MODELS else model for model, how in columns]
    text += "| Group | Outlines | ml | " + " | ".join(titles) + " |\n" + "|---" * (3 + len(columns)) + "|\n"
    for group in groups:
        cells = [f"{np.mean(scores[group, model, how]):.3f}" for model, how in columns]
        volume = (
            f"{min(sizes[group]):.0f} to {max(sizes[group]):.0f}" if len(sizes[group]) > 1 else f"{sizes[group][0]:.0f}"
        )
        text += f"| {group} | {len(sizes[group])} | {volume} | " + " | ".join(cells) + " |\n"
    text += "\nThe spacing of the glioblastoma scans is a guess, and so are their millilitres.\n"
    text += "\n## Seconds for one lesion\n\n| Prompt | Model | Median | Longest |\n|---|---|---|---|\n"
    for how in PROMPTS:
        for model in MODELS:
            taken = seconds[model, how]
            text += f"| {how} | {model} | {np.median(taken):.3f} | {max(taken):.2f} |\n" if taken else ""
    return text + "".join(f"\n{line}\n" for line in missing)


if __name__ == "__main__":
    main()
