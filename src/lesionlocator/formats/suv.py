"""PET numbers become SUV by body weight, by the header alone, whatever they were stored as."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lesionlocator.formats.body import Missing, body_weight_kg, positive, suv_ratio

SUV = "SUV"
_PHILIPS_SUV, _PHILIPS_ACTIVITY = 0x70531000, 0x70531009
_HALF_LIVES_S = {
    "F18": 6586.2,
    "C11": 1221.8,
    "N13": 597.9,
    "O15": 122.2,
    "GA68": 4062.6,
    "CU64": 45724.0,
    "RB82": 75.4,
    "ZR89": 282240.0,
    "I124": 360806.0,
}
_ELEMENTS = {
    **{"FLUORINE": "F", "FLUOR": "F", "CARBON": "C", "NITROGEN": "N", "OXYGEN": "O", "GALLIUM": "GA"},
    **{"COPPER": "CU", "RUBIDIUM": "RB", "ZIRCONIUM": "ZR", "IODINE": "I"},
}
_OTHER_UNITS = {"BQML": "Bq/ml", "CNTS": "counts", "PROPCNTS": "counts"}


@dataclass(frozen=True)
class Uptake:
    """What a PET's rescaled numbers are multiplied by, the unit that they have then, and what has to be said."""

    scale: float
    unit: str = SUV
    warnings: tuple[str, ...] = ()


def read_uptake(headers: Sequence[Any]) -> Uptake:
    """How the numbers of a PET series become SUV by body weight, from the headers of its slices.

    SUV by body weight stays. SUV by lean mass, ideal weight or surface becomes SUV by body weight if the header has
    what it takes. Activity (Bq/ml) becomes activity * weight / dose, the dose decayed to the time that the image was
    corrected to (Kinahan & Fletcher 2010, doi:10.1053/j.sult.2010.10.001): that of the injection when `DecayCorrection`
    is ADMIN, the start of the scan when it is START. Counts do so by the factors that Philips adds to them. Anything
    else keeps its numbers and its own unit, with a warning that says that they are not SUV.
    """
    header = headers[0]
    units = _units(header)
    try:
        if units in {"GML", "CM2ML"}:
            return _by_weight(header, _kind(header))
        if units == "CNTS":
            return _from_counts(headers)
        if units == "BQML":
            return _from_activity(headers)
    except Missing as missing:
        kind = _kind(header)
        what = {"BQML": "in Bq/ml", "CNTS": "in counts (CNTS)"}.get(units, f"SUV of the type {kind}")
        said = f"the PET is {what}, not SUV{'' if units in _OTHER_UNITS else ' by body weight'}"
        unit = _OTHER_UNITS.get(units) or {"BSA": "SUVbsa", "IBW": "SUVibw"}.get(kind, "SUVlbm")
        return Uptake(1.0, unit, (f"{said} ({missing}); its numbers are kept",))
    unit = _OTHER_UNITS.get(units, units or "unknown")
    return Uptake(1.0, unit, (f"the PET's numbers are in {units or 'an unnamed unit'}, not SUV; they are kept",))


def _units(header: Any) -> str:
    """The unit in a classic header's words; enhanced objects say it in their mapping to the real world."""
    units = str(header.get("Units", "") or "").strip()
    mapping = next(iter(header.get("RealWorldValueMappingSequence") or ()), None)
    if units or mapping is None:
        return units
    code = next(iter(mapping.get("MeasurementUnitsCodeSequence") or ()), None)
    said = str(code.get("CodeValue", "") if code is not None else "").replace("{SUVbw}", "")
    return {"Bq/ml": "BQML", "g/ml": "GML", "cm2/ml": "CM2ML", "{counts}": "CNTS"}.get(said, said)


def _kind(header: Any) -> str:
    """The type of SUV; by body weight where a header in g/ml does not say."""
    usual = "BSA" if _units(header) == "CM2ML" else "BW"
    return str(header.get("SUVType", "") or "").strip() or usual


