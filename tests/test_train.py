"""Training: prompts drawn from true outlines, a loop that goes on to the bit, and a user's own folder."""

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from files import save_nifti  # noqa: E402
from lesionlocator.errors import Refused  # noqa: E402
from lesionlocator.network.promptable import ASKED, BOX, FACTS, SHOWN, Promptable, PromptablePlan, kind_of_scan  # noqa: E402
from lesionlocator.segment.zoom import CHANNELS, PATCH, TOLD  # noqa: E402
from lesionlocator.train.confidence import ConfidencePlan, answers, fit_confidence  # noqa: E402
from lesionlocator.train.data import GroupPlan, Region, SampleSettings, draw_group, draw_sample  # noqa: E402
from lesionlocator.train.loop import (  # noqa: E402
    APART,
    CHECKPOINT,
    SAMPLES,
    Groups,
    Recipe,
    learning_rate,
    load_averaged,
    train,
)
from lesionlocator.train.loss import outline_loss, true_dice  # noqa: E402
from lesionlocator.train.muon import orthogonal  # noqa: E402
from lesionlocator.train.prompts import PromptSettings, correct, draw_question  # noqa: E402
from lesionlocator.train.settings import TrainSettings  # noqa: E402
from lesionlocator.volume import Volume  # noqa: E402
from train_work import GRID, ball_region  # noqa: E402

SMALL = PromptablePlan(mixed=6, widths=(4, 8, 8, 8), blocks=(1, 1, 1, 1), fine=2)


def quick(out, **changed):
    return replace(TrainSettings(out=out, steps=4, batch=2, loaders=0, accelerator="cpu", save_every=2), **changed)


# -------------------------------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize("asked", ["box", "box_and_clicks", "click", "prior"])
def test_every_way_of_asking_leaves_the_lesion_in_the_patch_and_its_prompt_on_it(asked):
    only = replace(PromptSettings(box=0.0, box_and_clicks=0.0, click=0.0, prior=0.0), **{asked: 1.0})
    region = ball_region(np.random.default_rng(0), 0.0)
    for seed in range(12):
        question = draw_question(np.random.default_rng(seed), region.truth, GRID, None, only)
        target = question.view.cut(region.truth)
        assert target.sum() > 30
        for at in question.hints.clicks_in:
            assert target[tuple(np.clip(np.round(at), 0, PATCH - 1).astype(int))] > 0.3
        if question.hints.box is not None:
            size = question.hints.box[1] - question.hints.box[0]
            assert np.all(size > 0.3 * PATCH)
            assert np.all(size < 0.8 * PATCH)


def test_where_a_picture_has_two_readings_a_click_in_the_core_tells_which():
    region = ball_region(np.random.default_rng(0), 1.0)
    told = {True: 0, False: 0}
    for seed in range(40):
        for with_core in (True, False):
            truth = region.truth if with_core else region.truth & ~region.core
            question = draw_question(
                np.random.default_rng(seed), truth, GRID, region.core, PromptSettings(click=0.0, prior=0.0)
            )
            core = question.view.cut(region.core)
            clicks = question.hints.clicks_in if with_core else question.hints.clicks_out
            hits = [core[tuple(np.clip(np.round(at), 0, PATCH - 1).astype(int))] > 0.3 for at in clicks]
            told[with_core] += any(hits)
    assert min(told.values()) >= 28


def test_a_correction_is_a_click_in_the_largest_error():
    truth = np.zeros((PATCH,) * 3, np.float32)
    truth[10:30, 10:30, 10:30] = 1
    said = truth.copy()
    said[10:20] = 0  # half of the lesion is missed
    said[40:43, 40:43, 40:43] = 1  # and a little is too much
    at, positive = correct(np.random.default_rng(0), said, truth, np.ones_like(truth))
    assert positive
    assert 10 <= at[0] < 20
    at, positive = correct(np.random.default_rng(0), np.maximum(said, truth), truth, np.ones_like(truth))
    assert not positive
    assert np.all((at >= 40) & (at < 43))
    assert correct(np.random.default_rng(0), truth, truth, np.ones_like(truth)) is None


def test_nothing_beyond_the_scan_is_a_target():
    rng = np.random.default_rng(5)
    for _ in range(10):
        region = ball_region(rng, 0.0)
        cut = Region(
            Volume(region.scan.array[:18], GRID.crop((0, 0, 0), (18, 36, 36)), "MR"), region.truth[:18], "ball"
        )
        sample = draw_sample(rng, cut, SampleSettings())
        assert not sample.target[sample.seen < 0.5].any()
        assert not sample.shown[: CHANNELS.index("seen"), sample.seen < 0.5].any()


