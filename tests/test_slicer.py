"""The recipe for 3D Slicer: the commands of its page, on markups as Slicer writes them, give a segmentation for it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from files import LEFT, RIGHT
from lesionlocator.cli import main
from visits import ball_mask, grid, scan

PAGE = Path(__file__).resolve().parents[1] / "docs" / "slicer.md"


def commands(word: str) -> list[list[str]]:
    """What the page calls of one command, without the program's name."""
    return [
        shlex.split(line)[1:] for line in re.findall(rf"^\s+(lesionlocator {word} .+)$", PAGE.read_text(), re.MULTILINE)
    ]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A CT as NRRD, and a point list that Slicer saved: one point in each of two lesions, in LPS as it writes them."""
    volume = scan([LEFT, RIGHT], grid(), 1)
    image = sitk.GetImageFromArray(np.asarray(volume.array))
    image.SetSpacing((1.5, 1.5, 2.5))
    image.SetOrigin(tuple(volume.geometry.affine[:3, 3]))
    sitk.WriteImage(image, tmp_path / "scan.nrrd")
    points = [
        {"id": str(number), "label": f"F-{number}", "position": [ball.x, ball.y, ball.z], "positionStatus": "defined"}
        for number, ball in enumerate((LEFT, RIGHT), start=1)
    ]
    markups = [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": points}]
    (tmp_path / "lesions.mrk.json").write_text(json.dumps({"markups": markups}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_points_from_slicer_come_back_as_a_segmentation_in_their_place(desk):
    (segment,) = commands("segment")
    (export,) = commands("export")
    for words in (segment, export):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--modality", "CT"] if words is segment else words)
        assert ended.value.code == 0
    (found,) = (desk / "objects").rglob("*.seg.nrrd")
    image = sitk.ReadImage(found)
    names = {image.GetMetaData(key) for key in image.GetMetaDataKeys() if re.fullmatch(r"Segment\d+_Name", key)}
    assert len(names) == 2
    assert all(any(label in name for name in names) for label in ("F-1", "F-2"))
    at = {
        name: image.TransformPhysicalPointToIndex((ball.x, ball.y, ball.z))
        for name, ball in (("1", LEFT), ("2", RIGHT))
    }
    labels = {name: image[place] for name, place in at.items()}
    assert 0 not in labels.values()
    assert labels["1"] != labels["2"]
    size = (sitk.GetArrayFromImage(image) == labels["1"]).sum()
    assert size == pytest.approx(ball_mask(LEFT, grid()).voxels, rel=0.3)


def test_the_page_names_only_options_that_the_server_has(capsys):
    said = set(re.findall(r"`?(--[a-z]+)", PAGE.read_text().split("## Clicks")[1]))
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert said <= known
