"""Broken headers, by accident or on purpose: refused by name or read, never a crash, nothing written astray."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_phantoms import one_slice
from dicom_visits import block, finished, noise, write_visit
from lesionlocator.cli import run
from lesionlocator.errors import Refused
from lesionlocator.export.run import run_export
from lesionlocator.export.settings import ExportSettings
from lesionlocator.formats import read_geometry, read_prompts, read_volume
from lesionlocator.formats.dicom_series import find_series

FILES = 500
PIXELS = noise((3, 6, 5))
PATH_LIKE = ("../../../escaped", "/escaped", "C:\\escaped", "..\\..\\escaped", "a/../../escaped", "escaped\0.dcm")


def bytes_of(folder: Path) -> bytes:
    made = one_slice(PIXELS[1], (0, 0, 3), StudyInstanceUID="1.2.3", PatientID="p", RescaleSlope=1, RescaleIntercept=0)
    made.add_new(0x00091010, "LO", "private words")
    made.save_as(folder / "whole.dcm", enforce_file_format=True)
    whole = (folder / "whole.dcm").read_bytes()
    (folder / "whole.dcm").unlink()
    return whole


def corrupted(whole: bytes, random: np.random.Generator) -> bytes:
    """The file with one kind of damage, drawn."""
    damage = [flipped, cut, wrong_length, huge, private, renamed, doubled, noisy][random.integers(8)]
    return damage(bytearray(whole), random)


def flipped(data: bytearray, random) -> bytes:
    for _ in range(int(random.integers(1, 12))):
        data[int(random.integers(132, len(data)))] ^= 1 << int(random.integers(8))
    return bytes(data)


def cut(data: bytearray, random) -> bytes:
    return bytes(data[: int(random.integers(0, len(data)))])


def wrong_length(data: bytearray, random) -> bytes:
    """A value that says it is longer or shorter than it is."""
    at = int(random.integers(150, len(data) - 8))
    data[at : at + 2] = struct.pack("<H", int(random.choice([0, 1, 0xFFFF, 0x7FFF, 300])))
    return bytes(data)


def huge(data: bytearray, random) -> bytes:
    """Rows and columns of 65,535."""
    for tag in (b"\x28\x00\x10\x00US", b"\x28\x00\x11\x00US"):
        at = bytes(data).index(tag) + 8
        data[at : at + 2] = b"\xff\xff"
    return bytes(data)


def private(data: bytearray, random) -> bytes:
    """A private group whose contents are random, in the middle of the header."""
    at = bytes(data).index(b"\x28\x00\x02\x00")
    inside = random.bytes(int(random.integers(0, 40)))
    length = int(random.choice([len(inside), 2 * len(inside) + 1, 0xFFFE]))
    return bytes(data[:at]) + b"\x09\x00\x11\x10UN\0\0" + struct.pack("<I", length) + inside + bytes(data[at:])


def renamed(data: bytearray, random) -> bytes:
    """An identifier that looks like a path."""
    made = pydicom.dcmread(pydicom.filebase.DicomBytesIO(bytes(data)))
    words = str(random.choice(PATH_LIKE[:5]))
    for name in ("SeriesDescription", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        element = made.data_element(name) if name in made else None
        if element is not None and random.random() < 0.6:
            made[name] = pydicom.DataElement(element.tag, "LO", words)
    out = pydicom.filebase.DicomBytesIO()
    made.save_as(out)
    return out.getvalue()


def doubled(data: bytearray, random) -> bytes:
    start, stop = sorted(int(v) for v in random.integers(132, len(data), 2))
    return bytes(data[:stop]) + bytes(data[start:])


def noisy(data: bytearray, random) -> bytes:
    at = int(random.integers(128, len(data) - 30))
    data[at : at + 30] = random.bytes(30)
    return bytes(data)


@pytest.fixture(scope="module")
def attacks(tmp_path_factory) -> Path:
    """500 damaged files, each with its own kind of damage."""
    folder = tmp_path_factory.mktemp("attacks") / "export"
    folder.mkdir()
    random = np.random.default_rng(20241123)
    whole = bytes_of(folder)
    for number in range(FILES):
        (folder / f"attack_{number:03d}.dcm").write_bytes(corrupted(whole, random))
    return folder


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_slice_is_read_or_refused_by_name_and_never_a_crash(attacks, tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    for d in (0, 2):
        one_slice(PIXELS[d], (0, 0, 3 * d), StudyInstanceUID="1.2.3").save_as(series / f"{d}.dcm")
    refused = 0
    for attack in sorted(attacks.iterdir()):
        (series / attack.name).write_bytes(attack.read_bytes())
        try:
            assert read_volume(series).array.shape[1:] == (6, 5)
        except Refused as problem:
            refused += 1
            assert attack.name in problem.found or "series" in problem.found, problem
        (series / attack.name).unlink()
    assert refused > FILES / 3


@pytest.mark.filterwarnings("ignore")
def test_the_list_of_series_names_every_damaged_file(attacks):
    found = find_series(attacks)
    told = " ".join([*found.problems, *found.others])
    kept = {file.path.name for series in found.series for file in series.files}
    for attack in attacks.iterdir():
        assert attack.name in kept or attack.name in told
    assert len(found.problems) > FILES / 10
    for series in found.series:
        assert isinstance(series.flaw, str)


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_outline_is_refused_by_name(tmp_path):
    ct = write_visit(tmp_path / "ct", noise((4, 9, 8)))
    geometry = read_geometry(ct)
    out = finished(tmp_path / "out", [ct], [{"1": block(geometry, (1, 3), (2, 6), (2, 6))}])
    run_export(out, ExportSettings(to="dicom-seg,rtstruct", out=tmp_path / "dicom"))
    random = np.random.default_rng(7)
    for name in ("ct_seg.dcm", "ct_rtstruct.dcm"):
        whole = (tmp_path / "dicom" / name).read_bytes()
        for number in range(20):
            damage = [flipped, cut, wrong_length, doubled, noisy][number % 5]
            path = tmp_path / f"attack_{number}.dcm"
            path.write_bytes(damage(bytearray(whole), random))
            try:
                read_prompts(path, geometry)
            except Refused as problem:
                assert path.name in str(problem) or "segment" in str(problem)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("words", PATH_LIKE[:5])
def test_identifiers_that_look_like_paths_lead_nowhere(tmp_path, words, capsys):
    inside = tmp_path / "a" / "b" / "c"
    ct = write_visit(inside / "ct", noise((4, 9, 8)), PatientID=words, SeriesDescription=words, AccessionNumber=words)
    geometry = read_geometry(ct)
    out = finished(inside / "out", [ct], [{"1": block(geometry, (1, 3), (2, 6), (2, 6))}])
    before = {path for path in tmp_path.rglob("*") if inside not in path.parents}
    to = "dicom-seg,dicom-labelmap,dicom-sr,rtstruct,nrrd,sdtm"
    assert run(["export", str(out), "--to", to, "--out", str(inside / "x")]) == 0
    assert run(["series", str(ct)]) == 0
    assert {path for path in tmp_path.rglob("*") if inside not in path.parents} == before
    assert all(path.parent == inside / "x" for path in (inside / "x").rglob("*"))
    assert not Path("/escaped").exists()
