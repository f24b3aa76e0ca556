"""Chains of visits from one scan: the truth agrees with the scans, with itself, and with the rules of tracking."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pytest import approx

from lesionlocator.case import Event, Status
from lesionlocator.errors import Refused
from lesionlocator.geometry import AffineMap, compose
from lesionlocator.prompt import Click
from lesionlocator.synth.chain import Chain, draw_chain, tell
from lesionlocator.synth.lesion import Appear, Grow, Merge, Split, Vanish
from lesionlocator.synth.pairs import PairSettings, training_pairs
from lesionlocator.synth.patient import Breathing, FieldOfView, TableShift
from lesionlocator.synth.scanner import Reslice
from lesionlocator.synth.story import Draws, Story, StorySettings
from lesionlocator.synth.visit import Visit
from lesionlocator.volume import Mask, Volume
from phantoms import AIR_HU, FAT_HU, in_ellipsoid, upright

GRID = upright((30, 44, 48), 2.5, (4.0, -6.0, 90.0))
PLACES = {"1": (-20.0, -10.0, 90.0), "2": (25.0, -10.0, 95.0), "3": (43.0, -10.0, 95.0)}


def a_patient(names=("1", "2", "3"), order=1) -> Visit:
    array = np.where(in_ellipsoid(GRID, (4.0, -6.0, 90.0), (57.0, 48.0, 500.0)), FAT_HU, AIR_HU)
    masks = {}
    for name in names:
        where = in_ellipsoid(GRID, PLACES[name], (7.5, 8.0, 9.0))
        array[where] = 60.0
        masks[name] = Mask.from_array(where, GRID)
    array = array + np.random.default_rng(0).normal(0, 8, GRID.shape)
    return Visit.of(Volume(array.astype(np.int16), GRID, "CT"), masks, order=order)


def told(*visits: Draws, source_at=0, names=("1", "2", "3")) -> Chain:
    return tell(a_patient(names), Story(source_at, visits))


def words(chain: Chain) -> list[tuple]:
    return [(h.event.value, h.lesion_id, h.from_scan, h.to_scan, h.to_lesion_id) for h in chain.case().events()]


def same_truth(one: Chain, other: Chain) -> None:
    assert one.story == other.story and one.fates == other.fates
    for a, b in zip(one.scans, other.scans, strict=True):
        assert_array_equal(a.volume.array, b.volume.array)
        assert a.volume.array.dtype == b.volume.array.dtype
        assert list(a.lesions) == list(b.lesions)
        for name in a.lesions:
            assert_array_equal(a.lesions[name].array, b.lesions[name].array)


def test_a_visit_without_changes_is_the_source_itself():
    source = a_patient()
    chain = tell(source, Story(1, (Draws(), Draws())))
    for scan in chain.scans:
        assert_array_equal(scan.volume.array, source.volume.array)
    assert {word[0] for word in words(chain)} == {"same"}
    assert chain.composition_error_mm(0, 1) == (0.0, 0.0)


def test_a_lesion_that_grows_is_the_same_lesion_and_as_much_larger_as_drawn():
    chain = told(Draws(), Draws(lesion=(Grow("1", 2.0),)), Draws(lesion=(Grow("1", 1.5),)))
    volumes = [scan.lesions["1"].volume_ml for scan in chain.scans]
    assert_allclose(np.array(volumes) / volumes[0], [1.0, 2.0, 3.0], rtol=0.05)
    assert [word[:2] for word in words(chain) if word[1] == "1"] == [("same", "1"), ("same", "1")]


def test_before_an_untouched_scan_time_runs_backwards():
    """Drawn as growing away from the source, the lesion shrinks towards it; what appears there vanishes."""
    appear = Appear.draw(np.random.default_rng(0), a_patient())
    assert appear is not None
    chain = told(Draws(lesion=(Grow("1", 2.0), appear)), Draws(), source_at=1)
    assert_array_equal(chain.scans[1].volume.array, a_patient().volume.array)
    assert chain.scans[0].lesions["1"].voxels == approx(2 * chain.scans[1].lesions["1"].voxels, rel=0.05)
    assert ("vanished", "4", 0, 1, None) in words(chain)
    assert chain.case().timepoints[1].lesion("4").status is Status.ABSENT


def test_a_lesion_that_vanishes_is_filled_where_it_is_drawn_so():
    chain = told(Draws(), Draws(lesion=(Vanish("1"),)))
    assert ("vanished", "1", 0, 1, None) in words(chain)
    place = chain.scans[0].lesions["1"].on(GRID)
    assert chain.scans[0].volume.array[place].mean() > 40
    assert chain.scans[1].volume.array[place].mean() < -60


def test_splitting_and_merging_are_told_as_tracking_tells_them():
    split = Split.draw(np.random.default_rng(0), a_patient(), ("1",))
    merge = Merge.draw(np.random.default_rng(0), a_patient(), ("2", "3"))
    assert split is not None and merge is not None
    chain = told(Draws(), Draws(lesion=(split, merge)))
    kept = next(name for name in ("2", "3") if name in chain.scans[1].lesions)
    assert set(words(chain)) == {
        ("split", "1", 0, 1, "1"),
        ("split", "1", 0, 1, "4"),
        ("merged", "2", 0, 1, kept),
        ("merged", "3", 0, 1, kept),
    }
    back = told(Draws(lesion=(split, merge)), Draws(), source_at=1)
    assert {word[0] for word in words(back)} == {"merged", "split"}


def test_a_lesion_outside_one_scan_is_linked_again_where_it_is_back():
    low = FieldOfView((0.0, 0.0, 24.0), (30, 44, 24))
    chain = told(Draws(), Draws(patient=(low,)), Draws())
    assert ("outside", "1", 0, 1, None) in words(chain)
    assert ("same", "1", 0, 2, "1") in words(chain)
    assert "1" in chain.scans[1].lesions and "1" not in chain.scans[1].seen
    assert chain.case().timepoints[1].lesion("1").status is Status.OUTSIDE


def test_maps_lead_from_a_lesion_in_one_scan_to_it_in_another():
    chain = told(
        Draws(patient=(Breathing(8.0, 50.0, 1.5, 1), TableShift((20.0, -5.0, 60.0), (2.0, -1.0, 3.0)))),
        Draws(),
        Draws(patient=(Breathing(6.0, 60.0, 1.0, 2), FieldOfView((1.3, 2.2, 0.4), (26, 40, 44)))),
        source_at=1,
    )
    for first, second in ((0, 1), (1, 2), (0, 2)):
        maps = chain.alignment(first, second)
        for name in PLACES:
            before, after = chain.scans[first].lesions[name], chain.scans[second].lesions[name]
            arrived = maps.forward(before.points_mm).mean(axis=0)
            assert_allclose(arrived, after.centroid_mm, atol=0.5 * 2.5)
            assert_allclose(maps.backward(after.points_mm).mean(axis=0), before.centroid_mm, atol=0.5 * 2.5)
        assert chain.composition_error_mm(first, second)[1] < 0.5 * 2.5


def test_scans_keep_to_the_sources_kind_of_number():
    chain = told(Draws(), Draws(patient=(Breathing(8.0, 50.0, 1.5, 1),), scanner=(Reslice(4.0, 4.0, 2.7),)))
    assert {scan.volume.array.dtype for scan in chain.scans} == {np.dtype(np.int16)}


@given(seed=st.integers(0, 10**6), visits=st.integers(2, 3))
@settings(max_examples=4)
def test_any_drawn_chain_is_told_again_from_its_json_and_agrees_with_itself(seed, visits):
    chain = draw_chain(a_patient(), seed, StorySettings(visits=visits))
    written = json.loads(json.dumps(chain.story.to_json()))
    same_truth(chain, tell(a_patient(), Story.from_json(written)))
    for first, second in itertools.pairwise(range(visits)):
        smallest = min(scan.volume.geometry.spacing_mm.min() for scan in chain.scans)
        assert chain.composition_error_mm(first, second)[1] < 0.5 * smallest
        agree_on_events(chain, first, second)
    case = chain.case()
    for scan, timepoint in zip(chain.scans, case.timepoints, strict=True):
        shown = {lesion.id for lesion in timepoint.lesions if lesion.mask is not None}
        assert shown == {name for name in scan.lesions if scan.is_inside(name)}
    ids = [name for scan in chain.scans for name in scan.lesions]
    assert set(chain.labels) == set(ids) and len(set(chain.labels.values())) == len(chain.labels)


def agree_on_events(chain: Chain, first: int, second: int) -> None:
    """What became of each lesion, where both scans show all of it, is what the case's links say."""
    seen = [{name for name in chain.scans[i].lesions if chain.scans[i].is_inside(name)} for i in (first, second)]
    told_by_case = {
        (h.lesion_id, h.to_lesion_id): h.event
        for h in chain.case().events()
        if (h.from_scan, h.to_scan) == (first, second)
    }
    fates = chain.fates_between(first, second)
    for lesion_id, became in fates.items():
        if lesion_id not in seen[0]:
            continue
        after = [name for name in became if name in seen[1]]
        if not became:
            assert told_by_case[lesion_id, None] is Event.VANISHED
        elif not after:
            assert told_by_case[lesion_id, None] is Event.OUTSIDE
        for name in after:
            partners = [other for other, its in fates.items() if name in its and other in seen[0]]
            wanted = Event.MERGED if len(partners) > 1 else Event.SPLIT if len(after) > 1 else Event.SAME
            assert told_by_case[lesion_id, name] is wanted


