"""SUV from every kind of PET header, worked out by hand, and the usual errors of such headers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_phantoms import write_series
from lesionlocator.formats import label_masks, read_label_map, read_volume
from lesionlocator.formats.body import Missing, lean_mass_kg, suv_ratio
from lesionlocator.measure import measure_timepoint
from test_formats_dicom import pet_series, tracer

STORED = 2000.0
HOUR_OF_F18 = 2 ** (-3600 / 6586.2)


def person(**fields) -> Dataset:
    made = Dataset()
    for name, value in {"PatientWeight": 70.0, "PatientSize": 1.75, "PatientSex": "M", **fields}.items():
        setattr(made, name, value)
    return made


# ------------------------------------------------------------------------------------------ bodies

# A man of 70 kg and 1.75 m, a woman of 60 kg and 1.65 m; each line worked out with a pocket calculator.
BY_HAND = [
    ("LBM", "M", 70, 175, 1.10 * 70 - 120 * 0.16),  # (70/175)^2 = 0.16: 57.8 kg
    ("LBMJAMES128", "M", 70, 175, 1.10 * 70 - 128 * 0.16),  # 56.52 kg
    ("LBM", "F", 60, 165, 1.07 * 60 - 148 * (60 / 165) ** 2),  # 44.63 kg
    ("LBMJANMA", "M", 70, 175, 9270 * 70 / (6680 + 216 * 22.857142857)),  # 55.86 kg
    ("LBMJANMA", "F", 60, 165, 9270 * 60 / (8780 + 244 * 22.038567493)),  # 39.29 kg
    ("IBW", "M", 70, 175, 72.38),
    ("IBW", "F", 60, 165, 57.33),
]


@pytest.mark.parametrize(("kind", "sex", "weight", "height", "expected"), BY_HAND)
def test_lean_mass_is_what_the_formula_says(kind, sex, weight, height, expected):
    assert lean_mass_kg(kind, float(weight), float(height), is_male=sex == "M") == pytest.approx(expected, rel=1e-6)
    header = person(PatientWeight=weight, PatientSize=height / 100, PatientSex=sex)
    assert suv_ratio(header, kind) == pytest.approx(expected / weight, rel=1e-6)


def test_the_figures_of_the_formulas_are_those_of_the_calculator():
    assert [round(line[4], 2) for line in BY_HAND] == [57.8, 56.52, 44.63, 55.86, 39.29, 72.38, 57.33]
    # 0.007184 * 70^0.425 * 175^0.725 = 1.848 m2 of 70 kg
    assert suv_ratio(person(), "BSA") == pytest.approx(18480 / 70000, rel=1e-3)
    assert suv_ratio(person(), "BW") == 1.0


def test_a_height_in_centimetres_is_understood_and_what_cannot_be_a_person_is_refused():
    assert suv_ratio(person(PatientSize=175), "LBM") == suv_ratio(person(), "LBM")
    for wrong in ({"PatientSize": 0}, {"PatientSize": 1750}, {"PatientSex": "O"}, {"PatientWeight": 70000}):
        with pytest.raises(Missing):
            suv_ratio(person(**wrong), "LBM")
    with pytest.raises(Missing, match="lean mass"):
        suv_ratio(person(PatientWeight=399, PatientSize=1.0), "LBM")


# ------------------------------------------------------------------------------------------ kinds of PET


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"Units": "GML", "SUVType": "BW"}, STORED),
        ({"Units": "GML", "SUVType": "LBM"}, STORED * 70 / 57.8),
        ({"Units": "GML", "SUVType": "LBMJAMES128"}, STORED * 70 / 56.52),
        ({"Units": "GML", "SUVType": "LBMJANMA"}, STORED * 70 / 55.8566),
        ({"Units": "GML", "SUVType": "IBW"}, STORED * 70 / 72.38),
        ({"Units": "CM2ML"}, STORED * 70000 / 18480),
        ({"Units": "GML", "SUVType": "BSA"}, STORED * 70000 / 18480),
        ({"Units": "BQML"}, STORED * 70000 / (350e6 * HOUR_OF_F18)),
        ({"Units": "BQML", "DecayCorrection": "ADMIN"}, STORED * 70000 / 350e6),
    ],
)
def test_every_kind_of_uptake_becomes_suv_by_body_weight(tmp_path, fields, expected):
    volume = pet_series(tmp_path / "pet", PatientSize=1.75, PatientSex="M", **fields)
    assert_allclose(volume.array, expected, rtol=1e-3)
    assert volume.unit == "SUV"


def philips(**values):
    """The private factors as Philips writes them."""
    made = {0x70530010: ("LO", "Philips PET Private Group")}
    return made | {{"suv": 0x70531000, "activity": 0x70531009}[name]: ("DS", value) for name, value in values.items()}


def counts(folder, private, **fields):
    import pydicom

    pet_series(folder, Units="CNTS", **fields)
    for file in folder.iterdir():
        made = pydicom.dcmread(file)
        for tag, (kind, value) in private.items():
            made.add_new(tag, kind, value)
        made.save_as(file)
    return read_volume(folder)


def test_counts_of_philips_become_suv_by_either_of_its_factors(tmp_path):
    assert_allclose(counts(tmp_path / "suv", philips(suv="0.0015")).array, STORED * 0.0015, rtol=1e-6)
    by_activity = counts(tmp_path / "activity", philips(suv="0.0", activity="1.7"))
    assert_allclose(by_activity.array, STORED * 1.7 * 70000 / (350e6 * HOUR_OF_F18), rtol=1e-6)
    without = counts(tmp_path / "none", philips(suv="0", activity="0"))
    assert_allclose(without.array, STORED)
    assert without.unit == "counts"
    assert "no factor" in without.warnings[0]


def test_the_decay_between_injection_and_scan_is_that_of_the_nuclide(tmp_path):
    # C-11 halves in 20.4 minutes: an hour leaves 13 % of it, and SUV is 7.7 times that of the dose as drawn.
    carbon = tracer(RadionuclideHalfLife=1221.8)
    volume = pet_series(tmp_path / "c11", RadiopharmaceuticalInformationSequence=carbon)
    assert_allclose(volume.array, STORED * 70000 / (350e6 * 2 ** (-3600 / 1221.8)), rtol=1e-6)
    assert float(volume.array[0, 0, 0]) == pytest.approx(STORED * 70000 / 350e6 * 7.708, rel=1e-3)


# ------------------------------------------------------------------------------------------ errors of headers


def nuclide(meaning, **fields):
    made = tracer(**fields)
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "C-111A1", "SRT", meaning
    made[0].RadionuclideCodeSequence = Sequence([code])
    return made


@pytest.mark.parametrize("meaning", ["^18^Fluorine", "Fluorine-18", "F-18", "18F"])
def test_a_half_life_in_minutes_is_noticed_by_the_nuclide(tmp_path, meaning):
    wrong = nuclide(meaning, RadionuclideHalfLife=109.77)
    volume = pet_series(tmp_path / "pet", RadiopharmaceuticalInformationSequence=wrong)
    assert_allclose(volume.array, STORED * 70000 / (350e6 * HOUR_OF_F18), rtol=1e-5)
    assert "looks like minutes" in volume.warnings[0]
    right = nuclide(meaning, RadionuclideHalfLife=6588.0)
    assert pet_series(tmp_path / "right", RadiopharmaceuticalInformationSequence=right).warnings == ()


def test_a_day_that_was_moved_is_not_believed_but_its_clock_is(tmp_path):
    moved = tracer(RadiopharmaceuticalStartDateTime="20111224091500.00")
    volume = pet_series(tmp_path / "pet", RadiopharmaceuticalInformationSequence=moved)
    assert_allclose(volume.array, STORED * 70000 / (350e6 * HOUR_OF_F18), rtol=1e-5)
    assert "only its clock was believed" in volume.warnings[0]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"PatientWeight": 70000.0}, "grams"),
        ({"RadiopharmaceuticalInformationSequence": tracer(RadionuclideTotalDose=350e9)}, "more than anybody gets"),
        ({"RadiopharmaceuticalInformationSequence": tracer(RadionuclideTotalDose=350.0)}, "MBq"),
        (
            {
                "RadiopharmaceuticalInformationSequence": tracer(
                    RadiopharmaceuticalStartDateTime="20240131104500.00", RadiopharmaceuticalStartTime="104500"
                )
            },
            "-30 minutes before",
        ),
        ({"Units": "GML", "SUVType": "LBM"}, "height"),
    ],
)
def test_what_cannot_be_right_is_named_and_the_numbers_are_kept_with_their_own_unit(tmp_path, fields, word):
    volume = pet_series(tmp_path / "pet", **fields)
    assert_allclose(volume.array, STORED)
    assert word in volume.warnings[0]
    assert volume.unit in {"Bq/ml", "SUVlbm"}


def test_slices_of_two_weights_are_two_patients(tmp_path):
    import pydicom

    pet_series(tmp_path / "pet")
    file = next((tmp_path / "pet").iterdir())
    made = pydicom.dcmread(file)
    made.PatientWeight = 71.0
    made.save_as(file)
    volume = read_volume(tmp_path / "pet")
    assert "different weight: 70.0, 71.0" in volume.warnings[0]
    assert volume.unit == "Bq/ml"


def test_uptake_that_no_tissue_has_is_named(tmp_path):
    high = write_series(tmp_path / "pet", np.full((3, 4, 5), 20000, np.int16), modality="PT", Units="GML")
    assert any("too high to be SUV" in warning for warning in read_volume(high).warnings)


def test_a_measurement_says_the_unit_that_its_numbers_have(tmp_path):
    from lesionlocator.case import Lesion, Status
    from lesionlocator.formats import open_timepoint
    from lesionlocator.volume import Mask

    pet_series(tmp_path / "pet", PatientWeight=0.0)
    timepoint = open_timepoint(tmp_path / "pet")
    mask = Mask.from_array(np.ones(timepoint.geometry.shape, bool), timepoint.geometry)
    (row,) = measure_timepoint(timepoint.with_lesions((Lesion("1", (), mask, Status.OUTLINED),)))
    assert (row.unit, row.mean) == ("Bq/ml", STORED)


def test_a_real_pet_in_grams_per_millilitre_stays_as_its_header_says(shared_data):
    pet = read_volume(shared_data / "sarcoma_dicom" / "STS_042" / "PET" / "image")
    assert pet.unit == "SUV"
    assert not any("SUV" in warning for warning in pet.warnings)
    path = shared_data / "sarcoma" / "STS_042" / "PET_mask.nii.gz"
    (tumour,) = label_masks(read_label_map(path)).values()
    inside = pet.array[tumour.placed(pet.geometry).on(pet.geometry)]
    assert 1 < float(inside.max()) < 60
    assert math.isfinite(float(inside.mean()))
