"""The contract of the command line: calls, exit codes, files, columns, words."""

import csv
import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stdout

import nibabel as nib
import numpy as np
import pytest

from files import LEFT, LOW, RIGHT, box_of, save_labels, save_nifti, save_prompts, save_scan
from lesionlocator import cli
from visits import ball_mask, grid, scan

LESION_COLUMNS = (
    "scan,lesion_id,status,reason,confidence,volume_ml,long_axis_mm,short_axis_mm,mean,min,max,unit,"
    "centre_x_mm,centre_y_mm,centre_z_mm"
).split(",")
LINK_COLUMNS = "lesion_id,from_scan,to_scan,to_lesion_id,event,reason,confidence,decided_by".split(",")


@pytest.fixture(scope="module")
def visits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("visits")
    save_scan(folder / "bl.nii.gz", [LEFT, RIGHT, LOW], 0)
    save_scan(folder / "fu.nii.gz", [LEFT.scaled(2), LOW], 1)
    save_scan(folder / "fu2.nii.gz", [LEFT.scaled(2), LOW], 2, grid((-25.0, 75.0)))
    save_labels(folder / "labels.nii.gz", {2: LEFT, 5: RIGHT, 9: LOW})
    save_prompts(
        folder / "prompts.json",
        [
            {"id": "2", "box": box_of(LEFT)},
            {"id": "5", "clicks": [{"at": [28, -5, 0], "positive": True}]},
            {"id": "9", "line": {"from": [-8, -20, -40], "to": [8, -20, -40]}},
        ],
    )
    return folder


@pytest.fixture(scope="module")
def outlined(visits, tmp_path_factory):
    """Exit code, standard output and folder of `segment`, which many tests look at."""
    folder = tmp_path_factory.mktemp("outlined")
    words = ["segment", visits / "bl.nii.gz", "--prompts", visits / "prompts.json", "--out", folder]
    said = io.StringIO()
    with redirect_stdout(said):
        code = cli.run([str(word) for word in words])
    return code, said.getvalue(), folder


@pytest.fixture(scope="module")
def tracked(visits, tmp_path_factory):
    """Exit code and folder of `track` over all three visits, with proposals for the reader."""
    folder = tmp_path_factory.mktemp("tracked")
    scans = [visits / name for name in ("bl.nii.gz", "fu.nii.gz", "fu2.nii.gz")]
    how = ("--prompts", visits / "labels.nii.gz", "--as", "mask", "--align", "header", "--propose")
    return cli.run([str(word) for word in ("track", *scans, *how, "--out", folder)]), folder


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = cli.run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def header(path) -> list[str]:
    return path.read_text().splitlines()[0].split(",")


def dice(path, ball, geometry=None) -> float:
    found = np.asarray(nib.load(path).dataobj).T > 0
    truth = ball_mask(ball, geometry or grid()).on(geometry or grid())
    return 2 * np.count_nonzero(found & truth) / (found.sum() + truth.sum())


def test_segment_writes_masks_tables_and_the_record_last(outlined):
    code, out, folder = outlined
    assert code == 0 and "written to" in out
    for name, ball in (("2", LEFT), ("5", RIGHT)):
        assert dice(folder / f"bl_lesion_{name}.nii.gz", ball) > 0.85
    assert header(folder / "lesions.csv") == LESION_COLUMNS
    assert header(folder / "links.csv") == LINK_COLUMNS
    assert [(row["scan"], row["lesion_id"], row["status"]) for row in rows(folder / "lesions.csv")] == [
        ("bl", "2", "outlined"),
        ("bl", "5", "outlined"),
        ("bl", "9", "outlined"),
    ]
    record = json.loads((folder / "run.json").read_text())
    assert record["command"] == "segment" and record["modality"] == {"bl": "CT"}
    assert record["model"]["id"] == "zoom" and len(record["inputs"][0]["sha256"]) == 64
    assert any("guessed" in warning for warning in record["warnings"])
    assert set(record["files"]) < {path.name for path in folder.iterdir()}
    labels = np.unique(np.asarray(nib.load(folder / "bl_lesions.nii.gz").dataobj))
    assert labels.tolist() == [0, 2, 5, 9]


