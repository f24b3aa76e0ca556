"""The demo: what is fetched, what is made up, and what comes out."""

import csv
import hashlib
import io
import re
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lesionlocator import demo
from lesionlocator.demo import archive, chest, followup, lesions
from lesionlocator.errors import Refused
from lesionlocator.formats import read_volume
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask, Volume

# ------------------------------------------------------------------------------------------ the public archive


def source_archive(folder: Path) -> bytes:
    """An archive of the right name whose set-up script must never run."""
    path = folder / "pyradiomics-3.0.1.tar.gz"
    members = {"setup.py": b"raise SystemExit('the set-up script was run')\n", "PKG-INFO": b"Metadata-Version: 1.0\n"}
    for name in archive.PUBLIC_SCANS:
        members[f"data/{name}_image.nrrd"] = f"voxels of {name}".encode()
        members[f"data/{name}_label.nrrd"] = f"outline of {name}".encode()
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"pyradiomics-3.0.1/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path.read_bytes()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder that takes the place of every package index."""
    pytest.importorskip("pip")
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def expected(shelf, monkeypatch):
    content = source_archive(shelf)
    monkeypatch.setattr(archive, "_SHA256", hashlib.sha256(content).hexdigest())
    return content


@pytest.mark.usefixtures("expected")
def test_the_archive_is_fetched_by_pip_without_running_any_of_it(tmp_path):
    scans = archive.public_scans(tmp_path / "cache")
    assert list(scans) == ["lung1", "lung2", "brain1", "brain2"]
    assert scans["lung2"][0].read_bytes() == b"voxels of lung2"
    assert scans["brain1"][1].read_bytes() == b"outline of brain1"


@pytest.mark.usefixtures("expected")
def test_a_cache_folder_may_be_given_as_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert archive.public_scans(Path("cache"))["lung1"][1].read_bytes() == b"outline of lung1"


@pytest.mark.usefixtures("expected")
def test_the_second_time_nothing_is_fetched(tmp_path, monkeypatch):
    archive.public_scans(tmp_path)
    monkeypatch.setattr(archive, "_download", lambda *_, **__: pytest.fail("fetched again"))
    assert archive.in_cache(tmp_path)
    assert archive.public_scans(tmp_path)["lung1"][0].is_file()


@pytest.mark.usefixtures("expected")
def test_a_scan_that_was_cut_short_in_the_cache_is_taken_from_the_archive_again(tmp_path):
    image, _ = archive.public_scans(tmp_path)["lung2"]
    image.write_bytes(b"vox")
    assert archive.public_scans(tmp_path)["lung2"][0].read_bytes() == b"voxels of lung2"


@pytest.mark.usefixtures("expected")
def test_a_damaged_archive_in_the_cache_is_fetched_again(tmp_path):
    archive.public_scans(tmp_path)
    (tmp_path / "pyradiomics-3.0.1.tar.gz").write_bytes(b"half of it")
    assert not archive.in_cache(tmp_path)
    assert archive.public_scans(tmp_path)
    assert archive.in_cache(tmp_path)


def test_a_damaged_download_is_tried_once_more_and_then_said(tmp_path, monkeypatch):
    tries: list[bool] = []

    def broken(folder: Path, *, again: bool) -> Path:
        tries.append(again)
        path = folder / "pyradiomics-3.0.1.tar.gz"
        path.write_bytes(b"an error page of a proxy")
        return path

    monkeypatch.setattr(archive, "_download", broken)
    with pytest.raises(archive.Damaged, match="damaged pyradiomics-3.0.1.tar.gz, twice"):
        archive.public_scans(tmp_path)
    assert tries == [False, True]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("shelf")
def test_without_a_network_the_reason_is_one_line(tmp_path):
    with pytest.raises(Refused) as refusal:
        archive.public_scans(tmp_path)
    assert refusal.value.found.startswith("no way to fetch the public scans (")
    assert "\n" not in refusal.value.found


