"""Scans and outlines as bytes that a browser's viewer reads: NIfTI, uncompressed, without what a header may tell."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from jaxtyping import Shaped

from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask, Volume

_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DHW_FROM_IJK = np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
_CODES = {"uint8": (2, 8), "int16": (4, 16), "float32": (16, 32)}
_BLOCK = 4_000_000


def scan_bytes(volume: Volume) -> tuple[int, Iterator[bytes]]:
    """How many bytes a scan has as NIfTI, and the bytes piece by piece."""
    array = volume.array
    if array.dtype.name not in {"int16", "uint8", "float32"}:
        fits = array.dtype.kind in "biu" and array.min() >= -32768 and array.max() <= 32767
        array = array.astype(np.int16 if fits else np.float32)
    head = _header(array, volume.geometry)
    return len(head) + array.nbytes, _pieces(head, array)


def mask_bytes(mask: Mask) -> bytes:
    """An outline as NIfTI: its own crop with a border of one empty voxel, in its place in the patient."""
    d, h, w = mask.geometry.shape
    padded = mask.geometry.crop((-1, -1, -1), (d + 1, h + 1, w + 1))
    array = np.pad(mask.array.view(np.uint8), 1)
    return _header(array, padded) + array.tobytes()


def _pieces(head: bytes, array: Shaped[np.ndarray, "d h w"]) -> Iterator[bytes]:
    yield head
    flat = np.ascontiguousarray(array).reshape(-1)
    step = max(1, _BLOCK // flat.itemsize)
    for start in range(0, len(flat), step):
        yield flat[start : start + step].astype(flat.dtype.newbyteorder("<"), copy=False).tobytes()


def _header(array: Shaped[np.ndarray, "d h w"], geometry: Geometry) -> bytes:
    """A NIfTI-1 header. The first index of the file runs fastest: it is the last axis of the array."""
    code, bits = _CODES[array.dtype.name]
    affine = _RAS_FROM_LPS @ geometry.affine @ _DHW_FROM_IJK
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *reversed(array.shape), 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, code, bits)
    struct.pack_into("<8f", head, 76, 1.0, *spacing, 1.0, 1.0, 1.0, 1.0)
    struct.pack_into("<3f", head, 108, 352.0, 1.0, 0.0)
    head[123] = 2  # millimetres
    struct.pack_into("<2h", head, 252, 0, 1)
    struct.pack_into("<12f", head, 280, *affine[:3].reshape(-1))
    head[344:348] = b"n+1\0"
    return bytes(head)
