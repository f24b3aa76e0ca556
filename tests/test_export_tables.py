"""Label maps for viewers and rows for trials: what was outlined and measured, in their words."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_allclose, assert_array_equal

from dicom_visits import block, finished, noise, write_visit
from lesionlocator.case import Ending, Link
from lesionlocator.cli import run
from lesionlocator.export.run import run_export
from lesionlocator.export.settings import ExportSettings
from lesionlocator.formats import read_geometry, read_volume
from lesionlocator.volume import Mask

SHAPE = (10, 40, 40)


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """A large lesion that shrinks to under 70 %, one that vanishes, a new one at the second visit; two overlap."""
    folder = tmp_path_factory.mktemp("course")
    series = [write_visit(folder / f"visit{n}", noise(SHAPE, n), n) for n in range(2)]
    first, second = (read_geometry(path) for path in series)
    before = {
        "a": block(first, (2, 6), (2, 32), (2, 34)),
        "b": block(first, (5, 9), (30, 38), (20, 30)),
        "c": block(first, (0, 2), (2, 18), (2, 20)),
    }
    after = {
        "a": block(second, (2, 6), (2, 17), (2, 18)),
        "b": block(second, (5, 9), (30, 38), (20, 30)),
        "c": None,
        "d": block(second, (6, 9), (4, 18), (20, 36)),
    }
    links = [Link((0, "a"), 1, (1, "a")), Link((0, "b"), 1, (1, "b")), Link((0, "c"), 1, Ending.VANISHED)]
    finished(folder / "out", series, [before, after], links)
    run_export(folder / "out", ExportSettings(to="nrrd,sdtm", out=folder / "x", study="TRIAL-1"))
    return folder


def rows(course: Path, domain: str) -> list[dict[str, str]]:
    with (course / "x" / f"{domain}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


# ------------------------------------------------------------------------------------------ NRRD


def test_a_plain_map_numbers_lesions_alike_at_every_visit(course):
    numbers = json.loads((course / "out" / "run.json").read_text())["labels"]
    maps = [read_volume(course / "x" / f"visit{n}_lesions.nrrd", "MR").array for n in range(2)]
    assert set(np.unique(maps[0])) == {0, numbers["a"], numbers["b"], numbers["c"]}
    assert set(np.unique(maps[1])) == {0, numbers["a"], numbers["b"], numbers["d"]}


def header_of(path: Path) -> dict[str, str]:
    text = path.read_bytes().split(b"\n\n", 1)[0].decode()
    pairs = (line.split(":=" if ":=" in line else ": ", 1) for line in text.splitlines()[1:])
    return {key: value for key, value in pairs}


def test_a_slicer_segmentation_names_colours_and_places_every_lesion(course):
    path = course / "x" / "visit0.seg.nrrd"
    said = header_of(path)
    assert [said[f"Segment{n}_Name"] for n in range(3)] == ["Lesion a", "Lesion b", "Lesion c"]
    assert len({said[f"Segment{n}_Color"] for n in range(3)}) == 3
    assert said["Segment1_Extent"] == "20 29 30 37 5 8"
    assert said["space"] == "left-posterior-superior"
    later = header_of(course / "x" / "visit1.seg.nrrd")
    assert later["Segment0_Color"] == said["Segment0_Color"]


def test_overlapping_lesions_keep_every_voxel_in_layers_of_their_own(course):
    # Lesions a and b share voxels at the first visit only.
    geometry = read_geometry(course / "visit0")
    image = SimpleITK.ReadImage(str(course / "x" / "visit0.seg.nrrd"))
    said = header_of(course / "x" / "visit0.seg.nrrd")
    layers = SimpleITK.GetArrayFromImage(image)
    assert layers.shape == (*SHAPE, 2)
    drawn = {"a": ((2, 6), (2, 32), (2, 34)), "b": ((5, 9), (30, 38), (20, 30))}
    for number, ranges in enumerate(drawn.values()):
        layer, value = int(said[f"Segment{number}_Layer"]), int(said[f"Segment{number}_LabelValue"])
        assert_array_equal(layers[..., layer] == value, block(geometry, *ranges).on(geometry))
    for index in ([0, 0, 0], [3, 4, 5]):
        at = image.TransformIndexToPhysicalPoint(index)
        assert_allclose(at, geometry.index_to_world(np.array([index[::-1]], float))[0], atol=1e-4)
    single = SimpleITK.ReadImage(str(course / "x" / "visit1.seg.nrrd"))
    assert single.GetNumberOfComponentsPerPixel() == 1


# ------------------------------------------------------------------------------------------ SDTM


def test_tumours_are_identified_where_they_were_first_seen(course):
    found = [
        (row["TULNKID"], row["TUTESTCD"], row["TUORRES"], row["VISIT"], row["TUDTC"]) for row in rows(course, "tu")
    ]
    assert [line[2:] for line in found if line[1] == "TUMIDENT"] == [
        ("TARGET", "visit0", "2024-01-31"),
        ("NON-TARGET", "visit0", "2024-01-31"),  # Lesion b: 10.4 mm long in the voxels' corners, below 10 mm across.
        ("TARGET", "visit0", "2024-01-31"),
        ("NEW", "visit1", "2024-02-28"),
    ]
    assert len({line[0] for line in found}) == 4
    every = rows(course, "tu")
    assert {row["STUDYID"] for row in every} == {"TRIAL-1"}
    assert {row["USUBJID"] for row in every} == {"p-1"}
    assert [row["TUSEQ"] for row in every] == ["1", "2", "3", "4"]


def test_sizes_are_those_of_the_table_with_their_units(course):
    with (course / "out" / "lesions.csv").open(newline="") as stream:
        measured = {(row["scan"], row["lesion_id"]): row for row in csv.DictReader(stream)}
    links = {row["TULNKID"]: name for row, name in zip(rows(course, "tu"), ["a", "b", "c", "d"], strict=True)}
    codes = {"LDIAM": ("long_axis_mm", "mm"), "LPERP": ("short_axis_mm", "mm"), "VOLUME": ("volume_ml", "mL")}
    checked = 0
    for row in rows(course, "tr"):
        if row["TRTESTCD"] in codes and row["TRSTRESN"] != "0":
            column, unit = codes[row["TRTESTCD"]]
            assert (row["TRORRES"], row["TRORRESU"]) == (measured[row["VISIT"], links[row["TRLNKID"]]][column], unit)
            checked += 1
    assert checked == 18
    states = {
        (row["VISIT"], links[row["TRLNKID"]]): row["TRORRES"]
        for row in rows(course, "tr")
        if row["TRTESTCD"] == "TUMSTATE"
    }
    assert states["visit1", "c"] == "ABSENT"
    assert states["visit1", "a"] == "PRESENT"


def test_the_sum_and_the_responses_are_those_of_the_criteria(course):
    sums = {row["VISIT"]: float(row["TRSTRESN"]) for row in rows(course, "tr") if row["TRTESTCD"] == "SUMDIAM"}
    with (course / "out" / "lesions.csv").open(newline="") as stream:
        long_mm = {(row["scan"], row["lesion_id"]): row["long_axis_mm"] for row in csv.DictReader(stream)}
    assert sums["visit0"] == pytest.approx(float(long_mm["visit0", "a"]) + float(long_mm["visit0", "c"]))
    assert sums["visit1"] == pytest.approx(float(long_mm["visit1", "a"]))  # Lesion c is gone.
    responses = {row["RSTESTCD"]: row["RSORRES"] for row in rows(course, "rs")}
    # A new lesion is progression, whatever the targets did.
    assert responses["OVRLRESP"] == "PD"
    assert {row["VISIT"] for row in rows(course, "rs")} == {"visit1"}
    assert {row["RSCAT"] for row in rows(course, "rs")} == {"RECIST 1.1"}


def test_trial_rows_need_no_dicom(course, tmp_path):
    out = finished(
        tmp_path / "p7", [course / "visit0"], [{"1": block(read_geometry(course / "visit0"), (2, 6), (2, 20), (2, 20))}]
    )
    text = (out / "run.json").read_text()
    (out / "run.json").write_text(text.replace(str(course / "visit0"), "scan.nii.gz"))
    assert run(["export", str(out), "--to", "nrrd,sdtm", "--out", str(tmp_path / "x")]) == 0
    with (tmp_path / "x" / "tu.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["USUBJID"], row["TUDTC"], row["VISITNUM"]) == ("p7", "", "1")


def test_a_lesion_that_was_not_evaluated_says_so(tmp_path):
    from lesionlocator.case import Case, Lesion, Status
    from lesionlocator.formats import open_timepoint
    from lesionlocator.measure import measure_case
    from lesionlocator.report import Record, write_report

    ct = write_visit(tmp_path / "ct", noise((4, 9, 8)))
    visit = open_timepoint(ct)
    found = Lesion("1", (), Mask.from_array(np.ones(visit.geometry.shape, bool), visit.geometry), Status.OUTLINED)
    lost = Lesion("2", (), None, Status.OUTSIDE, "above the first slice")
    case = Case((visit.with_lesions((found, lost)),))
    record = Record("segment", {}, {"id": "m"})
    record.inputs.append({"scan": "ct", "path": str(ct), "sha256": "0", "modality": "CT"})
    write_report(case, measure_case(case), tmp_path / "out", record)
    run_export(tmp_path / "out", ExportSettings(to="sdtm", out=tmp_path / "x"))
    with (tmp_path / "x" / "tr.csv").open(newline="") as stream:
        (row,) = [row for row in csv.DictReader(stream) if row["TRSTAT"]]
    assert (row["TRSTAT"], row["TRREASND"], row["TRTESTCD"]) == ("NOT DONE", "above the first slice", "TUMSTATE")
