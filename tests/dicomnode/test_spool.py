"""dicomnode.spool: what is promised to be on disk is on disk, whole, and under a name of ours."""

import os
import stat
from hashlib import sha256

import pytest

from dicomnode.spool import FOLDERS, Spool


def test_the_folders_are_for_this_account_only(spool: Spool):
    for name in ("", *FOLDERS):
        assert stat.S_IMODE((spool.root / name).stat().st_mode) == 0o700


def keep(spool: Spool, content: bytes) -> str:
    with spool.part() as part:
        part.write(content)
        path = part.keep()
    spool.settle_in()
    return path


def test_kept_bytes_come_back_and_nothing_is_left_over(spool: Spool):
    path = keep(spool, b"content")
    assert spool.path(path).read_bytes() == b"content"
    assert path.startswith("in/")
    assert path.endswith(".dcm")
    assert list((spool.root / "tmp").iterdir()) == []
    spool.remove(path)
    assert not spool.path(path).exists()


def test_file_then_name_then_folder_are_made_durable_in_that_order(spool: Spool, monkeypatch):
    """fsync of the file, rename, fsync of the folder: a crash in between leaves all or nothing."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", lambda *a, **k: (calls.append("rename"), replace(*a, **k)))
    keep(spool, b"content")
    assert calls == ["file", "rename", "folder"]


def test_a_result_that_fails_half_way_leaves_no_file_of_its_name(spool: Spool):
    with pytest.raises(RuntimeError), spool.result("J1", "sc-CBF-001.dcm") as (path, file):
        file.write(b"half")
        raise RuntimeError
    assert not spool.path(path).exists()
    with spool.result("J1", "sc-CBF-001.dcm") as (path, file):
        file.write(b"whole")
    spool.settle("J1")
    assert spool.path(path).read_bytes() == b"whole"
    spool.clear_unfinished()
    assert list((spool.root / "tmp").iterdir()) == []


def test_paths_are_relative_so_another_host_may_mount_the_spool_elsewhere(spool: Spool, tmp_path):
    path = keep(spool, b"content")
    spool.root.rename(tmp_path / "elsewhere")
    assert Spool(tmp_path / "elsewhere").path(path).read_bytes() == b"content"


def test_what_a_full_disk_cuts_short_is_removed(spool: Spool, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        keep(spool, b"content")
    assert list((spool.root / "tmp").iterdir()) == []
    assert list((spool.root / "in").iterdir()) == []


def quarantine(spool: Spool, content: bytes) -> str:
    with spool.part() as part:
        part.write(content)
        return part.quarantine()


def test_quarantine_keeps_the_bytes_once(spool: Spool):
    assert spool.path(quarantine(spool, b"junk")).read_bytes() == b"junk"
    assert quarantine(spool, b"junk") == quarantine(spool, b"junk")
    assert len(list((spool.root / "quarantine").iterdir())) == 1
    assert list((spool.root / "tmp").iterdir()) == []
    assert spool.free_bytes() > 0


def test_what_is_neither_kept_nor_set_aside_is_gone_and_the_digest_is_of_what_follows_the_meta(spool: Spool):
    with spool.part(b"meta") as part:
        part.write(b"data ")
        part.write(memoryview(b"set"))
        with part.reading() as stream:
            assert stream.read() == b"metadata set"
        assert part.bytes == len(b"metadata set")
        assert part.sha256 == sha256(b"data set").hexdigest()
    assert list((spool.root / "tmp").iterdir()) == []
    assert list((spool.root / "in").iterdir()) == []


def test_what_a_dead_receiver_left_is_cleared_and_a_writers_work_is_not(spool: Spool):
    spool.part(b"half")._file.close()  # as if killed
    with spool.result("J1", "sc-CBF-001.dcm") as (_, file):
        assert spool.clear_unreceived() == 1
        file.write(b"whole")
    assert spool.path("results/J1/sc-CBF-001.dcm").read_bytes() == b"whole"


def test_a_file_set_aside_keeps_its_name_and_its_bytes(spool: Spool):
    path = keep(spool, b"junk")
    aside = spool.set_aside(path)
    assert spool.path(aside).read_bytes() == b"junk"
    assert list(spool.received()) == []
