"""The registration network: two images in, the map that brings one onto the other out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (2, 16, 32, 64, 256, 512)
"""Channels on the way down."""
WIDTHS_UP = (16, 32, 64, 128, 256)
"""Channels that each level of the way up puts out, the finest first."""
CHECKPOINT_PLACES = ("netPhi.netPhi.net.netPhi.net", "netPhi.netPhi.net.netPsi", "netPhi.netPsi", "netPsi")
"""Where the published checkpoints keep the four U-Nets, each under `.net`: pairs within pairs, coarsest innermost."""
_SLOPE = 0.01


class UnitMap:
    """A map of the unit cube onto itself: four displacement fields, one applied after the other.

    Coordinate 0 is the centre of an image's first voxel, 1 that of its last, along each axis; component 0 belongs to
    the first axis. A field (n, 3, d, h, w) is linear between its grid points and keeps its border's value beyond.
    """

    def __init__(self, fields: Sequence[Float[Tensor, "n 3 _ _ _"]]) -> None:
        self.fields = tuple(fields)

    def on_grid(self, size: Sequence[int]) -> Float[Tensor, "n 3 d h w"]:
        """Where every voxel centre of an image of this size goes."""
        at, fields = unit_grid(size, self.fields[-1]), list(self.fields)
        if fields[-1].shape[2:] == at.shape[2:]:
            at = at + fields.pop()
        at = at.expand(self.fields[-1].shape[0], -1, -1, -1, -1)
        return UnitMap(fields)(at)

    def __call__(self, at: Float[Tensor, "n 3 d h w"]) -> Float[Tensor, "n 3 d h w"]:
        """Where these places go."""
        # The last field brings an already warped image closer, so a point goes through it first.
        for field in reversed(self.fields):
            at = at + sample(field, at)
        return at


class RegistrationNetwork(nn.Module):
    """Two images (n, 1, d, h, w) of one size -> the map between them. 175 voxels along each axis, at least 65.

    The map takes a place in `followup` to the same tissue's place in `baseline`: baseline(map(x)) is near followup(x).
    Four U-Nets, at a quarter, a half and twice the full resolution, each looking at the baseline as warped so far.
    Tian et al., GradICON, CVPR 2023, doi 10.1109/CVPR52729.2023.01734; uniGradICON, MICCAI 2024,
    doi 10.1007/978-3-031-72069-7_70.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList(DisplacementUNet() for _ in range(4))

    def forward(self, baseline: Float[Tensor, "n 1 d h w"], followup: Float[Tensor, "n 1 d h w"]) -> UnitMap:
        levels = [(baseline, followup)]
        for _ in range(2):
            levels.insert(0, (_halved(levels[0][0]), _halved(levels[0][1])))
        found = UnitMap(())
        for step, (moving, fixed) in zip(self.steps, [*levels, levels[-1]], strict=True):
            shown = sample(moving, found.on_grid(moving.shape[2:])) if found.fields else moving
            pair = torch.cat((shown, fixed), dim=1)
            # Displacements may be computed with fewer digits; places in a whole body may not.
            found = UnitMap((*found.fields, step(pair.to(step.lastConv.weight.dtype)).to(pair.dtype)))
        return found


class DisplacementUNet(nn.Module):
    """Two images as channels (n, 2, d, h, w) -> displacements (n, 3, d, h, w) in unit-cube coordinates."""

    def __init__(self) -> None:
        super().__init__()
        skips = WIDTHS[:-1]
        inputs = [up + skip for up, skip in zip(WIDTHS_UP[1:], skips[1:], strict=True)] + [WIDTHS[-1]]
        self.downConvs = nn.ModuleList(
            nn.Conv3d(a, b, 3, stride=2, padding=1) for a, b in zip(WIDTHS[:-1], WIDTHS[1:], strict=True)
        )
        self.upConvs = nn.ModuleList(
            nn.ConvTranspose3d(a, b, 4, stride=2, padding=1) for a, b in zip(inputs, WIDTHS_UP, strict=True)
        )
        self.batchNorms = nn.ModuleList(nn.BatchNorm3d(width) for width in WIDTHS_UP)
        self.lastConv = nn.Conv3d(WIDTHS_UP[0] + WIDTHS[0], 3, 3, padding=1)

    def forward(self, images: Float[Tensor, "n 2 d h w"]) -> Float[Tensor, "n 3 d h w"]:
        features, skips = images, list[Tensor]()
        for conv in self.downConvs:
            skips.append(features)
            changed = conv(functional.leaky_relu(features, _SLOPE))
            features = changed + _widened(_halved(features), changed.shape[1])
        for level in reversed(range(len(self.upConvs))):
            changed = self.upConvs[level](functional.leaky_relu(features, _SLOPE))
            plain = functional.interpolate(
                features[:, : changed.shape[1]], scale_factor=2, mode="trilinear", align_corners=False
            )
            features = self.batchNorms[level](changed + plain)
            d, h, w = skips[level].shape[2:]
            features = torch.cat((features[:, :, :d, :h, :w], skips[level]), dim=1)
        return self.lastConv(features) / 10


def unit_grid(size: Sequence[int], like: Tensor) -> Float[Tensor, "1 3 d h w"]:
    """The coordinates of all voxel centres of an image of this size."""
    axes = [torch.linspace(0, 1, n, dtype=like.dtype, device=like.device) for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def sample(image: Float[Tensor, "n c _ _ _"], at: Float[Tensor, "n 3 d h w"]) -> Float[Tensor, "n c d h w"]:
    """The image's linear value at unit-cube coordinates; beyond its border voxels' centres their value."""
    where = at.flip(1).permute(0, 2, 3, 4, 1) * 2 - 1
    return functional.grid_sample(image, where, mode="bilinear", padding_mode="border", align_corners=True)


def _halved(image: Float[Tensor, "n c _ _ _"]) -> Float[Tensor, "n c _ _ _"]:
    return functional.avg_pool3d(image, 2, ceil_mode=True)


def _widened(features: Float[Tensor, "n _ d h w"], width: int) -> Float[Tensor, "n _ d h w"]:
    """Cut to this many channels, or filled up with zeros in front."""
    missing = width - features.shape[1]
    return functional.pad(features, (0, 0, 0, 0, 0, 0, missing, 0)) if missing > 0 else features[:, :width]