def test_a_connection_that_fails_is_called_that(shelf, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    with pytest.raises(Refused, match="no connection to the package index"):
        archive.public_scans(tmp_path / "cache")


def test_an_archive_that_pip_did_not_leave_is_not_called_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_pip", lambda: [sys.executable, "-c", "pass"])
    with pytest.raises(Refused, match="pip brought no pyradiomics") as refusal:
        archive.public_scans(tmp_path)
    assert not isinstance(refusal.value, archive.Damaged)


# ------------------------------------------------------------------------------------------ the made-up chest


@pytest.fixture(scope="module")
def drawn():
    return chest.draw_chest((chest.RIGHT_UPPER, chest.LEFT_LOWER), np.random.default_rng(1))


def test_the_made_up_chest_has_air_lung_soft_tissue_and_bone(drawn):
    volume, _ = drawn
    shares = {
        "air around": np.mean(volume.array < -950),
        "lung": np.mean((volume.array > -950) & (volume.array < -700)),
        "soft tissue": np.mean((volume.array > -20) & (volume.array < 200)),
        "bone": np.mean(volume.array > 300),
    }
    assert shares["lung"] > 0.1
    assert shares["air around"] > 0.15
    assert shares["soft tissue"] > 0.1
    assert 0.005 < shares["bone"] < 0.1


def test_each_tumour_lies_in_the_lung_has_soft_tissue_inside_and_about_its_volume(drawn):
    volume, masks = drawn
    for tumour in (chest.RIGHT_UPPER, chest.LEFT_LOWER):
        mask = masks[tumour.id]
        ball_ml = 4 / 3 * np.pi * tumour.radius_mm**3 / 1000
        assert 0.7 * ball_ml < mask.volume_ml < 1.5 * ball_ml
        inside = volume.array[mask.on(volume.geometry)]
        assert -20 < np.median(inside) < 70
        covered = volume.geometry.clip(*volume.geometry.around(mask.geometry.corners_mm, 6.0))
        around = volume.crop(*covered)
        assert np.median(around.array[~mask.on(around.geometry)]) < -600


def test_the_same_seed_draws_the_same_chest(drawn):
    again, _ = chest.draw_chest((chest.RIGHT_UPPER, chest.LEFT_LOWER), np.random.default_rng(1))
    assert np.array_equal(again.array, drawn[0].array)


def test_the_patients_right_lung_is_at_lower_x_and_the_heart_on_the_left(drawn):
    volume, masks = drawn
    assert masks["1"].centroid_mm[0] < 0 < masks["2"].centroid_mm[0]
    heart = volume.geometry.world_to_index(np.array([[45.0, -20.0, 92.0]]))[0].round().astype(int)
    mirrored = volume.geometry.world_to_index(np.array([[-45.0, -20.0, 92.0]]))[0].round().astype(int)
    assert volume.array[tuple(heart)] > 0 > volume.array[tuple(mirrored)]


# ------------------------------------------------------------------------------------------ the follow-up

NO_CHANGE = followup.Change(1.0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.0, (3.0, 1.5, 1.5), 0.0)


@pytest.fixture(scope="module")
def ball():
    """A ball of 12 mm in tissue that has a landmark far from it."""
    geometry = upright((40, 80, 80), (3.0, 1.5, 1.5))
    at_mm = geometry.index_to_world(np.indices(geometry.shape).reshape(3, -1).T.astype(float))
    inside = (np.linalg.norm(at_mm - geometry.centre_mm, axis=1) < 12).reshape(geometry.shape)
    array = np.full(geometry.shape, -800, np.int16)
    array[inside] = 40
    array[4:7, 6:10, 6:10] = 1000
    return Volume(array, geometry, "CT"), {"1": Mask.from_array(inside, geometry)}


def upright(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Geometry:
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = spacing_mm
    affine[:, 3] = -50.0, -60.0, 200.0, 1.0
    return Geometry(shape, affine)


def test_growth_by_seventy_percent_gives_seventy_percent_more_volume(ball):
    volume, masks = ball
    _, grown = followup.make_followup(volume, masks, replace(NO_CHANGE, growth=1.7), np.random.default_rng(0))
    assert grown["1"].volume_ml / masks["1"].volume_ml == pytest.approx(1.7, rel=0.06)


def test_shrinking_works_the_same_way(ball):
    volume, masks = ball
    _, shrunk = followup.make_followup(volume, masks, replace(NO_CHANGE, growth=0.5), np.random.default_rng(0))
    assert shrunk["1"].volume_ml / masks["1"].volume_ml == pytest.approx(0.5, rel=0.08)


def test_a_growing_lesion_leaves_what_is_far_from_it_alone(ball):
    volume, masks = ball
    growth = followup.Growth.of(masks["1"], 1.7)
    far = masks["1"].centroid_mm + np.array([[growth.outer_mm + 0.1, 0, 0], [0, 0, -80.0]])
    assert np.array_equal(growth(far), far)


def test_nothing_folds_when_a_lesion_grows_or_the_patient_breathes(ball):
    growth = followup.Growth.of(ball[1]["1"], 2.5)
    radii = np.linspace(0, 1.2 * growth.outer_mm, 400)
    reached = growth(growth.centre + radii[:, None] * np.array([[0.6, 0, 0.8]]))
    assert np.all(np.diff(np.linalg.norm(reached - growth.centre, axis=1)) > 0)
    breathing = followup.Breathing.draw(8.0, np.random.default_rng(3))
    slopes = np.linalg.norm(breathing.wave_per_mm, axis=1) * np.linalg.norm(breathing.by_mm, axis=1)
    assert slopes.sum() < 1


def test_the_truth_lies_on_the_lesion_of_the_follow_up(ball):
    volume, masks = ball
    later, truth = followup.make_followup(
        volume, masks, replace(followup.Change(), spacing_mm=(4.0, 1.5, 1.5)), np.random.default_rng(5)
    )
    bright = (later.array > -380) & (later.array < 300)
    found = truth["1"].on(later.geometry)
    near = Mask.from_array(found, later.geometry).geometry
    start = near.offset_in(later.geometry)
    box = tuple(slice(a - 2, a + n + 2) for a, n in zip(start, near.shape, strict=True))
    both = np.count_nonzero(bright[box] & found[box])
    assert 2 * both / (np.count_nonzero(bright[box]) + np.count_nonzero(found[box])) > 0.93


def test_the_visits_share_no_origin_and_no_voxel_size(ball):
    volume, masks = ball
    later, truth = followup.make_followup(volume, masks, followup.Change(), np.random.default_rng(5))
    moved = truth["1"].centroid_mm - masks["1"].centroid_mm
    assert np.linalg.norm(moved - np.array([11.0, -17.0, 86.0])) < 15
    assert not np.allclose(later.geometry.spacing_mm, volume.geometry.spacing_mm)


# ------------------------------------------------------------------------------------------ the whole


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory, drawn):
    """The demo on a coarse made-up chest without its ends, because the archive cannot be had."""
    whole, masks = drawn
    volume = whole.crop((20, 0, 0), (96, *whole.geometry.shape[1:]))
    array = volume.array[::2, ::2, ::2].copy()
    affine = volume.geometry.affine.copy()
    affine[:3, :3] *= 2
    coarse = Geometry(array.shape, affine)
    small = Volume(array, coarse, "CT", "chest"), {name: mask.placed(coarse) for name, mask in masks.items()}

    def unreachable(_: Path) -> None:
        raise Refused(found="no way to fetch the public scans (no network)", needed="a network", do="connect")

    lines: list[str] = []
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "public_scans", unreachable)
        patch.setattr(demo, "draw_chest", lambda *_: small)
        patch.setattr(demo, "Change", lambda: followup.Change(spacing_mm=(6.0, 2.4, 2.4)))
        # Brought together on voxels of 5 mm, as the trunks of the aligners' own tests are: in a third of the time.
        patch.setattr("lesionlocator.align.view._VOXELS", 100_000)
        page = demo.run_demo(out, say=lines.append, cache=out / "cache")
    return page, lines


