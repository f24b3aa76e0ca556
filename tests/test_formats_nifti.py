"""NIfTI: voxels where the header says, affines back bit for bit, and every broken file refused by name."""

from __future__ import annotations

import gzip
import pickle
import tracemalloc
import zlib

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from lesionlocator.errors import Refused
from lesionlocator.formats import open_timepoint, read_geometry, read_volume, write_mask, write_volume
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask, Volume
from strategies import PERMUTATIONS, SHAPE, oblique_affines, stored

RNG = np.random.default_rng(5)
VOXELS = RNG.integers(-1000, 2000, SHAPE).astype(np.int16)
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def save(path, array=VOXELS, sform=None, qform=None, **fields):
    """A NIfTI file made with nibabel alone; `array` is (d, h, w)."""
    image = nibabel.Nifti1Image(np.asarray(array).T, None)
    header = image.header
    header.set_data_dtype(array.dtype)
    if sform is not None:
        header.set_sform(sform, code=2)
    if qform is not None:
        header.set_qform(qform, code=1)
    header.set_xyzt_units("mm")
    header["vox_offset"] = 352
    for name, value in fields.items():
        header[name] = value
    block = header.binaryblock + b"\0" * 4 + np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    path.write_bytes(gzip.compress(block, 1) if path.suffix == ".gz" else block)
    return path


def refused(path, word):
    with pytest.raises(Refused) as caught:
        read_volume(path, "CT")
    assert word in caught.value.found
    assert caught.value.needed
    assert caught.value.do


SFORM = np.array([[0.0, -0.8, 0, 90], [0.8, 0, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1]])


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_voxel_lies_where_nibabel_puts_it(tmp_path, name):
    path = save(tmp_path / name, sform=SFORM)
    volume = read_volume(path, "CT")
    assert volume.name == "scan"
    assert volume.array.dtype == np.int16
    d, h, w = 3, 1, 7
    image = nibabel.load(path)
    assert volume.array[d, h, w] == image.get_fdata()[w, h, d]
    ras = image.affine @ [w, h, d, 1]
    assert_allclose(volume.geometry.index_to_world(np.array([[d, h, w]], float))[0], ras[:3] * [-1, -1, 1])


@same_folder
@given(sform=oblique_affines(), has_qform=st.booleans())
def test_a_mask_gets_the_affine_of_its_scan_bit_for_bit(tmp_path, sform, has_qform):
    header = nibabel.Nifti1Header()
    header.set_sform(sform)
    header.set_qform(sform)
    path = save(tmp_path / "scan.nii", sform=sform, qform=header.get_qform() if has_qform else None)
    volume = read_volume(path, "CT")
    write_mask(tmp_path / "mask.nii.gz", Mask.from_array(volume.array > 0, volume.geometry), volume.geometry)
    scan, mask = nibabel.load(path), nibabel.load(tmp_path / "mask.nii.gz")
    assert_array_equal(mask.affine, scan.affine)
    for name in ("pixdim", "srow_x", "srow_y", "srow_z", "qform_code", "sform_code", "quatern_b", "qoffset_x"):
        assert_array_equal(mask.header[name], scan.header[name])
    assert_array_equal(np.asarray(mask.dataobj).T, volume.array > 0)


