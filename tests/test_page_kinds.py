"""CT, MR and PET at the reading room's page: windows, PET as SUV over CT, uploads, DICOM objects from one button."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from pydicom import dcmread

from files import LEFT, save_scan

pytest.importorskip("fastapi", reason="needs the extra `server`")
pytest.importorskip("highdicom", reason="needs the extra `dicom`")

from dicom_page import BODY_SUV, BRIGHT, DIM, HOT, HOT_SUV, SCRIPT, write_ct, write_mr, write_pet, zipped  # noqa: E402
from page_work import Reader, Server  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory, built_page):
    folder = tmp_path_factory.mktemp("kinds") / "cases"
    write_ct(folder / "pet_ct" / "1_ct")
    write_pet(folder / "pet_ct" / "2_pet")
    write_mr(folder / "mr" / "brain")
    with Server(folder) as started:
        yield started


def grey(reader, side: int, x: float, y: float) -> float:
    """Mean brightness of a small square, from 0 to 255; it has to be grey."""
    pixels = np.array(reader.patch(side, x, y, 3))
    assert np.ptp(pixels, axis=1).max() <= 1
    return float(pixels.mean())


def window(reader, side: int, name: str) -> None:
    reader.page.locator(f'[data-side="{side}"] [data-key="window"]').select_option(label=name)
    reader.rest()


def windows(reader, side: int) -> list[str]:
    return reader.page.locator(f'[data-side="{side}"] [data-key="window"] option').all_inner_texts()


def foot(reader, side: int) -> str:
    return reader.page.inner_text(f'[data-side="{side}"] .side-foot')


def test_ct_has_its_windows_and_pet_its_suv(server, context):
    reader = Reader(context, server)
    reader.open("pet_ct")
    assert windows(reader, 0) == ["Soft tissue", "Lung", "Bone", "Liver", "Brain", "Automatic"]
    # Fat of -90 HU, away from lesion and cursor: its share of each window.
    for name, low, high in (("Soft tissue", -160, 240), ("Lung", -1350, 150), ("Bone", -450, 1050)):
        window(reader, 0, name)
        assert grey(reader, 0, 30, -20) == pytest.approx(255 * (-90 - low) / (high - low), abs=4)
    assert windows(reader, 1) == ["Automatic", "SUV 0 to 5", "SUV 0 to 10"]
    for name, most in (("SUV 0 to 5", 5), ("SUV 0 to 10", 10)):
        window(reader, 1, name)
        assert grey(reader, 1, 30, -20) == pytest.approx(255 * BODY_SUV / most, abs=2)
        assert grey(reader, 1, HOT.x, HOT.y - 4) == pytest.approx(255 * min(HOT_SUV / most, 1), abs=2)
    assert reader.errors == []


def test_pet_lies_over_ct_in_colour_and_says_its_suv(server, context):
    reader = Reader(context, server)
    reader.open("pet_ct")
    assert reader.colours(0, HOT.x, HOT.y, 6) == 0
    reader.page.locator('[data-side="0"] [data-key="overlay"]').select_option(label="with 2_pet over it")
    reader.rest()
    reader.click(0, HOT.x, HOT.y)
    reader.rest()
    assert reader.colours(0, HOT.x, HOT.y, 6) > 300
    # SUV 1 is a faint red over fat, and air outside the body has none.
    assert reader.colours(0, 30, -20, 4) == 0
    red, green, blue = np.mean(reader.patch(0, 30, -20, 3), axis=0)
    assert red > green + 5
    assert green == pytest.approx(blue, abs=1)
    assert np.max(reader.patch(0, -66, -66, 3)) == 0
    assert f"SUV {HOT_SUV:.2f}" in foot(reader, 0)
    assert " HU " in foot(reader, 0)
    assert foot(reader, 1).startswith(f"SUV {HOT_SUV:.2f}")


def test_mr_opens_in_a_window_of_its_own_and_the_right_button_changes_it(server, context):
    reader = Reader(context, server)
    reader.open("mr")
    assert windows(reader, 0) == ["Automatic"]
    # From nothing to the bright half: the dim one is half as bright.
    assert grey(reader, 0, 30, -20) == 255
    assert grey(reader, 0, -30, -20) == pytest.approx(255 * DIM / BRIGHT, abs=3)
    reader.pull(0, (20, 30), (20, 5), button="right")
    reader.rest()
    assert windows(reader, 0) == ["Automatic", "Own"]
    assert grey(reader, 0, -30, -20) > 255 * DIM / BRIGHT + 15
    window(reader, 0, "Automatic")
    assert grey(reader, 0, -30, -20) == pytest.approx(255 * DIM / BRIGHT, abs=3)


def test_uploaded_scans_become_a_case_and_what_is_none_is_refused_in_words(server, context, tmp_path):
    reader = Reader(context, server)
    page = reader.page
    wrong = {"name": "letter.pdf.nii.gz", "mimeType": "application/gzip", "buffer": b"%PDF-1.7 not a scan"}
    page.set_input_files("#files", [wrong])
    page.wait_for_selector(".home .status.bad")
    assert "letter.pdf" in page.inner_text(".home .status")
    first, later = (save_scan(tmp_path / f"doe_{name}.nii.gz", [LEFT], 1) for name in ("1_may", "2_june"))
    page.set_input_files("#files", [first, later])
    reader.rest()
    assert page.inner_text("h1").startswith("doe_1_may-")
    assert page.locator('[data-side="0"] [data-key="scan"] option').count() == 2
    page.click("text=‹ Cases")
    page.locator(".case", has_text="doe_1_may").wait_for()
    assert page.locator(".case", has_text="letter").count() == 0


def outlined_upload(reader, tmp_path) -> None:
    """Two visits as zip files of DICOM, the lesion outlined in the first and followed to the second."""
    page = reader.page
    series = [write_ct(tmp_path / f"visit_{number}", number) for number in (0, 1)]
    page.set_input_files(
        "#files",
        [{"name": f"{one.name}.zip", "mimeType": "application/zip", "buffer": zipped(one)} for one in series],
    )
    reader.rest()
    reader.go_to_slice(HOT.z)
    page.keyboard.press("b")
    with reader.step_made():
        reader.drag(0, HOT, 2)
    with reader.step_made():
        page.keyboard.press("f")


def test_dicom_objects_and_the_report_come_from_one_button(server, context, tmp_path):
    reader = Reader(context, server)
    outlined_upload(reader, tmp_path)
    volume_ml = float(reader.cells("1")[0])
    archive, report = reader.export("dicom-seg", "dicom-sr", "rtstruct", "nrrd", "sdtm")
    names = archive.namelist()
    objects = [dcmread(io.BytesIO(archive.read(name))) for name in names if name.endswith(".dcm")]
    kinds = sorted(one.Modality for one in objects)
    assert kinds == ["RTSTRUCT", "RTSTRUCT", "SEG", "SEG", "SR", "SR"]
    assert {str(one.PatientName) for one in objects} == {SCRIPT}
    first = min((one for one in objects if one.Modality == "SEG"), key=lambda one: one.StudyInstanceUID)
    voxels = first.pixel_array.sum()
    assert voxels * 1.5 * 1.5 * 2.5 / 1000 == pytest.approx(volume_ml, rel=0.03)
    rows = list(csv.DictReader(io.StringIO(archive.read("result/lesions.csv").decode())))
    assert [row["status"] for row in rows] == ["outlined", "outlined"]
    assert any(name.endswith(".seg.nrrd") for name in names)
    record = json.loads(archive.read("result/run.json"))
    assert record["arguments"]["scans"]
    assert report.locator("table").count() > 0
    assert "stolen" not in (reader.page.title(), report.title())
    assert reader.errors == []
