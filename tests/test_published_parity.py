"""The published networks answer as the released program does; the longer cases are in evidence/parity.py."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

import parity_cases as parity  # noqa: E402
from lesionlocator.network.gradicon import sample, unit_grid  # noqa: E402

pytestmark = [pytest.mark.xdist_group("published"), pytest.mark.slow]


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_u_net_gives_the_released_logits():
    image = np.random.RandomState(0).standard_normal((1, 2, 48, 64, 64)).astype(np.float32)
    with np.load(parity.FOLDER / "unet.npz") as stored, torch.inference_mode():
        expected = stored["logits"]
        found = parity.ensemble("track").network(0)[0](torch.from_numpy(image))[0].numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_registration_gives_the_released_map():
    with torch.inference_mode():
        pair = [resized(parity.scan(name).array) for name in ("bl", "fu")]
        found = parity.ensemble("track").network(0)[1](*pair).on_grid((175, 175, 175))[0].numpy()
    with np.load(parity.FOLDER / "registration.npz") as stored:
        expected = stored["phi_AB"]
    assert np.abs(found[:, ::5, ::5, ::5] - expected).max() <= 1e-4 * np.abs(expected).max()


def resized(array):
    values = torch.from_numpy(np.clip(array.astype(np.float32), -1000, 1000) / 1000)[None, None]
    return torch.nn.functional.interpolate(values, (175, 175, 175), mode="trilinear", align_corners=False)


@pytest.mark.parametrize("case", ["seg_boxmask_notta", "seg_boxjson_notta", "seg_pointmask_notta"])
def test_outlines_are_those_of_the_released_program(case):
    for key, mask in parity.outlines(case).items():
        assert parity.agrees(key, mask), (key, parity.agreement(key, mask))


def test_mirrored_outlines_are_those_of_the_released_program_and_the_same_every_time():
    first = parity.outlines("seg_boxmask_tta", only=(4,))
    again = parity.outlines("seg_boxmask_tta", only=(4,))
    for key, mask in first.items():
        assert parity.agrees(key, mask), (key, parity.agreement(key, mask))
        assert np.array_equal(mask, again[key])


def test_followed_lesions_are_those_of_the_released_program_most_of_them_to_the_voxel():
    found = {key: parity.agreement(key, mask) for key, mask in parity.followed("track_same").items()}
    assert all(dice >= 0.99 for dice, _ in found.values()), found
    # A voxel of the carried-over outline may fall on either side of a rounding; that changes one lesion, not all.
    assert sum(differing <= 2 for _, differing in found.values()) >= 3, found


def test_a_linear_image_is_sampled_exactly():
    grid = unit_grid((5, 6, 7), torch.zeros(1))
    image = grid[:, :1] + 2 * grid[:, 1:2] - grid[:, 2:]
    at = torch.rand((1, 3, 4, 4, 4), generator=torch.Generator().manual_seed(0))
    expected = at[:, :1] + 2 * at[:, 1:2] - at[:, 2:]
    assert torch.allclose(sample(image, at), expected, atol=1e-5)
