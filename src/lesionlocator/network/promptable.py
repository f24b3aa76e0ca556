"""The network that answers a patch and its prompts with an outline, and says how good it thinks that outline is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

FACTS = 19
"""Numbers that the confidence is read from beside features."""

SHOWN = (0, 1, 4)
"""The channels across whose values an outline's step is measured: local, threshold, evidence."""

BOX = 10
ASKED = (8, 9, BOX, 11)
"""The channels of prompts: clicks in, clicks out, box, prior."""


@dataclass(frozen=True)
class PromptablePlan:
    """The measures of a promptable network. `widths` are the channels of each stage from half resolution down."""

    channels: int = 13
    again: tuple[int, ...] = (0, 1, 4, 5, 6, 8, 9, 11, 12)
    """The channels that are looked at once more at full resolution."""
    first: int = 12
    """The channel with the classical log odds, in units of `odds`: what the network adds to."""
    odds: float = 3.5
    widths: tuple[int, ...] = (24, 48, 96, 192)
    blocks: tuple[int, ...] = (1, 1, 2, 1)
    fine: int = 8

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> PromptablePlan:
        """A plan from `to_json`."""
        return PromptablePlan(
            int(values["channels"]),
            tuple(values["again"]),
            int(values["first"]),
            float(values["odds"]),
            tuple(values["widths"]),
            tuple(values["blocks"]),
            int(values["fine"]),
        )


