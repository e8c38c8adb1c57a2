import time
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from inference.maps import KINDS, PerfusionMap
from tests.dicomnode.writer import studies


def test_a_time_without_zone_is_refused():
    with pytest.raises(ValueError, match="no time zone"):
        studies.small(created_at=datetime(2026, 3, 2, 8, 30))


def test_headers_in_another_order_than_the_volume_are_refused():
    study = studies.small()
    with pytest.raises(ValueError, match="order"):
        replace(study, source=study.source[::-1])
    with pytest.raises(ValueError, match="order"):
        replace(study, source=study.source[1:])


def test_a_map_on_another_grid_is_refused():
    study = studies.small()
    with pytest.raises(ValueError, match="Tmax has shape"):
        replace(study, maps=[PerfusionMap(KINDS["Tmax"], np.zeros((10, 32, 32), np.float32))])


def test_a_map_that_is_not_finite_is_refused():
    study = studies.small()
    values = study.maps[0].values.copy()
    values[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        replace(study, maps=[PerfusionMap(KINDS["Tmax"], values)])


@pytest.mark.parametrize(
    ("offset", "written"), [("+0900", "17:30 UTC+09:00"), ("-0330", "05:00 UTC-03:30"), ("", "08:30 UTC")]
)
def test_times_are_on_the_clock_of_the_source(offset, written):
    study = studies.small()
    study.source[0].TimezoneOffsetFromUTC = offset
    assert f"{study.written_at:%H:%M %Z}" == written


def test_the_offset_goes_with_the_times():
    study = studies.small(created_at=datetime(2026, 3, 2, 23, 30, tzinfo=UTC))
    study.source[0].TimezoneOffsetFromUTC = "+0900"
    ds = studies.one(study)
    assert (ds.TimezoneOffsetFromUTC, ds.SeriesDate, ds.SeriesTime) == ("+0900", "20260303", "083000")
    assert ds.ContributingEquipmentSequence[1].ContributionDateTime == "20260303083000.000000+0900"
    assert "TimezoneOffsetFromUTC" not in studies.one(studies.small())


def test_the_brain_is_where_any_map_has_a_value():
    study = studies.small(kinds=("CBF", "Tmax"))
    values = np.zeros_like(study.maps[0].values)
    brain = study.brain
    assert np.array_equal(replace(study, maps=[PerfusionMap(KINDS["CBF"], values), study.maps[1]]).brain, brain)


@pytest.mark.parametrize(("zone", "written"), [("UTC", "23:30"), ("EST5", "18:30"), ("JST-9", "08:30")])
def test_without_an_offset_the_clock_is_that_of_the_machine(zone, written, monkeypatch):
    """A time without offset is read as a local one, so it must be one."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        study = studies.small(created_at=datetime(2026, 3, 2, 23, 30, tzinfo=UTC))
        assert f"{study.written_at:%H:%M}" == written
    finally:
        monkeypatch.undo()
        time.tzset()
