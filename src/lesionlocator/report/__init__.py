"""What a finished case leaves behind, and the document of it that a reader signs."""

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
