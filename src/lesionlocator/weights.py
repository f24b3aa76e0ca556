"""What a model is, said on a card: its kind, licence, limits and checksums, and the table of models."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from lesionlocator.errors import Refused

CARD_FILE = "model.json"
CARD_VERSION = 1
EMBEDDED = Path(__file__).parent / "models"
PUBLISHED_PARTS = ("LesionLocatorSeg/bbox_optimized", "LesionLocatorSeg/point_optimized", "LesionLocatorTrack")

Setting = float | int | str | bool

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ModelCard:
    """Everything that one has to know of a model before running it.

    `kind` names the code that runs it (`segment.KINDS`). `prompts` and `modalities` are what it was made for.
    `settings` belong to the kind. `files` are the model's own files, relative to its folder, with their SHA-256; none
    for a classical method.
    """

    id: str
    kind: str
    title: str
    licence: str
    intended_use: str
    limits: str
    citation: str = ""
    prompts: tuple[str, ...] = ("click", "box", "line", "mask")
    modalities: tuple[str, ...] = ("CT", "MR", "PT")
    settings: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    files: Mapping[str, str] = field(default_factory=dict[str, str])

    def to_json(self) -> dict[str, Any]:
        """The card as it is written to `model.json`."""
        return {
            "version": CARD_VERSION,
            "id": self.id,
            "kind": self.kind,
            "title": self.title,
            "licence": self.licence,
            "intended_use": self.intended_use,
            "limits": self.limits,
            "citation": self.citation,
            "prompts": list(self.prompts),
            "modalities": list(self.modalities),
            "settings": dict(self.settings),
            "files": dict(self.files),
        }

    @staticmethod
    def from_json(value: object, where: str = "a model card") -> ModelCard:
        """A card from the content of `model.json`; refused when something is missing or of the wrong type."""
        if not isinstance(value, dict):
            raise _bad_card(where, "no JSON object")
        entries = cast("dict[str, Any]", value)
        if entries.get("version") != CARD_VERSION:
            raise _bad_card(where, f"version {entries.get('version')!r}")
        texts: dict[str, Any] = {name: _text(entries, name, where) for name in _TEXTS}
        known = {*_TEXTS, "version", "citation", "prompts", "modalities", "settings", "files"}
        if unknown := sorted(set(entries) - known):
            raise _bad_card(where, f"the unknown entries {', '.join(unknown)}")
        lists: dict[str, Any] = {
            name: _texts(entries[name], name, where) for name in ("prompts", "modalities") if name in entries
        }
        maps: dict[str, Any] = {
            name: _mapping(entries[name], name, where) for name in ("settings", "files") if name in entries
        }
        _check_settings(maps.get("settings", {}), where)
        _check_files(maps.get("files", {}), where)
        if not _NAME.fullmatch(texts["id"]):
            raise _bad_card(where, f"the id {texts['id']!r}")
        citation = entries.get("citation", "")
        if not isinstance(citation, str):
            raise _bad_card(where, f"no text for `citation` ({citation!r})")
        return ModelCard(**texts, citation=citation, **lists, **maps)


_TEXTS = ("id", "kind", "title", "licence", "intended_use", "limits")


def models_folder() -> Path:
    """Where imported models of this user are kept. The folder need not exist yet."""
    from platformdirs import user_data_path

    return user_data_path("lesionlocator", appauthor=False) / "models"


def embedded_folder(name: str) -> Path:
    """Where the files of an embedded network are: in the package itself."""
    return EMBEDDED / name


def read_card(folder: Path) -> ModelCard:
    """The card of a model folder."""
    file = folder / CARD_FILE
    try:
        return ModelCard.from_json(json.loads(file.read_text(encoding="utf-8")), str(file))
    except FileNotFoundError:
        raise Refused(
            found=f"no {CARD_FILE} in {folder}",
            needed="a model folder, which has its card in that file",
            do="give the folder that holds the card, or the name of a model (`lesionlocator models list`)",
        ) from None
    except (OSError, ValueError) as error:
        raise _bad_card(str(file), f"a file that cannot be read as JSON ({error})") from error


def verify(card: ModelCard, folder: Path) -> list[str]:
    """What is wrong with a model's files, one sentence each; empty when every checksum is right."""
    from lesionlocator.formats import checksum

    problems: list[str] = []
    for name, expected in card.files.items():
        file = folder / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif (actual := checksum(file)) != expected.lower():
            problems.append(f"{name} has the SHA-256 {actual}, the card says {expected}")
    return problems


