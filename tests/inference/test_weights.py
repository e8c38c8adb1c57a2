"""Weights on disk: only what the manifest describes is loaded, and never a pickle."""

import json
import pickle
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from inference import preprocess, weights
from inference.models.magic import Magic
from inference.weights import Manifest, WeightsError
from training import untrained


@pytest.fixture
def generator() -> Magic:
    torch.manual_seed(3)
    return Magic(maps=2, width=2)


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(
        name="test",
        version="7",
        route="ncct",
        architecture="magic",
        width=2,
        norm="instance",
        kinds=("CBF", "Tmax"),
        ranges=weights.ranges(("CBF", "Tmax")),
        units="physical",
        preprocessing="1",
        training_domain="virtual",
        data_digest="d" * 64,
        seeds=(1, 2),
        commit="abc",
        licence="Apache-2.0",
        metrics={"SSIM": 0.5},
    )


@pytest.fixture
def folder(tmp_path: Path, manifest: Manifest, generator: Magic) -> Path:
    weights.save(tmp_path / "w", manifest, generator.state_dict())
    return tmp_path / "w"


def edit(folder: Path, **fields: object) -> Path:
    path = folder / weights.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


def test_weights_and_manifest_come_back_as_saved(folder, manifest, generator):
    loaded, state = weights.load(folder)
    assert replace(loaded, sha256="") == manifest
    assert state.keys() == generator.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in generator.state_dict().items())


def test_the_manifest_holds_every_field_of_contract_10(folder):
    found = json.loads((folder / weights.MANIFEST).read_text())
    assert found.keys() >= {
        "name", "version", "route", "architecture", "width", "kinds", "ranges", "units", "preprocessing",
        "training_domain", "data_digest", "seeds", "commit", "sha256", "metrics", "licence", "smoothing", "familiar",
    }  # fmt: skip


def test_half_precision_is_stored_half_as_large_and_loaded_as_float32(tmp_path, manifest, generator):
    for name, half in (("full", False), ("half", True)):
        weights.save(tmp_path / name, manifest, generator.state_dict(), half=half)
    sizes = [(tmp_path / name / weights.MODEL).stat().st_size for name in ("full", "half")]
    _, state = weights.load(tmp_path / "half")
    assert sizes[1] < 0.6 * sizes[0]
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    worst = max(float((t - state[name]).abs().max()) for name, t in generator.state_dict().items())
    assert worst < 2**-11  # half a step of float16 below 1


def test_counters_of_batch_norm_stay_integers(tmp_path, manifest):
    generator = Magic(maps=2, width=2, norm="batch")
    weights.save(tmp_path / "w", replace(manifest, norm="batch"), generator.state_dict(), half=True)
    _, state = weights.load(tmp_path / "w")
    assert {t.dtype for name, t in state.items() if name.endswith("num_batches_tracked")} == {torch.int64}


def test_one_changed_byte_is_found_and_the_message_says_what_to_do(folder):
    path = folder / weights.MODEL
    content = bytearray(path.read_bytes())
    expected = weights.read(folder).sha256
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(WeightsError) as caught:
        weights.load(folder)
    message = str(caught.value)
    assert str(path) in message
    assert expected in message
    assert "found" in message
    assert "copy the folder again" in message


def test_a_pickle_in_place_of_the_tensors_is_refused_even_with_the_right_digest(folder, generator):
    torch.save(generator.state_dict(), folder / weights.MODEL)
    edit(folder, sha256=weights._sha256(folder / weights.MODEL))
    with pytest.raises(WeightsError, match="not a safetensors file"):
        weights.load(folder)


