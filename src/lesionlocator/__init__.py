"""Outline any tumour in a 3D scan from one click or box, and follow it through every later scan."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lesionlocator.case import Case
    from lesionlocator.errors import Refused
    from lesionlocator.formats import read_case, read_volume
    from lesionlocator.geometry import Geometry
    from lesionlocator.measure import measure_case
    from lesionlocator.prompt import Box, Click, Line
    from lesionlocator.report import write_report
    from lesionlocator.segment import load_segmenter
    from lesionlocator.segment.visit import segment_case
    from lesionlocator.track import track_case
    from lesionlocator.volume import Mask, Volume

__version__ = "0.1.0"

__all__ = [
    "Box",
    "Case",
    "Click",
    "Geometry",
    "Line",
    "Mask",
    "Refused",
    "Volume",
    "load_segmenter",
    "measure_case",
    "read_case",
    "read_volume",
    "segment_case",
    "track_case",
    "write_report",
]

_HOMES = {
    "Box": "prompt",
    "Case": "case",
    "Click": "prompt",
    "Geometry": "geometry",
    "Line": "prompt",
    "Mask": "volume",
    "Refused": "errors",
    "Volume": "volume",
    "load_segmenter": "segment",
    "measure_case": "measure",
    "read_case": "formats",
    "read_volume": "formats",
    "segment_case": "segment.visit",
    "track_case": "track",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    # A public name is looked up when it is first used, so that importing the package costs nothing.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