def import_model(folder: Path, name: str | None = None, into: Path | None = None) -> Path:
    """Copies a model folder into the user's models (or `into`), under its id or another name; gives the new folder.

    Only the card and the files on it are copied. All or nothing: the new folder appears by one rename, after the
    checksums of the copies were found right. Refused when there is a model of that name already.
    """
    if is_published(folder):
        raise Refused(found=f"{folder}, which has to be converted", needed="a name for it", do="use `models import`")
    card = read_card(folder)
    name = card.id if name is None else name
    into = models_folder() if into is None else into
    check_free(name, into)
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=into) as scratch:
        part = Path(scratch) / name
        part.mkdir()
        for file in (CARD_FILE, *card.files):
            (part / file).parent.mkdir(parents=True, exist_ok=True)
            if (folder / file).is_file():
                shutil.copyfile(folder / file, part / file)
        refuse_if_damaged(card, part, shown_as=folder)
        part.rename(into / name)
    return into / name


def find_model(name: str, within: Path | None = None) -> tuple[ModelCard, Path | None]:
    """A model by name, or by the path of its folder: its card, and its folder unless it is embedded.

    Embedded models come first, then the user's imported ones (`within`), then folders. Never another model than the one
    that was named.
    """
    if name in MODELS:
        return MODELS[name], None
    within = models_folder() if within is None else within
    if _NAME.fullmatch(name) and (within / name / CARD_FILE).is_file():
        return read_card(within / name), within / name
    if is_published(Path(name)):
        return published_card(Path(name)), Path(name)
    if Path(name).is_dir():
        return read_card(Path(name)), Path(name)
    raise Refused(
        found=f"no model named {name!r}",
        needed=f"one of {', '.join(list_models(within))}, or a folder with a {CARD_FILE} or a published checkpoint",
        do="check the name with `lesionlocator models list`",
    )


def is_published(folder: Path) -> bool:
    """Whether a folder has the layout of the published LesionLocator checkpoints, and no card of its own."""
    return not (folder / CARD_FILE).exists() and any(
        next(folder.glob(f"{part}/plans.json"), None) for part in PUBLISHED_PARTS
    )


def published_card(folder: Path, name: str | None = None, files: Mapping[str, str] | None = None) -> ModelCard:
    """The card of a published checkpoint folder, which brings none; `files` are those of a converted one."""
    tracks = (folder / "LesionLocatorTrack").is_dir()
    return ModelCard(
        id=name
        or re.sub(r"[^A-Za-z0-9._-]|^[^A-Za-z0-9]+", "-", folder.resolve().name).strip("-._")[:64]
        or "published",
        kind="published",
        title="LesionLocator as published: a promptable U-Net" + (" and a tracker" if tracks else ""),
        licence="not stated with the checkpoint; its training data are CC BY-NC-SA 4.0",
        intended_use="Research. Outlines of lesions in CT from boxes or clicks, followed through later CT scans.",
        limits="Not a medical device. CT only. No confidence; splits, merges and new lesions are not told.",
        citation="Rokuss et al., LesionLocator, CVPR 2025, arXiv 2502.20985",
        modalities=("CT",),
        files=files or {},
    )


def list_models(within: Path | None = None) -> dict[str, ModelCard]:
    """Every model that can be named: the embedded ones, then the user's imported ones (`within`).

    Imported ones whose card cannot be read are left out here and are in `damaged_models`.
    """
    return MODELS | {name: card for name, card in _imported(within).items() if isinstance(card, ModelCard)}


