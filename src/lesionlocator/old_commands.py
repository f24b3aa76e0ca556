"""The three commands of the released program, for scripts that were written for it: same flags, same file names."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lesionlocator.errors import Refused

if TYPE_CHECKING:
    from lesionlocator.case import Lesion
    from lesionlocator.segment.published import Published
    from lesionlocator.volume import Mask, Volume

_FOLDS = (0, 1, 2, 3, 4)


def segment(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `LesionLocator_segment`."""
    parser = argparse.ArgumentParser(
        "LesionLocator_segment", description="Outline prompted lesions. Now lesionlocator."
    )
    parser.add_argument("-i", required=True, type=Path, help="image, or a folder of images")
    parser.add_argument("-o", required=True, type=Path, help="output folder")
    parser.add_argument("-p", required=True, type=Path, help="prompts (JSON or label map), or a folder of them")
    parser.add_argument("-t", choices=("point", "box"), required=True, help="what to make of the prompts")
    parser.add_argument("-step_size", type=float, default=0.5, help="step of the windows over a large prompt")
    parser.add_argument("--disable_tta", action="store_true", help="no mirroring")
    parser.add_argument("--continue_prediction", "--c", action="store_true", help="leave finished images alone")
    for flag in ("-npp", "-nps"):
        parser.add_argument(flag, type=int, default=3, help="accepted; no worker processes are needed")
    for flag in ("--verbose", "--disable_progress_bar", "--visualize"):
        parser.add_argument(flag, action="store_true", help="accepted; changes nothing")
    _add_model(parser)
    _end(lambda: _segment(parser.parse_args(arguments)))


