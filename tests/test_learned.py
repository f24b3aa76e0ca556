"""A network as a segmenter: the two engines agree, and geometry, clicks and confidence are right around them."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lesionlocator.engine import Engine, load_engine  # noqa: E402
from lesionlocator.errors import Refused  # noqa: E402
from lesionlocator.geometry import Geometry  # noqa: E402
from lesionlocator.network.promptable import Promptable, PromptablePlan, to_depth, to_space  # noqa: E402
from lesionlocator.prompt import Box, Click, Line, Shape  # noqa: E402
from lesionlocator.segment import Segmenter, load_segmenter  # noqa: E402
from lesionlocator.segment.learned import Learned  # noqa: E402
from lesionlocator.segment.zoom import CHANNELS, PATCH  # noqa: E402
from lesionlocator.volume import Mask, Volume  # noqa: E402
from lesionlocator.weights import ModelCard  # noqa: E402

SMALL = PromptablePlan(widths=(4, 8, 8, 8), blocks=(1, 1, 1, 1), fine=2)
CARD = ModelCard(id="toy", kind="learned", title="t", licence="CC0", intended_use="u", limits="Not a medical device.")
GRID = Geometry((40, 90, 100), np.array([[0, 0, 1.0, 5], [0, 1.0, 0, -7], [2.5, 0, 0, 11], [0, 0, 0, 1.0]]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("onnxscript")
    from lesionlocator.train.export import write_model

    torch.manual_seed(3)
    network = Promptable(SMALL)
    # Uneven weights, so that no part of the network can be forgotten without a difference.
    for weight in network.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    into = tmp_path_factory.mktemp("model")
    write_model(network, CARD, into)
    return into


class Bright:
    """An engine of one rule: the lesion is brighter than the middle of the patch's range. No weights to be learned."""

    name, device = "rule", "cpu"

    def __init__(self):
        self.asked = []

    def __call__(self, shown):
        self.asked.append(shown)
        belief = (shown[:, CHANNELS.index("patch")] > 0).astype(np.float32)
        return belief, 1 - belief.mean(axis=(1, 2, 3))


def ball_scan(centre=(20, 45, 50), radius_mm=14.0):
    index = np.indices(GRID.shape).reshape(3, -1).T.astype(float)
    away = np.linalg.norm((index - np.array(centre)) * GRID.spacing_mm, axis=1).reshape(GRID.shape)
    return Volume(np.where(away <= radius_mm, 100.0, 0.0).astype(np.float32), GRID, "MR"), away <= radius_mm


def by_rule(tmp_path):
    return Learned(CARD, tmp_path, _engines=[Bright()])


def dice(one, other):
    return 2 * one.overlap(other) / (one.voxels + other.voxels)


def test_two_voxels_a_side_become_eight_channels_and_come_back():
    fine = torch.arange(2 * 3 * 4 * 6 * 8, dtype=torch.float32).reshape(2, 3, 4, 6, 8)
    assert torch.equal(to_space(to_depth(fine)), fine)
    assert set(to_depth(fine)[0, :8, 0, 0, 0].tolist()) == set(fine[0, 0, :2, :2, :2].flatten().tolist())


