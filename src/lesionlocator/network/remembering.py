"""The network that outlines a lesion in a later scan with the earlier one in memory, and says whether it is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lesionlocator.network.promptable import FACTS, Promptable, PromptablePlan

Fused = Literal["difference", "concatenation"]

PRIOR = 11
"""The channel of the outline from before."""

_HIDDEN = 64


@dataclass(frozen=True)
class RememberingPlan:
    """The measures of a network with memory: those of the promptable network inside, and how both visits meet."""

    promptable: PromptablePlan = field(default_factory=PromptablePlan)
    fused: Fused = "difference"
    picture: bool = True
    """Whether the baseline's picture is looked at, or its outline alone."""

    @property
    def channels(self) -> int:
        """Those of the follow-up, then as many of the baseline."""
        return 2 * self.promptable.channels

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> RememberingPlan:
        """A plan from `to_json`."""
        fused: Fused = "concatenation" if values["fused"] == "concatenation" else "difference"
        return RememberingPlan(PromptablePlan.from_json(values["promptable"]), fused, bool(values["picture"]))


class Remembering(nn.Module):
    """(n, 2 x channels, d, h, w) -> logits (n, d, h, w), and (n, 2): confidence, and belief that it is still there.

    The channels of the follow-up come first, then those of the baseline in the same view. One encoder looks at both
    visits; what they show meets at every stage. A new network answers as the promptable one inside does without memory.
    """

    def __init__(self, plan: RememberingPlan) -> None:
        super().__init__()
        self.plan = plan
        self.promptable = Promptable(plan.promptable)
        widths = plan.promptable.widths
        self.fusions = nn.ModuleList(Fusion(width, plan.fused) for width in widths)
        pooled = 2 * widths[-1] + 2 * widths[0] + 3 * FACTS
        self.presence, self.judge = (
            nn.Sequential(nn.Linear(pooled, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, 1)) for _ in range(2)
        )
        for head in (self.presence, self.judge):
            # Undecided at first, so that nothing is taught to the features by a head that knows nothing yet.
            nn.init.zeros_(head[2].weight)  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(head[2].bias)  # pyright: ignore[reportArgumentType]

    @staticmethod
    def starting_from(promptable: Promptable, fused: Fused = "difference", picture: bool = True) -> Remembering:
        """A new network round the weights of a promptable one."""
        network = Remembering(RememberingPlan(promptable.plan, fused, picture))
        network.promptable.load_state_dict(promptable.state_dict())
        return network

    def forward(self, patches: Float[Tensor, "n c d h w"]) -> tuple[Float[Tensor, "n d h w"], Float[Tensor, "n 2"]]:
        count = self.plan.promptable.channels
        now, then = patches[:, :count], patches[:, count:]
        if not self.plan.picture:
            outline, told = (then[:, at : at + 1] for at in (PRIOR, self.plan.promptable.told))
            dark = torch.zeros_like(then[:, :PRIOR])
            then = torch.cat((dark, outline, told), dim=1)
        number = patches.shape[0]
        both = self.promptable.encode(torch.cat((now, then)))
        stages = [fusion(stage[:number], stage[number:]) for fusion, stage in zip(self.fusions, both, strict=True)]
        logits = self.promptable.decode(now, stages)
        pooled = self._pooled(now, then, stages, logits.detach())
        # What is said of the outline teaches nothing to the outline.
        words = torch.cat((self.judge(pooled.detach()), self.presence(pooled)), dim=1)
        return logits, torch.sigmoid(words.float())

    def _pooled(self, now: Tensor, then: Tensor, stages: Sequence[Tensor], logits: Tensor) -> Float[Tensor, "n f"]:
        """What both visits show deep down and at the place of the outline from before, and plain facts of both."""
        # On half resolution, which is several times faster and as good for facts.
        now, then, found = (functional.avg_pool3d(part, 2) for part in (now, then, logits.float()[:, None]))
        inside = now[:, PRIOR : PRIOR + 1]
        around = functional.max_pool3d(inside, 5, stride=1, padding=2) - inside
        seen = [stages[-1].mean((2, 3, 4)), stages[-1].amax((2, 3, 4))]
        seen += [_mean_in(stages[0], inside), _mean_in(stages[0], around)]
        certain = 8 * (2 * inside[:, 0] - 1)
        for patch, outline in ((now, found[:, 0]), (now, certain), (then, certain)):
            seen.append(self.promptable.facts(patch, outline))
        return (torch.cat([part.float() for part in seen], dim=1) / 2).clamp(-5, 5)


class Fusion(nn.Module):
    """What a later visit shows, corrected by how it differs from the earlier one; nothing at first.

    Weighting by the normed difference of features is that of Rokuss et al. 2024, arXiv:2409.13416.
    """

    def __init__(self, width: int, fused: Fused) -> None:
        super().__init__()
        self.fused = fused
        self.norm = nn.GroupNorm(width, width, eps=1e-4)
        self.mix = nn.Conv3d(2 * width, width, 1)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, now: Float[Tensor, "n c d h w"], then: Float[Tensor, "n c d h w"]) -> Float[Tensor, "n c d h w"]:
        if self.fused == "concatenation":
            return now + self.mix(torch.cat((now, then), dim=1))
        differing = self.norm((now - then).float())
        return now + self.mix(torch.cat((now * differing, differing), dim=1))


Network = Promptable | Remembering


def network_of(plan: dict[str, Any]) -> Network:
    """A network without its weights, from the plan that is kept with them."""
    if "promptable" in plan:
        return Remembering(RememberingPlan.from_json(plan))
    return Promptable(PromptablePlan.from_json(plan))


def _mean_in(features: Float[Tensor, "n c d h w"], weight: Float[Tensor, "n 1 d h w"]) -> Float[Tensor, "n c"]:
    return (features * weight).sum((2, 3, 4)) / (weight.sum((2, 3, 4)) + 1e-3)
