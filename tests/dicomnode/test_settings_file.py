"""dicomnode.settings_file: what init writes works as it stands, and config/node.toml is just that."""

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from dicomnode import config, settings_file
from dicomnode.config import Settings
from dicomnode.settings_file import Peer, peer

EXAMPLE = Path(__file__).parents[2] / "config" / "node.toml"


def example() -> str:
    return settings_file.render([peer("CT1@192.0.2.10")], [peer("PACS@192.0.2.20:104")])


def test_the_example_in_the_repository_is_what_init_writes():
    assert EXAMPLE.read_text(encoding="utf-8") == example()


def test_every_section_and_key_stands_in_the_example_and_is_the_default():
    raw = tomllib.loads(example())
    assert set(raw) == {f.name for f in fields(Settings)}
    for section in ("node", "listen", "completeness", "processing", "books", "broker", "web", "retention", "alerts"):
        defaults = getattr(config.parse({}), section)
        written = getattr(config.parse(raw), section)
        assert set(raw[section]) == {f.name for f in fields(defaults)}
        assert written == defaults
    for section in ("source", "destination"):
        assert set(raw[section][0]) == {f.name for f in fields(getattr(config.parse(raw), section)[0])}


def test_every_key_has_a_comment():
    """Each key, or the run of keys it stands in, follows a comment."""
    explained = False
    for line in settings_file.render([], []).splitlines():
        key = " = " in line and not line.startswith("#")
        assert not key or explained, line
        explained = line.startswith("#") or (key and explained)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PACS@192.0.2.1:104", Peer("PACS", "192.0.2.1", 104)),
        ("PACS@host.example", Peer("PACS", "host.example", None)),
        ("PACS@[2001:db8::1]:104", Peer("PACS", "2001:db8::1", 104)),
    ],
)
def test_a_peer_is_read_from_the_command_line(text, expected):
    assert peer(text) == expected


@pytest.mark.parametrize("text", ["PACS", "@host", "PACS@", "192.0.2.1:104"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="AET@HOST"):
        peer(text)


def test_two_destinations_with_one_ae_title_get_two_names():
    text = settings_file.render([], [peer("PACS@192.0.2.1:104"), peer("PACS@192.0.2.2:104")])
    assert [d.name for d in config.parse(tomllib.loads(text)).destination] == ["pacs-1", "pacs-2"]
