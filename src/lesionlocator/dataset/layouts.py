"""Layouts in which collections of scans lie on disk: each is a function that finds its scans, and a row of a table."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lesionlocator.dataset.listed import find_listed, has_listed
from lesionlocator.dataset.source import Labels, SourceScan, safe_name
from lesionlocator.errors import Refused
from lesionlocator.formats import scan_stem
from lesionlocator.volume import Modality

BASELINE, FOLLOWUP = "Baseline", "Synthetic_Follow_Up"
"""Folders of the visits in the published data set and in ours; later ones are numbered from 2."""

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_LONGITUDINAL = re.compile(r"(?P<patient>(?:(?!_(?:BL|FU)_).)+)_(?P<time>BL|FU)_img(?:_(?:BL|FU)_img)?_(?P<part>\d+)")
_LESION_WORDS = re.compile(
    r"tumou?r|cancer|lesion|metasta|nodule|neoplas|carcinoma|sarcoma|lymphoma|gtv|oedema|edema|\bmass\b|\bcyst", re.I
)
_MODALITIES: dict[str, Modality] = {"ct": "CT", "pet": "PT", "pt": "PT", "suv": "PT"}
_OWN_WORDS: dict[str, Modality] = {"ct": "CT", "mr": "MR", "pt": "PT"}


@dataclass(frozen=True)
class Reading:
    """What a user says about a folder: modality, which labels are lesions, whether parts are lesions of their own."""

    modality: Modality | None = None
    lesion_labels: tuple[int, ...] = ()
    split: bool = False


@dataclass(frozen=True)
class Layout:
    """A way in which scans lie in a folder. `seen` says whether it was ever tried on a folder of its publisher."""

    name: str
    about: str
    looks_like: Callable[[Path], bool]
    find: Callable[[Path, Reading], Iterable[SourceScan]]
    seen: bool


def find_sources(folder: Path, reading: Reading | None = None, layout: str | None = None) -> tuple[SourceScan, ...]:
    """The scans in a folder, in the order of their ids, by the layout named or by the one that it looks like.

    Raises:
        Refused: No such folder or layout, no layout that fits, or no scan in it.
    """
    if not folder.is_dir():
        raise Refused(found=f"no folder {folder}", needed="a folder with scans", do="check the path")
    chosen = _chosen(folder, layout)
    scans = sorted(chosen.find(folder, reading or Reading()), key=lambda scan: scan.id)
    if not scans:
        raise Refused(
            found=f"no scan in {folder} (read as {chosen.name}: {chosen.about})",
            needed="one scan or more",
            do="check the folder, or name another layout with --layout",
        )
    ids = [scan.id for scan in scans]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise Refused(
            found=f"scans of one name in {folder}: {', '.join(twice)}", needed="a name for each", do="rename them"
        )
    return tuple(scans)


def _chosen(folder: Path, layout: str | None) -> Layout:
    if layout is not None:
        if layout not in LAYOUTS:
            raise Refused(found=f"layout {layout!r}", needed=f"one of {', '.join(LAYOUTS)}", do="check its name")
        return LAYOUTS[layout]
    for known in LAYOUTS.values():
        if known.looks_like(folder):
            return known
    kinds = "; ".join(f"{known.name} ({known.about})" for known in LAYOUTS.values())
    raise Refused(
        found=f"{folder}, which looks like no layout that is known",
        needed=f"one of these: {kinds}",
        do="put the scans into a folder `images` there, and label maps of the same names into `labels`",
    )


def _is_plain(folder: Path) -> bool:
    return (folder / "images").is_dir()


def _plain(folder: Path, reading: Reading) -> Iterator[SourceScan]:
    labels = _by_stem(folder / "labels")
    for stem, image in _by_stem(folder / "images").items():
        own = (Labels(labels[stem], reading.lesion_labels, (), reading.split),) if stem in labels else ()
        name = safe_name(stem)
        yield SourceScan(name, image, name, 0, own, reading.modality)


def _is_published(folder: Path) -> bool:
    return (folder / BASELINE / "images").is_dir() and (folder / FOLLOWUP / "images").is_dir()


def _published(folder: Path, reading: Reading) -> Iterator[SourceScan]:
    """Every visit of every pair; its label maps hold one id for each lesion, the same at every visit."""
    followups = [path for path in folder.glob(f"{FOLLOWUP}*") if re.fullmatch(rf"{FOLLOWUP}(_\d+)?", path.name)]
    visits = [folder / BASELINE, *sorted(followups, key=lambda path: (len(path.name), path.name))]
    modalities = _own_modalities(folder)
    for number, visit in enumerate(visits):
        labels = _without_channel(_by_stem(visit / "labels"))
        for case, image in _without_channel(_by_stem(visit / "images")).items():
            own = (Labels(labels[case], reading.lesion_labels, (), reading.split),) if case in labels else ()
            modality = reading.modality or modalities.get(case, "CT")
            yield SourceScan(safe_name(case, f"visit{number}"), image, safe_name(case), number, own, modality)


def _own_modalities(folder: Path) -> dict[str, Modality | None]:
    """What our own table of origins says of each item (empty: to be guessed); the published set holds CT alone."""
    if not (folder / "recipe.jsonl").is_file() or not (folder / "naming.csv").is_file():
        return {}
    with (folder / "naming.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["name"], row["modality"].lower()) for row in csv.DictReader(file)]
    return {name: _OWN_WORDS.get(word) for name, word in rows}


def _is_nnunet(folder: Path) -> bool:
    images = folder / "imagesTr"
    return (folder / "dataset.json").is_file() and any(_CHANNEL.fullmatch(stem) for stem in _by_stem(images))


def _nnunet(folder: Path, reading: Reading) -> Iterator[SourceScan]:
    """Every channel of every case is a scan; `patientsTr.json` says whose it is and in which order."""
    about = _json(folder / "dataset.json")
    channels = about.get("channel_names") or about.get("modality") or {}
    # With LongiSeg's tracking file a label is the id of a lesion, the same at every visit.
    instances = (folder / "trackingTr.json").is_file()
    named = _named_labels(about.get("labels") or {})
    labels = _by_stem(folder / "labelsTr")
    patients = _patients(folder / "patientsTr.json")
    several = len(channels) > 1
    for stem, image in _by_stem(folder / "imagesTr").items():
        found = _CHANNEL.fullmatch(stem)
        if found is None:
            continue
        case, channel = found["case"], found["channel"]
        patient, visit = patients.get(case, (case, 0))
        own: tuple[Labels, ...] = ()
        if case in labels:
            path = labels[case]
            ids = Labels(path, reading.lesion_labels, (), reading.split)
            own = (ids if instances else _semantic(path, named, reading),)
        modality = reading.modality or _modality(str(channels.get(str(int(channel)), "")))
        name = safe_name(case, channel if several else "")
        yield SourceScan(name, image, safe_name(patient), visit, own, modality)


def _patients(path: Path) -> dict[str, tuple[str, int]]:
    """Scan -> (patient, number of the visit)."""
    if not path.is_file():
        return {}
    content = _json(path)
    if not all(isinstance(scans, list) for scans in content.values()):
        raise Refused(
            found=f"{path}, which does not list the scans of each patient",
            needed='{"patient": ["first scan", "second scan", ...], ...}',
            do="write it as LongiSeg describes it",
        )
    return {str(scan): (patient, visit) for patient, scans in content.items() for visit, scan in enumerate(scans)}


def _is_autopet(folder: Path) -> bool:
    if (folder / "inputsTrBL").is_dir():
        return True
    return any(_LONGITUDINAL.fullmatch(stem) for stem in _by_stem(folder / "inputsTr"))


def _autopet(folder: Path, reading: Reading) -> Iterator[SourceScan]:
    """Every part of the body at both visits; labels are ids of lesions."""
    second = (folder / "inputsTrBL").is_dir()
    for patient, time, part, image, mask in _autopet_two(folder) if second else _autopet_one(folder):
        labels = (Labels(mask, reading.lesion_labels, (), reading.split),) if mask is not None else ()
        name = safe_name(patient, time, part)
        yield SourceScan(name, image, safe_name(patient), int(time == "FU"), labels, reading.modality or "CT")


Found = tuple[str, str, str, Path, Path | None]


def _autopet_one(folder: Path) -> Iterator[Found]:
    """Version 1: all baseline files and the follow-up's scan in `inputsTr`, the follow-up's mask in `targetsTr`."""
    masks = {**_by_stem(folder / "inputsTr"), **_by_stem(folder / "targetsTr")}
    for stem, image in _by_stem(folder / "inputsTr").items():
        if found := _LONGITUDINAL.fullmatch(stem):
            own = masks.get(stem.replace(f"_{found['time']}_img", f"_{found['time']}_mask", 1))
            yield found["patient"], found["time"], found["part"], image, own


def _autopet_two(folder: Path) -> Iterator[Found]:
    """Version 2: a folder for each visit and kind of file, names PATIENT_PART."""
    for time in ("BL", "FU"):
        masks = _by_stem(folder / f"targetsTr{time}")
        for stem, image in _by_stem(folder / f"inputsTr{time}").items():
            patient, _, part = stem.rpartition("_")
            yield patient or stem, time, part if patient else "00", image, masks.get(stem)


def _is_decathlon(folder: Path) -> bool:
    path = folder / "dataset.json"
    return path.is_file() and isinstance(_json(path).get("training"), list) and not _is_nnunet(folder)


def _decathlon(folder: Path, reading: Reading) -> Iterator[SourceScan]:
    about = _json(folder / "dataset.json")
    channels = about.get("modality") or {}
    if len(channels) > 1:
        raise Refused(
            found=f"{folder.name}, whose files hold {len(channels)} kinds of image each ({_words(channels.values())})",
            needed="one image in a file",
            do="write the kind that you mean into files of its own, in the plain layout",
        )
    named = _named_labels(about.get("labels") or {})
    modality = reading.modality or _modality(str(next(iter(channels.values()), "")))
    for entry in about["training"]:
        image = folder / str(entry["image"])
        name = safe_name(scan_stem(image))
        yield SourceScan(name, image, name, 0, (_semantic(folder / str(entry["label"]), named, reading),), modality)
    for image in _by_stem(folder / "imagesTs").values():
        # The truth of the test scans is not published: there may be lesions in them.
        name = safe_name(scan_stem(image))
        yield SourceScan(name, image, name, 0, (), modality, complete=False)


def _semantic(path: Path, named: Mapping[str, tuple[int, ...]], reading: Reading) -> Labels:
    """Labels that are kinds of tissue: those named like lesions are lesions, part by part; the others are organs."""
    words = {name: labels for name, labels in named.items() if _LESION_WORDS.search(name)}
    if not words and len(named) == 1:
        words = dict(named)
    chosen = reading.lesion_labels or tuple(sorted({label for labels in words.values() for label in labels}))
    if not chosen:
        raise Refused(
            found=f"the labels {_words(named)}, none of them named like a lesion",
            needed="which of them are lesions",
            do="give their numbers with --lesion-labels",
        )
    organs = [(labels[0], name) for name, labels in named.items() if len(labels) == 1 and labels[0] not in chosen]
    return Labels(path, chosen, tuple(sorted(organs)), split=True)


def _named_labels(labels: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> numbers, from either way round in which `dataset.json` says it; the background is left out."""
    found: dict[str, tuple[int, ...]] = {}
    for key, value in labels.items():
        name, number = (value, key) if str(key).isdecimal() and isinstance(value, str) else (key, value)
        numbers = tuple(int(n) for n in cast("list[Any]", number if isinstance(number, list) else [number]))
        if name not in ("background", "ignore") and numbers != (0,):
            found[str(name).lower()] = numbers
    return found


