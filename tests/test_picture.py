"""The picture of a case: every kind of ending, every modality, any orientation."""

import numpy as np
import pytest
from PIL import Image

from lesionlocator import picture
from lesionlocator.case import Case, Ending, Lesion, Link, Status, Timepoint
from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Click
from lesionlocator.volume import Mask, Volume

TISSUE = {"CT": (-850, 40), "MR": (100, 400), "PT": (0.5, 8.0)}


def grid(order: tuple[int, int, int] = (2, 1, 0), spacing_mm: float = 4.0, n: int = 40) -> Geometry:
    """A cube of 160 mm around zero, its array axes along the LPS axes given by `order`."""
    affine = np.zeros((4, 4))
    affine[list(order), [0, 1, 2]] = spacing_mm
    affine[:3, 3] = -spacing_mm * (n - 1) / 2
    affine[3, 3] = 1.0
    return Geometry((n, n, n), affine)


def ball(geometry: Geometry, at_mm: tuple[float, float, float], radius_mm: float) -> Mask:
    points = geometry.index_to_world(np.indices(geometry.shape).reshape(3, -1).T.astype(float))
    inside = np.linalg.norm(points - np.array(at_mm), axis=1) <= radius_mm
    return Mask.from_array(inside.reshape(geometry.shape), geometry)


def visit(name: str, balls: dict[str, Mask], *others: Lesion, modality: str = "CT", geometry: Geometry | None = None):
    geometry = geometry or grid()
    low, high = TISSUE[modality]
    array = np.full(geometry.shape, low, np.float32) + np.random.default_rng(0).normal(0, 0.1, geometry.shape)
    array = array.astype(np.float32)
    for mask in balls.values():
        array[mask.on(geometry)] = high
    volume = Volume(array, geometry, modality, name)
    lesions = (*(Lesion(key, (), mask, Status.OUTLINED) for key, mask in balls.items()), *others)
    return Timepoint(name, geometry, lambda: volume, lesions)


def panels_of(case: Case, monkeypatch, tmp_path, **options):
    """What would be drawn: (row names, visits, notes)."""
    seen = {}

    def keep(visits, names, fields_mm, path, title, notes):
        seen.update(visits=visits, names=names, fields_mm=fields_mm, notes=notes)

    monkeypatch.setattr(picture, "_draw", keep)
    picture.draw_case(case, tmp_path / "x.png", **options)
    return seen


def test_growth_from_a_ball_of_20_to_one_of_24_mm_is_said_in_percent(tmp_path, monkeypatch):
    geometry = grid(spacing_mm=2.0, n=80)
    first = visit("march", {"1": ball(geometry, (10, 5, 0), 20)}, geometry=geometry)
    then = visit("june", {"1": ball(geometry, (10, 5, 0), 24)}, geometry=geometry)
    case = Case((first, then), (Link((0, "1"), 1, (1, "1")),))
    visits = panels_of(case, monkeypatch, tmp_path)["visits"]
    panels = [one.panels[0] for one in visits]
    assert panels[1].volume_ml == pytest.approx(57.9, rel=0.02)  # 4/3 pi 24^3
    assert picture._change(panels, 0) == ""
    assert picture._change(panels, 1) in {"+72 %", "+73 %", "+74 %"}
    assert panels[0].detail.startswith("4")


def test_the_patients_right_is_on_the_left_and_the_front_on_top(tmp_path, monkeypatch):
    geometry = grid()
    one = ball(geometry, (0, 0, 0), 20)
    timepoint = visit("march", {"1": one}, geometry=geometry)
    volume = timepoint.load()
    volume.array[ball(geometry, (-32, 0, 0), 7).on(geometry)] = 3000  # a metal clip on the patient's right
    volume.array[ball(geometry, (0, -32, 0), 7).on(geometry)] = -1000  # air in front
    panel = panels_of(Case((timepoint,)), monkeypatch, tmp_path)["visits"][0].panels[0]
    middle = panel.image.shape[0] // 2
    assert np.argmax(panel.image[middle]) < middle
    assert np.argmin(panel.image[:, middle]) < middle


@pytest.mark.parametrize("order", [(2, 1, 0), (0, 1, 2), (1, 2, 0), (0, 2, 1)])
def test_a_lesion_looks_the_same_whatever_the_storage_order(order, tmp_path, monkeypatch):
    geometry = grid(order)
    timepoint = visit("march", {"1": ball(geometry, (12, -8, 20), 18)}, geometry=geometry)
    seen = panels_of(Case((timepoint,)), monkeypatch, tmp_path)
    panel = seen["visits"][0].panels[0]
    area_mm2 = np.count_nonzero(panel.outlines[0] > 0.5) * (seen["fields_mm"][0] / picture._PIXELS) ** 2
    assert panel.image.shape == (picture._PIXELS, picture._PIXELS)
    assert area_mm2 == pytest.approx(np.pi * 18**2, rel=0.12)


def test_one_zoom_for_one_lesion_at_all_visits(tmp_path, monkeypatch):
    geometry = grid()
    visits = tuple(visit(f"v{n}", {"1": ball(geometry, (0, 0, 0), radius)}) for n, radius in enumerate((12, 30)))
    fields_mm = panels_of(Case(visits, (Link((0, "1"), 1, (1, "1")),)), monkeypatch, tmp_path)["fields_mm"]
    assert len(fields_mm) == 1
    assert fields_mm[0] > 2 * 56


