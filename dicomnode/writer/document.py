"""What reports and encapsulated pages have in common: they are documents of the study, not images of it."""

from pydicom import Dataset

from dicomnode.writer import common
from dicomnode.writer.study import Study

_OF_IMAGES = (  # what every object carries and the IODs of documents do not have (PS3.3 A.35, A.45)
    *("BodyPartExamined", "ProtocolName", "LossyImageCompression"),
    *("LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)


def base(study: Study) -> Dataset:
    """The attributes that every document of the study carries."""
    ds = common.base(study)
    for keyword in _OF_IMAGES:
        if keyword in ds:
            del ds[keyword]
    return ds