def _by_weight(header: Any, kind: str) -> Uptake:
    """SUV of any kind as SUV by body weight."""
    if kind == "BW":
        return Uptake(1.0)
    ratio = suv_ratio(header, kind)
    return Uptake(
        1 / ratio, SUV, (f"the PET holds SUV of the type {kind}; it became SUV by body weight (/ {ratio:.4g})",)
    )


def _from_counts(headers: Sequence[Any]) -> Uptake:
    """Philips writes counts, and two factors of which one at least is above zero."""
    to_suv, to_activity = (_private(headers[0], tag) for tag in (_PHILIPS_SUV, _PHILIPS_ACTIVITY))
    if to_suv > 0:
        return Uptake(to_suv)
    if to_activity <= 0:
        raise Missing("no factor that makes them activity or SUV")
    activity = _from_activity(headers)
    return Uptake(activity.scale * to_activity, SUV, activity.warnings)


def _private(header: Any, tag: int) -> float:
    if tag not in header:
        return 0.0
    value = header[tag].value
    text = value.decode("ascii", "ignore") if isinstance(value, bytes) else str(value)
    try:
        return float(text.strip(" \0"))
    except ValueError:
        return 0.0


def _from_activity(headers: Sequence[Any]) -> Uptake:
    header = headers[0]
    _refuse_mixed(headers)
    weight_kg = body_weight_kg(header)
    tracers = header.get("RadiopharmaceuticalInformationSequence") or []
    if len(tracers) != 1:
        raise Missing(f"{len(tracers)} radiopharmaceuticals in the header")
    dose_bq = positive(tracers[0], "RadionuclideTotalDose", "no injected dose")
    if dose_bq < 1e5:
        raise Missing(f"an injected dose of {dose_bq:g} Bq, which looks like MBq")
    if dose_bq > 2e10:
        raise Missing(f"an injected dose of {dose_bq:g} Bq, more than anybody gets")
    correction, told = _correction(header), ()
    if correction == "START":
        half_life_s, about_half_life = _half_life_s(tracers[0])
        waited_s, about_times = _since_injection_s(headers, tracers[0])
        dose_bq *= 2.0 ** (-waited_s / half_life_s)
        told = (*about_half_life, *about_times)
    elif correction != "ADMIN":
        raise Missing(f"a decay correction of the kind {correction or 'unnamed'}")
    return Uptake(weight_kg * 1000.0 / dose_bq, SUV, (*told, *_uncorrected(header)))


def _correction(header: Any) -> str:
    """To what time the image was corrected; enhanced objects name the time instead."""
    said = str(header.get("DecayCorrection", "") or "").strip()
    return said or ("START" if str(header.get("DecayCorrected", "")) == "YES" else "")


def _uncorrected(header: Any) -> tuple[str, ...]:
    if "CorrectedImage" not in header and str(header.get("DecayCorrected", "")) == "YES":
        return ()
    corrected = [str(word) for word in header.get("CorrectedImage") or []]
    return tuple(
        f"the PET does not say that it is corrected for {what}; its SUV may be wrong"
        for word, what in (("ATTN", "attenuation"), ("DECY", "decay"))
        if word not in corrected
    )


def _refuse_mixed(headers: Sequence[Any]) -> None:
    """One patient has one weight; slices that say two were put together from two scans."""
    for name, what in (("PatientWeight", "weight"), ("Units", "unit"), ("DecayCorrection", "decay correction")):
        said = {str(header.get(name, "") or "") for header in headers}
        if len(said) > 1:
            raise Missing(f"slices of different {what}: {', '.join(sorted(said)[:3])}")