def test_outputs_have_the_affine_of_the_scan_bit_for_bit(visits, outlined):
    written = list(outlined[2].glob("*.nii.gz"))
    assert len(written) >= 4
    for path in written:
        assert np.array_equal(nib.load(path).affine, nib.load(visits / "bl.nii.gz").affine)


def test_json_is_one_value_on_standard_output(visits, tmp_path, capsys):
    code, out, err = run(
        capsys, "segment", visits / "bl.nii.gz", "--json", "--prompts", visits / "labels.nii.gz", "--out", tmp_path
    )
    answer = json.loads(out)
    assert code == 0 and [row["lesion_id"] for row in answer["lesions"]] == ["2", "5", "9"]
    assert "outlining" in err


def test_track_follows_links_and_ends_every_lesion(visits, tracked):
    code, folder = tracked
    assert code == 0
    links = {(row["lesion_id"], row["from_scan"], row["to_scan"]): row for row in rows(folder / "links.csv")}
    assert {key: row["event"] for key, row in links.items()} == {
        ("2", "bl", "fu"): "same",
        ("5", "bl", "fu"): "vanished",
        ("9", "bl", "fu"): "same",
        ("2", "fu", "fu2"): "same",
        ("9", "fu", "fu2"): "outside",
    }
    assert links["5", "bl", "fu"]["reason"] and links["5", "bl", "fu"]["to_lesion_id"] == ""
    assert links["2", "bl", "fu"]["decided_by"] == "model"
    statuses = {(row["scan"], row["lesion_id"]): row["status"] for row in rows(folder / "lesions.csv")}
    assert statuses["fu", "5"] == statuses["fu2", "5"] == "absent" and statuses["fu2", "9"] == "outside"
    assert not (folder / "fu_lesion_5.nii.gz").exists()
    assert dice(folder / "fu_lesion_2.nii.gz", LEFT.scaled(2)) > 0.85
    given = np.asarray(nib.load(visits / "labels.nii.gz").dataobj) == 2
    assert np.array_equal(np.asarray(nib.load(folder / "bl_lesion_2.nii.gz").dataobj) > 0, given)
    proposed = json.loads((folder / "fu_proposed.json").read_text())
    confidences = [lesion["confidence"] for lesion in proposed["lesions"]]
    assert proposed["scan"] == "fu" and len(confidences) == 3 and confidences == sorted(confidences)
    (gone,) = [lesion for lesion in proposed["lesions"] if lesion["id"] == "5"]
    assert "seems to be gone" in gone["note"]
    assert [click["positive"] for click in gone["clicks"]] == [False] and "box" not in gone
    pictures = sorted(path.name for path in (folder / "fu_proposed").iterdir())
    assert pictures == [f"{n:02d}_lesion_{one['id']}.png" for n, one in enumerate(proposed["lesions"], start=1)]


def test_proposals_accepted_unchanged_say_what_the_model_said_by_the_readers_word(visits, tracked, tmp_path, capsys):
    code, *_ = run(
        capsys, "track", visits / "bl.nii.gz", visits / "fu.nii.gz", "--prompts", visits / "labels.nii.gz",
        "--as", "mask", "--align", "header", "--verified", tracked[1] / "fu_proposed.json",
        "--out", tmp_path / "checked",
    )  # fmt: skip
    assert code == 0
    assert [(r["lesion_id"], r["event"], r["decided_by"]) for r in rows(tmp_path / "checked" / "links.csv")] == [
        ("2", "same", "reader"),
        ("5", "vanished", "reader"),
        ("9", "same", "reader"),
    ]
    for name in ("fu_lesion_2.nii.gz", "fu_lesion_9.nii.gz"):
        automatic, checked = (np.asarray(nib.load(f / name).dataobj) for f in (tracked[1], tmp_path / "checked"))
        assert np.array_equal(automatic, checked)


