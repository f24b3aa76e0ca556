import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lesionlocator.case import Case, Lesion, Status, Timepoint
from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry
from lesionlocator.measure import Row, measure_case, measure_changes, measure_diameters, measure_lesion
from lesionlocator.volume import Mask, Volume
from strategies import PERMUTATIONS, rotation, stored

AXIAL = Geometry((20, 70, 70), np.array([[0, 0, 0.7, 0], [0, 0.7, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]]))


def ellipsoid(geometry: Geometry, half_mm, turn: float = 0.0) -> Mask:
    index = np.indices(geometry.shape).reshape(3, -1).T.astype(float)
    offset = (geometry.index_to_world(index) - geometry.centre_mm) @ rotation([0.0, 0.0, turn])
    return Mask.from_array((np.sum((offset / half_mm) ** 2, axis=1) <= 1).reshape(geometry.shape), geometry)


@given(turn=st.floats(-1.5, 1.5), long_mm=st.floats(8, 22), ratio=st.floats(0.4, 0.9))
def test_an_ellipsoid_has_its_diameters_at_any_angle(turn, long_mm, ratio):
    found = measure_diameters(ellipsoid(AXIAL, (long_mm, long_mm * ratio, 15.0), turn))
    assert found.long_mm == pytest.approx(2 * long_mm, abs=1.2)
    assert found.short_mm == pytest.approx(2 * long_mm * ratio, abs=1.6)


@given(turn=st.floats(-1.5, 1.5))
def test_the_short_axis_is_perpendicular_to_the_long_one_and_in_its_slice(turn):
    found = measure_diameters(ellipsoid(AXIAL, (20.0, 9.0, 15.0), turn))
    (long_start, long_end), (short_start, short_end) = found.long_ends, found.short_ends
    assert (long_end - long_start) @ (short_end - short_start) == pytest.approx(0.0, abs=1e-6)
    assert_allclose([long_start[2], short_start[2], short_end[2]], long_end[2], atol=1e-9)
    assert np.linalg.norm(short_end - short_start) == pytest.approx(found.short_mm)


def test_a_lesion_longest_along_the_body_is_measured_across_it():
    found = measure_diameters(ellipsoid(AXIAL, (6.0, 6.0, 25.0)))
    assert found.long_mm == pytest.approx(12.0, abs=1.2)


def test_parts_that_do_not_touch_are_not_measured_across_the_gap():
    array = np.zeros(AXIAL.shape, bool)
    array[10, 10:20, 10:14] = True
    array[10, 40:43, 60:63] = True
    found = measure_diameters(Mask.from_array(array, AXIAL))
    assert found.long_mm == pytest.approx(0.7 * np.hypot(10, 3), abs=0.3)


def test_one_voxel_is_as_wide_as_it_is():
    geometry = Geometry((1, 1, 1), np.array([[0, 0, 0.8, 0], [0, 0.6, 0, 0], [5.0, 0, 0, 0], [0, 0, 0, 1]]))
    found = measure_diameters(Mask.from_array(np.ones((1, 1, 1), bool), geometry))
    assert (found.long_mm, found.short_mm) == (pytest.approx(0.8), pytest.approx(0.6))


def test_a_row_of_ten_voxels_is_ten_voxels_long():
    geometry = Geometry((1, 1, 10), np.array([[0, 0, 2.0, 0], [0, 1.0, 0, 0], [5.0, 0, 0, 0], [0, 0, 0, 1]]))
    found = measure_diameters(Mask.from_array(np.ones((1, 1, 10), bool), geometry))
    assert (found.long_mm, found.short_mm) == (pytest.approx(20.0), pytest.approx(1.0))


@pytest.mark.parametrize(("order", "signs"), PERMUTATIONS[::7])
def test_diameters_do_not_depend_on_the_order_of_storage(order, signs):
    mask = ellipsoid(AXIAL, (20.0, 9.0, 15.0), 0.4)
    array, geometry = stored(mask.on(AXIAL), AXIAL, order, signs)
    found, expected = measure_diameters(Mask.from_array(array, geometry)), measure_diameters(mask)
    assert (found.long_mm, found.short_mm) == (pytest.approx(expected.long_mm), pytest.approx(expected.short_mm))


