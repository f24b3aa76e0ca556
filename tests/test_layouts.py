"""Layouts in which collections lie on disk, each made up here as its publisher describes it, with a few scans."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from files import save_nifti
from lesionlocator.dataset.layouts import LAYOUTS, Reading, find_sources
from lesionlocator.dataset.listed import additions, collections
from lesionlocator.dataset.source import SourceScan, open_source, safe_name, source_checksums
from lesionlocator.errors import Refused
from phantoms import upright

GRID = upright((6, 8, 10), 2.0, (0.0, 0.0, 0.0))


def save(path: Path, labels: dict[int, tuple[int, int, int]] | None = None) -> Path:
    """A scan of noise; or, with labels, a label map that has each label in one voxel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(1).normal(0, 10, GRID.shape).astype(np.int16)
    if labels is not None:
        array = np.zeros(GRID.shape, np.uint8)
        for label, at in labels.items():
            array[at] = label
    return save_nifti(path, array, GRID)


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def ids(scan: SourceScan) -> list[str]:
    return list(open_source(scan).lesions)


@pytest.fixture
def plain(tmp_path):
    save(tmp_path / "images" / "first scan.nii.gz")
    save(tmp_path / "images" / "second.nii.gz")
    save(tmp_path / "labels" / "second.nii.gz", {2: (1, 1, 1), 5: (4, 4, 4)})
    return tmp_path


def test_a_scan_without_labels_in_a_plain_folder_is_a_background(plain):
    background, labelled = find_sources(plain)
    assert (background.id, labelled.id) == ("first_scan", "second")
    assert ids(background) == []
    assert ids(labelled) == ["2", "5"]


def test_every_layout_has_a_name_of_its_own_and_says_whether_it_was_ever_tried():
    assert list(LAYOUTS) == ["plain", "listed", "lesionlocator", "autopet-iv", "nnunet", "decathlon"]
    assert [name for name, layout in LAYOUTS.items() if layout.seen] == ["plain", "listed"]


