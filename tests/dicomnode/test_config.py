"""dicomnode.config: what is wrong in node.toml is said in words, with the key and the remedy."""

import dataclasses
from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.config import ConfigError, Settings
from dicomnode.jobs import Lane
from inference.weights import WeightsError


def test_an_empty_file_is_the_documented_defaults(tmp_path: Path):
    path = tmp_path / "node.toml"
    path.write_text("")
    settings = config.load(path)
    assert settings == dataclasses.replace(Settings(), node=settings.node)
    assert settings.node.ae_title == "DICOMNODE"
    assert settings.listen.port == 11112
    assert settings.node.intended_use == "research"
    assert not settings.node.accept_simulated
    assert (settings.completeness.quiet_seconds, settings.completeness.give_up_seconds) == (2.0, 60.0)
    assert settings.books_url == f"sqlite:///{tmp_path}/data/books.db"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"node": {"ae_tite": "X"}}, ["[node]", "'ae_tite'", "did you mean 'ae_title'"]),
        ({"sauce": []}, ["'sauce'", "did you mean 'source'"]),
        (
            {"destination": [{"name": "p", "ae_title": "P", "host": "h", "prot": 1}]},
            ["destination.0", "'prot'", "'port'"],
        ),
        ({"destination": [{"name": "p", "ae_title": "P", "host": "h"}]}, ["needs the key 'port'"]),
        ({"node": {"ae_title": "MUCH TOO LONG A TITLE"}}, ["ae_title", "1 to 16"]),
        ({"node": {"ae_title": "BACK\\SLASH"}}, ["no backslash"]),
        ({"node": {"intended_use": "both"}}, ["intended_use", "research", "clinical"]),
        ({"listen": {"port": 99999}}, ["port = 99999"]),
        ({"source": [{"ae_title": "A", "addresses": []}]}, ["addresses"]),
        ({"source": [{"ae_title": "A", "addresses": ["scanner.local"]}]}, ["addresses", "scanner.local"]),
        ({"source": [{"ae_title": "A", "addresses": ["::1"], "lane": "fast"}]}, ["lane", "stroke"]),
        ({"completeness": {"quiet_seconds": -1}}, ["quiet_seconds"]),
        ({"processing": {"colour": 1}}, ["'colour'", "known keys are"]),
    ],
)
def test_a_wrong_key_or_value_is_named_with_the_remedy(raw, words):
    with pytest.raises(ConfigError) as caught:
        config.parse(raw)
    for word in words:
        assert word in str(caught.value)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        config.parse({"node": {"ae_tite": "X"}, "listen": {"prot": 1}})
    assert len(str(caught.value).splitlines()) == 2


def test_two_destinations_of_one_name_are_refused():
    twin = {"name": "pacs", "ae_title": "P", "host": "h", "port": 104}
    with pytest.raises(ConfigError, match=r"two .*'pacs'"):
        config.parse({"destination": [twin, twin]})


def test_broken_toml_and_a_missing_file_say_so(tmp_path: Path, monkeypatch):
    (tmp_path / "node.toml").write_text("[node\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "node.toml")
    monkeypatch.delenv(config.ENVIRONMENT, raising=False)
    with pytest.raises(ConfigError, match="dicomnode init"):
        config.find(tmp_path / "absent.toml")


def test_the_environment_names_the_file_unless_one_is_given(tmp_path: Path, monkeypatch):
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text("")
    monkeypatch.setenv(config.ENVIRONMENT, str(tmp_path / "a.toml"))
    assert config.find() == tmp_path / "a.toml"
    assert config.find(tmp_path / "b.toml") == tmp_path / "b.toml"


@pytest.mark.parametrize(
    ("calling", "address", "admitted"),
    [
        ("CT1", "192.0.2.7", True),
        ("CT1 ", "192.0.2.7", True),
        ("CT1", "192.0.2.8", False),
        ("CT2", "192.0.2.7", False),
        ("CT1", "198.51.100.20", True),
        ("CT1", "::ffff:192.0.2.7", True),
        ("ct1", "192.0.2.7", False),
    ],
)
def test_a_source_is_ae_title_and_address_together(calling, address, admitted):
    raw = {"source": [{"ae_title": "CT1", "addresses": ["192.0.2.7", "198.51.100.0/24"], "lane": "stroke"}]}
    source = config.parse(raw).source_of(calling, address)
    assert (source is not None) is admitted
    assert source is None or source.lane is Lane.STROKE


def test_settings_that_shape_a_result_change_the_digest():
    plain = config.parse({})
    assert plain.digest == config.parse({"listen": {"port": 104}}).digest
    assert plain.digest != config.parse({"processing": {"threads": 1}}).digest


def test_weights_are_a_folder_a_shipped_name_or_the_default(tmp_path: Path):
    assert config.parse({}).weights_folder.is_dir()
    assert config.parse({"processing": {"weights": f"{tmp_path}/own"}}).weights_folder == tmp_path / "own"
    assert config.parse({"processing": {"weights": "own/w"}}, folder=tmp_path).weights_folder == tmp_path / "own" / "w"
    with pytest.raises(WeightsError, match="no weights named"):
        _ = config.parse({"processing": {"weights": "absent"}}).weights_folder
