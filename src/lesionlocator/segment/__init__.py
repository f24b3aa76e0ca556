"""From a prompt to an outline: the segmenters, and how to get one by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from lesionlocator.errors import Refused
from lesionlocator.segment.ask import Ask, Outline, Prepared, Segmenter
from lesionlocator.segment.visit import keep_masks, segment_case, segment_timepoint
from lesionlocator.weights import DEFAULT_MODEL, MODELS, ModelCard, find_model, refuse_if_damaged

__all__ = [
    "DEFAULT_MODEL",
    "KINDS",
    "MODELS",
    "Ask",
    "Outline",
    "Prepared",
    "Quality",
    "Segmenter",
    "keep_masks",
    "load_segmenter",
    "segment_case",
    "segment_timepoint",
]

Quality = Literal["fast", "balanced", "max"]


def load_segmenter(name: str = DEFAULT_MODEL, *, device: str = "auto", quality: Quality = "balanced") -> Segmenter:
    """A model by its name, or by the path of its folder; never another one than was named.

    Args:
        name: A name from `weights.list_models()`, or a folder with a `model.json`.
        device: `auto`, or where to run. The embedded models run on `cpu`.
        quality: More work for a finer outline, or less.
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
    return KINDS[card.kind](card, device, quality)


def _load_ellipsoid(card: ModelCard, device: str, quality: Quality) -> Segmenter:
    from lesionlocator.segment.ellipsoid import Ellipsoid

    _on_cpu(card, device)
    return Ellipsoid(card)


def _load_intensity(card: ModelCard, device: str, quality: Quality) -> Segmenter:
    from lesionlocator.segment.intensity import Intensity

    _on_cpu(card, device)
    return Intensity.from_card(card, quality)


def _on_cpu(card: ModelCard, device: str) -> None:
    if device not in ("auto", "cpu"):
        raise Refused(
            found=f"the device {device!r}",
            needed=f"`cpu`, where {card.id} runs",
            do="leave the device out, or choose cpu",
        )


KINDS: dict[str, Callable[[ModelCard, str, Quality], Segmenter]] = {
    "ellipsoid": _load_ellipsoid,
    "intensity": _load_intensity,
}
