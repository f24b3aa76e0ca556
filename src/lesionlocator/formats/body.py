"""Body sizes that uptake is divided by: weight, lean mass, ideal weight and surface area, from a DICOM header."""

from __future__ import annotations

from typing import Any

SUV_KINDS = ("BW", "LBM", "LBMJAMES128", "LBMJANMA", "IBW", "BSA")
"""The kinds of SUV that DICOM names (0054,1006)."""


class Missing(Exception):
    """What a header lacks, or says in a way that cannot be believed."""


def suv_ratio(header: Any, kind: str) -> float:
    """What SUV by body weight is multiplied by to be SUV of another kind, of `SUV_KINDS`.

    Lean mass by James (`LBM`, with the factor 128 `LBMJAMES128`) and by Janmahasatian (2005,
    doi:10.2165/00003088-200544100-00004), surface by Du Bois: g/ml become cm2/ml.

    Raises:
        Missing: The header lacks weight, height or sex, or they cannot be of a person.
    """
    weight_kg = body_weight_kg(header)
    if kind == "BW":
        return 1.0
    if kind == "BSA":
        return surface_m2(weight_kg, _height_cm(header)) * 1e4 / (weight_kg * 1e3)
    if kind not in SUV_KINDS:
        raise Missing(f"SUV of the unknown type {kind}")
    body_kg = lean_mass_kg(kind, weight_kg, _height_cm(header), is_male=_is_male(header))
    if body_kg <= 0:
        raise Missing(f"a lean mass of {body_kg:.0f} kg from {weight_kg:g} kg")
    return body_kg / weight_kg


def lean_mass_kg(kind: str, weight_kg: float, height_cm: float, *, is_male: bool) -> float:
    """Lean body mass, or the ideal weight (`IBW`), by the formula that DICOM means by `kind`."""
    if kind == "IBW":
        return 48.0 + 1.06 * (height_cm - 152.0) if is_male else 45.5 + 0.91 * (height_cm - 152.0)
    if kind == "LBMJANMA":
        index = weight_kg / (height_cm / 100.0) ** 2
        return 9270.0 * weight_kg / (6680.0 + 216.0 * index if is_male else 8780.0 + 244.0 * index)
    squared = (weight_kg / height_cm) ** 2
    if is_male:
        return 1.10 * weight_kg - (128.0 if kind == "LBMJAMES128" else 120.0) * squared
    return 1.07 * weight_kg - 148.0 * squared


def surface_m2(weight_kg: float, height_cm: float) -> float:
    """Body surface area by Du Bois and Du Bois."""
    return 0.007184 * weight_kg**0.425 * height_cm**0.725


def body_weight_kg(header: Any) -> float:
    """Weight of the patient, if it can be one in kilograms."""
    weight_kg = positive(header, "PatientWeight", "no patient weight")
    if weight_kg > 400:
        raise Missing(f"a patient weight of {weight_kg:g} kg, which looks like grams")
    return weight_kg


def positive(header: Any, name: str, missing: str) -> float:
    """A number above zero from a header."""
    try:
        value = float(header.get(name) or 0.0)
    except (TypeError, ValueError):
        value = 0.0
    if not 0 < value < float("inf"):
        raise Missing(missing)
    return value


def _height_cm(header: Any) -> float:
    """Height; a number above 3 m is taken for centimetres, which many scanners write."""
    height = positive(header, "PatientSize", "no patient height")
    height_cm = height if height > 3 else height * 100.0
    if not 30 <= height_cm <= 260:
        raise Missing(f"a patient height of {height:g} m")
    return height_cm


def _is_male(header: Any) -> bool:
    sex = str(header.get("PatientSex", "") or "").strip().upper()
    if sex not in {"M", "F"}:
        raise Missing("no patient sex")
    return sex == "M"
