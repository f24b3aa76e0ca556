"""PET numbers become standardised uptake values: body weight SUV from Bq/ml, by the header alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

_SUV_TYPES = {"", "BW"}


def suv_scale(headers: Sequence[Any]) -> tuple[float, tuple[str, ...]]:
    """What the rescaled numbers of a PET series are multiplied by to be SUV (g/ml), and warnings.

    Units GML are SUV already. Units BQML become SUVbw = activity * weight / dose, the dose decayed to the time that the
    image was corrected to (Kinahan & Fletcher 2010, doi:10.1053/j.sult.2010.10.001): that of the injection when
    `DecayCorrection` is ADMIN, the start of the scan when it is START. Anything else keeps its numbers, with a warning
    that says that they are not SUV.
    """
    header = headers[0]
    units = str(header.get("Units", "") or "").strip()
    if units == "GML":
        kind = str(header.get("SUVType", "") or "").strip()
        if kind not in _SUV_TYPES:
            return 1.0, (f"the PET holds SUV of the type {kind}, not by body weight; its numbers are kept",)
        return 1.0, ()
    if units != "BQML":
        return 1.0, (f"the PET's numbers are in {units or 'an unnamed unit'}, not SUV; they are kept",)
    try:
        return _from_activity(headers)
    except _Missing as missing:
        return 1.0, (f"the PET is in Bq/ml, not SUV ({missing}); its numbers are kept",)


class _Missing(Exception):
    """What the header lacks."""


def _from_activity(headers: Sequence[Any]) -> tuple[float, tuple[str, ...]]:
    header = headers[0]
    weight_kg = _positive(header, "PatientWeight", "no patient weight")
    tracers = header.get("RadiopharmaceuticalInformationSequence") or []
    if len(tracers) != 1:
        raise _Missing(f"{len(tracers)} radiopharmaceuticals in the header")
    dose_bq = _positive(tracers[0], "RadionuclideTotalDose", "no injected dose")
    if dose_bq < 1e5:
        raise _Missing(f"an injected dose of {dose_bq:g} Bq, which looks like MBq")
    correction = str(header.get("DecayCorrection", "") or "").strip()
    if correction == "START":
        half_life_s = _positive(tracers[0], "RadionuclideHalfLife", "no half-life")
        since_injection_s = _since_injection_s(headers, tracers[0])
        dose_bq *= 2.0 ** (-since_injection_s / half_life_s)
    elif correction != "ADMIN":
        raise _Missing(f"a decay correction of the kind {correction or 'unnamed'}")
    corrected = [str(word) for word in header.get("CorrectedImage") or []]
    warnings = tuple(
        f"the PET does not say that it is corrected for {what}; its SUV may be wrong"
        for word, what in (("ATTN", "attenuation"), ("DECY", "decay"))
        if word not in corrected
    )
    return weight_kg * 1000.0 / dose_bq, warnings


def _positive(header: Any, name: str, missing: str) -> float:
    try:
        value = float(header.get(name) or 0.0)
    except (TypeError, ValueError):
        value = 0.0
    if not 0 < value < float("inf"):
        raise _Missing(missing)
    return value


def _since_injection_s(headers: Sequence[Any], tracer: Any) -> float:
    scan = _scan_start(headers)
    injected = _moment(tracer.get("RadiopharmaceuticalStartDateTime"))
    if injected is None:
        time = _clock(tracer.get("RadiopharmaceuticalStartTime"))
        if time is None:
            raise _Missing("no time of injection")
        injected = scan.replace(hour=0, minute=0, second=0, microsecond=0) + time
        if injected > scan:
            injected -= timedelta(days=1)
    waited = (scan - injected).total_seconds()
    if not 0 <= waited < 24 * 3600:
        raise _Missing(f"an injection {waited / 60:.0f} minutes before the scan")
    return waited


def _scan_start(headers: Sequence[Any]) -> datetime:
    """The series time; the first acquisition time where that is earlier: later processing may rewrite the former."""
    moments = [
        moment
        for header in headers
        for date, time in (("SeriesDate", "SeriesTime"), ("AcquisitionDate", "AcquisitionTime"))
        if (moment := _moment(f"{header.get(date) or ''}{header.get(time) or ''}")) is not None
    ]
    if not moments:
        raise _Missing("no time of the scan")
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
