"""An optimiser for convolutions: every step turns a whole weight matrix by the same amount in all directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5
_FEWEST = 8


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by Newton-Schulz iterations (doi:10.48550/arXiv.2502.16982).

    A convolution counts as the matrix (output channels, the rest). The update's largest singular value is about 1 times
    the rate, so the rate is not AdamW's.
    """

    def __init__(
        self, weights: Iterable[nn.Parameter], rate: float, momentum: float = 0.95, decay: float = 0.01
    ) -> None:
        super().__init__(weights, {"lr": rate, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step down the gradients that are there."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)
        return loss

    def _move(self, weight: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        kept = self.state[weight]
        if "moment" not in kept:
            kept["moment"] = torch.zeros_like(weight)
        moment = kept["moment"].mul_(group["momentum"]).add_(gradient)
        ahead = torch.add(gradient, moment, alpha=group["momentum"])
        rows = weight.shape[0]
        update = orthogonal(ahead.reshape(rows, -1))
        longer = max(1.0, rows / update.shape[1]) ** 0.5
        weight.mul_(1 - group["lr"] * group["decay"]).add_(update.reshape(weight.shape), alpha=-group["lr"] * longer)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with all its singular values brought near 1 (between about 0.7 and 1.2)."""
    a, b, c = _NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    found = (matrix.T if tall else matrix) / (matrix.norm() + 1e-7)
    for _ in range(_ROUNDS):
        square = found @ found.T
        found = a * found + (b * square + c * square @ square) @ found
    return found.T if tall else found


def parted(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The weights of convolutions, which are matrices, and everything else (single outputs, biases, norms, heads)."""
    matrices = [weight for weight in network.parameters() if weight.ndim == 5 and weight.shape[0] >= _FEWEST]
    known = {id(weight) for weight in matrices}
    return matrices, [weight for weight in network.parameters() if id(weight) not in known]
