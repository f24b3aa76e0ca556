"""No pair of scans is aligned twice."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from lesionlocator.align import ALIGNERS, Kept
from lesionlocator.align.cache import cached
from lesionlocator.align.field import FieldMap
from lesionlocator.geometry import AffineMap, Alignment, Geometry, compose
from lesionlocator.kept_maps import MapFolder
from lesionlocator.segment import load_segmenter
from lesionlocator.track import Following, track_case
from lesionlocator.volume import Volume
from phantoms import upright
from visits import Ball, story, visit

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


def test_the_same_pair_is_aligned_once_whatever_its_files_are_called(tmp_path: Path):
    aligner = Counting(a_deformation())
    ask = cached(aligner, MapFolder(tmp_path), "counting")
    ask(scan(0), scan(1))
    ask(replace(scan(0), name="renamed"), scan(1))
    assert aligner.asked == 1


@pytest.mark.parametrize(
    "other",
    [(scan(1), scan(0)), (scan(0), scan(2)),
     (scan(0), replace(scan(1), geometry=GRID.crop((1, 0, 0), (7, 7, 8)))),
     (scan(0), replace(scan(1), modality="MR"))],
    ids=["other way round", "other voxels", "other place", "other modality"],
)  # fmt: skip
def test_another_pair_is_aligned_anew(other, tmp_path: Path):
    aligner = Counting(a_deformation())
    ask = cached(aligner, MapFolder(tmp_path), "counting")
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


def test_a_map_that_is_no_array_is_not_kept(tmp_path: Path):
    aligner = Counting(Alignment(lambda at_mm: at_mm, lambda at_mm: at_mm, "a function"))
    cached(aligner, MapFolder(tmp_path), "function")(scan(0), scan(1))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_keeps_the_pairs_that_were_asked_for_last(tmp_path: Path):
    folder = MapFolder(tmp_path, most=2)
    for age, key in ((30, "old"), (20, "older but asked for")):
        folder.put(key, a_deformation())
        os.utime(tmp_path / f"{key}.npz", (time.time() - 60 - age,) * 2)
    os.utime(tmp_path / "older but asked for.npz", (time.time() - 200,) * 2)
    folder.get("older but asked for")
    folder.put("new", a_deformation())
    assert {path.stem for path in tmp_path.iterdir()} == {"older but asked for", "new"}


def test_of_two_who_ask_for_a_pair_at_once_the_second_waits_and_another_pair_does_not():
    kept, begun, go = Kept(), threading.Event(), threading.Event()
    asked: list[str] = []

    def slow() -> Alignment:
        asked.append("slow")
        begun.set()
        assert go.wait(60)
        return a_deformation()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(kept.get, "pair", slow)
        assert begun.wait(60)
        second = pool.submit(kept.get, "pair", slow)
        assert kept.known("pair") is None
        assert kept.get("other pair", a_deformation) is kept.known("other pair")
        go.set()
        assert first.result(60) is second.result(60)
    assert asked == ["slow"]


def test_what_failed_is_tried_again():
    kept = Kept()
    with pytest.raises(MemoryError):
        kept.get("pair", _fail)
    assert kept.get("pair", a_deformation) is kept.known("pair")


def test_of_more_pairs_than_there_is_room_for_the_last_asked_for_stay():
    kept = Kept(most=2)
    for key in ("a", "b"):
        kept.get(key, a_deformation)
    kept.known("a")
    kept.get("c", a_deformation)
    assert [kept.known(key) is not None for key in "abc"] == [True, False, True]


def _fail() -> Alignment:
    raise MemoryError


def test_a_second_run_on_the_same_scans_takes_the_maps_of_the_first_and_says_the_same(tmp_path: Path, monkeypatch):
    aligner = Counting(replace(ALIGNERS["header"](scan(0), scan(1)), warnings=("a doubt",)))
    monkeypatch.setitem(ALIGNERS, "header", aligner)
    ball = Ball(-30, 0, 10, 8)
    said = []
    for _ in range(2):
        case = story({"1": ball}, visit(1, [ball]), visit(2, [ball]), masks=True)
        following = Following("header", maps=MapFolder(tmp_path))
        said.append(track_case(case, load_segmenter("ellipsoid"), settings=following).warnings)
    assert aligner.asked == 2
    assert said[0] == said[1] == ("visit0 -> visit1: a doubt", "visit1 -> visit2: a doubt")
