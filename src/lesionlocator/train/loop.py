"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lesionlocator.errors import Refused
from lesionlocator.network.promptable import Promptable, PromptablePlan
from lesionlocator.network.remembering import Network, network_of
from lesionlocator.segment.zoom import CHANNELS, like, paint_clicks
from lesionlocator.train.data import Draw, GroupPlan, Sample, SampleSettings, draw_group, draw_sample, turn
from lesionlocator.train.loss import outline_loss, true_dice
from lesionlocator.train.muon import Muon, parted
from lesionlocator.train.prompts import correct
from lesionlocator.train.settings import TrainSettings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"
VIEWS = 2
SAMPLES = 24
APART = 12
"""Groups between two uses of one sample."""
PRIOR = CHANNELS.index("prior")
_WARM_UP = 150
_EMA = 0.999
_SPECTRAL = 16.0
"""Times the learning rate, for what Muon moves: its steps are measured by the largest singular value."""
_STATES = ("network", "averaged", "matrices", "others")

Say = Callable[[str], None]
Loss = Callable[[Tensor, Tensor, "Batch"], Tensor]
"""(logits, what else the network says, batch) -> what it costs."""


def print_nothing(_: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a network is trained on: where regions come from, how they are asked for, and what the curves show.

    A network of another kind brings its own way of making a sample of what its source gives, and its own loss.
    """

    source: Callable[[np.random.Generator, float], Any]
    samples: Any = SampleSettings()
    watched: Callable[[], Mapping[str, Sequence[Sample]]] = dict
    draw: Draw = draw_sample
    loss: Loss | None = None
    """None: that of an outline."""


class Groups(Dataset[list[Sample]]):
    """Groups of samples by number; each is the same whoever draws it, so that a training can go on anywhere.

    Where samples are used again, a group is made of several smaller ones, each of which is in other groups as well.
    """

    def __init__(self, recipe: Recipe, settings: TrainSettings) -> None:
        if SAMPLES % settings.batch or SAMPLES % (VIEWS * settings.reuse):
            raise Refused(
                found=f"a batch of {settings.batch} samples, each used {settings.reuse} times",
                needed=f"a batch that divides {SAMPLES}, and 1, 2, 3, 4 or 6 uses",
                do="choose such numbers",
            )
        self.recipe, self.settings = recipe, settings
        self._kept: dict[int, list[Sample]] = {}

    def __len__(self) -> int:
        per_group = SAMPLES // self.settings.batch
        return math.ceil(self.settings.steps / per_group) * self.settings.devices

    def __getitem__(self, group: int) -> list[Sample]:
        torch.set_num_threads(1)
        uses = self.settings.reuse
        if uses == 1:
            return self._drawn(group)
        rng = np.random.default_rng([self.settings.seed, group, uses])
        apart = APART * self.settings.devices * max(1, self.settings.loaders)
        self._kept = {number: drawn for number, drawn in self._kept.items() if number >= group}
        samples: list[Sample] = []
        for number in range(group, group + uses * apart, apart):
            if number not in self._kept:
                self._kept[number] = self._drawn(number)
            samples += [turn(rng, sample) for sample in self._kept[number]]
        return [samples[int(place)] for place in rng.permutation(len(samples))]

    def _drawn(self, group: int) -> list[Sample]:
        settings = self.settings
        plan = GroupPlan(settings.seed, SAMPLES // VIEWS // settings.reuse, VIEWS, settings.ramp * len(self))
        return draw_group(group, self.recipe.source, self.recipe.samples, plan, self.recipe.draw)


def train(recipe: Recipe, settings: TrainSettings, start: nn.Module | PromptablePlan, say: Say = print_nothing) -> Path:
    """Train a network and give its last checkpoint; goes on from a checkpoint that is there.

    Args:
        recipe: What it learns from.
        settings: How long and where.
        start: A network to go on from, or the plan of a new one.
        say: Told about progress.
    """
    from lightning_fabric import Fabric

    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy="ddp_spawn" if settings.devices > 1 else "auto",
        precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
    )
    fabric.launch(partial(_train, recipe=recipe, settings=settings, start=start, say=say))
    return settings.out / CHECKPOINT


def _train(
    fabric: Fabric, recipe: Recipe, settings: TrainSettings, start: nn.Module | PromptablePlan, say: Say
) -> None:
    state, first = _begin(fabric, settings, start)
    network = state.network
    model, *optimizers = fabric.setup(network, state.matrices, state.others)
    watched = recipe.watched() if fabric.is_global_zero else {}
    began, said = time.perf_counter(), Running()
    batches = _batches(recipe, settings, first * fabric.world_size + fabric.global_rank, fabric.world_size)
    for step in range(first, settings.steps):
        for optimizer, scale in zip(optimizers, (_SPECTRAL, 1.0), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = scale * learning_rate(step, settings)
        batch = next(batches).to(fabric.device)
        rng = np.random.default_rng([settings.seed, step, fabric.global_rank])
        if rng.random() < settings.corrected:
            with fabric.autocast():
                batch = corrected(network, batch, rng)
        logits, words = model(batch.shown)
        loss = (recipe.loss or of_an_outline)(logits, words, batch)
        for optimizer in optimizers:
            optimizer.zero_grad()
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizers[1], max_norm=5.0)
        for optimizer in optimizers:
            optimizer.step()
        _average(state.averaged, network, step)
        said.add(loss, true_dice(logits, batch.target, batch.seen, batch.beyond))
        if fabric.is_global_zero and ((step + 1) % settings.save_every == 0 or step + 1 == settings.steps):
            _save(settings.out / CHECKPOINT, state, step + 1, settings)
            scores = {name: score(state.averaged, samples) for name, samples in watched.items()}
            spent = time.perf_counter() - began
            facts = {"step": step + 1, "seconds": round(spent, 1), **said.taken(), "watched": scores}
            _write_down(facts, settings.out / LOG)
            say(progress(facts, settings, spent / (step + 1 - first) * (settings.steps - step - 1)))


def of_an_outline(logits: Tensor, words: Tensor, batch: Batch) -> Tensor:
    """The loss of a network that answers for one scan; what else it says is fitted afterwards."""
    return outline_loss(logits, batch.target, batch.seen)


def _begin(fabric: Fabric, settings: TrainSettings, start: nn.Module | PromptablePlan) -> tuple[_State, int]:
    """The network, its average, what moves it, and the first step to take."""
    torch.manual_seed(settings.seed)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    network = Promptable(start) if isinstance(start, PromptablePlan) else copy.deepcopy(start)
    network = network.to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]
    averaged = copy.deepcopy(network).requires_grad_(False).to(fabric.device)
    matrices, others = parted(network)
    learners = Muon(matrices, settings.rate), torch.optim.AdamW(others, settings.rate, weight_decay=1e-3)
    state = _State(network, averaged, *learners)
    return state, _taken_up(settings.out / CHECKPOINT, state)


def _write_down(facts: Mapping[str, Any], file: Path) -> None:
    with file.open("a", encoding="utf-8") as log:
        log.write(json.dumps(facts) + "\n")


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples, stacked."""

    shown: Tensor
    target: Tensor
    seen: Tensor
    beyond: Tensor

    @staticmethod
    def of(samples: Sequence[Sample]) -> Batch:
        shown = torch.from_numpy(np.stack([sample.shown for sample in samples]).astype(np.float32))
        target, seen = (
            torch.from_numpy(np.stack([getattr(sample, name) for sample in samples]).astype(np.float32))
            for name in ("target", "seen")
        )
        beyond = torch.tensor([sample.beyond for sample in samples], dtype=torch.float32)
        return Batch(shown.contiguous(memory_format=torch.channels_last_3d), target, seen, beyond)

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, name).to(device) for name in ("shown", "target", "seen", "beyond")))


