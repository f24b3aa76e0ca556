"""The network that answers a patch and its prompts with an outline, and says how good it thinks that outline is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

FACTS = 21
"""Numbers that the confidence is read from."""

SHOWN = (0, 1, 4)
"""The channels across whose values an outline's step is measured: local, threshold, evidence."""

BOX = 10
ASKED = (8, 9, BOX, 11)
"""The channels of prompts: clicks in, clicks out, box, prior."""

SCANS = 3
"""Kinds of scan that are told apart."""


@dataclass(frozen=True)
class PromptablePlan:
    """The measures of a promptable network. `widths` are the channels of each stage from half resolution down."""

    channels: int = 13
    again: tuple[int, ...] = (0, 1, 4, 5, 6, 11)
    """The channels that are looked at once more at full resolution."""
    told: int = 12
    """The channel that tells the modality, the same in every voxel."""
    mixed: int = 32
    """Channels into which the 2 x 2 x 2 voxels of all channels are mixed first."""
    widths: tuple[int, ...] = (24, 48, 96, 192)
    blocks: tuple[int, ...] = (0, 2, 2, 1)
    fine: int = 8

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> PromptablePlan:
        """A plan from `to_json`."""
        return PromptablePlan(
            int(values["channels"]),
            tuple(values["again"]),
            int(values["told"]),
            int(values["mixed"]),
            tuple(values["widths"]),
            tuple(values["blocks"]),
            int(values["fine"]),
        )


