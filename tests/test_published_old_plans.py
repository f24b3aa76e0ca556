"""The plans of before December 2025 (spline order 3, thick slices apart): our resampling beside nnU-Net's own.

`parity/old_plans.npz` holds what nnU-Net made of made-up scans; `parity/make_old_plans.py` writes it again.
"""

from __future__ import annotations

import json
import runpy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("skimage")

import parity_cases as parity  # noqa: E402
from lesionlocator.geometry import Geometry  # noqa: E402
from lesionlocator.published.plans import read_plans  # noqa: E402
from lesionlocator.published.scan import PlannedScan  # noqa: E402
from lesionlocator.volume import Mask, Volume  # noqa: E402

MADE = runpy.run_path(str(parity.FOLDER / "make_old_plans.py"))
CASES = list(MADE["CASES"])


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """The plans as the older files have them, at the published spacing."""
    folder = tmp_path_factory.mktemp("old")
    content = parity.plans()
    chosen = content["configurations"]["3d_fullres"]
    chosen["spacing"] = list(MADE["SPACING_MM"])
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        chosen[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        chosen[f"resampling_fn_{what}_kwargs"] = {
            "is_seg": what == "seg",
            "order": order,
            "order_z": 0,
            "force_separate_z": None,
        }
    (folder / "plans.json").write_text(json.dumps(content))
    (folder / "dataset.json").write_text((parity.FOLDER / "dataset.json").read_text())
    return read_plans(folder)


def case(name, plans):
    """The scan made ready, its label map and grid, and what nnU-Net made of them."""
    array, labels = MADE["made_up"](name)
    shape, spacing = MADE["CASES"][name]
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]], affine[3, 3] = spacing, 1
    geometry = Geometry(shape, affine)
    with np.load(parity.FOLDER / "old_plans.npz") as stored:
        expected = {what: stored[f"{name}/{what}"] for what in ("scan", "labels", "outline")}
    return PlannedScan(Volume(array, geometry, "CT"), plans), labels, geometry, expected


@pytest.mark.parametrize("name", CASES)
def test_a_scan_is_resampled_as_nnu_net_does_as_a_whole_and_in_parts(name, plans):
    scan, _, _, expected = case(name, plans)
    assert scan.shape == expected["scan"].shape
    whole = scan.region(tuple((0, n) for n in scan.shape))
    assert np.abs(whole - expected["scan"]).max() < 1e-4
    part = scan.region(((2, 9), (5, 20), (0, 7)))
    assert np.abs(part - expected["scan"][2:9, 5:20, :7]).max() < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_the_registration_looks_at_the_scan_as_nnu_net_resampled_it(name, plans):
    scan, _, _, expected = case(name, plans)
    slices = torch.from_numpy(expected["scan"])[:, None]
    small = torch.nn.functional.interpolate(slices, (11, 11), mode="bilinear", align_corners=False)[:, 0]
    assert np.abs(scan.flattened(11) - small.numpy()).max() < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_label_maps_are_resampled_as_nnu_net_does(name, plans):
    scan, labels, geometry, expected = case(name, plans)
    for label in (1, 2):
        start, array = scan.mask(Mask.from_array(labels == label, geometry))
        found = np.zeros(scan.shape, bool)
        found[tuple(slice(a, a + n) for a, n in zip(start, array.shape, strict=True))] = array
        assert (expected["labels"] == label).any()
        # Where two lesions share a voxel by halves, nnU-Net gives it to the later one; each of ours has it.
        assert np.array_equal(found & (expected["labels"] != 3 - label), expected["labels"] == label)


@pytest.mark.parametrize("name", CASES)
def test_logits_come_back_to_the_scan_as_nnu_net_brings_them(name, plans):
    scan, _, geometry, expected = case(name, plans)
    logits = MADE["logits_of"](scan.shape)
    outline = scan.outlined(logits[1] - logits[0], (0, 0, 0), None).on(geometry)[1:-1, 1:-1, 1:-1]
    assert np.array_equal(outline, expected["outline"])
