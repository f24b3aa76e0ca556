"""Model cards: what a model folder has to say, and what is refused."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import phantoms
from lesionlocator.errors import Refused
from lesionlocator.prompt import Box
from lesionlocator.segment import KINDS, load_segmenter
from lesionlocator.weights import (
    CARD_FILE,
    DEFAULT_MODEL,
    MODELS,
    ModelCard,
    damaged_models,
    find_model,
    import_model,
    list_models,
    models_folder,
    read_card,
    verify,
)


def write_model(folder: Path, **changes) -> Path:
    """A folder with an ellipsoid model that brings one file along."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notes").mkdir(exist_ok=True)
    (folder / "notes" / "readme.txt").write_bytes(b"a model of the house\n")
    checksum = hashlib.sha256(b"a model of the house\n").hexdigest()
    card = {
        "version": 1,
        "id": "house",
        "kind": "ellipsoid",
        "title": "An example",
        "licence": "CC0-1.0",
        "intended_use": "Tests.",
        "limits": "None known.",
        "files": {"notes/readme.txt": checksum},
    }
    (folder / CARD_FILE).write_text(json.dumps(card | changes))
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_every_embedded_model_has_a_card_that_says_what_it_is(name):
    card = MODELS[name]
    assert card.id == name
    assert card.kind in KINDS
    assert all((card.title, card.licence, card.intended_use, card.limits))
    assert set(card.prompts) == {"click", "box", "line", "mask"}
    assert set(card.modalities) == {"CT", "MR", "PT"}
    assert ModelCard.from_json(card.to_json()) == card
    assert pickle.loads(pickle.dumps(card)) == card


def test_the_default_model_is_embedded():
    assert find_model(DEFAULT_MODEL) == (MODELS[DEFAULT_MODEL], None)


def test_a_card_is_read_as_it_was_written(tmp_path):
    card = read_card(write_model(tmp_path / "house"))
    assert (card.id, card.kind, card.licence) == ("house", "ellipsoid", "CC0-1.0")
    assert ModelCard.from_json(json.loads(json.dumps(card.to_json()))) == card
    assert verify(card, tmp_path / "house") == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"version": 2}, "version 2"),
        ({"version": None}, "version"),
        ({"licence": ""}, "licence"),
        ({"kind": 3}, "kind"),
        ({"limits": None}, "limits"),
        ({"surprise": 1}, "surprise"),
        ({"prompts": "box"}, "prompts"),
        ({"modalities": [1]}, "modalities"),
        ({"settings": []}, "settings"),
        ({"settings": {"rounds": [1]}}, "rounds"),
        ({"files": {"../outside": "0" * 64}}, "outside"),
        ({"files": {"/etc/hosts": "0" * 64}}, "hosts"),
        ({"files": {"weights.bin": "abc"}}, "SHA-256"),
        ({"files": {"model.json": "0" * 64}}, "model.json"),
        ({"id": "../up"}, "up"),
        ({"citation": 5}, "citation"),
    ],
)
def test_a_card_that_is_wrong_is_refused_and_the_wrong_entry_named(tmp_path, changes, named):
    with pytest.raises(Refused) as refused:
        read_card(write_model(tmp_path / "house", **changes))
    assert named in refused.value.found


def test_a_folder_without_a_card_and_a_card_that_is_no_json_are_refused(tmp_path):
    with pytest.raises(Refused, match="no model.json"):
        read_card(tmp_path)
    for content in ("{", "[1]", "\ufeff{}"):
        (tmp_path / CARD_FILE).write_text(content, encoding="utf-8")
        with pytest.raises(Refused):
            read_card(tmp_path)
    (tmp_path / CARD_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Refused, match="cannot be read"):
        read_card(tmp_path)


def test_a_changed_and_a_missing_file_are_named(tmp_path):
    folder = write_model(tmp_path / "house")
    card = read_card(folder)
    (folder / "notes" / "readme.txt").write_text("changed")
    assert "notes/readme.txt has the SHA-256" in verify(card, folder)[0]
    (folder / "notes" / "readme.txt").unlink()
    assert verify(card, folder) == ["notes/readme.txt is missing"]
    with pytest.raises(Refused, match="missing"):
        load_segmenter(str(folder))


