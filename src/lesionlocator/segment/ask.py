"""What a segmenter is asked, what it answers, and what every answer has to respect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from lesionlocator.geometry import Alignment, Geometry, Index3
from lesionlocator.prompt import Click, Prompt, Shape
from lesionlocator.volume import Mask, Volume
from lesionlocator.weights import ModelCard

Ask = tuple[Prompt, ...]
"""One lesion's prompts, together."""


@dataclass(frozen=True, eq=False)
class Outline:
    """The answer for one lesion. Without a mask, `reason` says why in plain words.

    `confidence` is an estimate of the Dice with an expert's outline, where the model can give one that was measured.
    """

    mask: Mask | None
    confidence: float | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan made ready for asking: work worth doing once, done on first need. Keeps the scan, never a copy."""

    volume: Volume


@runtime_checkable
class Segmenter(Protocol):
    """Outlines lesions in scans. Deterministic; the other asks of a call and their order never change an answer."""

    @property
    def name(self) -> str:
        """Id of the model."""
        ...

    @property
    def card(self) -> ModelCard:
        """Licence, limits and settings of the model."""
        ...

    def prepare(self, volume: Volume) -> Prepared:
        """Work done once for a scan."""
        ...

    def outline(self, prepared: Prepared, asks: Sequence[Ask]) -> list[Outline]:
        """One answer for every ask, in the same order."""
        ...


@dataclass(frozen=True, eq=False)
class FollowedOutline:
    """What a follower says of one lesion: its outline, empty when it sees nothing there.

    None when the follow-up scan does not cover its place.
    """

    mask: Mask | None


@runtime_checkable
class Follower(Protocol):
    """A segmenter that brings its own registration, and carries outlines to a later scan by itself."""

    def follow(self, baseline: Prepared, followup: Prepared, masks: Sequence[Mask]) -> list[FollowedOutline]:
        """One answer for every outline of the baseline, in the same order."""
        ...


@dataclass(frozen=True, eq=False)
class Remembered:
    """A lesion of an earlier scan: its outline there, and where the alignment carries that in the later scan."""

    before: Mask
    carried: Mask


@dataclass(frozen=True, eq=False)
class SeenAgain:
    """What is seen of it in the later scan: the outline, and how far it is believed to be there at all, 0 to 1."""

    outline: Outline
    presence: float
    is_there: bool


@runtime_checkable
class Rememberer(Protocol):
    """A segmenter that looks at a later scan with the earlier one in memory."""

    def look_again(
        self, baseline: Prepared, followup: Prepared, alignment: Alignment, lesions: Sequence[Remembered]
    ) -> list[SeenAgain]:
        """One answer for every lesion, in the same order. The other lesions never change an answer."""
        ...


class NotOutlined(Exception):
    """Why one lesion cannot be outlined; becomes the `reason` of its `Outline`, the other lesions go on."""


def answer(volume: Volume, ask: Ask, draw: Callable[[Volume, Ask], Mask]) -> Outline:
    """One lesion's outline by `draw`, after the checks and with the rules that hold for every segmenter.

    Prompts that lie wholly outside the scan are not handed to `draw`. Voxels that a click touches are in the outline
    (positive) or out of it (negative); of two clicks on one voxel the later one counts.
    """
    try:
        usable = _usable(volume.geometry, ask)
        mask = _with_clicks(draw(volume, usable), usable, volume.geometry)
    except NotOutlined as reason:
        return Outline(None, None, str(reason))
    if mask.is_empty:
        return Outline(None, None, "nothing found at the prompt")
    return Outline(mask)


def is_positive(prompt: Prompt) -> bool:
    """Whether a prompt says where the lesion is (all do but negative clicks)."""
    return not (isinstance(prompt, Click) and not prompt.positive)


def touched(prompt: Prompt, geometry: Geometry) -> tuple[Index3, Index3] | None:
    """Start and stop of the part of the grid round a prompt; None when it lies wholly outside."""
    return geometry.clip(*geometry.around(prompt.points_mm))


def _usable(geometry: Geometry, ask: Ask) -> Ask:
    positive = [prompt for prompt in ask if is_positive(prompt)]
    if not positive:
        raise NotOutlined("no prompt says where the lesion is (a box, line, mask or positive click)")
    filled = [prompt for prompt in positive if not (isinstance(prompt, Shape) and prompt.mask.is_empty)]
    if not filled:
        raise NotOutlined("the mask given as prompt is empty")
    inside = [prompt for prompt in filled if touched(prompt, geometry) is not None]
    if not inside:
        raise NotOutlined("the prompt lies outside the scan")
    return tuple(prompt for prompt in ask if prompt in inside or not is_positive(prompt))


def _with_clicks(mask: Mask, ask: Ask, geometry: Geometry) -> Mask:
    clicks = [prompt for prompt in ask if isinstance(prompt, Click) and bool(geometry.contains(prompt.points_mm)[0])]
    if not clicks:
        return mask
    at_mm = np.concatenate([mask.geometry.corners_mm, *(click.points_mm for click in clicks)])
    covered = geometry.clip(*geometry.around(at_mm))
    if covered is None:
        return mask
    region = geometry.crop(*covered)
    array = mask.on(region)
    for click in clicks:
        array[click.paint(region)] = click.positive
    return Mask.from_array(array, region)
