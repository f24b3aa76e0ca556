"""What other programs read of our outlines: SEG, SR and contours, checked by programs that are not ours."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import highdicom
import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_allclose, assert_array_equal
from pydicom import dcmread

from dicom_visits import block, finished, noise, write_visit
from lesionlocator.case import Link
from lesionlocator.cli import run
from lesionlocator.errors import Refused
from lesionlocator.export.run import run_export
from lesionlocator.export.settings import ExportSettings
from lesionlocator.formats import (
    label_masks,
    on_one_grid,
    open_masks,
    read_geometry,
    read_label_map,
    read_prompts,
    read_rtstruct,
    read_volume,
    write_mask,
)
from lesionlocator.formats.dicom_seg import read_segmentation
from lesionlocator.volume import Mask
from strategies import rotation

SHAPE = (8, 24, 20)
DICOM = "dicom-seg,dicom-sr,rtstruct"
KNOWN_OF_PRIVATE_WORDS = "Unrecognized defined term <99LESIONLOCATOR>"


def lesions(geometry) -> dict[str, Mask | None]:
    """A lesion with a hole, one that overlaps it, and one that is gone."""
    hollow = block(geometry, (2, 5), (6, 15), (5, 12)).on(geometry)
    hollow[3, 9:11, 8:10] = False
    return {
        "2": Mask.from_array(hollow, geometry),
        "node": block(geometry, (4, 6), (12, 18), (9, 16)),
        "gone": None,
    }


@pytest.fixture(scope="module")
def visits(tmp_path_factory) -> Path:
    """Two visits; the second scan has another frame of reference, and one lesion has grown."""
    folder = tmp_path_factory.mktemp("visits")
    series = [write_visit(folder / f"visit{n}", noise(SHAPE, n), n) for n in range(2)]
    first = lesions(read_geometry(series[0]))
    second = {**lesions(read_geometry(series[1])), "2": block(read_geometry(series[1]), (1, 6), (5, 16), (4, 13))}
    links = [Link((0, i), 1, (1, i)) for i in ("2", "node")]
    finished(folder / "out", series, [first, second], links)
    return folder


@pytest.fixture(scope="module")
def exported(visits) -> Path:
    done = run_export(visits / "out", ExportSettings(to=f"{DICOM},dicom-labelmap", out=visits / "dicom"))
    assert not done.failed
    return visits / "dicom"


def tool(name: str, *arguments) -> str:
    """One of dcmqi's programs."""
    program = Path(sys.executable).with_name(name)
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def complaints(program: str, path: Path) -> list[str]:
    said = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    return [line for line in (said.stdout + said.stderr).splitlines() if line.startswith(("Error", "Warning"))]


# ------------------------------------------------------------------------------------------ checked by others


def test_a_checker_of_the_standard_has_nothing_against_our_segmentations_and_reports(debian_program, exported):
    program = debian_program("dciodvfy", "dicom3tools")
    for visit in ("visit0", "visit1"):
        assert complaints(program, exported / f"{visit}_seg.dcm") == []
        assert complaints(program, exported / f"{visit}_rtstruct.dcm") == []
        said = complaints(program, exported / f"{visit}_sr.dcm")
        assert [line for line in said if KNOWN_OF_PRIVATE_WORDS not in line] == []


def test_another_reader_gets_every_voxel_of_a_segmentation_back(visits, exported, tmp_path):
    tool("segimage2itkimage", "--inputDICOM", exported / "visit0_seg.dcm", "--outputDirectory", tmp_path, "-t", "nrrd")
    described = json.loads((tmp_path / "meta.json").read_text())["segmentAttributes"]
    geometry = read_geometry(visits / "visit0")
    for number, (name, mask) in enumerate(list(lesions(geometry).items())[:2], start=1):
        image = SimpleITK.ReadImage(str(tmp_path / f"{number}.nrrd"))
        inside = np.argwhere(SimpleITK.GetArrayFromImage(image) > 0)
        places = np.array([image.TransformIndexToPhysicalPoint([int(v) for v in index[::-1]]) for index in inside])
        index = geometry.world_to_index(places)
        assert_allclose(index, np.round(index), atol=1e-3)
        assert {tuple(at) for at in np.round(index).astype(int)} == {tuple(at) for at in np.argwhere(mask.on(geometry))}
        (segment,) = described[number - 1]
        assert segment["labelID"] == number
        assert segment["TrackingIdentifier"] == name
        assert segment["SegmentedPropertyTypeCodeSequence"]["CodeMeaning"] == "Lesion"


