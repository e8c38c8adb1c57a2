"""The table of map kinds: units, codes, ranges."""

import numpy as np
import pytest
from pydicom.sr.codedict import codes

from inference.maps import KINDS, central_volume


def test_the_five_kinds_come_in_the_order_of_the_house():
    assert list(KINDS) == ["CBF", "CBV", "MTT", "TTP", "Tmax"]
    assert all(kind.name == name for name, kind in KINDS.items())


def test_the_ceilings_and_units_are_those_of_contract_12():
    assert {name: (kind.ceiling, kind.unit) for name, kind in KINDS.items()} == {
        "CBF": (60.0, "ml/100 g/min"),
        "CBV": (4.0, "ml/100 g"),
        "MTT": (12.0, "s"),
        "TTP": (25.0, "s"),
        "Tmax": (12.0, "s"),
    }


def test_the_units_are_ucum():
    assert {kind.ucum[0] for kind in KINDS.values()} == {"ml/[100]g/min", "ml/[100]g", "s"}


@pytest.mark.parametrize(
    ("name", "absolute", "relative"),
    [
        ("CBF", codes.DCM.AbsoluteRegionalBloodFlow, codes.DCM.RelativeRegionalBloodFlow),
        ("CBV", codes.DCM.AbsoluteRegionalBloodVolume, codes.DCM.RelativeRegionalBloodVolume),
        ("MTT", codes.DCM.MeanTransitTime, codes.DCM.MeanTransitTime),
        ("TTP", codes.DCM.TimeToPeak, codes.DCM.TimeToPeak),
        ("Tmax", codes.DCM.Tmax, codes.DCM.Tmax),
    ],
)
def test_the_codes_are_those_of_ps3_16(name, absolute, relative):
    assert KINDS[name].quantity == (absolute.value, absolute.meaning)
    assert KINDS[name].relative_quantity == (relative.value, relative.meaning)


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_values_come_back_from_the_learnt_range_within_half_a_step_of_8_bits(kind):
    values = np.linspace(0.0, kind.ceiling, 1001, dtype=np.float32)
    learnt = kind.normalise(values)
    assert learnt.dtype == np.float32
    assert learnt[0] == -1.0
    assert learnt[-1] == pytest.approx(1.0)
    assert np.abs(kind.denormalise(learnt) - values).max() < kind.ceiling / 255 / 2


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_what_lies_outside_the_range_is_clipped_on_both_ways(kind):
    assert kind.normalise(np.array([-5.0, 2 * kind.ceiling])).tolist() == [-1.0, 1.0]
    assert kind.denormalise(np.array([-3.0, 3.0])).tolist() == [0.0, kind.ceiling]


def test_cbv_is_cbf_times_mtt_over_60():
    assert central_volume(np.array([60.0, 30.0]), np.array([4.0, 6.0])).tolist() == [4.0, 3.0]
