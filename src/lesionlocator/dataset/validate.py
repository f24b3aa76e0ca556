"""Whether a data set is what its recipe says: the same bytes, or, where packages differ, nearly the same voxels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, Shaped

from lesionlocator.batch import open_executor
from lesionlocator.dataset.card import TRUTH, visit_folder
from lesionlocator.dataset.make import make_chain, source_folder, true_case
from lesionlocator.dataset.reading import RUN, read_run
from lesionlocator.dataset.recipe import FILE, Item, RecipeSource, find_recipe, labels_checksum, read_recipe
from lesionlocator.dataset.settings import SynthesizeSettings
from lesionlocator.dataset.truth import events_of
from lesionlocator.errors import Refused
from lesionlocator.formats import checksum, read_label_map, read_volume
from lesionlocator.synth.chain import Chain
from lesionlocator.volume import UNITS, Modality

LABELS_ALIKE = 0.999
"""Share of all label voxels, of either, that have the same label in both."""
CT_WITHIN_HU = 1.0
OTHERS_WITHIN = 0.001
"""MR and PET have no common unit: of the range of their intensities."""
SAME_BYTES, SAME_WITHIN_LIMITS = "the same bytes", "the same draws and events, labels and intensities within limits"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Checked:
    """An item, whether it is as it should be, and what was found. Numbers are None where bytes agree."""

    name: str
    ok: bool
    finding: str
    labels_alike: float | None = None
    intensity_apart: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def validate_folder(
    source: str, out: Path, settings: SynthesizeSettings | None = None, say: Say = lambda _: None
) -> list[Checked]:
    """Checks every item of a data set that its recipe (or the one that the settings name) describes.

    An item whose files have the checksums of the recipe is right. Another one is made again, from the sources, and
    compared: draws and events must be equal, at least 99.9 % of label voxels, and CT within 1 HU (MR and PET within
    a thousandth of their range). With the packages and the processor of the recipe, other bytes are wrong in any case.

    Raises:
        Refused: No recipe, none of its items in the folder, or sources that are not those of the recipe.
    """
    settings = settings or SynthesizeSettings()
    recipe = read_recipe(find_recipe(settings.recipe or str(out / FILE)))
    items = [item for item in recipe.items if (out / TRUTH / item.name / RUN).is_file()]
    if not items:
        raise Refused(
            found=f"none of the recipe's {len(recipe.items)} items in {out}",
            needed="a data set that was made from it",
            do="name its folder, or make it first",
        )
    missing = len(recipe.items) - len(items)
    if missing:
        say(f"{missing} of the recipe's items are not in {out.name}; {len(items)} are checked")
    root = source_folder(source)
    part = recipe.only(items).on(root)
    checked: list[Checked] = []
    with open_executor(settings.executor, address=settings.address, workers=settings.workers) as pool:
        asked = [
            pool.submit(check_item, item, part.sources[item.source], root, out, recipe.made_here) for item in part.items
        ]
        for number, answer in enumerate(asked, start=1):
            checked.append(answer.result())
            say(f"{number}/{len(asked)} {checked[-1].name}: {checked[-1].finding}")
    return checked


def check_item(item: Item, source: RecipeSource, root: Path, out: Path, same_packages: bool) -> Checked:
    """One item of a data set against its recipe."""
    run = read_run(out, item.name)
    gone = [path for path in run["files"] if not (out / path).is_file()]
    if gone:
        return Checked(item.name, False, f"{gone[0]} is missing")
    if item.draws is not None and run["draws"] != _plain(item.draws):
        return Checked(item.name, False, "other draws")
    found = {path: checksum(out / path) for path in run["files"]}
    if item.files and dict(item.files) == found:
        return Checked(item.name, True, SAME_BYTES)
    if item.files and same_packages:
        other = next(path for path, digest in found.items() if item.files.get(path) != digest)
        return Checked(item.name, False, f"{other} has other bytes, though packages and processor are the same")
    chain, draws = make_chain(item, source, root)
    if run["draws"] != _plain(draws):
        return Checked(item.name, False, "other draws")
    return _compared(item, source, chain, out, run, same_packages)


def _compared(
    item: Item, source: RecipeSource, chain: Chain, out: Path, run: Mapping[str, Any], same_packages: bool
) -> Checked:
    events = events_of(true_case(chain))
    if _plain(run["events"]) != _plain(events) or (item.events and item.events != events):
        return Checked(item.name, False, "other events")
    if same_packages and item.labels and item.labels != labels_checksum(chain):
        return Checked(item.name, False, "other label maps, though packages and processor are the same")
    modality = source.scan(out).modality
    alike, apart = 1.0, 0.0
    for number, scan in enumerate(chain.scans):
        folder = out / visit_folder(number)
        made = read_volume(folder / "images" / f"{item.name}.nii.gz", modality)
        if not made.geometry.same_as(scan.volume.geometry):
            return Checked(item.name, False, f"another grid at visit {number}")
        labels = read_label_map(folder / "labels" / f"{item.name}.nii.gz").values
        alike = min(alike, labels_alike(labels, scan.label_map(chain.labels)))
        apart = max(apart, intensities_apart(made.array, scan.volume.array, made.modality))
    limit = CT_WITHIN_HU if source.modality == "CT" else OTHERS_WITHIN
    unit = f" {UNITS['CT']}" if source.modality == "CT" else " of the range"
    numbers = f"{100 * alike:.3f} % of label voxels, intensities within {apart:.3g}{unit}"
    ok = alike >= LABELS_ALIKE and apart <= limit
    return Checked(item.name, ok, f"{SAME_WITHIN_LIMITS}: {numbers}" if ok else f"only {numbers}", alike, apart)


def labels_alike(one: Integer[np.ndarray, "d h w"], other: Integer[np.ndarray, "d h w"]) -> float:
    """Share of the voxels labelled in either that have the same label in both; 1 where neither has any."""
    either = (one != 0) | (other != 0)
    voxels = int(np.count_nonzero(either))
    return float(np.count_nonzero((one == other) & either)) / voxels if voxels else 1.0


def intensities_apart(
    one: Shaped[np.ndarray, "d h w"], other: Shaped[np.ndarray, "d h w"], modality: Modality
) -> float:
    """The largest difference: in HU for CT, else as a share of the range of the first."""
    largest = float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())
    if modality == "CT":
        return largest
    spread = float(one.max()) - float(one.min())
    return largest / spread if spread > 0 else largest


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
