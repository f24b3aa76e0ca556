"""No pair of scans is aligned twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from lesionlocator.align.cache import cached
from lesionlocator.align.field import FieldMap
from lesionlocator.geometry import AffineMap, Alignment, Geometry, compose
from lesionlocator.kept_maps import MapFolder
from lesionlocator.volume import Volume
from phantoms import upright

GRID = upright((6, 7, 8), 2.0, (0.0, 0.0, 0.0))
PLACES = np.random.default_rng(4).normal(0, 10, (40, 3))


def scan(seed: int) -> Volume:
    array = np.random.default_rng(seed).normal(0, 100, GRID.shape).astype(np.int16)
    return Volume(array, GRID, "CT", f"scan {seed}")


class Counting:
    """An aligner that counts how often it had to work."""

    def __init__(self, alignment: Alignment) -> None:
        self.alignment, self.asked = alignment, 0

    def __call__(self, baseline: Volume, followup: Volume) -> Alignment:
        self.asked += 1
        return self.alignment


def a_deformation() -> Alignment:
    field = np.random.default_rng(2).normal(0, 1, (3, 4, 5, 6)).astype(np.float32)
    there = FieldMap(field, Geometry((4, 5, 6), GRID.affine * np.array([2, 2, 2, 1.0])))
    shift = AffineMap.shift(np.array([1.0, 2.0, 3.0]))
    return Alignment(compose(there, compose(shift)), compose(shift.inverse(), there), "deformable", ("a doubt",))


def test_the_same_pair_is_aligned_once_whatever_its_files_are_called():
    aligner = Counting(a_deformation())
    ask = cached(aligner, name="counting")
    first = ask(scan(0), scan(1))
    assert ask(replace(scan(0), name="renamed"), scan(1)) is first
    assert aligner.asked == 1


@pytest.mark.parametrize(
    "other",
    [(scan(1), scan(0)), (scan(0), scan(2)),
     (scan(0), replace(scan(1), geometry=GRID.crop((1, 0, 0), (7, 7, 8)))),
     (scan(0), replace(scan(1), modality="MR"))],
    ids=["other way round", "other voxels", "other place", "other modality"],
)  # fmt: skip
def test_another_pair_is_aligned_anew(other):
    aligner = Counting(a_deformation())
    ask = cached(aligner, name="counting")
    ask(scan(0), scan(1))
    ask(*other)
    assert aligner.asked == 2


def test_a_second_run_finds_the_map_in_the_folder_to_the_last_bit(tmp_path: Path):
    aligner = Counting(a_deformation())
    before = cached(aligner, MapFolder(tmp_path / "maps"), "counting")(scan(0), scan(1))
    after = cached(aligner, MapFolder(tmp_path / "maps"), "counting")(scan(0), scan(1))
    assert aligner.asked == 1
    assert_array_equal(after.forward(PLACES), before.forward(PLACES))
    assert_array_equal(after.backward(PLACES), before.backward(PLACES))
    assert (after.method, after.warnings) == (before.method, before.warnings)


def test_another_aligner_has_its_own_answers(tmp_path: Path):
    aligner = Counting(a_deformation())
    for name in ("one", "other"):
        cached(aligner, MapFolder(tmp_path), name)(scan(0), scan(1))
    assert aligner.asked == 2


def test_a_damaged_file_is_made_anew(tmp_path: Path):
    aligner = Counting(a_deformation())
    cached(aligner, MapFolder(tmp_path), "counting")(scan(0), scan(1))
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:200])
    assert MapFolder(tmp_path).get(kept.stem) is None
    cached(aligner, MapFolder(tmp_path), "counting")(scan(0), scan(1))
    assert aligner.asked == 2
    assert MapFolder(tmp_path).get(kept.stem) is not None


def test_a_map_that_is_no_array_stays_in_memory(tmp_path: Path):
    aligner = Counting(Alignment(lambda at_mm: at_mm, lambda at_mm: at_mm, "a function"))
    ask = cached(aligner, MapFolder(tmp_path), "function")
    ask(scan(0), scan(1))
    ask(scan(0), scan(1))
    assert aligner.asked == 1
    assert list(tmp_path.iterdir()) == []
