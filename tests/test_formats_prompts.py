"""Prompt files: one place for each prompt whoever wrote it, and nothing ambiguous accepted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from lesionlocator.case import Lesion, Timepoint
from lesionlocator.errors import Refused
from lesionlocator.formats import label_masks, read_label_map, read_prompts, write_labels, write_mask, write_prompts
from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box, Click, Line, Shape
from lesionlocator.volume import Mask
from strategies import PERMUTATIONS, SHAPE, oblique_affines, ranges, stored

GRID = Geometry(SHAPE, np.array([[0, 0, 0.7, -10], [0, -0.8, 0, 20], [3.0, 0, 0, 100], [0, 0, 0, 1]]))
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def save(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def world(*lesions, **other):
    return {"version": 1, "space": "world", "frame": "LPS", "lesions": list(lesions)} | other


def voxel(*lesions, axes="ijk"):
    return {"version": 1, "space": "voxel", "axes": axes, "lesions": list(lesions)}


def refused(path, word, **settings):
    with pytest.raises(Refused) as caught:
        read_prompts(path, GRID, **settings)
    assert word in caught.value.found
    assert caught.value.needed
    assert caught.value.do


def corners(box):
    return np.array(sorted(np.round(box.points_mm, 6).tolist()))


# -------------------------------------------------------------------------------------------- version 1


def test_the_example_of_the_format_is_read(tmp_path):
    content = world(
        {
            "id": "2",
            "clicks": [{"at": [12.5, -40.0, 310.0], "positive": True}, {"at": [1, 2, 3], "positive": False}],
            "box": {"min": [0, -52, 298], "max": [25, -28, 322]},
            "line": {"from": [3, -40, 310], "to": [22, -41, 310]},
            "note": "left upper lobe",
        },
        {"id": "a b", "clicks": [{"at": [0, 0, 0]}], "confidence": 0.25},
        scan="patient 7",
    )
    first, second = read_prompts(save(tmp_path / "prompts.json", content), GRID)
    inside, beside, box, line = first.prompts
    assert (first.id, first.note) == ("2", "left upper lobe")
    assert_array_equal(inside.at, [12.5, -40, 310])
    assert (inside.positive, beside.positive) == (True, False)
    assert_array_equal(box.centre, [12.5, -40, 310])
    assert_array_equal(box.size_mm, [25, 24, 24])
    assert line.length_mm == pytest.approx(np.hypot(19, 1))
    assert (second.id, second.confidence, second.prompts[0].positive) == ("a b", 0.25, True)


def test_ras_is_lps_with_two_signs_turned(tmp_path):
    lesion = {"id": "1", "clicks": [{"at": [1, 2, 3]}], "box": {"min": [0, -52, 298], "max": [25, -28, 322]}}
    path = save(tmp_path / "prompts.json", world(lesion) | {"frame": "RAS"})
    click, box = read_prompts(path, GRID)[0].prompts
    assert_array_equal(click.at, [-1, -2, 3])
    assert_array_equal(box.points_mm.min(axis=0), [-25, 28, 298])
    assert_array_equal(box.points_mm.max(axis=0), [0, 52, 322])


def test_a_voxel_box_covers_exactly_its_voxels_and_a_click_their_centre(tmp_path):
    lesion = {"id": "1", "clicks": [{"at": [7, 2, 4]}], "box": {"min": [5, 1, 3], "max": [9, 4, 6]}}
    click, box = read_prompts(save(tmp_path / "ijk.json", voxel(lesion)), GRID)[0].prompts
    expected = np.zeros(SHAPE, bool)
    expected[3:6, 1:4, 5:9] = True
    assert_array_equal(box.paint(GRID), expected)
    assert_array_equal(np.argwhere(click.paint(GRID)), [[4, 2, 7]])


@same_folder
@given(affine=oblique_affines(), part=ranges(), kept=st.sampled_from(PERMUTATIONS))
def test_ijk_zyx_and_world_say_the_same_place(tmp_path, affine, part, kept):
    _, grid = stored(np.zeros(SHAPE), Geometry(SHAPE, affine), *kept)
    start, stop = (np.array(end, float)[list(kept[0])] for end in part)
    at = (start + stop - 1) / 2
    box = Box.from_index(start, stop, grid)
    zyx = {"id": "1", "clicks": [{"at": at.tolist()}], "box": {"min": start.tolist(), "max": stop.tolist()}}
    ijk = {"id": "1", "clicks": [{"at": at[::-1].tolist()}]}
    ijk["box"] = {"min": start[::-1].tolist(), "max": stop[::-1].tolist()}
    mm = {"id": "1", "clicks": [{"at": grid.index_to_world(at[None])[0].tolist()}]}
    found = [
        read_prompts(save(tmp_path / "prompts.json", content), grid)[0].prompts
        for content in (voxel(zyx, axes="zyx"), voxel(ijk), world(mm))
    ]
    for prompts in found:
        assert_allclose(prompts[0].at, box.centre, atol=1e-6)
    for prompts in found[:2]:
        assert_allclose(prompts[1].points_mm, box.points_mm, atol=1e-6)


@same_folder
@given(
    affine=oblique_affines(), at=st.tuples(*[st.integers(0, n - 1) for n in SHAPE]), kept=st.sampled_from(PERMUTATIONS)
)
def test_a_prompt_in_mm_means_the_same_voxels_whatever_the_storage_order(tmp_path, affine, at, kept):
    whole = Geometry(SHAPE, affine)
    marked = np.zeros(SHAPE)
    marked[at] = 1
    turned, grid = stored(marked, whole, *kept)
    middle = whole.index_to_world(np.array([at], float))[0]
    reach = 0.4 * whole.spacing_mm.min()
    lesion = {"id": "1", "clicks": [{"at": middle.tolist()}]}
    lesion["box"] = {"min": (middle - reach).tolist(), "max": (middle + reach).tolist()}
    path = save(tmp_path / "prompts.json", world(lesion))
    click, box = read_prompts(path, grid)[0].prompts
    assert_array_equal(click.paint(grid), turned == 1)
    here = box.paint(grid)
    there, _ = stored(box.paint(whole), whole, *kept)
    assert_array_equal(here, there)
    assert here[turned == 1].all()


GOOD = {"id": "1", "clicks": [{"at": [1, 2, 3]}]}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({**world(GOOD), "version": 2}, "version 2"),
        ({**world(GOOD), "version": "1"}, 'version "1"'),
        ({**world(GOOD), "version": True}, "version true"),
        ({"space": "world", "frame": "LPS", "lesions": [GOOD]}, "without a version"),
        ({"version": 1, "space": "world", "lesions": [GOOD]}, "no `frame`"),
        ({"version": 1, "frame": "LPS", "lesions": [GOOD]}, "no `space`"),
        ({"version": 1, "space": "voxel", "lesions": [GOOD]}, "no `axes`"),
        ({**world(GOOD), "frame": "LAS"}, 'frame "LAS"'),
        ({**world(GOOD), "space": "mm"}, 'space "mm"'),
        ({**world(GOOD), "axes": "ijk"}, "axes"),
        ({**voxel(GOOD), "axes": "xyz"}, 'axes "xyz"'),
        ({**world(GOOD), "lesion": []}, '"lesion"'),
        ({**world(GOOD), "scan": 7}, "scan"),
        ({"version": 1, "space": "world", "frame": "LPS"}, "without `lesions`"),
        ({**world(), "lesions": {"1": GOOD}}, "lesions"),
        (world(GOOD, GOOD), "comes twice"),
        (world({"id": 1, "clicks": [{"at": [1, 2, 3]}]}), "lesion 1: 1"),
        (world({"clicks": [{"at": [1, 2, 3]}]}), "without an id"),
        (world({"id": "1"}), "without any prompt"),
        (world({"id": "1", "clicks": []}), "without any prompt"),
        (world({"id": "1", "click": [{"at": [1, 2, 3]}]}), '"click"'),
        (world({"id": "1", "clicks": {"at": [1, 2, 3]}}), "clicks"),
        (world({"id": "1", "clicks": [{"at": [1, 2]}]}), "2 values"),
        (world({"id": "1", "clicks": [{"at": [1, 2, "3"]}]}), '"3"'),
        (world({"id": "1", "clicks": [{"at": [1, 2, True]}]}), "true"),
        (world({"id": "1", "clicks": [{"at": [1, 2, None]}]}), "null"),
        (world({"id": "1", "clicks": [{"positive": True}]}), "without `at`"),
        (world({"id": "1", "clicks": [{"at": [1, 2, 3], "positive": 1}]}), "positive"),
        (world({"id": "1", "box": {"min": [0, 0, 0], "max": [1, 0, 1]}}), "a box from"),
        (world({"id": "1", "box": {"min": [0, 0, 0]}}), "without `max`"),
        (world({"id": "1", "box": [0, 0, 0, 1, 1, 1]}), "box"),
        (world({"id": "1", "line": {"from": [1, 2, 3], "to": [1, 2, 3]}}), "no length"),
        (world({"id": "1", "mask": "/etc/mask.nii"}), "mask path"),
        (world({"id": "1", "mask": "none.nii"}), "no file"),
        (world({**GOOD, "confidence": 1.5}), "confidence"),
        (world({**GOOD, "note": 5}), "note"),
        ("[1, 2]", "holds a JSON list"),
        ("{,}", "not valid JSON"),
        ("", "0 bytes"),
        ('{"version": 1, "version": 1}', "twice"),
        ('{"version": 1, "space": NaN}', "NaN"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "keys none"),
        ({"hello": 1}, "keys hello"),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path, content, word):
    refused(save(tmp_path / "prompts.json", content), word)


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a/b", "a\\b", "C:", "a\nb", "a\0b", "x" * 101, " a", "a?"])
def test_an_id_that_cannot_be_part_of_a_file_name_is_refused(tmp_path, name):
    refused(save(tmp_path / "prompts.json", world({**GOOD, "id": name})), "the lesion id")


def test_a_text_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "prompts.json").write_bytes(b'{"version": 1, "note": "\xff\xfe"}')
    refused(tmp_path / "prompts.json", "not valid JSON")


def test_no_lesions_are_none(tmp_path):
    assert read_prompts(save(tmp_path / "prompts.json", world()), GRID) == ()


# -------------------------------------------------------------------------------------------- written and read


numbers = st.tuples(*[st.floats(-2000, 2000)] * 3)


@same_folder
@given(
    affine=oblique_affines() | st.just(np.diag([3.0, 0.8, 0.7, 1.0])),
    kept=st.sampled_from(PERMUTATIONS),
    part=ranges(),
    at=st.lists(numbers, min_size=1, max_size=3),
    line=st.tuples(numbers, numbers).filter(lambda ends: ends[0] != ends[1]),
)
def test_what_was_written_is_read_back(tmp_path, affine, kept, part, at, line):
    _, grid = stored(np.zeros(SHAPE), Geometry(SHAPE, affine), *kept)
    start, stop = (np.array(end, float)[list(kept[0])] for end in part)
    clicks = [Click(np.array(point), index != 1) for index, point in enumerate(at)]
    prompts = (*clicks, Box.from_index(start, stop, grid), Line(*map(np.array, line)))
    one = Lesion("é 2", prompts, confidence=0.1, note="beside the aorta")
    write_prompts(tmp_path / "prompts.json", [one], grid, scan="scan")
    (again,) = read_prompts(tmp_path / "prompts.json", grid)
    assert (again.id, again.confidence, again.note) == (one.id, one.confidence, one.note)
    assert [p.kind for p in again.prompts] == [p.kind for p in one.prompts]
    for before, after in zip(one.prompts, again.prompts, strict=True):
        assert getattr(after, "positive", None) == getattr(before, "positive", None)
        if isinstance(before, Box):
            apart = np.linalg.norm(before.points_mm[:, None] - after.points_mm[None], axis=2)
            assert apart.min(axis=1).max() < 1e-5
            assert apart.min(axis=0).max() < 1e-5
        else:
            assert_allclose(after.points_mm, before.points_mm, atol=1e-6)


def test_a_straight_box_is_written_in_mm_and_an_oblique_one_in_voxels(tmp_path):
    turned = np.eye(4)
    turned[:2, :2] = [[0.6, -0.8], [0.8, 0.6]]
    for affine, space in ((GRID.affine, "world"), (turned, "voxel")):
        grid = Geometry(SHAPE, affine)
        box = Box.from_index(np.array([1.0, 2, 3]), np.array([4.0, 5, 9]), grid)
        write_prompts(tmp_path / "prompts.json", [Lesion("1", (box,))], grid)
        content = json.loads((tmp_path / "prompts.json").read_text())
        assert content["space"] == space
        if space == "voxel":
            assert content["lesions"][0]["box"] == {"min": [3, 2, 1], "max": [9, 5, 4]}
    write_prompts(tmp_path / "bounds.json", [Lesion("1", (box,))])
    (again,) = read_prompts(tmp_path / "bounds.json", grid)
    assert_allclose(again.prompts[0].points_mm.max(axis=0), box.points_mm.max(axis=0))


def test_a_mask_is_written_beside_and_found_again(tmp_path):
    array = np.zeros(SHAPE, bool)
    array[2:5, 3:4, 1:9] = True
    mask = Mask.from_array(array, GRID)
    for grid in (GRID, None):
        write_prompts(tmp_path / "prompts.json", [Lesion("2", (Shape(mask),))], grid)
        (again,) = read_prompts(tmp_path / "prompts.json", GRID)
        assert_array_equal(again.prompts[0].mask.on(GRID), array)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["prompts.json", "prompts_mask_2.nii.gz"]


def test_two_boxes_of_one_lesion_cannot_be_written_and_leave_no_file(tmp_path):
    box = Box.from_bounds(np.zeros(3), np.ones(3))
    for prompts in ((box, box), ()):
        with pytest.raises(Refused):
            write_prompts(tmp_path / "prompts.json", [Lesion("1", prompts)])
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------- of others


def test_the_published_format_is_read_in_array_order_with_numbers_as_strings(tmp_path):
    content = {"1": {"point": ["4.00", "2.00", "7.00"]}, "3": {"box": ["3", "6", "1", "4", "5", "9"]}}
    click, box = (lesion.prompts[0] for lesion in read_prompts(save(tmp_path / "prompts.json", content), GRID))
    assert_array_equal(np.argwhere(click.paint(GRID)), [[4, 2, 7]])
    expected = np.zeros(SHAPE, bool)
    expected[3:6, 1:4, 5:9] = True
    assert_array_equal(box.paint(GRID), expected)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"1": {"point": [1, 2]}}, "2 values"),
        ({"1": {"box": [3, 6, 1, 4, 9, 5]}}, "a box"),
        ({"1": {"box": [3, 6, 1, 4, 5, "nine"]}}, '"nine"'),
        ({"1": {"box": [3, 6, 1, 4, 5, "nan"]}}, '"nan"'),
        ({"1": {"point": [1, 2, 3]}, "2": {}}, "without any prompt"),
        ({"1": {"point": [1, 2, 3]}, "2": [1, 2, 3]}, "lesion '2'"),
        ({"1": {"point": [1, 2, 3], "label": 1}}, '"label"'),
        ({"../1": {"point": [1, 2, 3]}}, "the lesion id"),
    ],
)
def test_a_published_file_with_a_mistake_is_refused(tmp_path, content, word):
    refused(save(tmp_path / "prompts.json", content), word)


def markup(kind, **fields):
    return {"type": kind, "coordinateSystem": "LPS", "coordinateUnits": "mm"} | fields


def points(*positions, labels=None, **more):
    return [
        {"id": str(i), "label": labels[i] if labels else f"F-{i + 1}", "position": list(p), "positionStatus": "defined"}
        | more
        for i, p in enumerate(positions)
    ]


def test_each_slicer_point_is_a_lesion(tmp_path):
    path = tmp_path / "F.mrk.json"
    save(path, {"@schema": "x", "markups": [markup("Fiducial", controlPoints=points([1, 2, 3], [4, 5, 6]))]})
    found = read_prompts(path, GRID)
    assert [lesion.id for lesion in found] == ["F-1", "F-2"]
    assert_array_equal(found[1].prompts[0].at, [4, 5, 6])
    twins = points([1, 2, 3], [4, 5, 6], labels=["T", "T"])
    save(path, {"markups": [markup("Fiducial", controlPoints=twins) | {"coordinateSystem": "RAS"}]})
    found = read_prompts(path, GRID)
    assert [lesion.id for lesion in found] == ["1", "2"]
    assert_array_equal(found[1].prompts[0].at, [-4, -5, 6])


def test_a_slicer_roi_is_a_box_that_may_be_turned(tmp_path):
    roi = markup("ROI", center=[10, 20, 30], size=[2, 4, 6], orientation=[0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1])
    (lesion,) = read_prompts(save(tmp_path / "R.mrk.json", {"markups": [roi]}), GRID)
    box = lesion.prompts[0]
    assert lesion.id == "R"
    assert_allclose(box.centre, [10, 20, 30])
    assert_allclose(box.edges[:, 1], [-3.2, 2.4, 0])
    ras = roi | {"coordinateSystem": "RAS", "name": "tumour"}
    (lesion,) = read_prompts(save(tmp_path / "R.mrk.json", {"markups": [ras]}), GRID)
    assert lesion.id == "tumour"
    assert_allclose(lesion.prompts[0].centre, [-10, -20, 30])
    assert_allclose(corners(lesion.prompts[0]), corners_flipped(box))


def corners_flipped(box):
    return np.array(sorted(np.round(box.points_mm * [-1, -1, 1], 6).tolist()))


def test_a_slicer_line_is_a_line_and_several_get_numbers(tmp_path):
    line = markup("Line", controlPoints=points([1, 2, 3], [4, 6, 3]))
    other = markup("Line", controlPoints=points([0, 0, 0], [0, 0, 9]))
    found = read_prompts(save(tmp_path / "L.mrk.json", {"markups": [line, other]}), GRID)
    assert [lesion.id for lesion in found] == ["L_1", "L_2"]
    assert [lesion.prompts[0].length_mm for lesion in found] == [5, 9]


@pytest.mark.parametrize(
    ("item", "word"),
    [
        (markup("ClosedCurve", controlPoints=[]), "ClosedCurve"),
        (markup("Line", controlPoints=points([1, 2, 3])), "1 points"),
        (markup("ROI", center=[0, 0, 0], size=[1, 0, 1]), "size"),
        (markup("ROI", center=[0, 0, 0], size=[1, 1, 1], orientation=[1] * 9), "axes"),
        (markup("ROI", center=[0, 0, 0], size=[1, 1, 1], insideOut=True), "inside out"),
        (markup("Fiducial", controlPoints=points([1, 2, 3], positionStatus="undefined")), "never placed"),
        (markup("Fiducial", controlPoints=points([1, 2, 3])) | {"coordinateSystem": "IJK"}, "coordinateSystem"),
        (markup("Fiducial", controlPoints=points([1, 2, 3])) | {"coordinateUnits": "um"}, "coordinateUnits"),
        ({"type": "Fiducial", "controlPoints": points([1, 2, 3])}, "coordinateSystem"),
    ],
)
def test_a_slicer_markup_that_is_no_prompt_is_refused_by_name(tmp_path, item, word):
    refused(save(tmp_path / "F.mrk.json", {"markups": [item]}), word)


# -------------------------------------------------------------------------------------------- masks, label maps


def label_map(path, geometry=GRID):
    values = np.zeros(SHAPE, np.uint8)
    values[2:5, 2:5, 2:7] = 2
    values[2, 2, 2] = 0
    values[6, 7, 7] = 5
    values[6, 7, 9] = 5
    write_labels(path, values, geometry)
    return values


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_label_map_gives_boxes_clicks_or_masks(tmp_path, ending):
    path = tmp_path / f"labels{ending}"
    values = label_map(path)
    boxes = read_prompts(path, GRID)
    assert [lesion.id for lesion in boxes] == ["2", "5"]
    expected = np.zeros(SHAPE, bool)
    expected[2:5, 2:5, 2:7] = True
    assert_array_equal(boxes[0].prompts[0].paint(GRID), expected)
    clicks = read_prompts(path, GRID, kind="click")
    assert_array_equal(np.argwhere(clicks[0].prompts[0].paint(GRID)), [[3, 3, 4]])
    masks = read_prompts(path, GRID, kind="mask")
    assert_array_equal(masks[0].prompts[0].paint(GRID), values == 2)
    assert [lesion.id for lesion in read_prompts(path, GRID, split=True)] == ["1", "2", "3"]


def test_a_label_map_on_another_grid_is_carried_over_in_mm(tmp_path):
    finer = GRID.respaced(np.array([1.0, 0.4, 0.35]))
    mask = Mask.from_array(label_map(tmp_path / "coarse.nii.gz") == 2, GRID)
    write_mask(tmp_path / "fine.nii.gz", mask.placed(finer), finer)
    (lesion,) = read_prompts(tmp_path / "fine.nii.gz", GRID)
    start, stop = GRID.around(lesion.prompts[0].points_mm)
    assert (start, stop) == ((2, 2, 2), (5, 5, 7))
    (lesion,) = read_prompts(tmp_path / "fine.nii.gz", GRID, kind="mask")
    assert lesion.prompts[0].mask.overlap(mask) == mask.voxels


def test_a_lesion_between_the_voxels_of_the_scan_is_not_lost(tmp_path):
    finer = Geometry((60, 60, 60), np.array([[0, 0, 0.1, -10], [0, -0.1, 0, 20], [0.1, 0, 0, 100], [0, 0, 0, 1]]))
    array = np.zeros(finer.shape, bool)
    array[12:14, 4:6, 3:5] = True
    write_mask(tmp_path / "fine.nii.gz", Mask.from_array(array, finer), finer)
    for kind in ("box", "click", "mask"):
        (lesion,) = read_prompts(tmp_path / "fine.nii.gz", GRID, kind=kind)
        assert len(lesion.prompts) == 1


def test_a_kind_picks_or_derives_the_prompts_of_a_file(tmp_path):
    values = label_map(tmp_path / "labels.nii.gz")
    mask = Mask.from_array(values == 2, GRID)
    write_mask(tmp_path / "mask.nii.gz", mask, GRID)
    both = {"id": "1", "clicks": [{"at": [1, 2, 3]}], "box": {"min": [0, 0, 0], "max": [1, 1, 1]}}
    path = save(tmp_path / "prompts.json", world(both, {"id": "2", "mask": "mask.nii.gz"}))
    assert [p.kind for lesion in read_prompts(path, GRID) for p in lesion.prompts] == ["click", "box", "mask"]
    picked, derived = read_prompts(path, GRID, kind="click")
    assert [p.kind for p in picked.prompts] == ["click"]
    assert_allclose(derived.prompts[0].at, mask.deepest_mm, atol=1e-4)
    _, derived = read_prompts(path, GRID, kind="box")
    assert_allclose(corners(derived.prompts[0]), corners(Box.around(mask)), atol=1e-4)
    refused(path, "only: box, click", kind="mask")
    refused(save(tmp_path / "clicks.json", world(GOOD)), "only: click", kind="box")
    refused(path, "--split", split=True)


def test_a_mask_file_of_two_lesions_is_refused_as_the_mask_of_one(tmp_path):
    label_map(tmp_path / "labels.nii.gz")
    refused(save(tmp_path / "prompts.json", world({"id": "1", "mask": "labels.nii.gz"})), "2 labels")


def test_a_timepoint_serves_as_the_scan_too(tmp_path):
    label_map(tmp_path / "labels.nii.gz")
    timepoint = Timepoint("scan", GRID, lambda: pytest.fail("voxels are not needed"))
    assert len(read_prompts(tmp_path / "labels.nii.gz", timepoint)) == 2


def test_the_published_examples_agree_with_their_label_map(shared_data):
    folder = shared_data.parent / "parity"
    if not (folder / "boxes.json").exists():
        pytest.skip("needs the parity files, which are not part of the repository")
    labels = read_label_map(folder / "bl_lab.nii.gz")
    grid = labels.geometry
    for lesion in read_prompts(folder / "boxes.json", grid):
        tight = Box.around(label_masks(labels)[lesion.id])
        assert_allclose(corners(lesion.prompts[0]), corners(tight), atol=1e-4)
    for lesion in read_prompts(folder / "points.json", grid):
        assert_allclose(lesion.prompts[0].at, label_masks(labels)[lesion.id].deepest_mm, atol=1e-4)