def test_the_same_seed_draws_the_same_chain_and_another_seed_another_one():
    one, two, other = (draw_chain(a_patient(), seed, StorySettings(visits=2)) for seed in (5, 5, 6))
    same_truth(one, two)
    assert one.story != other.story


@pytest.mark.parametrize(("modality", "seed"), [("CT", 7), ("MR", 80), ("PT", 11)])
def test_without_voxels_the_same_is_drawn_and_outlines_maps_and_events_are_the_same(seed, modality):
    source = a_patient()
    source = Visit.of(
        replace(source.volume, array=source.volume.array + np.int16(1100), modality=modality), source.lesions
    )
    whole = draw_chain(source, seed, StorySettings(visits=2))
    drawn = draw_chain(source, seed, StorySettings(visits=2), voxels=False)
    for chain in (drawn, tell(source, whole.story, voxels=False)):
        assert chain.story == whole.story and chain.fates == whole.fates
        assert chain.case().events() == whole.case().events()
        at_mm = whole.scans[0].volume.geometry.corners_mm
        assert_array_equal(chain.alignment(0, 1).forward(at_mm), whole.alignment(0, 1).forward(at_mm))
        for one, other in zip(chain.scans, whole.scans, strict=True):
            assert one.volume.geometry.same_as(other.volume.geometry)
            assert_array_equal(one.label_map(chain.labels), other.label_map(whole.labels))
    made = [scan for number, scan in enumerate(drawn.scans) if number != drawn.story.source_at]
    assert not any(scan.volume.array.any() for scan in made)


