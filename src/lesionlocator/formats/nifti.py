"""NIfTI files: voxels as stored, and an affine that goes back bit for bit."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from lesionlocator.errors import Refused
from lesionlocator.formats.disk import DEFLATE_LIMIT, size_of, truncated, unreadable, whole
from lesionlocator.formats.intensities import as_intensities, settle_modality
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Modality, Volume

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_IJK_FROM_DHW = np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
_HEADER_BYTES = {348: "Nifti1Header", 540: "Nifti2Header"}
_MM_PER_UNIT = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
_MARGIN = 1_000_000
_LEVEL = 1
"""Masks are mostly zeros: a higher level of gzip takes several times longer and saves little."""


def read_nifti(path: Path, modality: Modality | None = None) -> Volume:
    """A NIfTI scan. Memory: about the size of its voxels."""
    header, size = _header(path)
    geometry, warnings = _geometry(header, path)
    dtype = header.get_data_dtype()
    stored = _voxels(path, header, dtype, geometry.shape, size)
    slope, intercept = _scaling(header, path)
    array = as_intensities(stored, slope, intercept)
    modality, guessed = settle_modality(array, modality)
    return Volume(array, geometry, modality, warnings=(*warnings, *guessed))


def read_nifti_geometry(path: Path) -> Geometry:
    """The grid of a NIfTI file, from its header alone."""
    header, _ = _header(path)
    return _geometry(header, path)[0]


def write_nifti(path: Path, array: Shaped[np.ndarray, "d h w"], geometry: Geometry) -> None:
    """Voxels as NIfTI. On the grid of a NIfTI file, the affine (sform and qform) is that file's, bit for bit."""
    header = _header_for(geometry)
    dtype = array.dtype.newbyteorder("<")
    header.set_data_dtype(dtype)
    header["dim"] = (3, *reversed(array.shape), 1, 1, 1, 1)
    header["vox_offset"] = header["sizeof_hdr"] + 4
    header["magic"] = b"n+1" if header["sizeof_hdr"] == 348 else b"n+2\0\r\n\032\n"
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_max"], header["cal_min"] = 0, 0
    with whole(path) as temporary, _created(temporary, path.name.lower().endswith(".gz")) as stream:
        stream.write(header.binaryblock + b"\0\0\0\0")
        for plane in array:
            stream.write(np.ascontiguousarray(plane, dtype).tobytes())


@contextmanager
def _opened(path: Path) -> Generator[Any]:
    zipped = path.name.lower().endswith(".gz")
    try:
        with path.open("rb") as raw:
            if zipped and raw.read(2) != b"\x1f\x8b":
                raise Refused(
                    found=f"{path}, which is named .gz but is not gzip",
                    needed="a NIfTI file packed with gzip",
                    do="rename it to .nii if it is a plain NIfTI file, or copy it again from its source",
                )
            raw.seek(0)
            if zipped:
                with gzip.GzipFile(fileobj=raw, mode="rb") as stream:
                    yield stream
            else:
                yield raw
    except (OSError, EOFError, zlib.error) as problem:
        raise unreadable(path, problem) from problem


@contextmanager
def _created(path: Path, zipped: bool) -> Generator[Any]:
    with path.open("wb") as raw:
        if zipped:
            # No name and no time in it: the same mask is the same file.
            with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=_LEVEL, mtime=0) as stream:
                yield stream
        else:
            yield raw


def _header(path: Path) -> tuple[Any, int]:
    """The header, checked against what a file of this size can hold, and the size."""
    import nibabel

    size = size_of(path)
    with _opened(path) as stream:
        block = stream.read(540)
    order = "<" if int.from_bytes(block[:4], "little") in _HEADER_BYTES else ">"
    length = int.from_bytes(block[:4], "little" if order == "<" else "big")
    if length not in _HEADER_BYTES or len(block) < length:
        raise Refused(
            found=f"{path}, which does not start with a NIfTI header",
            needed="a NIfTI-1 or NIfTI-2 file",
            do="copy it again from its source, or convert it to NIfTI",
        )
    header: Any = getattr(nibabel, _HEADER_BYTES[length])(block[:length], endianness=order, check=False)
    if not bytes(header["magic"].tobytes()).startswith(b"n+"):
        raise Refused(
            found=f"{path}, which is one half of a pair of files (or Analyze)",
            needed="one NIfTI file that holds header and voxels",
            do="convert it to .nii or .nii.gz",
        )
    _refuse_bad_sizes(header, path)
    _refuse_bad_numbers(header, path)
    needed = _offset(header) + _bytes_of(header)
    if needed > (size * DEFLATE_LIMIT + _MARGIN if path.name.lower().endswith(".gz") else size):
        raise truncated(path, needed, size)
    return header, size