def corrected(model: nn.Module, batch: Batch, rng: np.random.Generator) -> Batch:
    """The batch again with the network's own answer as the mask from before, and a click in each largest error."""
    shown = batch.shown.clone()
    for _ in range(1 + int(rng.random() < 0.4)):
        with torch.no_grad():
            belief = torch.sigmoid(model(shown)[0].float()).cpu().numpy()
        for number in range(len(shown)):
            click = correct(rng, belief[number], batch.target[number].cpu().numpy(), batch.seen[number].cpu().numpy())
            shown[number, PRIOR] = torch.from_numpy((belief[number] >= 0.5).astype(np.float32)).to(shown)
            if click is None:
                continue
            at, positive = click
            local, seen = shown[number, 0].cpu().numpy(), batch.seen[number].cpu().numpy()
            kind = "in" if positive else "out"
            for name, painted in (("click", paint_clicks(at[None])), ("like", like(local, at[None]) * seen)):
                channel = CHANNELS.index(f"{name} {kind}")
                shown[number, channel] = torch.maximum(shown[number, channel], torch.from_numpy(painted).to(shown))
    return Batch(shown, batch.target, batch.seen, batch.beyond)


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Warm-up, then a cosine that ends at zero."""
    warm = min(1.0, (step + 1) / min(_WARM_UP, max(1, settings.steps // 10)))
    return settings.rate * warm * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


def score(network: nn.Module, samples: Sequence[Sample]) -> float:
    """Mean Dice over samples, each as a lesion of its own."""
    found: list[float] = []
    network.eval()
    for sample in samples:
        batch = Batch.of([sample]).to(next(network.parameters()).device)
        with torch.no_grad():
            logits, _ = network(batch.shown)
        found.append(float(true_dice(logits, batch.target, batch.seen, batch.beyond)))
    network.train()
    return round(float(np.mean(found)), 4) if found else math.nan


def progress(facts: Mapping[str, Any], settings: TrainSettings, left: float) -> str:
    """A line on how far the training is, and how long it will take."""
    scores = "  ".join(f"{name} {value:.3f}" for name, value in facts["watched"].items())
    return (
        f"step {facts['step']} of {settings.steps}, loss {facts['loss']:.3f}, Dice {facts['dice']:.3f}, "
        f"about {left / 60:.0f} min left  {scores}"
    )


class Running:
    """Means of what was seen since they were last taken."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, float]] = []

    def add(self, loss: Tensor, dice: Tensor) -> None:
        self._seen.append((float(loss.detach()), float(dice.mean())))

    def taken(self) -> dict[str, float]:
        means = np.mean(self._seen, axis=0)
        self._seen.clear()
        return dict(zip(("loss", "dice"), (round(float(value), 4) for value in means), strict=True))


