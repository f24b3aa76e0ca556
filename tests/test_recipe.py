"""The recipe of a data set: what it keeps, what it refuses, and that the same words mean the same items."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionlocator.dataset.layouts import Reading, find_sources
from lesionlocator.dataset.listed import collections
from lesionlocator.dataset.recipe import (
    RELEASED,
    Item,
    Recipe,
    RecipeSource,
    find_recipe,
    item_seed,
    plan_items,
    read_recipe,
    versions,
    write_recipe,
)
from lesionlocator.dataset.source import open_source
from lesionlocator.errors import Refused
from lesionlocator.synth.changes import from_json
from lesionlocator.synth.story import Story
from synthesis_phantoms import save_sources


@pytest.fixture
def folder(tmp_path):
    return save_sources(tmp_path / "sources")


@pytest.fixture
def recipe(folder):
    sources = [RecipeSource.of(scan, folder, "CC0-1.0") for scan in find_sources(folder, Reading("CT"))]
    items = plan_items(sources, 5, seed=1)
    return Recipe({one.id: one for one in sources}, items, "phantoms", versions())


DRAWS = {"planted": [], "source_at": 0, "visits": [{"lesion": [], "patient": [], "scanner": []}] * 2}


@pytest.mark.parametrize("name", ["recipe.jsonl", "recipe.jsonl.gz"])
def test_a_recipe_comes_back_as_it_was_written(tmp_path, recipe, name):
    first = replace(recipe.items[0], draws=DRAWS, events=((("same", "2", "2"),),), files={"a": "1", "b": "2"})
    recipe = replace(recipe, items=(first, *recipe.items[1:]))
    write_recipe(tmp_path / name, recipe)
    assert read_recipe(tmp_path / name) == recipe


def test_the_same_recipe_is_the_same_file_packed_too(tmp_path, recipe):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_recipe(tmp_path / name, recipe)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).startswith(b'{"kind":"recipe","version":1')


def test_a_source_of_a_recipe_is_read_as_its_layout_found_it(folder, recipe):
    for scan in find_sources(folder, Reading("CT")):
        assert recipe.sources[scan.id].scan(folder) == scan
    assert list(open_source(recipe.sources["two"].scan(folder)).lesions) == ["2", "5"]


@given(seed=st.integers(0, 2**40), count=st.integers(1, 40), more=st.integers(0, 40), scans=st.integers(1, 7))
def test_asking_for_more_items_leaves_the_first_ones_as_they_are(seed, count, more, scans):
    sources = [RecipeSource(f"s{n}", "", "", f"s{n}", 0, "CT", True, "x", (), {}) for n in range(scans)]
    few, many = (plan_items(sources, number, seed=seed) for number in (count, count + more))
    assert many[:count] == few
    used = [item.source for item in few]
    assert max(used.count(name) for name in used) - min(used.count(source.id) for source in sources) <= 1


def test_pairs_and_chains_have_names_and_seeds_of_their_own(recipe):
    sources = list(recipe.sources.values())
    pairs, chains = (plan_items(sources, 3, seed=1, visits=visits) for visits in (2, 4))
    assert [item.name for item in pairs] == ["pair_00001", "pair_00002", "pair_00003"]
    assert [item.name for item in chains] == ["chain_00001", "chain_00002", "chain_00003"]
    assert len({item.seed for item in (*pairs, *chains)}) == 6
    assert item_seed(1, "pair_00001") == pairs[0].seed != item_seed(2, "pair_00001")


def test_a_recipe_is_cut_to_the_sources_that_are_there(folder, recipe):
    assert recipe.on(folder) == recipe
    (folder / "images" / "two.nii.gz").unlink()
    part = recipe.on(folder)
    assert set(part.sources) == {"none", "one"}
    assert {item.source for item in part.items} == {"none", "one"}


def test_a_source_with_another_checksum_is_refused_by_name(folder, recipe):
    path = folder / "images" / "one.nii.gz"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(Refused, match=r"images/one.nii.gz has another checksum"):
        recipe.on(folder)


def test_missing_labels_of_a_source_are_refused(folder, recipe):
    (folder / "labels" / "one.nii.gz").unlink()
    with pytest.raises(Refused, match=r"labels/one.nii.gz is missing"):
        recipe.on(folder)


def test_a_folder_without_any_of_the_sources_is_refused(tmp_path, recipe):
    with pytest.raises(Refused, match="none of the recipe's 3 sources"):
        recipe.on(tmp_path / "elsewhere")


def test_items_drawn_at_random_are_the_same_for_the_same_seed(recipe):
    many = replace(recipe, items=plan_items(list(recipe.sources.values()), 50, seed=1))
    drawn = many.drawn_at_random(10, seed=3)
    assert drawn == many.drawn_at_random(10, seed=3)
    assert drawn != many.drawn_at_random(10, seed=4)
    assert [many.items.index(item) for item in drawn.items] == sorted(many.items.index(item) for item in drawn.items)
    assert many.drawn_at_random(50, seed=3) is many


def test_whether_bytes_must_agree_is_said_by_packages_and_processor(recipe):
    assert recipe.made_here
    assert not replace(recipe, made_with={**versions(), "scipy": "0.1"}).made_here
    assert not replace(recipe, made_with={**versions(), "processor": "abacus"}).made_here


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "of version None"),
        ('{"kind":"recipe","version":9}\n', "of version 9"),
        ("no json\n", "cannot be read"),
        ('{"kind":"song"}\n', "line 1 is a song"),
        ('{"kind":"recipe","version":1}\n{"kind":"item","name":"a","source":"b","seed":1}\n', "the sources of a"),
        ('{"kind":"item","name":"a"}\n', "cannot be read"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path, text, said):
    path = tmp_path / "recipe.jsonl"
    path.write_text(text)
    with pytest.raises(Refused, match=said):
        read_recipe(path)


def test_a_recipe_is_found_by_name_by_path_and_by_the_folder_of_its_data_set(tmp_path, recipe):
    write_recipe(tmp_path / "recipe.jsonl", recipe)
    assert find_recipe(str(tmp_path)) == find_recipe(str(tmp_path / "recipe.jsonl")) == tmp_path / "recipe.jsonl"
    with pytest.raises(Refused, match="no recipe 'mine'"):
        find_recipe("mine")


def test_only_what_is_known_of_an_item_is_written(tmp_path, recipe):
    write_recipe(
        tmp_path / "recipe.jsonl", replace(recipe, items=(Item("pair_1", "one", 5),)).only([Item("p", "one", 5)])
    )
    line = json.loads((tmp_path / "recipe.jsonl").read_text().splitlines()[-1])
    assert line == {"kind": "item", "name": "p", "source": "one", "seed": 5, "visits": 2}
    assert np.isfinite(line["seed"])


# the released one


@pytest.fixture(scope="session")
def released():
    return read_recipe(find_recipe(RELEASED))


def test_the_released_recipe_is_small_and_has_pairs_and_chains_of_four_visits(released):
    assert find_recipe(RELEASED).stat().st_size <= 3_000_000
    visits = [item.visits for item in released.items]
    assert visits.count(2) >= 2500
    assert visits.count(4) >= 250
    assert len({item.name for item in released.items}) == len(released.items)
    assert len({item.seed for item in released.items}) == len(released.items)


def test_every_scan_of_the_released_recipe_has_a_checksum_a_licence_and_a_known_origin(released):
    for source in released.sources.values():
        assert source.licence == collections()[source.collection].licence
        assert source.image in source.files
        assert {labels["path"] for labels in source.labels} <= set(source.files)
        assert all(len(digest) == 64 for digest in source.files.values())
    assert {item.source for item in released.items} == set(released.sources)


def test_what_was_drawn_for_the_released_recipe_can_be_told_by_this_version(released):
    drawn = [item for item in released.items if item.draws is not None]
    assert drawn
    for item in drawn:
        draws = dict(item.draws)
        planted = [from_json(entry) for entry in draws.pop("planted")]
        assert all(change.of == "lesion" for change in planted)
        assert len(Story.from_json(draws).visits) == item.visits


def test_where_label_maps_of_the_released_recipe_are_known_draws_and_events_are_too(released):
    known = [item for item in released.items if item.labels]
    assert known
    for item in known:
        assert item.draws is not None
        assert len(item.labels) == 64
        assert len(item.events) == item.visits - 1


def test_the_shared_scans_are_those_of_the_released_recipe(released, shared_data):
    part = released.on(shared_data)
    assert {source.collection for source in part.sources.values()} == set(collections()) - {"pyradiomics"}
