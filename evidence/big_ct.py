"""Three box prompts in a CT of 512 x 512 x 1000 voxels: memory above what reading the scan takes.

Reading and segmenting run in processes of their own, so that each has its own peak.
"""

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

from lesionlocator.formats import read_volume
from lesionlocator.prompt import Box
from lesionlocator.segment import MODELS, load_segmenter

SHAPE = (512, 512, 1000)
SPACING_MM = (0.8, 0.8, 1.0)
AFFINE = np.diag([-0.8, -0.8, 1.0, 1.0])
LESIONS = {"2": ((150, 200, 150), 8), "5": ((300, 260, 480), 30), "9": ((220, 330, 820), 58)}
"""Centre in voxels (i, j, k) and radius in mm: 2 ml, 113 ml and 817 ml."""
LIMIT_GB = 2.0
GIGABYTE = 1024**3


def main():
    with tempfile.TemporaryDirectory() as temporary:
        scan = Path(temporary) / "ct.nii.gz"
        prompts = Path(temporary) / "prompts.json"
        write_scan(scan)
        write_prompts(prompts)
        read = apart("read", scan)
        rows = [("read the scan", read)]
        rows += [(f"read it and outline, `{name}`, Python", apart("outline", scan, name)) for name in MODELS]
        rows.append(("`lesionlocator segment`, default model", command_line(scan, prompts, Path(temporary) / "out")))
    write("big_ct", page(rows))
    over = [name for name, row in rows if row["peak_gb"] - read["peak_gb"] > LIMIT_GB]
    if over:
        raise SystemExit(f"more than {LIMIT_GB} GB above reading: {', '.join(over)}")


def write_scan(path):
    """A trunk of fat and muscle in air, with three balls; int16, made slice by slice."""
    array = np.empty(SHAPE, np.int16, order="F")
    draw = np.random.default_rng(0)
    across, down = ((np.arange(512) - 255.5)[:, None] / 215, (np.arange(512) - 255.5)[None] / 160)
    body = across**2 + down**2
    trunk = np.select([body < 0.75, body < 1], [40, -100], -1000).astype(np.int16)
    for k in range(SHAPE[2]):
        array[:, :, k] = trunk + draw.integers(-15, 16, SHAPE[:2])
    for (i, j, k), radius_mm in LESIONS.values():
        low = [max(0, int(c - radius_mm / s) - 1) for c, s in zip((i, j, k), SPACING_MM, strict=True)]
        high = [int(c + radius_mm / s) + 2 for c, s in zip((i, j, k), SPACING_MM, strict=True)]
        part = array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        away = [
            (np.arange(a, a + n) - c) * s for a, n, c, s in zip(low, part.shape, (i, j, k), SPACING_MM, strict=True)
        ]
        part[away[0][:, None, None] ** 2 + away[1][:, None] ** 2 + away[2] ** 2 <= radius_mm**2] += 60
    nib.save(nib.Nifti1Image(array, AFFINE), path)


def boxes():
    """Bounds in LPS mm."""
    for name, (centre, radius_mm) in LESIONS.items():
        middle = np.array(centre) * SPACING_MM
        yield name, middle - radius_mm - 0.5, middle + radius_mm + 0.5


def write_prompts(path):
    lesions = [{"id": name, "box": {"min": list(low), "max": list(high)}} for name, low, high in boxes()]
    path.write_text(json.dumps({"version": 1, "space": "world", "frame": "LPS", "lesions": lesions}))


def apart(step, scan, model=""):
    """Runs a step of this script in its own process and gives what it measured."""
    done = subprocess.run([sys.executable, __file__, step, scan, model], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def command_line(scan, prompts, out):
    started = time.perf_counter()
    code = "from lesionlocator.cli import main; import resource, sys, atexit;"
    code += (
        "atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)); main()"
    )
    command = [sys.executable, "-c", code, "segment", scan, "--prompts", prompts, "--out", out, "--modality", "CT"]
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the command ended with {done.returncode}\n{done.stderr}")
    peak_gb = int(done.stderr.split()[-1]) * 1024 / GIGABYTE
    return {"peak_gb": peak_gb, "seconds": time.perf_counter() - started, "found_ml": None}


def step(name, scan, model):
    started = time.perf_counter()
    volume = read_volume(Path(scan), "CT")
    seconds, found_ml = time.perf_counter() - started, None
    if name == "outline":
        segmenter = load_segmenter(model)
        started = time.perf_counter()
        asks = [(Box.from_bounds(low, high),) for _, low, high in boxes()]
        answers = segmenter.outline(segmenter.prepare(volume), asks)
        seconds = time.perf_counter() - started
        found_ml = [round(answer.mask.volume_ml, 1) for answer in answers]
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIGABYTE
    print(json.dumps({"peak_gb": peak_gb, "seconds": seconds, "found_ml": found_ml}))


def page(rows):
    text = header("Three boxes in a CT of 512 x 512 x 1000 voxels", "python evidence/big_ct.py")
    drawn = ", ".join(f"{4 / 3 * np.pi * radius_mm**3 / 1000:.1f}" for _, radius_mm in LESIONS.values())
    text += f"""
A made CT, int16 ({np.prod(SHAPE) * 2 / GIGABYTE:.2f} GB), as NIfTI, with balls of {drawn} ml. Each row is a
process of its own; peak is the most memory that it held. Allowed: {LIMIT_GB:.0f} GB above reading.

| What | Peak, GB | Above reading, GB | Seconds | Found, ml |
|---|---|---|---|---|
"""
    read_gb = rows[0][1]["peak_gb"]
    for name, row in rows:
        found = ", ".join(map(str, row["found_ml"])) if row["found_ml"] else ""
        text += f"| {name} | {row['peak_gb']:.2f} | {row['peak_gb'] - read_gb:.2f} | {row['seconds']:.1f} | {found} |\n"
    return text + "\nSeconds of the Python rows are those of outlining alone; of the command, of everything.\n"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        step(*sys.argv[1:4])
    else:
        main()