def test_a_story_of_unknown_changes_is_refused_by_name():
    with pytest.raises(Refused, match="levitate"):
        Story.from_json(
            {"source_at": 0, "visits": [{"lesion": [{"change": "levitate"}], "patient": [], "scanner": []}]}
        )
    with pytest.raises(Refused, match="skin_mm"):
        wrong = {"change": "weight_change", "layer_mm": 20.0}
        Story.from_json({"source_at": 0, "visits": [{"lesion": [], "patient": [wrong], "scanner": []}]})
    with pytest.raises(Refused, match="source_at"):
        Story.from_json({"visits": []})


def test_measurements_are_those_of_the_scans():
    chain = told(Draws(), Draws(lesion=(Grow("1", 2.0),), patient=(TableShift((10.0, 0.0, 0.0), (0.0, 0.0, 0.0)),)))
    rows = {(row.scan, row.lesion_id): row for row in chain.measurements()}
    first, second = rows["visit 1", "1"], rows["visit 2", "1"]
    assert second.volume_ml == approx(2 * first.volume_ml, rel=0.05)
    assert second.centre_x_mm == approx(first.centre_x_mm + 10.0, abs=1.0)
    assert first.mean == approx(60.0, abs=5.0)


def test_label_maps_show_every_lesion_under_one_number_for_ever():
    chain = told(Draws(), Draws(lesion=(Vanish("1"),)), names=("1", "3"))
    first, second = (scan.label_map(chain.labels) for scan in chain.scans)
    assert set(np.unique(first)) == {0, 1, 3} and set(np.unique(second)) == {0, 3}
    assert (first == 3).sum() == chain.scans[0].lesions["3"].voxels


