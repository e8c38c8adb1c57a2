"""The encapsulated PDF: one page, the picture of the mosaic, the same bytes whenever it is made."""

import re
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import phantom
from tests.dicomnode.writer import studies
from tests.tools import program


@pytest.fixture(scope="module")
def stroke():
    return studies.stroke(phantom.head(phantom.even(10, 14.0), matrix=64), simulated_input=True)


def test_dcmtk_takes_out_the_document_that_was_put_in(stroke, tmp_path: Path):
    ds = studies.one(stroke, "pdf")
    path, out = tmp_path / "page.dcm", tmp_path / "page.pdf"
    path.write_bytes(studies.saved(ds))
    subprocess.run([program("dcm2pdf"), str(path), str(out)], check=True, capture_output=True)
    document = ds.EncapsulatedDocument[: ds.EncapsulatedDocumentLength]
    assert out.read_bytes().rstrip(b"\0") == document
    assert document.startswith(b"%PDF-")
    assert document.rstrip().endswith(b"%%EOF")
    assert document.count(b"/Type /Page\n") == 1


def test_the_page_is_the_mosaic(stroke):
    document = studies.one(stroke, "pdf").EncapsulatedDocument
    start = document.index(b"\xff\xd8\xff")
    picture = np.asarray(Image.open(BytesIO(document[start:])), np.int16)
    mosaic = studies.rgb(studies.one(stroke, "mosaic")).astype(np.int16)
    assert picture.shape == mosaic.shape
    assert np.abs(picture - mosaic).mean() < 2.0  # grey levels; JPEG of quality 95


def test_the_file_says_in_its_properties_what_it_is(stroke):
    ds = studies.one(stroke, "pdf")
    assert (ds.Modality, ds.MIMETypeOfEncapsulatedDocument) == ("DOC", "application/pdf")
    assert ds.DocumentTitle == "SYNTHETIC perfusion summary"
    assert ds.BurnedInAnnotation == "YES"
    found = re.findall(rb"/(?:Title|Subject|Keywords) ?\((.*?)(?<!\\)\)", ds.EncapsulatedDocument, re.DOTALL)
    text = b" ".join(found).decode("utf-16-be", "replace") + b" ".join(found).decode("latin-1").replace("\0", "")
    for words in (
        "SYNTHETIC",
        "not acquired perfusion",
        "simulated data",
        "does not exclude stroke",
        "not for treatment",
    ):
        assert words in text
    assert b"Phantom" not in ds.EncapsulatedDocument  # the patient's name stands in the data set, not in the document
