"""Prompts for training, drawn from a true outline the way people err."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box, Click
from lesionlocator.segment.zoom import PATCH, Hints, Patch, View, hint
from lesionlocator.volume import Mask

Asked = Literal["box", "box and clicks", "click", "prior"]


@dataclass(frozen=True)
class PromptSettings:
    """How often each way of asking is drawn, and how far prompts are off."""

    box: float = 0.45
    box_and_clicks: float = 0.15
    click: float = 0.25
    prior: float = 0.15
    face_moves: tuple[float, ...] = (0.0, 0.05, 0.10, 0.13)
    """A box's faces are moved by up to one of these shares of its size."""
    shares: tuple[float, float] = (0.45, 0.75)
    """How much of a patch's side a box takes."""
    misjudged: tuple[float, float, float] = (0.3, 0.12, 0.1)
    """How far off a lesion's size is that was guessed from a click: spread of the log of all sides, of each side, and
    of the middle in sizes."""
    badly: float = 0.35
    """How often the size is guessed badly: the first spread is then two and a half times as wide."""
    guessed_move: float = 0.25
    """How far the faces of a box are off that was read off a first outline."""


@dataclass(frozen=True, eq=False)
class Question:
    """A view of a scan and what a reader says there."""

    view: View
    hints: Hints
    asked: Asked


def draw_question(
    rng: np.random.Generator,
    truth: Bool[np.ndarray, "d h w"],
    scan: Geometry,
    core: Bool[np.ndarray, "d h w"] | None,
    settings: PromptSettings,
) -> Question:
    """A way of asking for one lesion.

    Args:
        rng: Random generator.
        truth: Its outline on the scan's grid; not empty.
        scan: The grid.
        core: What this outline and another reading of the same picture differ by; a click tells which is meant.
        settings: How often what is asked.
    """
    ways: tuple[Asked, ...] = ("box", "box and clicks", "click", "prior")
    chances = np.array([settings.box, settings.box_and_clicks, settings.click, settings.prior])
    asked: Asked = ways[int(rng.choice(4, p=chances / chances.sum()))]
    mask = Mask.from_array(truth, scan)
    telling = _telling_clicks(rng, mask, core, scan)
    if telling and asked == "box":
        asked = "box and clicks"
    if asked == "click":
        clicks = [draw_click(rng, mask, True) for _ in range(1 + int(rng.random() < 0.25))]
        expected = misjudged(rng, Box.around(mask), clicks[0], settings)
        view = View.on_box(expected, scan, rng.uniform(*settings.shares, 3))
        return Question(view, hint(view, [*clicks, *telling], expected=expected), asked)
    guessed = asked == "prior"
    amount = settings.guessed_move if guessed else float(rng.choice(settings.face_moves))
    box = moved(rng, Box.around(mask), amount)
    view = View.on_box(box, scan, rng.uniform(*settings.shares, 3))
    clicks = list(telling)
    if asked == "box and clicks" or (guessed and rng.random() < 0.6):
        clicks += [draw_click(rng, mask, True) for _ in range(int(rng.integers(0 if telling else 1, 3)))]
        clicks += [click for click in [_click_beside(rng, mask, box)] if click is not None and rng.random() < 0.4]
    hints = hint(view, clicks, None if guessed and rng.random() < 0.6 else box)
    if guessed:
        hints = replace(hints, prior=spoil(rng, view.cut(truth.astype(np.float32))))
    return Question(view, hints, asked)


def moved(rng: np.random.Generator, box: Box, amount: float) -> Box:
    """The box with each face moved in or out by up to this share of its size."""
    low, high = amount * rng.uniform(-1, 1, (2, 3))
    return Box(box.corner + box.edges @ low, box.edges * (1 + high - low))


def misjudged(rng: np.random.Generator, box: Box, click: Click, settings: PromptSettings) -> Box:
    """The box as a search from a click may guess it: too large, too small, beside; the click is in it."""
    whole, each, beside = settings.misjudged
    if rng.random() < settings.badly:
        whole *= 2.5
    factors = np.exp(whole * rng.standard_normal() + each * rng.standard_normal(3))
    edges = box.edges * factors
    centre = box.centre + box.edges @ (beside * rng.standard_normal(3))
    found = Box(centre - edges.sum(axis=1) / 2, edges)
    at = found.to_unit(click.at[None])[0]
    return Box(found.corner + edges @ (np.minimum(at, 0) + np.maximum(at - 1, 0)), edges)


def draw_click(rng: np.random.Generator, mask: Mask, positive: bool) -> Click:
    """A click in a mask: mostly deep, now and then anywhere."""
    inside = mask.depth_mm[mask.array]
    chances = inside ** float(rng.choice((0.0, 1.0, 2.0, 6.0), p=(0.15, 0.25, 0.3, 0.3)))
    index = np.argwhere(mask.array)[rng.choice(len(inside), p=chances / chances.sum())]
    at = index + rng.uniform(-0.4, 0.4, 3)
    return Click(mask.geometry.index_to_world(at[None])[0], positive)


def spoil(rng: np.random.Generator, truth: Patch) -> Patch:
    """An outline as an earlier answer may have it: border moved smoothly, parts lost or added."""
    inside = truth >= 0.5
    if not inside.any() or inside.all():
        return inside.astype(np.float32)
    depth = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    coarse = int(rng.integers(3, 9))
    noise = ndimage.zoom(rng.standard_normal((coarse,) * 3), PATCH / coarse, order=1)
    wobble = rng.uniform(0.5, 6.0) * noise + rng.uniform(-2.5, 2.5)
    return (np.asarray(depth) + wobble > 0).astype(np.float32)


def _telling_clicks(
    rng: np.random.Generator, mask: Mask, core: Bool[np.ndarray, "d h w"] | None, scan: Geometry
) -> list[Click]:
    if core is None or not core.any():
        return []
    part = Mask.from_array(core, scan)
    counted_in = bool(mask.on(scan)[core].mean() > 0.5)
    clicks = [draw_click(rng, part, counted_in)]
    if not counted_in and rng.random() < 0.5:
        clicks.append(draw_click(rng, mask, True))
    return clicks


def _click_beside(rng: np.random.Generator, mask: Mask, box: Box) -> Click | None:
    """A click near the lesion that is not in it."""
    for _ in range(8):
        at = box.corner + box.edges @ rng.uniform(-0.2, 1.2, 3)
        index = np.floor(mask.geometry.world_to_index(at[None])[0] + 0.5).astype(int)
        inside = bool(np.all((index >= 0) & (index < mask.array.shape)))
        if not (inside and mask.array[tuple(index)]):
            return Click(at, False)
    return None


def correct(
    rng: np.random.Generator, belief: Patch, truth: Patch, seen: Patch
) -> tuple[Float[np.ndarray, "3"], bool] | None:
    """Where a reader would click next: deep in the largest error. None where nothing is wrong."""
    said, true = belief >= 0.5, truth >= 0.5
    wrong = (said != true) & (seen > 0.5)
    labels, count = ndimage.label(wrong & true, np.ones((3, 3, 3)))
    more, other = ndimage.label(wrong & ~true, np.ones((3, 3, 3)))
    if count + other == 0:
        return None
    labels = np.asarray(labels) + np.where(np.asarray(more) > 0, np.asarray(more) + count, 0)
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    depth = np.asarray(ndimage.distance_transform_edt(np.pad(labels == largest, 1)))[1:-1, 1:-1, 1:-1]
    deep = np.argwhere(depth >= depth.max() * rng.uniform(0.6, 1.0))
    return deep[int(rng.integers(len(deep)))].astype(float), largest <= count
