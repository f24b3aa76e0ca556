"""The published LesionLocator models as a segmenter, which also follows lesions by its own registration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lesionlocator.errors import Refused
from lesionlocator.prompt import Box, Click, Line, Shape
from lesionlocator.segment.ask import (
    Ask,
    FollowedOutline,
    NotOutlined,
    Outline,
    Prepared,
    answer,
    is_positive,
)
from lesionlocator.segment.running import Running
from lesionlocator.volume import Mask, Volume
from lesionlocator.weights import ModelCard

if TYPE_CHECKING:
    from lesionlocator.published.ensemble import Effort, Ensemble
    from lesionlocator.published.prompts import Painted
    from lesionlocator.published.scan import PlannedScan

_Kind = Literal["box", "point"]


@dataclass(frozen=True, eq=False)
class _PreparedScan(Prepared):
    """A scan and what each part of the model has made of it."""

    planned: dict[str, PlannedScan] = field(default_factory=dict["str", "PlannedScan"])


@dataclass(frozen=True, eq=False)
class Published:
    """The models of one checkpoint folder; the networks are loaded when they are first needed, and once."""

    card: ModelCard
    folder: Path
    effort: Effort
    _loaded: dict[str, Ensemble] = field(default_factory=dict["str", "Ensemble"])

    @property
    def name(self) -> str:
        return self.card.id

    def prepare(self, volume: Volume) -> Prepared:
        if volume.modality != "CT":
            raise Refused(
                found=f"a scan of the modality {volume.modality} ({volume.name})",
                needed="CT, the only modality that the published LesionLocator was made for",
                do="choose another model; if it is a CT, add --modality CT",
            )
        return _PreparedScan(volume)

    def outline(self, prepared: Prepared, asks: Sequence[Ask]) -> list[Outline]:
        known: dict[int, Mask] = {}
        for kind in ("box", "point"):
            asked = [(number, ask) for number, ask in enumerate(asks) if kind_of(ask) == kind]
            known |= self._outlined(prepared, asked, kind)
        return [
            answer(prepared.volume, ask, lambda volume, ask, number=number: _found(known, number))
            for number, ask in enumerate(asks)
        ]

    def follow(self, baseline: Prepared, followup: Prepared, masks: Sequence[Mask]) -> list[FollowedOutline]:
        """Every outline of the baseline in the follow-up, through one registration for all of them."""
        from lesionlocator.published.following import follow_all

        ensemble = self._ensemble("track")
        first, second = (self._planned(scan, "track") for scan in (baseline, followup))
        return [FollowedOutline(one.mask) for one in follow_all(first, second, masks, ensemble)]

    def outline_exactly(
        self, prepared: Prepared, asks: Sequence[Ask], kind: _Kind, step: float = 0.5
    ) -> list[Mask | None]:
        """What the released program would write, as it is: empty where nothing was found, None where nothing was asked.

        A mask among the prompts is made a box or a ball on the resampled grid.
        """
        found = self._outlined(prepared, list(enumerate(asks)), kind, step)
        return [found.get(number) for number in range(len(asks))]

    def _outlined(
        self, prepared: Prepared, asked: Sequence[tuple[int, Ask]], kind: _Kind, step: float = 0.5
    ) -> dict[int, Mask]:
        from lesionlocator.published.outlining import outline_all

        if not asked:
            return {}
        ensemble, scan = self._ensemble(kind), self._planned(prepared, kind)
        painted = {number: _painted(ask, scan, kind) for number, ask in asked}
        usable = {number: one for number, one in painted.items() if one is not None}
        return dict(zip(usable, outline_all(scan, list(usable.values()), ensemble, step), strict=True))

    def _ensemble(self, part: str) -> Ensemble:
        from lesionlocator.published.ensemble import Ensemble

        if part not in self._loaded:
            self._loaded[part] = Ensemble(self.folder, part, self.effort)
        return self._loaded[part]

    def _planned(self, prepared: Prepared, part: str) -> PlannedScan:
        from lesionlocator.published.scan import PlannedScan

        plans = self._ensemble(part).plans
        if not isinstance(prepared, _PreparedScan):
            return PlannedScan(prepared.volume, plans)
        # The parts of a folder mostly have the same plans; then they share what was made of the scan.
        for other, scan in prepared.planned.items():
            if self._ensemble(other).plans == plans:
                return scan
        return prepared.planned.setdefault(part, PlannedScan(prepared.volume, plans))


def load_published(card: ModelCard, running: Running) -> Published:
    """The models of a checkpoint folder, as much of them as the quality asks for.

    `fast` is the first fold without mirroring, `balanced` all folds without, `max` all folds in all mirrors; folds and
    mirroring that are given go before.
    """
    if running.folder is None:
        raise Refused(found=f"{card.id} without a folder", needed="its checkpoint folder", do="give --model FOLDER")
    try:
        from lesionlocator.published.ensemble import Effort, find_device
    except ModuleNotFoundError as error:
        raise Refused(
            found=f"no {error.name} in this installation",
            needed="PyTorch and safetensors, which the published networks run on",
            do='install them: pip install "lesionlocator[torch]"',
        ) from error
    find_device(running.device)
    folds = running.folds or ((0,) if running.quality == "fast" else ())
    mirroring = running.quality == "max" if running.mirroring is None else running.mirroring
    return Published(card, running.folder, Effort(folds, mirroring, running.precision, running.device))


def kind_of(ask: Ask) -> _Kind:
    """Which of the two models a lesion's prompts are for: the one for boxes unless there are only clicks."""
    positive = [prompt for prompt in ask if is_positive(prompt)]
    return "point" if positive and all(isinstance(prompt, Click) for prompt in positive) else "box"


def _painted(ask: Ask, scan: PlannedScan, kind: _Kind) -> Painted | None:
    from lesionlocator.published.prompts import paint

    positive = [prompt for prompt in ask if is_positive(prompt)]
    if kind == "box" and not any(isinstance(prompt, Box | Shape) for prompt in positive):
        positive = [_round_line(prompt) for prompt in positive if isinstance(prompt, Line)]
    elif any(isinstance(prompt, Box) for prompt in positive):
        # A reader's own box says more than the box of an outline.
        positive = [prompt for prompt in positive if isinstance(prompt, Box)]
    return paint(positive, scan, kind)


def _round_line(line: Line) -> Box:
    """A line is a diameter; how thick the lesion is across it is not known, so the box is a cube."""
    middle, half = (line.start + line.end) / 2, max(line.length_mm, 1.0) / 2
    return Box.from_bounds(middle - half, middle + half)


def _found(known: dict[int, Mask], number: int) -> Mask:
    if number not in known:
        raise NotOutlined("the prompt lies where the scan holds nothing but zeros")
    return known[number]
