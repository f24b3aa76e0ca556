"""DICOM SEG: the outlines of one visit, a segment for each lesion, on the slices that they were drawn on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Integer

from lesionlocator.errors import Refused
from lesionlocator.export.identity import lesion_colour
from lesionlocator.export.scene import MAKER, Scene, highdicom, stamp
from lesionlocator.export.words import algorithm_family, lesion_category, lesion_type
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask

Kind = Literal["BINARY", "LABELMAP"]
SERIES_NUMBERS: Mapping[Kind, int] = {"BINARY": 9100, "LABELMAP": 9200}


def make_segmentation(scene: Scene, kind: Kind = "BINARY") -> tuple[Any, tuple[str, ...]]:
    """The SEG of a visit, and what has to be said about it.

    A label map (`LABELMAP`) cannot hold two lesions in one voxel: such a voxel belongs to none.

    Raises:
        Refused: The visit has no outlines, or they do not lie on the voxels of the series.
    """
    masks = {lesion_id: scene.source.placed(mask, scene.visit.scan) for lesion_id, mask in scene.visit.masks.items()}
    if not masks:
        raise Refused(
            found=f"no outline in {scene.visit.scan}", needed="at least one lesion", do="see lesions.csv for the reason"
        )
    first, last = _slices(masks, scene.source.geometry)
    voxels, told = _voxels(list(masks.values()), scene.source.geometry, (first, last), kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # About odd values in the source's own header, which are not ours to mend.
        made = _segmentation(scene, list(masks), (first, last), voxels, kind)
    stamp(made, scene)
    return made, told


def _segmentation(scene: Scene, ids: Sequence[str], span: tuple[int, int], voxels: np.ndarray, kind: Kind) -> Any:
    geometry, headers = scene.source.geometry, scene.source.headers
    used = headers[:1] if scene.source.is_multi_frame else headers[slice(*span)] if scene.source.is_regular else headers
    order = scene.visit.order + 1
    return highdicom().seg.Segmentation(
        source_images=list(used),
        pixel_array=voxels,
        segmentation_type=kind,
        segment_descriptions=[_description(scene, number, one) for number, one in enumerate(ids, start=1)],
        series_instance_uid=scene.uid(kind, "series"),
        series_number=SERIES_NUMBERS[kind] + order,
        sop_instance_uid=scene.uid(kind, "instance"),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=scene.outcome.model[:64],
        software_versions=scene.outcome.version[:64],
        device_serial_number="0",
        content_label="LESIONS",
        content_description=f"Lesions of {scene.visit.scan}"[:64],
        series_description=("Lesions" if kind == "BINARY" else "Lesions, label map"),
        pixel_measures=_measures(geometry),
        plane_orientation=highdicom().PlaneOrientationSequence("PATIENT", _orientation(geometry)),
        plane_positions=[_position(geometry, index) for index in range(*span)],
        omit_empty_frames=True,
    )


def _description(scene: Scene, number: int, lesion_id: str) -> Any:
    is_drawn = scene.outcome.is_drawn(scene.visit)
    algorithm = highdicom().AlgorithmIdentificationSequence(
        name=scene.outcome.model[:64], family=algorithm_family(), version=scene.outcome.version[:64], source=MAKER
    )
    red, green, blue = lesion_colour(scene.outcome.lesion_ids.index(lesion_id))
    return highdicom().seg.SegmentDescription(
        segment_number=number,
        segment_label=f"Lesion {lesion_id}"[:64],
        segmented_property_category=lesion_category(),
        segmented_property_type=lesion_type(),
        algorithm_type="MANUAL" if is_drawn else "SEMIAUTOMATIC",
        algorithm_identification=None if is_drawn else algorithm,
        tracking_uid=scene.tracking_uid(lesion_id),
        tracking_id=lesion_id,
        display_color=highdicom().color.CIELabColor.from_rgb(red, green, blue),
    )


def _slices(masks: Mapping[str, Mask], geometry: Geometry) -> tuple[int, int]:
    """The range of slices that have any outline."""
    starts = {lesion_id: mask.geometry.offset_in(geometry) or (0, 0, 0) for lesion_id, mask in masks.items()}
    stops = [starts[lesion_id][0] + mask.array.shape[0] for lesion_id, mask in masks.items()]
    return min(start[0] for start in starts.values()), max(stops)


def _voxels(
    masks: Sequence[Mask], geometry: Geometry, span: tuple[int, int], kind: Kind
) -> tuple[Integer[np.ndarray, "..."], tuple[str, ...]]:
    """Numbers of segments in the slices of a range; one layer for each segment where lesions overlap."""
    region = geometry.crop((span[0], 0, 0), (span[1], *geometry.shape[1:]))
    labels = np.zeros(region.shape, np.uint16 if len(masks) > 255 else np.uint8)
    shared = np.zeros(region.shape, bool)
    for number, mask in enumerate(masks, start=1):
        placed = mask.on(region)
        shared |= placed & (labels > 0)
        labels[placed] = number
    if not shared.any():
        return labels, ()
    if kind == "LABELMAP":
        labels[shared] = 0
        return labels, (f"{np.count_nonzero(shared)} voxels belong to several lesions; a label map has them empty",)
    return np.stack([mask.on(region).astype(np.uint8) for mask in masks], axis=-1), ()


def _measures(geometry: Geometry) -> Any:
    down, along = (float(v) for v in geometry.spacing_mm[1:])
    thickness = geometry.voxel_ml * 1000 / (down * along)  # Along the normal, also where the stack is sheared.
    return highdicom().PixelMeasuresSequence((down, along), thickness, thickness)


def _orientation(geometry: Geometry) -> list[float]:
    directions = geometry.affine[:3, :3] / geometry.spacing_mm
    return [float(v) for v in (*directions[:, 2], *directions[:, 1])]


def _position(geometry: Geometry, index: int) -> Any:
    at = geometry.index_to_world(np.array([[index, 0, 0]], float))[0]
    return highdicom().PlanePositionSequence("PATIENT", [float(v) for v in at])
