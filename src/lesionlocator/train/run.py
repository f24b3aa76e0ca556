"""A training from a data folder to a model folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionlocator.engine import WEIGHTS
from lesionlocator.errors import Refused
from lesionlocator.network.promptable import PromptablePlan
from lesionlocator.network.running import load_network
from lesionlocator.synth.scene import Backgrounds
from lesionlocator.train.confidence import ConfidencePlan, fit_confidence
from lesionlocator.train.data import Mixed, Sample
from lesionlocator.train.export import write_model
from lesionlocator.train.folder import TrainingData, read_training_data
from lesionlocator.train.loop import LOG, Recipe, Say, load_averaged, print_nothing, train
from lesionlocator.train.settings import TrainSettings
from lesionlocator.train.sources import Outlined, Painted, Real
from lesionlocator.train.watch import painted_samples, real_samples
from lesionlocator.weights import ModelCard, embedded_folder, find_model

MODEL, CURVES = "model", "curves.png"
_WATCHED = 6


@dataclass(frozen=True)
class Trained:
    """What came of it."""

    model: Path
    curves: Path
    log: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Watched:
    """What the curves show: painted lesions of a fixed seed, and outlined ones that are kept apart."""

    backgrounds: Backgrounds
    lesions: Sequence[Outlined]

    def __call__(self) -> dict[str, list[Sample]]:
        return {**painted_samples(self.backgrounds, _WATCHED), **real_samples(self.lesions)}


def run_training(data: Path, settings: TrainSettings, start: str | None = None, say: Say = print_nothing) -> Trained:
    """Train on a folder of scans and label maps, from nothing or from a model, and write a model folder.

    Every fifth patient is kept apart for the curves, when there are five or more.

    Raises:
        Refused: No data, or a model to start from that is no trained network.
    """
    found = read_training_data(data, settings.modality)
    learned, kept_apart = split(found.lesions)
    backgrounds = Backgrounds.gather(found.backgrounds)
    sources = [(settings.painted if learned else 1.0, Painted(backgrounds))]
    source = Mixed([*sources, (1 - settings.painted, Real(learned))]) if learned else sources[0][1]
    counts = f"{len(learned)} lesions to learn from, {len(kept_apart)} kept apart"
    say(f"{counts}, {len(found.backgrounds)} scans without any")

    network = PromptablePlan() if start is None else load_network(_weights(start))
    recipe = Recipe(source, watched=Watched(backgrounds, kept_apart))
    trained = load_averaged(train(recipe, settings, network, say))
    if settings.judged:
        off = fit_confidence(trained, recipe, ConfidencePlan(answers=settings.judged))
        say(f"the confidence is off by {off:.2f} on answers that it was not fitted on")
    write_model(trained, _card(settings, start, found), settings.out / MODEL)
    log = [json.loads(line) for line in (settings.out / LOG).read_text(encoding="utf-8").splitlines()]
    return Trained(settings.out / MODEL, draw_curves(log, settings.out / CURVES), log)


def split(lesions: Sequence[Outlined]) -> tuple[list[Outlined], list[Outlined]]:
    """Lesions to learn from, and those of every fifth patient, which are kept apart."""
    patients = sorted({lesion.patient for lesion in lesions})
    apart = set(patients[4::5])
    return [one for one in lesions if one.patient not in apart], [one for one in lesions if one.patient in apart]


def draw_curves(log: Sequence[Mapping[str, Any]], file: Path) -> Path:
    """Dice over the steps, a line for each kind of lesion."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    steps = [entry["step"] for entry in log]
    axes.plot(steps, [entry["dice"] for entry in log], color="black", linestyle=":", label="training, all prompts")
    names = sorted({name for entry in log for name in entry["watched"]})
    for name in names:
        axes.plot(steps, [entry["watched"].get(name) for entry in log], label=name)
    axes.set(xlabel="steps", ylabel="Dice from the tight box", ylim=(0, 1))
    axes.legend(fontsize=7, ncols=2)
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)
    return file


def _weights(start: str) -> Path:
    card, folder = find_model(start)
    if card.kind != "learned":
        raise Refused(
            found=f"{start}, a model of the kind {card.kind!r}",
            needed="a trained network of this program to start from",
            do="choose one of the kind 'learned' (`lesionlocator models list`)",
        )
    return (folder or embedded_folder(card.id)) / WEIGHTS


def _card(settings: TrainSettings, start: str | None, data: TrainingData) -> ModelCard:
    patients = len({lesion.patient for lesion in data.lesions})
    return ModelCard(
        id=settings.name,
        kind="learned",
        title=f"Trained for {settings.steps} steps on {len(data.lesions)} lesions of {patients} patients"
        + (f", from {start}" if start else ""),
        licence=settings.licence,
        intended_use="Research. Outlines of lesions like those that it was trained on.",
        limits="Not a medical device. Not measured yet: run `lesionlocator evaluate` on patients kept apart.",
        settings={} if settings.judged else {"confidence": False},
    )
