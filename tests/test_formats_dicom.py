"""DICOM: one series becomes one scan in its place, and what cannot be one is refused by name."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage, SegmentationStorage

from dicom_phantoms import SERIES, dataset, one_slice, write_series, write_structures
from lesionlocator.errors import Refused
from lesionlocator.formats import label_masks, open_timepoint, read_geometry, read_label_map, read_rtstruct, read_volume
from lesionlocator.geometry import Geometry
from strategies import rotation

RNG = np.random.default_rng(11)
VOXELS = RNG.integers(-1000, 1500, (6, 9, 8)).astype(np.int16)
UP = [(-10.0, 20.0, 100.0 + 3 * d) for d in range(6)]


def refused(path, *words):
    for read in (read_volume, read_geometry):
        with pytest.raises(Refused) as caught:
            read(path)
        for word in words:
            assert word in caught.value.found
        assert caught.value.needed
        assert caught.value.do


def test_slices_are_sorted_by_where_they_lie(tmp_path):
    volume = read_volume(write_series(tmp_path / "series", VOXELS))
    assert_array_equal(volume.array, VOXELS)
    assert volume.array.dtype == np.int16
    assert (volume.modality, volume.name, volume.warnings) == ("CT", "series", ())
    # Pixel spacing is rows first: 0.8 down a column, 0.7 along a row.
    at = volume.geometry.index_to_world(np.array([[2.0, 3, 4]]))[0]
    assert_allclose(at, [-10 + 4 * 0.7, 20 + 3 * 0.8, 106])
    assert volume.geometry.frame == "1.2.826.0.1.3680043.8.498.1"


def test_a_feet_first_or_oblique_series_keeps_every_voxel_in_its_place(tmp_path):
    for number, angles in enumerate(([0.3, -0.5, 0.9], [np.pi, 0, 0], [np.pi / 2, 0, 0])):
        turned = rotation(np.array(angles))
        positions = [turned @ (0, 0, 2.5 * d) + (5, 6, 7) for d in range(6)]
        folder = tmp_path / str(number)
        write_series(folder, VOXELS, positions, orientation=[*turned[:, 0], *turned[:, 1]])
        volume = read_volume(folder)
        assert_array_equal(volume.array, VOXELS)
        expected = turned @ (0.7 * 4, 0.8 * 3, 2.5 * 2) + (5, 6, 7)
        assert_allclose(volume.geometry.index_to_world(np.array([[2.0, 3, 4]]))[0], expected, atol=1e-3)


def test_a_timepoint_has_its_day_and_its_grid_from_the_headers(tmp_path):
    timepoint = open_timepoint(write_series(tmp_path / "series", VOXELS))
    assert (timepoint.date, timepoint.geometry.shape) == ("2024-01-31", VOXELS.shape)
    assert timepoint.load().geometry.same_as(timepoint.geometry)


def test_one_file_and_a_folder_of_folders_are_found(tmp_path):
    write_series(tmp_path / "study" / "inner", VOXELS)
    assert_array_equal(read_volume(tmp_path / "study").array, VOXELS)
    single = read_volume(next((tmp_path / "study" / "inner").glob("*_2.dcm")))
    assert_array_equal(single.array[0], VOXELS[2])
    assert "one slice only" in single.warnings[0]


def test_what_is_no_slice_is_left_out_with_a_warning(tmp_path):
    folder = write_series(tmp_path / "series", VOXELS)
    (folder / "notes.txt").write_text("scanned on Monday")
    write_structures(folder / "RS.dcm", {"GTV": []})
    dataset(SegmentationStorage, Modality="SEG", Rows=9, Columns=8).save_as(folder / "seg.dcm")
    scout = one_slice(
        VOXELS[0], (0, 0, 0), orientation=(1, 0, 0, 0, 0, -1), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    scout.save_as(folder / "scout.dcm")
    volume = read_volume(folder)
    assert_array_equal(volume.array, VOXELS)
    assert "4 files that are not slices" in volume.warnings[0]


# ------------------------------------------------------------------------------------------ intensities


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, -1024, np.int16), (2, 0, np.int16), (0.5, 3, np.float32)]
)
def test_rescaled_numbers_are_int16_where_that_is_exact(tmp_path, slope, intercept, dtype):
    folder = write_series(tmp_path / "series", VOXELS, RescaleSlope=slope, RescaleIntercept=intercept)
    volume = read_volume(folder)
    assert volume.array.dtype == dtype
    assert_allclose(volume.array, VOXELS.astype(float) * slope + intercept)


def test_every_slice_has_its_own_slope(tmp_path):
    counts = RNG.integers(0, 900, (4, 9, 8)).astype(np.int16)
    folder = tmp_path / "pet"
    folder.mkdir()
    slopes = [0.25, 0.5, 1.0, 0.125]
    for d, slope in enumerate(slopes):
        made = one_slice(counts[d], (0, 0, 3.0 * d), "PT", RescaleSlope=slope, RescaleIntercept=0, Units="GML")
        made.save_as(folder / f"{d}.dcm")
    volume = read_volume(folder)
    assert volume.array.dtype == np.float32
    assert volume.warnings == ()
    assert_allclose(volume.array, counts * np.array(slopes)[:, None, None], rtol=1e-6)


def test_an_unnamed_modality_is_given_or_guessed_and_a_named_one_stays(tmp_path):
    folder = write_series(tmp_path / "series", VOXELS)
    for file in folder.iterdir():
        made = pydicom.dcmread(file)
        made.Modality = "OT"
        made.save_as(file)
    assert read_volume(folder, "MR").modality == "MR"
    guessed = read_volume(folder)
    assert guessed.modality == "CT"
    assert "--modality" in guessed.warnings[0]
    named = read_volume(write_series(tmp_path / "ct", VOXELS), "MR")
    assert named.modality == "CT"
    assert "was not used" in named.warnings[0]


def tracer(**fields):
    made = Dataset()
    made.RadionuclideTotalDose, made.RadionuclideHalfLife = 350e6, 6586.2
    made.RadiopharmaceuticalStartTime = "091500.00"
    for name, value in fields.items():
        setattr(made, name, value)
    return Sequence([made])


def pet_series(folder, **fields):
    given = {
        "Units": "BQML",
        "DecayCorrection": "START",
        "PatientWeight": 70.0,
        "CorrectedImage": ["ATTN", "DECY"],
        "SeriesDate": "20240131",
        "SeriesTime": "101500",
        "AcquisitionDate": "20240131",
        "AcquisitionTime": "101600",
        "RescaleSlope": 2.0,
        "RadiopharmaceuticalInformationSequence": tracer(),
    } | fields
    return read_volume(write_series(folder, np.full((3, 4, 5), 1000, np.int16), UP[:3], modality="PT", **given))


def test_activity_becomes_suv_by_weight_dose_and_decay(tmp_path):
    # 2000 Bq/ml * 70000 g / (350 MBq halved by 3600 s of 6586.2 s)
    expected = 2000 * 70000 / (350e6 * 2 ** (-3600 / 6586.2))
    volume = pet_series(tmp_path / "start")
    assert volume.warnings == ()
    assert_allclose(volume.array, expected, rtol=1e-6)
    assert_allclose(pet_series(tmp_path / "admin", DecayCorrection="ADMIN").array, 2000 * 70000 / 350e6, rtol=1e-6)
    # A series saved anew after the scan: the acquisition counts.
    saved = pet_series(tmp_path / "saved", SeriesTime="180000", AcquisitionTime="101500")
    assert_allclose(saved.array, expected, rtol=1e-6)
    dated = tracer(RadiopharmaceuticalStartDateTime="20240131091500.000000+0100")
    assert_allclose(
        pet_series(tmp_path / "dated", RadiopharmaceuticalInformationSequence=dated).array, expected, rtol=1e-6
    )


def test_an_injection_before_midnight_is_an_hour_ago_and_not_a_day_ahead(tmp_path):
    late = tracer(RadiopharmaceuticalStartTime="233000")
    volume = pet_series(
        tmp_path / "night", SeriesTime="003000", AcquisitionTime="003000", RadiopharmaceuticalInformationSequence=late
    )
    assert_allclose(volume.array, 2000 * 70000 / (350e6 * 2 ** (-3600 / 6586.2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"PatientWeight": 0.0}, "weight"),
        ({"PatientWeight": None}, "weight"),
        ({"RadiopharmaceuticalInformationSequence": tracer(RadionuclideTotalDose=0.0)}, "dose"),
        ({"RadiopharmaceuticalInformationSequence": tracer(RadionuclideTotalDose=350.0)}, "MBq"),
        ({"RadiopharmaceuticalInformationSequence": tracer(RadionuclideHalfLife=0.0)}, "half-life"),
        ({"RadiopharmaceuticalInformationSequence": tracer(RadiopharmaceuticalStartTime="")}, "injection"),
        ({"RadiopharmaceuticalInformationSequence": Sequence()}, "radiopharmaceuticals"),
        ({"DecayCorrection": "NONE"}, "decay"),
        ({"Units": "CNTS"}, "CNTS"),
        ({"Units": "PROPCNTS"}, "not SUV"),
    ],
)
def test_a_pet_that_cannot_be_made_suv_keeps_its_numbers_and_says_so(tmp_path, fields, word):
    fields = {name: value for name, value in fields.items() if value is not None}
    if not fields:
        fields = {"PatientWeight": ""}
    volume = pet_series(tmp_path / "pet", **fields)
    assert_allclose(volume.array, 2000)
    assert volume.unit != "SUV"
    assert word in volume.warnings[0]
    assert "not SUV" in volume.warnings[0]


def test_a_pet_that_was_not_corrected_says_so(tmp_path):
    assert "attenuation" in pet_series(tmp_path / "pet", CorrectedImage=["DECY"]).warnings[0]
    assert "LBM" in pet_series(tmp_path / "lbm", Units="GML", SUVType="LBM").warnings[0]


# ------------------------------------------------------------------------------------------ never silently wrong


def test_two_series_are_refused_and_both_are_listed(tmp_path):
    folder = write_series(tmp_path / "series", VOXELS)
    for d in range(2):
        other = one_slice(VOXELS[d], UP[d], SeriesInstanceUID=SERIES + ".9", SeriesDescription="lung", Modality="CT")
        other.save_as(folder / f"other_{d}.dcm")
    refused(folder, "2 series", "abdomen (CT, 6 images", "lung (CT, 2 images", SERIES + ".9")


def test_a_missing_slice_is_refused_and_its_place_is_told(tmp_path):
    refused(
        write_series(tmp_path / "one", VOXELS[[0, 1, 3, 4, 5]], [UP[i] for i in (0, 1, 3, 4, 5)]), "1 between", "103.00"
    )
    refused(write_series(tmp_path / "two", VOXELS[[0, 1, 2, 5]], [UP[i] for i in (0, 1, 2, 5)]), "2 between", "106.00")


def test_a_slice_that_came_twice_is_dropped_if_it_is_the_same(tmp_path):
    folder = write_series(tmp_path / "series", VOXELS)
    one_slice(VOXELS[2], UP[2]).save_as(folder / "again.dcm")
    volume = read_volume(folder)
    assert_array_equal(volume.array, VOXELS)
    assert "came twice" in volume.warnings[0]
    one_slice(VOXELS[2] + 1, UP[2]).save_as(folder / "again.dcm")
    refused(folder, "two different images at one place", "again.dcm")


def test_a_tilted_gantry_gives_a_sheared_grid_with_every_voxel_in_its_place(tmp_path):
    positions = [(-10, 20 + 0.8 * d, 100 + 3 * d) for d in range(6)]
    volume = read_volume(write_series(tmp_path / "series", VOXELS, positions))
    assert_array_equal(volume.array, VOXELS)
    assert_allclose(volume.geometry.affine[:3, 0], [0, 0.8, 3], atol=1e-9)
    assert "tilted by 14.9 degrees" in volume.warnings[0]


def test_uneven_slices_are_interpolated_with_a_warning(tmp_path):
    depth = np.array([0.0, 3.0, 6.0, 10.0, 13.0, 16.0])
    ramp = (np.ones((6, 4, 5)) * (100 * depth)[:, None, None]).astype(np.int16)
    folder = write_series(tmp_path / "series", ramp, [(0, 0, z) for z in depth])
    volume = read_volume(folder)
    assert "interpolated" in volume.warnings[0]
    assert_allclose(volume.geometry.spacing_mm[0], 3)
    assert_array_equal(volume.array[:, 0, 0], [0, 300, 600, 900, 1200, 1500])
    assert read_geometry(folder).same_as(volume.geometry)


def test_rounded_positions_count_as_even(tmp_path):
    positions = [(0, 0, round(3.27 * d, 1)) for d in range(6)]
    volume = read_volume(write_series(tmp_path / "series", VOXELS, positions))
    assert volume.warnings == ()
    assert_array_equal(volume.array, VOXELS)


def test_wild_spacing_and_crooked_stacks_are_refused(tmp_path):
    refused(write_series(tmp_path / "a", VOXELS, [(0, 0, z) for z in (0, 3, 6, 11, 14, 17)]), "distances vary")
    refused(
        write_series(tmp_path / "b", VOXELS, [(0, 5 * (d == 3), 3 * d) for d in range(6)]), "not in a straight line"
    )


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"PixelSpacing": [1.0, 1.0]}, "do not fit together"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "do not fit together"),
        ({"FrameOfReferenceUID": "1.2.3"}, "do not fit together"),
        ({"ImagePositionPatient": None}, "ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "ImageOrientationPatient"),
        ({"PixelSpacing": None}, "PixelSpacing"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "whose pixels measure"),
        ({"PixelSpacing": [0.0, 1.0]}, "whose pixels measure"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"NumberOfFrames": 30, "SOPClassUID": EnhancedCTImageStorage}, "30 frames (Enhanced CT Image Storage)"),
    ],
)
def test_a_slice_that_does_not_belong_is_refused(tmp_path, change, word):
    folder = write_series(tmp_path / "series", VOXELS)
    one_slice(VOXELS[0], (-10, 20, 118), **change).save_as(folder / "odd.dcm")
    refused(folder, word)


def test_slices_of_another_size_are_refused(tmp_path):
    folder = write_series(tmp_path / "series", VOXELS)
    one_slice(VOXELS[0][:5], (-10, 20, 118)).save_as(folder / "odd.dcm")
    refused(folder, "do not fit together", "odd.dcm")


@pytest.mark.parametrize("keep", [0, 50, 131, 200, 500])
def test_a_damaged_file_is_refused_by_name(tmp_path, keep):
    folder = write_series(tmp_path / "series", VOXELS)
    file = next(folder.glob("*_3.dcm"))
    file.write_bytes(file.read_bytes()[:keep])
    refused(folder, file.name)


def test_a_header_with_a_broken_value_is_refused_by_name(tmp_path):
    folder = write_series(tmp_path / "series", VOXELS)
    file = next(folder.glob("*_3.dcm"))
    whole = file.read_bytes()
    place = whole.index(b"\x20\x00\x32\x00DS")
    file.write_bytes(whole[: place + 4] + b"D\xe9" + whole[place + 6 :])
    refused(folder, file.name)
    file.write_bytes(whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.x\0"))
    with pytest.raises(Refused):
        read_volume(folder)


def test_a_file_whose_pixels_end_early_is_refused_by_name(tmp_path):
    folder = write_series(tmp_path / "series", VOXELS)
    file = next(folder.glob("*_3.dcm"))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(Refused) as caught:
        read_volume(folder)
    assert file.name in caught.value.found


def test_an_empty_folder_and_a_wrong_path_are_refused(tmp_path):
    refused(tmp_path, "no DICOM image")
    refused(tmp_path / "none", "no file or folder")
    (tmp_path / "a.txt").write_text("hello")
    refused(tmp_path, "1 other files")


def test_a_file_without_preamble_is_read_by_its_ending(tmp_path):
    folder = write_series(tmp_path / "series", VOXELS)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[132:])
    assert_array_equal(read_volume(folder).array, VOXELS)


@pytest.mark.parametrize("compressor", ["JPEG2000", "JPEG"])
def test_compressed_slices_are_unpacked(tmp_path, compressor):
    folder = tmp_path / "series"
    folder.mkdir()
    smooth = np.round(200 * np.sin(np.indices((4, 32, 40)).sum(axis=0) / 9)).astype(np.int16)
    for d, pixels in enumerate(smooth):
        image = SimpleITK.GetImageFromArray(pixels[None])
        image.SetSpacing((0.7, 0.8, 3.0))
        for key, value in (
            ("0008|0060", "CT"),
            ("0020|000e", SERIES),
            ("0020|0032", f"0\\0\\{3 * d}"),
            ("0020|0037", "1\\0\\0\\0\\1\\0"),
            ("0028|1052", "-100"),
            ("0028|1053", "1"),
        ):
            image.SetMetaData(key, value)
        writer = SimpleITK.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetUseCompression(True)
        writer.SetCompressor(compressor)
        writer.SetFileName(str(folder / f"{d}.dcm"))
        writer.Execute(image)
    assert pydicom.dcmread(folder / "0.dcm").file_meta.TransferSyntaxUID.is_compressed
    volume = read_volume(folder)
    assert volume.array.dtype == np.int16
    assert_array_equal(volume.array, smooth)
    broken = (folder / "2.dcm").read_bytes()
    (folder / "2.dcm").write_bytes(broken[: len(broken) // 2 + 300])
    with pytest.raises(Refused, match=r"2\.dcm"):
        read_volume(folder)


def test_an_unknown_packing_is_named_with_what_to_do(tmp_path):
    folder = write_series(tmp_path / "series", VOXELS)
    file = next(folder.glob("*_3.dcm"))
    made = pydicom.dcmread(file)
    made.PixelData = pydicom.encaps.encapsulate([b"\x00\x01\x02\x03"])
    made["PixelData"].VR = "OB"
    made.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    made.save_as(file)
    with pytest.raises(Refused, match="MPEG2") as caught:
        read_volume(folder)
    assert file.name in caught.value.found
    assert "install" in caught.value.do


# ------------------------------------------------------------------------------------------ structure sets

GRID = Geometry((5, 40, 50), np.array([[0, 0, 1.0, -20], [0, 1, 0, -10], [2.0, 0, 0, 100], [0, 0, 0, 1]]))


def ring(radius, z, centre=(5.0, 8.0)):
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    return np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle), np.full(200, float(z))], 1)


def test_a_contour_within_a_contour_is_a_hole(tmp_path):
    path = write_structures(
        tmp_path / "RS.dcm", {"GTV": [ring(9, 102), ring(4, 102), ring(9, 104)], "heart": [ring(3, 106, (20, 20))]}
    )
    masks = read_rtstruct(path, GRID)
    assert list(masks) == ["GTV", "heart"]
    full = masks["GTV"].on(GRID)
    assert full.sum(axis=(1, 2)) == pytest.approx([0, np.pi * (81 - 16), np.pi * 81, 0, 0], rel=0.03)
    assert not full[1, 18, 25]
    assert full[2, 18, 25]
    assert masks["heart"].voxels == pytest.approx(np.pi * 9, rel=0.15)


def test_contours_fill_the_slices_between_their_planes(tmp_path):
    finer = GRID.respaced(np.array([1.0, 1.0, 1.0]))
    path = write_structures(tmp_path / "RS.dcm", {"GTV": [ring(9, 102), ring(9, 104), ring(9, 106)]})
    mask = read_rtstruct(path, finer)["GTV"]
    assert mask.volume_ml == pytest.approx(np.pi * 81 * 6 / 1000, rel=0.2)
    assert np.all(np.diff(np.flatnonzero(mask.on(finer).any(axis=(1, 2)))) == 1)


def test_the_storage_order_of_the_grid_does_not_move_an_outline(tmp_path):
    path = write_structures(tmp_path / "RS.dcm", {"GTV": [ring(9, 102)]})
    straight = read_rtstruct(path, GRID)["GTV"].on(GRID)
    turned = Geometry((50, 5, 40), GRID.affine[:, [2, 0, 1, 3]])
    assert_array_equal(read_rtstruct(path, turned)["GTV"].on(turned), straight.transpose(2, 0, 1))


def test_structures_of_another_scan_or_across_the_slices_are_refused(tmp_path):
    path = write_structures(tmp_path / "RS.dcm", {"GTV": [ring(9, 102)]}, frame="1.2.3")
    with pytest.raises(Refused, match="frame of reference"):
        read_rtstruct(path, Geometry(GRID.shape, GRID.affine, frame="4.5.6"))
    oblique = np.eye(4)
    oblique[:3, :3] = rotation(np.array([0.4, 0.3, 0.2]))
    with pytest.raises(Refused, match="across the slices"):
        read_rtstruct(path, Geometry(GRID.shape, oblique))
    with pytest.raises(Refused, match="modality CT"):
        read_rtstruct(next(write_series(tmp_path / "ct", VOXELS).iterdir()), GRID)
    (tmp_path / "no.dcm").write_text("hello")
    with pytest.raises(Refused, match="cannot be read"):
        read_rtstruct(tmp_path / "no.dcm", GRID)


@pytest.mark.parametrize("name", ["CT", "PET", "MR_T1"])
def test_dicom_and_nifti_of_one_patient_lie_in_one_place(shared_data, name):
    series = shared_data / "sarcoma_dicom" / "STS_042" / name
    nifti = shared_data / "sarcoma" / "STS_042"
    from_dicom = read_volume(series / "image")
    from_nifti = read_volume(nifti / f"{name}_image.nii.gz", from_dicom.modality)
    assert from_dicom.geometry.same_as(from_nifti.geometry, 0.001)
    assert_allclose(from_dicom.array, from_nifti.array, rtol=1e-5, atol=1e-4)
    (drawn,) = read_rtstruct(series / "mask" / "RS.dcm", from_dicom.geometry).values()
    (truth,) = label_masks(read_label_map(nifti / f"{name}_mask.nii.gz")).values()
    truth = truth.placed(from_dicom.geometry)
    assert 2 * drawn.overlap(truth) / (drawn.voxels + truth.voxels) > 0.95
