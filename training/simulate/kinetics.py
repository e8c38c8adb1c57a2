"""From flow to enhancement and back: the arterial bolus, residue functions, tissue curves, and what a console prints.

C(t) = (rho / kH) * CBF / 6000 * (AIF * R)(t - delay), with R(0) = 1 and its integral the MTT, so CBV = CBF * MTT / 60.
Operational tables say what a noise-free deconvolution (bSVD) finds for each MTT and dispersion: flow too low, and a
Tmax that grows with the MTT.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage, special

from training.simulate.params import Bolus, Residue

DENSITY = 1.04  # g/ml of brain
HAEMATOCRIT_FACTOR = (1 - 0.45) / (1 - 0.25)  # kH, large against small vessels
STEP, DURATION = 0.1, 110.0  # s
MTT_KNOTS = np.concatenate([np.arange(1.0, 8.0, 0.5), np.arange(8.0, 25.0, 1.0)])  # s
DISPERSION_KNOTS = np.array([0.3, 0.8, 1.3, 1.8, 2.4])  # s, scale of the gamma kernel
LONGEST_MTT = float(MTT_KNOTS[-1])
VENOUS_DELAY = 3.0  # s
VENOUS_MTT = 4.0  # s
FRAME, FRAMES = 1.5, 45  # s, of the reference console
THRESHOLD = 0.2  # of the largest singular value, below which bSVD drops


def _gamma_family(u: np.ndarray) -> np.ndarray:
    """Transit times spread as a gamma distribution of shape 3 and mean 1."""
    survival: np.ndarray = special.gammaincc(3.0, 3.0 * u)
    return survival


def _fermi(u: np.ndarray) -> np.ndarray:
    """A plateau with a smooth shoulder; the place of the shoulder makes the integral 1."""
    steepness, shoulder = 4.0, 0.9752
    fermi: np.ndarray = (1 + np.exp(-steepness * shoulder)) / (1 + np.exp(steepness * (u - shoulder)))
    return fermi


# R as a function of t / MTT, 1 at 0, with integral 1.
RESIDUES: Mapping[Residue, Callable[[np.ndarray], np.ndarray]] = {
    "exponential": lambda u: np.exp(-u),
    "box": lambda u: (u < 1.0).astype(float),
    "fermi": _fermi,
    "gamma": _gamma_family,
}


def times() -> np.ndarray:
    """(n,) s: the fine time axis of every curve here; 0 is the first frame."""
    return np.arange(0.0, DURATION, STEP)


def arterial(bolus: Bolus) -> np.ndarray:
    """(n,) HU on `times()`: a gamma variate and its recirculation 9 s later, spread by 14 s."""
    t = times()
    since = np.clip(t - bolus.arrival, 0.0, None)
    peak = bolus.shape * bolus.scale
    first = since**bolus.shape * np.exp(-since / bolus.scale) / (peak**bolus.shape * np.exp(-bolus.shape))
    spread = np.convolve(first, np.exp(-t / 14.0))[: len(t)] * STEP / 10.0
    enhancement: np.ndarray = bolus.peak * (first + 0.16 * np.interp(t - 9.0, t, spread, left=0.0))
    return enhancement


@dataclass(frozen=True, eq=False)
class Bank:
    """Curves of unit flow for all knots of MTT and dispersion.

    aif: (times,) HU. curves: (MTT, dispersion, times) HU s, the AIF convolved with the dispersed residue.
    venous: (times,) HU.
    """

    aif: np.ndarray
    curves: np.ndarray
    venous: np.ndarray


def places(mtt: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    """(2, ...) fractional indices of MTT and dispersion in s into the knots."""
    m = np.interp(mtt, MTT_KNOTS, np.arange(len(MTT_KNOTS)))
    return np.stack([m, np.interp(dispersion, DISPERSION_KNOTS, np.arange(len(DISPERSION_KNOTS)))])


@lru_cache(maxsize=4)
def bank(bolus: Bolus, residue: Residue) -> Bank:
    """The curves of one patient."""
    t, aif = times(), arterial(bolus)
    size = 4096  # more than twice as long as the curves, so that nothing wraps
    spectrum = np.fft.rfft(aif, size)
    residues = np.fft.rfft(np.stack([_cell_mean(residue, mtt) for mtt in MTT_KNOTS]), size)
    kernels = np.fft.rfft(np.stack([_dispersing(scale) for scale in DISPERSION_KNOTS]), size)
    curves = np.fft.irfft(spectrum * residues[:, None] * kernels[None], size)[..., : len(t)] * STEP
    normal = np.interp(VENOUS_MTT, MTT_KNOTS, np.arange(len(MTT_KNOTS)))
    venous = np.interp(t - VENOUS_DELAY, t, curves[round(float(normal)), 2] / VENOUS_MTT, left=0.0)
    return Bank(aif, curves, venous)


def _cell_mean(residue: Residue, mtt: float) -> np.ndarray:
    """R on `times()`, each value the mean over its step, so that sums are integrals even for the box."""
    inner = (np.arange(10) + 0.5) / 10 * STEP
    values: np.ndarray = RESIDUES[residue]((times()[:, None] + inner) / mtt).mean(axis=1)
    return values


def _dispersing(scale: float) -> np.ndarray:
    """A gamma kernel of shape 2 and mean 2 * scale seconds, with sum 1."""
    kernel = times() * np.exp(-times() / scale)
    normalised: np.ndarray = kernel / kernel.sum()
    return normalised


@dataclass(frozen=True, eq=False)
class Console:
    """What a noise-free console prints, by MTT and dispersion: tables on the knots.

    flow: found CBF over true CBF. late: s added to the delay in Tmax. peak: s from delay to the peak of the curve.
    """

    flow: np.ndarray
    late: np.ndarray
    peak: np.ndarray

    def read(self, mtt: np.ndarray, dispersion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """flow, late and peak for arrays of MTT and dispersion in s."""
        where = places(mtt, dispersion).reshape(2, -1)
        flow, late, peak = (
            ndimage.map_coordinates(table, where, order=1).reshape(np.shape(mtt)).astype(np.float32)
            for table in (self.flow, self.late, self.peak)
        )
        return flow, late, peak


@lru_cache(maxsize=4)
def console(bolus: Bolus, residue: Residue) -> Console:
    """The tables of one patient, made by deconvolving the bank itself at the reference frame rate."""
    curves, t = bank(bolus, residue), times()
    frames = np.arange(FRAMES) * FRAME
    aif = np.interp(frames, t, curves.aif)
    shift = 2.0  # s: keeps the earliest maximum away from time 0
    unit = DENSITY / HAEMATOCRIT_FACTOR * 100.0 / 6000.0  # CBF 100 ml/100 g/min
    flat = curves.curves.reshape(-1, len(t)) * unit
    sampled = np.stack([np.interp(frames - shift, t, curve, left=0.0) for curve in flat])
    flow, tmax = block_circulant(sampled, aif, FRAME)
    shape = curves.curves.shape[:2]
    return Console((flow / 100.0).reshape(shape), (tmax - shift).reshape(shape), t[curves.curves.argmax(axis=-1)])


def block_circulant(curves: np.ndarray, aif: np.ndarray, dt: float, finer: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """CBF in ml/100 g/min and Tmax in s of curves (n, frames) in HU by block-circulant SVD.

    A circulant matrix is normal, so dropping singular values is zeroing bins of its discrete Fourier transform.
    """
    frames = len(aif)
    size = 2 * frames
    spectrum = np.fft.rfft(aif, size)
    kept = np.abs(spectrum) > THRESHOLD * np.abs(spectrum).max()
    inverse = np.where(kept, 1.0 / np.where(kept, spectrum, 1.0), 0.0) / dt
    residues = np.fft.irfft(np.fft.rfft(curves, size) * inverse, size * finer)[:, : frames * finer] * finer
    flow: np.ndarray = residues.max(axis=1) * 6000.0 * HAEMATOCRIT_FACTOR / DENSITY
    tmax: np.ndarray = residues.argmax(axis=1) * (dt / finer)
    return flow, tmax
