"""An evaluation from protocol to page on phantoms, and the parts whose answers can be worked out by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from files import save_labels, save_scan
from lesionlocator import cli
from lesionlocator.errors import Refused
from lesionlocator.evaluate.comparison import compare_results
from lesionlocator.evaluate.methods import COPIED, Alignments, find_segmenter
from lesionlocator.evaluate.prompting import RECIPES, Recipe, axes_zyx, correction
from lesionlocator.evaluate.protocol import packaged_protocols, read_protocol
from lesionlocator.evaluate.rows import Row, score_all
from lesionlocator.evaluate.statistics import area_under, mean_with_interval, paired_difference, volume_band
from lesionlocator.prompt import Box
from lesionlocator.volume import Mask
from strategies import PERMUTATIONS, stored
from visits import Ball, ball_mask, grid, scan

LEFT, RIGHT, LOW = Ball(-30, 0, 10, 9), Ball(28, -5, 0, 8), Ball(0, -20, -40, 8)
TRUTH = ball_mask(LEFT, grid())

HEAD = """
version = 1
title = "Balls in fat"
seed = 3
"""
SET = """
[[data]]
name = "balls"
kind = "ball"
about = "Made-up balls."
licence = "CC0"
citation = "This test."
patients = ["ann", "bob"]
"""
ONE_VISIT = '\n[[data.scans]]\nmodality = "CT"\nvisits = ["{patient}/ct.nii.gz"]\ntruth = ["{patient}/mask.nii.gz"]\n'
OUTLINE = 'task = "outline"\nmethods = ["filled-box", "ellipsoid"]\nprompts = ["box", "deepest-click"]\n'


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    """Two patients: one with two lesions, one with one, each with a follow-up."""
    root = tmp_path_factory.mktemp("balls")
    lesions = {"ann": {1: LEFT, 2: RIGHT}, "bob": {1: LOW}}
    for seed, (patient, known) in enumerate(lesions.items()):
        (root / patient).mkdir()
        save_scan(root / patient / "ct.nii.gz", list(known.values()), seed)
        save_labels(root / patient / "mask.nii.gz", known)
        left = dict(list(known.items())[:1])
        save_scan(root / patient / "later.nii.gz", list(left.values()), seed + 10)
        save_labels(root / patient / "later_mask.nii.gz", left)
    return root


def protocol(path, content):
    path.write_text(HEAD + content)
    return str(path)


def evaluate(*words):
    return cli.run(["evaluate", *map(str, words)])


# ------------------------------------------------------------------------------------------------------- statistics


def test_a_mean_over_lesions_and_one_over_patients_differ_when_one_patient_has_more():
    mean = mean_with_interval([1.0, 1.0, 1.0, 0.0, None], ["a", "a", "a", "b", "b"])
    assert (mean.lesions, mean.patients, mean.over_lesions, mean.over_patients) == (4, 2, 0.75, 0.5)
    # Of two patients one or both are drawn: the interval of the patients' mean reaches from one to the other.
    assert mean.patient_interval == (0.0, 1.0)


def test_one_patient_has_a_mean_and_no_interval_and_nobody_has_neither():
    assert mean_with_interval([0.2, 0.4], ["a", "a"]).interval is None
    assert mean_with_interval([None], ["a"]).over_lesions is None


def test_the_interval_is_as_wide_as_theory_says():
    draw = np.random.default_rng(1)
    values = draw.normal(0, 1, 400)
    mean = mean_with_interval(list(values), list(range(400)))
    assert mean.interval[1] - mean.interval[0] == pytest.approx(2 * 1.96 / 20, rel=0.1)
    # Lesions that repeat their patient's value say nothing new: the interval stays that of the patients.
    twice = mean_with_interval(list(np.repeat(values, 5)), list(np.repeat(np.arange(400), 5)))
    assert twice.interval == pytest.approx(mean.interval, abs=1e-9)


def test_a_steady_gain_is_a_rise_though_the_scores_overlap():
    old = {str(i): i / 20 for i in range(20)}
    new = {key: value + 0.01 for key, value in old.items()}
    found = paired_difference(new, old, {key: key for key in old})
    assert found.is_rise and not found.is_fall and found.mean.over_lesions == pytest.approx(0.01)
    assert paired_difference(old, new, {key: key for key in old}).is_fall


def test_the_area_under_a_curve_is_its_mean_height():
    assert area_under([0.0, 1.0, 2.0], [0.0, 1.0, 1.0]) == pytest.approx(0.75)
    assert area_under([2.0, 0.0, 1.0], [1.0, 0.0, 1.0]) == pytest.approx(0.75)
    assert (area_under([3.0], [0.5]), area_under([], [])) == (0.5, None)


@pytest.mark.parametrize(("ml", "band"), [(0.99, "under 1 ml"), (1.0, "1 to 10 ml"), (99.9, "10 to 100 ml")])
def test_bands_of_volume_begin_at_their_lower_border(ml, band):
    assert volume_band(ml) == band
    assert volume_band(100.0) == "100 ml and more"


# ---------------------------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize("kind", list(RECIPES))
def test_a_prompt_depends_on_seed_and_lesion_alone(kind):
    recipe = Recipe(kind, 1.1)
    one, again, other = (recipe.make(TRUTH, seed=seed, name="a")[0].to_json() for seed in (1, 1, 2))
    assert one == again
    if kind not in ("box", "scaled-box", "deepest-click", "line"):
        assert one != other
        assert one != recipe.make(TRUTH, seed=1, name="b")[0].to_json()


def test_boxes_are_moved_and_scaled_by_what_was_asked():
    tight = Box.around(TRUTH)
    (shifted,) = Recipe("shifted-box", 6.0).make(TRUTH, seed=1, name="a")
    assert np.linalg.norm(shifted.centre - tight.centre) == pytest.approx(6.0)
    (further,) = Recipe("shifted-box", 12.0).make(TRUTH, seed=1, name="a")
    np.testing.assert_allclose(further.centre - tight.centre, 2 * (shifted.centre - tight.centre))
    (larger,) = Recipe("scaled-box", 1.5).make(TRUTH, seed=1, name="a")
    np.testing.assert_allclose(larger.size_mm, 1.5 * tight.size_mm)
    np.testing.assert_allclose(larger.centre, tight.centre)


@given(seed=st.integers(0, 10_000))
def test_no_face_of_a_moved_box_moves_further_than_said(seed):
    tight = Box.around(TRUTH)
    (moved,) = Recipe("moved-box", 0.2).make(TRUTH, seed=seed, name="a")
    faces = np.stack(
        [tight.to_unit(moved.corner[None])[0], tight.to_unit((moved.corner + moved.edges.sum(axis=1))[None])[0]]
    )
    assert np.all(np.abs(faces - [[0], [1]]) <= 0.2 + 1e-9)


@given(seed=st.integers(0, 10_000))
def test_an_inner_click_is_inside_and_a_carried_one_near(seed):
    (inner,) = Recipe("inner-click").make(TRUTH, seed=seed, name="a")
    assert inner.paint(grid())[TRUTH.on(grid())].any()
    (carried,) = Recipe("carried-click").make(TRUTH, seed=seed, name="a")
    assert Box.around(TRUTH).grown(9.0).paint(grid())[carried.paint(grid())].all()


@pytest.mark.parametrize("turn", PERMUTATIONS[1::7])
def test_a_carried_click_is_off_along_the_patients_axes_however_the_scan_is_stored(turn):
    turned = Mask.from_array(*stored(TRUTH.on(grid()), grid(), *turn))
    (here,), (there,) = (Recipe("carried-click").make(mask, seed=4, name="a") for mask in (TRUTH, turned))
    np.testing.assert_allclose(here.at - TRUTH.deepest_mm, there.at - turned.deepest_mm, atol=1e-6)
    assert len(set(axes_zyx(turned.geometry))) == 3


def test_a_correction_is_made_in_the_middle_of_the_largest_error():
    small = ball_mask(Ball(-30, 0, 10, 6), grid())
    missed = correction(small, TRUTH)
    assert missed.positive and 6 <= np.linalg.norm(missed.at - [-30, 0, 10]) <= 9.5
    two = Mask.from_array(TRUTH.on(grid()) | ball_mask(RIGHT, grid()).on(grid()), grid())
    beyond = correction(two, TRUTH)
    assert not beyond.positive and np.linalg.norm(beyond.at - [28, -5, 0]) < 3
    assert correction(TRUTH, TRUTH) is None
    assert correction(None, TRUTH).positive


def test_a_prompt_that_nobody_makes_is_refused():
    for text in ("boxx", "moved-box:x"):
        with pytest.raises(Refused):
            Recipe.parse(text)


# ---------------------------------------------------------------------------------------------------------- methods


def test_the_filled_box_is_the_box():
    segmenter = find_segmenter("filled-box")
    prepared = segmenter.prepare(scan([LEFT], grid(), 0))
    (outline,) = segmenter.outline(prepared, [(Box.around(TRUTH),)])
    assert outline.mask.voxels == TRUTH.array.size
    (clicked,) = segmenter.outline(prepared, [Recipe("deepest-click").make(TRUTH, seed=0, name="a")])
    assert clicked.mask.array.all()


def test_the_copy_stays_where_it_was_and_the_halfway_copy_finds_the_border():
    grown = Ball(-30, 0, 10, 12)
    baseline, followup = scan([LEFT], grid(), 0), scan([grown], grid(), 1)
    truth = ball_mask(grown, grid())
    copied, halfway = (
        COPIED[name].carry(TRUTH, baseline, followup, Alignments()) for name in ("header", "header, halfway")
    )
    assert copied.overlap(TRUTH) == TRUTH.voxels == copied.voxels
    assert score_all(halfway, truth)[0]["dice"] > score_all(copied, truth)[0]["dice"] + 0.1


def test_a_lesion_that_is_not_there_has_no_centre_to_be_found():
    scores, facts = score_all(TRUTH, Mask.empty(grid()))
    assert scores["dice"] == 0.0 and scores["cpm_10"] is None and facts["true_ml"] == 0.0
    assert scores["false_positive_ml"] == pytest.approx(TRUTH.volume_ml)
    assert score_all(None, TRUTH)[0]["detected"] == 0.0


# ----------------------------------------------------------------------------------------------------- the command


def test_a_protocol_is_measured_and_written_as_page_table_and_json(balls, tmp_path, capsys):
    file = protocol(tmp_path / "balls.toml", OUTLINE + SET + ONE_VISIT)
    assert evaluate(file, "--out", tmp_path / "out", "--data", balls, "--model", "intensity", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    dice = {(entry["prompt"], entry["method"]): entry["over_lesions"] for entry in answer["dice"]}
    # The box of a ball is 6 / pi times as large; the ellipsoid in it is the ball.
    assert dice["box", "filled-box"] == pytest.approx(2 / (1 + 6 / np.pi), abs=0.05)
    assert dice["box", "ellipsoid"] > 0.9 and dice["box", "intensity"] > 0.9
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(results["rows"]) == 3 * 2 * 3
    assert len((tmp_path / "out" / "results.csv").read_text().splitlines()) == 19
    page = (tmp_path / "out" / "report.html").read_text()
    assert (
        "<svg" in page
        and "data:image/png;base64" in page
        and "balls/ann" in page
        and "http" not in _without_names(page)
    )
    assert "Two radiologists" in page and "LIDC-IDRI: CC BY 3.0" in page
    assert str(tmp_path) not in page and str(tmp_path) not in json.dumps(results)


def _without_names(page):
    """The page without the names of XML vocabularies, which are no addresses."""
    return (
        page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace("http://creativecommons.org", "")
    )


def test_an_evaluation_goes_on_where_it_stopped_and_gives_the_same(balls, tmp_path, capsys):
    file = protocol(tmp_path / "balls.toml", OUTLINE + SET + ONE_VISIT)
    assert evaluate(file, "--out", tmp_path / "whole", "--data", balls) == 0
    journal = (tmp_path / "whole" / "journal.jsonl").read_text().splitlines()
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "journal.jsonl").write_text("\n".join(journal[:2]) + "\n" + journal[2][:100])
    capsys.readouterr()
    assert evaluate(file, "--out", cut, "--data", balls) == 0
    assert "1 of 2 cases were measured before" in capsys.readouterr().err
    whole, again = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "cut"))
    timeless = [[{**row, "seconds": 0} for row in one["rows"]] for one in (whole, again)]
    assert timeless[0] == timeless[1] and whole["summary"] == again["summary"]
    assert evaluate(file, "--out", cut, "--data", balls, "--model", "intensity") == 2


def test_a_case_that_cannot_be_used_is_named_and_the_others_are_scored(balls, tmp_path, capsys):
    broken = SET.replace('["ann", "bob"]', '["ann", "bob", "cy", "dan"]')
    for patient in ("cy", "ann", "bob"):
        (tmp_path / "data" / patient).mkdir(parents=True)
    for patient in ("ann", "bob"):
        for name in ("ct.nii.gz", "mask.nii.gz"):
            (tmp_path / "data" / patient / name).write_bytes((balls / patient / name).read_bytes())
    save_scan(tmp_path / "data" / "cy" / "ct.nii.gz", [LEFT], 5)
    save_labels(tmp_path / "data" / "cy" / "mask.nii.gz", {1: LEFT}, grid((-25.0, 75.0)))
    file = protocol(tmp_path / "balls.toml", OUTLINE + broken + ONE_VISIT)
    assert evaluate(file, "--out", tmp_path / "out", "--data", tmp_path / "data") == 3
    problems = json.loads((tmp_path / "out" / "results.json").read_text())["problems"]
    assert "grid" in problems["balls/cy"] and "no dan/ct.nii.gz" in problems["balls/dan"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Not measured" in page and "balls/cy" in page
    assert "balls/dan" in capsys.readouterr().err


def test_corrections_raise_the_score_and_have_an_area_under_their_curve(balls, tmp_path):
    task = 'task = "correct"\nmethods = ["ellipsoid", "intensity"]\nprompts = ["scaled-box:0.7"]\n'
    file = protocol(tmp_path / "fix.toml", task + SET + ONE_VISIT)
    assert evaluate(file, "--out", tmp_path / "out", "--data", balls) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    own = [
        row for row in results["rows"] if (row["method"], row["case"], row["lesion"]) == ("intensity", "balls/ann", "1")
    ]
    assert [row["amount"] for row in own] == [0, 1, 2, 3, 4, 5]
    assert own[-1]["dice"] >= own[0]["dice"]
    assert {area["prompt"] for area in results["areas"]} == {"scaled-box:0.7 corrected"}
    assert "corrections" in (tmp_path / "out" / "report.html").read_text()


def test_lesions_are_followed_with_and_without_a_reader(balls, tmp_path, monkeypatch):
    monkeypatch.setattr("lesionlocator.evaluate.tasks.DEFAULT_ALIGNER", "header")
    task = 'task = "follow"\nmethods = ["header", "header, halfway", "track:ellipsoid"]\n'
    task += 'prompts = ["outline", "box", "box, verified"]\n'
    visits = ONE_VISIT.replace('/ct.nii.gz"]', '/ct.nii.gz", "{patient}/later.nii.gz"]')
    visits = visits.replace('/mask.nii.gz"]', '/mask.nii.gz", "{patient}/later_mask.nii.gz"]')
    file = protocol(tmp_path / "follow.toml", task + SET + visits)
    assert evaluate(file, "--out", tmp_path / "out", "--data", balls) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = {(r["method"], r["prompt"], r["case"], r["lesion"]): r for r in results["rows"]}
    # Lesion 2 of ann is gone: whoever outlines it there has a Dice of 0, and is not left out.
    assert rows["header", "outline", "balls/ann", "2"]["dice"] == 0.0
    assert rows["track:ellipsoid", "box", "balls/ann", "2"]["dice"] == 1.0
    events = {(one["method"], one["prompt"]): one for one in results["events"]}
    assert events["header", "outline"]["events"]["vanished"]["recall"] == 0.0
    for prompt in ("outline", "box", "box, verified"):
        told = events["track:ellipsoid", prompt]
        assert told["events"]["vanished"]["f1"] == told["events"]["same"]["f1"] == 1.0
        assert told["identity_switches"] == 0
    assert ("header", "box, verified") not in events


def test_a_chain_is_scored_in_pairs_and_as_a_whole(balls, tmp_path, monkeypatch):
    monkeypatch.setattr("lesionlocator.evaluate.tasks.DEFAULT_ALIGNER", "header")
    task = 'task = "follow"\nmethods = ["header", "track:ellipsoid"]\nprompts = ["outline"]\n'
    visits = '["{patient}/ct.nii.gz", "{patient}/later.nii.gz", "{patient}/ct.nii.gz"]'
    scans = f'\n[[data.scans]]\nmodality = "CT"\nvisits = {visits}\n'
    scans += f"truth = {visits.replace('ct.nii', 'mask.nii').replace('later.nii', 'later_mask.nii')}\n"
    file = protocol(tmp_path / "chain.toml", task + SET.replace('"ann", "bob"', '"ann"') + scans)
    assert evaluate(file, "--out", tmp_path / "out", "--data", balls) == 0
    rows = [row for row in json.loads((tmp_path / "out" / "results.json").read_text())["rows"]]
    own = {(r["case"], r["visit"], r["lesion"]): r["dice"] for r in rows if r["method"] == "track:ellipsoid"}
    assert {case for case, _, _ in own} == {f"balls/ann {walk}" for walk in ("0-1", "0-2", "1-2", "chain")}
    # Lesion 2 is gone at the second visit and back at the third, under its name.
    assert own["balls/ann chain", 1, "2"] == 1.0 and own["balls/ann chain", 2, "2"] > 0.8
    copied = {(r["case"], r["visit"], r["lesion"]): r["dice"] for r in rows if r["method"] == "header"}
    assert copied["balls/ann chain", 1, "2"] == 0.0 and copied["balls/ann chain", 2, "2"] == 1.0


def test_a_method_that_says_how_sure_it_is_is_held_to_it(balls, tmp_path, monkeypatch):
    class Sure(type(find_segmenter("ellipsoid"))):
        def outline(self, prepared, asks):
            return [replace(outline, confidence=0.75) for outline in super().outline(prepared, asks)]

    monkeypatch.setattr(
        "lesionlocator.evaluate.tasks.find_segmenter", lambda name: Sure(find_segmenter("ellipsoid").card)
    )
    file = protocol(tmp_path / "sure.toml", OUTLINE.replace('"filled-box", ', "") + SET + ONE_VISIT)
    assert evaluate(file, "--out", tmp_path / "out", "--data", balls) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    (boxes,) = [one for one in results["confidence"] if one["prompt"] == "box"]
    dice = [row["dice"] for row in results["rows"] if row["prompt"] == "box"]
    assert boxes["mean_absolute_difference"] == pytest.approx(np.mean(np.abs(np.array(dice) - 0.75)))
    assert "How well ellipsoid knows it" in (tmp_path / "out" / "report.html").read_text()


def test_two_results_are_compared_and_a_fall_is_an_error(balls, tmp_path, capsys):
    file = protocol(tmp_path / "balls.toml", OUTLINE + SET + ONE_VISIT)
    assert evaluate(file, "--out", tmp_path / "out", "--data", balls) == 0
    good = tmp_path / "out" / "results.json"
    content = json.loads(good.read_text())
    for row in content["rows"]:
        if row["method"] == "ellipsoid":
            row["dice"] -= 0.05
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(content))
    assert evaluate("compare", good, good) == 0
    assert evaluate("compare", bad, good) == 0
    capsys.readouterr()
    assert evaluate("compare", good, bad, "--json") == 3
    fell = [entry for entry in json.loads(capsys.readouterr().out) if entry["fell"]]
    assert {(entry["method"], entry["score"]) for entry in fell} == {("ellipsoid", "dice")}
    assert evaluate("compare", good, tmp_path / "balls.toml") == 2
    for row in content["rows"]:
        row["method"] = row["method"].replace("ellipsoid", "rounder")
    bad.write_text(json.dumps(content))
    assert {entry.method for entry in compare_results(good, bad)} == {"filled-box", "ellipsoid -> rounder"}


def test_what_is_not_there_is_skipped_with_a_reason_or_refused(tmp_path, capsys):
    file = protocol(tmp_path / "balls.toml", OUTLINE + SET + ONE_VISIT)
    assert evaluate(file, "--out", tmp_path / "out") == 2
    assert evaluate(file, "--out", tmp_path / "out", "--data", tmp_path) == 2
    assert "none of its files are there" in capsys.readouterr().err
    assert evaluate("no-such", "--out", tmp_path / "out") == 2
    assert evaluate(file, "--out", tmp_path / "out", "--data", tmp_path, "--model", "no-such") == 2


def test_the_packaged_protocols_can_be_read():
    assert set(packaged_protocols()) == {"prompts", "robustness", "interactive", "tracking", "zero-shot"}
    for name in packaged_protocols():
        found = read_protocol(name)
        assert found.data and all(data.licence and data.citation for data in found.data)


@pytest.mark.parametrize(
    "change",
    [
        ("version = 1", "version = 2"),
        ("seed = 3", "sead = 3"),
        ('task = "outline"', 'task = "guess"'),
        ('"CT"', '"US"'),
        ('["ann", "bob"]', '["ann", "ann"]'),
        ('licence = "CC0"', ""),
        ('visits = ["{patient}/ct.nii.gz"]', "visits = []"),
    ],
)
def test_a_protocol_that_says_something_wrong_is_refused(tmp_path, change):
    text = HEAD + OUTLINE + SET + ONE_VISIT
    assert change[0] in text
    (tmp_path / "balls.toml").write_text(text.replace(*change))
    with pytest.raises(Refused, match=r"balls\.toml"):
        read_protocol(str(tmp_path / "balls.toml"))


def test_a_row_is_the_same_after_it_was_written():
    row = Row("d", "c", "p", "1", "k", "CT", "m", "box", scores=score_all(TRUTH, TRUTH)[0])
    assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row
