"""NRRD and MetaImage files, through SimpleITK, which keeps the patient's space in LPS as we do."""

from __future__ import annotations

import os
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from lesionlocator.errors import Refused
from lesionlocator.formats.disk import DEFLATE_LIMIT, size_of, truncated, unreadable, whole
from lesionlocator.formats.intensities import as_intensities, settle_modality
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Modality, Volume

_HEADER_LIMIT = 1 << 16
_MARGIN = 1_000_000
_ENCODINGS = {"raw": "raw", "gzip": "packed", "gz": "packed", "zlib": "packed"}


def read_itk(path: Path, modality: Modality | None = None) -> Volume:
    """An NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd) scan."""
    import SimpleITK

    reader, geometry, warnings = _header(path, whole_file=True)
    try:
        with quiet_itk():
            image = reader.Execute()
    except RuntimeError as problem:
        raise unreadable(path, RuntimeError("its voxels are damaged or cut short")) from problem
    array = np.asarray(SimpleITK.GetArrayFromImage(image))
    del image
    array = as_intensities(array.reshape(geometry.shape))
    modality, guessed = settle_modality(array, modality)
    return Volume(array, geometry, modality, warnings=(*warnings, *guessed))


def read_itk_geometry(path: Path) -> Geometry:
    """The grid of such a file, from its header alone."""
    return _header(path, whole_file=False)[1]


def write_itk(path: Path, array: Shaped[np.ndarray, "d h w"], geometry: Geometry) -> None:
    """Voxels as .nrrd or .mha, packed."""
    import SimpleITK

    image: Any = SimpleITK.GetImageFromArray(np.ascontiguousarray(array))
    spacing = geometry.spacing_mm[::-1]
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(geometry.affine[:3, 3].tolist())
    image.SetDirection((geometry.affine[:3, 2::-1] / spacing).ravel().tolist())
    with whole(path, ".partial" + path.suffix) as temporary:
        try:
            SimpleITK.WriteImage(image, str(temporary), useCompression=True, compressionLevel=1)
        except RuntimeError as problem:
            raise OSError(str(problem)) from problem


@contextmanager
def quiet_itk() -> Generator[None]:
    """Keeps ITK from writing to standard error while it reads: what it says there is said by our refusals.

    MetaIO and GDCM write past Python, so the descriptor itself is turned away for these moments.
    """
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        kept = os.dup(2)
    except OSError:  # Standard error is closed: nothing can be written there anyway.
        yield
        return
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@dataclass(frozen=True)
class _Content:
    """The bytes that hold the voxels: in which file, from where, how many, and how they are written."""

    file: Path
    start: int
    size: int
    encoding: str


def _header(path: Path, whole_file: bool) -> tuple[Any, Geometry, tuple[str, ...]]:
    import SimpleITK

    size_of(path)
    fields, header_bytes = _fields(path)
    _refuse_other_units(fields, path)
    reader: Any = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet_itk():
            reader.ReadImageInformation()
    except RuntimeError as problem:
        raise _what_itk_said(path, problem) from problem
    shape = _shape(reader, path)
    numbers = _bytes_per_voxel(reader, path)
    needed = shape[0] * shape[1] * shape[2] * numbers
    content = _content(path, fields, header_bytes)
    if content is not None:
        _refuse_short(path, content, needed)
        if whole_file and content.encoding == "packed" and not _skips(fields):
            _refuse_damaged(path, content, needed)
    return reader, Geometry(shape, _affine(reader, path)), _warnings(path, fields)


def _skips(fields: dict[str, str]) -> bool:
    return any(fields.get(key, "0") != "0" for key in ("line skip", "lineskip", "byte skip", "byteskip", "headersize"))


def _shape(reader: Any, path: Path) -> tuple[int, int, int]:
    sizes = [int(n) for n in reader.GetSize()]
    components = int(reader.GetNumberOfComponents())
    if components != 1:
        raise Refused(
            found=f"{path}, which has {components} numbers for each voxel (a vector, colour or several layers)",
            needed="one number for each voxel",
            do="write the component that you mean into a file of its own (a segmentation: export it as a label map)",
        )
    if len(sizes) < 3 or any(n != 1 for n in sizes[3:]) or min(sizes) < 1:
        raise Refused(
            found=f"{path}, whose sizes are {' x '.join(map(str, sizes))}",
            needed="a scan with three axes",
            do="write the volume that you mean into a file of its own",
        )
    return sizes[2], sizes[1], sizes[0]


