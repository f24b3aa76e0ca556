"""Masks and label maps in every format, and NRRD and MetaImage scans."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from lesionlocator.errors import Refused
from lesionlocator.formats import (
    READERS,
    WRITERS,
    LabelMap,
    label_masks,
    read_geometry,
    read_label_map,
    read_volume,
    write_labels,
    write_mask,
    write_volume,
)
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask, Volume
from strategies import PERMUTATIONS, SHAPE, oblique_affines, ranges, stored

RNG = np.random.default_rng(7)
GRID = Geometry(SHAPE, np.diag([3.0, 0.8, 0.7, 1.0]))
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
every_ending = pytest.mark.parametrize("ending", list(WRITERS))


def voxels_apart(one: Geometry, other: Geometry) -> float:
    return float(np.abs(one.world_to_index(one.corners_mm) - one.world_to_index(other.corners_mm)).max())


def refused(read, path, word):
    with pytest.raises(Refused) as caught:
        read(path)
    assert word in caught.value.found
    assert caught.value.needed
    assert caught.value.do


@every_ending
@same_folder
@given(affine=oblique_affines(), part=ranges(), kept=st.sampled_from(PERMUTATIONS))
def test_a_mask_comes_back_as_it_was_written(tmp_path, ending, affine, part, kept):
    array = np.zeros(SHAPE, bool)
    array[tuple(slice(a, b) for a, b in zip(*part, strict=True))] = True
    turned, geometry = stored(array, Geometry(SHAPE, affine), *kept)
    write_mask(tmp_path / f"mask{ending}", Mask.from_array(turned, geometry), geometry)
    again = read_label_map(tmp_path / f"mask{ending}")
    assert_array_equal(again.values, turned)
    assert voxels_apart(again.geometry, geometry) < 1e-3
    assert voxels_apart(read_geometry(tmp_path / f"mask{ending}"), geometry) < 1e-3


@every_ending
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_scan_comes_back_as_it_was_written(tmp_path, ending, dtype):
    array = RNG.normal(0, 300, SHAPE).astype(dtype)
    write_volume(tmp_path / f"scan{ending}", Volume(array, GRID, "MR"))
    again = read_volume(tmp_path / f"scan{ending}", "MR")
    assert again.array.dtype == dtype
    assert again.name == "scan"
    assert_array_equal(again.array, array)


@every_ending
def test_labels_come_back_and_what_two_lesions_claim_is_background(tmp_path, ending):
    array = np.zeros(SHAPE, bool)
    array[2:5, 2:6, 3:6] = True
    other = np.zeros(SHAPE, bool)
    other[4:6, 4:8, 4:9] = True
    masks = {2: Mask.from_array(array, GRID), 900: Mask.from_array(other, GRID)}
    write_labels(tmp_path / f"labels{ending}", masks, GRID)
    values = read_label_map(tmp_path / f"labels{ending}").values
    assert_array_equal(values == 2, array & ~other)
    assert_array_equal(values == 900, other & ~array)
    write_labels(tmp_path / f"again{ending}", values, GRID)
    assert_array_equal(read_label_map(tmp_path / f"again{ending}").values, values)


def test_every_written_format_can_be_read():
    assert set(WRITERS) <= set(READERS)


def test_labels_that_no_file_can_hold_are_refused(tmp_path):
    for labels in ({0: Mask.empty(GRID)}, {70000: Mask.empty(GRID)}, np.full(SHAPE, -1), np.full(SHAPE, 70000)):
        with pytest.raises(Refused):
            write_labels(tmp_path / "labels.nii.gz", labels, GRID)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------- lesions in it


def two_parts_and_a_neighbour() -> LabelMap:
    values = np.zeros(SHAPE, np.uint8)
    values[5:7, 1:3, 1:3] = 2
    values[1:3, 6:8, 6:8] = 2
    values[3, 3, 3] = 9
    values[4, 4, 4] = 9  # Touches the one above by a corner: one part of 26 neighbours.
    return LabelMap(values, GRID)


def test_one_label_is_one_lesion_whatever_its_parts():
    masks = label_masks(two_parts_and_a_neighbour())
    assert [(name, mask.voxels) for name, mask in masks.items()] == [("2", 16), ("9", 2)]
    assert_array_equal(masks["2"].on(GRID), two_parts_and_a_neighbour().values == 2)


def test_split_makes_a_lesion_of_each_part_in_a_stable_order():
    masks = label_masks(two_parts_and_a_neighbour(), split=True)
    assert [(name, mask.voxels) for name, mask in masks.items()] == [("1", 8), ("2", 8), ("3", 2)]
    assert masks["1"].geometry.offset_in(GRID) == (1, 6, 6)
    assert masks["2"].geometry.offset_in(GRID) == (5, 1, 1)


def test_a_part_is_not_joined_through_another_label():
    values = np.zeros(SHAPE, np.int32)
    values[1, 1, 1:6] = [1, 1, 2, 1, 1]
    assert [m.voxels for m in label_masks(LabelMap(values, GRID), split=True).values()] == [2, 2, 1]


def test_an_empty_label_map_has_no_lesions():
    assert label_masks(LabelMap(np.zeros(SHAPE, np.uint8), GRID)) == {}


def test_thousands_of_labels_and_very_large_ones_are_found():
    values = np.zeros((40, 40, 40), np.int32)
    values.flat[::20] = np.arange(1, 3201)
    values[0, 0, 1] = 12_345_678
    masks = label_masks(LabelMap(values, Geometry(values.shape, np.eye(4))))
    assert len(masks) == 3201
    assert masks["12345678"].voxels == 1
    assert masks["3200"].voxels == 1


def test_what_is_no_label_map_is_refused(tmp_path):
    write_volume(tmp_path / "scan.nii", Volume(RNG.normal(0, 1, SHAPE).astype(np.float32), GRID, "MR"))
    refused(read_label_map, tmp_path / "scan.nii", "which has the value")
    write_volume(tmp_path / "ct.nii", Volume(np.full(SHAPE, -1000, np.int16), GRID, "CT"))
    refused(read_label_map, tmp_path / "ct.nii", "label -1000")
    write_volume(tmp_path / "nan.nii", Volume(np.full(SHAPE, np.nan, np.float32), GRID, "CT"))
    refused(read_label_map, tmp_path / "nan.nii", "nan")
    write_volume(tmp_path / "whole.nii", Volume(np.full(SHAPE, 3, np.float32), GRID, "MR"))
    assert read_label_map(tmp_path / "whole.nii").values.max() == 3


# ------------------------------------------------------------------------------------------------------ NRRD, MetaImage


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd", ".nhdr"])
def test_a_voxel_lies_where_simpleitk_puts_it(tmp_path, ending):
    image = SimpleITK.GetImageFromArray(RNG.integers(0, 900, SHAPE).astype(np.int16))
    image.SetSpacing((0.7, 0.8, 3.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection((0, 1, 0, 0, 0, -1, -1, 0, 0))
    SimpleITK.WriteImage(image, str(tmp_path / f"scan{ending}"))
    volume = read_volume(tmp_path / f"scan{ending}", "MR")
    assert volume.name == "scan"
    at = image.TransformIndexToPhysicalPoint((7, 1, 3))
    assert_allclose(volume.geometry.index_to_world(np.array([[3.0, 1, 7]]))[0], at)
    assert volume.array[3, 1, 7] == image[7, 1, 3]


def nrrd(path, *, sizes=(11, 9, 7), space="left-posterior-superior", extra="", data=None):
    fields = f"NRRD0005\ntype: short\ndimension: 3\nsizes: {' '.join(map(str, sizes))}\nencoding: raw\nendian: little\n"
    place = "space directions: (1,0,0) (0,1,0) (0,0,2)\nspace origin: (1,2,3)\n"
    header = fields + (f"space: {space}\n{place}" if space else "spacings: 1 1 2\n") + extra + "\n"
    path.write_bytes(header.encode() + (np.zeros(7 * 9 * 11, "<i2").tobytes() if data is None else data))
    return path


def test_a_file_in_ras_is_turned_to_lps(tmp_path):
    volume = read_volume(nrrd(tmp_path / "scan.nrrd", space="right-anterior-superior"), "CT")
    assert_allclose(volume.geometry.affine[:3, 3], [-1, -2, 3])


def test_a_file_that_does_not_name_its_space_is_read_with_a_warning(tmp_path):
    assert "space" in read_volume(nrrd(tmp_path / "scan.nrrd", space=None), "CT").warnings[0]
    assert read_volume(nrrd(tmp_path / "known.nrrd"), "CT").warnings == ()


def test_broken_nrrd_files_are_refused(tmp_path, capfd):
    refused(read_volume, nrrd(tmp_path / "a.nrrd", sizes=(30000, 30000, 30000)), "announces")
    refused(read_volume, nrrd(tmp_path / "b.nrrd", data=b"\0" * 100), "announces")
    refused(read_volume, nrrd(tmp_path / "c.nrrd", sizes=(-11, 9, 7)), "cannot be read")
    refused(read_volume, nrrd(tmp_path / "d.nrrd", extra='space units: "cm" "cm" "cm"\n'), "cm")
    (tmp_path / "e.nrrd").write_bytes(b"")
    refused(read_volume, tmp_path / "e.nrrd", "0 bytes")
    (tmp_path / "f.nrrd").write_bytes(b"not an image at all")
    refused(read_volume, tmp_path / "f.nrrd", "cannot be read")
    refused(read_volume, tmp_path / "g.nrrd", "no file")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("keep", [0.2, 0.7, 0.95])
def test_a_packed_file_that_ends_early_is_refused(tmp_path, ending, keep, capfd):
    array = RNG.integers(-1000, 1000, (30, 40, 50)).astype(np.int16)
    path = tmp_path / f"scan{ending}"
    write_volume(path, Volume(array, Geometry(array.shape, np.eye(4)), "CT"))
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    refused(read_volume, path, str(path))
    assert capfd.readouterr().err == ""


def test_packed_voxels_that_are_damaged_are_refused_without_noise(tmp_path, capfd):
    array = RNG.integers(-1000, 1000, (30, 40, 50)).astype(np.int16)
    for ending in (".nrrd", ".mha"):
        path = tmp_path / f"scan{ending}"
        write_volume(path, Volume(array, Geometry(array.shape, np.eye(4)), "CT"))
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2 : len(whole) // 2 + 2000] = b"\xaa" * 2000
        path.write_bytes(whole)
        refused(read_volume, path, "cannot be read")
    path.write_bytes(bytes(whole).replace(b"CompressedDataSize = ", b"CompressedDataSize = x"))
    refused(read_volume, path, "cannot be read")
    assert capfd.readouterr().err == ""


def test_an_unpacked_metaimage_that_ends_early_is_refused(tmp_path, capfd):
    image = SimpleITK.GetImageFromArray(np.zeros(SHAPE, np.int16))
    for ending in (".mha", ".mhd"):
        SimpleITK.WriteImage(image, str(tmp_path / f"scan{ending}"))
    whole = (tmp_path / "scan.mha").read_bytes()
    (tmp_path / "scan.mha").write_bytes(whole[:-100])
    refused(read_volume, tmp_path / "scan.mha", "announces")
    (tmp_path / "scan.raw").write_bytes(b"\0" * 10)
    refused(read_volume, tmp_path / "scan.mhd", "announces")
    (tmp_path / "scan.raw").unlink()
    refused(read_volume, tmp_path / "scan.mhd", "no file")
    huge = whole.replace(b"DimSize = 11 9 7", b"DimSize = 30000 30000 30000")
    (tmp_path / "scan.mha").write_bytes(huge)
    refused(read_volume, tmp_path / "scan.mha", "announces")
    assert capfd.readouterr().err == ""


def test_more_than_one_number_for_a_voxel_is_refused(tmp_path):
    colours = SimpleITK.GetImageFromArray(np.zeros((*SHAPE, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(colours, str(tmp_path / "rgb.nrrd"))
    refused(read_volume, tmp_path / "rgb.nrrd", "3 numbers")
    four = SimpleITK.GetImageFromArray(np.zeros((2, *SHAPE), np.uint8), isVector=False)
    SimpleITK.WriteImage(four, str(tmp_path / "four.nrrd"))
    refused(read_volume, tmp_path / "four.nrrd", "sizes")
    flat = SimpleITK.GetImageFromArray(np.zeros((5, 6), np.uint8))
    SimpleITK.WriteImage(flat, str(tmp_path / "flat.mha"))
    refused(read_volume, tmp_path / "flat.mha", "sizes")
