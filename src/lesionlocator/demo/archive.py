"""Public scans with tumours, fetched once with pip and kept in the user's cache."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from lesionlocator.errors import Refused

_REQUIREMENT = "pyradiomics==3.0.1"
_FILE = "pyradiomics-3.0.1.tar.gz"
_SHA256 = "47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5"
_MEMBER = "pyradiomics-3.0.1/data/{name}_{part}.nrrd"

PUBLIC_SCANS: dict[str, str] = {
    "lung1": "chest CT, lung tumour of 1 ml",
    "lung2": "chest CT, lung tumour of 48 ml",
    "brain1": "brain MR, tumour of 16 ml",
    "brain2": "brain MR, tumour of 2 ml",
}
"""Scans of the archive, BSD licence (Computational Imaging & Bioinformatics Lab, Harvard Medical School)."""

# pip asks every source archive for its metadata before it keeps it, which runs the archive's set-up script and what
# that needs. Only the file is wanted here, so pip finds this in place of the builder: nothing of the archive is run.
_BUILDER = """
import pathlib, sys

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = pathlib.Path(metadata_directory) / "pyradiomics-3.0.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: pyradiomics\\nVersion: 3.0.1\\n")
    return folder.name

__legacy__ = sys.modules[__name__]
"""


class Damaged(Refused):
    """The archive was fetched twice and is not the one that is expected."""


def cache_folder() -> Path:
    """Where fetched scans stay: the user's cache."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("lesionlocator", appauthor=False)) / "public-scans"


def public_scans(cache: Path) -> dict[str, tuple[Path, Path]]:
    """Image and label of every public scan by name; fetched on first use, later without a network.

    Raises:
        Refused: the archive is not in the cache and cannot be fetched.
        Damaged: what was fetched is not the archive, twice.
    """
    archive = _fetched(cache)
    paths = {name: (cache / f"{name}_image.nrrd", cache / f"{name}_label.nrrd") for name in PUBLIC_SCANS}
    with tarfile.open(archive) as tar:
        for name, places in paths.items():
            for part, place in zip(("image", "label"), places, strict=True):
                _extract(tar, _MEMBER.format(name=name, part=part), place)
    return paths


def in_cache(cache: Path) -> bool:
    """Whether the archive is there, so that no network is needed."""
    return _is_sound(cache / _FILE)


def _fetched(cache: Path) -> Path:
    archive = cache / _FILE
    if _is_sound(archive):
        return archive
    cache.mkdir(parents=True, exist_ok=True)
    for again in (False, True):
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            # Whole path: pip runs in that folder, where a relative one would mean another place.
            arrived = _download(Path(folder).resolve(), again=again)
            if _is_sound(arrived):
                arrived.replace(archive)
                return archive
    raise Damaged(
        found=f"a damaged {_FILE}, twice",
        needed=f"the archive with the checksum {_SHA256[:12]}...",
        do="try again later, or ask whoever runs the package mirror that pip uses",
    )


def _download(folder: Path, *, again: bool) -> Path:
    """The archive as pip brings it, so that the user's mirrors, proxies and certificates are respected."""
    builder = folder / "builder" / "setuptools"
    builder.mkdir(parents=True)
    (builder / "__init__.py").touch()
    (builder / "build_meta.py").write_text(_BUILDER)
    search = os.pathsep.join(filter(None, (str(builder.parent), os.environ.get("PYTHONPATH"))))
    command = [*_pip(), "download", "--no-deps", "--no-binary", "pyradiomics", "--no-build-isolation", "--use-pep517"]
    command += ["--ignore-requires-python", "--retries", "1", "--timeout", "15", "--disable-pip-version-check"]
    command += ["--no-cache-dir"] * again + ["--dest", str(folder), _REQUIREMENT]
    try:
        environment = {**os.environ, "PYTHONPATH": search}
        done = subprocess.run(
            command, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=160
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unreachable(type(error).__name__) from error
    if done.returncode:
        raise _unreachable(_what_pip_said(done.stderr))
    if not (folder / _FILE).is_file():
        raise _unreachable(f"pip brought no {_FILE}")
    return folder / _FILE


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip3") or shutil.which("pip")
    if found is None:
        raise _unreachable("pip is not installed")
    return [found]


def _unreachable(why: str) -> Refused:
    return Refused(
        found=f"no way to fetch the public scans ({why})",
        needed="pip and a network, once",
        do="check the connection or pip's proxy settings",
    )


def _what_pip_said(stderr: str) -> str:
    # Without a network pip warns of the broken connection, and then only says that it found no such package.
    if "connection broken" in stderr:
        return "no connection to the package index"
    lines = [line.strip() for line in stderr.splitlines() if line.startswith("ERROR:")]
    return lines[-1].removeprefix("ERROR:").strip()[:160] if lines else "pip failed"


def _is_sound(archive: Path) -> bool:
    if not archive.is_file():
        return False
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == _SHA256


def _extract(tar: tarfile.TarFile, member: str, place: Path) -> None:
    entry = tar.getmember(member)
    if place.is_file() and place.stat().st_size == entry.size:
        return
    data = tar.extractfile(entry)
    if data is None:
        raise Damaged(
            found=f"no {member} in the archive", needed="the whole archive", do="empty the cache and try again"
        )
    # By rename, so that an interrupted run leaves no half file behind.
    arriving = place.with_suffix(f".{os.getpid()}.part")
    with data, arriving.open("wb") as file:
        shutil.copyfileobj(data, file)
    arriving.replace(place)
