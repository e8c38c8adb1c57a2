"""The page that stands in for maps: in the study of the patient, with the reason, and without a patient's name."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from dicomnode import MODEL_NAME
from dicomnode.writer import burn, page
from tests import phantom
from tests.dciodvfy import unexpected, unused
from tests.dicomnode.writer import studies
from tests.dicomnode.writer.test_common import NAMES

REASON = "the series holds 6 slices; at least 10 are needed"


def refusal(change=lambda ds: None, **changes):
    source = phantom.head(phantom.even(6, 14.0), matrix=64)
    for ds in source:
        change(ds)
    given = {
        "source": [studies.read_back(ds) for ds in source],
        "reason_code": "too-few-slices",
        "reason": REASON,
        "created_at": datetime(2026, 3, 2, 8, 30, tzinfo=UTC),
        "software_version": "0.1.0",
        "device_serial_number": "NODE-1",
    }
    return page.Refusal(**given | changes)


def lettering(monkeypatch, of):
    lines = []
    put = burn.Sheet.text
    monkeypatch.setattr(
        burn.Sheet, "text", lambda self, x, y, line, *rest: (lines.append(line.text), put(self, x, y, line, *rest))
    )
    page.write(of)
    return lines


def test_the_page_says_the_reason_and_what_it_does_not_say(monkeypatch):
    lines = lettering(monkeypatch, refusal())
    assert "No synthetic perfusion" in lines
    assert "The series holds 6 slices; at least 10 are needed." in " ".join(lines)
    assert {"Reason code: too-few-slices", "It does not exclude stroke.", "Series 2"} <= set(lines)
    assert "Perfusion Node 0.1.0, 2026-03-02 08:30 UTC" in lines
    assert not any("Phantom" in line for line in lines)


def test_the_page_is_in_the_study_of_the_patient():
    of = refusal()
    ds, source = studies.read_back(page.write(of)), of.source[0]
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber", "StudyDescription"):
        assert ds[keyword].value == source[keyword].value
    assert ds.SeriesInstanceUID != source.SeriesInstanceUID
    assert ds.SeriesDescription == "No synthetic perfusion: too-few-slices"
    assert REASON in ds.ImageComments
    assert ds.SyntheticData == "YES"
    assert ds.ContributingEquipmentSequence[1].ManufacturerModelName == MODEL_NAME  # so that the node knows its own
    assert len(ds.SourceImageSequence) == 6
    assert studies.rgb(ds).any()


@pytest.mark.parametrize(("charset", "name"), NAMES, ids=[str(charset) for charset, _ in NAMES])
def test_names_survive_every_character_set(charset, name):
    def change(ds):
        ds.SpecificCharacterSet, ds.PatientName = charset, name

    ds = studies.read_back(page.write(refusal(change)))
    assert str(ds.PatientName).rstrip("=") == name.rstrip("=")


def test_the_same_refusal_is_the_same_page_and_another_is_another():
    of = refusal()
    first, again = page.write(of), page.write(of)
    assert studies.saved(first) == studies.saved(again)
    assert page.write(replace(of, created_at=datetime(2026, 3, 3, tzinfo=UTC))).SOPInstanceUID == first.SOPInstanceUID
    others = [replace(of, reason_code="gap"), replace(of, reason="the series holds 7 slices; at least 10 are needed")]
    assert len({first.SOPInstanceUID, *(page.write(other).SOPInstanceUID for other in others)}) == 3


def test_a_long_reason_stays_clear_of_the_title():
    long = refusal(reason=" ".join(["the patient moved between the slices and the head is seen twice"] * 5))
    title = studies.rgb(page.write(refusal(reason="")))[: round(0.33 * page.ROWS)]
    assert np.array_equal(studies.rgb(page.write(long))[: round(0.33 * page.ROWS)], title)


def test_what_the_font_cannot_draw_is_a_question_mark(monkeypatch):
    assert "The kernel ?? is unknown." in lettering(monkeypatch, refusal(reason="the kernel 骨用 is unknown"))


def test_dciodvfy_says_only_what_the_list_allows(tmp_path: Path):
    def bare(ds):
        del ds.BodyPartExamined, ds.PatientAge, ds.FrameOfReferenceUID, ds.SliceThickness

    paths = []
    for number, of in enumerate((refusal(), refusal(bare))):
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(studies.saved(page.write(of)))
        assert not unexpected("page", paths[-1])
    assert not unused("page", paths)
