"""The confidence, fitted once the outline is learned: how good an answer is, read from plain facts of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lesionlocator.network.promptable import Promptable
from lesionlocator.train.data import GroupPlan, draw_group
from lesionlocator.train.loop import Batch, Recipe, corrected
from lesionlocator.train.loss import confidence_loss, true_dice

_GROUP = 24
_STEPS = 1500
_RATE = 3e-3
_DECAY = 1e-2
_NARROWEST = 1e-3


@dataclass(frozen=True)
class ConfidencePlan:
    """How many answers the confidence is fitted on, and where they come from."""

    answers: int = 1500
    seed: int = 90_001
    corrected: float = 0.15
    """Share of the batches that are answered once more with a click in the largest error."""


def fit_confidence(network: Promptable, recipe: Recipe, plan: ConfidencePlan | None = None) -> float:
    """Fit the confidence of a network whose outlines are learned; they stay as they are.

    Args:
        network: Its judge is changed in place.
        recipe: Where samples come from; they are drawn anew, as hard as they get.
        plan: How many.

    Returns:
        Mean distance of confidence and Dice on the last fifth of the answers, which the fit did not see.
    """
    facts, dice = answers(network, recipe, plan or ConfidencePlan())
    kept = max(1, len(facts) // 5)
    fit_judge(network, facts[:-kept], dice[:-kept])
    with torch.no_grad():
        return float((network.judge(facts[-kept:]) - dice[-kept:]).abs().mean())


def answers(
    network: Promptable, recipe: Recipe, plan: ConfidencePlan
) -> tuple[Float[Tensor, "n facts"], Float[Tensor, " n"]]:
    """Facts of what the network says to new samples, and the Dice that it got."""
    network.eval()
    facts: list[Tensor] = []
    dice: list[Tensor] = []
    group = 0
    while sum(map(len, facts)) < plan.answers:
        samples = draw_group(group, recipe.source, recipe.samples, GroupPlan(plan.seed, _GROUP // 2, 2))
        rng = np.random.default_rng([plan.seed, group, 1])
        for first in range(0, _GROUP, 8):
            batch = Batch.of(samples[first : first + 8])
            if rng.random() < plan.corrected:
                batch = corrected(network, batch, rng)
            with torch.no_grad():
                logits = network.outline(batch.shown)
                facts.append(network.facts(batch.shown, logits))
                dice.append(true_dice(logits, batch.target, batch.seen, batch.beyond))
        group += 1
    return torch.cat(facts), torch.cat(dice)


def fit_judge(network: Promptable, facts: Float[Tensor, "n facts"], dice: Float[Tensor, " n"]) -> None:
    """The judge from facts and what came of them."""
    judge = network.judge
    torch.manual_seed(0)
    for layer in judge.layers:
        if isinstance(layer, torch.nn.Linear):
            layer.reset_parameters()
    judge.middle.copy_(facts.mean(0))
    judge.scale.copy_(1 / facts.std(0).clamp(min=_NARROWEST))
    weights = [weight.requires_grad_(True) for weight in judge.layers.parameters()]
    learner = torch.optim.AdamW(weights, _RATE, weight_decay=_DECAY)
    for step in range(_STEPS):
        learner.param_groups[0]["lr"] = _RATE * (1 - step / _STEPS)
        learner.zero_grad()
        confidence_loss(judge(facts), dice).backward()
        learner.step()
    judge.requires_grad_(False)
