"""A published checkpoint folder turned once into safetensors, with a model card."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from lesionlocator.errors import Refused
from lesionlocator.formats import checksum
from lesionlocator.network.checkpoint import load_weights, parts_of_tracker
from lesionlocator.network.gradicon import RegistrationNetwork
from lesionlocator.network.residual_unet import ResidualUNet
from lesionlocator.published.ensemble import PARTS, WEIGHTS_FILE, find_folds, read_fold
from lesionlocator.published.plans import read_plans
from lesionlocator.weights import CARD_FILE, check_free, models_folder, published_card


def convert_folder(folder: Path, into: Path) -> dict[str, str]:
    """Writes every part and fold of a checkpoint folder into a new folder; the SHA-256 of each file by its name.

    Each weight is kept once, under its published name. Refused when a checkpoint does not fit its plans.
    """
    for name in PARTS.values():
        if (folder / name).is_dir():
            _convert_part(folder / name, into / name, is_tracker=name == PARTS["track"])
    files = {path.relative_to(into).as_posix(): checksum(path) for path in sorted(into.rglob("*")) if path.is_file()}
    if not files:
        raise Refused(
            found=f"no published model in {folder}", needed=" or ".join(PARTS.values()), do="check the folder"
        )
    return files


def import_published(folder: Path, name: str, into: Path | None = None) -> Path:
    """Converts a checkpoint folder into a model of the user's, all or nothing: it appears by one rename."""
    models = models_folder() if into is None else into
    check_free(name, models)
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=models) as scratch:
        part = Path(scratch) / name
        card = published_card(folder, name, convert_folder(folder, part))
        (part / CARD_FILE).write_text(json.dumps(card.to_json(), indent=2), encoding="utf-8")
        part.rename(models / name)
    return models / name


def _convert_part(folder: Path, into: Path, *, is_tracker: bool) -> None:
    import torch
    from safetensors.torch import save_file

    into.mkdir(parents=True)
    for name in ("plans.json", "dataset.json"):
        shutil.copyfile(folder / name, into / name)
    plans = read_plans(folder)
    for fold in find_folds(folder, ()):
        file, weights, said = read_fold(folder / f"fold_{fold}")
        mine, others = parts_of_tracker(weights) if is_tracker else (weights, {})
        with torch.device("meta"):
            load_weights(ResidualUNet(plans.unet), mine, file)
            if is_tracker:
                load_weights(RegistrationNetwork(), others, file)
        target = into / f"fold_{fold}" / WEIGHTS_FILE
        target.parent.mkdir()
        plain = {name: tensor.detach().contiguous().clone() for name, tensor in weights.items()}
        save_file(plain, target, metadata={"said": json.dumps(_kept(said))})


def _kept(said: dict[str, Any]) -> dict[str, Any]:
    """What of a checkpoint's other content is needed to run it, or says where it comes from."""
    names = ("trainer_name", "inference_allowed_mirroring_axes", "current_epoch")
    return {name: said[name] for name in names if name in said}