def _modality(channel: str) -> Modality | None:
    words = re.split(r"[^a-z]+", channel.lower())
    for word in words:
        if word in _MODALITIES:
            return _MODALITIES[word]
    return "MR" if channel else None


def _without_channel(files: Mapping[str, Path]) -> dict[str, Path]:
    return {(found["case"] if (found := _CHANNEL.fullmatch(stem)) else stem): path for stem, path in files.items()}


def _by_stem(folder: Path) -> dict[str, Path]:
    """The scans of a folder by their names without ending; none where there is no such folder."""
    if not folder.is_dir():
        return {}
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return {scan_stem(path): path for path in entries if path.is_dir() or path.name.lower().endswith(_ENDINGS)}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise Refused(found=f"{path}, which is no JSON ({problem})", needed="JSON", do="mend it") from problem
    if not isinstance(content, dict):
        raise Refused(found=f"{path}, which is no JSON object", needed="one", do="mend it")
    return cast("dict[str, Any]", content)


def _words(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            "plain",
            "a folder `images`, and `labels` with files of the same names if there are any",
            _is_plain,
            _plain,
            seen=True,
        ),
        Layout(
            "listed",
            "the files that the packaged list of sources names",
            has_listed,
            lambda folder, _: find_listed(folder),
            seen=True,
        ),
        Layout(
            "lesionlocator",
            f"{BASELINE} and {FOLLOWUP}, each with `images` and `labels`",
            _is_published,
            _published,
            seen=False,
        ),
        Layout(
            "autopet-iv",
            "`inputsTr` and `targetsTr` with BL and FU in the names, or `inputsTrBL`, ...",
            _is_autopet,
            _autopet,
            seen=False,
        ),
        Layout(
            "nnunet",
            "`imagesTr` with CASE_0000 files, `labelsTr`, `dataset.json`, and LongiSeg's "
            "`patientsTr.json` if it is there",
            _is_nnunet,
            _nnunet,
            seen=False,
        ),
        Layout(
            "decathlon",
            "`imagesTr`, `labelsTr` and a `dataset.json` that lists the training scans",
            _is_decathlon,
            _decathlon,
            seen=False,
        ),
    )
}
"""Name -> layout, in the order in which a folder is compared with them. A new one is a function and a row."""