@pytest.fixture
def nnunet(tmp_path):
    for case in ("anna_1", "anna_2", "bert_1"):
        save(tmp_path / "imagesTr" / f"{case}_0000.nii.gz")
        save(tmp_path / "labelsTr" / f"{case}.nii.gz", {1: (1, 1, 1), 2: (4, 4, 4)})
    labels = {"background": 0, "liver": 1, "liver tumour": 2}
    write(tmp_path / "dataset.json", {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"})
    write(tmp_path / "patientsTr.json", {"anna": ["anna_1", "anna_2"], "bert": ["bert_1"]})
    return tmp_path


def test_nnunet_cases_belong_to_the_patients_of_longiseg_in_order_of_time(nnunet):
    assert [(scan.id, scan.patient, scan.visit, scan.modality) for scan in find_sources(nnunet)] == [
        ("anna_1", "anna", 0, "CT"),
        ("anna_2", "anna", 1, "CT"),
        ("bert_1", "bert", 0, "CT"),
    ]


def test_nnunet_labels_named_like_lesions_are_lesions_and_the_others_organs(nnunet):
    opened = open_source(find_sources(nnunet)[0])
    assert {name: mask.voxels for name, mask in opened.lesions.items()} == {"1": 1}
    assert opened.lesions["1"].on(opened.volume.geometry)[4, 4, 4]
    assert list(opened.organs) == ["liver"]


def test_without_a_list_of_patients_every_nnunet_case_is_one(nnunet):
    (nnunet / "patientsTr.json").unlink()
    assert [scan.patient for scan in find_sources(nnunet)] == ["anna_1", "anna_2", "bert_1"]


def test_labels_of_a_tracking_data_set_are_the_ids_of_lesions(nnunet):
    write(nnunet / "trackingTr.json", {})
    assert ids(find_sources(nnunet)[0]) == ["1", "2"]


def test_the_old_way_round_of_labels_is_read_too(nnunet):
    write(
        nnunet / "dataset.json", {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": "cancer"}}
    )
    assert ids(find_sources(nnunet)[0]) == ["1"]


def test_every_channel_of_an_nnunet_case_is_a_scan(nnunet):
    save(nnunet / "imagesTr" / "bert_1_0001.nii.gz")
    write(nnunet / "dataset.json", {"channel_names": {"0": "CT", "1": "PET SUV"}, "labels": {"lesion": 1, "other": 2}})
    found = [(scan.id, scan.modality) for scan in find_sources(nnunet) if scan.patient == "bert"]
    assert found == [("bert_1_0000", "CT"), ("bert_1_0001", "PT")]


def test_parts_of_one_tumour_with_labels_of_their_own_are_one_lesion(tmp_path):
    save(tmp_path / "imagesTr" / "a_0000.nii.gz")
    save(tmp_path / "labelsTr" / "a.nii.gz", {1: (1, 1, 1), 2: (1, 1, 2), 3: (4, 4, 4)})
    labels = {"background": 0, "oedema": 1, "enhancing tumour": 2, "ventricle": 3}
    write(tmp_path / "dataset.json", {"channel_names": {"0": "T1"}, "labels": labels})
    (scan,) = find_sources(tmp_path)
    assert scan.modality == "MR"
    assert [mask.voxels for mask in open_source(scan).lesions.values()] == [2]


def test_labels_none_of_which_is_named_like_a_lesion_are_refused_until_one_is_named(nnunet):
    write(nnunet / "dataset.json", {"channel_names": {"0": "CT"}, "labels": {"liver": 1, "spleen": 2}})
    with pytest.raises(Refused, match="none of them named like a lesion"):
        find_sources(nnunet)
    assert ids(find_sources(nnunet, Reading(lesion_labels=(1, 2)))[0]) == ["1", "2"]


def test_patients_of_another_shape_are_refused(nnunet):
    write(nnunet / "patientsTr.json", {"anna": "anna_1"})
    with pytest.raises(Refused, match="does not list the scans"):
        find_sources(nnunet)


@pytest.fixture
def decathlon(tmp_path):
    for case in ("lung_001", "lung_003"):
        save(tmp_path / "imagesTr" / f"{case}.nii.gz")
        save(tmp_path / "labelsTr" / f"{case}.nii.gz", {1: (1, 1, 1)})
    save(tmp_path / "imagesTs" / "lung_002.nii.gz")
    (tmp_path / "imagesTr" / "._lung_001.nii.gz").write_bytes(b"left by another system")
    training = [
        {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"}
        for case in ("lung_001", "lung_003")
    ]
    labels = {"0": "background", "1": "cancer"}
    write(tmp_path / "dataset.json", {"modality": {"0": "CT"}, "labels": labels, "training": training})
    return tmp_path


def test_test_scans_of_the_decathlon_are_backgrounds_that_may_hold_lesions(decathlon):
    found = [(scan.id, scan.modality, ids(scan), scan.complete) for scan in find_sources(decathlon)]
    assert found == [
        ("lung_001", "CT", ["1"], True),
        ("lung_002", "CT", [], False),
        ("lung_003", "CT", ["1"], True),
    ]


def test_a_decathlon_task_with_several_images_in_a_file_is_refused(decathlon):
    about = json.loads((decathlon / "dataset.json").read_text())
    write(decathlon / "dataset.json", {**about, "modality": {"0": "T2", "1": "ADC"}})
    with pytest.raises(Refused, match="2 kinds of image each"):
        find_sources(decathlon)


def test_the_first_version_of_longitudinal_ct_names_visit_and_part_in_the_file(tmp_path):
    for time in ("BL", "FU"):
        save(tmp_path / "inputsTr" / f"0a1b_{time}_img_{time}_img_00.nii.gz")
    save(tmp_path / "inputsTr" / "0a1b_BL_mask_BL_img_00.nii.gz", {3: (1, 1, 1), 7: (4, 4, 4)})
    save(tmp_path / "targetsTr" / "0a1b_FU_mask_FU_img_00.nii.gz", {3: (1, 1, 1)})
    found = [(scan.id, scan.patient, scan.visit, ids(scan)) for scan in find_sources(tmp_path)]
    assert found == [("0a1b_BL_00", "0a1b", 0, ["3", "7"]), ("0a1b_FU_00", "0a1b", 1, ["3"])]


def test_the_second_version_of_longitudinal_ct_has_a_folder_for_each_visit(tmp_path):
    for time, labels in (("BL", {3: (1, 1, 1)}), ("FU", {})):
        save(tmp_path / f"inputsTr{time}" / "0a1b_01.nii.gz")
        save(tmp_path / f"targetsTr{time}" / "0a1b_01.nii.gz", labels)
    found = [(scan.id, scan.visit, scan.modality, ids(scan)) for scan in find_sources(tmp_path)]
    assert found == [("0a1b_BL_01", 0, "CT", ["3"]), ("0a1b_FU_01", 1, "CT", [])]


def test_the_published_set_keeps_a_lesion_under_one_id_at_every_visit(tmp_path):
    for visit in ("Baseline", "Synthetic_Follow_Up", "Synthetic_Follow_Up_2"):
        save(tmp_path / visit / "images" / "case_7_0000.nii.gz")
        save(tmp_path / visit / "labels" / "case_7.nii.gz", {1: (1, 1, 1), 4: (4, 4, 4)})
    found = [(scan.id, scan.patient, scan.visit, ids(scan)) for scan in find_sources(tmp_path)]
    assert found == [(f"case_7_visit{n}", "case_7", n, ["1", "4"]) for n in range(3)]


def test_a_layout_can_be_named_and_one_that_is_not_known_is_refused(plain):
    assert len(find_sources(plain, layout="plain")) == 2
    with pytest.raises(Refused, match="layout 'dicom'"):
        find_sources(plain, layout="dicom")


def test_a_folder_that_looks_like_nothing_is_refused_with_the_layouts_that_are_known(tmp_path):
    with pytest.raises(Refused, match="looks like no layout") as refused:
        find_sources(tmp_path)
    assert all(name in refused.value.needed for name in LAYOUTS)


def test_an_empty_folder_of_images_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(Refused, match="no scan in"):
        find_sources(tmp_path)


def test_two_scans_of_one_name_are_refused(tmp_path):
    save(tmp_path / "images" / "a b.nii.gz")
    save(tmp_path / "images" / "a_b.nii.gz")
    with pytest.raises(Refused, match="scans of one name"):
        find_sources(tmp_path)


def test_labels_on_another_grid_than_their_scan_are_refused(plain):
    other = upright((6, 8, 10), 2.0, (5.0, 0.0, 0.0))
    save_nifti(plain / "labels" / "second.nii.gz", np.ones(other.shape, np.uint8), other)
    with pytest.raises(Refused, match="grid is not that of"):
        open_source(find_sources(plain)[1])


def test_parts_become_lesions_of_their_own_when_asked(plain):
    array = np.zeros(GRID.shape, np.uint8)
    array[1, 1, 1] = array[4, 4, 4] = 1
    save_nifti(plain / "labels" / "second.nii.gz", array, GRID)
    assert ids(find_sources(plain)[1]) == ["1"]
    assert ids(find_sources(plain, Reading(split=True))[1]) == ["1", "2"]


def test_lesions_of_several_label_maps_never_share_an_id(plain):
    scan = find_sources(plain)[1]
    twice = SourceScan(scan.id, scan.image, scan.patient, labels=(*scan.labels, *scan.labels))
    assert ids(twice) == ["2", "5", "3", "4"]


def test_names_are_fit_for_files():
    assert safe_name("STS 002", "", "CT/1") == "STS_002_CT_1"
    assert safe_name("..") == "scan"


def test_a_source_has_a_checksum_for_every_file(plain):
    scan = find_sources(plain)[1]
    assert len(source_checksums(scan)) == 2


def test_the_list_of_sources_says_where_everything_comes_from_and_under_which_licence():
    open_licences = {"BSD-3-Clause", "MIT", "Apache-2.0", "CC-BY-3.0", "CC-BY-4.0"}
    for collection in collections().values():
        assert collection.licence in open_licences
        assert collection.doi.startswith("10.")
        assert collection.where
        assert collection.citation
        assert collection.files == "as-published" or collection.prepared
    assert {addition.reader for addition in additions()} <= set(LAYOUTS)
    assert all(addition.registration and addition.licence for addition in additions())


def test_the_shared_scans_are_found_as_the_list_names_them(shared_data):
    scans = find_sources(shared_data)
    assert {scan.collection for scan in scans} == set(collections()) - {"pyradiomics"}
    assert len(scans) == 144
    lung = next(scan for scan in scans if scan.collection == "lung")
    assert [round(mask.volume_ml) for mask in open_source(lung).lesions.values()] == [72, 3, 3, 2]
