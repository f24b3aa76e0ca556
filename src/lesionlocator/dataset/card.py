"""What a made data set says about itself: a table of origins, a page to read, and metadata that machines read."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionlocator.dataset.layouts import BASELINE, FOLLOWUP
from lesionlocator.dataset.listed import collections
from lesionlocator.dataset.readers import CREDIT, LICENCE
from lesionlocator.dataset.recipe import FILE, Item, Recipe
from lesionlocator.formats import checksum
from lesionlocator.report import table, write_text

NAMING, README, CROISSANT, PICTURES, TRUTH = "naming.csv", "README.md", "croissant.json", "pictures", "truth"
_COLUMNS = (
    "name", "visits", "source", "collection", "patient", "source_visit", "modality", "complete", "licence", "seed",
)  # fmt: skip
# Croissant is written here and not by `mlcroissant`, which brings pandas, rdflib and nine more packages for one file.
# What is written passes its `validate` (tests/test_synthesize.py, where it is installed).
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


@dataclass(frozen=True)
class Cost:
    """What making the items took."""

    seconds: tuple[float, ...]
    bytes: int

    @property
    def text(self) -> str:
        """One line for a person."""
        if not self.seconds:
            return "nothing was made"
        each = sorted(self.seconds)
        middle, last = each[len(each) // 2], each[-1]
        size = self.bytes / len(each) / 1e6
        return f"{len(each)} made: {middle:.1f} s each (median; longest {last:.1f} s), {size:.1f} MB each"


def visit_folder(visit: int) -> str:
    """The folder of a visit: the baseline is 0."""
    return BASELINE if visit == 0 else FOLLOWUP if visit == 1 else f"{FOLLOWUP}_{visit}"


def write_cards(out: Path, recipe: Recipe, command: str, cost: Cost) -> None:
    """The table of origins, the page and the metadata of a data set whose recipe is written."""
    write_text(out / NAMING, table(_COLUMNS, (_origin(item, recipe) for item in recipe.items)))
    write_text(out / README, _page(recipe, command, cost))
    write_text(out / CROISSANT, json.dumps(croissant(out, recipe), indent=1) + "\n")


def _origin(item: Item, recipe: Recipe) -> dict[str, Any]:
    source = recipe.sources[item.source]
    return {
        "name": item.name,
        "visits": item.visits,
        "source": source.id,
        "collection": source.collection,
        "patient": source.patient,
        "source_visit": source.visit,
        "modality": source.modality or "",
        "complete": "yes" if source.complete else "no",
        "licence": source.licence,
        "seed": item.seed,
    }


def _page(recipe: Recipe, command: str, cost: Cost) -> str:
    kinds = Counter(item.visits for item in recipe.items)
    counted = ", ".join(f"{number} of {visits} visits" for visits, number in sorted(kinds.items()))
    events = Counter(event[0] for item in recipe.items for visit in item.events for event in visit)
    visits = max(kinds, default=1)
    folders = "\n".join(f"- `{visit_folder(n)}/images`, `{visit_folder(n)}/labels`" for n in range(visits))
    version = recipe.made_with.get("lesionlocator", "?")
    return f"""# {recipe.title}

Synthetic follow-ups: every item begins with one real scan; its later visits, and in part its baseline, were changed in
ways that were drawn and are known. Made with lesionlocator {version} by

    {command}

Research data, not patients' histories: nobody's disease ran like this.

{len(recipe.items)} items ({counted}) from {len(recipe.sources)} scans. {cost.text[:1].upper()}{cost.text[1:]}.

## What is where

{folders}
- `{NAMING}`: the source, patient, modality and licence of every item. Split by `patient`, never by item.
- `{FILE}`: sources with checksums, seed and draws. With the sources it remakes everything here:
  `lesionlocator synthesize SOURCES OUT --recipe {FILE}`
