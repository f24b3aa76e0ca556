"""From a prompt to an outline: the segmenters, and how to get one by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lesionlocator.errors import Refused
from lesionlocator.segment.ask import (
    Ask,
    FollowedOutline,
    Follower,
    Outline,
    Prepared,
    Remembered,
    Rememberer,
    SeenAgain,
    Segmenter,
)
from lesionlocator.segment.running import Precision, Quality, Running
from lesionlocator.segment.visit import keep_masks, segment_case, segment_timepoint
from lesionlocator.weights import DEFAULT_MODEL, MODELS, ModelCard, find_model, refuse_if_damaged

__all__ = [
    "DEFAULT_MODEL",
    "KINDS",
    "MODELS",
    "Ask",
    "FollowedOutline",
    "Follower",
    "Outline",
    "Precision",
    "Prepared",
    "Quality",
    "Remembered",
    "Rememberer",
    "Running",
    "SeenAgain",
    "Segmenter",
    "keep_masks",
    "load_segmenter",
    "segment_case",
    "segment_timepoint",
]


def load_segmenter(
    name: str = DEFAULT_MODEL, *, device: str = "auto", quality: Quality = "balanced", running: Running | None = None
) -> Segmenter:
    """A model by its name, or by the path of its folder; never another one than was named.

    Args:
        name: A name from `weights.list_models()`, a folder with a `model.json`, or a published checkpoint folder.
        device: `auto`, or where to run. The embedded models run on `cpu`.
        quality: More work for a finer outline, or less.
        running: All settings at once (also folds, mirroring and precision), instead of the two above.
    """
    card, folder = find_model(str(name))
    if folder is not None:
        refuse_if_damaged(card, folder)
    if card.kind not in KINDS:
        raise Refused(
            found=f"a model of the kind {card.kind!r} ({name})",
            needed=f"one of {', '.join(KINDS)}",
            do="update lesionlocator, or choose another model",
        )
    running = running or Running(device, quality)
    return KINDS[card.kind](card, replace(running, folder=folder))


def _load_ellipsoid(card: ModelCard, running: Running) -> Segmenter:
    from lesionlocator.segment.ellipsoid import Ellipsoid

    running.refuse_network_settings(card.id)
    return Ellipsoid(card)


def _load_intensity(card: ModelCard, running: Running) -> Segmenter:
    from lesionlocator.segment.intensity import Intensity

    running.refuse_network_settings(card.id)
    return Intensity.from_card(card, running.quality)


def _load_published(card: ModelCard, running: Running) -> Segmenter:
    from lesionlocator.segment.published import load_published

    return load_published(card, running)


def _load_learned(card: ModelCard, running: Running) -> Segmenter:
    from lesionlocator.segment.learned import load_learned
    from lesionlocator.segment.memory import has_memory, with_memory

    learned = load_learned(card, running)
    return with_memory(learned) if has_memory(card) else learned


KINDS: dict[str, Callable[[ModelCard, Running], Segmenter]] = {
    "ellipsoid": _load_ellipsoid,
    "intensity": _load_intensity,
    "published": _load_published,
    "learned": _load_learned,
}
"""Kind of a model (its card says it) -> the function that makes a segmenter of it."""