def _refuse_bad_sizes(header: Any, path: Path) -> None:
    dims = [int(n) for n in header["dim"]]
    used = dims[1 : dims[0] + 1]
    if not 1 <= dims[0] <= 7 or min(used) < 1:
        raise Refused(
            found=f"{path}, whose header gives the sizes {dims}",
            needed="a number of axes from 3 to 7 and then a positive size for each",
            do="copy it again from its source, or repair the header",
        )
    if dims[0] < 3:
        raise Refused(found=f"{path}, which has {dims[0]} axes", needed="a scan with three", do="give the whole scan")
    if any(n > 1 for n in used[3:]):
        raise Refused(
            found=f"{path}, which holds several volumes: its sizes are {' x '.join(map(str, used))}",
            needed="one volume (three axes)",
            do="write the volume that you mean into a file of its own",
        )


def _refuse_bad_numbers(header: Any, path: Path) -> None:
    from nibabel.spatialimages import HeaderDataError

    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        dtype = None
    kind = "an unknown kind" if dtype is None else {"V": "colours", "c": "complex numbers"}.get(dtype.kind)
    if dtype is not None and dtype.itemsize > 8 and kind is None:
        kind = f"{dtype} numbers"
    if kind is not None:
        raise Refused(
            found=f"{path}, whose voxels are of {kind}" if dtype is None else f"{path}, whose voxels are {kind}",
            needed="one real number for each voxel",
            do="convert it to int16 or float32",
        )


def _bytes_of(header: Any) -> int:
    sizes = [int(n) for n in header["dim"][1:4]]
    return sizes[0] * sizes[1] * sizes[2] * int(header.get_data_dtype().itemsize)


def _offset(header: Any) -> int:
    given = float(header["vox_offset"])
    least = int(header["sizeof_hdr"]) + 4
    return int(given) if np.isfinite(given) and given >= least else least


def _voxels(path: Path, header: Any, dtype: np.dtype, shape: tuple[int, int, int], size: int) -> np.ndarray:
    # First index fastest on disk is last index fastest in (d, h, w): no transposition.
    array = np.empty(shape, dtype)
    flat: Any = array.reshape(-1).view(np.uint8)
    room = memoryview(flat)
    with _opened(path) as stream:
        stream.seek(_offset(header))
        filled = 0
        while filled < len(room):
            got = stream.readinto(room[filled : filled + (1 << 24)])
            if not got:
                raise truncated(path, _bytes_of(header))
            filled += got
        while stream.read(1 << 20):
            pass  # The checksum of gzip is only looked at where the stream ends.
    return array if dtype.isnative else array.byteswap(inplace=True).view(dtype.newbyteorder("="))


def _scaling(header: Any, path: Path) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):
        return 1.0, 0.0
    if not np.isfinite(slope) or not np.isfinite(intercept):
        raise Refused(
            found=f"{path}, whose scaling is {slope} and {intercept}",
            needed="a finite scl_slope and scl_inter",
            do="repair the header",
        )
    return slope, intercept


def _geometry(header: Any, path: Path) -> tuple[Geometry, tuple[str, ...]]:
    affine, warnings = _ras_affine(header, path)
    shape = tuple(int(n) for n in header["dim"][3:0:-1])
    unit, per_unit = _length_unit(header, path)
    if per_unit != 1.0:
        affine = affine.copy()
        affine[:3] *= per_unit
        warnings = (*warnings, f"the header's lengths are in {unit}; they were converted to mm")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or np.any(spacing < 1e-3) or np.any(spacing > 1e3):
        raise Refused(
            found=f"{path}, whose voxels measure {' x '.join(f'{s:.4g}' for s in spacing)} mm",
            needed="finite voxel sizes above zero that a scan can have",
            do="repair the voxel sizes (pixdim, sform) or the unit (xyzt_units) in its header",
        )
    lps = _LPS_FROM_RAS @ affine @ _IJK_FROM_DHW
    return Geometry((shape[0], shape[1], shape[2]), lps, stored=header), warnings


def _length_unit(header: Any, path: Path) -> tuple[str, float]:
    try:
        unit = str(header.get_xyzt_units()[0])
    except KeyError:
        unit = f"code {int(header['xyzt_units'])}"
    if unit not in _MM_PER_UNIT:
        raise Refused(
            found=f"{path}, whose lengths are in an unknown unit ({unit})",
            needed="mm (or metre, micron, unknown) in xyzt_units",
            do="set xyzt_units in its header",
        )
    return unit, _MM_PER_UNIT[unit]


