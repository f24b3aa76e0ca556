"""Arrays on the wire of the nnInteractive protocol: a short header and blocks packed by blosc2."""

from __future__ import annotations

import struct

import numpy as np
from jaxtyping import Shaped

from lesionlocator.errors import Refused

_MAGIC, _VERSION = b"NNIA", 1
_ZSTD, _LZ4 = 1, 2
_BLOCK = 1 << 30
_KINDS = {"bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64", "int64"}


def pack_array(array: Shaped[np.ndarray, "..."]) -> bytes:
    """The array as bytes."""
    import blosc2

    array = np.ascontiguousarray(array)
    name = array.dtype.name.encode("ascii")
    raw = array.tobytes()
    starts = range(0, len(raw), _BLOCK)
    parts = [
        struct.pack(f"<4sBBBB{len(name)}s", _MAGIC, _VERSION, _ZSTD, array.ndim, len(name), name),
        struct.pack(f"<{array.ndim}q", *array.shape),
        struct.pack("<I", len(starts)),
    ]
    for start in starts:
        block = raw[start : start + _BLOCK]
        packed = blosc2.compress2(
            block,
            typesize=array.dtype.itemsize,
            codec=blosc2.Codec.ZSTD,
            clevel=3,
            filters=[blosc2.Filter.NOFILTER],
        )
        parts += [struct.pack("<QQ", len(block), len(packed)), packed]
    return b"".join(parts)


def unpack_array(packed: bytes, most_bytes: int) -> Shaped[np.ndarray, "..."]:
    """The array that was packed.

    Raises:
        Refused: The bytes are no such array, or one larger than may be sent.
    """
    import blosc2

    try:
        name, shape, offset = _head(packed)
        dtype = np.dtype(name)
        total = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if not 0 < total <= most_bytes:
            raise Refused(found=f"an array of {total} bytes", needed=f"1 to {most_bytes}", do="send a smaller image")
        (blocks,) = struct.unpack_from("<I", packed, offset)
        offset += 4
        out = np.empty(total // dtype.itemsize, dtype)
        filled = 0
        for _ in range(blocks):
            length, size = struct.unpack_from("<QQ", packed, offset)
            offset += 16
            block = packed[offset : offset + size]
            if len(block) != size or length % dtype.itemsize or filled + length > total:
                raise ValueError("a block that does not fit")
            if int(blosc2.get_cbuffer_sizes(block)[0]) != length:
                raise ValueError("a block that is larger than it says")
            blosc2.decompress2(block, dst=out[filled // dtype.itemsize : (filled + length) // dtype.itemsize])
            filled += length
            offset += size
        if filled != total:
            raise ValueError("blocks that are missing")
    except Refused:
        raise
    except (ValueError, struct.error, RuntimeError, TypeError, KeyError) as problem:
        raise Refused(
            found=f"a body that is no packed array ({problem})",
            needed="an array as the nnInteractive client packs it",
            do="update the client",
        ) from problem
    return out.reshape(shape)


def _head(packed: bytes) -> tuple[str, tuple[int, ...], int]:
    magic, version, codec, dimensions, length = struct.unpack_from("<4sBBBB", packed, 0)
    name = packed[8 : 8 + length].decode("ascii", "replace")
    if magic != _MAGIC or version != _VERSION or codec not in {_ZSTD, _LZ4} or not 1 <= dimensions <= 4:
        raise ValueError("its header is not ours")
    if name not in _KINDS:
        raise ValueError(f"numbers of the kind {name[:20]!r}")
    shape = struct.unpack_from(f"<{dimensions}q", packed, 8 + length)
    if min(shape) < 1 or max(shape) > 1 << 20:
        raise ValueError("sizes that cannot be")
    return name, shape, 8 + length + 8 * dimensions
