"""The recipe of a data set: its sources with checksums, and what was drawn for every item; a few MB, no voxels."""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from lesionlocator.dataset.source import Labels, SourceScan, source_checksums
from lesionlocator.errors import Refused
from lesionlocator.formats.disk import whole
from lesionlocator.synth.chain import Chain

FILE = "recipe.jsonl"
RELEASED = "released"
VERSION = 1

_PACKAGED = {RELEASED: Path(__file__).parent / "recipes" / "released.jsonl.gz"}
_LIBRARIES = ("lesionlocator", "numpy", "scipy", "scikit-image", "SimpleITK", "nibabel")
_SHOWN = 5


@dataclass(frozen=True)
class RecipeSource:
    """A scan that items are made from. `files` are paths below the folder of the sources, with their SHA-256."""

    id: str
    collection: str
    licence: str
    patient: str
    visit: int
    modality: str | None
    complete: bool
    image: str
    labels: tuple[Mapping[str, Any], ...]
    files: Mapping[str, str]

    @staticmethod
    def of(scan: SourceScan, root: Path, licence: str) -> RecipeSource:
        """A scan in the folder `root`, with the checksums of its files as they are now."""
        return RecipeSource(
            scan.id,
            scan.collection,
            licence,
            scan.patient,
            scan.visit,
            scan.modality,
            scan.complete,
            _below(scan.image, root),
            tuple(_labels_to_json(labels, root) for labels in scan.labels),
            {_below(Path(path), root): digest for path, digest in source_checksums(scan).items()},
        )

    def scan(self, root: Path) -> SourceScan:
        """The scan in that folder."""
        labels = tuple(_labels_from_json(entry, root) for entry in self.labels)
        modality: Any = self.modality
        return SourceScan(
            self.id, root / self.image, self.patient, self.visit, labels, modality, self.collection, self.complete
        )

    def differing(self, root: Path) -> list[str]:
        """What is not as the recipe knows it: files that are missing or whose checksum is another."""
        found: list[str] = []
        scan = self.scan(root)
        gone = [name for name in self.files if not (root / name).exists()]
        if gone:
            return [f"{name} is missing" for name in gone]
        for path, digest in source_checksums(scan).items():
            if self.files.get(_below(Path(path), root)) != digest:
                found.append(f"{path} has another checksum")
        return found


@dataclass(frozen=True)
class Item:
    """A pair or a chain: its source, its seed and, once drawn, what was drawn; once made, what came of it.

    `draws` is the plan of the chain as JSON (None: to be drawn from the seed). `events` are the true events, one
    list for each visit after the first. `labels` is the `labels_checksum` of its label maps. These three can be had
    without making the scans. `files` are the SHA-256 of the scans and label maps as files, by their path in the data
    set, once it was made.
    """

    name: str
    source: str
    seed: int
    visits: int = 2
    draws: Mapping[str, Any] | None = None
    events: tuple[tuple[tuple[str, ...], ...], ...] = ()
    labels: str = ""
    files: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Recipe:
    """Sources and items; with what it was made, so that a reader knows whether the same bytes can be expected."""

    sources: Mapping[str, RecipeSource]
    items: tuple[Item, ...]
    title: str = ""
    made_with: Mapping[str, str] = field(default_factory=dict[str, str])
    shapes: str = ""
    """SHA-256 of the file of readers' outlines that lesions were drawn with, if there was one."""

    def only(self, items: Iterable[Item]) -> Recipe:
        """The part with these items and the sources that they need."""
        chosen = tuple(items)
        needed = {item.source for item in chosen}
        return replace(self, sources={k: v for k, v in self.sources.items() if k in needed}, items=chosen)

    def on(self, root: Path) -> Recipe:
        """The part whose sources are in this folder.

        Raises:
            Refused: None is there, or one that is there is not the file that the recipe means.
        """
        here = {name: source for name, source in self.sources.items() if (root / source.image).exists()}
        if not here:
            first = next(iter(self.sources.values()))
            raise Refused(
                found=f"none of the recipe's {len(self.sources)} sources in {root}",
                needed=f"the folder that holds, for instance, {first.image}",
                do="name that folder; where the sources come from stands in the recipe and in docs/sources.md",
            )
        wrong = [what for source in here.values() for what in source.differing(root)]
        if wrong:
            more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
            raise Refused(
                found=f"sources that are not those of the recipe: {'; '.join(wrong[:_SHOWN])}{more}",
                needed="the same files, byte for byte",
                do="get them again from where the recipe says, or draw a data set of your own from what you have",
            )
        return self.only(item for item in self.items if item.source in here)

    def drawn_at_random(self, count: int, seed: int) -> Recipe:
        """`count` items drawn at random, in the order of the recipe; all when there are no more."""
        if count >= len(self.items):
            return self
        chosen = np.random.default_rng(seed).choice(len(self.items), count, replace=False)
        return self.only(self.items[index] for index in sorted(chosen))

    @property
    def made_here(self) -> bool:
        """Whether it was made with the packages and the kind of processor that are here: then bytes must agree."""
        return dict(self.made_with) == versions()


