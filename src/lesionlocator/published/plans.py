"""What the plans beside a published checkpoint say: spacing, patch, intensities, resampling and network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lesionlocator.errors import Refused
from lesionlocator.published.regrid import Method, Regrid

if TYPE_CHECKING:
    from lesionlocator.network.residual_unet import UNetPlan

Size3 = tuple[int, int, int]
_CONFIGURATION = "3d_fullres"
_RESAMPLERS: dict[str, Method] = {"resample_torch_fornnunet": "torch", "resample_data_or_seg_to_shape": "skimage"}


@dataclass(frozen=True)
class Plans:
    """One model's plans. Sizes and spacings are along d, h, w; intensities in HU."""

    patch: Size3
    spacing_mm: tuple[float, float, float]
    clip: tuple[float, float]
    mean: float
    deviation: float
    regrid_scan: Regrid
    regrid_mask: Regrid
    regrid_logits: Regrid
    unet: UNetPlan
    file_ending: str


def read_plans(folder: Path, configuration: str = _CONFIGURATION) -> Plans:
    """The plans of one model folder (its plans.json and dataset.json).

    Raises:
        Refused: A file is missing, or asks for something that no published model needs.
    """
    plans, dataset = _object(folder / "plans.json"), _object(folder / "dataset.json")
    where = str(folder / "plans.json")
    try:
        chosen = plans["configurations"][configuration]
        _refuse_unknown(plans, chosen, where)
        intensities = plans["foreground_intensity_properties_per_channel"]["0"]
        return Plans(
            _size(chosen["patch_size"]),
            cast("tuple[float, float, float]", tuple(float(mm) for mm in chosen["spacing"])),
            (float(intensities["percentile_00_5"]), float(intensities["percentile_99_5"])),
            float(intensities["mean"]),
            max(float(intensities["std"]), 1e-8),
            _regrid(chosen, "data", 3, where),
            _regrid(chosen, "seg", 1, where),
            _regrid(chosen, "probabilities", 1, where),
            _unet(chosen["architecture"], len(dataset["labels"])),
            str(dataset.get("file_ending", ".nii.gz")),
        )
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise Refused(
            found=f"{where} without a usable {error}",
            needed=f"plans with the configuration {configuration}, as they were published with the checkpoint",
            do="copy plans.json and dataset.json again from where the checkpoint was published",
        ) from error


def _unet(architecture: Mapping[str, Any], classes: int) -> UNetPlan:
    from lesionlocator.network.residual_unet import UNetPlan

    measures = architecture["arch_kwargs"]
    stages = int(measures["n_stages"])
    kernels, strides = ([_size(entry) for entry in measures[name]] for name in ("kernel_sizes", "strides"))
    blocks, convs = (
        _counts(measures[name], n)
        for name, n in (("n_blocks_per_stage", stages), ("n_conv_per_stage_decoder", stages - 1))
    )
    # One channel for the scan and one for the prompt.
    features = tuple(int(width) for width in measures["features_per_stage"])
    return UNetPlan(2, classes, features, tuple(kernels), tuple(strides), blocks, convs, bool(measures["conv_bias"]))


def _regrid(chosen: Mapping[str, Any], what: str, order: int, where: str) -> Regrid:
    name = str(chosen[f"resampling_fn_{what}"])
    settings = chosen.get(f"resampling_fn_{what}_kwargs") or {}
    if name not in _RESAMPLERS:
        raise _unknown(f"the resampling {name}", ", ".join(_RESAMPLERS), where)
    method = _RESAMPLERS[name]
    return Regrid(
        method, int(settings.get("order", order)) if method == "skimage" else 1, settings.get("force_separate_z")
    )


def _refuse_unknown(plans: Mapping[str, Any], chosen: Mapping[str, Any], where: str) -> None:
    network = str(chosen["architecture"]["network_class_name"]).rsplit(".", 1)[-1]
    if network != "ResidualEncoderUNet":
        raise _unknown(f"the network {network}", "a ResidualEncoderUNet", where)
    if list(chosen["normalization_schemes"]) != ["CTNormalization"]:
        raise _unknown(f"the normalisation {chosen['normalization_schemes']}", "one CT channel", where)
    if list(plans.get("transpose_forward", (0, 1, 2))) != [0, 1, 2]:
        raise _unknown(f"the axis order {plans['transpose_forward']}", "(0, 1, 2)", where)


def _unknown(found: str, needed: str, where: str) -> Refused:
    return Refused(found=f"{found} in {where}", needed=needed, do="choose a model that was published for LesionLocator")


def _object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(
            found=f"{file}, which cannot be read as JSON ({error})",
            needed="the file that was published with the checkpoint",
            do="copy the whole model folder again",
        ) from error
    return cast("dict[str, Any]", content)


def _size(values: Sequence[Any]) -> Size3:
    d, h, w = (int(value) for value in values)
    return d, h, w


def _counts(value: Any, stages: int) -> tuple[int, ...]:
    return (int(value),) * stages if isinstance(value, int) else tuple(int(entry) for entry in value)
