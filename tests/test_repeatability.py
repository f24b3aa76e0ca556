"""How far measurements move when prompts do: intervals hold the truth, and only what exceeds them is a change."""

from __future__ import annotations

import csv
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionlocator.case import Lesion
from lesionlocator.errors import Refused
from lesionlocator.formats import write_labels, write_volume
from lesionlocator.measure import measure_diameters
from lesionlocator.prompt import Box, Click, Shape
from lesionlocator.repeatability import (
    PromptErrors,
    Spread,
    draw_errors,
    is_real,
    judge_changes,
    read_spread,
    repeat_timepoint,
    spread_of,
)
from lesionlocator.run import SegmentSettings, TrackSettings, run_segment, run_track
from lesionlocator.segment import load_segmenter
from lesionlocator.segment.visit import segment_timepoint
from visits import Ball, ball_mask, grid, scan, visit

PLACE = Ball(-20.0, 0.0, 0.0, 9.0)


@cache
def segmenter():
    return load_segmenter()


@cache
def repeated(radius, number):
    """A ball of this radius somewhere in its voxels, outlined from a drawn box, and asked for again."""
    draw = np.random.default_rng([number, int(100 * radius)])
    x, y, z = draw.uniform(-0.75, 0.75, 3)
    ball = Ball(PLACE.x + x, PLACE.y + y, PLACE.z + z, radius)
    asked = visit(number, [ball])
    box = draw_errors((Box.around(ball_mask(ball, asked.geometry)),), asked.geometry, PromptErrors(), draw)
    outlined = segment_timepoint(asked.with_lesions((Lesion("1", box),)), segmenter())
    prepared = segmenter().prepare(outlined.load())
    (spread,) = repeat_timepoint(outlined, lambda asks: [one.mask for one in segmenter().outline(prepared, asks)])
    return spread


def real(quantity, one, other):
    return is_real(one.interval(quantity), other.interval(quantity))


def test_two_scans_of_an_unchanged_lesion_are_rarely_called_a_change():
    spreads = [repeated(9.0, number) for number in range(10)]
    pairs = [(one, other) for n, one in enumerate(spreads) for other in spreads[:n]]
    for quantity in ("volume", "long_axis"):
        assert sum(real(quantity, one, other) for one, other in pairs) <= 0.1 * len(pairs)


def test_twice_the_volume_is_called_a_change_and_a_twentieth_is_not():
    before, doubled = [repeated(9.0, n) for n in range(4)], [repeated(9.0 * 2 ** (1 / 3), 20 + n) for n in range(4)]
    little = [repeated(9.0 * 1.05 ** (1 / 3), 40 + n) for n in range(4)]
    assert all(real("volume", one, other) for one in before for other in doubled)
    assert sum(real("volume", one, other) for one in before for other in little) <= 3


def test_the_interval_holds_the_true_volume_of_a_ball():
    truth = 4 / 3 * np.pi * 9.0**3 / 1000
    held = [low <= truth <= high for _, low, high in (repeated(9.0, n).interval("volume") for n in range(10))]
    assert sum(held) >= 8


def test_the_same_seed_gives_the_same_intervals_and_another_gives_others():
    asked = visit(3, [PLACE])
    mask = ball_mask(PLACE, asked.geometry)
    outlined = segment_timepoint(asked.with_lesions((Lesion("1", (Box.around(mask),)),)), segmenter())
    prepared = segmenter().prepare(outlined.load())

    def answer(asks):
        return [one.mask for one in segmenter().outline(prepared, asks)]

    one, same, other = (repeat_timepoint(outlined, answer, PromptErrors(4, seed=seed))[0] for seed in (1, 1, 2))
    assert one == same and one != other


# ------------------------------------------------------------------------------------------------------- by hand


def lesion(radius, confidence=None):
    return Lesion("1", (), ball_mask(Ball(0, 0, 0, radius), grid()), confidence=confidence)


def test_repeated_outlines_that_agree_leave_what_voxels_cannot_resolve():
    one = lesion(9.0)
    spread = spread_of("a", one, [one.mask] * 8)
    value, low, high = spread.interval("long_axis")
    assert high - value == pytest.approx(1.96 * 1.5 / np.sqrt(6)) and value - low == pytest.approx(high - value)
    assert spread.dice == 1.0 and spread.volume_high_ml > spread.volume_ml > spread.volume_low_ml > 0


def test_the_interval_is_the_spread_of_the_repeated_outlines_by_hand():
    one = lesion(9.0)
    others = [ball_mask(Ball(0, 0, 0, radius), grid()) for radius in (8.0, 8.0, 10.0, 10.0)]
    volume, *_ = spread_of("a", one, others).interval("volume")
    deviation = np.sqrt(np.mean([(mask.volume_ml - volume) ** 2 for mask in others]))
    border = spread_of("a", one, [one.mask] * 4)
    voxels = border.volume_high_ml - border.volume_ml
    half = spread_of("a", one, others).volume_high_ml - volume
    assert half == pytest.approx(np.hypot(2.776 * deviation, voxels), rel=1e-3)  # t for 4, 95 %


