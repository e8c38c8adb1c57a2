"""The demo's patient: one non-contrast head CT of a virtual stroke patient; README.md here says who it is."""

from importlib.resources import files
from pathlib import Path


def ncct() -> list[Path]:
    """The CT slices, foot to head; each is a DICOM file in JPEG-LS lossless with Synthetic Data YES."""
    folder = files(__name__) / "ncct"
    return sorted(Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".dcm"))
