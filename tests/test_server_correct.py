"""An outline in the reading room corrected by hand: painted, wiped, and by clicks that leave the rest of it alone."""

from __future__ import annotations

import numpy as np
import pytest

from files import LEFT

pytest.importorskip("fastapi", reason="needs the extra `server`")

from room_work import Reader, lesion, outline_body, save_cases  # noqa: E402


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return save_cases(tmp_path_factory.mktemp("cases"))


@pytest.fixture
def reader(cases, tmp_path):
    return Reader(cases, tmp_path / "state")


def test_a_brush_adds_and_takes_away_a_ball(reader):
    view = reader.case("smith")
    path = f"/api/cases/{view['id']}"
    view = reader.done(f"{path}/outline", outline_body(view, LEFT))
    before = lesion(view, 0, "1")["volume_ml"]
    stroke = {"scan": 0, "lesion_id": "1", "points": [[LEFT.x, LEFT.y, LEFT.z + 20]], "radius_mm": 6.0}
    view = reader.post(f"{path}/paint", {**stroke, "revision": view["revision"]})
    ball_ml = 4 / 3 * np.pi * 6**3 / 1000
    assert lesion(view, 0, "1")["volume_ml"] - before == pytest.approx(ball_ml, rel=0.25)
    view = reader.post(f"{path}/paint", {**stroke, "revision": view["revision"], "adds": False})
    assert lesion(view, 0, "1")["volume_ml"] == pytest.approx(before)


def test_a_stroke_may_begin_a_lesion_but_not_take_from_one_that_is_not_there(reader):
    view = reader.case("smith")
    path, stroke = f"/api/cases/{view['id']}/paint", {"scan": 0, "points": [[0, 0, 0]], "radius_mm": 6}
    refused = {**stroke, "revision": view["revision"], "lesion_id": "4", "adds": False}
    assert "no lesion" in reader.post(path, refused, 422)["error"]["found"]
    painted = reader.post(path, {**stroke, "revision": view["revision"], "lesion_id": "4"})
    assert lesion(painted, 0, "4")["volume_ml"] == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.2)
    assert reader.post(path, {**stroke, "revision": painted["revision"], "scan": 7, "lesion_id": "4"}, 422)


def test_a_click_corrects_the_outline_as_it_is_and_leaves_what_was_painted_elsewhere(reader):
    view = reader.case("jones")
    path, at = f"/api/cases/{view['id']}", {"scan": 0, "lesion_id": "7"}
    view = reader.done(f"{path}/outline", outline_body(view, LEFT, "7"))
    ball = lesion(view, 0, "7")["volume_ml"]
    far = {"points": [[LEFT.x, LEFT.y, LEFT.z + 35]], "radius_mm": 6.0}
    view = reader.post(f"{path}/paint", {**at, **far, "revision": view["revision"]})
    painted = lesion(view, 0, "7")["volume_ml"]
    # Fat that was painted along with it is taken away again by a click, and nothing else is.
    near = {"points": [[LEFT.x, LEFT.y + 13, LEFT.z]], "radius_mm": 5.0}
    view = reader.post(f"{path}/paint", {**at, **near, "revision": view["revision"]})
    assert lesion(view, 0, "7")["volume_ml"] > painted + 0.2
    click = {"kind": "click", "at": [LEFT.x, LEFT.y + 14, LEFT.z], "positive": False}
    view = reader.done(f"{path}/correct", {**at, "revision": view["revision"], "clicks": [click]})
    assert lesion(view, 0, "7")["volume_ml"] == pytest.approx(painted, rel=0.02)
    assert painted > 1.2 * ball
    assert [prompt["kind"] for prompt in lesion(view, 0, "7")["prompts"]] == ["box", "click"]


def test_a_click_beside_a_painted_outline_belongs_to_it_and_takes_nothing_away(reader):
    view = reader.case("smith")
    path, at = f"/api/cases/{view['id']}", {"scan": 0, "lesion_id": "1"}
    half = {"points": [[LEFT.x - 4, LEFT.y, LEFT.z]], "radius_mm": 5.0}
    view = reader.post(f"{path}/paint", {**at, **half, "revision": view["revision"]})
    before = lesion(view, 0, "1")["volume_ml"]
    click = {"kind": "click", "at": [LEFT.x + 5, LEFT.y, LEFT.z]}
    view = reader.done(f"{path}/correct", {**at, "revision": view["revision"], "clicks": [click]})
    after = lesion(view, 0, "1")["volume_ml"]
    # Most of the lesion, of which a sixth was painted.
    assert before < 0.6
    assert after == pytest.approx(4 / 3 * np.pi * 0.9**3, rel=0.2)
    nobody = {"scan": 0, "lesion_id": "5", "revision": view["revision"], "clicks": [click]}
    assert "no lesion" in reader.post(f"{path}/correct", nobody, 422)["error"]["found"]


@pytest.mark.parametrize("click", [(0, 5), (6, 3)], ids=["in the middle", "at its edge"])
def test_a_click_beside_a_thin_stroke_gives_the_lesion_and_nothing_else(reader, click):
    view = reader.case("smith")
    path, at = f"/api/cases/{view['id']}", {"scan": 0, "lesion_id": "1"}
    line = {"points": [[LEFT.x - 7, LEFT.y - 3, LEFT.z], [LEFT.x - 7, LEFT.y + 3, LEFT.z]], "radius_mm": 2.0}
    view = reader.post(f"{path}/paint", {**at, **line, "revision": view["revision"]})
    assert lesion(view, 0, "1")["volume_ml"] < 0.2
    clicks = [{"kind": "click", "at": [LEFT.x + click[0], LEFT.y + click[1], LEFT.z]}]
    view = reader.done(f"{path}/correct", {**at, "revision": view["revision"], "clicks": clicks})
    ball_ml = 4 / 3 * np.pi * 0.9**3
    # From its edge the lesion may not be found, but then nothing that is far larger is taken for it either.
    least = 0.8 * ball_ml if click == (0, 5) else 0.1
    assert least < lesion(view, 0, "1")["volume_ml"] < 1.2 * ball_ml