def test_without_a_network_the_demo_says_so_in_one_line_and_runs_on_a_made_up_chest(small_demo):
    page, lines = small_demo
    said = [line for line in lines if "made-up" in line]
    assert said == ["no way to fetch the public scans (no network): using a made-up chest CT"]
    assert "made-up chest CT" in page.read_text(encoding="utf-8")


def test_the_demo_leaves_scans_truth_results_a_picture_and_a_page(small_demo):
    page, _ = small_demo
    out = page.parent
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert names >= {
        "index.html",
        "demo.png",
        "scans/baseline.nii.gz",
        "scans/followup.nii.gz",
        "scans/followup_2.nii.gz",
        "scans/prompts.json",
        "truth/baseline_lesion_1.nii.gz",
        "truth/followup_lesion_2.nii.gz",
        "result/baseline_lesion_1.nii.gz",
        "result/lesions.csv",
        "result/links.csv",
        "result/run.json",
    }
    assert read_volume(out / "scans/followup.nii.gz", "CT").array.dtype == np.int16


def test_the_page_is_whole_in_itself(small_demo):
    page, _ = small_demo
    text = page.read_text(encoding="utf-8")
    assert 'src="data:image/png;base64,' in text
    assert not re.search(r"""(src|href)=["']https?:""", text)
    linked = re.findall(r'href="([^"]+)"', text)
    assert linked
    assert all((page.parent / link).is_file() for link in linked)


