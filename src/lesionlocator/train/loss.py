"""What a network is trained to: an outline that overlaps the true one, and an honest word on how well it does."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lesionlocator.network.promptable import grown

Batch = Float[Tensor, "n d h w"]


def outline_loss(logits: Batch, target: Batch, seen: Batch) -> Float[Tensor, ""]:
    """Soft Dice (doi:10.1109/3DV.2016.79) and cross-entropy, over the voxels that the scan has.

    Half of the cross-entropy is shared out evenly between lesion and surroundings, so that a thin rim counts.
    """
    belief = torch.sigmoid(logits) * seen
    axes = (1, 2, 3)
    overlap = (belief * target).sum(axes)
    dice = (2 * overlap + 10.0) / (belief.sum(axes) + target.sum(axes) + 10.0)
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none") * seen
    inside, outside = target, seen - target
    even = ((entropy * inside).sum(axes) / (inside.sum(axes) + 50.0) + _near(entropy, outside, target)) / 2
    whole = entropy.sum(axes) / (seen.sum(axes) + 1.0)
    return (1 - dice + 0.5 * whole + 0.25 * even).mean()


def _near(entropy: Batch, outside: Batch, target: Batch) -> Float[Tensor, " n"]:
    """Mean over the surroundings within a few voxels of the lesion."""
    # Found on half of the resolution, which is several times faster.
    grown_by_two = grown(functional.max_pool3d(target[:, None], 2), 5)
    near = functional.interpolate(grown_by_two, scale_factor=2.0, mode="nearest")[:, 0] * outside
    return (entropy * near).sum((1, 2, 3)) / (near.sum((1, 2, 3)) + 50.0)


def true_dice(logits: Batch, target: Batch, seen: Batch, beyond: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Dice of the thresholded outline with the whole lesion, of which `beyond` voxels lie outside the patch."""
    said = ((logits.detach() > 0) & (seen > 0.5)).to(target.dtype)
    true = (target >= 0.5).to(target.dtype)
    axes = (1, 2, 3)
    return 2 * (said * true).sum(axes) / (said.sum(axes) + true.sum(axes) + beyond).clamp(min=1.0)


def confidence_loss(confidence: Float[Tensor, " n"], dice: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """How far the network's own estimate is from the Dice that it got."""
    return functional.binary_cross_entropy(confidence.clamp(1e-4, 1 - 1e-4), dice)