def _bytes_per_voxel(reader: Any, path: Path) -> int:
    import SimpleITK

    named: str = SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())
    widths = {"8-bit": 1, "16-bit": 2, "32-bit": 4, "64-bit": 8}
    width = widths.get(named.split(maxsplit=1)[0])
    if width is None or "complex" in named or "vector" in named:
        raise Refused(
            found=f"{path}, whose voxels are of the kind {named!r}",
            needed="one real number for each voxel",
            do="convert it to 16-bit integers or 32-bit floats",
        )
    return width


def _affine(reader: Any, path: Path) -> Float[np.ndarray, "4 4"]:
    axes = len(reader.GetSize())
    spacing = np.array(reader.GetSpacing(), float)[:3]
    direction = np.array(reader.GetDirection(), float).reshape(axes, axes)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = (direction * spacing)[:, ::-1]
    affine[:3, 3] = np.array(reader.GetOrigin(), float)[:3]
    if not np.isfinite(affine).all() or np.any(spacing <= 0) or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise Refused(
            found=f"{path}, whose voxels measure {' x '.join(f'{s:.4g}' for s in spacing)} mm or lie in one plane",
            needed="finite voxel sizes above zero and three independent axes",
            do="repair the spacing and directions in its header",
        )
    return affine


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The lines `key: value` (NRRD) or `key = value` (MetaImage) that start the file, and how many bytes they take."""
    with path.open("rb") as stream:
        text = stream.read(_HEADER_LIMIT)
    fields: dict[str, str] = {}
    length = 0
    for line in text.split(b"\n"):
        length += len(line) + 1
        if not line.strip() or len(line) > 4096:
            break
        text_line = line.decode("latin-1")
        is_meta = "=" in text_line and ":" not in text_line.partition("=")[0]
        key, mark, value = text_line.partition("=" if is_meta else ":")
        if mark:
            fields[key.strip().lower()] = value.strip().lstrip("=").strip()
            if key.strip() == "ElementDataFile":
                break
    return fields, length


def _refuse_other_units(fields: dict[str, str], path: Path) -> None:
    units = [unit for unit in fields.get("space units", "").replace('"', " ").split() if unit not in {"mm", "none"}]
    if units:
        raise Refused(
            found=f"{path}, whose lengths are in {units[0]!r}",
            needed="lengths in mm",
            do="save it again with `space units` in mm",
        )


def _content(path: Path, fields: dict[str, str], header_bytes: int) -> _Content | None:
    """Where the voxels are; None when they lie in several files."""
    named = fields.get("data file") or fields.get("datafile") or fields.get("elementdatafile") or "LOCAL"
    if named.upper().startswith("LIST") or "%" in named:
        return None
    file, start = (path, header_bytes) if named.upper() == "LOCAL" else (path.parent / named, 0)
    encoding = fields.get("encoding", "raw").lower()
    if fields.get("compresseddata", "false").lower() == "true":
        encoding = "zlib"
    return _Content(file, start, size_of(file) - start, _ENCODINGS.get(encoding, "other"))


def _refuse_short(path: Path, content: _Content, needed: int) -> None:
    """Looked at before any memory is asked for."""
    most = {"raw": content.size, "packed": content.size * DEFLATE_LIMIT + _MARGIN}.get(content.encoding, needed)
    if needed > most:
        raise truncated(path, needed, content.size)


def _refuse_damaged(path: Path, content: _Content, needed: int) -> None:
    """Unpacks once without keeping anything: ITK gives whatever it got from a damaged stream, and says nothing."""
    unpacker = zlib.decompressobj(wbits=47)  # Either gzip (NRRD) or zlib (MetaImage), with its checksum.
    got = 0
    try:
        with content.file.open("rb") as stream:
            stream.seek(content.start)
            while not unpacker.eof and (block := stream.read(1 << 16)):
                got += len(unpacker.decompress(block))
    except (OSError, zlib.error) as problem:
        raise unreadable(path, problem) from problem
    if got < needed or not unpacker.eof:
        raise truncated(path, needed)


def _warnings(path: Path, fields: dict[str, str]) -> tuple[str, ...]:
    is_nrrd = path.suffix.lower() in {".nrrd", ".nhdr"}
    if is_nrrd and "space" not in fields:
        return ("the file does not name its space; its axes were taken as left, posterior, superior (LPS)",)
    return ()


def _what_itk_said(path: Path, problem: Exception) -> Refused:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return unreadable(path, RuntimeError(lines[-1].replace(f' "{path}"', "") if lines else "no reason given"))