def test_another_reader_gets_every_number_of_a_report_back(visits, exported, tmp_path):
    tool("tid1500reader", "--inputDICOM", exported / "visit0_sr.dcm", "--outputMetadata", tmp_path / "report.json")
    groups = json.loads((tmp_path / "report.json").read_text())["Measurements"]
    rows = {row["lesion_id"]: row for row in csv_rows(visits / "out" / "lesions.csv") if row["scan"] == "visit0"}
    found = {
        group["TrackingIdentifier"]: {
            (item["quantity"]["CodeMeaning"], item.get("derivationModifier", {}).get("CodeMeaning", "")): (
                float(item["value"]),
                item["units"]["CodeValue"],
            )
            for item in group["measurementItems"]
        }
        for group in groups
    }
    assert found.pop("gone") == {("Time Point Order", ""): (1.0, "1")}
    assert set(found) == {"2", "node"}
    for name, numbers in found.items():
        row = rows[name]
        assert numbers["Volume", ""] == (pytest.approx(1000 * float(row["volume_ml"])), "mm3")
        assert numbers["Long axis", ""] == (pytest.approx(float(row["long_axis_mm"])), "mm")
        assert numbers["Short axis", ""] == (pytest.approx(float(row["short_axis_mm"])), "mm")
        for derived, column in (("Mean", "mean"), ("Minimum", "min"), ("Maximum", "max")):
            assert numbers["Attenuation Coefficient", derived] == (pytest.approx(float(row[column])), "[hnsf'U]")


# ------------------------------------------------------------------------------------------ identity over time


def test_a_lesion_has_one_identity_at_every_visit_in_every_object_and_in_later_runs(visits, exported, tmp_path):
    uids = {}
    for visit in ("visit0", "visit1"):
        for kind in ("seg", "labelmap"):
            for item in dcmread(exported / f"{visit}_{kind}.dcm").SegmentSequence:
                if item.SegmentNumber:
                    uids.setdefault(item.TrackingID, set()).add(item.TrackingUID)
        report = highdicom.sr.srread(exported / f"{visit}_sr.dcm")
        for group in report.content.get_volumetric_roi_measurement_groups():
            uids[group.tracking_identifier].add(group.tracking_uid)
    assert {name: len(found) for name, found in uids.items()} == {"2": 1, "node": 1}
    assert uids["2"] != uids["node"]
    later = finished(tmp_path / "out", [visits / "visit0"], [{"2": lesions(read_geometry(visits / "visit0"))["node"]}])
    run_export(later, ExportSettings(to="dicom-seg", out=tmp_path / "dicom"))
    (item,) = dcmread(tmp_path / "dicom" / "visit0_seg.dcm").SegmentSequence
    assert {item.TrackingUID} == uids["2"]


def test_the_same_run_gives_the_same_objects_and_other_outlines_give_others(visits, exported, tmp_path):
    run_export(visits / "out", ExportSettings(to=DICOM, out=tmp_path))
    for name in ("visit0_seg.dcm", "visit1_sr.dcm", "visit0_rtstruct.dcm"):
        assert (tmp_path / name).read_bytes() == (exported / name).read_bytes()
    uids = {dcmread(file).SOPInstanceUID for file in exported.iterdir()}
    assert len(uids) == len(list(exported.iterdir()))


def test_a_report_says_which_visit_it_is_and_which_lesions_are_gone(exported):
    report = highdicom.sr.srread(exported / "visit1_sr.dcm")
    assert report.StudyDate == "20240228"
    points = [item for item in flat(report) if item.ConceptNameCodeSequence[0].CodeMeaning == "Time Point"]
    assert {item.TextValue for item in points} == {"visit1"}
    (group,) = report.content.get_image_measurement_groups()
    assert group.tracking_identifier == "gone"
    (evaluation,) = group.get_qualitative_evaluations()
    assert evaluation.value.meaning == "Lesion no longer seen"


def flat(item):
    for inner in item.get("ContentSequence") or ():
        if "ConceptNameCodeSequence" in inner:
            yield inner
        yield from flat(inner)


# ------------------------------------------------------------------------------------------ read back


@pytest.mark.parametrize("kind", ["seg", "labelmap", "rtstruct"])
def test_outlines_come_back_as_they_were(visits, exported, kind):
    geometry = read_geometry(visits / "visit0")
    drawn = {name: mask for name, mask in lesions(geometry).items() if mask is not None}
    path = exported / f"visit0_{kind}.dcm"
    if kind == "rtstruct":
        found = {name.removeprefix("Lesion "): mask for name, mask in read_rtstruct(path, geometry).items()}
    else:
        found = label_masks(on_one_grid(read_label_map(path), geometry))
    shared = drawn["2"].on(geometry) & drawn["node"].on(geometry)
    assert shared.any()
    for name, mask in drawn.items():
        expected = mask.on(geometry) & (~shared if kind == "labelmap" else True)
        assert_array_equal(found[name].on(geometry), expected)


