"""The promptable network on torch: for GPUs, and to check the light engine against."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from lesionlocator.errors import Refused
from lesionlocator.network.remembering import Network, network_of


@dataclass(frozen=True, eq=False)
class TorchEngine:
    """A network on a device of torch, in single precision."""

    network: Network
    device: str
    name: str = "torch"

    def __call__(
        self, shown: Float[np.ndarray, "n c d h w"]
    ) -> tuple[Float[np.ndarray, "n d h w"], Float[np.ndarray, "n *said"]]:
        with torch.inference_mode():
            logits, confidence = self.network(torch.from_numpy(np.ascontiguousarray(shown)).to(self.device))
            return torch.sigmoid(logits).cpu().numpy(), confidence.cpu().numpy()


def load_network(weights: Path) -> Network:
    """The network of a weights file, whose plan is in the file's own header; in single precision."""
    from safetensors import safe_open

    with safe_open(weights, framework="pt") as file:
        network = network_of(json.loads(file.metadata()["plan"]))
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    network.load_state_dict(state)
    return network.eval()


def load_torch_engine(weights: Path, device: str) -> TorchEngine:
    """A network on a device; refused where torch knows no such device."""
    try:
        return TorchEngine(load_network(weights).to(device), device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise Refused(
            found=f"the device {device!r}, which cannot be used here ({str(error).splitlines()[0]})",
            needed="a device that torch finds, such as cuda or mps",
            do="leave the device out, or choose cpu",
        ) from error
