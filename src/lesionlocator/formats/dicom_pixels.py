"""The stored numbers of DICOM images, unpacked from whatever transfer syntax they came in."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lesionlocator.errors import Refused
from lesionlocator.formats.dicom_files import damaged
from lesionlocator.formats.dicom_frames import Slice
from lesionlocator.formats.itk import quiet_itk

_INT16 = np.iinfo(np.int16)


def voxels_of(slices: Sequence[Slice], scale: float) -> np.ndarray:
    """Rescaled slices times a scale, int16 when that is exact for all of them and float32 otherwise."""
    rows, columns = slices[0].shape
    array = np.empty((0, rows, columns), np.int16)
    files = Pixels()
    for index, one in enumerate(slices):
        stored, slope, intercept = files.of(one)
        if index == 0:  # Not before a slice has shown that the sizes in the header are those of its pixels.
            array = np.empty((len(slices), rows, columns), np.int16)
        slope, intercept = slope * scale, intercept * scale
        if array.dtype == np.int16 and not _fits(stored, slope, intercept):
            array = array.astype(np.float32)
        work = np.int64 if array.dtype == np.int16 else np.float32
        array[index] = stored.astype(work) * work(slope) + work(intercept)
    return array


class Pixels:
    """Reads images one after the other; of a multi-frame file, it keeps the one that it opened last."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._dataset: Any = None

    def of(self, one: Slice) -> tuple[np.ndarray, float, float]:
        """Stored numbers with the slope and intercept of this slice."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                dataset = self._opened(one.path)
                read = _classic if one.frame is None else _frame
                stored, rescaled = read(one, dataset)
            except Exception as problem:  # What pydicom raises on damaged files has no common ancestor.
                raise _not_decoded(one.path, problem) from problem
        if stored.shape != one.shape:
            raise damaged(one.path, f"its pixels have the shape {stored.shape}")
        return (stored, 1.0, 0.0) if rescaled else (stored, *rescale(one))

    def _opened(self, path: Path) -> Any:
        from pydicom import dcmread

        if self._path != path:
            self._dataset, self._path = dcmread(path, force=True), path
        return self._dataset


def rescale(one: Slice) -> tuple[float, float]:
    """Slope and intercept as the header has them; 1 and 0 without."""
    slope, intercept = one.header.get("RescaleSlope"), one.header.get("RescaleIntercept")
    pair = (float(slope) if slope is not None else 1.0, float(intercept) if intercept is not None else 0.0)
    if pair[0] == 0 or not np.isfinite(pair).all():
        raise damaged(one.path, f"its rescale slope and intercept are {slope} and {intercept}")
    return pair


def same_pixels(first: Slice, second: Slice) -> bool:
    """Whether two images are copies of each other."""
    files = Pixels()
    one, other = files.of(first), files.of(second)
    return one[1:] == other[1:] and np.array_equal(one[0], other[0])


def _classic(one: Slice, dataset: Any) -> tuple[np.ndarray, bool]:
    rescaled = _decoded_by_itk(one.path) if _syntax(dataset).is_compressed else None
    return (np.asarray(dataset.pixel_array), False) if rescaled is None else (rescaled, True)


def _frame(one: Slice, dataset: Any) -> tuple[np.ndarray, bool]:
    from pydicom.pixels.utils import pixel_array

    frame = one.frame or 0
    try:
        return np.asarray(pixel_array(dataset, index=frame)), False
    except (RuntimeError, NotImplementedError):  # No decoder among pydicom's.
        return _frame_by_itk(dataset, frame), False


def _frame_by_itk(dataset: Any, frame: int) -> np.ndarray:
    """One frame of a compressed multi-frame object, as a file of its own for the decoders that SimpleITK brings."""
    from pydicom.dataset import FileDataset
    from pydicom.encaps import encapsulate, generate_frames
    from pydicom.uid import SecondaryCaptureImageStorage

    frames = generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames))
    packed = next(one for index, one in enumerate(frames) if index == frame)
    single = FileDataset("", {}, file_meta=dataset.file_meta, preamble=b"\0" * 128)
    for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        single[name] = dataset[name]
    single.SamplesPerPixel, single.PhotometricInterpretation = 1, "MONOCHROME2"
    single.SOPClassUID, single.SOPInstanceUID = SecondaryCaptureImageStorage, dataset.SOPInstanceUID
    single.PixelData = encapsulate([packed])
    single["PixelData"].VR = "OB"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.dcm"
        single.save_as(path)
        decoded = _decoded_by_itk(path)
    if decoded is None:
        raise RuntimeError("no decoder could unpack it")
    return decoded


def _decoded_by_itk(path: Path) -> np.ndarray | None:
    """Pixels of a compressed file, rescaled already: SimpleITK brings decoders that pydicom needs extras for."""
    import SimpleITK

    reader: Any = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        with quiet_itk():
            array = np.asarray(SimpleITK.GetArrayFromImage(reader.Execute()))
    except RuntimeError:
        return None
    return array.reshape(array.shape[-2:])


def _syntax(dataset: Any) -> Any:
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
    return dataset.file_meta.TransferSyntaxUID


def _not_decoded(path: Path, problem: Exception) -> Refused:
    from pydicom import dcmread

    refusal = damaged(path, str(problem) or type(problem).__name__)
    try:
        syntax = _syntax(dcmread(path, force=True, stop_before_pixels=True))
        if not syntax.is_compressed:
            return refusal
    except Exception:  # As above.
        return refusal
    return Refused(
        found=f"{path}, packed as {syntax.name}, which could not be unpacked",
        needed="a whole file in a transfer syntax that is known here (uncompressed, RLE, JPEG, JPEG-LS, JPEG 2000)",
        do="copy it again, unpack the series with `gdcmconv --raw`, or install the decoders of `python-gdcm`",
    )


def _fits(stored: np.ndarray, slope: float, intercept: float) -> bool:
    whole = stored.dtype.kind in "iu" and float(slope).is_integer() and float(intercept).is_integer()
    ends = [int(end) * slope + intercept for end in (stored.min(), stored.max())]
    return whole and min(ends) >= _INT16.min and max(ends) <= _INT16.max