def test_a_segmentation_is_taken_wherever_a_label_map_is(visits, exported, tmp_path, capsys):
    seg = exported / "visit0_seg.dcm"
    geometry = read_geometry(visits / "visit0")
    drawn = lesions(geometry)
    prompts = {lesion.id: lesion.prompts[0] for lesion in read_prompts(seg, geometry, kind="mask")}
    assert_array_equal(prompts["2"].paint(geometry), drawn["2"].on(geometry))
    assert [lesion.id for lesion in read_prompts(exported / "visit0_rtstruct.dcm", geometry)] == [
        "Lesion 2",
        "Lesion node",
    ]
    measured = open_masks(visits / "visit0", [seg])
    assert {lesion.id: lesion.mask.voxels for lesion in measured.lesions} == {
        name: mask.voxels for name, mask in drawn.items() if mask is not None
    }
    assert run(["score", str(seg), str(seg), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dice"] == 1.0
    assert run(["score", str(exported / "visit0_labelmap.dcm"), str(seg), "--json"]) == 0
    scored = {row["lesion_id"]: row for row in json.loads(capsys.readouterr().out)["lesions"]}
    assert set(scored) == {"2", "node"}
    assert scored["node"]["true_ml"] == pytest.approx(drawn["node"].volume_ml)
    assert 0.5 < scored["node"]["dice"] < 1


def test_a_segmentation_of_another_frame_of_reference_is_refused(visits, exported):
    with pytest.raises(Refused, match="frame of reference"):
        read_prompts(exported / "visit1_seg.dcm", read_geometry(visits / "visit0"))
    with pytest.raises(Refused, match="frame of reference"):
        open_masks(visits / "visit0", [exported / "visit1_seg.dcm"])


def test_a_prompt_on_the_ct_of_a_visit_is_the_same_place_on_its_pet(tmp_path):
    ct = write_visit(tmp_path / "ct", noise(SHAPE))
    coarse = [(-10.3, 20.1, 98.0 + 4.5 * d) for d in range(6)]
    pet = write_visit(
        tmp_path / "pet", noise((6, 10, 10)), 0, coarse, modality="PT", Units="GML", PixelSpacing=[2.0, 2.0]
    )
    for file in pet.iterdir():
        whole = dcmread(file)
        whole.SeriesInstanceUID += ".3"
        whole.save_as(file)
    geometry = read_geometry(ct)
    drawn = block(geometry, (2, 6), (8, 20), (4, 16))
    run_export(finished(tmp_path / "out", [ct], [{"1": drawn}]), ExportSettings(to="dicom-seg", out=tmp_path / "dicom"))
    (lesion,) = read_prompts(tmp_path / "dicom" / "ct_seg.dcm", read_geometry(pet), kind="mask")
    on_pet = lesion.prompts[0].mask
    assert np.linalg.norm(on_pet.centroid_mm - drawn.centroid_mm) < 1.5
    assert on_pet.volume_ml == pytest.approx(drawn.volume_ml, rel=0.25)


# ------------------------------------------------------------------------------------------ odd geometry

ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1.0, -1.0), repeat=3)
]


def turned(number: int) -> tuple[np.ndarray, float]:
    """Directions of row, column and stack for one of the 48 ways to store a scan, then oblique and tilted ones."""
    if number < 48:
        order, signs = ORIENTATIONS[number]
        return np.eye(3)[:, list(order)] * np.array(signs), 0.0
    angles = np.array([[0.3, -0.5, 0.9], [1.2, 0.4, -2.0], [0, 0, 0], [0.2, 0.1, 0.3]][number - 48])
    return rotation(angles), [0.0, 0.0, 0.31, 0.2][number - 48]


