"""Published models: the 18 known defects of the released program are not here, and what the network module promises."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

import parity_cases as parity  # noqa: E402
from lesionlocator import old_commands  # noqa: E402
from lesionlocator.case import Case, Ending, Lesion, Status, Timepoint  # noqa: E402
from lesionlocator.errors import Refused  # noqa: E402
from lesionlocator.formats import label_masks, read_label_map, read_prompts, write_labels, write_volume  # noqa: E402
from lesionlocator.geometry import Geometry  # noqa: E402
from lesionlocator.network.checkpoint import difference, load_weights, read_checkpoint  # noqa: E402
from lesionlocator.network.gradicon import RegistrationNetwork, UnitMap  # noqa: E402
from lesionlocator.network.residual_unet import ResidualUNet, UNetPlan  # noqa: E402
from lesionlocator.network.tracker import Tracker, carry  # noqa: E402
from lesionlocator.prompt import Box, Click, Shape  # noqa: E402
from lesionlocator.published import following  # noqa: E402
from lesionlocator.published.ensemble import Effort, Ensemble, find_folds, find_type  # noqa: E402
from lesionlocator.published.following import best_offset, follow_all  # noqa: E402
from lesionlocator.published.outlining import outline_all  # noqa: E402
from lesionlocator.published.plans import read_plans  # noqa: E402
from lesionlocator.published.prompts import paint, paint_box, paint_click  # noqa: E402
from lesionlocator.published.regrid import Regrid, apply, linear_rows  # noqa: E402
from lesionlocator.published.scan import PlannedScan  # noqa: E402
from lesionlocator.published.windows import Gathered, windows_for  # noqa: E402
from lesionlocator.segment import load_segmenter  # noqa: E402
from lesionlocator.segment.published import Published  # noqa: E402
from lesionlocator.track import track_case  # noqa: E402
from lesionlocator.volume import Mask, Volume  # noqa: E402
from lesionlocator.weights import published_card  # noqa: E402

pytestmark = pytest.mark.xdist_group("published")

PATCH = (16, 16, 16)


class Echo(Ensemble):
    """A model that answers with its prompt, and a registration that shifts by a share of the scan."""

    def __init__(self, patch=PATCH, shift=(0.0, 0.0, 0.0), folds=(0,), mirroring=False):
        self.plans = replace(read_plans(parity.FOLDER), patch=patch)
        self.device, self.dtype, self.folds = torch.device("cpu"), torch.float32, folds
        self.mirrors = [(), (0,), (1, 2)] if mirroring else [()]
        self.shift, self.asked, self.registered = shift, 0, 0

    def flips(self):
        return self.mirrors

    def logits(self, fold, looks):
        for look in looks:
            self.asked += 1
            yield np.stack([np.zeros_like(look.prompt), 2 * look.prompt - 1])

    def network(self, fold):
        self.registered += 1
        return None, Shift(self.shift)


class Shift(RegistrationNetwork):
    def __init__(self, by):
        torch.nn.Module.__init__(self)
        self.by = by

    def forward(self, baseline, followup):
        return UnitMap([torch.tensor(self.by).view(1, 3, 1, 1, 1).expand(1, 3, 4, 4, 4)])


def grid(shape=(40, 48, 48), spacing=(3.0, 2.0, 2.0)):
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = spacing
    affine[:3, 3], affine[3, 3] = (-40, -30, 20), 1
    return Geometry(shape, affine)


def ct(geometry, zeros=0):
    """Values that are nowhere zero, except in a frame of this many voxels."""
    array = np.full(geometry.shape, 50, np.int16)
    if zeros:
        inner = array[zeros:-zeros, zeros:-zeros, zeros:-zeros].copy()
        array[:] = 0
        array[zeros:-zeros, zeros:-zeros, zeros:-zeros] = inner
    return Volume(array, geometry, "CT")


def block(geometry, start, stop):
    array = np.zeros(geometry.shape, bool)
    array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return Mask.from_array(array, geometry)


def prepared(volume, patch=PATCH):
    return PlannedScan(volume, replace(read_plans(parity.FOLDER), patch=patch))


def bounds(painted):
    return painted.start, painted.stop


# ------------------------------------------------------------------------------------------- the 18 defects, in order


def test_01_a_click_in_a_zero_padded_scan_stays_where_it_was_put():
    scan = prepared(ct(grid(), zeros=8))
    assert scan.crop == ((8, 8, 8), (32, 40, 40))
    click = Click(scan.volume.geometry.index_to_world(np.array([[20.0, 24.0, 25.0]]))[0])
    assert bounds(paint_click(click, scan)) == ((7, 11, 12), (18, 22, 23))
    at_the_far_corner = Click(scan.volume.geometry.index_to_world(np.array([[31.0, 39.0, 39.0]]))[0])
    assert paint_click(at_the_far_corner, scan).stop == scan.shape


def test_02_a_box_may_touch_the_border_of_the_scan():
    scan = prepared(ct(grid()))
    box = Box.from_index(np.zeros(3), np.full(3, 5.0), scan.volume.geometry)
    assert bounds(paint_box(box, scan)) == ((0, 0, 0), (6, 6, 6))
    whole = Box.from_index(np.zeros(3), np.array(scan.volume.geometry.shape, float), scan.volume.geometry)
    assert bounds(paint_box(whole, scan)) == ((0, 0, 0), scan.shape)


def test_03_to_05_lesions_keep_their_ids_over_three_scans_with_gaps_and_a_prompt_outside(monkeypatch):
    monkeypatch.setattr(following, "REGISTRATION_SIZE", (40, 40, 40))
    geometry = grid()
    echo = Echo()
    model = Published(published_card(parity.FOLDER, "echo"), parity.FOLDER, Effort(), {"box": echo, "track": echo})
    lesions = tuple(
        Lesion(name, (Box.from_index(np.array(at, float), np.array(at, float) + 6, geometry),))
        for name, at in {"2": (4, 4, 4), "5": (90, 4, 4), "9": (20, 30, 10)}.items()
    )
    visits = [Timepoint(f"visit{n}", geometry, lambda: ct(geometry)) for n in range(3)]
    case = track_case(Case((visits[0].with_lesions(lesions), *visits[1:])), model)
    assert [(lesion.id, lesion.status) for lesion in case.timepoints[0].lesions][1] == ("5", Status.OUTSIDE)
    for timepoint in case.timepoints:
        assert [lesion.id for lesion in timepoint.lesions if lesion.mask is not None] == ["2", "9"]
    places = [timepoint.lesion("9").mask.centroid_mm for timepoint in case.timepoints]
    assert np.linalg.norm(places[2] - places[0]) < 4.0
    assert echo.registered == 2  # once for each pair of scans, for all lesions together


def test_06_a_scan_smaller_than_the_patch_along_any_axis_is_outlined():
    for shape in ((8, 48, 48), (40, 9, 48), (40, 48, 7), (5, 6, 7)):
        volume = ct(grid(shape))
        scan = prepared(volume)
        mask = block(volume.geometry, (1, 1, 1), (4, 4, 4))
        (found,) = outline_all(scan, [paint((Shape(mask),), scan, "box")], Echo())
        assert np.array_equal(
            found.on(volume.geometry), block(volume.geometry, (0, 0, 0), (5, 5, 5)).on(volume.geometry)
        )


def test_07_a_match_at_the_far_end_of_the_longer_scan_is_found():
    long = np.random.default_rng(0).normal(size=(60, 5, 5)).astype(np.float32)
    for offset in (0, 17, 35):
        assert best_offset(long, long[offset : offset + 25]) == offset


def test_08_a_lesion_whose_place_is_not_covered_is_said_to_be_outside_and_no_network_is_asked(monkeypatch):
    monkeypatch.setattr(following, "REGISTRATION_SIZE", (40, 40, 40))
    geometry, echo = grid(), Echo(shift=(-0.8, 0.0, 0.0))
    mask = block(geometry, (30, 20, 20), (36, 26, 26))
    scans = [prepared(ct(geometry)), prepared(ct(geometry))]
    assert [one.mask for one in follow_all(*scans, [mask], echo)] == [None]
    assert echo.asked == 0
    # Cut away with the slices that the shorter follow-up does not show.
    values = np.random.default_rng(0).normal(0, 100, (60, 48, 48)).astype(np.int16)
    long = Volume(values, grid((60, 48, 48)), "CT")
    short = Volume(values[30:], grid((30, 48, 48)), "CT")
    first, second = prepared(long), prepared(short)
    assert following.covered(first, second) == ((30, 60), (0, 30))
    assert [one.mask for one in follow_all(first, second, [block(long.geometry, (5, 9, 9), (9, 15, 15))], Echo())] == [
        None
    ]


def test_08_the_case_says_so(monkeypatch):
    monkeypatch.setattr(following, "REGISTRATION_SIZE", (40, 40, 40))
    geometry, echo = grid(), Echo(shift=(-0.8, 0.0, 0.0))
    model = Published(published_card(parity.FOLDER, "echo"), parity.FOLDER, Effort(), {"track": echo})
    mask = block(geometry, (30, 20, 20), (36, 26, 26))
    first = Timepoint("a", geometry, lambda: ct(geometry), (Lesion("1", (), mask, Status.OUTLINED),))
    case = track_case(Case((first, Timepoint("b", geometry, lambda: ct(geometry)))), model)
    assert [link.after for link in case.links] == [Ending.OUTSIDE]


def test_09_a_lesion_larger_than_the_patch_is_followed_as_a_whole(monkeypatch):
    monkeypatch.setattr(following, "REGISTRATION_SIZE", (48, 48, 48))
    geometry = grid((48, 48, 48), (3.0, 2.0, 2.0))
    mask = block(geometry, (4, 4, 4), (44, 40, 40))
    scans = [prepared(ct(geometry)), prepared(ct(geometry))]
    (found,) = follow_all(*scans, [mask], Echo())
    assert found.mask.overlap(mask) == mask.voxels == found.mask.voxels


def test_10_a_voxel_is_the_mean_of_the_windows_that_reach_it():
    gathered = Gathered([((0, 4), (0, 4), (0, 4)), ((0, 4), (0, 4), (2, 6))], half=False)
    weight = np.ones((4, 4, 4), np.float16)
    for number, region in enumerate([((0, 4), (0, 4), (0, 4)), ((0, 4), (0, 4), (2, 6))]):
        gathered.add(region, np.stack([np.zeros((4, 4, 4)), np.full((4, 4, 4), 1.0 + number)]).astype("f4"), weight)
    assert gathered.lead(-1.0)[0, 0].tolist() == [1, 1, 1.5, 1.5, 2, 2]


def test_11_zeros_around_the_patient_are_no_prompt():
    scan = prepared(ct(grid(), zeros=8))
    assert paint((Shape(block(scan.volume.geometry, (0, 0, 0), (6, 6, 6))),), scan, "box") is None
    half_in = paint((Shape(block(scan.volume.geometry, (4, 12, 12), (12, 16, 16))),), scan, "box")
    assert bounds(half_in) == ((0, 3, 3), (5, 9, 9))
    assert set(np.unique(half_in.on(((0, 24), (0, 32), (0, 32))))) == {0.0, 1.0}


def test_12_more_than_255_lesions_keep_their_numbers(tmp_path):
    labels = np.zeros((40, 48, 48), np.int32)
    labels.reshape(-1)[np.arange(400) * 8] = np.arange(1, 401)
    write_labels(tmp_path / "labels.nii.gz", labels, grid())
    assert list(label_masks(read_label_map(tmp_path / "labels.nii.gz"))) == [str(n) for n in range(1, 401)]


def test_13_a_label_is_one_lesion_whatever_its_parts_and_only_the_old_commands_split(tmp_path):
    labels = np.zeros((40, 48, 48), np.uint8)
    labels[4:8, 4:8, 4:8] = labels[20:24, 4:8, 4:8] = 1
    file = tmp_path / "labels.nii.gz"
    write_labels(file, labels, grid())
    assert len(read_prompts(file, grid())) == 1
    assert len(old_commands.read_lesions(file, grid(), "box")) == 2


def test_14_a_lesion_that_vanishes_in_the_resampled_label_map_is_taken_from_its_own_voxels():
    geometry = grid((60, 100, 100), (1.0, 0.6, 0.6))
    scan = prepared(ct(geometry))
    mask = block(geometry, (30, 50, 50), (31, 51, 51))
    start, array = scan.mask(mask)
    assert array.shape == (1, 1, 1) and start == (10, 15, 15)
    assert paint((Shape(mask),), scan, "point") is not None


def test_15_what_no_window_saw_is_background_and_nothing_is_not_a_number():
    scan = prepared(ct(grid()))
    mask = block(scan.volume.geometry, (2, 2, 2), (30, 30, 4))
    painted = paint((Shape(mask),), scan, "box")
    windows = windows_for(painted, scan.shape, PATCH)
    assert len(windows) > 1
    gathered = Gathered(windows, half=True)
    assert np.all(gathered.lead(-7.0) == -7.0)
    (found,) = outline_all(scan, [painted], Echo())
    assert np.array_equal(found.on(scan.volume.geometry), painted.on(tuple((0, n) for n in scan.shape)) > 0)


@pytest.mark.parametrize("box", [[4, 4, 0, 9, 0, 9], [0, 9, 5, 5, 0, 9], [0, 9, 0, 9, 7, 6]])
def test_16_an_empty_box_is_refused_along_every_axis(tmp_path, box):
    (tmp_path / "boxes.json").write_text(json.dumps({"1": {"box": [str(v) for v in box]}}))
    with pytest.raises(Refused):
        read_prompts(tmp_path / "boxes.json", grid())


def test_17_what_is_finished_is_known_by_its_own_files_in_any_format(tmp_path):
    files = {"2": tmp_path / "a_lesion_2.nrrd", "5": tmp_path / "a_lesion_5.nrrd"}
    assert not old_commands.is_finished(files)
    files["2"].touch()
    assert not old_commands.is_finished(files)
    files["5"].touch()
    assert old_commands.is_finished(files)
    assert old_commands.is_finished({})


def test_18_prompt_files_are_valid_json_and_say_what_was_asked(tmp_path):
    labels = np.zeros((40, 48, 48), np.uint8)
    labels[4:8, 5:8, 6:8], labels[20:24, 4:8, 4:8] = 2, 5
    (tmp_path / "in").mkdir()
    write_labels(tmp_path / "in" / "a.nii.gz", labels, grid())
    with pytest.raises(SystemExit) as ended:
        old_commands.create_prompt_json(["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")])
    assert ended.value.code == 0
    boxes = json.loads((tmp_path / "out" / "boxes" / "a.json").read_text())
    assert boxes["2"] == {"box": ["4", "8", "5", "8", "6", "8"]}
    points = json.loads((tmp_path / "out" / "points" / "a.json").read_text())
    assert points["5"] == {"point": ["21.50", "5.50", "5.50"]}
    assert [lesion.id for lesion in read_prompts(tmp_path / "out" / "boxes" / "a.json", grid())] == ["2", "5"]


def test_mirrored_passes_are_turned_back(monkeypatch):
    monkeypatch.setattr(following, "REGISTRATION_SIZE", (40, 40, 40))
    geometry = grid()
    mask = block(geometry, (10, 20, 20), (16, 27, 26))
    scans = [prepared(ct(geometry)), prepared(ct(geometry))]
    plain = follow_all(*scans, [mask], Echo())[0].mask
    mirrored = follow_all(*scans, [mask], Echo(mirroring=True, folds=(0, 1)))[0].mask
    assert np.array_equal(plain.on(geometry), mirrored.on(geometry))


# ------------------------------------------------------------------------------------------------ networks and files

SMALL = UNetPlan(2, 2, (4, 6), ((3, 3, 3),) * 2, ((1, 1, 1), (2, 2, 2)), (1, 1), (1,))


def test_the_loss_of_a_softly_carried_outline_reaches_the_displacement_field():
    field = torch.zeros((1, 3, 8, 8, 8), requires_grad=True)
    outline = torch.zeros((1, 1, 12, 12, 12))
    outline[..., 4:8, 4:8, 4:8] = 1
    carry(outline, UnitMap([field]), (8, 8, 8), (12, 12, 12), soft=True)[..., 2:6, 5, 5].sum().backward()
    assert field.grad.abs().max() > 0


def test_the_tracker_learns_through_its_registration_when_soft_and_not_when_nearest():
    torch.manual_seed(0)
    tracker = Tracker(ResidualUNet(SMALL), (8, 8, 8), (66, 66, 66)).eval()
    scans = torch.rand((2, 1, 1, 20, 20, 20))
    outline = torch.zeros((1, 1, 20, 20, 20))
    outline[..., 7:13, 7:13, 7:13] = 1
    for soft in (True, False):
        tracker.zero_grad()
        answer = tracker(scans[0], scans[1], outline, soft=soft)
        assert answer.logits.shape == (1, 2, 8, 8, 8)
        answer.logits[:, 1].square().mean().backward()
        reached = [p.grad for p in tracker.registration.parameters() if p.grad is not None]
        assert any(gradient.abs().max() > 0 for gradient in reached) == soft


def test_weights_that_do_not_fit_are_refused_with_the_difference():
    network = ResidualUNet(SMALL)
    weights = dict(network.state_dict())
    weights["decoder.seg_layers.0.bias"] = torch.zeros(3)
    weights["extra"] = weights.pop("encoder.stem.convs.0.conv.bias")
    said = difference(network.state_dict(), weights)
    assert "decoder.seg_layers.0.bias is (3,) instead of (2,)" in said
    assert "1 missing (encoder.stem.convs.0.conv.bias)" in said and "1 not known (extra)" in said
    with pytest.raises(Refused, match="extra"):
        load_weights(network, weights, "a file")


class Trap:
    def __reduce__(self):
        return print, ("code ran",)


def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys):
    torch.save({"network_weights": {}, "trainer_name": Trap()}, tmp_path / "a.pth")
    with pytest.raises(Refused, match="cannot be read as weights"):
        read_checkpoint(tmp_path / "a.pth")
    assert capsys.readouterr().out == ""
    torch.save({"network_weights": {"a": torch.zeros(1)}, "best": np.float64(0.5)}, tmp_path / "b.pth")
    assert read_checkpoint(tmp_path / "b.pth")[1]["best"] == 0.5


def test_folds_that_are_not_there_are_refused(tmp_path):
    (tmp_path / "fold_1").mkdir()
    (tmp_path / "fold_1" / "checkpoint_final.pth").touch()
    assert find_folds(tmp_path, ()) == (1,)
    with pytest.raises(Refused):
        find_folds(tmp_path, (0, 1))
    with pytest.raises(Refused):
        find_type(Effort(precision="fp16", device="cpu"))


def test_folds_and_precision_are_for_networks_only():
    from lesionlocator.segment import Running

    with pytest.raises(Refused, match="--folds"):
        load_segmenter("intensity", running=Running(folds=(0,)))


@pytest.mark.parametrize("shape", [(23, 31, 40), (55, 20, 9)])
def test_trilinear_regions_are_those_of_torch(shape):
    old = np.random.default_rng(0).normal(size=(30, 25, 21)).astype(np.float32)
    tensor = torch.from_numpy(old)[None, None]
    expected = torch.nn.functional.interpolate(tensor, shape, mode="trilinear", align_corners=False)[0, 0].numpy()
    rows = [linear_rows(a, b) for a, b in zip(old.shape, shape, strict=True)]
    assert np.abs(apply(rows, old) - expected).max() < 1e-5
    part = apply([rows[0][3:9], rows[1][5:], rows[2][:7]], old)
    assert np.abs(part - expected[3:9, 5:, :7]).max() < 1e-5


@pytest.mark.parametrize("order", [1, 3])
def test_spline_regions_are_those_of_scikit_image(order):
    from skimage.transform import resize

    old, shape = np.random.default_rng(0).normal(size=(30, 25, 21)), (20, 33, 40)
    expected = resize(old, shape, order=order, mode="edge", anti_aliasing=False, clip=False)
    regrid = Regrid("skimage", order)
    rows = [regrid.rows(axis, old.shape[axis], shape[axis], ((1.0, 1.0, 1.0),) * 2) for axis in range(3)]
    assert np.abs(apply(rows, old) - expected).max() < 1e-4


def test_the_old_command_writes_the_released_masks_and_keeps_ids(tmp_path, capsys):
    boxes = json.loads((parity.FOLDER / "boxes.json").read_text())
    prompts = {"3": boxes["3"], "7": {"box": ["900", "910", "0", "9", "0", "9"]}}
    (tmp_path / "p.json").write_text(json.dumps(prompts))
    arguments = ["-i", parity.FOLDER / "bl.nii.gz", "-o", tmp_path / "out", "-p", tmp_path / "p.json", "-t", "box"]
    with pytest.raises(SystemExit) as ended:
        old_commands.segment(
            [str(a) for a in [*arguments, "-m", parity.checkpoint(), "-device", "cpu", "--disable_tta"]]
        )
    assert ended.value.code == 3 and "lesion 7" in capsys.readouterr().err
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["bl_lesion_3.nii.gz"]
    written = label_masks(read_label_map(tmp_path / "out" / "bl_lesion_3.nii.gz"))["1"]
    key = "seg_boxjson_notta/bl_lesion_3"
    assert parity.agrees(key, written.on(parity.scan("bl").geometry))


def test_an_imported_checkpoint_answers_as_the_published_one(tmp_path):
    from lesionlocator.published.importing import import_published
    from lesionlocator.weights import verify

    folder = tmp_path / "LesionLocatorCheckpoint"
    folder.mkdir()
    (folder / "LesionLocatorSeg").symlink_to(parity.checkpoint() / "LesionLocatorSeg")
    into = import_published(folder, "mine", tmp_path / "models")
    model = load_segmenter(str(into), device="cpu", quality="fast")
    assert verify(model.card, into) == [] and model.card.kind == "published"
    prepared_scan = model.prepare(parity.scan("bl"))
    box = read_prompts(parity.FOLDER / "boxes.json", parity.scan("bl").geometry)[2].prompts
    (outline,) = model.outline(prepared_scan, [box])
    assert parity.agrees("seg_boxjson_notta/bl_lesion_3", outline.mask.on(parity.scan("bl").geometry))


def test_a_scan_that_is_no_ct_is_refused(tmp_path):
    model = load_segmenter(str(parity.checkpoint()), device="cpu", quality="fast")
    with pytest.raises(Refused, match="CT"):
        model.prepare(replace(parity.scan("bl"), modality="MR"))
    write_volume(tmp_path / "a.nii.gz", parity.scan("bl"))
