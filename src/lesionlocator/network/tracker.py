"""The tracker: two scans registered, an outline carried over, and the U-Net asked round the place it came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lesionlocator.network.gradicon import RegistrationNetwork, UnitMap
from lesionlocator.network.residual_unet import ResidualUNet, Size3

REGISTRATION_SIZE = (175, 175, 175)


@dataclass(frozen=True)
class Tracked:
    """What the tracker answers: logits (n, classes, *patch), where each patch starts in the follow-up, and the map."""

    logits: Float[Tensor, "n k d h w"]
    start: Int[Tensor, "n 3"]
    prompt: Float[Tensor, "n 1 d h w"]
    between: UnitMap


class Tracker(nn.Module):
    """Baseline, its outline and a follow-up -> the outline's logits in a patch of the follow-up.

    With `soft=True` the outline is carried over linearly and the patch is cut from the carried-over outline itself, so
    that the loss of the answer reaches the displacement fields and the registration network. With `soft=False` it is
    carried by nearest neighbour, as the published program does; then only the U-Net can learn from the answer.
    """

    def __init__(self, unet: ResidualUNet, patch: Size3, registration_size: Size3 = REGISTRATION_SIZE) -> None:
        super().__init__()
        self.unet = unet
        self.registration = RegistrationNetwork()
        self.patch, self.registration_size = patch, registration_size

    def forward(
        self,
        baseline: Float[Tensor, "n 1 _ _ _"],
        followup: Float[Tensor, "n 1 d h w"],
        outline: Float[Tensor, "n 1 _ _ _"],
        *,
        soft: bool,
    ) -> Tracked:
        between = self.registration(self._small(baseline), self._small(followup))
        carried = carry(outline, between, self.registration_size, followup.shape[2:], soft=soft)
        start = torch.stack([patch_start(one[0], self.patch) for one in carried])
        image, prompt = cut(followup, start, self.patch), cut(carried, start, self.patch)
        return Tracked(self.unet(torch.cat((image, prompt), dim=1)), start, prompt, between)

    def _small(self, scan: Float[Tensor, "n 1 _ _ _"]) -> Float[Tensor, "n 1 _ _ _"]:
        return _resized(scan, self.registration_size, soft=True)


def carry(
    outline: Float[Tensor, "n 1 _ _ _"],
    between: UnitMap,
    size: Sequence[int],
    onto: Sequence[int],
    *,
    soft: bool,
) -> Float[Tensor, "n 1 _ _ _"]:
    """The outline in the follow-up, whose grid is `onto`; nothing comes from beyond the baseline's border."""
    small = _resized(outline, size, soft=soft)
    where = between.on_grid(size).flip(1).permute(0, 2, 3, 4, 1) * 2 - 1
    mode = "bilinear" if soft else "nearest"
    moved = functional.grid_sample(small, where, mode=mode, padding_mode="zeros", align_corners=True)
    return _resized(moved, onto, soft=soft)


def patch_start(carried: Float[Tensor, "d h w"], patch: Size3) -> Int[Tensor, "3"]:
    """Where a patch round the middle of a carried-over outline starts; round the scan's middle where there is none."""
    size = torch.tensor(carried.shape)
    inside = torch.argwhere(carried.detach() > 0.5).cpu()
    middle = inside.float().mean(dim=0).round().long() if len(inside) else size // 2
    width = torch.tensor(patch)
    return torch.minimum(middle - width // 2, size - width).clamp(min=0)


def cut(image: Float[Tensor, "n c _ _ _"], start: Int[Tensor, "n 3"], patch: Size3) -> Float[Tensor, "n c d h w"]:
    """One patch of each image, filled up with zeros at the far end where the image is smaller."""
    patches: list[Tensor] = []
    for one, (d, h, w) in zip(image, start.tolist(), strict=True):
        found = one[:, d : d + patch[0], h : h + patch[1], w : w + patch[2]]
        missing = [size - have for size, have in zip(patch, found.shape[1:], strict=True)]
        patches.append(functional.pad(found, (0, missing[2], 0, missing[1], 0, missing[0])))
    return torch.stack(patches)


def _resized(image: Float[Tensor, "n c _ _ _"], size: Sequence[int], *, soft: bool) -> Float[Tensor, "n c _ _ _"]:
    if soft:
        return functional.interpolate(image, tuple(size), mode="trilinear", align_corners=False)
    return functional.interpolate(image, tuple(size), mode="nearest-exact")