SMALL = PairSettings(
    shape=(16, 16, 16),
    room=3,
    visits=3,
    at_once=2,
    story=StorySettings(lesion_weights={"same": 1.0, "rim": 1.0, "necrosis": 1.0}, appearing=0.2),
)


def test_training_pairs_are_regions_of_one_size_with_prompts_on_what_they_show():
    pairs = list(itertools.islice(training_pairs([a_patient()], 3, SMALL), 14))
    assert any(pair.followup_prompts for pair in pairs)
    for pair in pairs:
        assert pair.baseline.array.shape == pair.followup.array.shape == (16, 16, 16)
        asked = pair.baseline_lesions[pair.lesion_id]
        click, box, shape = pair.prompts
        assert isinstance(click, Click) and asked.on(pair.baseline.geometry)[click.paint(pair.baseline.geometry)].all()
        assert box.paint(pair.baseline.geometry)[asked.on(pair.baseline.geometry)].all()
        assert shape.mask.voxels >= asked.voxels
        if pair.followup_prompts:
            there = [pair.followup_lesions[name] for name in pair.became if name in pair.followup_lesions]
            assert any(
                part.on(pair.followup.geometry)[pair.followup_prompts[0].paint(pair.followup.geometry)].all()
                for part in there
            )


def test_carried_prompts_are_as_far_off_as_the_aligner_that_was_measured():
    errors_mm = np.array([[3.0, 0.0, 0.0], [0.0, -4.0, 0.0]])
    for pair in itertools.islice(training_pairs([a_patient()], 3, SMALL, errors_mm), 8):
        exact = pair.alignment.forward(pair.prompts[0].points_mm)[0]
        assert min(np.abs(pair.carried[0].points_mm[0] - exact - error).max() for error in errors_mm) < 1e-6


def test_carried_prompts_are_off_by_three_to_six_voxels_without_measured_errors():
    off = [
        pair.followup.geometry.world_to_index(pair.carried[0].points_mm)
        - pair.followup.geometry.world_to_index(pair.alignment.forward(pair.prompts[0].points_mm))
        for pair in itertools.islice(training_pairs([a_patient()], 3, SMALL), 40)
    ]
    assert 3.0 < np.concatenate(off).std() < 6.0


def test_the_same_seed_gives_the_same_pairs():
    one, two = (list(itertools.islice(training_pairs([a_patient()], 7, SMALL), 4)) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert_array_equal(a.followup.array, b.followup.array)
        assert a.lesion_id == b.lesion_id and a.became == b.became
        assert_array_equal(a.carried[0].points_mm, b.carried[0].points_mm)


def test_pairs_without_any_lesion_are_refused():
    with pytest.raises(Refused, match="no source with a lesion"):
        next(training_pairs([a_patient(())], 0))


def test_joined_maps_are_asked_once_so_that_shifts_cancel_exactly():
    shift = AffineMap.shift(np.array([3.7, 0.0, 0.0]))
    visit = a_patient().moved(shift, shift.inverse()).moved(shift.inverse(), shift)
    assert_array_equal(visit.volume.array, a_patient().volume.array)
    assert_allclose(compose(shift, shift.inverse())(np.ones((1, 3))), np.ones((1, 3)))
