"""The structured report: contract 13's numbers, each beside what it is not for, read by highdicom and DCMTK."""

import subprocess
from dataclasses import replace
from pathlib import Path

import highdicom.sr
import pytest
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from dicomnode import config
from dicomnode.writer import ALWAYS, plan, report
from tests import phantom
from tests.dicomnode.writer import studies
from tests.tools import program

VOLUME, ESTIMATE = "118565006", "synthetic estimate, not for treatment selection"


@pytest.fixture(scope="module")
def stroke():
    return studies.stroke(phantom.head(phantom.even(10, 14.0), matrix=64), simulated_input=True, warnings=("GAP",))


def groups(ds) -> list:
    """The groups of numbers, as highdicom finds them in the file."""
    content = highdicom.sr.Comprehensive3DSR.from_dataset(ds).content
    return [*content.get_volumetric_roi_measurement_groups(), *content.get_image_measurement_groups()]


def numbers(group) -> dict[str, float]:
    return {m.name.value: m.value for m in group.get_measurements()}


def meanings(group) -> set[str]:
    return {e.value.meaning for e in group.get_qualitative_evaluations()}


def test_the_numbers_are_those_of_the_regions(stroke):
    late, low, mismatch = groups(studies.one(stroke, "sr"))
    found = stroke.regions
    assert found.core_ml > 1
    assert numbers(late) == {VOLUME: pytest.approx(found.hypoperfused_ml, abs=0.05)}
    assert numbers(low) == {VOLUME: pytest.approx(found.core_ml, abs=0.05)}
    ratio = pytest.approx(found.mismatch_ratio, abs=0.005)
    assert numbers(mismatch) == {VOLUME: pytest.approx(found.mismatch_ml, abs=0.05), "MISMATCHRATIO": ratio}
    assert {m.unit.value for g in (late, low, mismatch) for m in g.get_measurements()} == {"ml", "{ratio}"}


def test_beside_every_number_stands_what_it_is_not_for(stroke):
    for group in groups(studies.one(stroke, "sr")):
        assert meanings(group) >= {
            ESTIMATE,
            "SYNTHETIC, not acquired perfusion",
            "Trained on simulated data",
            "Simulated patient",
            "Computed with warnings; the pictures tell them",
            "A normal synthetic map does not exclude stroke.",
        }


def test_each_region_refers_to_its_segment(stroke):
    sr, seg = studies.one(stroke, "sr"), studies.one(stroke, "seg", name="regions")
    segments = {s.SegmentNumber: s for s in seg.SegmentSequence}
    for group in groups(sr)[:2]:
        reference = group.referenced_segment
        assert reference.referenced_sop_instance_uid == seg.SOPInstanceUID
        segment = segments[reference.referenced_segment_numbers[0]]
        assert segment.TrackingUID == group.tracking_uid
        assert segment.TrackingID == group.tracking_identifier
    evidence = {
        item.ReferencedSOPInstanceUID
        for study in sr.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert evidence == {seg.SOPInstanceUID, *(ds.SOPInstanceUID for ds in stroke.source)}


def test_without_a_core_it_is_told_as_0_ml_and_the_ratio_as_undefined():
    source = phantom.head(phantom.even(10, 14.0), matrix=64)
    found = groups(studies.one(studies.study(source, kinds=("CBF", "Tmax")), "sr"))
    assert [numbers(group).get(VOLUME) for group in found][1] == 0.0
    assert "undefined, because no tissue has low CBF" in meanings(found[-1])
    assert all("MISMATCHRATIO" not in numbers(group) for group in found)


def test_maps_without_regions_get_no_report():
    relative = replace(studies.MANIFEST, units="relative")
    assert plan(studies.small(kinds=("CBF", "Tmax"), manifest=relative), report.CLASSES) == []
    assert plan(studies.small(kinds=("Tmax",)), report.CLASSES) == []


def test_both_classes_hold_the_same_tree(stroke):
    newer, older = (studies.one(stroke, kind) for kind in report.CLASSES)
    assert (newer.SOPClassUID, older.SOPClassUID) == (Comprehensive3DSRStorage, ComprehensiveSRStorage)
    assert newer.ContentSequence == older.ContentSequence
    assert newer.SOPInstanceUID != older.SOPInstanceUID
    flags = newer.CompletionFlag, newer.VerificationFlag, newer.PreliminaryFlag
    assert flags == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")


@pytest.mark.parametrize("kind", report.CLASSES)
def test_dcmtk_reads_the_report(stroke, kind, tmp_path: Path):
    path = tmp_path / "report.dcm"
    path.write_bytes(studies.saved(studies.one(stroke, kind)))
    said = subprocess.run([program("dsrdump"), "+Pl", str(path)], capture_output=True, text=True, check=True).stdout
    assert said.count(f'"{ESTIMATE}"') == 3
    assert f'="{stroke.regions.hypoperfused_ml:.1f}" (ml,UCUM,"milliliter")' in said
    html = subprocess.run([program("dsr2html"), str(path)], capture_output=True, text=True, check=True).stdout
    assert ESTIMATE in html


def test_numbers_are_sent_only_where_they_are_asked_for_and_never_without_their_segments():
    peer = {"name": "pacs", "ae_title": "PACS", "host": "192.0.2.20", "port": 104}
    assert not set(report.CLASSES) & set(ALWAYS)
    with pytest.raises(config.ConfigError, match='add "seg"'):
        config.parse({"destination": [peer | {"objects": ["sc", "sr"]}]})