def test_a_ball_of_ten_millimetres_has_its_volume_and_values():
    mask = ellipsoid(AXIAL, (10.0, 10.0, 10.0))
    values = np.full(AXIAL.shape, -1000, np.int16)
    values[mask.on(AXIAL)] = 40
    values[tuple(np.argwhere(mask.on(AXIAL))[0])] = 70
    row = measure_lesion(Lesion("3", (), mask, Status.OUTLINED, confidence=0.5), "a", Volume(values, AXIAL, "CT"))
    assert row.volume_ml == pytest.approx(4.19, rel=0.03)
    assert (row.min, row.max, row.unit, row.confidence) == (40.0, 70.0, "HU", 0.5)
    assert row.mean == pytest.approx(40 + 30 / mask.voxels)
    assert_allclose([row.centre_x_mm, row.centre_y_mm, row.centre_z_mm], AXIAL.centre_mm, atol=0.5)


def test_a_lesion_without_an_outline_keeps_its_row_and_reason():
    lesions = (Lesion("1", (), None, Status.ABSENT, "gone"), Lesion("2", (), None, Status.FAILED, "NaN"))
    rows = measure_case(Case((Timepoint("a", AXIAL, lambda: Volume(np.zeros(AXIAL.shape), AXIAL, "CT"), lesions),)))
    assert [(row.lesion_id, row.status, row.reason, row.volume_ml) for row in rows] == [
        ("1", "absent", "gone", None),
        ("2", "failed", "NaN", None),
    ]


def test_a_mask_of_another_grid_is_not_measured():
    mask = ellipsoid(AXIAL, (10.0, 10.0, 10.0))
    other = Geometry(AXIAL.shape, AXIAL.affine + np.array([[0, 0, 0, 0.2]] * 3 + [[0, 0, 0, 0]]))
    with pytest.raises(Refused, match="same grid"):
        measure_lesion(Lesion("1", (), mask), "a", Volume(np.zeros(AXIAL.shape), other, "CT"))


def test_change_is_counted_from_the_first_scan_and_from_the_smallest_before():
    def row(scan, volume, diameter, status=Status.OUTLINED):
        return Row(scan, "1", status, volume_ml=volume, long_axis_mm=diameter)

    rows = [row("a", 10.0, 20.0), row("b", 5.0, 16.0), row("c", 8.0, 20.0), row("d", None, None, Status.ABSENT)]
    changes = measure_changes(rows)
    assert [change.volume_from_baseline_percent for change in changes] == [None, -50.0, pytest.approx(-20), -100.0]
    assert [change.volume_from_nadir_percent for change in changes] == [None, -50.0, pytest.approx(60), -100.0]
    assert changes[2].long_axis_from_nadir_percent == pytest.approx(25)


def test_a_lesion_that_is_part_of_another_one_is_not_counted_as_gone():
    rows = [
        Row("a", "1", Status.OUTLINED, volume_ml=4.0, long_axis_mm=8.0),
        Row("b", "1", Status.ABSENT, reason="merged into lesion 2"),
        Row("c", "1", Status.OUTLINED, volume_ml=2.0, long_axis_mm=4.0),
    ]
    changes = measure_changes(rows, {("b", "1")})
    assert changes[1].volume_from_baseline_percent is None
    assert changes[2].volume_from_nadir_percent == -50.0
    assert measure_changes(rows)[1].volume_from_baseline_percent == -100.0


def test_a_lesion_that_could_not_be_outlined_has_no_change():
    rows = [Row("a", "1", Status.OUTLINED, volume_ml=1.0, long_axis_mm=1.0), Row("b", "1", Status.FAILED)]
    assert measure_changes(rows)[1].volume_from_baseline_percent is None
