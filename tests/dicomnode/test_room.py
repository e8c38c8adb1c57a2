"""dicomnode.room: receiving stops before results no longer fit, and the reserve makes room for them."""

import logging
from collections import namedtuple
from pathlib import Path

import pytest

from dicomnode import room
from dicomnode.room import NoRoom, Room

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch):
    """Say how many bytes are free."""

    def say(count: int) -> None:
        monkeypatch.setattr(room.shutil, "disk_usage", lambda _: Usage(10**6, 0, count))

    return say


def test_below_the_watermark_nothing_is_let_in_and_the_log_says_so_once(tmp_path: Path, free, caplog):
    watched = Room(tmp_path, keep_free=4000)
    with caplog.at_level(logging.ERROR):
        for count, refused in ((4000, False), (3999, True), (3998, True), (4000, False)):
            free(count)
            if refused:
                with pytest.raises(NoRoom):
                    watched.check()
            else:
                watched.check()
    assert [("0xA700" in r.getMessage()) for r in caplog.records] == [True, False]


def test_the_reserve_is_held_given_up_and_held_again(tmp_path: Path, free):
    watched, reserve = Room(tmp_path, keep_free=4000), tmp_path / "reserve"
    for count, there in ((6001, True), (1000, True), (999, False), (3000, False), (6000, False), (6001, True)):
        free(count)
        watched.look_after_reserve()
        assert reserve.exists() is there, count
    assert reserve.stat().st_size == 1000
    assert [path.name for path in tmp_path.iterdir()] == ["reserve"]


def test_where_nothing_must_stay_free_there_is_no_reserve(tmp_path: Path):
    watched = Room(tmp_path, keep_free=0)
    watched.check()
    watched.look_after_reserve()
    assert list(tmp_path.iterdir()) == []
