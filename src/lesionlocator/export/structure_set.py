"""RTSTRUCT: outlines as closed contours on the slices of the series, for planning systems and viewers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from lesionlocator.export.identity import lesion_colour
from lesionlocator.export.scene import MAKER, Scene
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask

SERIES_NUMBER = 9400
_DECIMALS = 4
Ring = Float[np.ndarray, "_ 2"]


def make_structure_set(scene: Scene) -> Any:
    """The RTSTRUCT of a visit: a region for each lesion, contours halfway between voxels inside and outside.

    Every voxel centre lies on its own side of the contours, so that a reader who fills them gets the mask back. A hole
    is joined to the contour around it by a line that is run along twice, which every reader fills rightly: newer ways
    to write holes are not known to all.
    """
    from pydicom.dataset import Dataset

    made = _head(scene)
    made.StructureSetROISequence, made.ROIContourSequence, made.RTROIObservationsSequence = [], [], []
    for number, (lesion_id, drawn) in enumerate(scene.visit.masks.items(), start=1):
        mask = scene.source.placed(drawn, scene.visit.scan)
        region = Dataset()
        region.ROINumber, region.ROIName = number, f"Lesion {lesion_id}"[:64]
        region.ReferencedFrameOfReferenceUID = made.FrameOfReferenceUID
        region.ROIGenerationAlgorithm = "MANUAL" if scene.outcome.is_drawn(scene.visit) else "SEMIAUTOMATIC"
        contours = Dataset()
        contours.ReferencedROINumber = number
        contours.ROIDisplayColor = list(lesion_colour(scene.outcome.lesion_ids.index(lesion_id)))
        contours.ContourSequence = list(_contours(scene, mask))
        observed = Dataset()
        observed.ObservationNumber, observed.ReferencedROINumber = number, number
        observed.RTROIInterpretedType, observed.ROIInterpreter = "", ""
        made.StructureSetROISequence.append(region)
        made.ROIContourSequence.append(contours)
        made.RTROIObservationsSequence.append(observed)
    return made


def _head(scene: Scene) -> Any:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, RTStructureSetStorage

    first = scene.source.headers[0]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = UID(scene.uid("RTSTRUCT", "instance"))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # About odd values in the source's own header, which are not ours to mend.
        for name in ("SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate"):
            if name in first:
                made[name] = first[name]
        for name in ("StudyTime", "StudyInstanceUID", "StudyID", "AccessionNumber", "ReferringPhysicianName"):
            made[name] = first[name]
    made.SOPClassUID, made.SOPInstanceUID = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID
    made.Modality, made.SeriesInstanceUID = "RTSTRUCT", scene.uid("RTSTRUCT", "series")
    made.SeriesNumber, made.SeriesDescription = SERIES_NUMBER + scene.visit.order + 1, "Lesion contours"
    made.InstanceNumber = 1
    made.Manufacturer, made.ManufacturerModelName = MAKER, scene.outcome.model[:64]
    made.SoftwareVersions, made.OperatorsName = scene.outcome.version[:64], ""
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = first.FrameOfReferenceUID, ""
    made.StructureSetLabel = "LESIONS"
    made.StructureSetDate, made.StructureSetTime = scene.moment
    made.ApprovalStatus = "UNAPPROVED"
    made.ReferencedFrameOfReferenceSequence = [_referenced(scene)]
    return made


def _referenced(scene: Scene) -> Any:
    from pydicom.dataset import Dataset

    headers = scene.source.headers
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = headers[0].SeriesInstanceUID
    unique = {str(header.SOPInstanceUID): header for header in headers}
    series.ContourImageSequence = [_image(header) for header in unique.values()]
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, retired, and asked for here.
    study.ReferencedSOPInstanceUID = headers[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = headers[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _image(header: Any, frame: int | None = None) -> Any:
    from pydicom.dataset import Dataset

    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    if frame is not None:
        image.ReferencedFrameNumber = frame + 1
    return image


def _contours(scene: Scene, mask: Mask) -> Iterator[Any]:
    from pydicom.dataset import Dataset

    geometry, headers = scene.source.geometry, scene.source.headers
    start = mask.geometry.offset_in(geometry) or (0, 0, 0)
    for depth, plane in enumerate(mask.array, start=start[0]):
        for ring in _outlines(plane):
            contour = Dataset()
            if scene.source.is_regular:
                frame = scene.source.series.stack.slices[depth].frame
                contour.ContourImageSequence = [_image(headers[depth], frame)]
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(ring)
            at_mm = _in_world(ring + np.array(start[1:], float), depth, geometry)
            contour.ContourData = [f"{value:.{_DECIMALS}f}" for value in at_mm.ravel()]
            yield contour


def _outlines(plane: Bool[np.ndarray, "h w"]) -> list[Ring]:
    """One closed line for each island of a slice, its holes joined to it."""
    rings = _rings(plane)
    around = [[other for other in range(len(rings)) if _is_in(ring, rings[other])] for ring in rings]
    holes = [index for index, outer in enumerate(around) if len(outer) % 2]
    joined: list[Ring] = []
    for index, ring in enumerate(rings):
        if index not in holes:
            inner = len(around[index]) + 1
            joined.append(_keyhole(ring, [rings[i] for i in holes if index in around[i] and len(around[i]) == inner]))
    return joined


def _rings(plane: Bool[np.ndarray, "h w"]) -> list[Ring]:
    """Closed lines through the points halfway between a voxel inside and its neighbour outside."""
    from skimage.measure import find_contours

    if not plane.any():
        return []
    return [np.asarray(ring)[:-1] - 1 for ring in find_contours(np.pad(plane, 1).astype(float), 0.5)]


def _is_in(ring: Ring, other: Ring) -> bool:
    from skimage.measure import points_in_poly

    return ring is not other and bool(points_in_poly(ring[:1], other)[0])


def _keyhole(outer: Ring, holes: list[Ring]) -> Ring:
    """The line that runs around, crosses to each hole where it is nearest, runs around that, and comes back."""
    left = list(holes)
    while left:
        gaps = [np.linalg.norm(outer[:, None] - hole[None], axis=2) for hole in left]
        nearest = int(np.argmin([gap.min() for gap in gaps]))
        hole = left.pop(nearest)
        at, to = np.unravel_index(int(np.argmin(gaps[nearest])), gaps[nearest].shape)
        turn = np.concatenate([np.roll(hole, -int(to), axis=0), hole[int(to)][None]])
        outer = np.concatenate([outer[: int(at) + 1], turn, outer[int(at) :]])
    return outer


def _in_world(ring: Float[np.ndarray, "n 2"], depth: int, geometry: Geometry) -> Float[np.ndarray, "n 3"]:
    return geometry.index_to_world(np.insert(ring, 0, float(depth), axis=1))
