"""2,000 lesions in 200 made-up volumes of 256 x 256 x 150, scored by `lesionlocator score`: seconds and memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from provenance import header, write

VOLUMES, LESIONS, SHAPE = 200, 10, (256, 256, 150)
AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
COMMAND = "from lesionlocator.cli import main; main()"
MOST_SECONDS, MOST_BYTES = 120, 2e9


def main():
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        voxels = [make_volume(folder, number) for number in range(VOLUMES)]
        command = [sys.executable, "-c", COMMAND, "score", folder / "found", folder / "true", "--json"]
        started = time.perf_counter()
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    answer = json.loads(done.stdout)
    write("scoring_speed", page(answer, seconds, peak, float(np.mean(voxels))))
    if len(answer["lesions"]) != VOLUMES * LESIONS or seconds > MOST_SECONDS or peak > MOST_BYTES:
        raise SystemExit(f"{len(answer['lesions'])} lesions, {seconds:.0f} s, {peak / 1e9:.2f} GB")


def make_volume(folder, number):
    """Ten ellipsoids of 3 to 20 mm in a label map, and the same a little moved and grown; mean voxels of a lesion."""
    draw = np.random.default_rng(number)
    cells = draw.permutation([(i, j, k) for i in range(4) for j in range(4) for k in range(2)])[:LESIONS]
    true, found = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    for label, cell in enumerate(cells, start=1):
        centre = (np.array(cell) + 0.5) * (64, 64, 75) + draw.uniform(-6, 6, 3)
        radii = draw.uniform(3, 20, 3) / (1, 1, 2)
        paint(true, centre, radii, label)
        paint(found, centre + draw.uniform(-2, 2, 3), radii * draw.uniform(0.9, 1.2), label)
    for name, array in (("true", true), ("found", found)):
        (folder / name).mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(array, AFFINE), folder / name / f"case{number:03}.nii.gz")
    return np.count_nonzero(true) / LESIONS


def paint(array, centre, radii, label):
    low = np.maximum(np.floor(centre - radii).astype(int), 0)
    high = np.minimum(np.ceil(centre + radii).astype(int) + 1, array.shape)
    grid = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    inside = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) <= 1
    array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))][inside] = label


def page(answer, seconds, peak, voxels):
    text = header("How fast outlines are scored", "python evidence/scoring_speed.py")
    memory = f"{peak / 1e9:.2f} GB (at most {MOST_BYTES / 1e9:.0f})"
    return (
        text
        + f"""
`lesionlocator score` on two folders of {VOLUMES} label maps of {" x ".join(map(str, SHAPE))} voxels with {LESIONS}
lesions each ({voxels:,.0f} voxels a lesion on average), reading included, one process.

| Lesions | Seconds | Peak memory | Mean Dice | Mean NSD |
|---|---|---|---|---|
| {len(answer["lesions"])} | {seconds:.0f} (at most {MOST_SECONDS}) | {memory} | \
{answer["dice"]:.3f} | {answer["nsd"]:.3f} |
"""
    )


if __name__ == "__main__":
    main()
