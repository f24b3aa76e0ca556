"""Painted regions for training: what is in them, and whether their truth is true."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from pytest import approx

from lesionlocator.synth.paint import RegionSettings, draw_region
from lesionlocator.synth.scene import Background, Backgrounds, pick

SIDE = RegionSettings().side


def torso(seed: int = 0, shape=(40, 60, 70)):
    """Soft tissue of 40 HU in air, with two lungs and a spine."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    hu = np.full(shape, -1000.0)
    hu[(y / 0.8) ** 2 + (x / 0.9) ** 2 < 1] = 40
    hu[((y + 0.1) / 0.45) ** 2 + ((np.abs(x) - 0.42) / 0.3) ** 2 + (z / 0.9) ** 2 < 1] = -850
    hu[((y - 0.55) / 0.15) ** 2 + (x / 0.12) ** 2 < 1] = 600
    return (hu + rng.normal(0, 12, shape)).astype(np.int16)


def organs(shape=(40, 60, 70)):
    labels = np.zeros(shape, np.uint8)
    labels[10:30, 42:46, 30:40] = 3
    return labels


def suv(shape=(40, 50, 50)):
    rng = np.random.default_rng(1)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    body = (y / 0.8) ** 2 + (x / 0.9) ** 2 < 1
    return (body * np.abs(1 + 0.2 * rng.normal(size=shape))).astype(np.float32)


@pytest.fixture(scope="module")
def backgrounds() -> Backgrounds:
    return Backgrounds.gather(
        [
            Background.from_array(torso(), (3.0, 2.0, 2.0), "CT", organs()),
            Background.from_array(suv(), (3.3, 4.0, 4.0), "PT"),
            Background.from_array(suv() * 400, (3.0, 1.5, 1.5), "MR"),
        ]
    )


@pytest.fixture(scope="module")
def mix(backgrounds):
    rng = np.random.default_rng(7)
    return [draw_region(rng, backgrounds, RegionSettings()) for _ in range(220)]


def test_the_same_seed_paints_the_same_region(backgrounds):
    for seed in range(6):
        one, two = (draw_region(np.random.default_rng(seed), backgrounds, RegionSettings()) for _ in range(2))
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.mask, two.mask)
        assert (one.kind, one.modality, one.contrast) == (two.kind, two.modality, two.contrast)


def test_every_kind_is_in_the_mix_and_a_fifth_of_it_is_pet(mix):
    kinds = Counter(region.kind for region in mix)
    assert set(kinds) == {
        *("lobed spiculated ring_with_core ring_without_core branch parts fragments nodule_in_lung".split()),
        *("cystic necrotic calcified cold_core organ".split()),
    }
    assert np.mean([region.modality == "PT" for region in mix]) >= 0.2
    assert {region.modality for region in mix} == {"CT", "MR", "PT"}


def test_rims_are_as_often_as_the_mix_says_though_many_are_drawn_again(mix):
    of_mr = [region.kind for region in mix if region.modality == "MR"]
    assert 0.2 < np.mean([kind.startswith("ring") for kind in of_mr]) < 0.45


def test_every_region_has_a_target_of_a_size_that_a_zoom_can_frame(mix):
    longest: list[float] = []
    for region in mix:
        assert region.image.shape == region.mask.shape == region.valid.shape == (SIDE,) * 3
        assert np.isfinite(region.image).all()
        assert np.count_nonzero(region.mask) >= 60
        hit = np.argwhere(region.mask)
        longest.append(float((np.ptp(hit, axis=0) + 1).max()) / SIDE)
    assert np.percentile(longest, 5) > 0.15
    assert np.percentile(longest, 95) < 0.85


def test_nothing_beyond_the_end_of_the_file_is_a_target(mix):
    cut = [region for region in mix if not region.valid.all()]
    assert len(cut) > 20
    for region in cut:
        assert not (region.mask & ~region.valid).any()
        assert region.other_mask is None or not (region.other_mask & ~region.valid).any()


def test_some_lesions_are_cut_by_the_end_of_the_file(mix):
    touching = 0
    for region in mix:
        beside = np.zeros_like(region.valid)
        for axis in range(3):
            for step in (1, -1):
                beside |= ~np.roll(region.valid, step, axis)
        touching += bool((region.mask & beside).any()) and not region.valid.all()
    assert touching >= 10


def test_an_ambiguous_ring_has_one_picture_and_two_truths_that_differ_by_its_core(backgrounds):
    rng = np.random.default_rng(2)
    settings = RegionSettings(kind="ring", cut_share=0.0)
    regions = [draw_region(rng, backgrounds, settings) for _ in range(60)]
    rings = [r for r in regions if r.kind.startswith("ring")]
    ambiguous = [r for r in rings if r.ambiguous]
    assert 0.3 < len(ambiguous) / len(rings) < 0.7
    assert {r.kind for r in ambiguous} == {"ring_with_core", "ring_without_core"}
    for ring in ambiguous:
        assert ring.other_mask is not None and ring.core is not None
        np.testing.assert_array_equal(ring.mask ^ ring.other_mask, ring.core)
        with_core = ring.mask if ring.kind == "ring_with_core" else ring.other_mask
        assert (with_core | ring.core == with_core).all()


