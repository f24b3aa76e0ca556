"""Scans that are open: read once, kept while there is room, together with what was worked out about them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lesionlocator.align import Aligner, Kept
from lesionlocator.geometry import Alignment
from lesionlocator.segment import Prepared, Segmenter
from lesionlocator.volume import Volume

_ALIGNMENTS = 64


@dataclass(frozen=True, eq=False)
class _Open:
    volume: Volume
    prepared: Prepared


class Shelf:
    """Open scans, and the alignments between them. Safe to use from several threads.

    Args:
        read: Reads the scan at a path.
        segmenter: Makes scans ready.
        aligner: Brings two scans together.
        room: Bytes of voxels that may be kept; the scan last used always is.
    """

    def __init__(self, read: Callable[[Path], Volume], segmenter: Segmenter, aligner: Aligner, room: int) -> None:
        self._read, self._segmenter, self._aligner, self._room = read, segmenter, aligner, room
        self._scans: OrderedDict[Path, _Open] = OrderedDict()
        self._alignments = Kept(_ALIGNMENTS)
        self._lock = threading.Lock()
        self._reading: dict[object, threading.Lock] = {}

    def volume(self, path: Path) -> Volume:
        """The voxels of the scan at a path."""
        return self._open(path).volume

    def prepared(self, path: Path) -> Prepared:
        """The scan made ready for the segmenter."""
        return self._open(path).prepared

    def alignment(self, baseline: Path, followup: Path) -> Alignment:
        """How two scans correspond; worked out on first need."""
        return self._alignments.get(
            (baseline, followup), lambda: self._aligner(self.volume(baseline), self.volume(followup))
        )

    def known_alignment(self, baseline: Path, followup: Path) -> Alignment | None:
        """The alignment, if it has been worked out since the start."""
        return self._alignments.known((baseline, followup))

    @property
    def open_bytes(self) -> int:
        """Memory that the voxels of open scans take."""
        with self._lock:
            return sum(scan.volume.array.nbytes for scan in self._scans.values())

    def _open(self, path: Path) -> _Open:
        with self._lock_of(path):
            with self._lock:
                if path in self._scans:
                    self._scans.move_to_end(path)
                    return self._scans[path]
            volume = self._read(path)
            opened = _Open(volume, self._segmenter.prepare(volume))
            with self._lock:
                self._scans[path] = opened
                while len(self._scans) > 1 and self._too_much():
                    self._scans.popitem(last=False)
            return opened

    def _too_much(self) -> bool:
        return sum(scan.volume.array.nbytes for scan in self._scans.values()) > self._room

    def _lock_of(self, key: object) -> threading.Lock:
        with self._lock:
            return self._reading.setdefault(key, threading.Lock())
