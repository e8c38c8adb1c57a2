"""All rows of the table of input cases, under their headings."""

from tests.cases import arrivals, geometry, headers, pixels, studies, syntaxes
from tests.cases.case import Case

TABLE: dict[str, tuple[Case, ...]] = {
    "Where the slices lie": geometry.CASES,
    "What the stored values mean": pixels.CASES,
    "Transfer syntaxes": syntaxes.SYNTAXES,
    "Storage classes": syntaxes.CLASSES,
    "What the header says": headers.CASES,
    "Several series in one study": studies.CASES,
    "How it arrives": arrivals.CASES,
}