def test_a_ring_whose_picture_settles_it_keeps_its_core_out_in_mr_and_in_elsewhere(backgrounds):
    rng = np.random.default_rng(4)
    for _ in range(60):
        region = draw_region(rng, backgrounds, RegionSettings(kind="ring"))
        if region.kind.startswith("ring") and not region.ambiguous:
            assert (region.kind == "ring_without_core") == (region.modality == "MR")
            assert region.other_mask is None


def test_a_cold_core_on_pet_belongs_to_the_target_and_is_colder_than_its_rim(backgrounds):
    rng = np.random.default_rng(6)
    colder = []
    for _ in range(20):
        region = draw_region(rng, backgrounds, RegionSettings(kind="cold_core", cut_share=0.0))
        assert region.modality == "PT"
        if region.core is None or np.count_nonzero(region.core) < 50:
            continue
        assert not (region.core & ~region.mask).any()
        colder.append(region.image[region.core].mean() < region.image[region.mask & ~region.core].mean())
    assert len(colder) > 10
    assert np.mean(colder) > 0.9


def test_no_lesion_grows_into_the_air_around_the_body():
    """A body of 33 ml: whatever is painted, the lesion is no larger."""
    z, y, x = np.meshgrid(*[np.arange(60) - 29.5] * 3, indexing="ij")
    ball = np.where(z**2 + y**2 + x**2 < 10**2, 40, -1000).astype(np.int16)
    small = Backgrounds.gather([Background.from_array(ball, (2.0, 2.0, 2.0), "CT")])
    settings = RegionSettings(kind="lobed", pet_share=0.0, mr_share=0.0, labels_share=0.0, remapped_share=0.0)
    body_ml = 4 / 3 * np.pi * 20**3 / 1000
    rng = np.random.default_rng(0)
    sizes = []
    for _ in range(40):
        region = draw_region(rng, small, settings)
        sizes.append(np.count_nonzero(region.mask) * np.prod(region.spacing_mm) / 1000)
    assert max(sizes) < 1.25 * body_ml
    assert max(sizes) > 0.3 * body_ml


def test_an_organ_is_the_organ_that_was_outlined(backgrounds):
    rng = np.random.default_rng(3)
    truth_ml = np.count_nonzero(organs()) * 3 * 2 * 2 / 1000
    settings = RegionSettings(kind="organ", cut_share=0.0)
    for _ in range(10):
        region = draw_region(rng, backgrounds, settings)
        assert region.kind == "organ"
        assert np.count_nonzero(region.mask) * np.prod(region.spacing_mm) / 1000 == approx(truth_ml, rel=0.25)


def test_easy_lesions_stand_out_more_than_hard_ones(backgrounds):
    settings = RegionSettings(kind="lobed", pet_share=0.0)
    seen = [
        np.median(
            [
                draw_region(np.random.default_rng(s), backgrounds, replace(settings, difficulty=d)).contrast
                for s in range(90)
            ]
        )
        for d in (0.0, 1.0)
    ]
    assert seen[0] > 1.15 * seen[1]


def test_a_nodule_in_the_lung_is_bright_and_lies_in_lung(backgrounds):
    rng = np.random.default_rng(8)
    inside, around = [], []
    for _ in range(20):
        region = draw_region(rng, backgrounds, RegionSettings(kind="nodule_in_lung", difficulty=0.0))
        assert region.modality == "CT"
        inside.append(np.median(region.image[region.mask]))
        hit = np.argwhere(region.mask)
        box = tuple(slice(max(a - 1, 0), b + 2) for a, b in zip(hit.min(axis=0), hit.max(axis=0), strict=True))
        around.append(np.median(region.image[box][~region.mask[box]]))
    assert np.median(inside) > -150
    assert np.median(around) < -400


def test_without_scans_of_a_modality_random_label_maps_stand_in():
    rng = np.random.default_rng(0)
    regions = [draw_region(rng, Backgrounds(()), RegionSettings()) for _ in range(30)]
    assert all(np.count_nonzero(region.mask) >= 60 for region in regions)
    assert "organ" not in {region.kind for region in regions}


def test_many_scans_of_one_make_do_not_push_out_another():
    common = Background.from_array(torso(), (3.0, 2.0, 2.0), "CT")
    rare = replace(common, spacing_mm=(5.0, 1.0, 1.0))
    rng = np.random.default_rng(0)
    picked = [pick(rng, [*[common] * 16, rare]) is rare for _ in range(400)]
    assert np.mean(picked) == approx(1 / 3, abs=0.08)