- `{TRUTH}/NAME/`: `links.csv` and `lesions.csv` (as `lesionlocator track` writes them), `draws.json` (all that was
  drawn), `maps/` (where every point of a visit went, and back), `run.json` (checksums, times). `{TRUTH}/links.csv` and
  `{TRUTH}/lesions.csv` join those of all items.
- `{CROISSANT}`: the same for machines. `{PICTURES}/`: a few items, looked at.

A label is a lesion's id and the same lesion at every visit. Voxels of a merged lesion have the id that it goes on
with; the links say which others it took in. Where `complete` is `no`, the source may hold lesions that nobody outlined.

## What happened

{_counted(events)}

## Sources

{_sources(recipe)}
"""


def _counted(events: Counter[str]) -> str:
    return "\n".join(f"- {name}: {number}" for name, number in events.most_common()) or "(no events)"


def _sources(recipe: Recipe) -> str:
    scans = Counter((source.collection, source.licence) for source in recipe.sources.values())
    lines: list[str] = []
    for (name, licence), number in sorted(scans.items()):
        known = collections().get(name)
        if known is None:
            lines.append(f"- {name or 'your own scans'}: {number} scans, {licence or 'licence not stated'}")
        else:
            doi = f", doi:{known.doi}" if known.doi else ""
            lines.append(f"- {known.title}: {number} scans, {known.licence}{doi}. {known.citation} {known.where}")
    if recipe.shapes:
        lines.append(f"- Shapes of half of the lesions that appeared: {CREDIT}")
    return "\n".join(lines)


def croissant(out: Path, recipe: Recipe) -> dict[str, Any]:
    """The data set in the Croissant vocabulary of MLCommons, version 1.0 (doi 10.1145/3650203.3663326)."""
    visits = max((item.visits for item in recipe.items), default=1)
    licences = {source.licence for source in recipe.sources.values() if source.licence}
    licences |= {LICENCE} if recipe.shapes else set()
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": recipe.title,
        "description": "Synthetic follow-ups of single scans, with the truth of every change.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "license": sorted(licences) or ["see the sources"],
        "citeAs": " ".join(_citations(recipe)),
        "datePublished": time.strftime("%Y-%m-%d"),
        "version": "1.0.0",
        "url": ".",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "folder",
                "name": "folder",
                "contentUrl": ".",
                "encodingFormat": "local_directory",
                "sha256": "none",
            },
            _table_file(out, NAMING, "text/csv"),
            _table_file(out, FILE, "application/jsonlines"),
            *(_files(visit, kind) for visit in range(visits) for kind in ("images", "labels")),
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "items",
                "name": "items",
                "key": {"@id": "items/name"},
                "field": [_column(column) for column in _COLUMNS],
            }
        ],
    }


def _citations(recipe: Recipe) -> Iterable[str]:
    for name in sorted({source.collection for source in recipe.sources.values()}):
        if known := collections().get(name):
            yield known.citation
    if recipe.shapes:
        yield CREDIT


def _table_file(out: Path, name: str, encoding: str) -> Mapping[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "encodingFormat": encoding,
        "sha256": checksum(out / name),
    }


def _files(visit: int, kind: str) -> Mapping[str, Any]:
    folder = visit_folder(visit)
    return {
        "@type": "cr:FileSet",
        "@id": f"{folder}-{kind}",
        "name": f"{folder}-{kind}",
        "containedIn": {"@id": "folder"},
        "encodingFormat": "application/gzip",
        "includes": f"{folder}/{kind}/*.nii.gz",
    }


def _column(name: str) -> Mapping[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"items/{name}",
        "name": name,
        "dataType": "sc:Integer" if name in ("visits", "source_visit", "seed") else "sc:Text",
        "source": {"fileObject": {"@id": NAMING}, "extract": {"column": name}},
    }


def shown(items: Sequence[Item], most: int) -> tuple[Item, ...]:
    """Items to be pictured: one of each source in turn, from the first."""
    first = {item.source: item for item in reversed(items)}
    rest = [item for item in items if item not in first.values()]
    return (*sorted(first.values(), key=items.index), *rest)[:most]
