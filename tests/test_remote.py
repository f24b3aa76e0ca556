"""Viewers that speak nnInteractive's protocol: the real client drives our server and gets our outlines."""

from __future__ import annotations

import socket
import threading
import time

import httpx
import numpy as np
import pytest

from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box, Click
from lesionlocator.segment import load_segmenter
from lesionlocator.volume import Volume

pytest.importorskip("fastapi", reason="needs the extra `server`")
uvicorn = pytest.importorskip("uvicorn", reason="needs the extra `server`")
remote = pytest.importorskip("nnInteractive.inference.remote.remote_session", reason="needs nninteractive-client")

from lesionlocator.server import remote as ours  # noqa: E402
from lesionlocator.server.arrays import pack_array, unpack_array  # noqa: E402
from lesionlocator.server.run import open_room  # noqa: E402
from lesionlocator.server.settings import ServeSettings  # noqa: E402

TOKEN = "a-token-for-viewers"
SPACING = (3.0, 1.5, 1.5)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remote")
    settings = ServeSettings(modality="CT", sessions=2)
    config = uvicorn.Config(open_room([folder], folder / "state", settings, token=TOKEN), log_level="error")
    server = uvicorn.Server(config)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listening.close()


@pytest.fixture
def image():
    """Two bright balls in soft tissue, (1, x, y, z) as viewers send it."""
    shape = (24, 48, 48)
    at = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, SPACING, strict=True)), indexing="ij"), -1)
    values = np.random.default_rng(0).normal(40, 8, shape)
    for centre in ((30, 24, 24), (40, 50, 50)):
        values[np.linalg.norm(at - np.array(centre), axis=-1) < 9] += 90
    return values.astype(np.float32)[None]


@pytest.fixture
def viewer(address):
    with remote.nnInteractiveRemoteInferenceSession(address, api_key=TOKEN) as session:
        yield session


@pytest.fixture
def closed(monkeypatch):
    """The client leaves its connection open when the server refuses it; here it is closed all the same."""
    made, real = [], httpx.Client

    def make(*args, **named):
        made.append(real(*args, **named))
        return made[-1]

    monkeypatch.setattr(remote.httpx, "Client", make)
    yield
    for client in made:
        client.close()


def start(viewer, image):
    viewer.set_image(image, {"spacing": list(SPACING)})
    viewer.set_target_buffer(np.zeros(image.shape[1:], np.uint8))


def by_api(image, *prompts):
    shape = tuple(int(n) for n in image.shape[1:])
    geometry = Geometry(shape, np.diag([*SPACING, 1.0]))
    segmenter = load_segmenter()
    volume = Volume(image[0], geometry, "CT")
    asked = tuple(prompt(geometry) for prompt in prompts)
    return segmenter.outline(segmenter.prepare(volume), [asked])[0].mask.on(geometry)


BOUNDS = [[7, 13], [10, 22], [10, 22]]


def box(geometry):
    low, high = np.array(BOUNDS, float).T
    return Box.from_index(low, high, geometry)


def click(index, positive=True):
    return lambda geometry: Click(geometry.index_to_world(np.array([index], float))[0], positive)


def test_what_the_server_can_do_is_said_as_the_client_expects(viewer):
    assert viewer.supported_interactions["points"]
    assert viewer.supported_interactions["bbox"]
    assert not viewer.supported_interactions["scribbles"]
    assert viewer.supports_undo
    assert viewer.license == load_segmenter().card.licence
    assert viewer.ping()


def test_a_box_and_clicks_give_the_masks_of_the_python_api(viewer, image):
    start(viewer, image)
    changed = viewer.add_bbox_interaction(BOUNDS, True)
    np.testing.assert_array_equal(viewer.target_buffer, by_api(image, box))
    found = np.argwhere(viewer.target_buffer)
    np.testing.assert_array_equal(changed, np.stack([found.min(0), found.max(0) + 1], 1))
    viewer.add_point_interaction((10, 22, 16), True)
    np.testing.assert_array_equal(viewer.target_buffer, by_api(image, box, click((10, 22, 16))))
    viewer.add_point_interaction((10, 14, 16), False)
    asked = (box, click((10, 22, 16)), click((10, 14, 16), False))
    np.testing.assert_array_equal(viewer.target_buffer, by_api(image, *asked))