@pytest.mark.parametrize("codes", ["sform only", "qform only", "both", "neither"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_way_to_say_the_place_comes_back(tmp_path, codes, order):
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_shape(SHAPE[::-1])
    header.set_data_dtype(np.int16)
    header["pixdim"][1:4] = [0.7, 0.9, 3.1]
    if codes in {"sform only", "both"}:
        header.set_sform(SFORM, 4)
    if codes in {"qform only", "both"}:
        header.set_qform(SFORM, 3)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path = tmp_path / "scan.nii"
    path.write_bytes(header.binaryblock + b"\0" * 4 + VOXELS.astype(f"{order}i2").tobytes())
    volume = read_volume(path, "CT")
    assert_array_equal(volume.array, VOXELS)
    write_mask(tmp_path / "mask.nii", Mask.from_array(volume.array > 0, volume.geometry), volume.geometry)
    scan, mask = nibabel.load(path), nibabel.load(tmp_path / "mask.nii")
    assert_array_equal(mask.affine, scan.affine)
    assert_array_equal(mask.get_qform(), scan.get_qform())
    assert_array_equal(mask.get_sform(), scan.get_sform())
    assert (mask.header["qform_code"], mask.header["sform_code"]) == (
        scan.header["qform_code"],
        scan.header["sform_code"],
    )
    assert bool(volume.warnings) == (codes == "neither")


@same_folder
@given(affine=oblique_affines(), kept=st.sampled_from(PERMUTATIONS))
def test_the_order_of_storage_does_not_move_the_patient(tmp_path, affine, kept):
    whole = Geometry(SHAPE, affine)
    array, geometry = stored(VOXELS, whole, *kept)
    write_volume(tmp_path / "scan.nii", Volume(array, geometry, "CT"))
    again = read_volume(tmp_path / "scan.nii", "CT")
    assert_array_equal(again.array, array)
    assert_allclose(again.geometry.corners_mm, geometry.corners_mm, atol=2e-3)
    index = np.array([[2.0, 5.0, 6.0]])
    at = again.geometry.world_to_index(whole.index_to_world(index))[0]
    assert again.array[tuple(np.round(at).astype(int))] == VOXELS[2, 5, 6]


def test_a_mask_written_twice_is_the_same_file(tmp_path):
    volume = read_volume(save(tmp_path / "scan.nii.gz", sform=SFORM), "CT")
    mask = Mask.from_array(volume.array > 500, volume.geometry)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_mask(tmp_path / name, mask, volume.geometry)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz", "scan.nii.gz"]


def test_a_grid_that_was_cropped_gets_a_header_of_its_own(tmp_path):
    volume = read_volume(save(tmp_path / "scan.nii", sform=SFORM), "CT").crop((1, 2, 3), (5, 6, 9))
    write_volume(tmp_path / "part.nii", volume)
    part = read_volume(tmp_path / "part.nii", "CT")
    assert_array_equal(part.array, volume.array)
    assert part.geometry.same_as(volume.geometry, 1e-3)


def test_a_nifti_2_file_comes_back_as_it_was(tmp_path):
    image = nibabel.Nifti2Image(VOXELS.T, SFORM)
    nibabel.save(image, tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii", "CT")
    assert_array_equal(volume.array, VOXELS)
    write_mask(tmp_path / "mask.nii", Mask.from_array(VOXELS > 0, volume.geometry), volume.geometry)
    assert_array_equal(nibabel.load(tmp_path / "mask.nii").affine, image.affine)


def test_the_grid_is_known_before_the_voxels_and_travels_to_another_process(tmp_path):
    path = save(tmp_path / "scan.nii.gz", sform=SFORM)
    timepoint = pickle.loads(pickle.dumps(open_timepoint(path, "CT", name="first")))
    assert timepoint.name == "first"
    assert timepoint.geometry.same_as(read_geometry(path), 0.0)
    assert_array_equal(timepoint.load().array, VOXELS)


def test_a_long_ct_needs_little_more_memory_than_its_voxels(tmp_path):
    long = np.zeros((160, 256, 256), np.int16) - 1000
    path = save(tmp_path / "scan.nii.gz", long, sform=SFORM)
    tracemalloc.start()
    volume = read_volume(path, "CT")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert volume.array.dtype == np.int16
    assert peak < 1.0 * long.nbytes + 40e6


# ------------------------------------------------------------------------------------------------ intensities


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept", "becomes"),
    [
        (np.int16, 1, 0, np.int16),
        (np.uint16, 1, -1024, np.int16),
        (np.uint8, 2, -100, np.int16),
        (np.int32, 1, 0, np.int16),
        (np.int16, 0.5, 0, np.float32),
        (np.float64, 1, 0, np.float32),
        (np.float32, 1, 0, np.float32),
        (np.int16, 1000, 0, np.float32),
    ],
)
def test_stored_numbers_become_int16_where_that_is_exact(tmp_path, dtype, slope, intercept, becomes):
    raw = RNG.integers(0, 200, SHAPE).astype(dtype)
    path = save(tmp_path / "scan.nii", raw, sform=SFORM, scl_slope=slope, scl_inter=intercept)
    volume = read_volume(path, "MR")
    assert volume.array.dtype == becomes
    assert_allclose(volume.array, raw.astype(float) * slope + intercept, rtol=1e-6)


def ct():
    return np.round(RNG.normal(-300, 400, SHAPE)).clip(-1024, 3000).astype(np.int16)


def pet():
    suv = RNG.gamma(0.5, 0.3, SHAPE).astype(np.float32)
    suv[3, 4, 5:8] = 14.2
    return suv


def mr():
    return np.round(RNG.gamma(4, 100, SHAPE)).astype(np.int16)


@pytest.mark.parametrize(
    ("voxels", "expected"),
    [
        (ct(), "CT"),
        (pet(), "PT"),
        (mr(), "MR"),
        ((mr() / 2000).astype(np.float32), "MR"),
        (np.zeros(SHAPE, np.int16), "MR"),
    ],
)
def test_a_modality_that_no_one_named_is_guessed_and_said(tmp_path, voxels, expected):
    volume = read_volume(save(tmp_path / "scan.nii", voxels, sform=SFORM))
    assert volume.modality == expected
    assert expected in volume.warnings[0]
    assert "--modality" in volume.warnings[0]


def test_a_modality_that_was_named_is_taken_without_a_word(tmp_path):
    volume = read_volume(save(tmp_path / "scan.nii", ct(), sform=SFORM), "MR")
    assert (volume.modality, volume.warnings) == ("MR", ())


def test_real_scans_are_guessed_right(shared_data):
    for folder in sorted((shared_data / "sarcoma").iterdir()):
        for name, expected in (("CT", "CT"), ("PET", "PT"), ("MR_T1", "MR")):
            assert read_volume(folder / f"{name}_image.nii.gz").modality == expected


# ------------------------------------------------------------------------------------------------ bad input


def test_two_places_for_one_voxel_are_refused_and_both_are_told(tmp_path):
    moved = SFORM.copy()
    moved[0, 3] += 5
    refused(save(tmp_path / "scan.nii", sform=SFORM, qform=moved), "sform and qform disagree")
    nearly = SFORM.copy()
    nearly[0, 3] += 0.3
    read_volume(save(tmp_path / "near.nii", sform=SFORM, qform=nearly), "CT")


def test_a_tilted_gantry_does_not_count_as_a_second_place(tmp_path):
    sheared = SFORM.copy()
    sheared[0, 2] = 1.0
    header = nibabel.Nifti1Header()
    header.set_qform(sheared, strip_shears=True)
    volume = read_volume(save(tmp_path / "scan.nii", sform=sheared, qform=header.get_qform()), "CT")
    assert_allclose(np.abs(volume.geometry.affine[0, 0]), 1.0)


def test_a_header_without_a_place_is_read_with_a_warning(tmp_path):
    volume = read_volume(save(tmp_path / "scan.nii"), "CT")
    assert "left and right" in volume.warnings[0]


def test_metres_and_microns_become_millimetres(tmp_path):
    in_metres = np.diag([0.001, 0.001, 0.003, 1.0])
    path = save(tmp_path / "scan.nii", sform=in_metres, xyzt_units=1)
    volume = read_volume(path, "CT")
    assert_allclose(volume.geometry.spacing_mm, [3, 1, 1], rtol=1e-6)
    assert "meter" in volume.warnings[0]
    write_mask(tmp_path / "mask.nii", Mask.from_array(VOXELS > 0, volume.geometry), volume.geometry)
    assert_array_equal(nibabel.load(tmp_path / "mask.nii").affine, nibabel.load(path).affine)
    assert read_geometry(tmp_path / "mask.nii").same_as(volume.geometry)
    refused(save(tmp_path / "odd.nii", sform=SFORM, xyzt_units=5), "unknown unit")
    refused(save(tmp_path / "huge.nii", sform=SFORM * 10, xyzt_units=1), "whose voxels measure")


def test_a_fourth_axis_of_one_is_dropped_and_a_longer_one_refused(tmp_path):
    dim = [4, *SHAPE[::-1], 1, 1, 1, 1]
    assert read_volume(save(tmp_path / "one.nii", sform=SFORM, dim=dim), "CT").geometry.shape == SHAPE
    refused(save(tmp_path / "two.nii", sform=SFORM, dim=[4, 11, 9, 3, 2, 1, 1, 1]), "several volumes")


@pytest.mark.parametrize(
    ("dim", "word"),
    [
        ([3, -11, 9, 7, 1, 1, 1, 1], "sizes"),
        ([3, 0, 9, 7, 1, 1, 1, 1], "sizes"),
        ([0, 11, 9, 7, 1, 1, 1, 1], "sizes"),
        ([9, 11, 9, 7, 1, 1, 1, 1], "sizes"),
        ([2, 11, 9, 1, 1, 1, 1, 1], "2 axes"),
        ([3, 32767, 32767, 32767, 1, 1, 1, 1], "announces"),
    ],
)
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_broken_sizes_are_refused_before_any_memory_is_asked_for(tmp_path, dim, word, name):
    path = save(tmp_path / name, sform=SFORM, dim=dim)
    tracemalloc.start()
    refused(path, word)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_colours_and_complex_numbers_are_refused(tmp_path):
    refused(save(tmp_path / "rgb.nii", sform=SFORM, datatype=128, bitpix=24), "colours")
    refused(save(tmp_path / "complex.nii", VOXELS.astype(np.complex64), sform=SFORM), "complex")
    refused(save(tmp_path / "kind.nii", sform=SFORM, datatype=7), "unknown kind")


@pytest.mark.parametrize("keep", [0, 1, 100, 351, 360, 900])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_file_that_ends_early_is_refused(tmp_path, keep, name):
    path = save(tmp_path / name, sform=SFORM)
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, str(path))


def test_a_damaged_gzip_is_refused(tmp_path):
    path = save(tmp_path / "scan.nii.gz", sform=SFORM)
    whole = bytearray(path.read_bytes())
    whole[-6] ^= 0xFF
    path.write_bytes(whole)
    refused(path, "cannot be read")
    path.write_bytes(gzip.compress(save(tmp_path / "plain.nii", sform=SFORM).read_bytes()[:-50]))
    refused(path, "announces")
    path.write_bytes((tmp_path / "plain.nii").read_bytes())
    refused(path, "not gzip")
    path.write_bytes(b"\x1f\x8b" + zlib.compress(b"hello"))
    refused(path, "cannot be read")


def test_what_is_no_scan_is_refused(tmp_path):
    (tmp_path / "scan.nii").write_bytes(b"this is a text " * 100)
    refused(tmp_path / "scan.nii", "does not start with a NIfTI header")
    refused(tmp_path / "none.nii", "no file")
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path / "notes.txt", "ending")
    (tmp_path / "folder.nii").mkdir()
    refused(tmp_path / "folder.nii", "no DICOM image")


def test_broken_places_are_refused(tmp_path):
    refused(save(tmp_path / "a.nii", sform=np.diag([1.0, 1, 0, 1])), "voxels measure")
    refused(save(tmp_path / "b.nii", srow_x=[np.nan] * 4, sform_code=1), "voxels measure")
    refused(save(tmp_path / "c.nii", qform_code=1, quatern_b=3.0), "qform is broken")
    refused(save(tmp_path / "d.nii", sform=SFORM, scl_slope=np.inf), "scaling")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    geometry = Geometry(SHAPE, np.eye(4))
    with pytest.raises(Refused, match="cannot be written"):
        write_mask(tmp_path / "file" / "mask.nii.gz", Mask.empty(geometry), geometry)
    with pytest.raises(Refused, match="ending"):
        write_mask(tmp_path / "mask.png", Mask.empty(geometry), geometry)
