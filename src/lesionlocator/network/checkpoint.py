"""Weights from a file, read without running code from it and checked against the network that they are for."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from lesionlocator.errors import Refused
from lesionlocator.network.gradicon import CHECKPOINT_PLACES

Weights = Mapping[str, Tensor]

_TWICE = (".all_modules.", "decoder.encoder.")
"""Parts of names under which the published checkpoints keep a tensor a second time."""
_NOT_WEIGHTS = ("unet_patch_size",)
_SHOWN = 5


def read_checkpoint(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of a published checkpoint by name, each once, and what else it says (its trainer, its plans).

    Numbers of numpy are the only things beside tensors and plain values that the file may hold.
    """
    allowed = [
        (np.core.multiarray.scalar if not hasattr(np, "_core") else np._core.multiarray.scalar, name)  # type: ignore[attr-defined]  # noqa: SLF001
        for name in ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    ]
    kinds = [np.dtype, *(type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "bool"))]
    try:
        with torch.serialization.safe_globals([*allowed, *kinds]):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, ValueError, EOFError) as error:
        raise Refused(
            found=f"{file}, which cannot be read as weights ({str(error).splitlines()[0]})",
            needed="a checkpoint that holds tensors and plain values, nothing that would have to be executed",
            do="get the checkpoint again from where it was published",
        ) from error
    if not isinstance(content, dict) or "network_weights" not in content:
        raise Refused(
            found=f"{file} without `network_weights`",
            needed="a checkpoint of the published LesionLocator",
            do="check the folder",
        )
    weights = cast("dict[str, Tensor]", content.pop("network_weights"))
    return once(weights), cast("dict[str, Any]", content)


def once(weights: Weights) -> dict[str, Tensor]:
    """The tensors without those that are there under a second name, and without what is no weight."""
    plain = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    return {
        name: tensor
        for name, tensor in plain.items()
        if not any(part in name for part in _TWICE) and name not in _NOT_WEIGHTS
    }


def parts_of_tracker(weights: Weights) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of a published tracker, as those of its U-Net and those of its registration network."""
    unet = {name.removeprefix("unet."): tensor for name, tensor in weights.items() if name.startswith("unet.")}
    registration: dict[str, Tensor] = {}
    for step, place in enumerate(CHECKPOINT_PLACES):
        start = f"reg_net.regis_net.{place}.net."
        for name, tensor in weights.items():
            if name.startswith(start):
                registration[f"steps.{step}.{name.removeprefix(start)}"] = tensor
    return unet, registration


def load_weights(network: nn.Module, weights: Weights, where: object) -> None:
    """Puts the weights in their places; refused, with the difference, when names or shapes do not fit."""
    wanted = network.state_dict()
    if problems := difference(wanted, weights):
        raise Refused(
            found=f"weights in {where} that do not fit the network: {problems}",
            needed=f"the {len(wanted)} tensors of the network that the plans beside them describe",
            do="check that the checkpoint and its plans.json belong together",
        )
    network.load_state_dict(dict(weights), assign=True)


def difference(wanted: Weights, weights: Weights) -> str:
    """How the names and shapes differ, in words; empty when they are the same."""
    shapes = [
        f"{name} is {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    groups = {
        "missing": [name for name in wanted if name not in weights],
        "not known": [name for name in weights if name not in wanted],
        "of another shape": shapes,
    }
    return "; ".join(f"{len(names)} {what} ({_some(names)})" for what, names in groups.items() if names)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