def track(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `LesionLocator_track`."""
    parser = argparse.ArgumentParser("LesionLocator_track", description="Follow lesions. Now lesionlocator.")
    parser.add_argument("-bl", required=True, type=Path, help="baseline image")
    parser.add_argument("-fu", required=True, type=Path, nargs="+", help="follow-up images, oldest first")
    parser.add_argument("-p", required=True, type=Path, nargs="+", help="label map, masks of one lesion each, or JSON")
    parser.add_argument("-o", required=True, type=Path, help="output folder")
    parser.add_argument("-t", choices=("point", "box", "prev_mask"), default="prev_mask", help="kind of prompt")
    parser.add_argument("--visualize", action="store_true", help="accepted; changes nothing")
    parser.add_argument("--disable_tta", action="store_true", help="no mirroring (the released program always mirrors)")
    _add_model(parser)
    _end(lambda: _track(parser.parse_args(arguments)))


def create_prompt_json(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `LesionLocator_create_prompt_json`."""
    parser = argparse.ArgumentParser("LesionLocator_create_prompt_json", description="Prompt files from label maps.")
    parser.add_argument("-i", required=True, type=Path, help="folder of label maps")
    parser.add_argument("-o", required=True, type=Path, help="output folder")
    parser.add_argument(
        "-label_type", choices=("semantic", "instance"), default="instance", help="semantic: split parts"
    )
    _end(lambda: _create_prompt_json(parser.parse_args(arguments)))


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", required=True, type=Path, help="the folder LesionLocatorCheckpoint")
    parser.add_argument("-f", type=int, nargs="+", default=list(_FOLDS), help="folds to use")
    parser.add_argument("-device", default="auto", help="cuda, cpu or mps; a GPU if there is one")


def _end(work: Callable[[], bool]) -> None:
    try:
        done = work()
    except Refused as refused:
        sys.stderr.write(f"found:  {refused.found}\nneeded: {refused.needed}\ndo:     {refused.do}\n")
        sys.exit(2)
    sys.exit(0 if done else 3)


def _segment(said: argparse.Namespace) -> bool:
    from lesionlocator.formats import open_timepoint

    model = _model(said, mirroring=not said.disable_tta)
    ending = _ending(said.m)
    pairs = _pairs(said.i, said.p, ending)
    done = True
    for image, prompts in pairs:
        timepoint = open_timepoint(image, "CT")
        lesions = read_lesions(prompts, timepoint.geometry, said.t)
        files = {lesion.id: said.o / f"{_stem(image)}_lesion_{lesion.id}{_suffix(image)}" for lesion in lesions}
        if said.continue_prediction and is_finished(files):
            continue
        found = _outlines(model, timepoint.load(), lesions, said.t, said.step_size)
        _write(found, files, timepoint.geometry)
        done = done and len(found) == len(lesions)
    return done


def _track(said: argparse.Namespace) -> bool:
    from lesionlocator.formats import open_timepoint

    tracker = _model(said, mirroring=not said.disable_tta)
    first = open_timepoint(said.bl, "CT")
    if said.t == "prev_mask":
        known = _previous(said.p, first.geometry)
    else:
        lesions = read_lesions(said.p[0], first.geometry, said.t)
        known = _outlines(tracker, first.load(), lesions, said.t, 0.5)
        files = {name: said.o / f"{_stem(said.bl)}_lesion_{name}{_suffix(said.bl)}" for name in known}
        _write(known, files, first.geometry)
    asked, before = len(known), tracker.prepare(first.load())
    for image in said.fu:
        timepoint = open_timepoint(image, "CT")
        after = tracker.prepare(timepoint.load())
        answers = tracker.follow(before, after, list(known.values()))
        known = {
            name: answer.mask
            for name, answer in zip(known, answers, strict=True)
            if answer.mask is not None and not answer.mask.is_empty
        }
        _write(known, {n: said.o / f"{_stem(image)}_lesion_{n}{_suffix(image)}" for n in known}, timepoint.geometry)
        before = after
    return len(known) == asked


def _create_prompt_json(said: argparse.Namespace) -> bool:
    from lesionlocator.formats import label_masks, read_label_map

    files = [path for path in sorted(said.i.iterdir()) if path.name.endswith((".nii.gz", ".nii", ".nrrd", ".mha"))]
    for file in files:
        labels = read_label_map(file)
        masks = label_masks(labels, said.label_type == "semantic")
        bounds = {name: _bounds(mask, labels.geometry) for name, mask in masks.items()}
        for kind, content in (("points", _points(masks, labels.geometry)), ("boxes", _boxes(bounds))):
            into = said.o / kind / f"{_stem(file)}.json"
            into.parent.mkdir(parents=True, exist_ok=True)
            into.write_text(json.dumps(content, indent=4), encoding="utf-8")
    if not files:
        raise Refused(
            found=f"no label map in {said.i}", needed="label maps (.nii.gz, .nrrd, .mha)", do="check the folder"
        )
    return True


def _model(said: argparse.Namespace, *, mirroring: bool) -> Published:
    """The checkpoint; of the folds that are asked for by default, those that are there."""
    from lesionlocator.segment import Running
    from lesionlocator.segment.published import load_published
    from lesionlocator.weights import find_model

    card, folder = find_model(str(said.m))
    folds = () if tuple(said.f) == _FOLDS else tuple(said.f)
    running = Running(said.device, "max", folds=folds, mirroring=mirroring, folder=folder)
    return load_published(card, running)


def read_lesions(file: Path, geometry: Any, kind: Literal["point", "box"]) -> list[Lesion]:
    """The prompts of a file, as the released program takes them: a label map of only 1 is split into its parts."""
    from lesionlocator.formats import read_prompts

    if file.name.endswith(".json"):
        return list(read_prompts(file, geometry, kind="click" if kind == "point" else "box"))
    return list(read_prompts(file, geometry, kind="mask", split=_is_binary(file)))


def is_finished(files: dict[str, Path]) -> bool:
    """Whether every lesion's file is there; an image without lesions is."""
    return all(file.is_file() for file in files.values())


def _is_binary(file: Path) -> bool:
    from lesionlocator.formats import label_masks, read_label_map

    return list(label_masks(read_label_map(file))) == ["1"]


def _outlines(
    model: Published, volume: Volume, lesions: Sequence[Lesion], kind: Literal["point", "box"], step: float
) -> dict[str, Mask]:
    """Lesion id -> outline; those of which nothing could be made are told and left out."""
    answers = model.outline_exactly(model.prepare(volume), [lesion.prompts for lesion in lesions], kind, step)
    found: dict[str, Mask] = {}
    for lesion, mask in zip(lesions, answers, strict=True):
        if mask is None:
            sys.stderr.write(f"{volume.name}, lesion {lesion.id}: the prompt lies outside the image\n")
        else:
            found[lesion.id] = mask
    return found


def _previous(files: Sequence[Path], geometry: Any) -> dict[str, Mask]:
    """The baseline's outlines: of a label map, one for each label; of several files, one for each, numbered."""
    from lesionlocator.formats import label_masks, read_label_map
    from lesionlocator.volume import Mask

    maps = [read_label_map(file) for file in files]
    if len(maps) == 1:
        return label_masks(maps[0], _is_binary(files[0]))
    return {str(number): Mask.from_array(one.values, one.geometry) for number, one in enumerate(maps, start=1)}


def _write(masks: dict[str, Mask], files: dict[str, Path], geometry: Any) -> None:
    from lesionlocator.formats import write_mask

    for name, mask in masks.items():
        files[name].parent.mkdir(parents=True, exist_ok=True)
        write_mask(files[name], mask, geometry)


def _pairs(images: Path, prompts: Path, ending: str) -> list[tuple[Path, Path]]:
    """Each image with its prompts: by name where a file of that name is there, else by sorted position."""
    if not images.is_dir():
        return [(images, prompts if not prompts.is_dir() else _named(images, prompts))]
    scans = sorted(path for path in images.iterdir() if path.name.endswith(ending))
    files = (
        sorted(path for path in prompts.iterdir() if path.name.endswith((ending, ".json"))) if prompts.is_dir() else []
    )
    if not scans or len(scans) != len(files):
        raise Refused(
            found=f"{len(scans)} images ({ending}) in {images} and {len(files)} prompt files in {prompts}",
            needed="one prompt file for each image",
            do="check both folders",
        )
    by_name = {_stem(file): file for file in files}
    if set(by_name) == {_stem(scan) for scan in scans}:
        return [(scan, by_name[_stem(scan)]) for scan in scans]
    return list(zip(scans, files, strict=True))


def _named(image: Path, prompts: Path) -> Path:
    found = [path for path in sorted(prompts.iterdir()) if _stem(path) == _stem(image)]
    if len(found) != 1:
        raise Refused(
            found=f"{len(found)} files for {_stem(image)} in {prompts}", needed="one", do="name the file itself"
        )
    return found[0]


def _bounds(mask: Mask, geometry: Any) -> list[int]:
    start = mask.geometry.offset_in(geometry) or (0, 0, 0)
    return [int(v) for a, n in zip(start, mask.array.shape, strict=True) for v in (a, a + n)]


def _points(masks: dict[str, Mask], geometry: Any) -> dict[str, Any]:
    centres = {name: geometry.world_to_index(mask.centroid_mm[None])[0] for name, mask in masks.items()}
    return {name: {"point": [f"{v:.2f}" for v in centre]} for name, centre in centres.items()}


def _boxes(bounds: dict[str, list[int]]) -> dict[str, Any]:
    return {name: {"box": [str(v) for v in ends]} for name, ends in bounds.items()}


def _ending(model: Path) -> str:
    from lesionlocator.weights import find_model

    folder = find_model(str(model))[1]
    for file in sorted(folder.glob("*/**/dataset.json")) if folder else []:
        return str(json.loads(file.read_text(encoding="utf-8")).get("file_ending", ".nii.gz"))
    return ".nii.gz"


def _stem(path: Path) -> str:
    return path.name.removesuffix(_suffix(path))


def _suffix(path: Path) -> str:
    return ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix
