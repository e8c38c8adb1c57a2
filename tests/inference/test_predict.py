"""A head in, maps out: in their units, on the source grid, the same every time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inference import maps, preprocess, weights
from inference.engine import load_engine
from inference.maps import MapKind
from inference.models.magic import Magic
from inference.predict import predict
from inference.smoothing import Smoothing
from inference.volume import from_slices
from inference.weights import Manifest
from tests import phantom


@pytest.fixture(scope="module")
def head():
    volume = from_slices(phantom.head(z=phantom.even(14, 9.0, -70.0), tilt_degrees=10.0, patient_position="HFDR"))
    return volume, preprocess.prepare(volume)


def test_one_map_for_each_kind_on_the_source_grid_and_0_outside_the_brain(engine, head):
    volume, prepared = head
    found = predict(volume, prepared, engine)
    mask = preprocess.source_mask(prepared, volume)
    assert [one.kind.name for one in found] == ["CBF", "CBV", "MTT", "TTP", "Tmax"]
    for one in found:
        assert one.values.dtype == np.float32
        assert one.values.shape == volume.hu.shape
        assert (one.values[~mask] == 0).all()
        assert (one.values[mask] > 0).mean() > 0.99


def test_values_fill_the_range_of_their_kind_and_do_not_leave_it(engine, head):
    for one in predict(*head, engine):
        assert 0.3 * one.kind.ceiling < one.values.max() <= one.kind.ceiling * (1 + 1e-6)
        assert one.values.min() == 0


def test_the_same_head_gives_the_same_bytes(engine, head):
    first, second = predict(*head, engine), predict(*head, engine)
    assert all(np.array_equal(a.values, b.values) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("batch", [1, 3, 14])
def test_the_batch_size_changes_nothing_but_rounding(engine, head, batch):
    for a, b in zip(predict(*head, engine), predict(*head, engine, batch=batch), strict=True):
        assert np.abs(a.values - b.values).max() < 1e-5 * a.kind.ceiling


class Painter:
    """An engine whose maps are known: the target slice itself, as learnt values of every kind."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.slices = 0

    def blend(self, perfusion: np.ndarray, planes: np.ndarray) -> np.ndarray:
        return perfusion

    def perfusion(self, planes: np.ndarray) -> np.ndarray:
        self.slices += len(planes)
        return np.repeat(planes[:, 1:2], len(self.manifest.kinds), axis=1)


def test_every_slice_gets_its_own_values_in_the_unit_of_each_kind(engine, head):
    """The painter's maps are the CT, 0 to 80 HU over 0 to ceiling, so each map must look like its own source slice."""
    volume, prepared = head
    found = predict(volume, prepared, Painter(replace(engine.manifest, smoothing={})))
    middle = preprocess.source_mask(prepared, volume) & (volume.hu > 25) & (volume.hu < 45)
    for one in found:
        off = one.values / one.kind.ceiling * 80 - volume.hu
        assert np.abs(np.median(off[middle])) < 0.5
        for s in range(2, len(off) - 2):
            assert np.abs(np.median(off[s][middle[s]])) < 1.0


def test_every_kind_gets_its_own_channel(engine, head):
    volume, prepared = head
    learnt = np.linspace(-0.8, 0.8, 5, dtype=np.float32)
    painter = Painter(engine.manifest)
    painter.perfusion = lambda planes: np.broadcast_to(learnt[None, :, None, None], (len(planes), 5, 256, 256))
    mask = preprocess.source_mask(prepared, volume)
    for one, value in zip(predict(volume, prepared, painter), learnt, strict=True):
        assert np.allclose(one.values[mask], (value + 1) / 2 * one.kind.ceiling)


def test_maps_are_smoothed_across_slices_as_far_as_the_weights_say(engine, head):
    """Painted dark and bright by turns, 9 mm apart: only the map that is smoothed becomes even."""
    volume, prepared = head
    learnt = np.where(np.arange(14) % 2, 0.5, -0.5).astype(np.float32)
    painter = Painter(replace(engine.manifest, smoothing={"Tmax": Smoothing(0.0, 9.0)}))
    with_brain = iter(learnt[prepared.mask.any(axis=(1, 2))])
    painter.perfusion = lambda planes: np.stack([np.full((5, 256, 256), next(with_brain), np.float32) for _ in planes])
    mask = preprocess.source_mask(prepared, volume)
    for one in predict(volume, prepared, painter):
        shares = np.array([np.median(one.values[s][mask[s]]) for s in range(4, 10)]) / one.kind.ceiling
        assert np.ptp(shares) == pytest.approx(0.5, abs=1e-5) if one.kind.name != "Tmax" else np.ptp(shares) < 0.05


def test_slices_without_brain_are_not_computed(engine):
    volume = from_slices(phantom.head(z=phantom.even(20, 9.0, -100.0)))
    prepared = preprocess.prepare(volume)
    painter = Painter(engine.manifest)
    found = predict(volume, prepared, painter)
    assert painter.slices == prepared.mask.any(axis=(1, 2)).sum() < 20
    assert not found[0].values[0].any()


def test_a_sixth_map_is_one_row_and_its_name_in_the_manifest(tmp_path, monkeypatch, head):
    oef = MapKind(
        "OEF",
        "Oxygen extraction fraction",
        "%",
        ("%", "percent"),
        ("126392", "Oxygen Extraction Fraction"),
        ("126392", "Oxygen Extraction Fraction"),
        100.0,
    )
    monkeypatch.setitem(maps.KINDS, "OEF", oef)
    kinds = (*weights.read(weights.shipped("ncct-untrained")).kinds, "OEF")
    manifest = Manifest(
        name="six",
        version="1",
        route="ncct",
        architecture="magic",
        width=2,
        norm="instance",
        kinds=kinds,
        ranges=weights.ranges(kinds),
        units="physical",
        preprocessing=preprocess.VERSION,
        training_domain="untrained",
        data_digest="",
        seeds=(0,),
        commit="",
        licence="Apache-2.0",
    )
    torch.manual_seed(0)
    weights.save(tmp_path / "six", manifest, Magic(maps=6, width=2).state_dict())
    found = predict(*head, load_engine(*weights.load(tmp_path / "six"), threads=1))
    assert [one.kind.name for one in found] == [*kinds]
    assert found[-1].kind is oef
    assert 0 < found[-1].values.max() <= 100.0
