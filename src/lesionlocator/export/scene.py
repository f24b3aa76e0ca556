"""One visit of a run beside the DICOM series that it was read from: what every DICOM object of it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lesionlocator.errors import Refused
from lesionlocator.export.identity import derived_uid, tracking_uid
from lesionlocator.export.outcome import Outcome, Visit
from lesionlocator.export.sources import Source

MAKER = "lesionlocator"


@dataclass(frozen=True, eq=False)
class Scene:
    """One visit of a run with the series that it was read from, and what names its lesions for ever.

    `baseline` is what the first scan of the run is known by: its series, or its checksum. `baseline_date` is its day.
    """

    outcome: Outcome
    visit: Visit
    source: Source
    baseline: str
    baseline_date: str | None = None

    def tracking_uid(self, lesion_id: str) -> str:
        return tracking_uid(self.source.patient, self.baseline, lesion_id)

    def uid(self, *parts: str) -> str:
        """A UID for an object of this visit: another one when the outlines or the version change."""
        outcome, visit = self.outcome, self.visit
        made = [outcome.version, outcome.model, str(outcome.run.get("finished")), self.source.series.uid]
        drawn = [f"{i}:{mask.voxels}:{mask.centroid_mm.round(3).tolist()}" for i, mask in visit.masks.items()]
        return derived_uid(*parts, *made, visit.scan, *drawn)

    @property
    def moment(self) -> tuple[str, str]:
        """Date and time at which the run finished, as DICOM writes them."""
        digits = "".join(c for c in str(self.outcome.run.get("finished") or "")[:19] if c.isdigit())
        return (digits[:8], digits[8:]) if len(digits) == 14 else ("19700101", "000000")


def highdicom() -> Any:
    """The library that knows the standard's objects.

    Raises:
        Refused: It is not installed.
    """
    try:
        import highdicom as library
    except ImportError:
        raise Refused(
            found="an installation without highdicom",
            needed="it, to write DICOM segmentations and reports",
            do="install it with `pip install 'lesionlocator[dicom]'`",
        ) from None
    return library


def stamp(made: Any, scene: Scene) -> None:
    """The time of the run, and UIDs that the run determines, where the library takes its own: bytes stay the same."""
    day, time = scene.moment
    for name in ("ContentDate", "InstanceCreationDate", "SeriesDate"):
        if name in made:
            setattr(made, name, day)
    for name in ("ContentTime", "InstanceCreationTime", "SeriesTime"):
        if name in made:
            setattr(made, name, time)
    for item in made.get("ContributingEquipmentSequence") or ():
        item.ContributionDateTime = day + time
    for sequence in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in made.get(sequence) or ():
            item.DimensionOrganizationUID = scene.uid("dimensions", str(made.SOPInstanceUID))