def plan_items(sources: Sequence[RecipeSource], count: int, *, seed: int, visits: int = 2) -> tuple[Item, ...]:
    """Items over all sources in turn, in an order drawn from the seed. The first N are the same for any larger count.

    Every item has a seed of its own, so that it can be drawn and made without the others.
    """
    kind = "pair" if visits == 2 else "chain"
    order = np.random.default_rng(seed).permutation(len(sources))
    return tuple(
        Item(name, sources[int(order[index % len(order)])].id, item_seed(seed, name), visits)
        for index, name in ((index, f"{kind}_{index + 1:05d}") for index in range(count))
    )


def item_seed(seed: int, name: str) -> int:
    """A seed for this item alone."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:6])


def labels_checksum(chain: Chain) -> str:
    """SHA-256 of the label maps of all visits: their shapes and voxels, not how a file packs them."""
    found = hashlib.sha256()
    for scan in chain.scans:
        labels = scan.label_map(chain.labels)
        found.update(np.array(labels.shape, "<i8").tobytes())
        found.update(np.ascontiguousarray(labels, "<u2").tobytes())
    return found.hexdigest()


def versions() -> dict[str, str]:
    """The packages and the kind of processor on which bytes depend."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        **{name: metadata.version(name) for name in _LIBRARIES},
        "processor": platform.machine(),
        "system": platform.system(),
    }


def find_recipe(name: str) -> Path:
    """The file of a packaged recipe by its name, or a recipe file by its path.

    Raises:
        Refused: There is none.
    """
    path = _PACKAGED.get(name, Path(name))
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise Refused(
            found=f"no recipe {name!r}",
            needed=f"the path of a {FILE}, or {', '.join(_PACKAGED)}",
            do="check the name",
        )
    return path


def read_recipe(path: Path) -> Recipe:
    """A recipe from its lines of JSON, packed with gzip or not.

    Raises:
        Refused: It is no recipe of a version that is known, or names a source that it does not describe.
    """
    sources: dict[str, RecipeSource] = {}
    items: list[Item] = []
    head: dict[str, Any] = {}
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
        for number, line in enumerate(text.splitlines(), start=1):
            entry: dict[str, Any] = json.loads(line)
            kind = entry.pop("kind")
            if kind == "recipe":
                head = entry
            elif kind == "source":
                sources[entry["id"]] = _source(entry)
            elif kind == "item":
                items.append(_item(entry))
            else:
                raise ValueError(f"line {number} is a {kind}")
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise _bad(path, f"which cannot be read as one ({problem})") from problem
    if head.get("version") != VERSION:
        raise _bad(path, f"of version {head.get('version')!r}")
    if lost := [item.name for item in items if item.source not in sources]:
        raise _bad(path, f"which does not describe the sources of {', '.join(lost[:_SHOWN])}")
    title, shapes = (str(head.get(name, "")) for name in ("title", "shapes"))
    return Recipe(sources, tuple(items), title, head.get("made_with", {}), shapes)


def write_recipe(path: Path, recipe: Recipe) -> None:
    """One line for the recipe, one for each source, one for each item. Packed where the name ends in `.gz`."""
    head = {"kind": "recipe", "version": VERSION, "title": recipe.title, "made_with": dict(recipe.made_with)}
    lines = [
        {**head, "shapes": recipe.shapes} if recipe.shapes else head,
        *({"kind": "source", **_plain(source)} for source in recipe.sources.values()),
        *(
            {
                "kind": "item",
                **{name: value for name, value in _plain(item).items() if value not in (None, {}, [], (), "")},
            }
            for item in recipe.items
        ),
    ]
    data = "".join(json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n" for line in lines).encode()
    with whole(path) as beside:
        beside.write_bytes(gzip.compress(data, 9, mtime=0) if path.name.endswith(".gz") else data)


def _source(entry: Mapping[str, Any]) -> RecipeSource:
    fields: dict[str, Any] = {**entry, "labels": tuple(entry["labels"])}
    return RecipeSource(**fields)


def _item(entry: Mapping[str, Any]) -> Item:
    events = tuple(tuple(tuple(event) for event in visit) for visit in entry.get("events", ()))
    fields: dict[str, Any] = {**entry, "events": events}
    return Item(**fields)


def _plain(value: RecipeSource | Item) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _labels_to_json(labels: Labels, root: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": _below(labels.path, root)}
    if labels.lesions:
        entry["lesions"] = list(labels.lesions)
    if labels.organs:
        entry["organs"] = {name: label for label, name in labels.organs}
    if labels.split:
        entry["split"] = True
    if labels.at_least > 1:
        entry["at_least"] = labels.at_least
    return entry


def _labels_from_json(entry: Mapping[str, Any], root: Path) -> Labels:
    organs = tuple(sorted((int(label), name) for name, label in entry.get("organs", {}).items()))
    return Labels(
        root / entry["path"],
        tuple(entry.get("lesions", ())),
        organs,
        bool(entry.get("split", False)),
        int(entry.get("at_least", 1)),
    )


def _below(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        raise Refused(
            found=f"{path} outside {root}", needed="sources below one folder", do="name the folder that holds them all"
        ) from None


def _bad(path: Path, why: str) -> Refused:
    return Refused(
        found=f"a recipe {path}, {why}",
        needed=f"lines of JSON of version {VERSION}, as `lesionlocator synthesize` writes them",
        do="copy it again from where it came",
    )
