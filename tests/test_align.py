"""Two scans of one trunk: what moved has to be found where it went."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from lesionlocator.align import ALIGNERS, DEFAULT_ALIGNER, FieldMap, align_quality
from lesionlocator.align.field import first_then, flow
from lesionlocator.errors import Refused
from lesionlocator.geometry import AffineMap, Alignment, Geometry, PointMap, compose
from lesionlocator.volume import Volume
from phantoms import torso, torso_hu, turned, upright
from strategies import stored

SPACING_MM = 5.0
PHASE_MM = np.array([1.7, -2.2, 1.3])
SEARCHING = ["rigid", "affine", "deformable"]


def visit(
    where_from: PointMap | None = None, z_mm=(-140.0, 140.0), at_mm=(0.0, 0.0, 0.0), seed=0, spacing_mm=SPACING_MM
):
    """A scan of the trunk from z to z around a place of its own; a later visit's voxels lie between the first's."""
    depth, height, width = (round(n / spacing_mm) for n in (z_mm[1] - z_mm[0], 200, 280))
    centre = (at_mm[0], at_mm[1], at_mm[2] + (z_mm[0] + z_mm[1]) / 2)
    centre = centre if where_from is None else tuple(centre + PHASE_MM)
    return torso(upright((depth, height, width), spacing_mm, centre), where_from, seed)


@dataclass(frozen=True)
class Bulge:
    """A smooth push towards x, strongest at a place: 8 mm there, half of it 35 mm away."""

    sign: float = 1.0

    def __call__(self, at_mm: np.ndarray) -> np.ndarray:
        away = np.linalg.norm(at_mm - np.array([-40.0, -10.0, -20.0]), axis=1)
        return at_mm + np.array([8.0, 0, 0]) * self.sign * np.exp(-((away / 42) ** 2))[:, None]


@pytest.fixture(scope="module")
def places() -> np.ndarray:
    """Places in the trunk, away from its ends."""
    at_mm = np.random.default_rng(1).uniform((-100, -65, -110), (100, 65, 110), (600, 3))
    return at_mm[torso_hu(at_mm) > -500]


@pytest.fixture(scope="module")
def baseline() -> Volume:
    return visit()


@pytest.fixture(scope="module")
def shifted() -> tuple[Volume, PointMap]:
    """A second visit with the patient turned by six degrees, on a table 300 mm further along."""
    there = turned(6, (40.0, -25.0, 300.0))
    return visit(there.inverse(), at_mm=(40.0, -25.0, 300.0), seed=1), there


@pytest.fixture(scope="module")
def turn_answers(baseline, shifted) -> dict[str, Alignment]:
    """What every aligner says about the turned patient."""
    return {name: aligner(baseline, shifted[0]) for name, aligner in ALIGNERS.items()}


@pytest.fixture(scope="module")
def bulged(baseline) -> tuple[Alignment, PointMap]:
    """The deformable answer for a second visit with a bulge of 8 mm and a shift of the table."""
    push = Bulge()
    back = compose(AffineMap.shift(np.array([0.0, 0.0, -90.0])), push)
    answer = ALIGNERS["deformable"](baseline, visit(back, at_mm=(0.0, 0.0, 90.0), seed=2))
    return answer, back


@pytest.mark.parametrize("name", SEARCHING)
def test_a_turned_patient_on_a_table_300_mm_away_is_found(name, turn_answers, shifted, places):
    answer = turn_answers[name]
    errors = np.linalg.norm(answer.forward(places) - shifted[1](places), axis=1)
    assert np.median(errors) < 1.0
    assert np.percentile(errors, 95) < 2.5
    assert not [warning for warning in answer.warnings if "overlap" in warning or "resemble" in warning]


@pytest.mark.parametrize("name", list(ALIGNERS))
def test_there_and_back_is_the_same_place(name, turn_answers, places):
    answer = turn_answers[name]
    assert np.abs(answer.backward(answer.forward(places)) - places).max() < 1.0
    far = places + 400.0
    assert np.abs(answer.backward(answer.forward(far)) - far).max() < 1.0


def test_the_header_is_believed_when_asked_for(baseline, places):
    assert_array_equal(ALIGNERS["header"](baseline, baseline).forward(places), places)


def test_the_centres_of_two_whole_bodies_are_brought_together(baseline, places):
    followup = visit(AffineMap.shift(np.array([0.0, 0.0, -300.0])), at_mm=(0.0, 0.0, 300.0), seed=1)
    moved = ALIGNERS["centre"](baseline, followup).forward(places) - places
    assert_allclose(moved, np.broadcast_to([0.0, 0.0, 300.0], moved.shape), atol=2.5)


@pytest.mark.parametrize(("z_mm", "side"), [((0.0, 140.0), "chest"), ((-140.0, 0.0), "abdomen")])
def test_half_a_trunk_is_found_in_the_whole(z_mm, side, baseline, places):
    shift = np.array([-20.0, 30.0, 500.0])
    followup = visit(AffineMap.shift(-shift), z_mm, tuple(shift), seed=3)
    shown = places[(places[:, 2] > z_mm[0]) & (places[:, 2] < z_mm[1])]
    for one, other, sign in ((baseline, followup, 1), (followup, baseline, -1)):
        answer = ALIGNERS["rigid"](one, other)
        start = shown if sign > 0 else shown + shift
        errors = np.linalg.norm(answer.forward(start) - start - sign * shift, axis=1)
        assert np.median(errors) < 0.35 * SPACING_MM, side


def test_scans_that_share_a_third_are_brought_together(places):
    upper = visit(z_mm=(-50.0, 140.0))
    shift = np.array([0.0, 0.0, -700.0])
    lower = visit(AffineMap.shift(-shift), (-140.0, 50.0), tuple(shift), seed=4)
    shown = places[np.abs(places[:, 2]) < 50]
    errors = np.linalg.norm(ALIGNERS["rigid"](upper, lower).forward(shown) - shown - shift, axis=1)
    assert np.median(errors) < 1.5


def test_a_deformation_follows_a_bulge_where_a_rigid_map_cannot(bulged, places):
    answer, back = bulged
    here = places[np.linalg.norm(places - np.array([-40.0, -10.0, -20.0]), axis=1) < 50]
    left = np.median(np.linalg.norm(back(answer.forward(here)) - here, axis=1))
    left_by_the_right_shift = np.median(np.linalg.norm(back(here + np.array([0.0, 0.0, 90.0])) - here, axis=1))
    assert left < 0.67 * left_by_the_right_shift
    assert "deformation" not in " ".join(answer.warnings)


def test_a_deformation_folds_nowhere_and_keeps_volumes_within_reason(bulged):
    fields = [part for part in bulged[0].forward.maps if isinstance(part, FieldMap)]
    assert len(fields) == 1
    change = fields[0].volume_change()
    assert change.min() > 0.3
    assert change.max() < 3.0


def test_a_lesion_that_grew_is_not_shrunk_back_by_the_alignment(baseline):
    """Its diameter doubles from 20 to 40 mm: eight times the volume, of which the map may take little."""
    centre = np.array([-45.0, -10.0, -25.0])
    scans = []
    for radius, seed in ((10.0, 0), (20.0, 5)):
        scan = visit(seed=seed)
        index = np.indices(scan.geometry.shape).reshape(3, -1).T.astype(float)
        inside = np.linalg.norm(scan.geometry.index_to_world(index) - centre, axis=1) <= radius
        scans.append(replace(scan, array=np.where(inside.reshape(scan.array.shape), 20.0, scan.array)))
    answer = ALIGNERS["deformable"](*scans)
    sphere = np.random.default_rng(0).normal(size=(400, 3))
    surface = centre + 10 * sphere / np.linalg.norm(sphere, axis=1, keepdims=True)
    moved = answer.forward(surface)
    radius = np.linalg.norm(moved - moved.mean(axis=0), axis=1).mean()
    assert radius**3 / 1000 == pytest.approx(1.0, abs=0.25)


def test_the_storage_order_of_a_scan_does_not_matter(baseline, shifted, turn_answers, places):
    """Of the last aligner, which begins with what the others find."""
    followup, _ = shifted
    array, geometry = stored(followup.array, followup.geometry, (2, 0, 1), (-1, 1, -1))
    same = ALIGNERS["deformable"](baseline, replace(followup, array=array, geometry=geometry))
    assert np.abs(same.forward(places) - turn_answers["deformable"].forward(places)).max() < 0.1


def test_other_voxels_give_the_same_answer(baseline, places):
    shift = np.array([12.0, -8.0, 60.0])
    followup = visit(AffineMap.shift(-shift), at_mm=tuple(shift), seed=6, spacing_mm=4.0)
    errors = np.linalg.norm(ALIGNERS["rigid"](baseline, followup).forward(places) - places - shift, axis=1)
    assert np.median(errors) < 1.0


def test_a_second_run_gives_the_same_bits(baseline, shifted, turn_answers, places):
    first, second = turn_answers["deformable"], ALIGNERS["deformable"](baseline, shifted[0])
    assert_array_equal(first.forward(places), second.forward(places))
    assert_array_equal(first.backward(places), second.backward(places))


def test_an_alignment_survives_the_way_to_another_process(bulged, places):
    again = pickle.loads(pickle.dumps(bulged[0]))
    assert_array_equal(again.forward(places), bulged[0].forward(places))


@pytest.mark.parametrize("name", ["centre", *SEARCHING])
def test_a_scan_without_a_picture_is_refused(name, baseline):
    blank = replace(baseline, array=np.zeros(baseline.array.shape, np.int16), name="blank")
    with pytest.raises(Refused, match="blank"):
        ALIGNERS[name](baseline, blank)
    with pytest.raises(Refused, match="blank"):
        ALIGNERS[name](replace(blank, array=np.full(blank.array.shape, np.nan)), baseline)


def test_scans_without_a_common_place_are_named(baseline, shifted):
    far = visit(at_mm=(0.0, 0.0, 2000.0))
    assert "share no place" in " ".join(ALIGNERS["header"](baseline, far).warnings)


def test_scans_of_different_things_are_doubted(baseline):
    noise = np.random.default_rng(0).normal(0, 300, baseline.array.shape)
    answer = ALIGNERS["rigid"](baseline, replace(baseline, array=noise, name="noise"))
    assert "hardly resemble" in " ".join(answer.warnings)


def test_an_mr_with_another_contrast_and_an_uneven_coil_is_aligned(baseline, shifted, places):
    followup, there = shifted

    def as_mr(scan: Volume, gain: float, slope: float) -> Volume:
        index = np.indices(scan.geometry.shape).reshape(3, -1).T.astype(float)
        along = scan.geometry.index_to_world(index)[:, 0].reshape(scan.array.shape)
        along = (along - along.mean()) / np.ptp(along)
        return replace(scan, array=gain * np.clip(scan.array + 1000, 0, 1500) * (1 + slope * along), modality="MR")

    answer = ALIGNERS["rigid"](as_mr(baseline, 1.0, 0.5), as_mr(followup, 7.3, -0.4))
    errors = np.linalg.norm(answer.forward(places) - there(places), axis=1)
    assert np.median(errors) < 0.5 * SPACING_MM


def test_a_nodule_crop_finds_its_place_in_a_scan_of_its_surroundings(places):
    wide = visit(spacing_mm=4.0)
    shift = np.array([5.0, -8.0, 40.0])
    small = torso(upright((40, 40, 40), 2.0, (-35.0, -1.0, 25.0)), AffineMap.shift(-shift), seed=8)
    centre = np.array([[-40.0, 7.0, -15.0]])
    found = ALIGNERS["rigid"](wide, small).forward(centre)
    assert np.linalg.norm(found - centre - shift) < 3.0


def test_a_field_map_says_what_its_grid_says_and_goes_on_beyond_it():
    geometry = Geometry((2, 2, 3), np.diag([2.0, 2.0, 2.0, 1.0]))
    displacement = np.zeros((3, 2, 2, 3), np.float32)
    displacement[0, :, :, 2] = 4.0
    field = FieldMap(displacement, geometry)
    at_mm = np.array([[0.0, 0.0, 4.0], [0.0, 0.0, 3.0], [0.0, 0.0, 99.0], [0.0, 0.0, 0.0]])
    assert_allclose(field(at_mm)[:, 0], [4.0, 2.0, 4.0, 0.0])
    assert field(np.empty((0, 3))).shape == (0, 3)


def test_a_field_that_shrinks_to_half_keeps_an_eighth_of_the_volume():
    geometry = Geometry((5, 6, 7), np.array([[0, 0, 2.0, 9], [0, 3.0, 0, 8], [4.0, 0, 0, 7], [0, 0, 0, 1]]))
    index = np.indices(geometry.shape).reshape(3, -1).T.astype(float)
    displacement = (-0.5 * geometry.index_to_world(index)).T.reshape(3, *geometry.shape)
    assert_allclose(FieldMap(displacement, geometry).volume_change(), 1 / 8, rtol=1e-6)


def test_the_flow_of_a_steady_wind_is_the_wind():
    velocity = np.ones((3, 6, 6, 6), np.float32)
    assert_allclose(flow(velocity), velocity, rtol=1e-5)


def test_looking_up_only_what_moves_leads_to_the_same_places_to_the_last_bit():
    at = np.indices((20, 22, 24)) - np.array([9.5, 10.5, 11.5])[:, None, None, None]
    ball = np.clip(7 - np.sqrt((at**2).sum(axis=0)), 0, 2).astype(np.float32)
    waves = np.random.default_rng(0).normal(0, 1, (3, 20, 22, 24)).astype(np.float32)
    first, second = waves * ball, np.flip(waves, 1) * ball
    assert 0 < np.mean(first.any(axis=0)) < 0.5
    index = np.indices(ball.shape, dtype=np.float32) + first
    everywhere = [ndimage.map_coordinates(part, index, order=1, mode="nearest", output=np.float32) for part in second]
    assert_array_equal(first_then(first, second), first + np.stack(everywhere))


def test_quality_is_high_where_scans_agree_and_low_where_they_do_not(baseline, shifted):
    followup, there = shifted
    right = Alignment.from_affine(there)
    wrong = Alignment.from_affine(AffineMap.shift(there(np.zeros((1, 3)))[0] + 40.0))
    at_mm = np.array([-45.0, -10.0, 10.0])
    assert align_quality(baseline, followup, right, at_mm, 25.0) > 0.8
    assert align_quality(baseline, followup, wrong, at_mm, 25.0) < 0.5
    assert align_quality(baseline, followup, right, at_mm + 500.0, 25.0) == 0.0


def test_the_default_is_a_row_of_the_table():
    assert DEFAULT_ALIGNER in ALIGNERS
