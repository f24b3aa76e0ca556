"""Scans as they come out of archives: zips, a whole patient's export, multi-frame objects, packed pixels."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    EnhancedPETImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_phantoms import dataset, one_slice, write_series, write_structures
from files import save_prompts
from lesionlocator.cli import run
from lesionlocator.errors import Refused
from lesionlocator.formats import checksum, open_timepoint, read_geometry, read_volume, scan_checksum, scan_stem
from lesionlocator.formats.dicom_series import find_series
from lesionlocator.formats.sources import local

VOXELS = np.random.default_rng(5).integers(-1000, 1500, (6, 9, 8)).astype(np.int16)
UP = [(-10.0, 20.0, 100.0 + 3 * d) for d in range(6)]


def patient(folder: Path) -> Path:
    """A whole export: two CTs, a PET, a scout of its own, an outline, a broken stack and things that are no DICOM."""
    write_series(folder / "S1" / "ct", VOXELS, UP, SeriesInstanceUID="1.2.1", SeriesNumber=1)
    write_series(
        folder / "S1" / "bone", VOXELS, UP, SeriesInstanceUID="1.2.2", SeriesNumber=2, SeriesDescription="bone"
    )
    pet = {"SeriesInstanceUID": "1.2.3", "SeriesNumber": 3, "SeriesDescription": "pet", "Units": "GML"}
    write_series(folder / "S1" / "pet", VOXELS % 20, UP, modality="PT", **pet)
    write_series(folder / "S1" / "scout", VOXELS[:1], UP[:1], SeriesInstanceUID="1.2.4", SeriesNumber=4)
    holes = VOXELS[[0, 1, 3, 4]], [UP[i] for i in (0, 1, 3, 4)]
    write_series(folder / "S2", *holes, SeriesInstanceUID="1.2.5", StudyDate="20240302", SeriesDescription="late")
    write_structures(folder / "S1" / "RS.dcm", {"GTV": []})
    (folder / "readme.txt").write_text("hello")
    return folder


def packed(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for file in sorted(folder.rglob("*")):
            out.write(file, file.relative_to(folder))
    return archive


# ------------------------------------------------------------------------------------------ a patient's export


def test_every_series_of_a_patient_is_listed_with_what_it_is_and_whether_it_fits(tmp_path, capsys):
    folder = patient(tmp_path / "export")
    assert run(["series", str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    told = [(row["modality"], row["description"], row["images"], bool(row["flaw"])) for row in rows]
    assert told == [
        ("RTSTRUCT", "abdomen", 1, True),
        ("CT", "abdomen", 6, False),
        ("CT", "bone", 6, False),
        ("PT", "pet", 6, False),
        ("CT", "abdomen", 1, False),
        ("CT", "late", 4, True),
    ]
    assert "missing slices: 1 between" in rows[-1]["flaw"]
    assert rows[0]["flaw"] == "no scan: RT Structure Set Storage"


def test_a_series_is_chosen_by_its_number_uid_or_name(tmp_path):
    folder = patient(tmp_path / "export")
    for chosen in ("3", "1.2.2", "bone"):
        assert_array_equal(read_volume(f"{folder}#{chosen}").array, VOXELS)
    pet = open_timepoint(Path(f"{folder}#1.2.3"))
    assert (pet.name, pet.date, pet.load().modality) == ("export_1.2.3", "2024-01-31", "PT")
    with pytest.raises(Refused, match="missing slices"):
        read_geometry(Path(f"{folder}#late"))
    for wrong, word in (("abdomen", "3 series called"), ("99", "0 series called")):
        with pytest.raises(Refused, match=word) as caught:
            read_volume(f"{folder}#{wrong}")
        assert "bone (CT, 6 images, 1.2.2)" in caught.value.found


def test_without_a_choice_several_scans_are_refused_and_a_scout_beside_one_is_not(tmp_path):
    folder = patient(tmp_path / "export")
    with pytest.raises(Refused, match="5 series") as caught:
        read_volume(folder)
    assert "#NUMBER" in caught.value.do
    for name in ("bone", "pet"):
        shutil.rmtree(folder / "S1" / name)
    shutil.rmtree(folder / "S2")
    volume = read_volume(folder)
    assert_array_equal(volume.array, VOXELS)
    assert any("left out" in warning and "1.2.4" in warning for warning in volume.warnings)


def test_an_index_file_of_a_disc_does_not_hide_its_folders(tmp_path):
    folder = tmp_path / "disc"
    write_series(folder / "IMAGES", VOXELS, UP)
    dataset("1.2.840.10008.1.3.10").save_as(folder / "DICOMDIR")
    assert_array_equal(read_volume(folder).array, VOXELS)


# ------------------------------------------------------------------------------------------ zips


def test_a_zip_is_read_as_the_folder_in_it(tmp_path):
    archive = packed(write_series(tmp_path / "ct", VOXELS, UP), tmp_path / "case7.zip")
    timepoint = open_timepoint(archive)
    volume = timepoint.load()
    assert_array_equal(volume.array, VOXELS)
    assert (timepoint.name, volume.name, timepoint.date) == ("case7", "case7", "2024-01-31")
    assert scan_checksum(archive) == checksum(local(archive))
    many = packed(patient(tmp_path / "export"), tmp_path / "export.zip")
    assert_array_equal(read_volume(f"{many}#bone").array, VOXELS)
    assert scan_stem(Path(f"{many}#bone")) == "export_bone"
    with pytest.raises(Refused, match="5 series"):
        read_volume(many)


def test_a_lesion_is_outlined_straight_from_a_zip(tmp_path):
    dense = np.full((8, 30, 30), -90, np.int16)
    dense[2:6, 10:20, 10:20] = 60
    archive = packed(write_series(tmp_path / "ct", dense), tmp_path / "ct.zip")
    box = {"min": [-3.4, 27.6, 104.5], "max": [4.4, 36.4, 116.5]}
    prompts = save_prompts(tmp_path / "p.json", [{"id": "1", "box": box}])
    assert run(["segment", f"{archive}#1", "--prompts", str(prompts), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "ct_1_lesion_1.nii.gz").exists()


def test_a_zip_cannot_write_outside_its_folder_or_swell(tmp_path):
    slices = [one_slice(v, p) for v, p in zip(VOXELS, UP, strict=True)]
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for number, made in enumerate(slices):
            made.save_as(tmp_path / "one.dcm")
            out.write(tmp_path / "one.dcm", f"../../../{tmp_path.name}_escaped_{number}.dcm")
    (tmp_path / "one.dcm").unlink()
    before = set(tmp_path.parent.rglob("*"))
    assert_array_equal(read_volume(archive).array, VOXELS)
    assert set(tmp_path.parent.rglob("*")) == before
    assert all(file.parent == local(archive) for file in local(archive).rglob("*"))
    whole = archive.read_bytes()
    for keep in (0, 40, len(whole) // 2):
        archive.write_bytes(whole[:keep])
        with pytest.raises(Refused):
            read_volume(archive)


# ------------------------------------------------------------------------------------------ multi-frame


def enhanced(path: Path, voxels, positions, sop_class=EnhancedCTImageStorage, slopes=None, **fields) -> Path:
    """All slices in one object, its frames in the order of `voxels`."""
    made = one_slice(voxels[0], positions[0], SOPClassUID=sop_class, NumberOfFrames=len(voxels), **fields)
    made.PixelData = np.ascontiguousarray(voxels).tobytes()
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(made, name)
    made.PerFrameFunctionalGroupsSequence = Sequence()
    for number, position in enumerate(positions):
        group, place, scaling = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [float(v) for v in position]
        scaling.RescaleSlope, scaling.RescaleIntercept = slopes[number] if slopes else 1.0, 0.0
        group.PlanePositionSequence, group.PixelValueTransformationSequence = Sequence([place]), Sequence([scaling])
        made.PerFrameFunctionalGroupsSequence.append(group)
    shared, turned, measures = Dataset(), Dataset(), Dataset()
    turned.ImageOrientationPatient = [1.0, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.7], 3.0
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([turned]), Sequence([measures])
    made.SharedFunctionalGroupsSequence = Sequence([shared])
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    return path


def test_a_multi_frame_object_is_the_scan_that_its_slices_are(tmp_path):
    order = [3, 0, 5, 1, 4, 2]
    path = enhanced(tmp_path / "ct" / "all.dcm", VOXELS[order], [UP[i] for i in order])
    classic = read_volume(write_series(tmp_path / "classic", VOXELS, UP))
    for given in (path, path.parent):
        volume = read_volume(given)
        assert_array_equal(volume.array, VOXELS)
        assert volume.geometry.same_as(classic.geometry)
    slopes = [0.5, 1.0, 2.0, 0.25, 1.5, 3.0]
    scaled = read_volume(enhanced(tmp_path / "pet" / "all.dcm", VOXELS, UP, slopes=slopes))
    assert_allclose(scaled.array, VOXELS * np.array(slopes)[:, None, None], rtol=1e-6)


def test_two_objects_of_some_frames_each_are_one_scan(tmp_path):
    enhanced(tmp_path / "ct" / "a.dcm", VOXELS[:4], UP[:4])
    enhanced(tmp_path / "ct" / "b.dcm", VOXELS[4:], UP[4:])
    assert_array_equal(read_volume(tmp_path / "ct").array, VOXELS)
    enhanced(tmp_path / "ct" / "c.dcm", VOXELS[:2], UP[:2])
    assert any("came twice" in warning for warning in read_volume(tmp_path / "ct").warnings)


def test_an_enhanced_pet_says_its_unit_in_its_own_way(tmp_path):
    unit, mapping, tracer = Dataset(), Dataset(), Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "Bq/ml", "UCUM", "Bq/ml"
    mapping.MeasurementUnitsCodeSequence = Sequence([unit])
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = 350e6, 6586.2
    tracer.RadiopharmaceuticalStartDateTime = "20240131091500"
    path = enhanced(
        tmp_path / "pet" / "all.dcm",
        np.full((3, 4, 5), 1000, np.int16),
        UP[:3],
        EnhancedPETImageStorage,
        modality="PT",
        PatientWeight=70.0,
        DecayCorrected="YES",
        DecayCorrectionDateTime="20240131101500",
        RadiopharmaceuticalInformationSequence=Sequence([tracer]),
        RealWorldValueMappingSequence=Sequence([mapping]),
    )
    # The mapping of a whole object stands in its shared groups.
    made = pydicom.dcmread(path)
    made.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = made.RealWorldValueMappingSequence
    del made.RealWorldValueMappingSequence
    made.save_as(path)
    volume = read_volume(path)
    assert_allclose(volume.array, 1000 * 70000 / (350e6 * 2 ** (-3600 / 6586.2)), rtol=1e-6)
    assert (volume.unit, volume.warnings) == ("SUV", ())


def test_frames_that_nobody_places_are_refused(tmp_path):
    path = enhanced(tmp_path / "ct" / "all.dcm", VOXELS, UP)
    made = pydicom.dcmread(path)
    made.NumberOfFrames = 2_000_000_000
    made.save_as(path)
    with pytest.raises(Refused, match="2000000000 frames"):
        read_volume(path)


# ------------------------------------------------------------------------------------------ transfer syntaxes


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda syntax: syntax.name,
)
def test_uncompressed_syntaxes_are_read(tmp_path, syntax):
    folder = write_series(tmp_path / "series", VOXELS, UP)
    for file in folder.iterdir():
        made = pydicom.dcmread(file)
        order = ">i2" if syntax == ExplicitVRBigEndian else "<i2"
        pixels = made.pixel_array.astype(order).tobytes()
        fresh = Dataset()  # One that was read cannot change the order of its bytes.
        fresh.update(made)
        fresh.file_meta, fresh.file_meta.TransferSyntaxUID = made.file_meta, syntax
        fresh.PixelData = pixels
        fresh.save_as(file, enforce_file_format=True)
    assert_array_equal(read_volume(folder).array, VOXELS)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("frames", ["slices", "frames"])
def test_packed_syntaxes_are_unpacked_in_slices_and_in_frames(tmp_path, syntax, frames):
    smooth = np.round(200 * np.sin(np.indices((4, 32, 40)).sum(axis=0) / 9)).astype(np.int16)
    if frames == "slices":
        folder = write_series(tmp_path / "series", smooth, UP[:4], RescaleSlope=2.0, RescaleIntercept=-100)
    else:
        folder = enhanced(tmp_path / "series" / "all.dcm", smooth, UP[:4], slopes=[2.0] * 4).parent
    for file in folder.iterdir():
        made = pydicom.dcmread(file)
        if syntax == JPEG2000Lossless:
            made = as_jpeg_2000(made)
        else:
            made.compress(syntax)
        made.save_as(file)
    expected = 2 * smooth.astype(float) - (100 if frames == "slices" else 0)
    assert_allclose(read_volume(folder).array, expected)


def as_jpeg_2000(made):
    """Packed by SimpleITK, since pydicom packs it only with an extra."""
    import tempfile

    frames = np.atleast_3d(made.pixel_array)
    frames = made.pixel_array[None] if made.pixel_array.ndim == 2 else frames
    packed_frames = []
    with tempfile.TemporaryDirectory() as folder:
        for frame in frames:
            writer = SimpleITK.ImageFileWriter()
            writer.SetUseCompression(True)
            writer.SetCompressor("JPEG2000")
            writer.SetFileName(f"{folder}/one.dcm")
            writer.Execute(SimpleITK.GetImageFromArray(np.ascontiguousarray(frame)[None]))
            one = pydicom.dcmread(f"{folder}/one.dcm")
            assert one.file_meta.TransferSyntaxUID == JPEG2000Lossless
            packed_frames.append(next(pydicom.encaps.generate_frames(one.PixelData, number_of_frames=1)))
    made.PixelData = pydicom.encaps.encapsulate(packed_frames)
    made["PixelData"].VR = "OB"
    made.file_meta.TransferSyntaxUID = JPEG2000Lossless
    return made


# ------------------------------------------------------------------------------------------ one frame of reference


def test_the_list_says_which_series_share_a_frame_of_reference(tmp_path, capsys):
    folder = patient(tmp_path / "export")
    moved = write_series(
        folder / "S3", VOXELS, UP, SeriesInstanceUID="1.2.9", FrameOfReferenceUID="9.9", StudyDate="20240401"
    )
    assert run(["series", str(folder), "--json"]) == 0
    frames = {row["uid"]: row["frame"] for row in json.loads(capsys.readouterr().out)}
    assert frames["1.2.1"] == frames["1.2.3"] != frames["1.2.9"] == "9.9"
    assert find_series(moved).series[0].frame == "9.9"
