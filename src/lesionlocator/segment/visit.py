"""Every lesion that was asked for in a scan, outlined in one go."""

from __future__ import annotations

from dataclasses import replace

from lesionlocator.case import Case, Lesion, Status, Timepoint
from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Shape
from lesionlocator.segment.ask import Outline, Segmenter, is_positive, touched
from lesionlocator.volume import Volume


def segment_case(case: Case, segmenter: Segmenter) -> Case:
    """The same case with an outline, or a reason why not, for every lesion that has prompts. Links stay as they are."""
    timepoints = tuple(segment_timepoint(timepoint, segmenter) for timepoint in case.timepoints)
    return replace(case, timepoints=timepoints)


def segment_timepoint(timepoint: Timepoint, segmenter: Segmenter, volume: Volume | None = None) -> Timepoint:
    """One scan's lesions outlined in one call. Those without prompts, or gone, are left alone; none load nothing."""
    asked = [lesion for lesion in timepoint.lesions if lesion.prompts and lesion.status is not Status.ABSENT]
    if not asked:
        return timepoint
    prepared = segmenter.prepare(timepoint.load() if volume is None else volume)
    outlines = segmenter.outline(prepared, [lesion.prompts for lesion in asked])
    answered = {
        lesion.id: outlined(lesion, outline, timepoint.geometry)
        for lesion, outline in zip(asked, outlines, strict=True)
    }
    return timepoint.with_lesions(tuple(answered.get(lesion.id, lesion) for lesion in timepoint.lesions))


def keep_masks(timepoint: Timepoint) -> Timepoint:
    """The scan's lesions with the masks that they were asked with as their outlines, unchanged."""
    return timepoint.with_lesions(tuple(_kept(lesion, timepoint.geometry) for lesion in timepoint.lesions))


def outlined(lesion: Lesion, outline: Outline, geometry: Geometry) -> Lesion:
    """The lesion with a segmenter's answer in it."""
    if outline.mask is not None:
        return replace(
            lesion, mask=outline.mask, status=Status.OUTLINED, reason=outline.reason, confidence=outline.confidence
        )
    places = [prompt for prompt in lesion.prompts if is_positive(prompt)]
    outside = bool(places) and all(touched(prompt, geometry) is None for prompt in places)
    return replace(lesion, mask=None, status=Status.OUTSIDE if outside else Status.FAILED, reason=outline.reason)


def _kept(lesion: Lesion, geometry: Geometry) -> Lesion:
    shapes = [prompt for prompt in lesion.prompts if isinstance(prompt, Shape)]
    if len(shapes) != 1:
        return replace(lesion, status=Status.FAILED, reason="no mask among its prompts to keep unchanged")
    mask = shapes[0].mask.placed(geometry)
    if mask.is_empty:
        return replace(lesion, status=Status.OUTSIDE, reason="its mask lies outside the scan")
    return replace(lesion, mask=mask, status=Status.OUTLINED)