def test_loading_never_unpickles(folder, monkeypatch):
    def forbidden(*arguments, **options):
        raise AssertionError("a pickle was opened")

    monkeypatch.setattr(pickle, "load", forbidden)
    monkeypatch.setattr(pickle, "loads", forbidden)
    monkeypatch.setattr(pickle, "Unpickler", forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    manifest, state = weights.load(folder)
    assert state
    assert manifest == weights.read(folder)


@pytest.mark.parametrize("missing", [weights.MODEL, weights.MANIFEST])
def test_a_missing_file_is_named(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(WeightsError, match=f"{missing} is missing"):
        weights.load(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kinds": ["CBF", "OEF"]}, "'OEF'; this software knows CBF, CBV, MTT, TTP, Tmax"),
        ({"kinds": ["CBF", "CBF"]}, "each map once"),
        ({"kinds": []}, "each map once"),
        ({"ranges": {"CBF": [0, 100], "Tmax": [0, 12]}}, "100"),
        ({"ranges": {"CBF": [0, 60], "Tmax": [0, 12000]}}, "Tmax is 1000 times too large: another unit?"),
        ({"units": "parrots"}, "'parrots'"),
        ({"training_domain": "real"}, "'real'"),
        ({"colour": "blue"}, "unknown fields colour"),
        (
            {"smoothing": {"MTT": {"above": 4.0, "sigma_mm": 9.0}}},
            "smooths 'MTT', which is none of its maps: CBF, Tmax",
        ),
        ({"smoothing": {"Tmax": {"above": 4.0, "sigma_mm": 40.0}}}, "between 0 and 20 mm"),
    ],
)
def test_a_manifest_that_this_software_cannot_honour_is_refused_by_name(folder, fields, message):
    with pytest.raises(WeightsError, match=message):
        weights.read(edit(folder, **fields))


def test_a_manifest_without_a_field_names_the_field(folder):
    path = folder / weights.MANIFEST
    found = json.loads(path.read_text())
    del found["licence"]
    path.write_text(json.dumps(found))
    with pytest.raises(WeightsError, match="lacks licence"):
        weights.read(folder)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_manifest_that_is_no_json_object_is_refused(folder, text):
    (folder / weights.MANIFEST).write_text(text)
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        weights.read(folder)


def test_saving_an_impossible_manifest_fails_at_once(tmp_path, manifest, generator):
    with pytest.raises(WeightsError, match="'guesses'"):
        weights.save(tmp_path / "w", replace(manifest, units="guesses"), generator.state_dict())


def test_the_digest_can_be_verified_without_loading_the_tensors(folder):
    assert weights.verify(folder) == weights.read(folder)
    with (folder / weights.MODEL).open("ab") as file:
        file.write(b"x")
    with pytest.raises(WeightsError, match="sha256 expected"):
        weights.verify(folder)


def test_reading_a_manifest_does_not_import_torch():
    program = (
        "import sys; from inference import weights; weights.read(weights.shipped()); sys.exit('torch' in sys.modules)"
    )
    root = Path(weights.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "domain", "width", "largest"),
    [("ncct-untrained", "untrained", 4, 2.5e6), (weights.DEFAULT, "virtual", 12, 20e6)],
)
def test_the_shipped_weights_say_what_they_were_trained_on_and_are_small(name, domain, width, largest):
    manifest = weights.verify(weights.shipped(name))
    assert (manifest.training_domain, manifest.units, manifest.width) == (domain, "physical", width)
    assert manifest.preprocessing == preprocess.VERSION
    assert [kind.name for kind in manifest.map_kinds] == ["CBF", "CBV", "MTT", "TTP", "Tmax"]
    assert (weights.shipped(name) / weights.MODEL).stat().st_size < largest


def test_the_default_weights_name_the_commit_and_the_patients_that_made_them():
    manifest = weights.read(weights.shipped())
    assert len(manifest.commit) == 40 and "+changes" not in manifest.commit
    assert len(manifest.data_digest) == 64 and manifest.metrics


def test_the_shipped_untrained_weights_are_those_that_the_command_makes(tmp_path):
    made = weights.read(untrained.make(tmp_path / "made"))
    assert asdict(made) == asdict(weights.read(weights.shipped("ncct-untrained")))


def test_weights_that_are_not_shipped_are_refused_with_those_that_are():
    with pytest.raises(WeightsError, match="ncct-untrained"):
        weights.shipped("../../etc")