def _ras_affine(header: Any, path: Path) -> tuple[Float[np.ndarray, "4 4"], tuple[str, ...]]:
    sform = np.asarray(header.get_sform(), float) if header["sform_code"] > 0 else None
    qform = _qform(header, path) if header["qform_code"] > 0 else None
    if sform is not None:
        if qform is not None:
            _refuse_two_places(header, sform, qform, path)
        return sform, ()
    if qform is not None:
        return qform, ()
    return np.asarray(_mended(header).get_base_affine(), float), (
        "the header does not say where the patient lies (sform and qform codes are 0): left and right are a guess, and "
        "places in mm only hold within this file",
    )


def _qform(header: Any, path: Path) -> Float[np.ndarray, "4 4"] | None:
    from nibabel.spatialimages import HeaderDataError

    try:
        return np.asarray(_mended(header).get_qform(), float)
    except (HeaderDataError, ValueError) as problem:
        raise Refused(
            found=f"{path}, whose qform is broken ({problem})",
            needed="a unit quaternion and voxel sizes above zero",
            do="repair the header, or set qform_code to 0 if the sform is right",
        ) from problem


def _mended(header: Any) -> Any:
    """A copy in which the sign of the third axis is valid: zero means +1 there."""
    copy = header.copy()
    if float(copy["pixdim"][0]) not in (1.0, -1.0):
        copy["pixdim"][0] = 1.0
    return copy


def _refuse_two_places(header: Any, sform: np.ndarray, qform: np.ndarray, path: Path) -> None:
    if abs(np.linalg.det(sform[:3, :3])) < 1e-12 or not np.isfinite(sform).all():
        return  # Refused for its voxel sizes below.
    shape = np.array([int(n) for n in header["dim"][1:4]])
    apart = _voxels_apart(sform, qform, shape)
    if apart <= 0.5:
        return
    # A qform cannot hold a shear (gantry tilt). One that is the nearest to such an sform does not contradict it.
    nearest = _mended(header)
    nearest.set_qform(sform, strip_shears=True)
    if _voxels_apart(qform, np.asarray(nearest.get_qform(), float), shape) <= 0.5:
        return
    centre = np.append((shape - 1) / 2, 1)
    places = [" ".join(f"{v:.1f}" for v in (affine @ centre)[:3]) for affine in (sform, qform)]
    raise Refused(
        found=f"{path}, whose sform and qform disagree by up to {apart:.1f} voxels (the middle of the scan lies at RAS "
        f"{places[0]} mm by the sform, at {places[1]} mm by the qform)",
        needed="one place for each voxel",
        do="keep the right one: set the code of the other (sform_code or qform_code) to 0",
    )


def _voxels_apart(first: np.ndarray, second: np.ndarray, shape: np.ndarray) -> float:
    corners = np.array(np.meshgrid(*[(0.0, n - 1.0) for n in shape])).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    return float(np.abs((np.linalg.solve(first, second) @ corners - corners)[:3]).max())


def _header_for(geometry: Geometry) -> Any:
    """The header that the grid came with, if it still says the same; else a new one."""
    import nibabel

    if isinstance(geometry.stored, nibabel.Nifti1Header):
        kept: Any = geometry.stored.copy()
        again, _ = _geometry(kept, Path("the header of the scan"))
        if again.shape == geometry.shape and np.array_equal(again.affine, geometry.affine):
            return _without_content(kept.as_byteswapped("<") if kept.endianness == ">" else kept)
    affine = _LPS_FROM_RAS @ geometry.affine @ _IJK_FROM_DHW
    header: Any = nibabel.Nifti2Header() if max(geometry.shape) > 32767 else nibabel.Nifti1Header()
    header["dim"][:4] = (3, *reversed(geometry.shape))
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner", strip_shears=True)
    header.set_xyzt_units("mm", "unknown")
    if not np.allclose(header.get_qform(), affine, atol=1e-3):
        header["qform_code"] = 0
    return header


def _without_content(header: Any) -> Any:
    """What the header says about space, without what it says about the voxels of that file."""
    for name in ("intent_code", "intent_p1", "intent_p2", "intent_p3", "slice_start", "slice_end", "slice_code"):
        header[name] = 0
    for name in ("descrip", "aux_file", "intent_name"):
        header[name] = b""
    return header