def test_undo_goes_back_prompt_by_prompt_and_then_says_that_nothing_is_left(viewer, image):
    start(viewer, image)
    viewer.add_bbox_interaction(BOUNDS, True)
    first = viewer.target_buffer.copy()
    viewer.add_point_interaction((10, 24, 16), True)
    assert viewer.undo()
    np.testing.assert_array_equal(viewer.target_buffer, first)
    assert viewer.undo()
    assert not viewer.target_buffer.any()
    assert not viewer.undo()


def test_several_objects_are_outlined_one_after_the_other(viewer, image):
    start(viewer, image)
    viewer.add_bbox_interaction(BOUNDS, True)
    first = viewer.target_buffer.copy()
    viewer.reset_interactions()
    assert not viewer.target_buffer.any()
    viewer.add_point_interaction((13, 33, 33), True, run_prediction=False)
    assert not viewer.target_buffer.any()
    viewer._predict()
    np.testing.assert_array_equal(viewer.target_buffer, by_api(image, click((13, 33, 33))))
    assert not (viewer.target_buffer & first).any()


def test_a_first_outline_is_taken_and_corrected(viewer, image):
    start(viewer, image)
    drawn = np.zeros(image.shape[1:], np.uint8)
    drawn[8:12, 12:20, 12:20] = 1
    viewer.add_initial_seg_interaction(drawn)
    np.testing.assert_array_equal(viewer.target_buffer, drawn)
    viewer.add_point_interaction((10, 16, 16), True)
    assert viewer.target_buffer[10, 16, 16]


def test_what_is_not_understood_is_refused_with_a_reason(viewer, image):
    start(viewer, image)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        viewer.add_scribble_interaction(np.ones(image.shape[1:], np.uint8), True)
    assert "points, a box or a first outline" in str(refused.value.response.json()["error"])


def test_a_lease_that_was_lost_is_said_and_a_new_one_is_to_be_had(viewer, image, address):
    start(viewer, image)
    viewer._http.post("/release")
    with pytest.raises(remote.SessionExpiredError):
        viewer.add_bbox_interaction(BOUNDS, True)
    with remote.nnInteractiveRemoteInferenceSession(address, api_key=TOKEN) as again:
        start(again, image)
        again.add_bbox_interaction(BOUNDS, True)
        np.testing.assert_array_equal(again.target_buffer, by_api(image, box))


def test_more_viewers_than_seats_are_told_to_wait(viewer, address, closed):
    with (
        remote.nnInteractiveRemoteInferenceSession(address, api_key=TOKEN),
        pytest.raises(remote.ServerAtCapacityError),
    ):
        remote.nnInteractiveRemoteInferenceSession(address, api_key=TOKEN)


def test_without_the_token_no_viewer_gets_in(address, closed):
    with pytest.raises(httpx.HTTPStatusError) as refused:
        remote.nnInteractiveRemoteInferenceSession(address, api_key="wrong")
    assert refused.value.response.status_code == 401


def test_an_idle_viewer_and_a_dead_one_lose_their_seats():
    now = [0.0]
    seats = ours.Seats(2, lambda: now[0])
    idle, dead = seats.claim(), seats.claim()
    for _ in range(12):
        now[0] += 50.0
        assert seats.seat(idle.token, acts=False) is idle
    with pytest.raises(ours.Gone):
        seats.seat(dead.token)
    now[0] += 1.0
    with pytest.raises(ours.Gone):
        seats.seat(idle.token)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "bool"])
def test_arrays_go_over_the_wire_as_the_client_packs_them(dtype):
    from nnInteractive.inference.remote import serialization as theirs

    array = (np.random.default_rng(1).normal(0, 3, (3, 4, 5)) * 10).astype(dtype)
    np.testing.assert_array_equal(unpack_array(theirs.pack_array(array), 10_000), array)
    np.testing.assert_array_equal(theirs.unpack_array(pack_array(array)), array)


def test_a_damaged_or_lying_array_is_refused():
    from lesionlocator.errors import Refused

    packed = pack_array(np.ones((4, 5, 6), np.float32))
    rng = np.random.default_rng(2)
    for _ in range(300):
        broken = bytearray(packed)
        broken[int(rng.integers(len(broken)))] = int(rng.integers(256))
        try:
            unpack_array(bytes(broken[: int(rng.integers(1, len(broken) + 1))]), 10_000)
        except Refused as refused:
            assert refused.needed
    with pytest.raises(Refused, match="480 bytes"):
        unpack_array(packed, 100)