class Promptable(nn.Module):
    """(n, channels, d, h, w) -> logits (n, d, h, w) and confidence (n), an estimate of the outline's Dice.

    A residual U-Net on half resolution, which sees 2 x 2 x 2 voxels as channels. What it finds goes back to full
    resolution and meets the picture there once more, so that thin rims and branches are not lost.

    Norms take everything that is the same in all voxels out of the features, so what kind of scan it is enters after
    them, as a scale and a shift of each stage's features (doi:10.1609/aaai.v32i1.11671).

    The confidence teaches nothing to the outline, so it is not worked out while that is learned (it is zero then), but
    fitted afterwards.
    """

    def __init__(self, plan: PromptablePlan) -> None:
        super().__init__()
        self.plan = plan
        widths = plan.widths
        coarse_to_fine = list(pairwise(reversed(widths)))
        self.mix = nn.Conv3d(8 * plan.channels, plan.mixed, 1)
        self.stem = Normed(plan.mixed, widths[0])
        self.down = nn.ModuleList(
            nn.Sequential(*(Residual(width) for _ in range(count)))
            for width, count in zip(widths, plan.blocks, strict=True)
        )
        self.shrink = nn.ModuleList(nn.Conv3d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.lift = nn.ModuleList(nn.Conv3d(a, b, 1) for a, b in coarse_to_fine)
        self.join = nn.ModuleList(Normed(2 * b, b) for _, b in coarse_to_fine)
        self.up = nn.ModuleList(Residual(b) for _, b in coarse_to_fine)
        self.tell_down = nn.ModuleList(Told(width) for width in widths)
        self.tell_up = nn.ModuleList(Told(b) for _, b in coarse_to_fine)
        self.coarse = nn.Conv3d(widths[0], 8, 1)
        self.spread = nn.Conv3d(widths[0], 8 * plan.fine, 1)
        self.meet = Normed(plan.fine + len(plan.again), 2 * plan.fine)
        self.out = nn.Conv3d(2 * plan.fine, 1, 1)
        self.judge = Judge(FACTS).requires_grad_(False)

    def forward(self, patch: Float[Tensor, "n c d h w"]) -> tuple[Float[Tensor, "n d h w"], Float[Tensor, " n"]]:
        logits = self.outline(patch)
        return logits, logits.new_zeros(len(logits)) if self.training else self.judge(self.facts(patch, logits))

    def outline(self, patch: Float[Tensor, "n c d h w"]) -> Float[Tensor, "n d h w"]:
        """Logits of lesion for every voxel."""
        return self.decode(patch, self.encode(patch))

    def encode(self, patch: Float[Tensor, "n c d h w"]) -> list[Tensor]:
        """Features of every stage, from half resolution down."""
        scan = kind_of_scan(patch[:, self.plan.told, 0, 0, 0])
        features = bent(self.stem(self.mix(to_depth(patch))))
        stages: list[Tensor] = []
        for stage, (blocks, tell) in enumerate(zip(self.down, self.tell_down, strict=True)):
            stages.append(blocks(tell(features, scan)))
            if stage < len(self.shrink):
                features = self.shrink[stage](stages[-1])
        return stages

    def decode(self, patch: Float[Tensor, "n c d h w"], stages: Sequence[Tensor]) -> Float[Tensor, "n d h w"]:
        """Logits from the features of all stages, and the picture once more."""
        scan = kind_of_scan(patch[:, self.plan.told, 0, 0, 0])
        *skips, features = stages
        for lift, join, up, tell in zip(self.lift, self.join, self.up, self.tell_up, strict=True):
            raised = functional.interpolate(lift(features), scale_factor=2.0, mode="trilinear", align_corners=False)
            features = up(tell(bent(join(torch.cat((raised, skips.pop()), dim=1))), scan))
        again = torch.cat([patch[:, channel : channel + 1] for channel in self.plan.again], dim=1)
        met = bent(self.meet(torch.cat((to_space(self.spread(features)), again), dim=1)))
        return (self.out(met) + to_space(self.coarse(features)))[:, 0]

    def facts(self, patch: Float[Tensor, "n c d h w"], logits: Float[Tensor, "n d h w"]) -> Float[Tensor, "n facts"]:
        """What the confidence is read from.

        The Dice that the belief itself expects, size and doubt of the outline, the step across its border, how it sits
        in the box, and what was asked. Plain facts, not features: those differ from one kind of scan to another, these
        mean the same on all.
        """
        belief = torch.sigmoid(logits)[:, None]
        unsure = 4 * belief * (1 - belief)
        over = (1, 2, 3, 4)
        volume = belief.mean(over)
        said = (belief >= 0.5).to(belief.dtype)
        by_itself = 2 * (belief * said).sum(over) / (belief.sum(over) + said.sum(over) + 1.0)
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
        scan = kind_of_scan(patch[:, self.plan.told, 0, 0, 0])
        facts = [
            by_itself,
            volume,
            torch.log(volume + 1e-4),
            unsure.mean(over) / (volume + 1e-3),
            belief.amax(over),
            *steps,
            outside,
            filled,
            edges / (belief.sum(over) + 1.0),
            *asked,
            *scan.unbind(1),
        ]
        return torch.stack(facts, dim=1)


class Judge(nn.Module):
    """Facts of an outline (n, facts) -> its expected Dice (n). Facts are brought to a common scale first."""

    def __init__(self, facts: int) -> None:
        super().__init__()
        self.middle = nn.Parameter(torch.zeros(facts), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(facts), requires_grad=False)
        self.layers = nn.Sequential(nn.Linear(facts, 32), nn.SiLU(), nn.Linear(32, 1))

    def forward(self, facts: Float[Tensor, "n facts"]) -> Float[Tensor, " n"]:
        return torch.sigmoid(self.layers(((facts - self.middle) * self.scale).clamp(-4, 4))[:, 0])


class Told(nn.Module):
    """Scales and shifts features by what kind of scan it is; at first not at all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.by_kind = nn.Linear(SCANS, 2 * width, bias=False)
        nn.init.zeros_(self.by_kind.weight)

    def forward(self, features: Float[Tensor, "n c d h w"], scan: Float[Tensor, "n k"]) -> Float[Tensor, "n c d h w"]:
        scale, shift = self.by_kind(scan)[:, :, None, None, None].chunk(2, dim=1)
        return features * (1 + scale) + shift


def kind_of_scan(told: Float[Tensor, " n"]) -> Float[Tensor, "n 3"]:
    """MR (told as -1), CT (0) and PET (1) as one of three."""
    return torch.stack((torch.relu(-told), 1 - told.abs(), torch.relu(told)), dim=1)


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
