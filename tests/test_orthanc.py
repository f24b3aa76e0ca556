"""A real archive: scans stored, found, fetched and outlined, the outlines and the report stored back and read again."""

from __future__ import annotations

import json
from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pydicom import dcmread

from conftest import SHARED
from dicom_visits import noise, write_visit
from files import box_of, save_prompts
from lesionlocator.cli import run
from lesionlocator.errors import Refused
from lesionlocator.formats import label_masks, on_one_grid, read_label_map, read_volume
from lesionlocator.formats.dicom_web import fetch, find_web_series, parse_address, store_files
from lesionlocator.prompt import Box
from orthanc_server import orthanc
from visits import Ball

LESION = Ball(8.0, 20.0, 118.0, 7.0)


@pytest.fixture(scope="module")
def service(debian_program, tmp_path_factory):
    with orthanc(debian_program("Orthanc", "orthanc orthanc-dicomweb"), tmp_path_factory.mktemp("orthanc")) as address:
        yield address


@pytest.fixture(scope="module")
def patient(tmp_path_factory) -> tuple[dict[str, Path], Box]:
    """Series by name, and a box around a tumour of the CT: a sarcoma where the shared scans are, else a ball."""
    real = SHARED / "sarcoma_dicom" / "STS_042"
    if real.is_dir():
        mask = label_masks(read_label_map(SHARED / "sarcoma" / "STS_042" / "CT_mask.nii.gz"))["1"]
        return {name: real / name / "image" for name in ("CT", "PET", "MR_T1")}, Box.around(mask)
    folder = tmp_path_factory.mktemp("patient")
    voxels = noise((14, 60, 64)) // 10
    at = np.indices(voxels.shape)
    z, y, x = 100 + 3 * at[0], -10 + 0.8 * at[1], -15 + 0.7 * at[2]
    voxels[(x - LESION.x) ** 2 + (y - LESION.y) ** 2 + (z - LESION.z) ** 2 <= LESION.radius**2] += 150
    places = [(-15.0, -10.0, 100.0 + 3 * d) for d in range(14)]
    made = {"CT": ("CT", 1, {}), "MR": ("MR", 2, {}), "PET": ("PT", 3, {"Units": "GML"})}
    series = {
        name: write_visit(
            folder / name, voxels, 0, places, modality=modality, SeriesInstanceUID=f"1.2.3.{number}", **more
        )
        for name, (modality, number, more) in made.items()
    }
    low, high = (np.array(box_of(LESION)[end]) for end in ("min", "max"))
    return series, Box.from_bounds(low, high)


@pytest.fixture(scope="module")
def stored(service, patient) -> list:
    """Everything of the patient on the server, as the server tells of it."""
    series, _ = patient
    for folder in series.values():
        store_files(service, sorted(folder.iterdir()))
    identity = dcmread(next(next(iter(series.values())).iterdir())).PatientID
    return find_web_series(parse_address(f"{service}?PatientID={identity}"))


def test_series_that_were_stored_are_found_with_what_they_are(stored, patient):
    series, _ = patient
    assert sorted(one.modality for one in stored) == ["CT", "MR", "PT"]
    assert sorted(one.images for one in stored) == sorted(len(list(folder.iterdir())) for folder in series.values())


def test_a_scan_from_the_server_is_the_scan_that_was_stored(stored, patient):
    series, _ = patient
    for folder in series.values():
        kept = read_volume(folder)
        (address,) = [one.address for one in stored if one.modality == kept.modality]
        fetched = read_volume(Path(str(address)))
        assert_array_equal(fetched.array, kept.array)
        assert fetched.geometry.same_as(kept.geometry, 1e-6)
        assert (fetched.modality, fetched.name) == (kept.modality, address.series)


def test_a_lesion_goes_from_a_box_to_the_archive_and_back(stored, patient, service, tmp_path, capsys):
    _, box = patient
    (ct,) = [one.address for one in stored if one.modality == "CT"]
    prompts = save_prompts(tmp_path / "prompts.json", [{"id": "7", "box": box.to_json()}])
    out = tmp_path / "out"
    assert run(["segment", str(ct), "--prompts", str(prompts), "--out", str(out)]) == 0
    to = ["--to", "dicom-seg,dicom-sr", "--out", str(tmp_path / "dicom"), "--store", service]
    assert run(["export", str(out), *to, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))["stored"] == 2

    there = find_web_series(parse_address(f"{service}/studies/{ct.study}"))
    found = {one.modality: next(iter(fetch(Path(str(one.address))).iterdir())) for one in there}
    scan = read_volume(Path(str(ct)))
    written = label_masks(read_label_map(out / f"{ct.series}_lesion_7.nii.gz"))["1"]
    back = label_masks(on_one_grid(read_label_map(found["SEG"]), scan.geometry))
    assert list(back) == ["7"]
    assert_array_equal(back["7"].on(scan.geometry), written.on(scan.geometry))

    report = highdicom.sr.srread(found["SR"])
    (group,) = report.content.get_volumetric_roi_measurement_groups()
    segmentation = dcmread(found["SEG"])
    assert group.tracking_uid == segmentation.SegmentSequence[0].TrackingUID
    assert group.referenced_segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
    volume = group.get_measurements(name=highdicom.sr.CodedConcept("118565006", "SCT", "Volume"))[0]
    assert volume.value == pytest.approx(written.volume_ml * 1000, rel=1e-6)
    assert read_label_map(found["SEG"]).named is not None


def test_what_is_not_there_and_what_is_not_one_scan_is_said(stored, service):
    with pytest.raises(Refused, match="no series at all"):
        fetch(Path(f"{service}/studies/1.2.3.4.5"))
    with pytest.raises(Refused, match="2 scans at|3 scans at") as caught:
        fetch(Path(f"{service}?PatientID={stored[0].patient}"))
    assert str(stored[0].address.series) in caught.value.found
    with pytest.raises(Refused, match="answered"):
        fetch(Path(f"{service}/studies/1.2.3/series/1.2.3.4"))


def test_a_password_in_an_address_is_refused_before_it_is_written_anywhere():
    with pytest.raises(Refused, match="name or password") as caught:
        parse_address("http://reader:secret@127.0.0.1:9/dicom-web/studies/1.2")
    assert "secret" not in str(caught.value)
