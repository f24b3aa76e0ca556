"""What a finished case leaves behind, and the document of it that a reader signs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lesionlocator.report.outputs import (
        LINK_COLUMNS,
        RUN_FILE,
        Record,
        label_numbers,
        link_rows,
        table,
        write_report,
        write_text,
    )

__all__ = [
    "LINK_COLUMNS",
    "RUN_FILE",
    "Record",
    "label_numbers",
    "link_rows",
    "table",
    "write_report",
    "write_text",
]


def __getattr__(name: str) -> Any:
    # Looked up when first used, so that the settings of the command can be read without what writes files.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("lesionlocator.report.outputs"), name)
