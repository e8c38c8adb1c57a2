"""The summary page as an encapsulated PDF, for archives that file documents (PS3.3 A.45.1).

The page is the picture of the summary mosaic, numbers and disclaimers included; the sentences stand in the document's
own properties too, where a reader of the file finds them.
"""

from copy import deepcopy
from io import BytesIO

from PIL import Image
from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from dicomnode import MANUFACTURER, MODEL_NAME
from dicomnode.writer import capture, codes, common, document, mosaic, plane
from dicomnode.writer.segmentation import ESTIMATE
from dicomnode.writer.study import Study

NAME = mosaic.NAME
SERIES_NUMBER = 9601
TITLE = "SYNTHETIC perfusion summary"
DOTS_PER_INCH = 200.0
QUALITY = 95  # of JPEG inside the PDF, which knows no other colour; the mosaic itself is never compressed


def plan(study: Study) -> list[tuple[str, int]]:
    """One document for every study."""
    return [(NAME, 0)]


def write(study: Study) -> Dataset:
    """The document."""
    ds = document.base(study)
    shown, content = mosaic.levels(study), _pdf(study)
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.InstanceNumber = study.uid("pdf", NAME, "series"), SERIES_NUMBER, 1
    ds.SeriesDescription = common.series_description(study, NAME, "PDF")
    capture.describe(ds)
    ds.Modality = "DOC"
    del ds.ImageType, ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture
    ds.AcquisitionDateTime = None
    ds.DocumentTitle, ds.ConceptNameCodeSequence = TITLE, [deepcopy(codes.SYNTHETIC_PERFUSION)]
    ds.SourceInstanceSequence = [plane.reference(study.source[index], same_grid=False) for index in shown]
    for item in ds.SourceInstanceSequence:
        del item.SpatialLocationsPreserved
    ds.MIMETypeOfEncapsulatedDocument = "application/pdf"
    ds.EncapsulatedDocument, ds.EncapsulatedDocumentLength = content, len(content)
    return common.finish(ds, EncapsulatedPDFStorage, study.uid("pdf", NAME, 0), study.software_version)


def _pdf(study: Study) -> bytes:
    """The page as PDF; equal studies have equal bytes."""
    file, made = BytesIO(), study.created_at.utctimetuple()
    Image.fromarray(mosaic.page(study, mosaic.levels(study))).save(
        file,
        "PDF",
        resolution=DOTS_PER_INCH,
        quality=QUALITY,
        subsampling=0,
        title=TITLE,
        author=f"{MANUFACTURER} {MODEL_NAME} {study.software_version}",
        subject=common.derivation(study, "Summary of all maps"),
        keywords=f"{common.DISCLAIMER}; volumes: {ESTIMATE}",
        creationDate=made,
        modDate=made,
    )
    return file.getvalue()
