"""NRRD and MetaImage files, through SimpleITK, which keeps the patient's space in LPS as we do."""

from __future__ import annotations

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


def read_itk(path: Path, modality: Modality | None = None) -> Volume:
    """An NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd) scan."""
    import SimpleITK

    reader, geometry, warnings = _header(path)
    try:
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
    return _header(path)[1]


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


def _header(path: Path) -> tuple[Any, Geometry, tuple[str, ...]]:
    import SimpleITK

    size = size_of(path)
    fields, length = _fields(path)
    _refuse_other_units(fields, path)
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader: Any = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as problem:
        raise _what_itk_said(path, problem) from problem
    shape = _shape(reader, path)
    numbers = _bytes_per_voxel(reader, path)
    _refuse_short(path, fields, size - length, shape[0] * shape[1] * shape[2] * numbers)
    return reader, Geometry(shape, _affine(reader, path)), _warnings(path, fields)


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
        if not line.strip() or len(line) > 4096:
            break
        length += len(line) + 1
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


def _refuse_short(path: Path, fields: dict[str, str], size: int, needed: int) -> None:
    """Looked at before any memory is asked for."""
    detached = fields.get("data file") or fields.get("datafile") or fields.get("elementdatafile", "LOCAL")
    if detached.upper() not in {"LOCAL", "LIST"} and not detached.upper().startswith("LIST") and "%" not in detached:
        size = size_of(path.parent / detached)
    elif detached.upper() != "LOCAL":
        return
    encoding = fields.get("encoding", "raw").lower()
    plain = encoding == "raw" and fields.get("compresseddata", "false").lower() != "true"
    packed = int(fields.get("compresseddatasize", "0") or 0)
    if packed > size:
        raise truncated(path, packed, size)
    most = size if plain else size * DEFLATE_LIMIT + _MARGIN
    if needed > most and encoding not in {"ascii", "text", "txt"}:
        raise truncated(path, needed, size)


def _warnings(path: Path, fields: dict[str, str]) -> tuple[str, ...]:
    is_nrrd = path.suffix.lower() in {".nrrd", ".nhdr"}
    if is_nrrd and "space" not in fields:
        return ("the file does not name its space; its axes were taken as left, posterior, superior (LPS)",)
    return ()


def _what_itk_said(path: Path, problem: Exception) -> Refused:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return unreadable(path, RuntimeError(lines[-1].replace(f' "{path}"', "") if lines else "no reason given"))