def test_candidates_for_new_lesions_are_written_for_a_reader_and_enter_no_table(visits, tmp_path, capsys):
    prompts = save_prompts(tmp_path / "p.json", [{"id": "2", "box": box_of(LEFT)}])
    run(
        capsys, "track", visits / "bl.nii.gz", visits / "fu.nii.gz", "--prompts", prompts, "--align", "header",
        "--find-new", "--out", tmp_path / "out",
    )  # fmt: skip
    written = json.loads((tmp_path / "out" / "fu_new.json").read_text())
    assert written["scan"] == "fu" and len(written["lesions"]) <= 10
    assert all("candidate" in lesion["note"] and 0 < lesion["confidence"] < 1 for lesion in written["lesions"])
    assert {row["lesion_id"] for row in rows(tmp_path / "out" / "lesions.csv")} == {"2"}


def test_verified_prompts_are_followed_and_said_to_be_the_readers(visits, tmp_path, capsys):
    verified = save_prompts(tmp_path / "checked.json", [{"id": "9", "box": box_of(LOW)}], scan="fu")
    code, *_ = run(
        capsys, "track", visits / "bl.nii.gz", visits / "fu.nii.gz", "--prompts", visits / "labels.nii.gz",
        "--align", "header", "--verified", verified, "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0
    assert [(r["lesion_id"], r["event"], r["decided_by"]) for r in rows(tmp_path / "out" / "links.csv")] == [
        ("2", "vanished", "reader"),
        ("5", "vanished", "reader"),
        ("9", "same", "reader"),
    ]
    assert verified.exists()


def test_a_lesion_that_fails_is_a_row_and_exit_code_three(visits, tmp_path, capsys):
    lesions = [{"id": "2", "box": box_of(LEFT)}, {"id": "7", "clicks": [{"at": [900, 0, 0], "positive": True}]}]
    prompts = save_prompts(tmp_path / "p.json", lesions)
    code, _, err = run(capsys, "segment", visits / "bl.nii.gz", "--prompts", prompts, "--out", tmp_path / "out")
    assert code == 3 and "lesion 7" in err
    found = rows(tmp_path / "out" / "lesions.csv")
    assert [(row["lesion_id"], row["status"]) for row in found] == [("2", "outlined"), ("7", "outside")]
    assert "outside" in found[1]["reason"]


def test_running_again_replaces_what_the_earlier_run_wrote_and_nothing_else(visits, tmp_path, capsys):
    one = save_prompts(tmp_path / "one.json", [{"id": "1", "box": box_of(LEFT)}])
    two = save_prompts(tmp_path / "two.json", [{"id": "2", "box": box_of(LEFT)}])
    out = tmp_path / "out"
    run(capsys, "segment", visits / "bl.nii.gz", "--prompts", one, "--out", out)
    (out / "notes.txt").write_text("mine")
    run(capsys, "segment", visits / "bl.nii.gz", "--prompts", two, "--out", out)
    assert {path.name for path in out.glob("*_lesion_*")} == {"bl_lesion_2.nii.gz"}
    assert (out / "notes.txt").read_text() == "mine"


def test_names_of_scans_are_told_apart_by_their_folders(tmp_path, capsys):
    for name in ("jan", "may"):
        (tmp_path / name).mkdir()
        save_scan(tmp_path / name / "ct.nii.gz", [LEFT], 0)
    prompts = save_prompts(tmp_path / "p.json", [{"id": "1", "box": box_of(LEFT)}])
    scans = [tmp_path / name / "ct.nii.gz" for name in ("jan", "may")]
    code, *_ = run(capsys, "track", *scans, "--prompts", prompts, "--align", "header", "--out", tmp_path / "out")
    assert code == 0
    assert {p.name for p in (tmp_path / "out").glob("*_lesion_1.nii.gz")} == {
        "jan_ct_lesion_1.nii.gz",
        "may_ct_lesion_1.nii.gz",
    }


def test_measure_reads_label_maps_files_and_folders(visits, tmp_path, capsys):
    code, out, _ = run(capsys, "measure", visits / "bl.nii.gz", visits / "labels.nii.gz", "--json")
    assert code == 0
    measured = json.loads(out)
    assert [row["lesion_id"] for row in measured] == ["2", "5", "9"]
    assert measured[0]["volume_ml"] == pytest.approx(4 / 3 * np.pi * 9**3 / 1000, rel=0.05)
    assert measured[0]["long_axis_mm"] == pytest.approx(18, abs=1.5) and measured[0]["unit"] == "HU"
    run(capsys, "segment", visits / "bl.nii.gz", "--prompts", visits / "labels.nii.gz", "--out", tmp_path / "o")
    code, *_ = run(capsys, "measure", visits / "bl.nii.gz", tmp_path / "o", "--out", tmp_path / "m.csv")
    assert code == 0 and header(tmp_path / "m.csv") == LESION_COLUMNS
    # A mask alone does not tell how sure the model was of it.
    outlined_rows = [{**row, "confidence": ""} for row in rows(tmp_path / "o" / "lesions.csv")]
    assert rows(tmp_path / "m.csv") == outlined_rows


def test_prompts_are_converted_to_version_one_and_painted(visits, tmp_path, capsys):
    code, *_ = run(capsys, "prompts", "convert", visits / "labels.nii.gz", tmp_path / "c.json", "--as", "click")
    assert code == 0
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["version"] == 1 and [list(lesion) for lesion in content["lesions"]] == [["id", "clicks"]] * 3
    painted = tmp_path / "p.nii.gz"
    assert run(capsys, "prompts", "convert", visits / "prompts.json", painted, "--scan", visits / "bl.nii.gz")[0] == 0
    assert np.unique(np.asarray(nib.load(painted).dataobj)).tolist() == [0, 2, 5, 9]
    code, _, err = run(capsys, "prompts", "convert", visits / "prompts.json", tmp_path / "q.nii.gz")
    assert code == 2 and "--scan" in err


def test_models_are_listed_verified_and_imported(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    code, out, _ = run(capsys, "models", "list", "--json")
    assert code == 0 and {card["id"] for card in json.loads(out)} >= {"ellipsoid", "intensity"}
    assert [card["id"] for card in json.loads(out) if card["default"]] == ["zoom"]
    assert "\n* zoom " in run(capsys, "models")[1]
    code, out, _ = run(capsys, "models", "verify", "ellipsoid")
    assert code == 0 and "Dice" in out
    assert run(capsys, "models", "verify", "nosuch")[0] == 2


def test_doctor_finds_this_installation_well(capsys):
    code, out, _ = run(capsys, "doctor")
    assert code == 0 and "FAIL" not in out and "model intensity" in out


# -------------------------------------------------------------------------------------------------- what is refused


def truncated(folder):
    whole = (folder / "bl.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    return folder / "cut.nii.gz", folder / "prompts.json"


def broken_sizes(folder):
    image = nib.load(folder / "bl.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), folder / "broken.nii")
    content = bytearray((folder / "broken.nii").read_bytes())
    content[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    (folder / "broken.nii").write_bytes(content)
    return folder / "broken.nii", folder / "prompts.json"


def box_outside(folder):
    box = {"min": [500, 500, 500], "max": [510, 510, 510]}
    return folder / "bl.nii.gz", save_prompts(folder / "away.json", [{"id": "1", "box": box}])


def not_numbers(folder):
    values = scan([LEFT], grid(), 0).array.astype(np.float32)
    values[ball_mask(LEFT, grid()).on(grid())] = np.nan
    return (
        save_nifti(folder / "nan.nii.gz", values, grid()),
        save_prompts(folder / "one.json", [{"id": "2", "box": box_of(LEFT)}]),
    )


def lesion_twice(folder):
    lesion = {"id": "2", "box": box_of(LEFT)}
    return folder / "bl.nii.gz", save_prompts(folder / "twice.json", [lesion, lesion])


def empty_folder(folder):
    (folder / "empty").mkdir()
    return folder / "empty", folder / "prompts.json"


def unreadable_dicom(folder):
    (folder / "series").mkdir()
    for n in range(3):
        (folder / "series" / f"{n}.dcm").write_bytes(bytes(128) + b"DICM" + b"\x00garbage" * n)
    return folder / "series", folder / "prompts.json"


def unknown_version(folder):
    return folder / "bl.nii.gz", save_prompts(folder / "v9.json", [{"id": "2", "box": box_of(LEFT)}], version=9)


def missing_frame(folder):
    return folder / "bl.nii.gz", save_prompts(folder / "f.json", [{"id": "2", "box": box_of(LEFT)}], frame=None)


def no_scan(folder):
    return folder / "nothing.nii.gz", folder / "prompts.json"


def no_prompts(folder):
    return folder / "bl.nii.gz", folder / "nothing.json"


def half_a_json(folder):
    (folder / "half.json").write_text('{"version": 1, "space": "wor')
    return folder / "bl.nii.gz", folder / "half.json"


REFUSED = [
    (truncated, "cut.nii.gz"),
    (broken_sizes, "broken.nii"),
    (box_outside, "outside"),
    (not_numbers, "not numbers"),
    (lesion_twice, "'2'"),
    (empty_folder, "empty"),
    (unreadable_dicom, "series"),
    (unknown_version, "9"),
    (missing_frame, "frame"),
    (no_scan, "nothing.nii.gz"),
    (no_prompts, "nothing.json"),
    (half_a_json, "half.json"),
]


@pytest.mark.parametrize(("spoil", "said"), REFUSED, ids=[spoil.__name__ for spoil, _ in REFUSED])
def test_input_that_cannot_be_used_is_refused_in_words_and_nothing_is_lost(
    visits, outlined, tmp_path, capsys, spoil, said
):
    for name in ("bl.nii.gz", "prompts.json"):
        shutil.copy(visits / name, tmp_path / name)
    out = shutil.copytree(outlined[2], tmp_path / "out")
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    scan_file, prompts = spoil(tmp_path)
    code, answer, err = run(capsys, "segment", scan_file, "--prompts", prompts, "--out", out)
    assert code == 2 and answer == ""
    assert [line.split(":")[0] for line in err.splitlines()[-3:]] == ["found", "needed", "do"]
    assert said in err and "Traceback" not in err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == kept


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment", "a.nii.gz", "--out", "o"],
        ["segment", "a.nii.gz", "--prompts", "p.json", "--out", "o", "--as", "scribble"],
        ["track", "a.nii.gz", "--prompts", "p.json", "--out", "o"],
        ["segment", "a.nii.gz", "--prompts", "p.json", "--out", "o", "--model", "nosuch"],
        ["frobnicate"],
    ],
)
def test_a_wrong_call_is_refused_with_two(arguments, capsys):
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "found:" in err and "Traceback" not in err


def test_the_installed_command_exits_with_the_code_of_the_contract(visits, tmp_path):
    command = [sys.executable, "-c", "from lesionlocator.cli import main; main()", "segment", "nothing.nii.gz"]
    done = subprocess.run(
        [*command, "--prompts", "p.json", "--out", str(tmp_path), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and set(json.loads(done.stdout)["error"]) == {"found", "needed", "do"}
    assert "Traceback" not in done.stderr


def test_an_interrupted_command_says_so(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("lesionlocator.doctor.examine", interrupt)
    code, _, err = run(capsys, "doctor")
    assert code == 130 and "interrupted" in err
