"""Names that stay: one lesion has one UID at every visit, and the same outlines make the same objects again."""

from __future__ import annotations

import colorsys
import uuid

_OURS = uuid.UUID("8a0f6d0e-4d6c-5a3b-9c55-5d1a8f0e7b21")
"""The namespace of every UID that is made here."""


def derived_uid(*parts: str) -> str:
    """A DICOM UID (2.25.) that these words determine, and only they."""
    return f"2.25.{uuid.uuid5(_OURS, chr(0).join(parts)).int}"


def tracking_uid(patient: str, baseline: str, lesion_id: str) -> str:
    """The Tracking UID of a lesion: the patient, the scan that it was first outlined in, and its id there.

    The same for every visit and for every later run that starts from the same baseline.
    """
    return derived_uid("lesion", patient, baseline, lesion_id)


def lesion_colour(order: int) -> tuple[int, int, int]:
    """Red, green and blue (0 to 255) of the lesion at this place among all of a run: neighbours differ in hue."""
    hue = (0.11 + order * 0.618034) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