def test_the_table_says_what_was_found_and_what_is_true(small_demo):
    _, lines = small_demo
    table = lines[-1].splitlines()
    assert table[0].split()[:3] == ["scan", "lesion", "status"]
    rows = {tuple(row[:2]): row for row in (line.split() for line in table[2:])}
    assert set(rows) == {(scan, n) for scan in ("baseline", "followup", "followup_2") for n in "1234"} | {
        ("followup_2", "5")
    }
    assert float(rows["baseline", "1"][-1]) > 0.6


def test_one_lesion_of_the_demo_vanishes_and_one_breaks_in_two(small_demo):
    page, _ = small_demo
    with (page.parent / "result/links.csv").open(encoding="utf-8", newline="") as file:
        links = [(r["lesion_id"], r["to_scan"], r["event"], r["to_lesion_id"]) for r in csv.DictReader(file)]
    assert [link for link in links if link[1] == "followup"] == [(n, "followup", "same", n) for n in "1234"]
    assert [link for link in links if link[1] == "followup_2"] == [
        ("1", "followup_2", "same", "1"),
        ("2", "followup_2", "same", "2"),
        ("3", "followup_2", "vanished", ""),
        ("4", "followup_2", "split", "4"),
        ("4", "followup_2", "split", "5"),
    ]


def test_lesions_are_painted_in_free_lung_far_from_the_others(drawn):
    volume, masks = drawn
    sites = lesions.free_sites(volume, list(masks.values()), 2)
    painted, added = lesions.paint(volume, {"3": [lesions.Painted(sites[0], 9.0)]})
    assert len(sites) == 2
    assert all(np.linalg.norm(site - mask.centroid_mm) > 60 for site in sites for mask in masks.values())
    assert added["3"].volume_ml == pytest.approx(4 / 3 * np.pi * 0.9**3, rel=0.4)
    where = added["3"].on(volume.geometry)
    assert np.median(volume.array[where]) < -700 and np.median(painted.array[where]) > 0
    assert np.array_equal(painted.array[:5], volume.array[:5])


def test_a_damaged_archive_gives_a_warning_and_a_made_up_chest(tmp_path, monkeypatch, drawn):
    def damaged(_: Path) -> None:
        raise archive.Damaged(found="a damaged archive, twice", needed="it", do="try later")

    monkeypatch.setattr(demo, "public_scans", damaged)
    monkeypatch.setattr(demo, "draw_chest", lambda *_: drawn)
    lines: list[str] = []
    _, _, story = demo._baseline(tmp_path, lines.append)
    assert lines[-1] == "warning: a damaged archive, twice; using a made-up chest CT"
    assert "made-up" in story.source