def test_a_group_of_samples_is_the_same_whoever_draws_it():
    one, other = (draw_group(7, ball_region, SampleSettings(), GroupPlan(3, 2, 2)) for _ in range(2))
    assert len(one) == 4
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.shown, b.shown)
        assert np.array_equal(a.target, b.target)
    (different, *_) = draw_group(8, ball_region, SampleSettings(), GroupPlan(3, 2, 2))
    assert not np.array_equal(one[0].shown, different.shown)


# ----------------------------------------------------------------------------------------------------------------- loss


def test_a_perfect_outline_costs_next_to_nothing_and_a_wrong_one_much():
    target = torch.zeros(1, 16, 16, 16)
    target[:, 4:10, 4:10, 4:10] = 1
    seen = torch.ones_like(target)
    assert outline_loss(20 * (2 * target - 1), target, seen) < 0.01
    assert outline_loss(-20 * (2 * target - 1), target, seen) > 2


def test_what_the_scan_does_not_show_costs_nothing():
    target, seen = torch.zeros(1, 16, 16, 16), torch.ones(1, 16, 16, 16)
    target[:, 4:8, 4:8, 4:8] = 1
    seen[:, :, :, 12:] = 0
    logits = 20 * (2 * target - 1)
    wrong = torch.where(seen > 0, logits, torch.tensor(20.0))
    assert outline_loss(wrong, target, seen) == pytest.approx(float(outline_loss(logits, target, seen)), abs=1e-4)


def test_an_outline_of_the_visible_half_of_a_lesion_is_no_perfect_outline():
    target = torch.zeros(1, 8, 8, 8)
    target[:, :4] = 1
    half = true_dice(20 * (2 * target - 1), target, torch.ones_like(target), torch.tensor([256.0]))
    assert half == pytest.approx(2 * 256 / (256 + 256 + 256))


# ----------------------------------------------------------------------------------------------------------------- loop


def test_a_training_that_was_interrupted_ends_with_the_same_weights_to_the_bit(tmp_path):
    def interrupt(_):
        raise KeyboardInterrupt

    recipe = Recipe(ball_region)
    torch.set_num_threads(1)
    whole = train(recipe, quick(tmp_path / "whole", corrected=0.5), SMALL)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, quick(tmp_path / "halted", corrected=0.5), SMALL, interrupt)
    assert torch.load(tmp_path / "halted" / CHECKPOINT, weights_only=True)["step"] == 2
    resumed = train(recipe, quick(tmp_path / "halted", corrected=0.5), SMALL)
    for one, other in zip(load_averaged(whole).parameters(), load_averaged(resumed).parameters(), strict=True):
        assert torch.equal(one, other)
    assert not list((tmp_path / "whole").glob("*.part"))


def test_the_network_learns_to_outline_a_ball(tmp_path):
    said = []
    settings = quick(tmp_path, steps=60, save_every=30, rate=1e-2, corrected=0.0)
    recipe = Recipe(ball_region, SampleSettings(PromptSettings(click=0.0, prior=0.0)))
    train(recipe, settings, SMALL, said.append)
    first, last = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert last["dice"] > max(0.7, first["dice"])
    assert "about 0 min left" in said[-1]


def test_the_network_finds_the_channels_that_it_reads_by_number_under_their_names():
    assert [CHANNELS[number] for number in SHOWN] == ["local", "threshold", "evidence"]
    assert [CHANNELS[number] for number in ASKED] == ["click in", "click out", "box", "prior"]
    assert (CHANNELS[BOX], CHANNELS[PromptablePlan().told]) == ("box", "modality")
    assert PromptablePlan().channels == len(CHANNELS)


def test_mr_ct_and_pet_are_told_apart():
    told = torch.tensor([TOLD["MR"], TOLD["CT"], TOLD["PT"]])
    assert torch.equal(kind_of_scan(told), torch.eye(3))
    torch.manual_seed(0)
    network, patch = Promptable(SMALL).eval(), torch.randn(1, len(CHANNELS), 32, 32, 32)
    for tell in network.tell_down:
        torch.nn.init.normal_(tell.by_kind.weight)
    answers: list[torch.Tensor] = []
    for kind in told:
        patch[:, SMALL.told] = kind
        answers.append(network.outline(patch))
    assert not torch.allclose(answers[0], answers[1], atol=0.01)
    assert not torch.allclose(answers[1], answers[2], atol=0.01)


