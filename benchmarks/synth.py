"""What a synthetic follow-up costs: a CT pair of 512 x 512 x 150 voxels, and a training pair of 64 x 64 x 64.

Prints a table: `python benchmarks/synth.py`. Wall-clock time and processor time (they differ where the computer is busy
with other things), and the most memory that the process ever held. The CT is drawn from formulas. It is made with
`--seeds` several times, as a seed decides what happens: a story without breathing costs a third of one with it.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import subprocess
import sys
import time

import numpy as np

from lesionlocator.geometry import Geometry
from lesionlocator.synth.chain import draw_chain
from lesionlocator.synth.pairs import PairSettings, training_pairs
from lesionlocator.synth.story import StorySettings
from lesionlocator.synth.visit import Visit
from lesionlocator.volume import Mask, Volume

LESIONS_MM = {"1": ((70.0, -20.0, 20.0), 12.0), "2": ((-60.0, 10.0, -40.0), 9.0), "3": ((10.0, -50.0, 60.0), 16.0)}


def grid(shape, spacing_mm):
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * np.array(spacing_mm)
    affine[:3, 3] = -(affine[:3, :3] @ ((np.array(shape) - 1) / 2))
    return Geometry(shape, affine)


def body(shape, spacing_mm):
    """A trunk with fat, muscle, lungs, a spine, lesions and noise."""
    geometry = grid(shape, spacing_mm)
    d, h, w = shape
    z, y, x = (((np.arange(n) - (n - 1) / 2) * mm).astype(np.float32) for n, mm in zip(shape, spacing_mm, strict=True))
    z, y = z[:, None, None], y[:, None]
    array = np.full(shape, -1000, np.int16)
    array[:] = np.where((x / 170) ** 2 + (y / 125) ** 2 <= 1, -100, array)
    array[:] = np.where((x / 150) ** 2 + (y / 105) ** 2 <= 1, 40, array)
    for side in (-1, 1):
        array[((x - 75 * side) / 55) ** 2 + (y / 75) ** 2 + ((z - 60) / 90) ** 2 <= 1] = -800
    array[np.broadcast_to(x**2 + (y - 80) ** 2 <= 20**2, shape)] = 600
    lesions = {}
    for name, ((cx, cy, cz), radius) in LESIONS_MM.items():
        where = (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 <= radius**2
        array[where] = 90
        lesions[name] = Mask.from_array(where, geometry)
    rng = np.random.default_rng(0)
    for index in range(d):
        array[index] += np.rint(rng.normal(0, 14, (h, w))).astype(np.int16)
    return Visit.of(Volume(array, geometry, "CT", "drawn trunk"), lesions)


def measured(work):
    before = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - before[0], time.process_time() - before[1]


def ct_pair(seed):
    source = body((150, 512, 512), (2.0, 0.75, 0.75))
    wall, cpu = measured(lambda: print("  ", _told(draw_chain(source, seed, StorySettings(visits=2)))))
    return wall, cpu


def _told(chain):
    return ", ".join(
        change.name
        for draws in chain.story.visits
        for stage in ("lesion", "patient", "scanner")
        for change in getattr(draws, stage)
    )


def training(count):
    source = body((90, 256, 256), (2.0, 1.4, 1.4))
    pairs = training_pairs([source], 0, PairSettings())
    wall, cpu = measured(lambda: [None for _ in itertools.islice(pairs, count)])
    return wall / count, cpu / count


def alone(*arguments):
    """In a process of its own, whose memory can be told."""
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], check=True, capture_output=True, text=True)
    said, numbers = done.stdout.strip().rsplit("\n", 1) if "\n" in done.stdout.strip() else ("", done.stdout.strip())
    wall, cpu, memory = map(float, numbers.split())
    return said.strip(), wall, cpu, memory


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=960)
    parser.add_argument("--part", nargs=2)
    chosen = parser.parse_args()
    if chosen.part:
        kind, number = chosen.part
        wall, cpu = ct_pair(int(number)) if kind == "ct" else training(int(number))
        print(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
        return
    print("| What | wall | processor | memory | what was drawn |\n|---|---|---|---|---|")
    for seed in range(chosen.seeds):
        said, wall, cpu, memory = alone("--part", "ct", seed)
        print(f"| CT pair, seed {seed} | {wall:.1f} s | {cpu:.1f} s | {memory:.2f} GiB | {said} |", flush=True)
    _, wall, cpu, memory = alone("--part", "training", chosen.pairs)
    print(
        f"| training pair, mean of {chosen.pairs} | {1000 * wall:.0f} ms | {1000 * cpu:.0f} ms | {memory:.2f} GiB | |"
    )


if __name__ == "__main__":
    main()