def _half_life_s(tracer: Any) -> tuple[float, tuple[str, ...]]:
    """As the header says, unless it cannot be that of the nuclide."""
    said_s = positive(tracer, "RadionuclideHalfLife", "no half-life")
    code = next(iter(tracer.get("RadionuclideCodeSequence") or ()), None)
    nuclide = _nuclide(str(code.get("CodeMeaning", "") or "")) if code is not None else ""
    known_s = _HALF_LIVES_S.get(nuclide, said_s)
    if abs(said_s / known_s - 1) < 0.03:
        return said_s, ()
    looks = ", which looks like minutes" if abs(said_s * 60 / known_s - 1) < 0.03 else ""
    return known_s, (f"the PET says that {nuclide} has a half-life of {said_s:g} s{looks}; {known_s:g} s were taken",)


def _nuclide(meaning: str) -> str:
    """`^18^Fluorine`, `Fluorine-18`, `F-18` and `18F` are F18."""
    number, word = re.search(r"\d+", meaning), re.search(r"[A-Za-z]+", meaning)
    if number is None or word is None:
        return ""
    element = word[0].upper()
    return _ELEMENTS.get(element, element) + number[0]


def _since_injection_s(headers: Sequence[Any], tracer: Any) -> tuple[float, tuple[str, ...]]:
    scan = _scan_start(headers)
    clock = _clock(tracer.get("RadiopharmaceuticalStartTime"))
    injected = _moment(tracer.get("RadiopharmaceuticalStartDateTime"))
    if injected is not None:
        waited_s = (scan - injected).total_seconds()
        if 0 <= waited_s < 24 * 3600:
            return waited_s, ()
        by_clock_s = _waited_by_clock_s(scan, injected - injected.replace(hour=0, minute=0, second=0, microsecond=0))
        days = abs(injected.date() - scan.date()).days
        # A day is moved, a clock is not, where names and dates were taken out of a header.
        if days >= 1 and by_clock_s < 8 * 3600:
            told = f"the PET's injection is dated {days} days from its scan; only its clock was believed"
            return by_clock_s, (told,)
        raise Missing(f"an injection {waited_s / 60:.0f} minutes before the scan")
    if clock is None:
        raise Missing("no time of injection")
    return _waited_by_clock_s(scan, clock), ()


def _waited_by_clock_s(scan: datetime, clock: timedelta) -> float:
    """From an hour of the day to the scan, over midnight if need be."""
    injected = scan.replace(hour=0, minute=0, second=0, microsecond=0) + clock
    waited_s = (scan - injected).total_seconds()
    return waited_s if waited_s >= 0 else waited_s + 24 * 3600


def _scan_start(headers: Sequence[Any]) -> datetime:
    """The series time; the first acquisition time where that is earlier: later processing may rewrite the former.

    An enhanced object says itself to what time it was corrected.
    """
    corrected = _moment(headers[0].get("DecayCorrectionDateTime"))
    if corrected is not None and not str(headers[0].get("DecayCorrection", "") or ""):
        return corrected
    moments = [
        moment
        for header in headers
        for date, time in (("SeriesDate", "SeriesTime"), ("AcquisitionDate", "AcquisitionTime"))
        if (moment := _moment(f"{header.get(date) or ''}{header.get(time) or ''}")) is not None
    ]
    if not moments:
        raise Missing("no time of the scan")
    return min(moments)


def _moment(value: Any) -> datetime | None:
    digits = str(value or "").split("+", maxsplit=1)[0].split("-", maxsplit=1)[0]
    time = _clock(digits[8:])
    try:
        return None if time is None else datetime.strptime(digits[:8], "%Y%m%d") + time
    except ValueError:
        return None


def _clock(value: Any) -> timedelta | None:
    text = str(value or "")
    whole = text.partition(".")[0]
    if len(whole) < 4 or not text.replace(".", "", 1).isdigit():
        return None
    seconds = float(text[4:]) if len(text) > 4 else 0.0
    return timedelta(hours=int(whole[:2]), minutes=int(whole[2:4]), seconds=seconds)
