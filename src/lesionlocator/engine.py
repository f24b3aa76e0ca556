"""What runs a network: a light engine without torch, or torch itself; both hold the same weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from lesionlocator.errors import Refused

GRAPH, WEIGHTS = "network.onnx", "network.safetensors"

MEMORY_GRAPH, MEMORY_WEIGHTS = "memory.onnx", "memory.safetensors"
"""The network for later scans, in the same folder."""

Answers = tuple[Float[np.ndarray, "n d h w"], Float[np.ndarray, "n *said"]]
"""How far each voxel is believed to be in the lesion, from 0 to 1, and the confidence of each patch.

A network with memory says (n, 2): confidence, and how far it believes that the lesion is still there."""


@runtime_checkable
class Engine(Protocol):
    """(n, channels, d, h, w) float32 -> belief (n, d, h, w) and confidence (n)."""

    @property
    def name(self) -> str:
        """What runs."""
        ...

    @property
    def device(self) -> str:
        """Where it runs."""
        ...

    def __call__(self, shown: Float[np.ndarray, "n c d h w"]) -> Answers:
        """The network's answer for a batch of patches."""
        ...


@dataclass(frozen=True, eq=False)
class LightEngine:
    """ONNX Runtime on the processor (docs/decisions/0007-light-engine.md)."""

    session: Any
    name: str = "onnxruntime"
    device: str = "cpu"

    def __call__(self, shown: Float[np.ndarray, "n c d h w"]) -> Answers:
        logits, confidence = self.session.run(None, {"shown": np.ascontiguousarray(shown, np.float32)})
        return _belief(np.asarray(logits)), np.asarray(confidence)


def load_engine(folder: Path, device: str = "auto", threads: int = 0, *, memory: bool = False) -> Engine:
    """The network of a model folder, ready to run.

    Args:
        folder: Holds the graph and the weights.
        device: `auto` and `cpu` are the light engine; `torch` and anything that torch knows as a device, such as
            `cuda` or `mps`, run on torch.
        threads: Processor threads; 0 takes the cores that this process may use.
        memory: The network for later scans that some folders hold as well.
    """
    graph, weights = (MEMORY_GRAPH, MEMORY_WEIGHTS) if memory else (GRAPH, WEIGHTS)
    missing = [name for name in (graph, weights) if not (folder / name).is_file()]
    if missing:
        raise Refused(
            found=f"no {' and no '.join(missing)} in {folder}",
            needed="a model folder with both",
            do="copy or download the model again",
        )
    if device in ("auto", "cpu"):
        return _light(folder / graph, threads or available_cores())
    try:
        from lesionlocator.network.running import load_torch_engine
    except ModuleNotFoundError as error:
        raise Refused(
            found=f"the device {device!r}, and no {error.name} in this installation",
            needed="PyTorch, which runs a network there",
            do='install it: pip install "lesionlocator[torch]", or leave the device out',
        ) from error
    return load_torch_engine(folder / weights, "cpu" if device == "torch" else device)


def available_cores() -> int:
    """Processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity else os.cpu_count() or 1)


def _light(graph: Path, threads: int) -> LightEngine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait slow down everything else on the computer.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return LightEngine(session)


def _belief(logits: Float[np.ndarray, "n d h w"]) -> Float[np.ndarray, "n d h w"]:
    return 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
