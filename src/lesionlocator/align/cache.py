"""One map for each pair of scans: an aligner that answers from memory, or from a store, what it was asked before."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from lesionlocator.geometry import Alignment
from lesionlocator.volume import Volume

VERSION = 2
"""Raised whenever an aligner's answers change, so that no older answer is taken for today's."""
_SLICE_BYTES = 2**24


@runtime_checkable
class Store(Protocol):
    """Where alignments outlive a run. `kept_maps.MapFolder` is one, on disk."""

    def get(self, key: str) -> Alignment | None:
        """What was put under this key; None when nothing was, or nothing whole is left."""
        ...

    def put(self, key: str, alignment: Alignment) -> None:
        """Keeps it if it can."""
        ...


def cached(
    aligner: Callable[[Volume, Volume], Alignment], store: Store | None = None, name: str | None = None
) -> Callable[[Volume, Volume], Alignment]:
    """The same aligner, which aligns no pair twice.

    A pair is known again by its content (voxels, geometry, modality) and the aligner's name, not by file names.

    Args:
        aligner: What to ask when the answer is not known.
        store: Where answers are kept between runs. Without one they end with the run.
        name: What to call the aligner in the key; the function's own name where it has one.
    """
    called = name or getattr(aligner, "__qualname__", repr(aligner))
    known: dict[str, Alignment] = {}
    lock = threading.Lock()

    def ask(baseline: Volume, followup: Volume) -> Alignment:
        key = pair_key(baseline, followup, called)
        # The second of two threads with the same pair waits for the first.
        with lock:
            if key not in known:
                found = None if store is None else store.get(key)
                if found is None:
                    found = aligner(baseline, followup)
                    if store is not None:
                        store.put(key, found)
                known[key] = found
            return known[key]

    return ask


def pair_key(baseline: Volume, followup: Volume, name: str) -> str:
    """A name for this pair of scans under this aligner: the same content gives the same name."""
    digest = hashlib.blake2b(f"{VERSION} {name}".encode(), digest_size=20)
    for volume in (baseline, followup):
        geometry = np.ascontiguousarray(volume.geometry.affine, dtype="<f8").tobytes()
        digest.update(f" {volume.modality} {volume.array.dtype.str} {volume.array.shape} ".encode() + geometry)
        rows = max(1, _SLICE_BYTES // max(1, volume.array[:1].nbytes))
        for first in range(0, len(volume.array), rows):
            digest.update(np.ascontiguousarray(volume.array[first : first + rows]).tobytes())
    return digest.hexdigest()
