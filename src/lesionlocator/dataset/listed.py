"""Collections that a list names file by file: those of the released recipe, and where anybody gets them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lesionlocator.dataset.source import Labels, SourceScan, safe_name

LIST = Path(__file__).with_name("sources.toml")


@dataclass(frozen=True)
class Collection:
    """A published collection: what must be said of it, and how many items the released recipe draws from each scan."""

    id: str
    title: str
    doi: str
    licence: str
    citation: str
    where: str
    registration: str
    reader: str
    files: str
    prepared: str
    pairs: int
    chains: int
    scans: tuple[Mapping[str, Any], ...]

    def find(self, folder: Path) -> Iterator[SourceScan]:
        """Its scans that are in the folder, whether all are or only some."""
        for entry in self.scans:
            for patient in entry["patients"]:
                if (folder / _named(entry["image"], patient)).is_file():
                    yield self._scan(folder, entry, patient)

    def _scan(self, folder: Path, entry: Mapping[str, Any], patient: str) -> SourceScan:
        return SourceScan(
            id=safe_name(self.id, patient if patient != self.id else "", entry.get("name", "")),
            image=folder / _named(entry["image"], patient),
            patient=safe_name(self.id, patient if patient != self.id else ""),
            visit=int(entry.get("visit", 0)),
            labels=tuple(_labels(folder, labels, patient) for labels in entry.get("labels", ())),
            modality=entry["modality"],
            collection=self.id,
            complete=bool(entry["complete"]),
        )


@dataclass(frozen=True)
class Addition:
    """A public collection that a user can add."""

    title: str
    doi: str
    licence: str
    where: str
    registration: str
    reader: str


@cache
def collections() -> dict[str, Collection]:
    """The collections of the list, by id."""
    content = tomllib.loads(LIST.read_text(encoding="utf-8"))
    return {entry["id"]: _collection(entry) for entry in content["collection"]}


def additions() -> tuple[Addition, ...]:
    """Public collections that the released recipe does not use."""
    return tuple(Addition(**entry) for entry in tomllib.loads(LIST.read_text(encoding="utf-8"))["addition"])


def has_listed(folder: Path) -> bool:
    """Whether one scan of the list or more is in the folder."""
    return next(find_listed(folder), None) is not None


def find_listed(folder: Path) -> Iterator[SourceScan]:
    """The scans of the list that are in the folder."""
    for collection in collections().values():
        yield from collection.find(folder)


def _collection(entry: Mapping[str, Any]) -> Collection:
    shared = {"patients": entry.get("patients"), "complete": entry.get("complete", True)}
    scans = tuple({**shared, **scan} for scan in entry["scan"])
    known = {name: entry[name] for name in Collection.__dataclass_fields__ if name in entry}
    fields: dict[str, Any] = {"prepared": "", **known, "scans": scans}
    return Collection(**fields)


def _labels(folder: Path, entry: Mapping[str, Any], patient: str) -> Labels:
    organs = tuple(sorted((int(label), name) for name, label in entry.get("organs", {}).items()))
    path = folder / _named(entry["path"], patient)
    return Labels(path, (), organs, bool(entry.get("split", False)), int(entry.get("at_least", 1)))


def _named(pattern: str, patient: str) -> str:
    return pattern.replace("{patient}", patient)
