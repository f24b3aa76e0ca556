"""Finding the cases of a batch, in a folder or a table: all that could be misread is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesionlocator.batch import find_cases
from lesionlocator.errors import Refused


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def test_a_folder_of_cases_gives_each_its_scans_oldest_first(tmp_path):
    make(tmp_path, "b/t0.nii.gz", "b/t1.nrrd", "b/prompts.json", "a/scan.mha", "a/scan_labels.nii.gz")
    make(tmp_path, "c/01_baseline/1.dcm", "c/02_followup/1.dcm", "c/prompts.mrk.json", ".hidden/x", "out/batch.csv")
    found = [(job.name, [scan.name for scan in job.scans], job.prompts.name) for job in find_cases(tmp_path)]
    assert found == [
        ("a", ["scan.mha"], "scan_labels.nii.gz"),
        ("b", ["t0.nii.gz", "t1.nrrd"], "prompts.json"),
        ("c", ["01_baseline", "02_followup"], "prompts.mrk.json"),
    ]


def test_names_that_would_put_a_followup_before_its_baseline_are_refused(tmp_path):
    make(tmp_path, "a/t2.nii", "a/t10.nii", "a/prompts.json")
    with pytest.raises(Refused, match=r"case a: t10\.nii comes too early by its name; write numbers as 02, 10"):
        find_cases(tmp_path)


def test_all_that_is_wrong_in_a_folder_of_cases_is_said_at_once(tmp_path):
    make(
        tmp_path,
        "a/scan.nii",
        "b/prompts.json",
        "c/scan.nii",
        "c/prompts.json",
        "c/prompts.nii",
        "d/s.nii",
        "d/prompts.nii",
    )
    with pytest.raises(Refused) as refusal:
        find_cases(tmp_path)
    assert all(f"case {name}:" in refusal.value.found for name in "abc")
    assert "case d:" not in refusal.value.found
    assert "prompts.json, prompts.nii" in refusal.value.found


@pytest.mark.parametrize("path", ["nowhere", "empty", "empty.csv"])
def test_a_place_without_cases_is_refused(tmp_path, path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.csv").write_text("case,scan,prompts\n")
    with pytest.raises(Refused, match=path):
        find_cases(tmp_path / path)


@pytest.mark.parametrize(
    "text",
    [
        "case,scan,followups,prompts,as\nsmith,a/1.nii,a/2.nii; b/3.nii,p.json,box\n\njones,a/1.nii,,p.json,\n",
        "\ufeffcase\tscan\tfollowup_10\tfollowup_9\tprompts\tas\tnote\nsmith\ta/1.nii\tb/3.nii\ta/2.nii\tp.json\tbox\t!\n"
        "jones\ta/1.nii\t\t\tp.json\t\t\n",
        "Case;Scan;followup_1;followup_2;Prompts;as\nsmith;a/1.nii;a/2.nii;b/3.nii;p.json;box\njones;a/1.nii;;;p.json\n",
    ],
    ids=["commas", "tabs", "semicolons"],
)
def test_a_table_of_cases_is_read_with_paths_relative_to_it(tmp_path, monkeypatch, text):
    make(tmp_path, "t/a/1.nii", "t/a/2.nii", "t/b/3.nii", "t/p.json")
    (tmp_path / "t/cases.csv").write_text(text)
    monkeypatch.chdir(tmp_path)
    jones, smith = find_cases(Path("t/cases.csv"))
    assert (jones.name, jones.scans, jones.options) == ("jones", (tmp_path / "t/a/1.nii",), ())
    assert smith.scans == tuple(tmp_path / "t" / name for name in ("a/1.nii", "a/2.nii", "b/3.nii"))
    assert smith.prompts == tmp_path / "t/p.json"
    assert smith.options == (("as", "box"),)


def test_all_files_that_a_table_names_and_are_not_there_are_named_at_once(tmp_path):
    make(tmp_path, "1.nii", "p.json")
    (tmp_path / "t.csv").write_text(
        "case,scan,followups,prompts\na,1.nii,2.nii;3.nii,p.json\nb,4.nii,,q.json\nc,1.nii,,p.json\n"
    )
    with pytest.raises(Refused) as refusal:
        find_cases(tmp_path / "t.csv")
    missing = [part.rpartition("no file ")[2] for part in refusal.value.found.split("; ")]
    assert missing == ["2.nii", "3.nii", "4.nii", "q.json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case,scan,prompts\n../a,1.nii,p.json\n", r"line 2: case \.\./a"),
        ("case,scan,prompts\n..,1.nii,p.json\n", "line 2: case"),
        ("case,scan,prompts\nbatch.csv,1.nii,p.json\n", "not a file of the batch"),
        ("case,scan,prompts\na,1.nii,p.json\na,1.nii,p.json\n", "more than one line in .* for a"),
        ("case,scan,prompts\na,1.nii,p.json\nA,1.nii,p.json\n", "named alike .*: A, a|named alike .*: a, A"),
        ("case,scan,prompts\n,1.nii,p.json\n", "line 2: no case"),
        ("case,scan,prompts\na,,p.json\n", "line 2: no scan"),
        ("case,scan\na,1.nii\n", "add the missing columns"),
        ("case,scan,prompts,followup1\na,1.nii,p.json,1.nii\n", "followup1"),
        ("case,scan,prompts,followups,followup_1\na,1.nii,p.json,1.nii,1.nii\n", "in one way"),
        ("case,scan,prompts,as\na,1.nii,p.json,circle\n", "line 2: as is circle, not one of box, click, mask"),
        ("case,scan,prompts,as\na,1.nii,p.json,mask\n", "line 2: as is mask, .* and no follow-up"),
        ("case,scan,prompts,modality\na,1.nii,p.json,US\n", "modality is US, not one of CT, MR, PT"),
        ("case,scan,prompts\na,1.nii,p.json,4\n", "4 cells in line 2"),
        ('case,scan,prompts\na,1.nii,"p.json\n', "is no table"),
        ("one column\n", "as first line"),
        ("", "as first line"),
        ("case\udcff,scan,prompts\n", "UTF-8"),
    ],
)
def test_a_table_that_could_be_misread_is_refused(tmp_path, text, said):
    make(tmp_path, "1.nii", "p.json")
    (tmp_path / "t.csv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(Refused, match=said):
        find_cases(tmp_path / "t.csv")