def test_an_imported_model_can_be_named_and_runs(tmp_path):
    source, models = write_model(tmp_path / "house"), tmp_path / "models"
    (source / "secret.txt").write_text("not on the card")
    assert import_model(source, "ours", models) == models / "ours"
    assert sorted(p.name for p in models.iterdir()) == ["ours"]
    assert not (models / "ours" / "secret.txt").exists()
    assert list(list_models(models)) == [*MODELS, "ours"]
    card, folder = find_model("ours", models)
    assert (card.id, folder) == ("house", models / "ours")
    assert load_segmenter(str(folder)).name == "house"


def test_without_a_name_a_model_is_imported_under_its_id(tmp_path):
    import_model(write_model(tmp_path / "house"), into=tmp_path / "models")
    assert (tmp_path / "models" / "house" / CARD_FILE).is_file()


@pytest.mark.parametrize("name", ["ellipsoid", "taken", "../up", "", ".hidden", "a/b", "x" * 65])
def test_an_import_under_a_name_that_is_taken_or_no_name_is_refused_and_changes_nothing(tmp_path, name):
    models = tmp_path / "models"
    (models / "taken").mkdir(parents=True)
    with pytest.raises(Refused):
        import_model(write_model(tmp_path / "house"), name, models)
    assert [p.name for p in models.iterdir()] == ["taken"]
    assert list((models / "taken").iterdir()) == []


def test_an_import_with_a_damaged_file_leaves_nothing_behind(tmp_path):
    source, models = write_model(tmp_path / "house"), tmp_path / "models"
    (source / "notes" / "readme.txt").write_text("damaged")
    with pytest.raises(Refused, match="SHA-256"):
        import_model(source, into=models)
    assert list(models.iterdir()) == []


def test_a_damaged_neighbour_does_not_hide_the_models_that_are_fine(tmp_path):
    models = tmp_path / "models"
    import_model(write_model(tmp_path / "house"), into=models)
    (models / "broken").mkdir()
    (models / "broken" / CARD_FILE).write_text("{")
    assert list(list_models(models)) == [*MODELS, "house"]
    assert list(damaged_models(models)) == ["broken"]
    with pytest.raises(Refused):
        find_model("broken", models)


def test_a_model_folder_brings_its_own_settings(tmp_path):
    ball = phantoms.in_ellipsoid(grid := phantoms.upright((30, 30, 30), 1.5, (0.0, 0.0, 0.0)), (0, 0, 0), (12.0,) * 3)
    ring = phantoms.in_ellipsoid(grid, (0, 0, 0), (7.0,) * 3)
    volume = phantoms.painted(grid, {10.0: ball, 2.0: ring}, background=4.0, modality="MR", noise=0.3)
    box = Box.from_bounds(np.full(3, -12.0), np.full(3, 12.0))
    folder = write_model(tmp_path / "house", kind="intensity", settings={"middle": 6.0, "rounds": 4})
    filled, usual = load_segmenter(str(folder)), load_segmenter("intensity")
    answers = [one.outline(one.prepare(volume), [(box,)])[0].mask.voxels for one in (filled, usual)]
    assert filled.name == "house"
    assert answers[0] > 1.15 * answers[1]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "oracle"}, "oracle"),
        ({"kind": "intensity", "settings": {"speed": 1.0}}, "speed"),
        ({"kind": "intensity", "settings": {"middle": "high"}}, "middle"),
        ({"kind": "ellipsoid", "settings": {"middle": 1.0}}, "middle"),
    ],
)
def test_a_kind_or_setting_that_nobody_knows_is_refused(tmp_path, changes, named):
    with pytest.raises(Refused) as refused:
        load_segmenter(str(write_model(tmp_path / "house", **changes)))
    assert named in refused.value.found


def test_the_models_of_a_user_are_kept_in_the_users_data_folder():
    assert models_folder().name == "models"
    assert "lesionlocator" in models_folder().parts


def test_no_model_file_says_where_it_was_made():
    files = [
        file for file in (Path(__file__).parents[1] / "src" / "lesionlocator" / "models").rglob("*") if file.is_file()
    ]
    assert files
    for file in files:
        content = file.read_bytes()
        assert b"stack_trace" not in content, file.name
        assert b".py" not in content, file.name
