"""Text that is not in the character set it declares (PS3.5 6.1): read all the same, and handed on as it is."""

import warnings
from collections.abc import Iterator

from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
ESCAPE = 0x1B  # begins a change of the set within a value (ISO 2022)
AS_BYTES = "iso8859"  # any byte is a character, and written again it is that byte


def settle(ds: Dataset) -> Dataset:
    """The same data set just read; where its text breaks its declaration, the declaration is dropped.

    What declares no set is handed on byte for byte, and a PACS shows it as it shows the source.
    """
    if not _keeps_its_word(ds):
        implicit, little_endian = ds.original_encoding
        ds.set_original_encoding(implicit, little_endian, AS_BYTES)
        del ds.SpecificCharacterSet
    return ds


def _keeps_its_word(ds: Dataset) -> bool:
    declared = ds.get("SpecificCharacterSet")
    values = list(_beyond_ascii(ds)) if declared else []
    if not values:
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # which is how pydicom says that it has guessed
        try:
            encodings = convert_encodings(list(declared) if not isinstance(declared, str) else declared)
            for value, is_name in values:
                decode_bytes(value, encodings, PN_DELIMS if is_name else TEXT_VR_DELIMS)
        except (LookupError, UnicodeError, UserWarning):
            return False
    return True


def _beyond_ascii(ds: Dataset) -> Iterator[tuple[bytes, bool]]:
    """The texts that a character set is needed for; True for those that are names."""
    for tag in list(ds.keys()):
        element = ds.get_item(tag)
        if not isinstance(element, RawDataElement) or not element.value:
            continue
        vr = element.VR or (dictionary_VR(tag) if dictionary_has_tag(tag) else "UN")
        if vr in TEXT and (not element.value.isascii() or ESCAPE in element.value):
            yield element.value, vr == "PN"
