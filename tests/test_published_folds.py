"""Published models with real networks: several folds, the old track command and evaluation, beside the plain way."""

from __future__ import annotations

import json
import runpy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

import parity_cases as parity  # noqa: E402
from lesionlocator import cli, old_commands  # noqa: E402
from lesionlocator.case import Case, Lesion, Status, Timepoint  # noqa: E402
from lesionlocator.formats import label_masks, read_label_map  # noqa: E402
from lesionlocator.network.checkpoint import load_weights, parts_of_tracker, read_checkpoint  # noqa: E402
from lesionlocator.network.residual_unet import ResidualUNet  # noqa: E402
from lesionlocator.network.tracker import Tracker  # noqa: E402
from lesionlocator.prompt import Shape  # noqa: E402
from lesionlocator.published import following  # noqa: E402
from lesionlocator.published.ensemble import PARTS, Effort, Ensemble  # noqa: E402
from lesionlocator.published.following import follow_all  # noqa: E402
from lesionlocator.published.outlining import outline_all  # noqa: E402
from lesionlocator.published.prompts import paint  # noqa: E402
from lesionlocator.published.scan import PlannedScan  # noqa: E402
from lesionlocator.published.windows import windows_for  # noqa: E402
from lesionlocator.segment import load_segmenter  # noqa: E402
from lesionlocator.track import track_case  # noqa: E402

pytestmark = [pytest.mark.xdist_group("published"), pytest.mark.slow]