def test_the_confidence_is_fitted_after_the_outline_and_leaves_it_as_it_is(tmp_path):
    recipe = Recipe(ball_region, SampleSettings(PromptSettings()))
    torch.manual_seed(0)
    network, patch = Promptable(SMALL).eval(), torch.randn(2, len(CHANNELS), PATCH, PATCH, PATCH)
    before, _ = network(patch)
    plan = ConfidencePlan(answers=120)
    assert 0 <= fit_confidence(network, recipe, plan) < 0.2
    after, confidence = network(patch)
    assert torch.equal(before, after)
    assert torch.all((confidence > 0) & (confidence < 1))
    facts, dice = answers(network, recipe, replace(plan, answers=48, seed=5))
    assert facts.shape == (48, FACTS)
    # Better than to say the same of every answer: both on the same answers, which the fit did not see.
    off = (network.judge(facts) - dice).abs().mean()
    assert float(off) < float((dice - dice.mean()).abs().mean())


def test_samples_that_are_used_three_times_come_back_in_other_groups_turned_anew(tmp_path):
    groups = Groups(Recipe(ball_region), quick(tmp_path, reuse=3, steps=120))
    first, again, later = groups[0], groups[0], Groups(groups.recipe, groups.settings)[APART]
    assert len(first) == len(later) == SAMPLES
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.shown, other.shown)

    def marks(samples):
        return {(int((sample.target >= 0.5).sum()), int((sample.target > 0).sum())) for sample in samples}

    assert len(marks(first) & marks(later)) == 2 * len(marks(first)) // 3
    shown = {sample.shown.tobytes() for sample in first}
    assert sum(sample.shown.tobytes() in shown for sample in later) < SAMPLES / 3


def test_a_batch_or_a_number_of_uses_that_does_not_fit_is_refused(tmp_path):
    for wrong in ({"batch": 5}, {"reuse": 5}):
        with pytest.raises(Refused, match="a batch that divides 24"):
            Groups(Recipe(ball_region), quick(tmp_path, **wrong))


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_the_optimiser_moves_a_matrix_by_about_the_same_amount_in_all_directions(shape):
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert singular.min() > 0.5
    assert singular.max() < 1.3


@pytest.mark.slow
def test_two_processes_train_together(tmp_path):
    checkpoint = train(Recipe(ball_region), quick(tmp_path, steps=2, devices=2, threads=1), SMALL)
    assert torch.load(checkpoint, weights_only=True)["step"] == 2


def test_the_learning_rate_warms_up_and_ends_at_nothing(tmp_path):
    settings = quick(tmp_path, steps=1000)
    rates = [learning_rate(step, settings) for step in range(1000)]
    assert np.argmax(rates) == pytest.approx(100, abs=10)
    assert rates[0] < 0.05 * settings.rate
    assert rates[-1] < 0.001 * settings.rate


# ------------------------------------------------------------------------------------------------------ a user's folder


def test_a_model_is_made_better_for_a_users_own_lesions_by_one_command(tmp_path, capsys):
    pytest.importorskip("onnxscript")
    from lesionlocator.cli import run
    from lesionlocator.segment import load_segmenter
    from lesionlocator.train.export import write_model
    from lesionlocator.weights import ModelCard

    card = ModelCard(id="toy", kind="learned", title="t", licence="CC0", intended_use="u", limits="l")
    write_model(Promptable(SMALL), card, tmp_path / "toy")
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for patient in range(2):
        region = ball_region(rng, 0.0)
        save_nifti(tmp_path / "data" / "images" / f"p{patient}.nii.gz", region.scan.array, GRID)
        save_nifti(tmp_path / "data" / "labels" / f"p{patient}.nii.gz", region.truth.astype(np.uint8), GRID)
    words = f"train {tmp_path / 'data'} --from {tmp_path / 'toy'} --out {tmp_path / 'run'} --steps 2 --batch 2"
    more = "--loaders 0 --judged 24 --modality MR --name ours --json"
    assert run([*words.split(), *more.split()]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert load_segmenter(answer["model"]).name == "ours"
    assert (tmp_path / "run" / "curves.png").is_file()
