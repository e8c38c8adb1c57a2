"""Curves and consoles: volumes come back, known residues come back, and all families keep their MTT."""

import numpy as np
import pytest

from training.simulate import kinetics
from training.simulate.kinetics import RESIDUES, bank, block_circulant, console
from training.simulate.params import Bolus

BOLUS = Bolus(arrival=5.0, shape=3.0, scale=1.5, peak=320.0)
MEMBERS = [4, 6, 10, 14]  # knots of MTT: 3, 4, 6 and 8 s


@pytest.mark.parametrize("family", RESIDUES)
def test_a_residue_starts_at_one_and_its_integral_is_the_mtt(family):
    u = np.arange(0, 60, 1e-3)
    assert RESIDUES[family](np.zeros(1))[0] == pytest.approx(1.0, abs=1e-6)
    assert RESIDUES[family](u + 5e-4).sum() * 1e-3 == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("family", RESIDUES)
def test_blood_volume_comes_back_from_the_curves(family):
    """CBV = 100 kH / rho * integral of tissue / integral of the AIF, to 2 % of CBF * MTT / 60 at 50 ml/100 g/min."""
    curves = bank(BOLUS, family)
    factor = kinetics.DENSITY / kinetics.HAEMATOCRIT_FACTOR
    for knot in MEMBERS:
        tissue = factor * 50.0 / 6000.0 * curves.curves[knot, 0]
        cbv = 100.0 / factor * tissue.sum() / curves.aif.sum()
        assert cbv == pytest.approx(50.0 * kinetics.MTT_KNOTS[knot] / 60.0, rel=0.02)


def test_deconvolution_by_an_impulse_gives_back_the_residue_maximum():
    frames = np.arange(45) * 1.0
    aif = np.zeros(45)
    aif[0] = 100.0
    flow, tmax = block_circulant(0.5 * 100.0 * np.exp(-frames / 6.0)[None], aif, 1.0, finer=1)
    expected = 0.5 * 6000.0 * kinetics.HAEMATOCRIT_FACTOR / kinetics.DENSITY
    assert flow[0] == pytest.approx(expected, rel=1e-6)
    assert tmax[0] == 0.0


@pytest.mark.parametrize("delay", [0, 2, 7])
@pytest.mark.parametrize("mtt", [3.0, 6.0, 12.0])
def test_an_impulse_gives_back_flow_and_delay_of_an_exponential(mtt, delay):
    """Simulation.md section 9: to 1e-6 in flow and to a frame in Tmax, for 50 ml/100 g/min."""
    frames = np.arange(60.0)
    aif = np.zeros(60)
    aif[0] = 100.0
    unit = kinetics.DENSITY / kinetics.HAEMATOCRIT_FACTOR / 6000.0
    tissue = 50.0 * unit * 100.0 * np.where(frames >= delay, np.exp(-np.clip(frames - delay, 0, None) / mtt), 0.0)
    flow, tmax = block_circulant(tissue[None], aif, 1.0, finer=1)
    assert flow[0] == pytest.approx(50.0, rel=1e-6)
    assert tmax[0] == delay


@pytest.mark.parametrize("knot", MEMBERS)
def test_curves_of_an_exponential_residue_solve_the_equation_of_one_compartment(knot):
    """Over each step the rise is the inflow, the dispersed AIF, less C / MTT; to a thousandth of the inflow's peak."""
    mtt, scale = kinetics.MTT_KNOTS[knot], kinetics.DISPERSION_KNOTS[0]
    curves, t = bank(BOLUS, "exponential"), kinetics.times()
    kernel = t * np.exp(-t / scale)
    inflow = np.convolve(curves.aif, kernel / kernel.sum())[: len(t)]
    tissue = curves.curves[knot, 0]
    balance = np.diff(tissue) / kinetics.STEP - (inflow[1:] - (tissue[1:] + tissue[:-1]) / 2 / mtt)
    assert np.abs(balance).max() < 1e-3 * inflow.max()


def test_zeroing_frequencies_is_truncating_singular_values_of_the_circulant_matrix():
    """100 random curves against the explicit SVD; 1e-4 relative."""
    random, frames, dt = np.random.default_rng(1), 30, 1.5
    aif = np.interp(np.arange(frames) * dt, kinetics.times(), kinetics.arterial(BOLUS))
    curves = random.random((100, frames))
    padded = np.concatenate([aif, np.zeros(frames)])
    matrix = dt * np.stack([np.roll(padded, shift) for shift in range(2 * frames)], axis=1)
    u, values, vt = np.linalg.svd(matrix)
    kept = values > kinetics.THRESHOLD * values.max()
    inverse = vt.T[:, kept] @ np.diag(1 / values[kept]) @ u.T[kept]
    residues = np.concatenate([curves, np.zeros_like(curves)], axis=1) @ inverse.T
    flow, _ = block_circulant(curves, aif, dt, finer=1)
    expected = residues[:, :frames].max(axis=1) * 6000.0 * kinetics.HAEMATOCRIT_FACTOR / kinetics.DENSITY
    assert flow == pytest.approx(expected, rel=1e-4)


def test_a_console_finds_too_little_flow_and_a_later_tmax_for_longer_transit():
    printed = console(BOLUS, "exponential")
    flow, late, peak = printed.read(np.array([3.0, 6.0, 12.0]), np.full(3, 0.5))
    assert (flow < 1.0).all()
    assert (np.diff(late) > 0).all()
    assert (np.diff(peak) > 0).all()
