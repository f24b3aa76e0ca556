"""A data set made from tiny scans: what is in it, that it is the same however it is made, and what its recipe does."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import synthesis_phantoms
from lesionlocator.cli import run
from lesionlocator.dataset.card import croissant, visit_folder
from lesionlocator.dataset.drawing import draw_patient
from lesionlocator.dataset.layouts import find_sources
from lesionlocator.dataset.make import run_synthesize, true_case
from lesionlocator.dataset.reading import read_item, read_run
from lesionlocator.dataset.recipe import labels_checksum, read_recipe, write_recipe
from lesionlocator.dataset.settings import SynthesizeSettings
from lesionlocator.dataset.source import open_source
from lesionlocator.dataset.truth import events_of, read_map
from lesionlocator.dataset.validate import SAME_BYTES, intensities_apart, labels_alike, validate_folder
from lesionlocator.errors import Refused
from lesionlocator.formats import read_label_map, read_volume, write_labels, write_volume
from lesionlocator.synth.visit import Visit
from synthesis_phantoms import save_sources

PAIRS = 4


def settings(**changes):
    return SynthesizeSettings(
        **{"pairs": PAIRS, "seed": 4, "modality": "CT", "executor": "same", "pictures": 0} | changes
    )


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    return save_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def made(sources, tmp_path_factory):
    """Four pairs, made one after another in this process."""
    out = tmp_path_factory.mktemp("made") / "set"
    assert not run_synthesize(str(sources), out, settings()).failed
    return out


@pytest.fixture(scope="session")
def chains(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("chains") / "set"
    assert not run_synthesize(str(sources), out, settings(pairs=1, visits=4, pictures=1)).failed
    return out


@pytest.fixture(scope="session")
def part(sources, made, tmp_path_factory):
    """Two of the four pairs, made again by the recipe of all."""
    out = tmp_path_factory.mktemp("part") / "set"
    two = SynthesizeSettings(recipe=str(made), pairs=2, seed=1, executor="same", pictures=0)
    assert not run_synthesize(str(sources), out, two).failed
    return out


def content(out):
    """Every file that must be the same: all but times."""
    own = [path for path in sorted(out.rglob("*")) if path.is_file()]
    timed = {"run.json", "batch.csv", "README.md", "croissant.json"}
    return {str(path.relative_to(out)): path.read_bytes() for path in own if path.name not in timed}


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


# what is in it


def test_every_pair_has_one_file_in_each_folder_of_the_contract(made):
    names = [f"pair_{number:05d}.nii.gz" for number in range(1, PAIRS + 1)]
    for folder in ("Baseline", "Synthetic_Follow_Up"):
        for kind in ("images", "labels"):
            assert sorted(path.name for path in (made / folder / kind).iterdir()) == names
    assert {"naming.csv", "recipe.jsonl", "truth", "README.md", "croissant.json"} <= {p.name for p in made.iterdir()}


def test_later_visits_of_a_chain_have_numbered_folders(chains):
    assert [visit_folder(number) for number in range(4)] == [
        "Baseline",
        "Synthetic_Follow_Up",
        "Synthetic_Follow_Up_2",
        "Synthetic_Follow_Up_3",
    ]
    for number in range(4):
        assert len(list((chains / visit_folder(number) / "images").iterdir())) == 1


def test_one_visit_of_every_item_without_planted_lesions_is_the_untouched_source(sources, made):
    checked = 0
    for item in read_recipe(made / "recipe.jsonl").items:
        if item.draws["planted"]:
            continue
        folder = visit_folder(item.draws["source_at"])
        image = read_volume(made / folder / "images" / f"{item.name}.nii.gz", "CT")
        source = read_volume(sources / "images" / f"{item.source}.nii.gz", "CT")
        np.testing.assert_array_equal(image.array, source.array)
        checked += 1
    assert checked >= 1


def test_labels_are_ids_that_the_links_know(made, chains):
    for out in (made, chains):
        for item in read_recipe(out / "recipe.jsonl").items:
            case = read_item(out, item.name, "CT")
            assert events_of(case) == item.events
            for timepoint in case.timepoints:
                for lesion in timepoint.lesions:
                    assert lesion.mask is None or lesion.mask.voxels > 0


def test_the_table_of_origins_names_source_patient_and_licence(made):
    table = rows(made / "naming.csv")
    assert [row["name"] for row in table] == [f"pair_{number:05d}" for number in range(1, PAIRS + 1)]
    assert sorted(Counter(row["source"] for row in table).values()) == [1, 1, 2]


def test_the_maps_that_are_written_lead_there_and_back(made):
    for name in ("pair_00001", "pair_00002", "pair_00003"):
        folder = made / "truth" / name / "maps"
        (step,) = json.loads((folder / "maps.json").read_text())
        there, back = (read_map(folder / step[way]["file"]) for way in ("forward", "backward"))
        image = read_volume(made / "Baseline" / "images" / f"{name}.nii.gz", "CT")
        index = np.random.default_rng(1).uniform(0, np.array(image.geometry.shape) - 1, (300, 3))
        at_mm = image.geometry.index_to_world(index)
        away = np.linalg.norm(back(there(at_mm)) - at_mm, axis=1)
        assert step["composition_error_mm"]["p95"] <= 0.5 * 4.0
        assert np.percentile(away, 90) <= 0.5 * 4.0


def test_tables_of_all_items_are_joined(made):
    assert {row["case"] for row in rows(made / "truth" / "lesions.csv")} <= {
        f"pair_{n:05d}" for n in range(1, PAIRS + 1)
    }
    assert (made / "truth" / "links.csv").is_file()


def test_a_made_data_set_is_read_like_the_published_one(made):
    scans = find_sources(made)
    assert len(scans) == 2 * PAIRS
    assert {scan.visit for scan in scans} == {0, 1}
    assert {scan.modality for scan in scans} == {"CT"}


def test_the_metadata_names_every_folder_and_the_checksums_of_the_tables(made):
    about = json.loads((made / "croissant.json").read_text())
    assert about == croissant(made, read_recipe(made / "recipe.jsonl"))
    assert [entry["@id"] for entry in about["distribution"]] == [
        "folder",
        "naming.csv",
        "recipe.jsonl",
        *(f"{folder}-{kind}" for folder in ("Baseline", "Synthetic_Follow_Up") for kind in ("images", "labels")),
    ]


def test_the_metadata_is_valid_croissant(made):
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not needed to write the metadata")
    assert not mlcroissant.Dataset(jsonld=made / "croissant.json").metadata.issues.errors


def test_a_few_items_are_pictured(chains):
    assert len(list((chains / "pictures").glob("*.png"))) == 1


# the same however it is made


def test_the_same_bytes_come_from_two_worker_processes(sources, made, tmp_path):
    run_synthesize(str(sources), tmp_path / "set", settings(executor="process", workers=2))
    assert content(tmp_path / "set") == content(made)


@pytest.mark.ray
@pytest.mark.slow
def test_the_same_bytes_come_from_ray(sources, made, tmp_path):
    pytest.importorskip("ray")
    run_synthesize(str(sources), tmp_path / "set", settings(executor="ray", workers=2))
    assert content(tmp_path / "set") == content(made)


def start(kind, sources, out, pairs):
    paths = os.pathsep.join([str(Path(synthesis_phantoms.__file__).parent), *filter(None, sys.path)])
    command = [sys.executable, synthesis_phantoms.__file__, kind, str(sources), str(out), str(pairs)]
    return subprocess.Popen(command, start_new_session=True, env={**os.environ, "PYTHONPATH": paths})


@pytest.mark.slow
def test_a_data_set_killed_in_the_middle_and_asked_for_again_is_the_same(sources, made, tmp_path):
    out = tmp_path / "set"
    running = start("process", sources, out, PAIRS)
    until = time.monotonic() + 240
    while not list(out.glob("truth/pair_*/run.json")):
        assert time.monotonic() < until, "it did not begin"
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    before = {path: path.stat().st_mtime_ns for path in out.glob("truth/pair_*/run.json")}
    assert before
    assert not (out / "recipe.jsonl").exists()
    run_synthesize(str(sources), out, settings())
    assert content(out) == content(made)
    assert all(path.stat().st_mtime_ns == written for path, written in before.items()), "finished items stay"


def test_the_recipe_remakes_the_data_set(sources, made, tmp_path):
    run_synthesize(str(sources), tmp_path / "set", SynthesizeSettings(recipe=str(made), executor="same", pictures=0))
    again, first = content(tmp_path / "set"), content(made)
    assert {k: v for k, v in again.items() if k != ".plan.jsonl"} == {
        k: v for k, v in first.items() if k != ".plan.jsonl"
    }


def test_a_part_of_a_recipe_is_the_same_as_in_the_whole(made, part):
    recipe = read_recipe(part / "recipe.jsonl")
    assert len(recipe.items) == 2
    for item in recipe.items:
        assert item.files
        assert all((part / path).read_bytes() == (made / path).read_bytes() for path in item.files)


def test_another_data_set_in_the_folder_is_refused(sources, made):
    with pytest.raises(Refused, match="another data set in"):
        run_synthesize(str(sources), made, settings(seed=5))


# its own validator


def test_a_data_set_is_what_its_recipe_says(sources, made):
    checked = validate_folder(str(sources), made, settings())
    assert [one.finding for one in checked] == [SAME_BYTES] * PAIRS


@pytest.fixture
def elsewhere(part, tmp_path):
    """A data set as if its recipe had been made with other packages, so that bytes may differ."""
    out = shutil.copytree(part, tmp_path / "set")
    recipe = read_recipe(out / "recipe.jsonl")
    path = out / "recipe.jsonl"
    text = path.read_text().replace(f'"numpy":"{recipe.made_with["numpy"]}"', '"numpy":"0.0"')
    path.write_text(text)
    return out


def changed(path, change):
    volume = read_volume(path, "CT")
    write_volume(path, replace(volume, array=change(volume.array.copy())))


def finding(sources, out, name):
    return next(one for one in validate_folder(str(sources), out, settings()) if one.name == name)


def first_item(out):
    return read_recipe(out / "recipe.jsonl").items[0].name


def test_intensities_one_unit_off_pass_with_other_packages_and_two_do_not(sources, elsewhere):
    name = first_item(elsewhere)
    image = elsewhere / "Baseline" / "images" / f"{name}.nii.gz"
    changed(image, lambda array: array + 1)
    found = finding(sources, elsewhere, name)
    assert found.ok
    assert found.intensity_apart == 1
    changed(image, lambda array: array + 1)
    assert not finding(sources, elsewhere, name).ok


def test_with_the_same_packages_one_unit_is_too_much(sources, part, tmp_path):
    out = shutil.copytree(part, tmp_path / "set")
    name = first_item(out)
    changed(out / "Baseline" / "images" / f"{name}.nii.gz", lambda array: array + 1)
    found = finding(sources, out, name)
    assert not found.ok
    assert "other bytes" in found.finding


def test_a_recipe_drawn_without_voxels_knows_the_label_maps_that_will_be_made(sources, made, tmp_path):
    recipe = read_recipe(made / "recipe.jsonl")
    item = recipe.items[0]
    opened = open_source(recipe.sources[item.source].scan(sources))
    visit = Visit.of(opened.volume, opened.lesions)
    chain, draws = draw_patient(visit, item.seed, item.visits, voxels=False)
    assert json.loads(json.dumps(draws)) == item.draws
    drawn = replace(item, draws=draws, events=events_of(true_case(chain)), labels=labels_checksum(chain), files={})
    for right, one in ((True, drawn), (False, replace(drawn, labels="0" * 64))):
        write_recipe(tmp_path / "drawn.jsonl", recipe.only([one]))
        (checked,) = validate_folder(str(sources), made, settings(recipe=str(tmp_path / "drawn.jsonl")))
        assert checked.ok is right
        assert right or "other label maps" in checked.finding


def test_a_lesion_that_lost_a_part_is_found(sources, elsewhere):
    items = [item for item in read_recipe(elsewhere / "recipe.jsonl").items if item.source != "none"]
    path = elsewhere / "Baseline" / "labels" / f"{items[0].name}.nii.gz"
    labels = read_label_map(path)
    values = labels.values.copy()
    values[values.shape[0] // 2 :] = 0
    write_labels(path, values, labels.geometry)
    found = finding(sources, elsewhere, items[0].name)
    assert not found.ok
    assert found.labels_alike < 0.999


def test_other_draws_are_found(sources, elsewhere):
    name = first_item(elsewhere)
    run_file = elsewhere / "truth" / name / "run.json"
    entry = read_run(elsewhere, name)
    entry["draws"]["visits"][0]["patient"] = [{"change": "breathing"}]
    run_file.write_text(json.dumps(entry))
    assert finding(sources, elsewhere, name).finding == "other draws"


def test_a_scan_that_is_missing_is_found(sources, elsewhere):
    name = first_item(elsewhere)
    (elsewhere / "Synthetic_Follow_Up" / "images" / f"{name}.nii.gz").unlink()
    assert "is missing" in finding(sources, elsewhere, name).finding


def test_a_folder_without_any_item_of_the_recipe_is_refused(sources, made, tmp_path):
    with pytest.raises(Refused, match="none of the recipe's"):
        validate_folder(str(sources), tmp_path, settings(recipe=str(made)))


def test_how_alike_label_maps_are_is_counted_over_the_voxels_of_either():
    one, other = np.zeros((1, 1, 6), np.int32), np.zeros((1, 1, 6), np.int32)
    one[0, 0, :4], other[0, 0, 1:5] = 1, 1
    assert labels_alike(one, other) == 3 / 5
    other[other == 1] = 2
    assert labels_alike(one, other) == 0
    assert labels_alike(one * 0, other * 0) == 1


def test_how_far_intensities_are_apart_is_in_hu_or_of_the_range():
    one = np.array([[[0.0, 100.0]]])
    assert intensities_apart(one, one + 2, "CT") == 2
    assert intensities_apart(one, one + 2, "MR") == 0.02


# the command


def test_the_command_makes_and_checks_a_data_set(sources, tmp_path, capsys):
    out = str(tmp_path / "set")
    words = [str(sources), out, "--modality", "CT", "--executor", "same"]
    assert run(["synthesize", *words, "--pairs", "2", "--seed", "9", "--pictures", "0", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["items"] == ["pair_00001", "pair_00002"]
    assert "2/2" in said.err
    assert run(["synthesize", *words, "--validate"]) == 0
    assert "2 of 2 items are as the recipe says" in capsys.readouterr().out


def test_the_command_says_what_each_pair_cost(sources, tmp_path, capsys):
    words = [str(sources), str(tmp_path / "set"), "--pairs", "1", "--pictures", "0", "--executor", "same"]
    assert run(["synthesize", *words]) == 0
    assert "s each (median" in capsys.readouterr().out


def test_fewer_than_two_visits_are_refused(sources, tmp_path, capsys):
    assert run(["synthesize", str(sources), str(tmp_path / "set"), "--visits", "1"]) == 2
    assert "two or more" in capsys.readouterr().err


def test_a_source_that_is_not_there_is_refused(tmp_path, capsys):
    assert run(["synthesize", str(tmp_path / "nothing"), str(tmp_path / "set")]) == 2
    assert "no folder" in capsys.readouterr().err
