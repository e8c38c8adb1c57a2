"""Coded concepts of what we write (dicom-output 1.2): PS3.16 where it has the words, our own scheme where not."""

from highdicom.sr import CodedConcept
from pydicom import Dataset

from dicomnode import MANUFACTURER
from inference.maps import MapKind
from inference.weights import Manifest

OWN_SCHEME = "99PERFNODE"

ACQUISITION_EQUIPMENT = CodedConcept("109101", "DCM", "Acquisition Equipment")
SYNTHESIZING_EQUIPMENT = CodedConcept("109100", "DCM", "Synthesizing Equipment")
SOURCE_IMAGE = CodedConcept("121322", "DCM", "Source image for image processing operation")
BRAIN = CodedConcept("12738006", "SCT", "Brain")
# Of what segments are, these claim least: infarct and ischaemia are not ours to say.
FUNCTION = CodedConcept("246464006", "SCT", "Function")
PERFUSION = CodedConcept("371863001", "SCT", "Perfusion")
ARTIFICIAL_INTELLIGENCE = CodedConcept("123110", "DCM", "Artificial Intelligence")
# (129104, DCM, "Perfusion image analysis") would claim that a perfusion acquisition was analysed.
SYNTHETIC_PERFUSION = CodedConcept("SYNPERF", OWN_SCHEME, "Synthetic perfusion map inferred from non-contrast CT")

ARBITRARY_UNIT = "[arb'U]"


def quantity(kind: MapKind, manifest: Manifest) -> CodedConcept:
    """What is measured: the absolute quantity, or the relative one for weights without physical units."""
    value, meaning = kind.quantity if manifest.units == "physical" else kind.relative_quantity
    return CodedConcept(value, "DCM", meaning)


def unit(kind: MapKind, manifest: Manifest) -> CodedConcept:
    """The unit in UCUM; an arbitrary one for weights without physical units."""
    value, meaning = kind.ucum if manifest.units == "physical" else (ARBITRARY_UNIT, "arbitrary unit")
    return CodedConcept(value, "UCUM", meaning)


def own_scheme() -> Dataset:
    """The item of Coding Scheme Identification Sequence that says whose the private codes are (PS3.3 C.12.1)."""
    item = Dataset()
    item.CodingSchemeDesignator = OWN_SCHEME
    item.CodingSchemeName = "Private codes of the Perfusion Node"
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    return item
