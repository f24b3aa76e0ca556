"""The document that a reader signs: it holds what the run found, says what it could not show, and runs no script."""

from __future__ import annotations

import csv
import json
import re
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest

from lesionlocator.cli import run
from lesionlocator.criteria import assess
from lesionlocator.errors import Refused
from lesionlocator.formats import write_labels, write_volume
from lesionlocator.geometry import Geometry
from lesionlocator.report.charts import Curve, Times, draw_growth
from lesionlocator.report.documents import assess_case, write_documents
from lesionlocator.report.drawing import Drawing, Grey, Words, number, signed_percent, ticks, to_png, to_svg
from lesionlocator.report.finished import find_finished, read_finished
from lesionlocator.report.peaks import measure_peak
from lesionlocator.report.reader import ReaderNotes, course_for, read_notes
from lesionlocator.report.settings import ReportSettings
from lesionlocator.report.thumbnails import draw_thumbnails, scan_reader
from lesionlocator.run import SegmentSettings, TrackSettings, run_segment, run_track
from lesionlocator.volume import Mask, Volume
from phantoms import in_ellipsoid, upright
from visits import Ball, ball_mask, grid, scan

ONE, TWO, THREE = Ball(-30, 0, 10, 11), Ball(28, -5, 0, 9), Ball(0, -20, -40, 8)
HOSTILE = '<script>alert("x")</script> & <b>'
SCRIPT = re.compile(r"<script|javascript:|onload=|onerror=", re.IGNORECASE)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three visits: lesion 1 shrinks, 2 grows, 3 is gone at the last."""
    folder = tmp_path_factory.mktemp("made")
    balls = [[ONE, TWO, THREE], [ONE.scaled(0.4), TWO.scaled(1.4), THREE], [ONE.scaled(0.2), TWO.scaled(1.6)]]
    for index, visit in enumerate(balls):
        write_volume(folder / f"visit{index}.nii.gz", scan(visit, grid(), index))
    labels = {index: ball_mask(ball, grid()) for index, ball in enumerate(balls[0], start=1)}
    write_labels(folder / "prompts.nii.gz", labels, grid())
    scans = [folder / f"visit{index}.nii.gz" for index in range(3)]
    settings = {"prompts": folder / "prompts.nii.gz", "modality": "CT"}
    run_track(scans, TrackSettings(out=folder / "batch" / "case_a", align="header", repeats=3, **settings))
    run_track(scans[:2], TrackSettings(out=folder / "batch" / "case_b", align="header", **settings))
    run_segment(scans[0], SegmentSettings(out=folder / "single", **settings))
    return folder


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "reader.json"
    path.write_text(
        json.dumps(
            {
                "version": 1,
                "patient": HOSTILE,
                "reader": "Dr. Ümläut Ωmega",
                "visits": [
                    {"name": "visit0", "date": "2026-01-10"},
                    {"name": "visit1", "date": "2026-03-08"},
                    {"name": "visit2", "date": "2026-06-02"},
                ],
                "lesions": [
                    {"id": "1", "organ": HOSTILE, "role": "target"},
                    {"id": "2", "organ": "liver", "role": "target"},
                    {"id": "3", "node": True},
                ],
            }
        )
    )
    return path


def write(folder, out, **settings):
    return write_documents(folder, ReportSettings(out=out, **settings))


def text_of(path):
    """The words of a PDF."""
    pdfium = pytest.importorskip("pypdfium2", reason="reading the PDF back needs pypdfium2")
    document = pdfium.PdfDocument(path)
    words = "\n".join(page.get_textpage().get_text_range() for page in document)
    document.close()
    return words


# ------------------------------------------------------------------------------------------------------- one case


def test_the_page_holds_every_lesion_its_pictures_curves_response_events_and_origin(made, tmp_path):
    found = write(made / "batch" / "case_a", tmp_path / "out", criteria=("recist-1.1", "irecist", "volume"))
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for words in ("Lesion 1", "Lesion 2", "Lesion 3", "Response by RECIST 1.1", "iRECIST, visit by visit", "vanished"):
        assert words in page
    assert "proposed by rule" in page and "nothing at its place looks like it any more" in page
    assert page.count("data:image/png;base64,") == 9  # three lesions at three visits; the gone one's place is shown
    run_ = json.loads((made / "batch" / "case_a" / "run.json").read_text())
    assert run_["inputs"][0]["sha256"] in page and run_["versions"]["numpy"] in page
    assert [one.criterion for one in found.assessments["case_a"]] == ["recist-1.1", "irecist", "volume"]


def test_the_numbers_of_the_page_are_those_of_the_table(made, tmp_path):
    write(made / "batch" / "case_a", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    with (made / "batch" / "case_a" / "lesions.csv").open() as stream:
        for row in csv.DictReader(stream):
            if row["volume_ml"]:
                assert f"{float(row['volume_ml']):.2f}" in page and f"{float(row['long_axis_mm']):.1f}" in page


def test_names_that_hold_scripts_stay_text(made, notes, tmp_path):
    write(made / "batch" / "case_a", tmp_path / "out", reader=notes, pdf=True)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert not SCRIPT.search(page) and "&lt;script&gt;" in page
    assert "default-src 'none'" in page and "http" not in re.sub(r"http-equiv", "", page)


def test_every_drawing_of_the_page_is_whole(made, tmp_path):
    write(made / "batch" / "case_a", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) >= 13 and all(ElementTree.fromstring(drawing) is not None for drawing in drawings)


def test_the_pdf_says_the_same(made, notes, tmp_path):
    found = write(made / "batch" / "case_a", tmp_path / "out", reader=notes, pdf=True)
    path = tmp_path / "out" / "report.pdf"
    assert path.read_bytes().startswith(b"%PDF") and path in found.written
    words = text_of(path)
    for expected in (
        "Lesion report: <script>",
        "Response by RECIST 1.1",
        "Measurements",
        "Where this came from",
        "Ωmega",
    ):
        assert expected in words


def test_a_choice_of_targets_by_a_reader_is_not_called_proposed(made, notes, tmp_path):
    found = write(made / "batch" / "case_a", tmp_path / "out", reader=notes)
    assert "(proposed)" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    (recist,) = found.assessments["case_a"]
    assert [one.lesion_id for one in recist.chosen if not one.proposed] == ["1", "2"]


def test_a_scan_that_is_gone_is_said_and_the_rest_of_the_report_is_there(made, tmp_path):
    case = tmp_path / "case"
    shutil.copytree(made / "batch" / "case_a", case)
    run_ = json.loads((case / "run.json").read_text())
    run_["inputs"][1]["path"] = str(tmp_path / "gone.nii.gz")
    (case / "run.json").write_text(json.dumps(run_))
    write(case, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "no pictures of scans that could not be read: visit1" in page and page.count("data:image/png") == 6
    assert "Measurements" in page


def test_a_scan_that_was_replaced_by_another_is_not_shown(made, tmp_path):
    case = tmp_path / "case"
    shutil.copytree(made / "batch" / "case_a", case)
    other = scan([ONE], grid((-40.0, 40.0)), 5)
    write_volume(tmp_path / "other.nii.gz", other)
    run_ = json.loads((case / "run.json").read_text())
    run_["inputs"][0]["path"] = str(tmp_path / "other.nii.gz")
    (case / "run.json").write_text(json.dumps(run_))
    finished = read_finished(case)
    assert list(draw_thumbnails(finished, {}, scan_reader(finished)).unread) == ["visit0"]


def test_one_scan_has_lesions_and_no_response(made, tmp_path):
    found = write(made / "single", tmp_path / "out", pdf=True)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Response" not in page and "Lesion 3" in page and found.assessments == {"single": []}


def test_a_lesion_has_one_zoom_and_one_grey_scale_over_all_visits(made):
    case = read_finished(made / "batch" / "case_a")
    shown = draw_thumbnails(case, {}, scan_reader(case)).shown
    for lesion_id in ("1", "2"):
        drawings = [shown[scan_, lesion_id].drawing for scan_ in case.scans]
        bars = [[mark.text for mark in drawing.marks if isinstance(mark, Words)][0] for drawing in drawings]
        assert len(set(bars)) == 1
        fat = [np.median(drawing.marks[0].array[:30]) for drawing in drawings]
        assert max(fat) - min(fat) <= 6  # the body of fat is the same grey


# --------------------------------------------------------------------------------------------------------- cohort


def test_a_batch_becomes_a_cohort_with_a_page_for_each_case(made, tmp_path):
    broken = made / "batch" / "broken"
    broken.mkdir(exist_ok=True)
    (broken / "run.json").write_text("{")
    try:
        found = write(made / "batch", tmp_path / "out", pdf=True)
    finally:
        shutil.rmtree(broken)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for words in ("waterfall", "spider", "swimmer", 'href="cases/case_a.html"', "Cases without a report", "broken"):
        assert words in page
    assert (tmp_path / "out" / "cases" / "case_b.html").exists() and list(found.failed) == ["broken"]
    assert "swimmer" in text_of(tmp_path / "out" / "report.pdf")


def test_the_waterfall_bar_is_the_best_change_of_the_sum(made, tmp_path):
    found = write(made / "batch", tmp_path / "out", cohort_only=True)
    assert not (tmp_path / "out" / "cases").exists()
    for assessments in found.assessments.values():
        best = min(one.from_baseline_percent for one in assessments[0].responses[1:])
        assert signed_percent(best) in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


# ----------------------------------------------------------------------------------------------------- the command


def test_the_command_answers_in_json_and_refuses_in_words(made, tmp_path, capsys):
    assert run(["report", str(made / "batch" / "case_a"), "--out", str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["responses"]["case_a"][0]["responses"][1]["category"] in ("PR", "SD", "PD")
    assert run(["report", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]) == 2
    assert "finished case" in capsys.readouterr().err
    assert run(["report", str(made / "single"), "--out", str(tmp_path / "o"), "--criteria", "recist-9"]) == 2
    assert "recist-9" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ what a reader adds


def written(tmp_path, **content):
    path = tmp_path / "notes.json"
    path.write_text(json.dumps({"version": 1, **content}))
    return path


def test_a_reader_s_measurements_in_centimetres_and_missed_visits_count(made, tmp_path):
    case = read_finished(made / "batch" / "case_a")
    visits = [{"name": name} for name in ("visit0", "visit1", "spring", "visit2")]
    visits[2] = {"name": "spring", "missed": True}
    rows = [{"visit": "visit1", "id": "1", "long": 4.0}, {"visit": "visit2", "id": "3", "state": "too small"}]
    path = written(tmp_path, visits=visits, measurements=rows, length_unit="cm")
    course = course_for(case, read_notes(path), {})
    assert [visit.missed for visit in course.visits] == [False, False, True, False]
    assert course.at("visit1", "1").long_mm == 40.0 and course.at("visit1", "1").short_mm == pytest.approx(
        case.row("visit1", "1").short_axis_mm
    )
    said = assess(course)
    assert said.at("spring").category == "NE" and {
        one.value for one in said.at("visit2").shares if one.lesion_id == "3"
    } == {5.0}


def test_slices_of_the_scans_are_known_without_the_scans(made):
    assert read_finished(made / "batch" / "case_a").slice_mm("visit0") == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"visits": [{"name": "visit9"}]}, "visit9"),
        ({"lesions": [{"id": "1", "role": "goal"}]}, "goal"),
        ({"lesions": [{"id": "../1"}]}, r"\.\./1"),
        ({"visits": [{"name": "visit0", "date": "yesterday"}]}, "yesterday"),
        ({"measurements": [{"visit": "visit0", "id": "1", "long": -3}]}, "-3"),
        ({"measurements": [{"visit": "summer", "id": "1", "long": 3}]}, "summer"),
        ({"length_unit": "inch"}, "inch"),
        ({"surprise": 1}, "surprise"),
        ({"visits": [{"name": "visit0", "missed": "yes"}]}, "missed"),
    ],
)
def test_what_a_reader_s_file_says_wrongly_is_refused_in_words(made, tmp_path, content, said):
    case = read_finished(made / "batch" / "case_a")
    with pytest.raises(Refused, match=said):
        course_for(case, read_notes(written(tmp_path, **content)), {})


def test_a_criterion_that_cannot_be_applied_is_a_warning(made):
    case = read_finished(made / "batch" / "case_a")
    _, found, warnings = assess_case(case, ReaderNotes(), ("recist-1.1", "percist-1.0"), scan_reader(case))
    assert len(found) == 1 and "percist-1.0 was not applied" in warnings[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", "[]"),
        ("run.json", "{"),
        ("lesions.csv", "scan,lesion_id,status\nvisit0,1,odd\n"),
        ("lesions.csv", "\0"),
    ],
)
def test_a_folder_that_was_changed_beyond_reading_is_refused(made, tmp_path, name, text):
    case = tmp_path / "case"
    shutil.copytree(made / "single", case)
    (case / name).write_text(text)
    with pytest.raises(Refused, match=r"cannot be read|version 1"):
        read_finished(find_finished(case)[0])


# ---------------------------------------------------------------------------------------------------------- pieces


def test_peak_uptake_is_the_mean_of_a_millilitre():
    geometry = upright((30, 30, 30), 2.0, (0.0, 0.0, 0.0))
    flat = Volume(np.full(geometry.shape, 4.0, np.float32), geometry, "PT")
    whole = Mask.from_array(in_ellipsoid(geometry, (0, 0, 0), (12, 12, 12)), geometry)
    assert measure_peak(flat, whole) == pytest.approx(4.0)
    hot = np.ones(geometry.shape, np.float32)
    hot[in_ellipsoid(geometry, (0, 0, 0), (10, 10, 10))] = 9.0
    assert measure_peak(Volume(hot, geometry, "PT"), whole) == pytest.approx(9.0, rel=1e-3)
    one = np.zeros(geometry.shape, np.float32)
    one[15, 15, 15] = 100.0  # one voxel of 8 mm3 in 1000
    assert measure_peak(Volume(one, geometry, "PT"), whole) == pytest.approx(0.8, rel=0.05)


def test_no_peak_is_taken_where_the_scan_ends():
    geometry = upright((4, 4, 4), 2.0, (0.0, 0.0, 0.0))
    everything = Mask.from_array(np.ones(geometry.shape, bool), geometry)
    assert measure_peak(Volume(np.ones(geometry.shape, np.float32), geometry, "PT"), everything) is None


def test_text_in_a_drawing_is_escaped_and_greys_are_kept():
    array = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    drawing = Drawing(40, 30, (Grey((0, 0), (40, 30), array), Words((1, 9), HOSTILE)), HOSTILE)
    svg = to_svg(drawing)
    assert not SCRIPT.search(svg) and ElementTree.fromstring(svg) is not None
    import io

    from matplotlib.image import imread

    assert np.array_equal(np.round(imread(io.BytesIO(to_png(array)), format="png") * 255), array)


def test_a_gap_in_a_curve_is_not_drawn_as_a_measurement():
    times = Times((0.0, 1.0, 2.0), ("a", "b", "c"), in_days=False)
    values = (4.0, None, 2.0)
    drawing = draw_growth(Curve("Lesion 1", "", "#000000", values, (None,) * 3, (None,) * 3), times)
    dashed = [mark for mark in drawing.marks if getattr(mark, "dash", ())]
    assert len(dashed) == 1


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "0"), (0.123, "0.12"), (3.14, "3.1"), (27.4, "27"), (-5.5, "–5.5"), (1280.2, "1280")]
)
def test_numbers_have_as_many_digits_as_one_reads(value, said):
    assert number(value) == said


def test_axes_have_round_numbers():
    assert list(ticks(0.0, 9.7, 5)) == [0, 2, 4, 6, 8] and list(ticks(-105.0, 40.0, 4)) == [-100, -50, 0]
    assert signed_percent(-0.3) == "0 %" and signed_percent(None) == "" and signed_percent(-12.6) == "–13 %"


def test_geometry_of_a_case_without_masks_is_unknown(tmp_path, made):
    case = tmp_path / "case"
    shutil.copytree(made / "single", case)
    for path in case.glob("*_lesion_*.nii.gz"):
        path.unlink()
    finished = read_finished(case)
    assert finished.grid("visit0") is None and finished.slice_mm("visit0") is None
    assert isinstance(read_finished(made / "single").grid("visit0"), Geometry)
