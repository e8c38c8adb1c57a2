"""Two shapes, one code: the same walk from scanner to PACS over embedded books and broker, and over servers."""

from collections import Counter
from pathlib import Path

import pytest
from pydicom import dcmread

from dicomnode import data
from dicomnode.jobs import State
from tests.pacs import Pacs
from tests.walks.discretion import words_of_patients
from tests.walks.node import Node, dicomnode


@pytest.mark.parametrize(
    "shape", ["servers", pytest.param("redis", marks=pytest.mark.slow)], indirect=True
)  # the embedded shape is walked by tests/walks/test_kill.py and others
def test_a_study_walks_from_scanner_to_pacs(shape: tuple[str, str], tmp_path: Path):
    books, broker = shape
    files = data.ncct()
    study = str(dcmread(files[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
    with Pacs(ae_title="PACS", finds=True).running() as pacs:
        peers = ("--source", "STORESCU@127.0.0.1", "--destination", f"PACS@127.0.0.1:{pacs.port}", "--demo")
        node = Node.init(tmp_path / "node", *peers, books=books, broker=broker)
        with node.up():
            assert node.send(files[0].parent, "-xt").returncode == 0
            node.ends(study, State.DONE)
            said = dicomnode("explain", study, cwd=node.folder).stdout
    assert "confirmed by C-FIND" in said
    assert set(Counter(ds.SOPInstanceUID for ds in pacs.received).values()) == {1}
    assert len(pacs.received) == 5 * len(files) + 5
    assert words_of_patients(node.books)  # whom no log may name; node.up() has looked
    assert not list((node.settings.node.data_dir / "broker").iterdir())
    assert not (node.settings.node.data_dir / "books.db-wal").exists()
