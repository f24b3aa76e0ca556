"""Scans, masks and prompt files: the only part that reads them from disk and writes them there."""

from lesionlocator.formats.case_folder import (
    checksum,
    find_case_files,
    list_case_files,
    open_case,
    open_masks,
    read_case,
    scan_names,
    scan_stem,
)
from lesionlocator.formats.masks import (
    WRITERS,
    LabelMap,
    label_masks,
    on_one_grid,
    read_label_map,
    write_labels,
    write_mask,
    write_volume,
)
from lesionlocator.formats.prompt_file import write_prompts
from lesionlocator.formats.prompts import read_prompts
from lesionlocator.formats.rtstruct import read_rtstruct
from lesionlocator.formats.scans import READERS, open_timepoint, read_geometry, read_volume, scan_checksum, series_of

__all__ = [
    "READERS",
    "WRITERS",
    "LabelMap",
    "checksum",
    "find_case_files",
    "label_masks",
    "on_one_grid",
    "list_case_files",
    "open_case",
    "open_masks",
    "open_timepoint",
    "read_case",
    "read_geometry",
    "read_label_map",
    "read_prompts",
    "read_rtstruct",
    "read_volume",
    "scan_checksum",
    "scan_names",
    "scan_stem",
    "series_of",
    "write_labels",
    "write_mask",
    "write_prompts",
    "write_volume",
]
