"""No pair of scans is aligned twice: answers are kept for the run by any key, and for later runs by their content."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from importlib import metadata
from typing import Protocol, runtime_checkable

import numpy as np

from lesionlocator.geometry import Alignment
from lesionlocator.volume import Volume

VERSION = 3
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


class Kept:
    """Alignments in memory, each worked out once, whoever asks first. Safe to use from several threads.

    Args:
        most: How many are kept; the one that nobody asked for longest goes first. None: all.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._known: OrderedDict[Hashable, Alignment] = OrderedDict()
        self._working: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def known(self, key: Hashable) -> Alignment | None:
        """The alignment, if it has been worked out; never waits for one that is being worked out."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def get(self, key: Hashable, work: Callable[[], Alignment]) -> Alignment:
        """The alignment; worked out if it is not known. Of two who ask at once, the second waits for the first."""
        with self._lock:
            working = self._working.setdefault(key, threading.Lock())
        with working:
            found = self.known(key)
            if found is None:
                found = work()
                with self._lock:
                    self._known[key] = found
                    while self._most is not None and len(self._known) > self._most:
                        self._working.pop(self._known.popitem(last=False)[0], None)
            return found


def cached(
    aligner: Callable[[Volume, Volume], Alignment], store: Store, name: str
) -> Callable[[Volume, Volume], Alignment]:
    """The same aligner, which asks a store first and keeps its answers there.

    A pair is known again by its content (voxels, geometry, modality) and the aligner's name, not by file names.
    """

    def ask(baseline: Volume, followup: Volume) -> Alignment:
        key = pair_key(baseline, followup, name)
        found = store.get(key)
        if found is None:
            found = aligner(baseline, followup)
            store.put(key, found)
        return found

    return ask


def pair_key(baseline: Volume, followup: Volume, name: str) -> str:
    """A name for this pair of scans under this aligner of this version: the same content gives the same name."""
    made_by = f"{VERSION} {metadata.version('lesionlocator')} {name}"
    digest = hashlib.blake2b(made_by.encode(), digest_size=20)
    for volume in (baseline, followup):
        geometry = np.ascontiguousarray(volume.geometry.affine, dtype="<f8").tobytes()
        digest.update(f" {volume.modality} {volume.array.dtype.str} {volume.array.shape} ".encode() + geometry)
        rows = max(1, _SLICE_BYTES // max(1, volume.array[:1].nbytes))
        for first in range(0, len(volume.array), rows):
            digest.update(np.ascontiguousarray(volume.array[first : first + rows]).tobytes())
    return digest.hexdigest()