def test_the_light_engine_and_torch_give_the_same_answer(folder):
    shown = np.random.default_rng(0).standard_normal((2, len(CHANNELS), PATCH, PATCH, PATCH)).astype(np.float32)
    light, heavy = load_engine(folder, threads=1), load_engine(folder, "torch")
    assert isinstance(light, Engine)
    for one, other in zip(light(shown), heavy(shown), strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert np.array_equal(light(shown)[0] >= 0.5, heavy(shown)[0] >= 0.5)


def test_a_model_folder_is_a_segmenter_that_answers_every_prompt(folder):
    segmenter = load_segmenter(str(folder))
    assert isinstance(segmenter, Segmenter)
    volume, inside = ball_scan()
    truth = Mask.from_array(inside, GRID)
    asks = [(Box.around(truth),), (Click.inside(truth),), (Shape(truth),), (Line(*truth.points_mm[[0, -1]]),)]
    for outline in segmenter.outline(segmenter.prepare(volume), asks):
        assert outline.mask is not None or outline.reason
        assert outline.mask is None or 0 <= outline.confidence <= 1


def test_a_damaged_weights_file_is_refused(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "network.safetensors").write_bytes(b"no weights")
    with pytest.raises(Refused, match="damaged"):
        load_segmenter(str(tmp_path))


def test_a_device_that_is_not_there_is_refused(folder):
    with pytest.raises(Refused, match="device"):
        load_engine(folder, "cuda:93")


@pytest.mark.parametrize("centre", [(20, 45, 50), (2, 10, 95)])
def test_an_outline_lies_where_the_lesion_is_at_the_end_of_the_scan_too(tmp_path, centre):
    volume, inside = ball_scan(centre)
    truth = Mask.from_array(inside, GRID)
    segmenter = by_rule(tmp_path)
    for ask in ((Box.around(truth),), (Click.inside(truth),), (Shape(truth),)):
        (outline,) = segmenter.outline(segmenter.prepare(volume), [ask])
        assert dice(outline.mask, truth) > 0.9


def test_a_click_finds_the_size_of_a_lesion_by_itself(tmp_path):
    for radius_mm in (6.0, 14.0, 30.0):
        volume, inside = ball_scan(radius_mm=radius_mm)
        truth = Mask.from_array(inside, GRID)
        segmenter = by_rule(tmp_path)
        (outline,) = segmenter.outline(segmenter.prepare(volume), [(Click.inside(truth),)])
        assert dice(outline.mask, truth) > 0.75  # 12 mm across, in slices of 2.5 mm: half of its voxels are border


def test_a_correction_click_is_shown_with_the_outline_from_before(tmp_path):
    volume, inside = ball_scan()
    truth = Mask.from_array(inside, GRID)
    segmenter = by_rule(tmp_path)
    against = Click(truth.points_mm[0] - np.array([0.0, 0.0, 9.0]), positive=False)
    segmenter.outline(segmenter.prepare(volume), [(Box.around(truth), against)])
    first, second = segmenter.engine.asked
    assert not first[0, CHANNELS.index("prior")].any()
    assert second[0, CHANNELS.index("prior")].any()
    assert second[0, CHANNELS.index("click out")].max() > 0.5


def test_other_lesions_of_a_call_do_not_change_an_answer(folder):
    volume, inside = ball_scan()
    box = Box.around(Mask.from_array(inside, GRID))
    segmenter = load_segmenter(str(folder))
    prepared = segmenter.prepare(volume)
    (alone,) = segmenter.outline(prepared, [(box,)])
    _, beside = segmenter.outline(prepared, [(box.grown(5.0),), (box,)])
    assert np.array_equal(alone.mask.on(GRID), beside.mask.on(GRID))
    assert alone.confidence == beside.confidence


class Doubting:
    """An engine that believes in nothing at all."""

    name, device = "rule", "cpu"

    def __call__(self, shown):
        return np.full(shown[:, 0].shape, 0.1, np.float32), np.zeros(len(shown), np.float32)


def test_a_card_says_how_much_the_classical_outline_counts_from_a_box_and_from_a_click(tmp_path):
    scan, inside = ball_scan()
    truth = Mask.from_array(inside, GRID)
    box, click = (Box.around(truth),), (Click(truth.centroid_mm),)

    def outlined(settings, ask):
        segmenter = Learned(replace(CARD, settings=settings), tmp_path, _engines=[Doubting()])
        (outline,) = segmenter.outline(segmenter.prepare(scan), [ask])
        return 0.0 if outline.mask is None else dice(outline.mask, truth)

    mostly = {"classical_share_box": 0.9, "classical_share_click": 0.9}
    assert outlined(mostly, box) > 0.9
    assert outlined(mostly, click) > 0.9
    assert outlined({**mostly, "classical_share_click": 0.0}, click) == 0.0
    # A box is always answered: with its ellipsoid, where nothing is believed in.
    assert outlined({**mostly, "classical_share_box": 0.0}, box) < outlined(mostly, box)