SMALL = (66, 66, 66)
"""The registration's grid in these tests: at 175 one map takes a quarter of a minute."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The parity checkpoint with a second fold: other values in every U-Net, a registration that moves further."""
    values = runpy.run_path(str(parity.FOLDER / "make_checkpoint.py"))["values"]
    root = tmp_path_factory.mktemp("folds")
    for part in (PARTS["box"], PARTS["track"]):
        source, folder = parity.checkpoint() / part, root / part
        (folder / "fold_1").mkdir(parents=True)
        (folder / "fold_0").symlink_to(source / "fold_0")
        for name in ("plans.json", "dataset.json"):
            (folder / name).write_text((source / name).read_text())
        weights, said = read_checkpoint(source / "fold_0" / "checkpoint_final.pth")
        for name, tensor in weights.items():
            if name.startswith("reg_net") and "lastConv" in name:
                weights[name] = tensor * 1.5
            elif not name.startswith("reg_net"):
                weights[name] = values(f"fold_1.{name}", list(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        torch.save({"network_weights": weights, **said}, folder / "fold_1" / "checkpoint_final.pth")
    return root


def weights_of(checkpoint, part, fold):
    return read_checkpoint(checkpoint / PARTS[part] / f"fold_{fold}" / "checkpoint_final.pth")[0]


def resampled_back(logits, scan):
    """Logits of the whole resampled grid -> an outline on the scan's own grid, the plain way."""
    (d, h, w), (i, j, k) = scan.crop
    big = torch.nn.functional.interpolate(logits[None], scan.cropped, mode="trilinear", align_corners=False)[0]
    found = np.zeros(scan.volume.geometry.shape, bool)
    found[d:i, h:j, w:k] = (big[1] > big[0]).numpy()
    return found


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_several_folds_answer_with_the_mean_of_their_logits(checkpoint):
    scan = parity.planned("bl")
    painted = paint((Shape(parity.labels("bl_lab")[2]),), scan, "box")
    (window,) = windows_for(painted, scan.shape, scan.plans.patch)
    patch = torch.from_numpy(np.stack([scan.region(window), painted.on(window)]))[None]
    logits = []
    for fold in (0, 1):
        unet = ResidualUNet(scan.plans.unet).eval()
        load_weights(unet, weights_of(checkpoint, "box", fold), "the test")
        with torch.inference_mode():
            logits.append(unet(patch)[0])
    expected = []
    for answer in (logits[0], logits[1], (logits[0] + logits[1]) / 2):
        full = torch.zeros((2, *scan.shape))
        full[0] = 1e4
        full[(slice(None), *(slice(a, b) for a, b in window))] = answer
        expected.append(resampled_back(full, scan))
    found = [
        outline_all(scan, [painted], Ensemble(checkpoint, "box", Effort(folds, mirroring=False)))[0].on(
            scan.volume.geometry
        )
        for folds in ((0,), (1,), ())
    ]
    # Sums in half precision, as the released program keeps them, round the outline a little.
    for one, other in zip(found, expected, strict=True):
        assert dice(one, other) > 0.99
    assert max(dice(found[0], found[1]), dice(found[0], found[2]), dice(found[1], found[2])) < 0.9


def test_a_quality_says_which_folds_and_mirrors_are_used(checkpoint):
    used = {}
    for quality in ("fast", "balanced", "max"):
        effort = load_segmenter(str(checkpoint), device="cpu", quality=quality).effort
        ensemble = Ensemble(checkpoint, "box", effort)
        used[quality] = ensemble.folds, len(ensemble.flips())
    assert used == {"fast": ((0,), 1), "balanced": ((0, 1), 1), "max": ((0, 1), 8)}


def test_the_tracker_of_several_folds_is_the_mean_of_trackers_that_register_each_by_itself(checkpoint, monkeypatch):
    monkeypatch.setattr(following, "REGISTRATION_SIZE", SMALL)
    before, after = parity.planned("bl"), PlannedScan(parity.scan("fu"), parity.planned("fu").plans)
    mask = parity.labels("bl_lab")[2]
    images = [torch.from_numpy(scan.region(tuple((0, n) for n in scan.shape)))[None, None] for scan in (before, after)]
    start, array = before.mask(mask)
    outline = torch.zeros((1, 1, *before.shape))
    outline[(0, 0, *(slice(a, a + n) for a, n in zip(start, array.shape, strict=True)))] = torch.from_numpy(
        array
    ).float()
    total, seen = torch.zeros((2, *after.shape)), torch.zeros(after.shape)
    starts = []
    for fold in (0, 1):
        tracker = Tracker(ResidualUNet(before.plans.unet), before.plans.patch, SMALL).eval()
        unet, registration = parts_of_tracker(weights_of(checkpoint, "track", fold))
        load_weights(tracker.unet, unet, "the test")
        load_weights(tracker.registration, registration, "the test")
        with torch.inference_mode():
            answer = tracker(*images, outline, soft=False)
        starts.append(answer.start[0].tolist())
        patch = tuple(slice(a, a + n) for a, n in zip(starts[-1], before.plans.patch, strict=True))
        total[(slice(None), *patch)] += answer.logits[0]
        seen[patch] += 1
    assert starts[0] != starts[1]
    mean = torch.where(seen > 0, total / seen.clamp(min=1), torch.tensor([1.0, 0.0]).view(2, 1, 1, 1))
    fresh = PlannedScan(parity.scan("bl"), before.plans)
    (found,) = follow_all(fresh, after, [mask], Ensemble(checkpoint, "track", Effort(mirroring=False, device="cpu")))
    assert dice(found.mask.on(after.volume.geometry), resampled_back(mean, after)) > 0.99


@pytest.mark.parametrize("kind", ["box", "point"])
def test_the_old_track_command_outlines_the_baseline_from_boxes_or_points_and_follows_what_it_found(
    kind, tmp_path, monkeypatch
):
    monkeypatch.setattr(following, "REGISTRATION_SIZE", SMALL)
    prompts = json.loads((parity.FOLDER / ("boxes.json" if kind == "box" else "points.json")).read_text())
    (tmp_path / "p.json").write_text(json.dumps({name: prompts[name] for name in ("2", "4")}))
    asked = ["-bl", parity.FOLDER / "bl.nii.gz", "-fu", parity.FOLDER / "fu.nii.gz", "-p", tmp_path / "p.json"]
    asked += ["-o", tmp_path / "out", "-t", kind, "-m", parity.checkpoint(), "-device", "cpu", "--disable_tta"]
    with pytest.raises(SystemExit) as ended:
        old_commands.track([str(word) for word in asked])
    assert ended.value.code == 0
    files = [f"{scan}_lesion_{n}.nii.gz" for scan in ("bl", "fu") for n in (2, 4)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
    written = {name: label_masks(read_label_map(tmp_path / "out" / name))["1"] for name in files}
    for n in (2, 4):
        ours = written[f"bl_lesion_{n}.nii.gz"].on(parity.scan("bl").geometry)
        assert parity.agrees(f"seg_{kind}json_notta/bl_lesion_{n}", ours)
    masks = [written[f"bl_lesion_{n}.nii.gz"] for n in (2, 4)]
    followed = follow_all(parity.planned("bl"), parity.planned("fu"), masks, parity.ensemble("track"))
    for n, answer in zip((2, 4), followed, strict=True):
        geometry = parity.scan("fu").geometry
        assert np.array_equal(answer.mask.on(geometry), written[f"fu_lesion_{n}.nii.gz"].on(geometry))


FOLLOW = """
version = 1
title = "The parity phantom"
seed = 1
task = "follow"
methods = ["track:MODEL"]
prompts = ["outline"]
[[data]]
name = "phantom"
kind = "ball"
about = "Made up."
licence = "CC0"
citation = "This test."
patients = ["one"]
[[data.scans]]
modality = "CT"
visits = ["bl.nii.gz", "fu.nii.gz"]
truth = ["bl_lab2.nii.gz", "bl_lab2.nii.gz"]
"""


def test_an_evaluation_of_tracking_lets_a_model_with_its_own_registration_use_it(tmp_path, monkeypatch):
    monkeypatch.setattr(following, "REGISTRATION_SIZE", SMALL)
    monkeypatch.setattr("lesionlocator.evaluate.tasks.DEFAULT_ALIGNER", "an aligner that there is not")
    (tmp_path / "follow.toml").write_text(FOLLOW.replace("MODEL", parity.checkpoint().as_posix()))
    asked = ["evaluate", tmp_path / "follow.toml", "--data", parity.FOLDER, "--out", tmp_path / "out"]
    assert cli.run([str(word) for word in asked]) == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    baseline = tuple(
        Lesion(str(n), (), mask, Status.OUTLINED) for n, mask in enumerate(parity.labels("bl_lab2"), start=1)
    )
    scans = [Timepoint(name, parity.scan(name).geometry, lambda name=name: parity.scan(name)) for name in ("bl", "fu")]
    model = load_segmenter(str(parity.checkpoint()))
    case = track_case(Case((scans[0].with_lesions(baseline), scans[1])), model)
    expected = {lesion.id: lesion.mask.volume_ml for lesion in case.timepoints[1].lesions}
    assert {row["lesion"]: row["predicted_ml"] for row in rows} == pytest.approx(expected, rel=1e-3)
