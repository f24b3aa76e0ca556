"""The U-Net with residual blocks that answers a scan and its prompt channel with logits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

Size3 = tuple[int, int, int]


@dataclass(frozen=True)
class UNetPlan:
    """The measures of a residual-encoder U-Net: one entry for each stage, the finest first.

    Isensee et al., nnU-Net Revisited, MICCAI 2024, doi 10.1007/978-3-031-72114-4_47.
    """

    channels: int
    classes: int
    features: tuple[int, ...]
    kernels: tuple[Size3, ...]
    strides: tuple[Size3, ...]
    blocks: tuple[int, ...]
    decoder_convs: tuple[int, ...]
    bias: bool = True

    @property
    def divisor(self) -> Size3:
        """A patch's size must be a multiple of this along each axis."""
        d, h, w = (int(torch.tensor([stride[axis] for stride in self.strides]).prod()) for axis in range(3))
        return d, h, w


class ResidualUNet(nn.Module):
    """(n, channels, d, h, w) -> logits (n, classes, d, h, w).

    The names of its parts are those of the published checkpoints (`encoder.stages.2.blocks.0.conv1.conv.weight`).
    """

    def __init__(self, plan: UNetPlan) -> None:
        super().__init__()
        self.plan = plan
        self.encoder = Encoder(plan)
        self.decoder = Decoder(plan)

    def forward(self, image: Float[Tensor, "n c d h w"]) -> Float[Tensor, "n k d h w"]:
        return self.decoder(self.encoder(image))[-1]

    def logits_of_all_depths(self, image: Float[Tensor, "n c d h w"]) -> list[Float[Tensor, "n k _ _ _"]]:
        """Logits at every resolution of the decoder, the finest first: what deep supervision trains."""
        return self.decoder(self.encoder(image), all_depths=True)[::-1]


class Encoder(nn.Module):
    """Image -> features of every stage, the finest first: stage s is (n, features[s], d / stride, ...)."""

    def __init__(self, plan: UNetPlan) -> None:
        super().__init__()
        self.stem = ConvStack([plan.channels, plan.features[0]], plan.kernels[0], plan.bias)
        inputs = (plan.features[0], *plan.features[:-1])
        self.stages = nn.ModuleList(
            ResidualStage(inputs[s], plan.features[s], plan.kernels[s], plan.strides[s], plan.blocks[s], plan.bias)
            for s in range(len(plan.features))
        )

    def forward(self, image: Float[Tensor, "n c d h w"]) -> list[Float[Tensor, "n _ _ _ _"]]:
        features = self.stem(image)
        found: list[Tensor] = []
        for stage in self.stages:
            features = stage(features)
            found.append(features)
        return found


class Decoder(nn.Module):
    """Features of every stage -> logits, the coarsest first (only the finest unless `all_depths`)."""

    def __init__(self, plan: UNetPlan) -> None:
        super().__init__()
        coarse_to_fine = list(pairwise(reversed(range(len(plan.features)))))
        self.transpconvs = nn.ModuleList(
            nn.ConvTranspose3d(plan.features[s], plan.features[t], plan.strides[s], plan.strides[s], bias=plan.bias)
            for s, t in coarse_to_fine
        )
        self.stages = nn.ModuleList(
            ConvStack([2 * plan.features[t], *[plan.features[t]] * convs], plan.kernels[t], plan.bias)
            for (_, t), convs in zip(coarse_to_fine, plan.decoder_convs, strict=True)
        )
        self.seg_layers = nn.ModuleList(nn.Conv3d(plan.features[t], plan.classes, 1) for _, t in coarse_to_fine)

    def forward(
        self, skips: list[Float[Tensor, "n _ _ _ _"]], all_depths: bool = False
    ) -> list[Float[Tensor, "n k _ _ _"]]:
        features = skips.pop()
        logits: list[Tensor] = []
        for depth in range(len(self.stages)):
            up = self.transpconvs[depth](features)
            features = self.stages[depth](torch.cat((up, skips.pop()), dim=1))
            if all_depths or depth == len(self.stages) - 1:
                logits.append(self.seg_layers[depth](features))
        return logits


class ResidualStage(nn.Module):
    """Residual blocks in a row; the first one changes resolution and width."""

    def __init__(self, inputs: int, outputs: int, kernel: Size3, stride: Size3, blocks: int, bias: bool) -> None:  # noqa: PLR0913
        super().__init__()
        first = ResidualBlock(inputs, outputs, kernel, stride, bias)
        rest = [ResidualBlock(outputs, outputs, kernel, (1, 1, 1), bias) for _ in range(blocks - 1)]
        self.blocks = nn.Sequential(first, *rest)

    def forward(self, features: Float[Tensor, "n c d h w"]) -> Float[Tensor, "n _ _ _ _"]:
        return self.blocks(features)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, which is pooled and projected where resolution or width change."""

    def __init__(self, inputs: int, outputs: int, kernel: Size3, stride: Size3, bias: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, kernel, stride, bias=bias)
        self.conv2 = ConvNorm(outputs, outputs, kernel, bias=bias, activated=False)
        shortcut: list[nn.Module] = [Pool(stride)] if any(step > 1 for step in stride) else []
        if inputs != outputs:
            shortcut.append(ConvNorm(inputs, outputs, (1, 1, 1), bias=False, activated=False))
        self.skip = nn.Sequential(*shortcut)

    def forward(self, features: Float[Tensor, "n c d h w"]) -> Float[Tensor, "n _ _ _ _"]:
        changed = self.conv2(self.conv1(features))
        changed += self.skip(features)
        return nn.functional.leaky_relu_(changed, 0.01)


class Pool(nn.Module):
    """The mean of each block of `stride` voxels."""

    def __init__(self, stride: Size3) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, features: Float[Tensor, "n c d h w"]) -> Float[Tensor, "n c _ _ _"]:
        if features.dtype == torch.float32 or features.is_cuda:
            return nn.functional.avg_pool3d(features, self.stride, self.stride)
        # torch pools other numbers on a GPU only.
        size = [n - n % step for n, step in zip(features.shape[2:], self.stride, strict=True)]
        whole = features[:, :, : size[0], : size[1], : size[2]]
        parts = itertools.product(*(range(step) for step in self.stride))
        a, b, c = self.stride
        total = sum(whole[:, :, i::a, j::b, k::c].float() for i, j, k in parts)
        return (total / (a * b * c)).to(features.dtype)  # type: ignore[union-attr]


class ConvStack(nn.Module):
    """Convolutions in a row, from each width to the next."""

    def __init__(self, widths: Sequence[int], kernel: Size3, bias: bool) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(ConvNorm(a, b, kernel, bias=bias) for a, b in pairwise(widths)))

    def forward(self, features: Float[Tensor, "n c d h w"]) -> Float[Tensor, "n _ d h w"]:
        return self.convs(features)


class ConvNorm(nn.Module):
    """Convolution, instance norm and, if `activated`, leaky ReLU."""

    def __init__(  # noqa: PLR0913
        self,
        inputs: int,
        outputs: int,
        kernel: Size3,
        stride: Size3 = (1, 1, 1),
        *,
        bias: bool,
        activated: bool = True,
    ) -> None:
        super().__init__()
        padding = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2, (kernel[2] - 1) // 2)
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=bias)
        self.norm = nn.InstanceNorm3d(outputs, eps=1e-5, affine=True)
        self.activated = activated

    def forward(self, features: Float[Tensor, "n c d h w"]) -> Float[Tensor, "n _ _ _ _"]:
        features = self.norm(self.conv(features))
        return nn.functional.leaky_relu_(features, 0.01) if self.activated else features