def _batches(recipe: Recipe, settings: TrainSettings, first: int, stride: int) -> Iterator[Batch]:
    """Batches for one device from its `first` on; device `r` of `n` takes the groups r, r + n, r + 2 n and so on."""
    per_group = SAMPLES // settings.batch
    rank, done = first % stride, first // stride
    groups = range(rank + stride * (done // per_group), 1 << 30, stride)
    loader = DataLoader(
        Groups(recipe, settings),
        batch_size=None,
        sampler=groups,
        num_workers=settings.loaders,
        prefetch_factor=2 if settings.loaders else None,
    )
    skip = done % per_group
    for samples in loader:
        for number in range(skip, per_group):
            yield Batch.of(samples[number * settings.batch : (number + 1) * settings.batch])
        skip = 0


def _average(averaged: nn.Module, network: nn.Module, step: int) -> None:
    keep = min(_EMA, (1 + step) / (10 + step))
    with torch.no_grad():
        for mean, now in zip(averaged.parameters(), network.parameters(), strict=True):
            mean.lerp_(now, 1 - keep)


@dataclass(frozen=True, eq=False)
class _State:
    """All that a training has to remember beside the step."""

    network: nn.Module
    averaged: nn.Module
    matrices: torch.optim.Optimizer
    others: torch.optim.Optimizer


def _save(file: Path, state: _State, step: int, settings: TrainSettings) -> None:
    """A whole file or none: it appears by its last step, a rename."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    told = {name: str(value) for name, value in asdict(settings).items()}
    states = {name: getattr(state, name).state_dict() for name in _STATES}
    plan = cast("Network", state.network).plan.to_json()
    torch.save({**states, "step": step, "plan": plan, "settings": told}, part)
    part.replace(file)


def _taken_up(file: Path, state: _State) -> int:
    """Puts back what a checkpoint remembers, and gives the step to go on with; 0 without a checkpoint."""
    if not file.is_file():
        return 0
    kept = torch.load(file, map_location="cpu", weights_only=True)
    for name in _STATES:
        getattr(state, name).load_state_dict(kept[name])
    return int(kept["step"])


def load_averaged(file: Path) -> Any:
    """The averaged network of a checkpoint, which is the one to use; of the kind that was trained."""
    kept = torch.load(file, map_location="cpu", weights_only=True)
    network = network_of(kept["plan"])
    network.load_state_dict(kept["averaged"])
    return network.eval()
