"""Scores, each against an answer by hand, and against the library on whole volumes."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from surface_distance import metrics

from files import LEFT, RIGHT, save_labels
from lesionlocator import cli
from lesionlocator.errors import Refused
from lesionlocator.evaluate.files import MISSING, score_files
from lesionlocator.geometry import AffineMap, Alignment, Geometry
from lesionlocator.score import (
    count_identity_switches,
    false_volumes,
    score_confidence,
    score_events,
    score_masks,
    score_retrieval,
)
from lesionlocator.score.retrieval import Found
from lesionlocator.volume import Mask
from strategies import PERMUTATIONS, stored

GRID = Geometry((20, 24, 28), np.diag([2.0, 1.0, 1.5, 1.0]))


def block(start, stop, geometry=GRID) -> Mask:
    array = np.zeros(geometry.shape, bool)
    array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return Mask.from_array(array, geometry)


@st.composite
def masks(draw, geometry=GRID):
    """Two or three random blocks joined: odd shapes, sometimes in several parts."""
    array = np.zeros(geometry.shape, bool)
    for _ in range(draw(st.integers(1, 3))):
        start = [draw(st.integers(0, n - 3)) for n in geometry.shape]
        stop = [draw(st.integers(a + 2, min(a + 9, n))) for a, n in zip(start, geometry.shape, strict=True)]
        array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return Mask.from_array(array, geometry)


EMPTY = Mask.empty(GRID)


def test_two_blocks_that_share_half_have_a_dice_of_one_half():
    score = score_masks(block((0, 0, 0), (4, 4, 4)), block((2, 0, 0), (6, 4, 4)))
    assert score.dice == 0.5
    assert score.volume_error_ml == 0.0


def test_a_plane_moved_by_four_millimetres_is_four_millimetres_off():
    thin = block((4, 4, 4), (5, 20, 24)), block((6, 4, 4), (7, 20, 24))
    score = score_masks(*thin)
    assert score.hd95_mm == pytest.approx(4.0)
    assert score.dice == 0.0
    assert score_masks(*thin, tolerance_mm=4.0).nsd == pytest.approx(1.0)
    # Each sheet is 2 mm thick: the sides that face each other are 2 mm apart, the other half of the surface 4 mm.
    assert score_masks(*thin, tolerance_mm=3.9).nsd == pytest.approx(0.5)


def test_volume_and_diameter_errors_are_predicted_minus_true():
    score = score_masks(block((2, 2, 2), (4, 8, 12)), block((2, 2, 2), (6, 8, 12)))
    assert score.volume_error_ml == pytest.approx(-2 * 6 * 10 * 0.003)
    assert score.volume_error_percent == pytest.approx(-50.0)
    # With d along x, h along y and w along z, the axial slice is the plane of d and h.
    assert score.diameter_error_mm == pytest.approx(np.hypot(4, 5) - np.hypot(8, 5), abs=1.0)


def test_the_tolerance_is_two_millimetres_or_the_slice_thickness():
    thick = Geometry((5, 5, 5), np.diag([5.0, 1.0, 1.0, 1.0]))
    assert score_masks(EMPTY, EMPTY).tolerance_mm == 2.0
    assert score_masks(Mask.empty(thick), Mask.empty(thick)).tolerance_mm == 5.0


def test_nothing_predicted_where_nothing_is_is_right():
    score = score_masks(EMPTY, EMPTY)
    assert (score.dice, score.nsd, score.hd95_mm, score.volume_error_percent) == (1.0, 1.0, 0.0, None)


def test_an_outline_of_a_lesion_that_is_gone_counts_against():
    score = score_masks(block((0, 0, 0), (2, 2, 2)), EMPTY)
    assert (score.dice, score.nsd, score.hd95_mm) == (0.0, 0.0, None)
    assert score.volume_error_ml == pytest.approx(0.024) and score.volume_error_percent is None
    missed = score_masks(EMPTY, block((0, 0, 0), (2, 2, 2)))
    assert (missed.dice, missed.volume_error_percent) == (0.0, pytest.approx(-100.0))


@given(one=masks(), other=masks())
def test_scores_in_the_crop_are_those_of_the_library_on_the_whole_volume(one, other):
    score = score_masks(one, other, tolerance_mm=2.0)
    whole = other.on(GRID), one.on(GRID)
    distances = metrics.compute_surface_distances(*whole, GRID.spacing_mm)
    assert score.dice == pytest.approx(metrics.compute_dice_coefficient(*whole), abs=1e-6)
    assert score.nsd == pytest.approx(metrics.compute_surface_dice_at_tolerance(distances, 2.0), abs=1e-6)
    assert score.hd95_mm == pytest.approx(metrics.compute_robust_hausdorff(distances, 95), abs=1e-6)


@given(one=masks(), other=masks())
def test_overlap_scores_are_symmetric_bounded_and_one_for_itself(one, other):
    there, back = score_masks(one, other), score_masks(other, one)
    assert there.dice == back.dice and there.nsd == pytest.approx(back.nsd) and there.hd95_mm == back.hd95_mm
    assert 0 <= there.dice <= 1 and 0 <= there.nsd <= 1 + 1e-9 and (there.hd95_mm or 0) >= 0
    assert there.volume_error_ml == pytest.approx(-back.volume_error_ml)
    itself = score_masks(one, one)
    assert (itself.dice, itself.hd95_mm, itself.volume_error_ml) == (1.0, 0.0, 0.0)


@given(one=masks(), other=masks(), turn=st.sampled_from(PERMUTATIONS))
def test_scores_do_not_depend_on_the_order_of_storage(one, other, turn):
    turned = [Mask.from_array(*stored(mask.on(GRID), GRID, *turn)) for mask in (one, other)]
    expected, found = score_masks(one, other), score_masks(*turned)
    assert_allclose([found.dice, found.nsd, found.hd95_mm], [expected.dice, expected.nsd, expected.hd95_mm], atol=1e-6)
    assert found.diameter_error_mm == pytest.approx(expected.diameter_error_mm)


def test_false_volumes_are_those_of_parts_without_any_overlap():
    truth = Mask.from_array(block((0, 0, 0), (2, 2, 2)).on(GRID) | block((10, 10, 10), (12, 12, 12)).on(GRID), GRID)
    predicted = Mask.from_array(block((1, 1, 1), (4, 4, 4)).on(GRID) | block((15, 0, 0), (16, 1, 1)).on(GRID), GRID)
    assert false_volumes(predicted, truth) == (pytest.approx(0.003), pytest.approx(8 * 0.003))


def test_parts_that_meet_at_an_edge_are_one_and_at_a_corner_are_two():
    touching = np.zeros(GRID.shape, bool)
    touching[0, 0, 0] = touching[0, 1, 1] = touching[1, 2, 2] = True
    found, _ = false_volumes(Mask.from_array(touching, GRID), block((0, 0, 0), (1, 1, 1)))
    assert found == pytest.approx(0.003)


def test_masks_on_different_grids_are_refused():
    other = Geometry((5, 5, 5), np.diag([2.0, 2.0, 2.0, 1.0]))
    with pytest.raises(Refused, match="another grid"):
        score_masks(block((0, 0, 0), (2, 2, 2), other), block((0, 0, 0), (2, 2, 2)))


# ------------------------------------------------------------------------------------------------------ retrieval


def moved(mask: Mask, by_mm) -> Mask:
    wide = GRID.crop((-40, -40, -40), (60, 60, 60))
    return mask.warped(wide, Alignment.from_affine(AffineMap.shift(np.array(by_mm, float))))


def test_centres_are_matched_within_the_radius_ten_and_twentyfive_millimetres():
    truth = block((4, 4, 4), (12, 20, 12))  # 16 mm by 16 mm by 12 mm: radius about 11 mm, so 10 mm counts
    near, far, lost = moved(truth, (8, 0, 0)), moved(truth, (0, 12, 0)), None
    score = score_retrieval([Found(truth, near), Found(truth, far), Found(truth, lost)])
    assert (score.lesions, score.cpm_10, score.cpm_25) == (3, pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert score.centre_error_mm == pytest.approx(10.0)
    assert_allclose(score.centre_error_xyz_mm, (4.0, 6.0, 0.0), atol=1e-9)
    assert score.detected == pytest.approx(1 / 3)


def test_a_small_lesion_must_be_met_within_its_own_radius():
    small = block((4, 4, 4), (6, 8, 6))  # 4 mm wide: radius under 3 mm
    assert score_retrieval([Found(small, moved(small, (4, 0, 0)))]).cpm_10 == 0.0


def test_nothing_to_find_has_no_scores():
    assert score_retrieval([]).cpm_25 is None


# --------------------------------------------------------------------------------------------------------- events


def test_events_are_counted_by_kind():
    truth = [(1, "same"), (2, "vanished"), (3, "split"), (4, "same")]
    said = [(1, "same"), (2, "same"), (3, "split"), (4, "unsure"), (5, "new")]
    scores = score_events(said, truth)
    assert (scores["same"].precision, scores["same"].recall, scores["same"].f1) == (0.5, 0.5, 0.5)
    assert (scores["vanished"].precision, scores["vanished"].recall) == (None, 0.0)
    assert scores["split"].f1 == 1.0
    assert (scores["new"].precision, scores["new"].recall) == (0.0, None)
    assert scores["merged"].f1 is None and "unsure" not in scores


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ([{"1": "1", "2": "2"}, {"1": "1", "2": "2"}], (0, 2)),
        ([{"1": "1", "2": "2"}, {"1": "2", "2": "1"}], (2, 2)),  # two lesions swap names
        ([{"1": "1"}, {}, {"1": "1"}], (0, 1)),  # not found in between, found again under its name
        ([{"1": "1"}, {}, {"1": "7"}], (1, 1)),
        ([], (0, 0)),
    ],
)
def test_identity_switches_are_counted_over_the_chain(chain, expected):
    assert count_identity_switches(chain) == expected


# ----------------------------------------------------------------------------------------------------- confidence


def test_a_model_that_knows_has_no_difference_and_less_risk_when_it_leaves_the_unsure_out():
    score = score_confidence([0.9, 0.5, 0.1], [0.9, 0.5, 0.1])
    assert score.mean_absolute_difference == 0.0
    assert_allclose(score.risk_by_coverage, [(1 / 3, 0.1), (2 / 3, 0.3), (1.0, 0.5)])
    assert score.area_under_risk == pytest.approx(0.3)
    assert [b.answers for b in score.reliability] == [1, 0, 1, 0, 1]


def test_confidence_in_the_wrong_order_has_more_risk():
    assert (
        score_confidence([0.1, 0.9], [1.0, 0.0]).area_under_risk
        > score_confidence([0.9, 0.1], [1.0, 0.0]).area_under_risk
    )
    assert score_confidence([], []).area_under_risk is None


# ---------------------------------------------------------------------------------------------------------- files


def test_files_are_scored_by_label_and_folders_by_name(tmp_path):
    for folder in ("found", "true"):
        (tmp_path / folder).mkdir()
    save_labels(tmp_path / "true" / "a.nii.gz", {2: LEFT, 5: RIGHT})
    save_labels(tmp_path / "found" / "a.nii.gz", {2: LEFT, 7: RIGHT})
    save_labels(tmp_path / "true" / "b.nii.gz", {1: LEFT})
    save_labels(tmp_path / "found" / "b.nii.gz", {255: LEFT})
    save_labels(tmp_path / "true" / "c.nii.gz", {1: LEFT, 2: RIGHT})
    save_labels(tmp_path / "found" / "d.nii.gz", {1: LEFT})
    rows = score_files(tmp_path / "found", tmp_path / "true")
    dice = {(row.name, row.lesion_id): row.score.dice if row.score else None for row in rows}
    assert dice == {
        ("a", "2"): 1.0, ("a", "5"): 0.0, ("a", "7"): 0.0, ("b", "1"): 1.0,
        ("c", "1"): 0.0, ("c", "2"): 0.0, ("d", ""): None,
    }  # fmt: skip
    reasons = {(row.name, row.lesion_id): row.reason for row in rows}
    assert reasons["c", "1"] == MISSING and "no such lesion" in reasons["a", "7"] and "no truth" in reasons["d", ""]


def test_bad_files_are_named_and_the_others_are_scored(tmp_path, capsys):
    from visits import grid

    for folder in ("found", "true"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b", "c"):
            save_labels(tmp_path / folder / f"{name}.nii.gz", {1: LEFT})
    save_labels(tmp_path / "found" / "b.nii", {1: LEFT})
    save_labels(tmp_path / "found" / "c.nii.gz", {1: LEFT}, grid((-25.0, 75.0)))
    (tmp_path / "found" / "d.nii.gz").write_bytes(b"no image")
    save_labels(tmp_path / "true" / "d.nii.gz", {1: LEFT})
    assert cli.run(["score", str(tmp_path / "found"), str(tmp_path / "true"), "--json"]) == 3
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["lesions"]}
    assert rows["a"]["dice"] == 1.0
    assert {name: rows[name]["dice"] for name in "bcd"} == dict.fromkeys("bcd")
    assert "2 files of this name" in rows["b"]["reason"] and "grid" in rows["c"]["reason"] and rows["d"]["reason"]


def test_the_command_prints_unrounded_scores(tmp_path, capsys):
    one = save_labels(tmp_path / "one.nii.gz", {1: LEFT})
    other = save_labels(tmp_path / "other.nii.gz", {1: LEFT.at(x=3.0)})
    assert cli.run(["score", str(one), str(other), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"dice", "nsd", "hd95_mm", "volume_error_ml"} <= set(answer["lesions"][0])
    assert answer["dice"] == answer["lesions"][0]["dice"] and 0.5 < answer["dice"] < 1


def test_a_prediction_on_another_grid_is_refused_or_named(tmp_path, capsys):
    from visits import grid

    one = save_labels(tmp_path / "one.nii.gz", {1: LEFT})
    other = save_labels(tmp_path / "two.nii.gz", {1: LEFT}, grid((-25.0, 75.0)))
    assert cli.run(["score", str(one), str(other)]) == 2
    assert "same grid" in capsys.readouterr().err
    assert cli.run(["score", str(one), str(tmp_path)]) == 2
