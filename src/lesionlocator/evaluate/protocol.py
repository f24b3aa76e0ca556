"""A protocol: a small file that says what is measured, on which data, from which prompts, by which methods."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from lesionlocator.errors import Refused
from lesionlocator.volume import Modality

PACKAGED = Path(__file__).parent / "protocols"
SETS = PACKAGED / "sets"
Task = Literal["outline", "correct", "follow"]
Source = Literal["folder", "public-scans"]


@dataclass(frozen=True)
class CaseFiles:
    """One case: its scans, oldest first, with the true label map of each. Paths are relative to the data's root."""

    data: str
    name: str
    patient: str
    kind: str
    organ: str
    modality: Modality
    visits: tuple[str, ...]
    truth: tuple[str, ...]
    at_least: int = 1
    split: bool = False
    links: tuple[tuple[int, str, int, str], ...] = ()


@dataclass(frozen=True)
class DataSet:
    """A table of cases from one source, with what must be said of it."""

    name: str
    about: str
    licence: str
    citation: str
    source: Source
    cases: tuple[CaseFiles, ...]


@dataclass(frozen=True)
class Protocol:
    """What is measured. `reference` is the method with which the others are compared."""

    name: str
    title: str
    task: Task
    seed: int
    methods: tuple[str, ...]
    prompts: tuple[str, ...]
    reference: str
    data: tuple[DataSet, ...]
    about: str = ""

    def fingerprint(self, **more: object) -> str:
        """Changes with everything that changes an answer, so that results of different runs are not mixed."""
        text = json.dumps([asdict(self), more], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def packaged_protocols() -> dict[str, Path]:
    """The protocols that come with the package, by name."""
    return {path.stem: path for path in sorted(PACKAGED.glob("*.toml"))}


def read_protocol(name: str) -> Protocol:
    """A packaged protocol by its name, or a protocol file by its path.

    Raises:
        Refused: There is none, or the file does not say what a protocol must.
    """
    path = packaged_protocols().get(name, Path(name))
    if not path.is_file():
        raise Refused(
            found=f"no protocol {name!r}",
            needed=f"one of {', '.join(packaged_protocols())}, or the path of a protocol file",
            do="check the name",
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise _bad(path, f"no TOML ({problem})") from problem
    return _protocol(content, path)


def _protocol(content: Mapping[str, Any], path: Path) -> Protocol:
    known = {f.name for f in fields(Protocol)} - {"name"} | {"version", "use"}
    if content.get("version") != 1:
        raise _bad(path, f"version {content.get('version')!r}")
    if unknown := sorted(set(content) - known):
        raise _bad(path, f"the unknown entries {', '.join(unknown)}")
    task = _text(content, "task", path)
    if task not in ("outline", "correct", "follow"):
        raise _bad(path, f"the task {task!r}")
    methods = _texts(content, "methods", path)
    reference = str(content.get("reference", methods[0]))
    if reference not in methods:
        raise _bad(path, f"the reference {reference!r}, which is not among the methods")
    used = [_packaged_set(name, path) for name in content.get("use", [])]
    own = _entries(content, "data", path) if "data" in content or not used else []
    data = (*used, *(_data_set(entry, path) for entry in own))
    _refuse_twice([case.name for one in data for case in one.cases], path)
    return Protocol(
        name=path.stem,
        title=_text(content, "title", path),
        task=task,
        seed=int(content.get("seed", 0)),
        methods=methods,
        prompts=_texts(content, "prompts", path),
        reference=reference,
        data=data,
        about=str(content.get("about", "")),
    )


def _packaged_set(name: str, path: Path) -> DataSet:
    file = SETS / f"{name}.toml"
    if not file.is_file():
        known = ", ".join(sorted(one.stem for one in SETS.glob("*.toml")))
        raise Refused(
            found=f"no data set {name!r} ({path.name})", needed=f"one of {known}, or [[data]]", do="mend `use`"
        )
    return _data_set(tomllib.loads(file.read_text(encoding="utf-8")), file)


def _data_set(entry: Mapping[str, Any], path: Path) -> DataSet:
    source = entry.get("source", "folder")
    if source not in ("folder", "public-scans"):
        raise _bad(path, f"the source {source!r}")
    cases = [case for scan in _entries(entry, "scans", path) for case in _cases(entry, scan, path)]
    return DataSet(
        name=_text(entry, "name", path),
        about=_text(entry, "about", path),
        licence=_text(entry, "licence", path),
        citation=_text(entry, "citation", path),
        source=source,
        cases=tuple(cases),
    )


def _cases(entry: Mapping[str, Any], scan: Mapping[str, Any], path: Path) -> Iterator[CaseFiles]:
    """One case for each patient; `{patient}` in a path is that patient's name."""
    data = _text(entry, "name", path)
    modality = _text(scan, "modality", path)
    if modality not in ("CT", "MR", "PT"):
        raise _bad(path, f"the modality {modality!r}")
    visits, truth = _texts(scan, "visits", path), _texts(scan, "truth", path)
    if len(visits) != len(truth):
        raise _bad(path, f"{len(visits)} visits and {len(truth)} truths in {data}")
    for patient in _texts(scan if "patients" in scan else entry, "patients", path):
        label = str(scan.get("name", ""))
        yield CaseFiles(
            data=data,
            name=f"{data}/{patient}" + f" {label}" * bool(label),
            patient=patient,
            kind=str(scan.get("kind", entry.get("kind", data))),
            organ=str(scan.get("organ", entry.get("organ", ""))),
            modality=modality,
            visits=tuple(visit.replace("{patient}", patient) for visit in visits),
            truth=tuple(one.replace("{patient}", patient) for one in truth),
            at_least=int(scan.get("at_least", 1)),
            split=bool(scan.get("split", False)),
            links=_links(scan.get("links", []), path),
        )


def _links(value: object, path: Path) -> tuple[tuple[int, str, int, str], ...]:
    """Links that ids alone do not say: [from visit, lesion, to visit, lesion there or "outside"]."""
    try:
        entries = [(int(a), str(b), int(c), str(d)) for a, b, c, d in cast("list[list[Any]]", value)]
    except (TypeError, ValueError):
        raise _bad(path, f"the links {value!r}") from None
    return tuple(entries)


def _entries(content: Mapping[str, Any], name: str, path: Path) -> list[Mapping[str, Any]]:
    found = content.get(name)
    if not isinstance(found, list) or not found:
        raise _bad(path, f"no [[{name}]]")
    entries = cast("list[object]", found)
    if not all(isinstance(entry, dict) for entry in entries):
        raise _bad(path, f"{name}, which is no list of tables")
    return cast("list[Mapping[str, Any]]", entries)


def _text(content: Mapping[str, Any], name: str, path: Path) -> str:
    value = content.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _bad(path, f"no text for `{name}`")
    return " ".join(value.split())


def _texts(content: Mapping[str, Any], name: str, path: Path) -> tuple[str, ...]:
    value = content.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in cast("list[object]", value)):
        raise _bad(path, f"no list of words for `{name}`")
    return tuple(cast("list[str]", value))


def _refuse_twice(names: list[str], path: Path) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _bad(path, f"cases twice ({', '.join(twice)})")


def _bad(path: Path, found: str) -> Refused:
    return Refused(
        found=f"{found} in {path.name}",
        needed="a protocol of version 1: title, task (outline, correct or follow), methods, prompts, and `use` or "
        "[[data]] with name, about, licence, citation, patients and [[data.scans]]",
        do="mend it, with one of the packaged protocols as an example",
    )
