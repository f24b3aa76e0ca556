"""A network with the earlier scan in memory: starts as the segmenter, engines agree, and it learns what is gone."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from lesionlocator import Case, track_case  # noqa: E402
from lesionlocator.case import Ending, Lesion, Status, Timepoint  # noqa: E402
from lesionlocator.engine import load_engine  # noqa: E402
from lesionlocator.geometry import AffineMap, Alignment, Geometry  # noqa: E402
from lesionlocator.network.promptable import Promptable, PromptablePlan  # noqa: E402
from lesionlocator.network.remembering import Remembering, network_of  # noqa: E402
from lesionlocator.prompt import Box  # noqa: E402
from lesionlocator.segment import (  # noqa: E402
    Outline,
    Prepared,
    Remembered,
    Rememberer,
    SeenAgain,
    Segmenter,
    load_segmenter,
)
from lesionlocator.segment.memory import LearnedWithMemory, seen_through, show_both, view_again  # noqa: E402
from lesionlocator.segment.zoom import CHANNELS, PATCH, hint, look  # noqa: E402
from lesionlocator.synth.paint_visits import VisitSettings, draw_visits  # noqa: E402
from lesionlocator.synth.scene import Backgrounds  # noqa: E402
from lesionlocator.track import Following  # noqa: E402
from lesionlocator.train.loop import CHECKPOINT, Batch, Recipe, load_averaged, train  # noqa: E402
from lesionlocator.train.memory import (  # noqa: E402
    MemorySettings,
    PaintedPairs,
    draw_memory_sample,
    memory_loss,
)
from lesionlocator.train.pair_store import GONE, Stored, read_pair, write_pair  # noqa: E402
from lesionlocator.train.settings import TrainSettings  # noqa: E402
from lesionlocator.volume import Mask, Volume  # noqa: E402
from lesionlocator.weights import ModelCard  # noqa: E402
from train_work import ball_pair  # noqa: E402

SMALL = PromptablePlan(mixed=6, widths=(4, 8, 8, 8), blocks=(1, 1, 1, 1), fine=2)
CARD = ModelCard(id="toy", kind="learned", title="t", licence="CC0", intended_use="u", limits="Not a medical device.")
GRID = Geometry((40, 60, 70), np.array([[0, 0, 1.0, 5], [0, 1.0, 0, -7], [2.0, 0, 0, 11], [0, 0, 0, 1.0]]))
SHIFT = Alignment.from_affine(AffineMap.shift(np.array([3.0, -2.0, 4.0])))
MOVED = np.array([2.0, -2.0, 3.0])  # the same in voxels of the grid


def uneven(network):
    # Uneven weights, so that no part of the network can be forgotten without a difference.
    torch.manual_seed(3)
    for weight in network.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    return network


def ball(centre=(20.0, 30.0, 35.0), radius_mm=12.0):
    index = np.indices(GRID.shape).reshape(3, -1).T.astype(float)
    away = np.linalg.norm((index - np.array(centre)) * GRID.spacing_mm, axis=1).reshape(GRID.shape)
    return Volume(np.where(away <= radius_mm, 100.0, 0.0).astype(np.float32), GRID, "MR"), away <= radius_mm


@cache
def both_visits():
    """A baseline and a follow-up in which the same ball is where the alignment says, as a network is shown them."""
    baseline, inside = ball()
    followup, there = ball(np.array([20.0, 30.0, 35.0]) + MOVED)
    before, after = Mask.from_array(inside, GRID), Mask.from_array(there, GRID)
    view = view_again(Box.around(after), GRID)
    then, outline = seen_through(baseline, before, view, SHIFT.backward)
    return show_both(look(followup, view), then, outline, hint(view, [], Box.around(after)).box), after, view


# --------------------------------------------------------------------------------------------------------- the network


@pytest.mark.parametrize(("fused", "picture"), [("difference", True), ("concatenation", True), ("difference", False)])
def test_a_new_network_with_memory_answers_as_the_segmenter_does_with_the_carried_over_outline(fused, picture):
    segmenter = uneven(Promptable(SMALL)).eval()
    network = Remembering.starting_from(segmenter, fused, picture).eval()
    shown = torch.from_numpy(both_visits()[0])[None]
    with torch.no_grad():
        logits, words = network(shown)
        assert torch.allclose(logits, segmenter(shown[:, : len(CHANNELS)])[0], atol=1e-4)
    assert logits.shape == (1, PATCH, PATCH, PATCH)
    assert words.shape == (1, 2)
    assert network_of(json.loads(json.dumps(network.plan.to_json()))).plan == network.plan


def test_it_fits_into_twelve_megabytes():
    assert sum(weight.numel() for weight in Remembering.starting_from(Promptable(PromptablePlan())).parameters()) < 6e6


def test_once_it_has_learned_the_baseline_counts_and_without_its_picture_only_the_outline_does():
    shown = torch.from_numpy(both_visits()[0])[None]
    other = shown.clone()
    other[:, len(CHANNELS)] += 1.0
    for picture in (True, False):
        network = uneven(Remembering.starting_from(Promptable(SMALL), picture=picture)).eval()
        with torch.no_grad():
            assert torch.equal(network(shown)[0], network(other)[0]) is not picture


# ------------------------------------------------------------------------------------------------------------ the view


def test_the_baseline_lies_in_the_view_of_the_followup_where_the_alignment_says():
    shown, after, view = both_visits()
    now, then = shown[: len(CHANNELS)], shown[len(CHANNELS) :]
    for channel in ("local", "patch", "seen", "prior"):
        place = CHANNELS.index(channel)
        assert np.abs(now[place] - then[place]).mean() < 0.1
    truth = view.cut(after.on(GRID).astype(np.float32))
    assert np.mean((then[CHANNELS.index("prior")] > 0.5) == (truth > 0.5)) > 0.99


def test_a_carried_over_lesion_takes_less_of_the_view_than_a_prompted_one_and_a_tiny_one_has_room_to_be_elsewhere():
    _, inside = ball()
    view = view_again(Box.around(Mask.from_array(inside, GRID)), GRID)
    assert view.side_mm[1] == pytest.approx(25.0 / 0.4)
    tiny = view_again(Box.from_index(np.array([20.0, 30, 35]), np.array([21.0, 31, 36]), GRID), GRID)
    assert np.all(tiny.step * PATCH >= 16.0)


def test_a_baseline_that_does_not_reach_the_place_is_not_seen():
    baseline, inside = ball()
    far = Alignment.from_affine(AffineMap.shift(np.array([0.0, 0.0, 500.0])))
    view = view_again(Box.around(Mask.from_array(inside, GRID)), GRID)
    then, outline = seen_through(baseline, Mask.from_array(inside, GRID), view, far.backward)
    assert not then.seen.any()
    assert not outline.any()


# ----------------------------------------------------------------------------------------------------- both engines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("onnxscript")
    from lesionlocator.train.export import add_memory, write_model

    into = tmp_path_factory.mktemp("model")
    segmenter = uneven(Promptable(SMALL))
    write_model(segmenter, CARD, into)
    add_memory(uneven(Remembering.starting_from(segmenter)), into)
    return into


def test_the_light_engine_and_torch_give_the_same_answer_with_memory(folder):
    shown = both_visits()[0][None]
    light, heavy = (load_engine(folder, device, threads=1, memory=True) for device in ("auto", "torch"))
    for one, other in zip(light(shown), heavy(shown), strict=True):
        assert one.shape == other.shape
        assert one == pytest.approx(other, abs=1e-4)


def test_a_model_folder_with_a_memory_outlines_as_before_and_looks_again(folder):
    segmenter = load_segmenter(str(folder))
    assert isinstance(segmenter, Segmenter)
    assert isinstance(segmenter, Rememberer)
    baseline, inside = ball()
    followup, there = ball(np.array([20.0, 30.0, 35.0]) + MOVED)
    before, after = Mask.from_array(inside, GRID), Mask.from_array(there, GRID)
    assert segmenter.outline(segmenter.prepare(baseline), [(Box.around(before),)])[0].mask is not None
    visits = segmenter.prepare(baseline), segmenter.prepare(followup)
    (alone,) = segmenter.look_again(*visits, SHIFT, [Remembered(before, after)])
    assert 0 <= alone.presence <= 1
    other = Mask.from_array(np.roll(inside, 9, 1), GRID)
    _, beside = segmenter.look_again(*visits, SHIFT, [Remembered(other, other), Remembered(before, after)])
    assert beside.presence == alone.presence


@pytest.mark.parametrize("name", ["intensity", "ellipsoid"])
def test_models_without_a_memory_do_not_look_again(name):
    assert not isinstance(load_segmenter(name), Rememberer)


# --------------------------------------------------------------------------------------------------------- training


def quick(out, **changed):
    settings = TrainSettings(out=out, steps=4, batch=2, loaders=0, accelerator="cpu", save_every=2, corrected=0.0)
    return replace(settings, **changed)


LESSON = Recipe(ball_pair, MemorySettings(), draw=draw_memory_sample, loss=memory_loss)


def test_what_was_carried_over_lies_off_the_lesion_in_training_as_an_aligner_leaves_it():
    rng = np.random.default_rng(0)
    region = ball_pair(rng, 0.0, gone=False)
    prior = CHANNELS.index("prior")
    off = []
    for settings in (MemorySettings(off_voxels=(0.0, 0.0), spoiled=0.0), MemorySettings(off_voxels=(6.0, 6.0))):
        for _ in range(6):
            sample = draw_memory_sample(rng, region, settings)
            assert sample.shown.shape == (2 * len(CHANNELS), PATCH, PATCH, PATCH)
            places = [np.argwhere(part > 0.5).mean(axis=0) for part in (sample.shown[prior], sample.target)]
            off.append(np.linalg.norm(places[0] - places[1]))
    assert max(off[:6]) < 0.5
    assert np.mean(off[6:]) > 3


def test_a_lesion_that_is_gone_has_no_target_and_one_that_is_there_has():
    rng = np.random.default_rng(1)
    for gone in (True, False):
        region = ball_pair(rng, 0.0, gone=gone)
        sample = draw_memory_sample(rng, region, MemorySettings())
        assert bool(sample.target.any()) is not gone
        assert sample.beyond == 0.0 or not gone


def test_believing_in_a_lesion_that_is_gone_costs_more_than_not_believing():
    rng = np.random.default_rng(2)
    batch = Batch.of([draw_memory_sample(rng, ball_pair(rng, 0.0, gone=True), MemorySettings())])
    nothing = torch.full((1, PATCH, PATCH, PATCH), -20.0)
    right = memory_loss(nothing, torch.tensor([[0.99, 0.01]]), batch)
    assert right < 0.05
    assert memory_loss(nothing, torch.tensor([[0.99, 0.99]]), batch) > right + 1
    assert memory_loss(-nothing, torch.tensor([[0.99, 0.01]]), batch) > right + 1


def test_a_training_with_memory_that_was_interrupted_ends_with_the_same_weights_to_the_bit(tmp_path):
    def interrupt(_):
        raise KeyboardInterrupt

    torch.set_num_threads(1)
    start = Remembering.starting_from(uneven(Promptable(SMALL)))
    whole = train(LESSON, quick(tmp_path / "whole"), start)
    with pytest.raises(KeyboardInterrupt):
        train(LESSON, quick(tmp_path / "halted"), start, interrupt)
    assert torch.load(tmp_path / "halted" / CHECKPOINT, weights_only=True)["step"] == 2
    resumed = train(LESSON, quick(tmp_path / "halted"), start)
    for one, other in zip(load_averaged(whole).parameters(), load_averaged(resumed).parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_the_network_learns_in_a_few_steps_that_a_ball_is_gone(tmp_path):
    torch.set_num_threads(1)
    settings = quick(tmp_path, steps=60, batch=4, save_every=60, rate=1e-2)
    network = load_averaged(train(LESSON, settings, Remembering.starting_from(Promptable(SMALL))))
    rng = np.random.default_rng(7)
    said = {}
    for gone in (True, False):
        samples = [draw_memory_sample(rng, ball_pair(rng, 0.0, gone=gone), MemorySettings()) for _ in range(8)]
        with torch.no_grad():
            said[gone] = network(Batch.of(samples).shown)[1][:, 1]
    assert (said[True] < 0.5).float().mean() >= 0.75
    assert (said[False] > 0.5).float().mean() >= 0.75


def test_painted_visits_show_the_same_tissue_and_a_lesion_that_is_gone_leaves_an_empty_mask():
    rng = np.random.default_rng(3)
    settings = VisitSettings(gone=1.0, neighbour=0.0, scar=0.0)
    baseline, followup = draw_visits(rng, Backgrounds(()), settings)
    assert baseline.image.shape == followup.image.shape
    assert baseline.mask.any()
    assert not followup.mask.any()
    there = draw_visits(rng, Backgrounds(()), VisitSettings(gone=0.0))
    assert there[1].mask.any()
    assert np.corrcoef(there[0].image.ravel(), there[1].image.ravel())[0, 1] > 0.6


def test_a_kept_pair_is_read_as_it_was_written(tmp_path):
    rng = np.random.default_rng(4)
    region = PaintedPairs(Backgrounds(()))(rng, 0.5)
    region = replace(region, before=np.where(np.arange(region.before.shape[2]) < 3, np.nan, region.before))
    for name in ("painted-1", f"painted-2-{GONE}"):
        write_pair(region, tmp_path / f"{name}.npz")
    found = read_pair(tmp_path / "painted-1.npz")
    assert np.array_equal(found.outline, region.outline)
    assert np.array_equal(found.truth, region.truth)
    assert found.followup.modality == region.followup.modality
    assert found.followup.geometry.same_as(region.followup.geometry)
    assert np.array_equal(np.isnan(found.before), np.isnan(region.before))
    assert np.corrcoef(found.followup.array.ravel(), region.followup.array.ravel())[0, 1] > 0.9999
    files = sorted(tmp_path.glob("*.npz"))
    assert Stored(files, gone=1.0)(rng, 0.0).kind == region.kind


# --------------------------------------------------------------------------------------------------------- tracking


class Remembers:
    """An engine of one rule: what is bright in the follow-up is the lesion, and nothing bright is no lesion."""

    name, device = "rule", "cpu"

    def __call__(self, shown):
        scan = shown[:, CHANNELS.index("patch")]
        middle = (scan.max(axis=(1, 2, 3)) + scan.min(axis=(1, 2, 3))) / 2
        bright = scan > middle[:, None, None, None]
        there = (bright & (shown[:, CHANNELS.index("prior")] > 0)).any(axis=(1, 2, 3))
        return bright.astype(np.float32), np.stack([np.full(len(shown), 0.8), there], axis=1).astype(np.float32)


def tracked(tmp_path, followup, lesions):
    segmenter = LearnedWithMemory(CARD, tmp_path, _memories=[Remembers()])
    baseline, _ = ball()
    first = Timepoint("march", GRID, lambda: baseline, lesions)
    second = Timepoint("june", GRID, lambda: followup)
    return track_case(Case((first, second)), segmenter, settings=Following(align=lambda one, other: SHIFT))


def test_track_follows_a_lesion_by_the_model_that_remembers_it(tmp_path):
    followup, there = ball(np.array([21.0, 31.0, 36.0]) + MOVED, 14.0)
    lesion = Lesion("1", (), Mask.from_array(ball()[1], GRID), Status.OUTLINED)
    case = tracked(tmp_path, followup, (lesion,))
    (found,) = case.timepoints[1].lesions
    truth = Mask.from_array(there, GRID)
    assert 2 * found.mask.overlap(truth) / (found.mask.voxels + truth.voxels) > 0.9
    assert found.confidence == pytest.approx(0.8, abs=1e-3)


def test_track_says_that_a_lesion_vanished_when_the_model_does_not_believe_in_it_any_more(tmp_path):
    lesion = Lesion("1", (), Mask.from_array(ball()[1], GRID), Status.OUTLINED)
    nothing = Volume(np.zeros(GRID.shape, np.float32), GRID, "MR")
    case = tracked(tmp_path, nothing, (lesion,))
    assert case.timepoints[1].lesions[0].status is Status.ABSENT
    assert case.links[0].after is Ending.VANISHED
    assert "belief" in case.links[0].reason


def test_a_lesion_comes_out_in_parts_where_it_has_split(tmp_path):
    one, there = ball(np.array([20.0, 20.0, 35.0]) + MOVED, 8.0)
    other, too = ball(np.array([20.0, 40.0, 35.0]) + MOVED, 8.0)
    both = replace(one, array=np.maximum(one.array, other.array))
    lesion = Lesion("1", (), Mask.from_array(ball()[1], GRID), Status.OUTLINED)
    case = tracked(tmp_path, both, (lesion,))
    masks = [found.mask for found in case.timepoints[1].lesions]
    assert len(masks) == 2
    assert sum(mask.voxels for mask in masks) == pytest.approx(there.sum() + too.sum(), rel=0.15)


def test_an_answer_without_an_outline_is_a_row_with_its_reason(tmp_path):
    class Lost(LearnedWithMemory):
        def look_again(self, baseline, followup, alignment, lesions):
            assert isinstance(baseline, Prepared)
            return [SeenAgain(Outline(None, None, "nothing found at its place"), 0.9, True) for _ in lesions]

    baseline, inside = ball()
    lesion = Lesion("1", (), Mask.from_array(inside, GRID), Status.OUTLINED)
    visits = [Timepoint("march", GRID, lambda: baseline, (lesion,)), Timepoint("june", GRID, lambda: baseline)]
    settings = Following(align=lambda one, other: Alignment.from_affine(AffineMap.identity()))
    case = track_case(Case(tuple(visits)), Lost(CARD, tmp_path), settings=settings)
    assert case.links[0].after is Ending.UNSURE
    assert case.links[0].reason == "nothing found at its place"
