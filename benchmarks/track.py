"""What following lesions costs: one pair of 512 x 512 x 300 CT, with 20 and with 40 lesions, from files to files.

`python benchmarks/track.py` makes the pairs (a made-up chest, in a temporary folder) and runs each in a process of its
own. Prints wall and processor seconds, the most memory held, and the seconds of each stage.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lesionlocator.case import Lesion
from lesionlocator.demo.chest import draw_chest
from lesionlocator.demo.followup import Change, make_followup
from lesionlocator.demo.lesions import Painted, free_sites, paint
from lesionlocator.formats import write_prompts, write_volume
from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box
from lesionlocator.resample import resample
from lesionlocator.volume import Volume

SHAPE = (300, 512, 512)
_APART_MM = 22.0


def main() -> None:
    """Make the pairs, or run the one that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lesions", type=int, nargs="*", default=[20, 40])
    parser.add_argument("--folder", type=Path, help="keeps the pairs here, and uses those that are there")
    parser.add_argument("--model", default="zoom")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.run is not None:
        run(settings.run, settings.model)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = settings.folder or Path(temporary)
        chest = cache(made_chest)
        results = {count: measured(pair(folder, count, chest), settings.model) for count in settings.lesions}
    print("| lesions | wall s | processor s | memory GB | stages (s) |\n|---|---|---|---|---|")
    for count, one in results.items():
        stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in one["stages"].items())
        print(f"| {count} | {one['wall']:.1f} | {one['cpu']:.1f} | {one['gb']:.2f} | {stages} |")
    counts = list(results)
    if len(counts) > 1:
        first, last = results[counts[0]], results[counts[-1]]
        ratio = f"{last['wall'] / first['wall']:.2f} (wall), {last['cpu'] / first['cpu']:.2f} (processor)"
        print(f"\n{counts[-1]} lesions against {counts[0]}: {ratio} times. Load: {os.getloadavg()[0]:.1f}")


def made_chest() -> Volume:
    """A chest without lesions; the same for all pairs, because drawing it takes longest."""
    small, _ = draw_chest((), np.random.default_rng(1))
    return enlarged(small)


def pair(folder: Path, count: int, chest: Callable[[], Volume]) -> Path:
    """Two scans and a prompt file; made if they are not there."""
    here = folder / f"lesions_{count}"
    if (here / "prompts.json").exists():
        return here
    here.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(count)
    scan = chest()
    places = free_sites(scan, [], count, _APART_MM)
    if len(places) < count:
        raise SystemExit(f"room for {len(places)} lesions only")
    sizes = draw.uniform(3.5, 7.0, count)
    grown = sizes * draw.uniform(0.85, 1.25, count)
    first, masks = paint(scan, painted(places, sizes))
    second, later = paint(scan, painted(places, grown))
    change = replace(Change(), growth=1.0, spacing_mm=tuple(float(mm) for mm in scan.geometry.spacing_mm))
    followup, _ = make_followup(second, later, change, draw)
    write_volume(here / "baseline.nii.gz", first)
    write_volume(here / "followup.nii.gz", followup)
    asked = [Lesion(name, (Box.around(mask),)) for name, mask in masks.items()]
    write_prompts(here / "prompts.json", asked, first.geometry, scan="baseline")
    return here


def painted(places: list[Float[np.ndarray, "3"]], sizes: np.ndarray) -> dict[str, list[Painted]]:
    """One ball for each place."""
    return {
        str(n): [Painted(at, float(radius), n)] for n, (at, radius) in enumerate(zip(places, sizes, strict=True), 1)
    }


def enlarged(scan: Volume) -> Volume:
    """The same chest on 512 x 512 x 300 voxels."""
    factor = np.array(scan.geometry.shape) / np.array(SHAPE)
    affine = scan.geometry.affine.copy()
    affine[:3, 3] = scan.geometry.index_to_world(((factor - 1) / 2)[None])[0]
    affine[:3, :3] *= factor
    grid = Geometry(SHAPE, affine)
    return replace(scan, array=np.round(resample(scan, grid)).astype(np.int16), geometry=grid)


def measured(here: Path, model: str) -> dict[str, Any]:
    """One run in a process of its own."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--run", str(here), "--model", model]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall = time.perf_counter() - began
    return {"wall": wall, **json.loads(done.stdout.splitlines()[-1])}


def run(here: Path, model: str) -> None:
    """What `lesionlocator track` does."""
    from lesionlocator.run import TrackSettings, run_track

    with tempfile.TemporaryDirectory() as out:
        settings = TrackSettings(prompts=here / "prompts.json", out=Path(out), modality="CT", model=model)
        finished = run_track([here / "baseline.nii.gz", here / "followup.nii.gz"], settings)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "cpu": used.ru_utime + used.ru_stime,
                "gb": used.ru_maxrss / 1e6,
                "stages": finished.record.timings_s,
                "statuses": [str(row.status) for row in finished.rows],
            }
        )
    )


if __name__ == "__main__":
    main()
