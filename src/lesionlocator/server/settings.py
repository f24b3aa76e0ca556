"""What `serve` is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lesionlocator.weights import DEFAULT_MODEL


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Where the page is served, to whom, and what may be used up."""

    port: int = 8787
    """Port; 0 takes a free one and says which."""
    token: str | None = None
    """Whoever has it may read and change every case. Default: a new random one, printed at the start."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than loopback is for networks that you trust, or with TLS."""
    certificate: Path | None = None
    """Certificate (PEM) for TLS; with `key`."""
    key: Path | None = None
    """Private key (PEM) for TLS."""
    state: Path | None = None
    """Folder for what readers do: prompts, outlines, decisions. Default: one in the user's data folder."""
    model: str = DEFAULT_MODEL
    """Name of a model (see `lesionlocator models`), or a model folder."""
    device: str = "auto"
    """Where the model runs: cpu, cuda. Default: a GPU if the model can use one."""
    align: str | None = None
    """How scans are brought together. Default: as `track` does."""
    modality: Literal["CT", "MR", "PT"] | None = None
    """Modality of the scans. Default: what DICOM says, else guessed from the values, with a warning."""
    upload_mb: int = 2000
    """Largest upload, in millions of bytes."""
    memory_mb: int = 4000
    """Scans kept open at most, in millions of bytes."""
    queue: int = 64
    """Jobs that may wait; beyond that the server says so (503)."""
    sessions: int = 16
    """Viewers of other makers (nnInteractive clients) served at once."""
    open: bool = False
    """Open the page in the browser when the server is up."""
