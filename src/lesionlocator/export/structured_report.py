"""DICOM SR (TID 1500): the numbers of one visit, a measurement group for each lesion, pointing at its segment."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import date
from typing import Any

from lesionlocator.errors import Refused
from lesionlocator.export.identity import derived_uid
from lesionlocator.export.scene import MAKER, Scene, highdicom, stamp
from lesionlocator.export.words import algorithm_family, imaging_procedure, intensity, lesion_type, status_evaluation
from lesionlocator.measure import Row

SERIES_NUMBER = 9300


def make_report(scene: Scene, segmentation: Any | None) -> Any:
    """The SR of a visit. `segmentation` is its SEG; None when no lesion of the visit has an outline.

    A lesion without an outline (gone, outside, failed) has a group with that evaluation instead of numbers.

    Raises:
        Refused: The visit has no lesions at all.
    """
    if not scene.visit.rows:
        raise Refused(found=f"no lesion in {scene.visit.scan}", needed="at least one row", do="see lesions.csv")
    headers = scene.source.headers[:1] if scene.source.is_multi_frame else scene.source.headers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # About odd values in the source's own header, which are not ours to mend.
        content = _content(scene, segmentation)
        made = highdicom().sr.Comprehensive3DSR(
            evidence=[*([segmentation] if segmentation is not None else []), *headers],
            content=content,
            series_instance_uid=scene.uid("SR", "series"),
            series_number=SERIES_NUMBER + scene.visit.order + 1,
            sop_instance_uid=scene.uid("SR", "instance"),
            instance_number=1,
            manufacturer=MAKER,
            is_complete=True,
            series_description="Lesion measurements",
        )
    stamp(made, scene)
    return made


def _content(scene: Scene, segmentation: Any | None) -> Any:
    from pydicom.sr.codedict import codes

    device = highdicom().sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", scene.outcome.version, scene.outcome.model),
        name=MAKER,
        manufacturer_name=MAKER,
        model_name=scene.outcome.model[:64],
        serial_number=scene.outcome.version[:64],
    )
    observed = highdicom().sr.ObserverContext(codes.DCM.Device, device)
    return highdicom().sr.MeasurementReport(
        observation_context=highdicom().sr.ObservationContext(observer_device_context=observed),
        procedure_reported=imaging_procedure(),
        imaging_measurements=list(_groups(scene, segmentation)),
        title=codes.DCM.ImagingMeasurementReport,
    )


def _groups(scene: Scene, segmentation: Any | None) -> Iterator[Any]:
    numbers = {lesion_id: number for number, lesion_id in enumerate(scene.visit.masks, start=1)}
    when = _time_point(scene)
    for row in scene.visit.rows:
        said: dict[str, Any] = {
            "tracking_identifier": highdicom().sr.TrackingIdentifier(scene.tracking_uid(row.lesion_id), row.lesion_id),
            "time_point_context": when,
            "finding_type": lesion_type(),
        }
        if segmentation is None or row.lesion_id not in numbers:
            evaluation = highdicom().sr.QualitativeEvaluation(*status_evaluation(row.status.value))
            yield highdicom().sr.MeasurementsAndQualitativeEvaluations(**said, qualitative_evaluations=[evaluation])
            continue
        segment = highdicom().sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=numbers[row.lesion_id],
            source_series=highdicom().sr.SourceSeriesForSegmentation(scene.source.series.uid),
        )
        yield highdicom().sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            **said, referenced_segment=segment, algorithm_id=_algorithm(scene), measurements=list(_measurements(row))
        )


def _algorithm(scene: Scene) -> Any:
    if scene.outcome.is_drawn(scene.visit):
        return None
    return highdicom().sr.AlgorithmIdentification(
        name=scene.outcome.model, version=scene.outcome.version, family=algorithm_family(), manufacturer=MAKER
    )


def _measurements(row: Row) -> Iterator[Any]:
    from pydicom.sr.codedict import codes

    lengths = ((codes.SCT.LongAxis, row.long_axis_mm), (codes.SCT.ShortAxis, row.short_axis_mm))
    if row.volume_ml is not None:
        yield highdicom().sr.Measurement(codes.SCT.Volume, row.volume_ml * 1000, codes.UCUM.CubicMillimeter)
    for name, value in lengths:
        if value is not None:
            yield highdicom().sr.Measurement(name, value, codes.UCUM.Millimeter)
    name, unit = intensity(row.unit)
    derived = ((codes.SCT.Mean, row.mean), (codes.SCT.Minimum, row.min), (codes.SCT.Maximum, row.max))
    for derivation, value in derived:
        if value is not None:
            yield highdicom().sr.Measurement(name, value, unit, derivation=derivation)


def _time_point(scene: Scene) -> Any:
    from pydicom.sr.codedict import codes

    visit = scene.visit
    days = _days_since(scene.baseline_date, scene.source.series.date)
    offset = None
    if days is not None and visit.order > 0:
        offset = highdicom().sr.LongitudinalTemporalOffsetFromEvent(float(days), codes.UCUM.Day, codes.DCM.Baseline)
    return highdicom().sr.TimePointContext(
        time_point=visit.scan[:64],
        time_point_type=codes.DCM.Baseline if visit.order == 0 else None,
        time_point_order=visit.order + 1,
        temporal_offset_from_event=offset,
    )


def _days_since(first: str | None, this: str | None) -> int | None:
    try:
        return (date.fromisoformat(this or "") - date.fromisoformat(first or "")).days
    except ValueError:
        return None