@pytest.mark.parametrize("number", range(52))
def test_a_lesion_is_in_one_place_from_prompt_to_segmentation_to_mask(tmp_path, number):
    directions, tilt = turned(number)
    row, column, stack = directions.T
    step = stack * 3.0 + column * 3.0 * tilt
    start = np.array([12.0, -30.0, 45.0])
    voxels = noise((5, 9, 8), number)
    ct = write_visit(tmp_path / "ct", voxels, 0, [start + d * step for d in range(5)], orientation=[*row, *column])
    scan = read_volume(ct)
    place = start + 2 * step + 4 * 0.8 * column + 3 * 0.7 * row
    (d, h, w) = (int(v) for v in scan.geometry.world_to_index(place[None])[0].round())
    assert scan.array[d, h, w] == voxels[2, 4, 3]

    drawn = np.zeros(scan.array.shape, bool)
    drawn[d, h, w] = drawn[d, h, w + 1] = drawn[d, h + 1, w] = True
    mask = Mask.from_array(drawn, scan.geometry)
    # As another program stores it: the same voxels with the axes in another order.
    other = scan.geometry.affine[:, [1, 2, 0, 3]]
    elsewhere = type(scan.geometry)((scan.array.shape[1], scan.array.shape[2], scan.array.shape[0]), other)
    write_mask(tmp_path / "label.nii.gz", Mask.from_array(drawn.transpose(1, 2, 0), elsewhere), elsewhere)

    out = finished(tmp_path / "out", [ct], [{"1": mask}])
    (tmp_path / "label.nii.gz").replace(out / "ct_lesion_1.nii.gz")
    run_export(out, ExportSettings(to="dicom-seg,rtstruct", out=tmp_path / "dicom"))

    found = read_segmentation(tmp_path / "dicom" / "ct_seg.dcm").masks["1"]
    expected = sorted(map(tuple, mask.points_mm.round(2)))
    assert_allclose(sorted(map(tuple, found.points_mm.round(2))), expected, atol=0.011)
    contours = read_rtstruct(tmp_path / "dicom" / "ct_rtstruct.dcm", scan.geometry)["Lesion 1"]
    assert_array_equal(contours.on(scan.geometry), drawn)


# ------------------------------------------------------------------------------------------ sources, refusals


def test_scans_that_were_converted_find_their_series_among_all_that_the_patient_has(tmp_path):
    export = tmp_path / "export"
    series = [
        write_visit(export / name, noise(SHAPE, n), n, [(-10, 20, z + 3 * d) for d in range(8)])
        for n, (name, z) in enumerate((("a", 100), ("b", 140)))
    ]
    drawn = [block(read_geometry(path), (2, 5), (6, 15), (5, 12)) for path in series]
    out = finished(tmp_path / "out", series, [{"1": mask} for mask in drawn])
    record = json.loads((out / "run.json").read_text())
    for entry in record["inputs"]:
        entry["path"] = "scan.nii.gz"
    (out / "run.json").write_text(json.dumps(record))
    with pytest.raises(Refused, match="no DICOM series"):
        run_export(out, ExportSettings(to="dicom-seg", out=tmp_path / "none"))
    done = run_export(out, ExportSettings(to="dicom-seg", out=tmp_path / "dicom", source=(export,)))
    assert not done.failed
    for name, number in (("a", 0), ("b", 1)):
        written = dcmread(tmp_path / "dicom" / f"{name}_seg.dcm")
        assert written.StudyInstanceUID.endswith(f".{number}")


def test_a_visit_that_cannot_be_exported_is_told_and_the_others_are_written(visits, tmp_path, capsys):
    arguments = ["export", str(visits / "out"), "--to", "dicom-seg", "--out", str(tmp_path)]
    assert run([*arguments, "--source", str(visits / "visit0"), "--json"]) == 3
    captured = capsys.readouterr()
    made = json.loads(captured.out)["made"]
    assert [bool(one["path"]) for one in made] == [True, False]
    assert "visit1" in captured.err


@pytest.mark.parametrize(
    ("to", "word"), [("dicom-rt", "the target 'dicom-rt'"), ("", "no target"), ("seg", "the target 'seg'")]
)
def test_an_unknown_target_is_refused(visits, tmp_path, to, word):
    with pytest.raises(Refused, match=word):
        run_export(visits / "out", ExportSettings(to=to, out=tmp_path))


def test_a_folder_that_no_run_finished_is_refused(visits, tmp_path):
    for content in (None, "{", "[]", '{"version": 2}', '{"version": 1, "scans": []}'):
        if content is not None:
            (tmp_path / "run.json").write_text(content)
            (tmp_path / "lesions.csv").write_text("scan,lesion_id,status\n")
            (tmp_path / "links.csv").write_text("lesion_id\n")
        with pytest.raises(Refused, match="segment"):
            run_export(tmp_path, ExportSettings(to="nrrd", out=tmp_path / "x"))


def test_a_name_in_a_record_never_leads_out_of_the_folder(visits, tmp_path):
    out = finished(tmp_path / "out", [visits / "visit0"], [{"1": lesions(read_geometry(visits / "visit0"))["node"]}])
    for name in ("lesions.csv", "run.json"):
        text = (out / name).read_text()
        (out / name).write_text(text.replace("visit0", "../../escaped"))
    with pytest.raises(Refused, match="names the scan"):
        run_export(out, ExportSettings(to="nrrd", out=tmp_path / "x" / "y"))
    assert not list(tmp_path.glob("**/escaped*"))


def csv_rows(path: Path) -> list[dict[str, str]]:
    import csv

    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))
