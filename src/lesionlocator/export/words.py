"""Coded words of the standards: what a lesion, a diameter and a unit are called in SNOMED CT, DICOM and UCUM."""

from __future__ import annotations

from typing import Any

_OURS = "99LESIONLOCATOR"

STATUS_MEANINGS = {
    "absent": "Lesion no longer seen",
    "outside": "Lesion outside the scan",
    "failed": "Lesion could not be outlined",
}


def lesion_category() -> Any:
    """Category of the segmented property."""
    from pydicom.sr.codedict import codes

    return codes.SCT.MorphologicallyAbnormalStructure


def lesion_type() -> Any:
    """Type of the segmented property, and of the finding."""
    from pydicom.sr.codedict import codes

    return codes.SCT.Lesion


def algorithm_family() -> Any:
    """Family of the algorithm that outlined."""
    from pydicom.sr.codedict import codes

    return codes.DCM.ArtificialIntelligence


def imaging_procedure() -> Any:
    """The procedure that was reported on: imaging, of whatever part."""
    from pydicom.sr.coding import Code

    return Code("363679005", "SCT", "Imaging")


def intensity(unit: str) -> tuple[Any, Any]:
    """What a scan's numbers are called, and their unit, from the unit in `lesions.csv`."""
    from pydicom.sr.codedict import codes

    known = {
        "HU": (codes.DCM.AttenuationCoefficient, codes.UCUM.HounsfieldUnit),
        "SUV": (codes.DCM.Suvbw, codes.UCUM.StandardizedUptakeValueBodyWeight),
        "SUVlbm": (codes.DCM.Suvlbm, codes.UCUM.StandardizedUptakeValueLeanBodyMassJames),
        "SUVbsa": (codes.DCM.Suvbsa, codes.UCUM.StandardizedUptakeValueBodySurfaceArea),
        "a.u.": (codes.DCM.MRSignalIntensity, codes.UCUM.NoUnits),
        "Bq/ml": (_ours("activity", "Activity concentration"), codes.UCUM.BecquerelsPerMilliliter),
        "counts": (_ours("counts", "Counts"), codes.UCUM.Counts),
    }
    return known.get(unit, (_ours("intensity", "Intensity"), codes.UCUM.NoUnits))


def status_evaluation(status: str) -> tuple[Any, Any]:
    """Name and value that say why a lesion has no outline. No standard has words for it, so they are ours."""
    return _ours("status", "Lesion status"), _ours(status, STATUS_MEANINGS.get(status, status))


def _ours(value: str, meaning: str) -> Any:
    from pydicom.sr.coding import Code

    return Code(value, _OURS, meaning)
