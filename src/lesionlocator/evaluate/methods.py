"""The methods that answer: models by name, and the baselines that stand in every table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lesionlocator.align import ALIGNERS
from lesionlocator.evaluate.whole_field import WHOLE_FIELD, whole_field
from lesionlocator.follow.recall import halfway
from lesionlocator.geometry import Alignment
from lesionlocator.prompt import Box
from lesionlocator.segment import Ask, Outline, Prepared, Segmenter, load_segmenter
from lesionlocator.segment.ask import NotOutlined, answer
from lesionlocator.volume import Mask, Volume
from lesionlocator.weights import ModelCard, find_model

Align = Callable[[str, Volume, Volume], Alignment]
"""(aligner's name, baseline, followup) -> alignment; kept, so that each is found once."""

TRACKED = "track:"


@dataclass(frozen=True, eq=False)
class FilledBox:
    """The whole box of the prompt; without one, the tight box of what the ellipsoid makes of a line or a click."""

    card: ModelCard

    @property
    def name(self) -> str:
        return self.card.id

    def prepare(self, volume: Volume) -> Prepared:
        return Prepared(volume)

    def outline(self, prepared: Prepared, asks: Sequence[Ask]) -> list[Outline]:
        return [answer(prepared.volume, ask, _fill) for ask in asks]


FILLED_BOX = FilledBox(
    ModelCard(
        id="filled-box",
        kind="filled-box",
        title="The whole box of the prompt",
        licence="Apache-2.0",
        intended_use="Evaluation only: the least that an outline has to be better than.",
        limits="Not a medical device, and not an outline.",
    )
)


@dataclass(frozen=True)
class Copied:
    """A tracking baseline: the true outline of the baseline scan, carried over by an aligner and not outlined again.

    With `halfway` it is grown by four voxels in its axial slices, and what of that lies beyond the value halfway
    between the mean inside and the mean of the grown rim stays.
    """

    aligner: str
    halfway: bool = False

    def carry(self, mask: Mask, baseline: Volume, followup: Volume, align: Align) -> Mask:
        """The outline in the follow-up; empty when it lies outside."""
        carried = mask.warped(followup.geometry, align(self.aligner, baseline, followup))
        return (halfway(carried, followup) or carried) if self.halfway else carried


BASELINES: dict[str, Callable[[], Segmenter]] = {FILLED_BOX.name: lambda: FILLED_BOX, WHOLE_FIELD.id: whole_field}
"""Name in a protocol -> what answers for evaluation only."""
BASELINE_CARDS = {card.id: card for card in (FILLED_BOX.card, WHOLE_FIELD)}

COPIED: dict[str, Copied] = {
    **{name: Copied(name) for name in ("header", "centre", "affine", "deformable")},
    "header, halfway": Copied("header", halfway=True),
    "affine, halfway": Copied("affine", halfway=True),
}
"""Name in a protocol -> tracking baseline."""


def find_segmenter(name: str) -> Segmenter:
    """A model, the filled box, or the published tracker's rule."""
    return BASELINES[name]() if name in BASELINES else load_segmenter(name)


def find_card(name: str) -> ModelCard:
    """What a name stands for, without loading it."""
    return BASELINE_CARDS[name] if name in BASELINE_CARDS else find_model(name)[0]


def method_label(method: str) -> str:
    """The name of a method in tables: a model that was named by its folder goes by the id on its card."""
    model = method.removeprefix(TRACKED)
    if model in COPIED or "/" not in model.replace("\\", "/"):
        return method
    return method[: len(method) - len(model)] + find_model(model)[0].id


class Alignments:
    """Alignments of pairs of scans, each found once. Holds the scans that it has seen."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int, int], tuple[Alignment, Volume, Volume]] = {}

    def __call__(self, name: str, baseline: Volume, followup: Volume) -> Alignment:
        key = (name, id(baseline), id(followup))
        if key not in self._found:
            # The volumes are kept with the answer: an id is only its own while its volume lives.
            self._found[key] = (ALIGNERS[name](baseline, followup), baseline, followup)
        return self._found[key][0]


def _fill(volume: Volume, ask: Ask) -> Mask:
    boxes = [prompt for prompt in ask if isinstance(prompt, Box)] or [_guessed(volume, ask)]
    covered = volume.geometry.clip(*volume.geometry.around(np.concatenate([box.points_mm for box in boxes])))
    if covered is None:
        raise NotOutlined("the prompt lies outside the scan")
    region = volume.geometry.crop(*covered)
    return Mask.from_array(np.logical_or.reduce([box.paint(region) for box in boxes]), region)


def _guessed(volume: Volume, ask: Ask) -> Box:
    ellipsoid = load_segmenter("ellipsoid")
    (outline,) = ellipsoid.outline(ellipsoid.prepare(volume), [ask])
    if outline.mask is None:
        raise NotOutlined(outline.reason)
    return Box.around(outline.mask)