class Promptable(nn.Module):
    """(n, channels, d, h, w) -> logits (n, d, h, w) and confidence (n), an estimate of the outline's Dice.

    A residual U-Net on half resolution, which sees 2 x 2 x 2 voxels as channels. What it finds goes back to full
    resolution and meets the picture there once more, so that thin rims and branches are not lost.
    """

    def __init__(self, plan: PromptablePlan) -> None:
        super().__init__()
        self.plan = plan
        widths = plan.widths
        coarse_to_fine = list(pairwise(reversed(widths)))
        self.stem = Normed(8 * plan.channels, widths[0])
        self.down = nn.ModuleList(
            nn.Sequential(*(Residual(width) for _ in range(count)))
            for width, count in zip(widths, plan.blocks, strict=True)
        )
        self.shrink = nn.ModuleList(nn.Conv3d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.lift = nn.ModuleList(nn.Conv3d(a, b, 1) for a, b in coarse_to_fine)
        self.join = nn.ModuleList(Normed(2 * b, b) for _, b in coarse_to_fine)
        self.up = nn.ModuleList(Residual(b) for _, b in coarse_to_fine)
        self.coarse = nn.Conv3d(widths[0], 8, 1)
        self.spread = nn.Conv3d(widths[0], 8 * plan.fine, 1)
        self.meet = Normed(plan.fine + len(plan.again), 2 * plan.fine)
        self.fine = Normed(2 * plan.fine, plan.fine)
        self.out = nn.Conv3d(plan.fine, 1, 1)
        self.trust = nn.Parameter(torch.ones(1))
        self.judge = nn.Sequential(nn.Linear(widths[-1] + 2 * widths[0] + FACTS, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, patch: Float[Tensor, "n c d h w"]) -> tuple[Float[Tensor, "n d h w"], Float[Tensor, " n"]]:
        features = bent(self.stem(to_depth(patch)))
        skips: list[Tensor] = []
        for stage, blocks in enumerate(self.down):
            features = blocks(features)
            if stage < len(self.shrink):
                skips.append(features)
                features = self.shrink[stage](features)
        deepest = features
        for lift, join, up in zip(self.lift, self.join, self.up, strict=True):
            raised = functional.interpolate(lift(features), scale_factor=2.0, mode="trilinear", align_corners=False)
            features = up(bent(join(torch.cat((raised, skips.pop()), dim=1))))
        again = torch.cat([patch[:, channel : channel + 1] for channel in self.plan.again], dim=1)
        fine = bent(self.meet(torch.cat((to_space(self.spread(features)), again), dim=1)))
        added = (self.out(bent(self.fine(fine))) + to_space(self.coarse(features)))[:, 0]
        logits = added + self.trust * self.plan.odds * patch[:, self.plan.first]
        return logits, self._confidence(patch, deepest, features, logits)

    def _confidence(self, patch: Tensor, deepest: Tensor, features: Tensor, logits: Tensor) -> Float[Tensor, " n"]:
        """From what the network saw, and from plain facts of the outline; learns nothing into the outline itself.

        Norms take the strength of a contrast out of the features, so it is measured again on the patch.
        """
        belief = torch.sigmoid(logits.detach())[:, None]
        unsure = 4 * belief * (1 - belief)
        inside = functional.avg_pool3d(belief, 2)
        border = functional.avg_pool3d(unsure, 2)
        features, deepest = features.detach(), deepest.detach()
        seen = [deepest.mean((2, 3, 4))]
        for weight in (inside, border):
            seen.append((features * weight).sum((2, 3, 4)) / (weight.sum((2, 3, 4)) + 1e-3))
        return torch.sigmoid(self.judge(torch.cat((*seen, self._facts(patch, belief, unsure)), dim=1))[:, 0])

    def _facts(self, patch: Tensor, belief: Tensor, unsure: Tensor) -> Float[Tensor, "n facts"]:
        """Size and doubt of the outline, agreement with the classical one, step across its border, what was asked."""
        over = (1, 2, 3, 4)
        volume = belief.mean(over)
        first = patch[:, self.plan.first : self.plan.first + 1]
        classical = torch.sigmoid(self.plan.odds * first)
        agreement = 2 * (belief * classical).sum(over) / ((belief + classical).sum(over) + 1.0)
        shell = grown(belief, 5) * (1 - belief)
        core = belief * belief
        steps: list[Tensor] = []
        for channel in SHOWN:
            shown = patch[:, channel : channel + 1]
            means = [(shown * part).sum(over) / (part.sum(over) + 1.0) for part in (core, shell)]
            spread = ((shown - means[0][:, None, None, None, None]) ** 2 * core).sum(over) / (core.sum(over) + 1.0)
            steps += [means[0] - means[1], (spread + 1e-4).sqrt()]
        box = patch[:, BOX : BOX + 1]
        outside = (belief * (1 - box)).sum(over) / (belief.sum(over) + 1.0)
        filled = (belief * box).sum(over) / (box.sum(over) + 1.0)
        edges = belief.sum(over) - belief[:, :, 2:-2, 2:-2, 2:-2].sum(over)
        asked = [patch[:, channel].amax((1, 2, 3)) for channel in ASKED]
        facts = [
            volume,
            torch.log(volume + 1e-4),
            unsure.mean(over) / (volume + 1e-3),
            belief.amax(over),
            agreement,
            first.abs().mean(over),
            *steps,
            outside,
            filled,
            edges / (belief.sum(over) + 1.0),
            *asked,
        ]
        return torch.stack(facts, dim=1)


class Normed(nn.Module):
    """Convolution, then every channel of every patch brought to its own mean and spread."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(outputs, outputs, eps=1e-4)
        nn.init.kaiming_normal_(self.conv.weight, 0.01)

    def forward(self, features: Float[Tensor, "n c d h w"]) -> Float[Tensor, "n _ d h w"]:
        # In full precision even where convolutions are not: faster on processors, and small spreads are kept.
        return self.norm(self.conv(features).float())


class Residual(nn.Module):
    """Two normed convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = Normed(width, width), Normed(width, width)

    def forward(self, features: Float[Tensor, "n c d h w"]) -> Float[Tensor, "n c d h w"]:
        return bent(features + self.second(bent(self.first(features))))


def bent(features: Float[Tensor, "n c d h w"]) -> Float[Tensor, "n c d h w"]:
    """Leaky ReLU."""
    return functional.leaky_relu(features, 0.01)


def grown(belief: Float[Tensor, "n c d h w"], size: int) -> Float[Tensor, "n c d h w"]:
    """The largest value in a cube of so many voxels round each, one axis after the other: several times faster."""
    for sides in ((size, 1, 1), (1, size, 1), (1, 1, size)):
        reach = (sides[0] // 2, sides[1] // 2, sides[2] // 2)
        belief = functional.max_pool3d(belief, sides, stride=1, padding=reach)
    return belief


def to_depth(fine: Float[Tensor, "n c d h w"]) -> Float[Tensor, "n _ _ _ _"]:
    """Every 2 x 2 x 2 voxels as eight channels of one."""
    n, c, d, h, w = fine.shape
    parts = fine.reshape(n, c, d // 2, 2, h // 2, 2, w // 2, 2)
    return parts.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(n, 8 * c, d // 2, h // 2, w // 2)


def to_space(coarse: Float[Tensor, "n c d h w"]) -> Float[Tensor, "n _ _ _ _"]:
    """The way back of `to_depth`."""
    n, c, d, h, w = coarse.shape
    parts = coarse.reshape(n, c // 8, 2, 2, 2, d, h, w)
    return parts.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(n, c // 8, 2 * d, 2 * h, 2 * w)
