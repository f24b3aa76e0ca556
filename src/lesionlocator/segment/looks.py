"""Looks of a network at a patch, and which of them to believe where only a click says what is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from scipy.special import expit

from lesionlocator.prompt import Box, Click
from lesionlocator.resample import along_axes, axis_weights
from lesionlocator.segment.zoom import PATCH, Patch, View

_DRIFT, _BLUR, _GUESSED = 0.7, 3.0, 0.1
"""What speaks against an end beside how well another agrees with it (Dice), and for the one from the guessed extent.

From 160 clicks on lesions of left-out patients and 96 on painted ones; the network's own confidence added nothing."""
_UNSETTLED = 0.5
"""How much an outline is taken to have drifted where there was one look only."""
SURE = ("sure_offset", "sure_own", "sure_met", "sure_drift", "sure_blur")
"""Settings of a card: what the log odds of the Dice of an outline from a click add up from (`Chosen.facts`)."""


@dataclass(frozen=True, eq=False)
class Look:
    """One answer of the network: where it looked, what it believes, and how sure it is."""

    view: View
    belief: Patch
    confidence: float

    @property
    def found(self) -> bool:
        return bool((self.belief >= 0.5).any())

    def box(self, clicks: Sequence[Click]) -> Box:
        """Round what was found at a click (everything, when no click is in it)."""
        labels, count = ndimage.label(self.belief >= 0.5, np.ones((3, 3, 3)))
        at_mm = np.array([click.at for click in clicks]).reshape(-1, 3)
        index = np.floor(self.view.from_world(at_mm) + 0.5).astype(int)
        index = np.clip(index, 0, PATCH - 1)
        hit = {int(np.asarray(labels)[tuple(at)]) for at in index} - {0}
        part = np.isin(labels, list(hit)) if hit and count > 1 else np.asarray(labels) > 0
        where = np.argwhere(part)
        low, high = where.min(axis=0) - 0.5, where.max(axis=0) + 0.5
        corner, *ends = self.view.to_world(np.array([low, *(low + np.diag(high - low))]))
        return Box(corner, np.stack(ends, axis=1) - corner[:, None])

    def seen_from(self, other: View) -> Patch:
        """This belief in another view of the same scan."""
        return resampled(self.belief, self.view, other)

    def agrees(self, other: Look) -> float:
        """Dice of both outlines in the other's view."""
        own, there = self.seen_from(other.view) >= 0.5, other.belief >= 0.5
        total = int(np.count_nonzero(own) + np.count_nonzero(there))
        return 2 * int(np.count_nonzero(own & there)) / total if total else 0.0


@dataclass(frozen=True, eq=False)
class End:
    """Where looks from one start ended: the last that found something, and how far it had still moved."""

    look: Look
    drift: float
    guessed: bool = False
    """Whether the start was the extent that the classical search had guessed."""

    @staticmethod
    def of(looks: Sequence[Look], clicks: Sequence[Click], guessed: bool = False) -> End:
        found = [seen for seen in looks if seen.found]
        if len(found) < 2:
            return End((found or looks)[-1], _UNSETTLED, guessed)
        before, after = (float(np.prod(seen.box(clicks).size_mm)) for seen in found[-2:])
        return End(found[-1], abs(float(np.log(after / before))), guessed)

    @property
    def blur(self) -> float:
        """How undecided the belief is, for each voxel of the outline: 0 for a sharp border, at most 1."""
        belief = self.look.belief
        return min(float((belief * (1 - belief)).sum()) / max(1, int(np.count_nonzero(belief >= 0.5))), 1.0)

    def agrees(self, other: End) -> float:
        return self.look.agrees(other.look)

    def met_by(self, others: Sequence[End]) -> float:
        """How well that other start's end which agrees best does (Dice)."""
        return max((self.agrees(other) for other in others if other is not self), default=0.0)

    def confirmed_by(self, others: Sequence[End]) -> float:
        """The same, but an end that still moved confirms less: what runs away ends up in the same large organ."""
        counted = (self.agrees(other) * float(np.exp(-other.drift)) for other in others if other is not self)
        return max(counted, default=0.0)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The end that is believed, and how well another start's end agrees with it."""

    end: End
    met: float

    @staticmethod
    def among(ends: Sequence[End]) -> Chosen | None:
        """The end that has settled, is sharp, and is met from another start; None where nothing was found."""
        found = [end for end in ends if end.look.found]

        def deserves(own: End) -> float:
            return own.confirmed_by(found) + _GUESSED * own.guessed - _DRIFT * own.drift - _BLUR * own.blur

        best = max(found, key=deserves, default=None)
        return None if best is None else Chosen(best, best.met_by(found))

    @property
    def facts(self) -> Float[np.ndarray, "5"]:
        """What tells how good the outline is: 1, the network's own estimate, agreement, drift (at most 1), blur."""
        return np.array([1.0, self.end.look.confidence, self.met, min(self.end.drift, 1.0), self.end.blur])

    def look(self, settings: Mapping[str, object]) -> Look:
        """The look, as sure as the card's settings make of the facts; without these as the network said."""
        if SURE[0] not in settings:
            return self.end.look
        weights = np.array([float(str(settings.get(name, 0.0))) for name in SURE])
        return replace(self.end.look, confidence=float(expit(self.facts @ weights)))


def resampled(belief: Patch, of: View, onto: View) -> Patch:
    """What is believed in one view as another view shows it; nothing where the first does not reach."""
    weights: list[Float[np.ndarray, "n m"]] = []
    for axis in range(3):
        at = (onto.at_index[axis] - of.start[axis]) / of.step[axis] - 0.5
        rows = axis_weights(at, float(onto.step[axis] / of.step[axis]), PATCH)
        weights.append(rows * ((at > -1.0) & (at < PATCH))[:, None])
    return along_axes(belief, weights)