def damaged_models(within: Path | None = None) -> dict[str, str]:
    """The user's imported models whose card cannot be read, each with the reason."""
    return {name: card.found for name, card in _imported(within).items() if isinstance(card, Refused)}


def _imported(within: Path | None) -> dict[str, ModelCard | Refused]:
    within = models_folder() if within is None else within
    folders = [file.parent for file in sorted(within.glob(f"*/{CARD_FILE}"))] if within.is_dir() else []
    return {folder.name: _card_or_reason(folder) for folder in folders if _NAME.fullmatch(folder.name)}


def _card_or_reason(folder: Path) -> ModelCard | Refused:
    try:
        return read_card(folder)
    except Refused as refused:
        return refused


def refuse_if_damaged(card: ModelCard, folder: Path, shown_as: Path | None = None) -> None:
    """Refuses a model with a missing or changed file."""
    if problems := verify(card, folder):
        raise Refused(
            found=f"{len(problems)} damaged file(s) in {shown_as or folder}: {'; '.join(problems)}",
            needed="the files whose SHA-256 is on the card",
            do="copy or download the model again",
        )


def check_free(name: str, into: Path) -> None:
    """Refuses a name that is none, or that another model has."""
    if not _NAME.fullmatch(name):
        raise Refused(
            found=f"the model name {name!r}",
            needed="letters, digits, dots, dashes and underscores, at most 64, no dot, dash or underscore first",
            do="choose another name",
        )
    if name in MODELS or (into / name).exists():
        raise Refused(
            found=f"a model named {name!r} already",
            needed="a name that is free",
            do=f"choose another name, or delete {into / name} first" if name not in MODELS else "choose another name",
        )


def _check_settings(settings: Mapping[str, object], where: str) -> None:
    for name, value in settings.items():
        if not isinstance(value, bool | int | float | str):
            raise _bad_card(where, f"the setting {name} = {value!r}, which is no number, word, true or false")


def _check_files(files: Mapping[str, object], where: str) -> None:
    for name, checksum in files.items():
        path = Path(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or name in ("", CARD_FILE):
            raise _bad_card(where, f"the file name {name!r}, which does not stay in the folder")
        if not isinstance(checksum, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", checksum):
            raise _bad_card(where, f"no SHA-256 for {name}")


def _text(entries: Mapping[str, Any], name: str, where: str) -> str:
    value = entries.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _bad_card(where, f"no text for `{name}`")
    return value


def _texts(value: object, name: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in cast("list[object]", value)):
        raise _bad_card(where, f"no list of words for `{name}`")
    return tuple(cast("list[str]", value))


def _mapping(value: object, name: str, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _bad_card(where, f"no object for `{name}`")
    return cast("dict[str, Any]", value)


def _bad_card(where: str, found: str) -> Refused:
    return Refused(
        found=f"{found} in {where}",
        needed=f"a model card of version {CARD_VERSION} with {', '.join(_TEXTS)}",
        do="mend the card, or get the model again",
    )


MODELS: dict[str, ModelCard] = {
    card.id: card
    for card in (
        ModelCard(
            id="intensity",
            kind="intensity",
            title="Shape and brightness: the ellipsoid of the prompt, corrected by what the picture shows",
            licence="Apache-2.0",
            intended_use="Research. A first outline of one lesion from a click, box, line or mask, and the "
            "baseline that every trained model has to beat.",
            limits="Not a medical device. Weak where a lesion is as bright as its neighbours and where one click "
            "has to find a large, mixed lesion.",
        ),
        ModelCard(
            id="ellipsoid",
            kind="ellipsoid",
            title="The ellipsoid inscribed in the prompt's box",
            licence="Apache-2.0",
            intended_use="Research. The baseline that knows nothing but the prompt.",
            limits="Not a medical device. Does not look at the picture inside a box; a single click grows to a rough "
            "extent.",
        ),
        *(read_card(file.parent) for file in sorted(EMBEDDED.glob(f"*/{CARD_FILE}"))),
    )
}
"""The embedded models. Each runs on the base install."""

DEFAULT_MODEL = "zoom"
