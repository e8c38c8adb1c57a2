"""dicomnode conformance: the statement in the repository is the command's, and its tables are what the code does."""

from pathlib import Path

from dicomnode import conformance
from dicomnode.ladder import LADDER
from dicomnode.writer import OBJECTS, page, write
from tests import phantom
from tests.dicomnode.writer import studies
from tests.dicomnode.writer.test_page import refusal
from tests.walks.node import dicomnode

STATEMENT = Path(__file__).parents[2] / "docs" / "conformance-statement.md"


def test_the_statement_in_the_repository_is_what_the_command_prints(tmp_path: Path):
    """Mend it with `dicomnode conformance > docs/conformance-statement.md`."""
    assert dicomnode("conformance", cwd=tmp_path).stdout == STATEMENT.read_text(encoding="utf-8")


def test_the_table_of_objects_is_what_the_writer_makes():
    study = studies.stroke(phantom.head(phantom.even(10, 14.0), matrix=64))
    made = [(r.kind, r.dataset) for r in write(study, lambda kind, name, index: index == 0, OBJECTS)]
    table = {kind: (uid, modality, first) for kind, uid, modality, first, *_ in conformance.OBJECTS}
    assert {kind for kind, _ in made} | {"page"} == set(table)
    for kind, ds in [*made, ("page", page.write(refusal()))]:
        uid, modality, first = table[kind]
        assert (ds.SOPClassUID, ds.Modality) == (uid, modality)
        assert first <= ds.SeriesNumber < first + 100


def test_every_step_of_the_ladder_and_every_status_is_told():
    text = conformance.statement()
    for kind in LADDER:
        assert f"| `{kind}` |" in text
    for status in ("0x0000", "0xBxxx", "0x0111", "0xA7xx", "0xA9xx", "0xCxxx", "0x0122", "0x0124", "any other"):
        assert f"| {status} |" in text
