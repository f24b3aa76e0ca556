"""The networks of a published model folder, one for each fold, and how a patch is put to them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32

from lesionlocator.errors import Refused
from lesionlocator.network.checkpoint import load_weights, parts_of_tracker, read_checkpoint
from lesionlocator.network.gradicon import RegistrationNetwork
from lesionlocator.network.residual_unet import ResidualUNet
from lesionlocator.published.plans import Plans, read_plans

Precision = Literal["fp32", "bf16", "fp16"]
Flip = tuple[int, ...]
"""The axes of (d, h, w) that are mirrored."""

PARTS = {
    "box": "LesionLocatorSeg/bbox_optimized",
    "point": "LesionLocatorSeg/point_optimized",
    "track": "LesionLocatorTrack",
}
CHECKPOINT_FILE = "checkpoint_final.pth"
WEIGHTS_FILE = "weights.safetensors"
_SMALL_VOXELS = 1_000_000
_BATCH_VOXELS = 32_000_000
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


Logits = Float32[np.ndarray, "2 d h w"]
"""Of the background and of the lesion."""


@dataclass(frozen=True, eq=False)
class Look:
    """One patch put to a network: the scan, the prompt channel, and the mirror in which they are seen."""

    image: Float32[np.ndarray, "d h w"]
    prompt: Float32[np.ndarray, "d h w"]
    flip: Flip = ()


@dataclass(frozen=True)
class Effort:
    """How much of a model is used, and how it computes. No folds: all there are."""

    folds: tuple[int, ...] = ()
    mirroring: bool = True
    precision: Precision = "fp32"
    device: str = "auto"


class Ensemble:
    """One part of a model folder (`box`, `point` or `track`): its plans and, loaded once, the networks of its folds."""

    def __init__(self, folder: Path, part: str, effort: Effort) -> None:
        self.folder = folder / PARTS[part]
        if not self.folder.is_dir():
            raise Refused(
                found=f"no folder {PARTS[part]} in {folder}",
                needed="the whole published checkpoint folder for this kind of prompt",
                do="copy it again, or use the kind of prompt that it has weights for",
            )
        self.plans: Plans = read_plans(self.folder)
        self.device, self.dtype = find_device(effort.device), find_type(effort)
        self.folds = find_folds(self.folder, effort.folds)
        self._mirroring, self._is_tracker = effort.mirroring, part == "track"
        self._networks: dict[int, tuple[ResidualUNet, RegistrationNetwork | None]] = {}
        self._axes: Flip = (0, 1, 2)

    def flips(self) -> list[Flip]:
        """Every way of mirroring that the model was made for, none first; only that one without mirroring."""
        self.network(self.folds[0])
        if not self._mirroring:
            return [()]
        return [axes for count in range(len(self._axes) + 1) for axes in itertools.combinations(self._axes, count)]

    def network(self, fold: int) -> tuple[ResidualUNet, RegistrationNetwork | None]:
        """A fold's U-Net and, of a tracker, its registration network."""
        if fold not in self._networks:
            self._networks[fold] = self._loaded(fold)
        return self._networks[fold]

    @property
    def batch(self) -> int:
        """How many patches go through a network at once.

        On a processor two small ones: for one alone torch takes a path that is half as fast. Large ones go one by one,
        since they are no faster together and need the memory twice.
        """
        if self.device.type == "cpu":
            return 2 if self._is_small else 1
        return max(1, _BATCH_VOXELS // int(np.prod(self.plans.patch)))

    @property
    def _is_small(self) -> bool:
        return int(np.prod(self.plans.patch)) <= _SMALL_VOXELS

    def logits(self, fold: int, looks: Iterable[Look]) -> Iterator[Logits]:
        """What a fold answers to patches, each seen in its mirror and turned back, in their order."""
        network, waiting = self.network(fold)[0], iter(looks)
        while several := list(itertools.islice(waiting, self.batch)):
            with torch.inference_mode():
                stacked = torch.stack([self._mirrored(look) for look in several])
                answers = network(stacked.to(memory_format=self._layout)).float().unbind()
                for look, answer in zip(several, answers, strict=True):
                    yield answer.flip([axis + 1 for axis in look.flip]).cpu().numpy()

    def _mirrored(self, look: Look) -> torch.Tensor:
        both = torch.from_numpy(np.stack([look.image, look.prompt])).to(self.device, self.dtype)
        return both.flip([axis + 1 for axis in look.flip])

    def _loaded(self, fold: int) -> tuple[ResidualUNet, RegistrationNetwork | None]:
        file, weights, said = read_fold(self.folder / f"fold_{fold}")
        allowed = said.get("inference_allowed_mirroring_axes")
        self._axes = tuple(int(axis) for axis in (allowed if allowed is not None else ()))
        # Made without memory of its own: the tensors of the file take their places.
        with torch.device("meta"):
            unet = ResidualUNet(self.plans.unet)
            registration = RegistrationNetwork() if self._is_tracker else None
        mine, others = parts_of_tracker(weights) if self._is_tracker else (weights, {})
        load_weights(unet, mine, file)
        if registration is not None:
            load_weights(registration, others, file)
        ready = self._ready(registration) if registration is not None else None
        return self._ready(unet, self._layout), ready

    @property
    def _layout(self) -> torch.memory_format:
        # Measured with small patches on a processor (benchmarks/published.py): a third less time.
        return torch.channels_last_3d if self.device.type == "cpu" and self._is_small else torch.contiguous_format

    def _ready(self, network: Any, layout: torch.memory_format = torch.contiguous_format) -> Any:
        return network.to(self.device, self.dtype, memory_format=layout).requires_grad_(False).eval()


def read_fold(folder: Path) -> tuple[Path, dict[str, torch.Tensor], dict[str, Any]]:
    """The weights file of a fold, what is in it, and what else it says."""
    from safetensors import SafetensorError, safe_open

    file = folder / WEIGHTS_FILE
    if not file.is_file():
        return (folder / CHECKPOINT_FILE, *read_checkpoint(folder / CHECKPOINT_FILE))
    try:
        with safe_open(file, framework="pt") as stored:
            said = json.loads((stored.metadata() or {}).get("said", "{}"))
            return file, {name: stored.get_tensor(name) for name in stored.keys()}, said  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise Refused(
            found=f"{file}, which cannot be read ({error})",
            needed="the weights as they were imported",
            do="import the model again",
        ) from error


def find_folds(folder: Path, wanted: Sequence[int]) -> tuple[int, ...]:
    """The folds to use, in rising order; refused when one that is wanted is not there."""
    there = sorted(
        int(path.name.removeprefix("fold_"))
        for path in folder.glob("fold_*")
        if path.name.removeprefix("fold_").isdecimal()
        and ((path / CHECKPOINT_FILE).is_file() or (path / WEIGHTS_FILE).is_file())
    )
    missing = sorted(set(wanted) - set(there))
    if not there or missing:
        raise Refused(
            found=f"the folds {', '.join(map(str, there)) or '(none)'} in {folder}",
            needed=f"the folds {', '.join(map(str, missing))}" if there else f"fold_0/{CHECKPOINT_FILE}",
            do="choose folds that are there" if there else "copy the whole checkpoint folder",
        )
    return tuple(sorted(set(wanted))) or tuple(there)


def find_device(name: str) -> torch.device:
    """Where to compute; `auto` is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise Refused(
            found=f"the device {name!r}, which cannot be used here ({str(error).splitlines()[0]})",
            needed="`cpu`, or a GPU that torch can see (`cuda`, `mps`)",
            do="leave --device out, or choose cpu",
        ) from error
    return device


def find_type(effort: Effort) -> torch.dtype:
    """The numbers to compute with."""
    if effort.precision == "fp16" and find_device(effort.device).type == "cpu":
        raise Refused(
            found="--precision fp16 on a processor",
            needed="a GPU, where half precision is fast",
            do="choose bf16 or fp32",
        )
    return _TYPES[effort.precision]


def passes(ensemble: Ensemble) -> Iterator[tuple[int, Flip]]:
    """Every fold in every mirror."""
    return itertools.product(ensemble.folds, ensemble.flips())
