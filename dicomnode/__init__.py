"""The perfusion node: DICOM in, synthetic perfusion maps out, and the books in between."""

from importlib.metadata import version

__version__ = version("perfusion-node")
MANUFACTURER = "Perfusion Node project"
MODEL_NAME = "Perfusion Node"  # in Contributing Equipment of all we write: by it the node knows its own objects