def test_a_vanished_lesion_shows_its_place_and_minus_a_hundred_percent(tmp_path, monkeypatch):
    geometry = grid()
    first = visit("march", {"1": ball(geometry, (-40, 0, 20), 12), "2": ball(geometry, (30, 0, 0), 16)})
    gone = Lesion("1", (), None, Status.ABSENT, "nothing at its place looks like it any more")
    then = visit("june", {"2": ball(geometry, (38, 0, 0), 16)}, gone)
    case = Case((first, then), (Link((0, "2"), 1, (1, "2")), Link((0, "1"), 1, Ending.VANISHED)))
    seen = panels_of(case, monkeypatch, tmp_path)
    assert seen["names"] == ["1", "2"]
    panels = [one.panels[0] for one in seen["visits"]]
    assert panels[1].size == "vanished"
    assert panels[1].image is not None
    assert picture._change(panels, 1) == "−100 %"


def test_where_a_vanished_lesion_was_looked_for_comes_from_its_prompts(tmp_path, monkeypatch):
    geometry = grid()
    first = visit("march", {"1": ball(geometry, (-40, 0, 20), 12)})
    gone = Lesion("1", (Click(np.array([-20.0, 4.0, 8.0])),), None, Status.ABSENT, "gone")
    scene = picture._Scene(Case((first, visit("june", {}, gone))), ((0, "1"),), 1, first.load(), 60.0, {})
    assert np.array_equal(picture._likely_place(scene, gone), [-20.0, 4.0, 8.0])


def test_a_lesion_that_nobody_can_place_is_said_in_words(tmp_path, monkeypatch):
    geometry = grid()
    first = visit("march", {"1": ball(geometry, (-40, 0, 20), 12)})
    for status, words in (
        (Status.ABSENT, "vanished"),
        (Status.OUTSIDE, "outside the scan"),
        (Status.FAILED, "not outlined"),
    ):
        then = visit("june", {}, Lesion("1", (), None, status, "a reason"))
        panel = panels_of(Case((first, then)), monkeypatch, tmp_path)["visits"][1].panels[0]
        assert (panel.size, panel.detail, panel.image) == (words, "a reason", None)


def test_lesions_that_merged_share_a_row_and_a_volume(tmp_path, monkeypatch):
    geometry = grid()
    first = visit("march", {"1": ball(geometry, (-20, 0, 0), 12), "2": ball(geometry, (20, 0, 0), 12)})
    merged = Lesion("2", (), None, Status.ABSENT, "merged into lesion 1")
    then = visit("june", {"1": ball(geometry, (0, 0, 0), 30)}, merged)
    case = Case((first, then), (Link((0, "1"), 1, (1, "1")), Link((0, "2"), 1, (1, "1"))))
    seen = panels_of(case, monkeypatch, tmp_path)
    assert seen["names"] == ["1 + 2"]
    assert len(seen["visits"][0].panels[0].outlines) == 2
    assert seen["visits"][0].panels[0].note == "2 parts"


def test_a_new_lesion_is_not_there_before(tmp_path, monkeypatch):
    geometry = grid()
    first = visit("march", {"1": ball(geometry, (-20, 0, 0), 12)})
    then = visit("june", {"1": ball(geometry, (-20, 0, 0), 12), "7": ball(geometry, (30, 0, 0), 12)})
    case = Case((first, then), (Link((0, "1"), 1, (1, "1")),))
    seen = panels_of(case, monkeypatch, tmp_path)
    assert seen["names"] == ["1", "7"]
    assert seen["visits"][0].panels[1].size == "not there yet"


def test_of_many_lesions_the_largest_are_shown_and_the_rest_is_said(tmp_path, monkeypatch):
    geometry = grid()
    balls = {str(n): ball(geometry, (-60 + 15 * n, 0, 0), 4.0 + 3 * n) for n in range(8)}
    seen = panels_of(Case((visit("march", balls),)), monkeypatch, tmp_path, most=3)
    assert seen["names"] == ["5", "6", "7"]
    assert seen["notes"] == ["and 5 smaller lesions"]


def test_a_lesion_in_lung_gets_the_lung_window_and_one_in_tissue_does_not():
    geometry = grid()
    mask = ball(geometry, (0, 0, 0), 12)
    lung = np.full(geometry.shape, -850, np.int16)
    lung[mask.on(geometry)] = 40
    liver = np.full(geometry.shape, 100, np.int16)
    assert picture._window(Volume(lung, geometry, "CT"), mask)[0] < -1000
    assert picture._window(Volume(liver, geometry, "CT"), mask) == (-160.0, 240.0)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_a_picture_is_written_for_every_modality(modality, tmp_path):
    geometry = grid()
    first = visit("march", {"1": ball(geometry, (10, 5, 0), 20)}, modality=modality)
    then = visit("june", {}, Lesion("1", (), None, Status.OUTSIDE, "10 % of it would lie inside"), modality=modality)
    case = Case((first, then), (Link((0, "1"), 1, Ending.OUTSIDE),))
    path = picture.draw_case(case, tmp_path / "case.png", title="A ball", truth={(0, "1"): first.lesions[0].mask})
    with Image.open(path) as image:
        assert image.width > 800
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert np.any(np.all(colours == [255, 181, 46], axis=1))  # the outline's colour is in it
