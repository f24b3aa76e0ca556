"""Changes of a lesion on a phantom: what was drawn is what the scan, the outlines, the maps and the events show."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import phantoms
from lesionlocator.errors import Refused
from lesionlocator.synth.changes import from_json, to_json
from lesionlocator.synth.check import check
from lesionlocator.synth.lesion import (
    Appear,
    Graft,
    Grow,
    Merge,
    Necrosis,
    RimChange,
    Shrink,
    Split,
    UptakeChange,
    Vanish,
)
from lesionlocator.synth.visit import Visit
from lesionlocator.volume import Mask, Modality

GRID = phantoms.upright((40, 56, 56), 1.5, (0.0, 0.0, 0.0))
LARGE, SMALL = (
    phantoms.in_ellipsoid(GRID, (-12.0, 0.0, 0.0), (8.0, 6.0, 7.0)),
    phantoms.in_ellipsoid(GRID, (6.0, 2.0, 0.0), (4.5, 4.5, 4.5)),
)


def two_lesions(modality: Modality = "CT", noise: float = 10.0) -> Visit:
    """A large lesion '1' and a small one '2' in fat, a rib to the left, and dots that make the tissue uneven."""
    rib = phantoms.in_ellipsoid(GRID, (-33.0, 0.0, 0.0), (4.0, 60.0, 8.0))
    dots = np.zeros(GRID.shape, bool)
    dots[5:36:7, 5:50:9, 5:50:9] = True
    values = {-70.0: dots, 600.0: rib, 60.0: LARGE, 62.0: SMALL}
    if modality != "CT":
        values = {1.3: dots, 6.0: LARGE, 7.0: SMALL}
    background = -100.0 if modality == "CT" else 1.0
    volume = phantoms.painted(GRID, values, background, modality, noise if modality == "CT" else 0.1)
    return Visit.of(volume, {"1": Mask.from_array(LARGE, GRID), "2": Mask.from_array(SMALL, GRID)})


VISIT = two_lesions()
KINDS = (Grow, Shrink, Vanish, Appear, Graft, Split, Merge, Necrosis, RimChange)


@settings(max_examples=18, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10_000))
def test_every_change_that_can_be_drawn_keeps_its_promises(kind: type, seed: int) -> None:
    drawn = kind.draw(np.random.default_rng(seed), VISIT)
    if drawn is None:
        return
    found = check(VISIT, drawn.apply(VISIT))
    assert found.least_volume_change > 0
    assert found.largest_error_voxels < 0.5
    assert found.strayed_voxels == 0
    assert found.events_read == found.events


@settings(max_examples=7, deadline=None)
@given(kind=st.sampled_from((*KINDS, UptakeChange)), seed=st.integers(0, 10_000))
def test_what_was_drawn_is_written_as_json_and_gives_the_same_bytes_again(kind: type, seed: int) -> None:
    visit = two_lesions("PT") if kind is UptakeChange else VISIT
    drawn = kind.draw(np.random.default_rng(seed), visit)
    if drawn is None:
        return
    again = from_json(to_json(drawn))
    assert again == drawn
    assert_array_equal(again.apply(visit).visit.volume.array, drawn.apply(visit).visit.volume.array)


@settings(max_examples=6, deadline=None)
@given(factor=st.floats(0.08, 3.0), seed=st.integers(0, 100))
def test_a_lesion_has_the_volume_that_was_asked_for(factor: float, seed: int) -> None:
    stretch = (1.0, 1.0, 1.0) if seed % 2 else (1.3, 1.0, 0.8)
    change = (Grow if factor > 1 else Shrink)("1", factor, stretch, seed, nodes=32)
    changed = change.apply(VISIT)
    before, after = VISIT.lesions["1"].voxels, changed.visit.lesions["1"].voxels
    assert abs(after - factor * before) <= 1
    # Not by relabelling: the bright voxels are as many as the outline says, within what a border's blur leaves open.
    around = changed.visit.lesions["1"].geometry
    start, stop = GRID.clip(*GRID.around(around.corners_mm, 3.0)) or ((0, 0, 0), GRID.shape)
    bright = int(np.count_nonzero(changed.visit.volume.crop(start, stop).array > -20))
    assert bright == pytest.approx(after, rel=0.25, abs=20)


def test_another_lesion_is_pushed_aside_and_stays_what_it_is() -> None:
    changed = Grow("1", 2.0, nodes=32).apply(VISIT)
    before, after = VISIT.lesions["2"], changed.visit.lesions["2"]
    # Some of what is displaced is taken from it: tissue is compressed where the push fades out.
    assert 0.75 * before.voxels < after.voxels <= 1.02 * before.voxels
    assert after.centroid_mm[0] > before.centroid_mm[0] + 0.2
    assert after.overlap(changed.visit.lesions["1"]) == 0


def test_tissue_keeps_its_noise_where_it_is_moved() -> None:
    even = phantoms.painted(GRID, {60.0: LARGE}, noise=20.0)
    visit = Visit.of(even, {"1": Mask.from_array(LARGE, GRID)})
    for factor in (0.3, 2.0):
        changed = (Grow if factor > 1 else Shrink)("1", factor, nodes=32).apply(visit)
        moved = np.linalg.norm(_displacement_mm(changed.backward), axis=-1) > 1.0
        clear = moved & ~_near(LARGE) & ~_near(changed.visit.lesions["1"].on(GRID))
        assert np.count_nonzero(clear) > 500
        before, after = even.array[clear], changed.visit.volume.array[clear]
        assert after.std() == pytest.approx(before.std(), rel=0.15)


def test_voxels_beyond_the_reach_of_a_change_keep_their_bits() -> None:
    changed = Grow("2", 1.5, nodes=32).apply(VISIT)
    same = changed.visit.volume.array == VISIT.volume.array
    at_rest = np.linalg.norm(_displacement_mm(changed.backward), axis=-1) < 1e-3
    assert same[at_rest].all()
    assert np.count_nonzero(at_rest) > 0.5 * at_rest.size


def test_whole_numbers_stay_whole_numbers() -> None:
    volume = VISIT.volume
    stored = type(volume)(np.rint(volume.array).astype(np.int16), volume.geometry, "CT")
    changed = Shrink("1", 0.4, nodes=32).apply(Visit.of(stored, VISIT.lesions))
    assert changed.visit.volume.array.dtype == np.int16


def test_bone_is_not_pushed() -> None:
    rib = phantoms.in_ellipsoid(GRID, (-28.0, 0.0, 0.0), (4.0, 60.0, 30.0))
    volume = phantoms.painted(GRID, {600.0: rib, 60.0: LARGE})
    changed = Grow("1", 2.0, nodes=32).apply(Visit.of(volume, {"1": VISIT.lesions["1"]}))
    to_the_left, to_the_right = np.array([[-26.0, 0.0, 0.0]]), np.array([[2.0, 0.0, 0.0]])
    rib_mm = np.linalg.norm(changed.forward(to_the_left) - to_the_left)
    fat_mm = np.linalg.norm(changed.forward(to_the_right) - to_the_right)
    assert fat_mm > 0.5
    assert rib_mm < 0.5 * fat_mm


def test_a_vanished_lesion_leaves_tissue_like_that_around_it() -> None:
    for shrunk_to in (1.0, 0.2):
        changed = Vanish("1", shrunk_to, 3).apply(VISIT)
        assert "1" not in changed.visit.lesions
        left = changed.visit.volume.array[LARGE]
        assert np.median(left) == pytest.approx(-100, abs=12)
        assert left.std() == pytest.approx(12, rel=0.6)
        assert np.count_nonzero(left > -20) < 0.03 * left.size


def test_an_added_lesion_read_backwards_vanishes_from_an_untouched_follow_up() -> None:
    drawn = Appear.draw(np.random.default_rng(5), VISIT)
    assert drawn is not None
    changed = drawn.apply(VISIT)
    back = changed.reversed(VISIT)
    assert back.visit is VISIT
    assert [event.event.value for event in back.events if event.before == ("3",)] == ["vanished"]


def test_a_new_lesion_has_the_level_that_was_drawn() -> None:
    changed = Appear((2.0, 18.0, 5.0), 6.0, "lobed", 150.0, 150.0, 2.0, 0.5, 7).apply(VISIT)
    inner = ~_near(~changed.visit.lesions["3"].on(GRID), 1)
    assert np.median(changed.visit.volume.array[inner]) == pytest.approx(150, abs=12)


def test_a_graft_is_the_lesion_again() -> None:
    changed = Graft("2", (10.0, 25.0, -8.0), (True, False, False)).apply(VISIT)
    assert changed.visit.lesions["3"].voxels == VISIT.lesions["2"].voxels
    inside = changed.visit.volume.array[changed.visit.lesions["3"].on(GRID)]
    assert np.median(inside) == pytest.approx(62, abs=8)


def test_the_parts_of_a_split_do_not_touch_and_tissue_lies_between_them() -> None:
    changed = Split("1", (1.0, 0.0, 0.0), 0.5, 5.0, 1).apply(VISIT)
    one, other = changed.visit.lesions["1"].on(GRID), changed.visit.lesions["3"].on(GRID)
    assert not (_near(one, 1) & other).any()
    between = LARGE & ~_near(one, 1) & ~_near(other, 1)
    assert between.any()
    assert np.median(changed.visit.volume.array[between]) < -60


def test_merged_lesions_are_one_piece_of_lesion_tissue() -> None:
    from lesionlocator.parts import count_parts

    changed = Merge(("1", "2"), 0.8, 1).apply(VISIT)
    assert set(changed.visit.lesions) == {"1"}
    assert count_parts(changed.visit.lesions["1"], 0.0) == 1
    bridge = changed.visit.lesions["1"].on(GRID) & ~LARGE & ~SMALL
    assert np.median(changed.visit.volume.array[bridge]) > 20


def test_a_necrotic_core_is_as_large_and_as_dark_as_drawn_and_the_outline_stays() -> None:
    changed = Necrosis("1", 0.5, 10.0, 0.2, 5).apply(VISIT)
    assert changed.visit.lesions["1"].voxels == VISIT.lesions["1"].voxels
    inside = changed.visit.volume.array[LARGE]
    assert np.percentile(inside, 20) == pytest.approx(10, abs=12)
    assert np.count_nonzero(inside < 35) / inside.size == pytest.approx(0.5, abs=0.15)


def test_a_rim_gets_brighter_and_the_middle_does_not() -> None:
    change = VISIT.volume.array - RimChange("1", 2.0, 50.0).apply(VISIT).visit.volume.array
    middle = phantoms.in_ellipsoid(GRID, (-12.0, 0.0, 0.0), (3.0, 2.0, 2.0))
    assert abs(change[middle]).max() < 15
    assert change[LARGE].min() < -25


def test_uptake_changes_in_pet_only_and_by_what_was_drawn() -> None:
    visit = two_lesions("PT")
    changed = UptakeChange("1", 0.5).apply(visit)
    above = np.median(changed.visit.volume.array[LARGE]) - 1.0
    assert above == pytest.approx(0.5 * 5.0, rel=0.05)
    assert UptakeChange.draw(np.random.default_rng(0), VISIT) is None


def test_a_lesion_at_the_edge_of_the_scan_is_not_drawn_and_refused() -> None:
    cut = Mask.from_array(np.arange(GRID.shape[0])[:, None, None] + np.zeros(GRID.shape) < 3, GRID)
    visit = Visit.of(VISIT.volume, {"1": cut})
    assert all(kind.draw(np.random.default_rng(0), visit) is None for kind in (Grow, Shrink, Vanish, Split, Merge))
    with pytest.raises(Refused, match="edge of the scan"):
        Grow("1", 1.5).apply(visit)


def test_a_lesion_of_one_voxel_stays_a_lesion() -> None:
    speck = np.zeros(GRID.shape, bool)
    speck[20, 40, 40] = True
    visit = Visit.of(VISIT.volume, {**VISIT.lesions, "3": Mask.from_array(speck, GRID)})
    assert Grow("1", 1.8, nodes=32).apply(visit).visit.lesions["3"].voxels >= 1
    assert Grow("3", 4.0, nodes=32).apply(visit).visit.lesions["3"].voxels == 4


def _near(where: np.ndarray, voxels: int = 2) -> np.ndarray:
    from scipy import ndimage

    return ndimage.binary_dilation(where, np.ones((3, 3, 3)), iterations=voxels)


def _displacement_mm(backward) -> np.ndarray:
    at_mm = GRID.index_to_world(np.indices(GRID.shape).reshape(3, -1).T.astype(float))
    return (backward(at_mm) - at_mm).reshape(*GRID.shape, 3)