def test_a_model_that_is_less_sure_has_a_wider_interval():
    halves = []
    for confidence in (None, 1.0, 0.9, 0.7):
        one = lesion(9.0, confidence)
        spread = spread_of("a", one, [one.mask] * 8)
        halves.append((spread.volume_high_ml - spread.volume_ml) / spread.volume_ml)
    assert halves[0] == halves[1] < halves[2] < halves[3] and halves[3] == pytest.approx(0.3, rel=0.1)


def test_a_change_is_real_when_it_exceeds_both_intervals_together():
    assert not is_real((10.0, 7.0, 13.0), (14.9, 10.9, 18.9))  # 3 and 4: 5 are needed
    assert is_real((10.0, 7.0, 13.0), (15.1, 11.1, 19.1))


def test_changes_are_judged_against_the_visit_before_and_the_first():
    rows = judge_changes(
        [
            Spread("a", "1", 8, 10.0, 9.0, 11.0, 20.0, 19.0, 21.0),
            Spread("b", "1", 8, 11.0, 10.0, 12.0, 21.0, 20.0, 22.0),
            Spread("c", "1", 0, reason="no outline"),
            Spread("d", "1", 8, 12.0, 11.0, 13.0, 24.0, 23.0, 25.0),
        ]
    )
    assert [row["volume_changed"] for row in rows] == ["", "no", "", "no"]
    assert [row["volume_changed_from_baseline"] for row in rows] == ["", "no", "", "yes"]
    assert [row["long_axis_changed"] for row in rows] == ["", "no", "", "yes"]


def test_too_few_answers_and_missing_prompts_are_said():
    one = lesion(9.0)
    assert "only 2" in spread_of("a", one, [one.mask] * 2).reason
    kept = visit(0, []).with_lesions((one, Lesion("2", (Click(np.zeros(3)),))))
    (given_,) = repeat_timepoint(kept, lambda asks: [None for _ in asks], given=True)
    (followed,) = repeat_timepoint(kept, lambda asks: [None for _ in asks])
    assert "given" in given_.reason and "no prompt" in followed.reason and followed.interval("volume") is None


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), radius=st.floats(2.0, 25.0))
def test_drawn_prompts_stay_near_and_never_turn_inside_out(seed, radius):
    mask = ball_mask(Ball(0, 0, 0, radius), grid())
    draw = np.random.default_rng(seed)
    box, shape = Box.around(mask), Shape(mask)
    (moved, moved_shape) = draw_errors((box, shape), grid(), PromptErrors(), draw)
    assert np.all(moved.size_mm > 0) and np.linalg.norm(moved.centre - box.centre) < 15 + 0.5 * radius
    assert moved_shape.mask.volume_ml >= 0
    (click,) = draw_errors((Click(np.array([1.0, 2.0, 3.0])),), grid(), PromptErrors(), draw)
    assert np.linalg.norm(click.at - [1.0, 2.0, 3.0]) < 20


# ---------------------------------------------------------------------------------------------------- in a run


def test_track_writes_the_intervals_when_asked_to_and_only_then(tmp_path):
    balls = [PLACE, Ball(25, -5, 10, 8)]
    for number in (0, 1):
        write_volume(tmp_path / f"visit{number}.nii.gz", scan(balls[: 2 - number], grid(), number))
    labels = {index: ball_mask(ball, grid()) for index, ball in enumerate(balls, start=1)}
    write_labels(tmp_path / "prompts.nii.gz", labels, grid())
    settings_ = {"prompts": tmp_path / "prompts.nii.gz", "modality": "CT"}
    scans = [tmp_path / "visit0.nii.gz", tmp_path / "visit1.nii.gz"]
    out = tmp_path / "out"
    run_track(scans, TrackSettings(out=out, align="header", repeats=4, **settings_))
    with (out / "repeatability.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["scan"], row["lesion_id"]) for row in rows] == [("visit0", "1"), ("visit0", "2"), ("visit1", "1")]
    first = read_spread(rows[0])
    assert first.repeats == 4 and first.volume_low_ml < first.volume_ml < first.volume_high_ml
    assert rows[2]["volume_changed"] == "no"
    with (out / "lesions.csv").open() as stream:
        assert [float(row["volume_ml"]) for row in csv.DictReader(stream) if row["volume_ml"]][0] == first.volume_ml
    run_segment(scans[0], SegmentSettings(out=out, **settings_))
    assert not (out / "repeatability.csv").exists()
    with pytest.raises(Refused, match="repeats"):
        run_segment(scans[0], SegmentSettings(out=out, repeats=2, **settings_))


def test_long_axis_intervals_are_about_the_long_axis():
    one = lesion(9.0)
    spread = spread_of("a", one, [one.mask] * 3)
    assert spread.interval("long_axis")[0] == measure_diameters(one.mask).long_mm
