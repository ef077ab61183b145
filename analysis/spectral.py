"""What all energies say together: few spectral components, whose absorption and phase obey Kramers–Kronig."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ptychrome.analysis.kramers_kronig import kramers_kronig_operator
from ptychrome.analysis.normalise import absorbance_of, phase_of
from ptychrome.analysis.optics import wavelength_m
from ptychrome.analysis.options import Options
from ptychrome.analysis.scan import DataError

Float = NDArray[np.float64]
FEWEST_ENERGIES = 8
LARGEST_RANK = 12


class SpectralOptions(Options):
    """The spectral model.

    Attributes
    ----------
    low_rank : bool
        Whether the spectra are sums of few components.
    rank : int or None
        Their number; None: as many as stand out of the noise.
    kramers_kronig : bool
        Whether absorption and phase of each component must belong together.
    phase_weight : float
        Weight of the phase beside the absorption; its errors of long period are larger than its noise.
    """

    low_rank: bool = True
    rank: Annotated[int, Field(ge=1, le=40)] | None = None
    kramers_kronig: bool = True
    phase_weight: Annotated[float, Field(gt=0, le=1)] = 1.0


@dataclass(frozen=True)
class SpectralModel:
    """Spectra of all pixels of a particle as sums of few components.

    Attributes
    ----------
    log_object : (n_energy, ny, nx) complex64
        ln O of the model; 0 outside of the particle.
    rank : int
        Components in use.
    strength : (n,) float64
        Singular values of all components, in units of what noise alone would give; those above 1 stand out.
    residual : (ny, nx) float32
        rms over energies of what the model leaves, in units of its median over the particle: a rare state
        that the model lacks stands out. NaN outside.
    """

    log_object: NDArray[np.complex64]
    rank: int
    strength: Float
    residual: NDArray[np.float32]


def spectral_model(
    energy_eV: Float,
    obj: NDArray[np.complexfloating],
    particle: NDArray[np.bool_],
    element: str,
    options: SpectralOptions,
) -> SpectralModel:
    """Estimate the model from the images of all energies.

    ln O = −μt/2 + iφ of each pixel, 2 n numbers with equal noise, is projected on what a Kramers–Kronig pair
    can be and then on the strongest principal components.

    Parameters
    ----------
    energy_eV : (n_energy,) float64, eV
        Ascending.
    obj : (n_energy, ny, nx) complex
        Normalised and registered transmission.
    particle : (ny, nx) bool
        Pixels that hold matter.
    element : str
        Whose edge the scan covers.
    options : SpectralOptions

    Returns
    -------
    SpectralModel

    Raises
    ------
    DataError
        If there are too few energies or pixels.
    """
    n, pixels = len(energy_eV), int(particle.sum())
    if n < FEWEST_ENERGIES or pixels < 2 * n:
        raise DataError(
            f"{n} energies and {pixels} pixels of matter; a spectral model needs {FEWEST_ENERGIES} energies "
            "and 2 pixels for each"
        )
    weight = np.concatenate([np.ones(n), np.full(n, options.phase_weight)])
    data = np.concatenate([absorbance_of(obj[:, particle]) / 2, -phase_of(obj[:, particle])]).T * weight
    allowed = (
        kramers_kronig_projector(energy_eV, element, weight) if options.kramers_kronig else np.eye(2 * n)
    )
    left, values, right = np.linalg.svd(data @ allowed, full_matrices=False)
    strength = values / _noise_edge(data @ allowed, values)
    rank = options.rank or int(np.clip(np.sum(strength > 1), 1, LARGEST_RANK))
    if not options.low_rank:
        rank = len(values)
    fitted = (left[:, :rank] * values[:rank]) @ right[:rank]
    left_over = np.sqrt(np.mean((data - fitted) ** 2, axis=1))
    log_object = np.zeros(obj.shape, np.complex64)
    log_object[:, particle] = -(fitted[:, :n] + 1j * fitted[:, n:] / options.phase_weight).T
    residual = np.full(particle.shape, np.nan, np.float32)
    residual[particle] = left_over / np.median(left_over)
    return SpectralModel(log_object, rank, strength, residual)


def kramers_kronig_projector(energy_eV: Float, element: str, weight: Float | None = None) -> Float:
    """Projector on all (−ln|O|, −φ) spectra that an absorbing element's Kramers–Kronig relation allows.

    With F″ = Σ N f″ and F′ = Σ N (Z + f′): −ln|O| = r_e λ F″ and −φ = r_e λ (K F″ + N₀ + N c), where K and c
    are those of `kramers_kronig_operator`, N the areal density of the element and N₀ that of all else.

    Parameters
    ----------
    energy_eV : (n,) float64, eV
    element : str
    weight : (2 n,) float64, optional
        Of each number in the least-squares sense.

    Returns
    -------
    (2 n, 2 n) float64
        Symmetric; multiplies weighted spectra from the right.
    """
    matrix, table = kramers_kronig_operator(energy_eV, element)
    n = len(energy_eV)
    wavelength = wavelength_m(energy_eV) / wavelength_m(energy_eV[0])
    basis = np.zeros((2 * n, n + 2))
    basis[:n, :n] = np.diag(wavelength)
    basis[n:, :n] = wavelength[:, None] * matrix
    basis[n:, n] = wavelength
    basis[n:, n + 1] = wavelength * table
    if weight is not None:
        basis *= weight[:, None]
    orthonormal, _ = np.linalg.qr(basis)
    return orthonormal @ orthonormal.T


def _noise_edge(data: Float, values: Float) -> float:
    """Largest singular value that noise alone gives: the edge of the Marchenko–Pastur law.

    The noise is that of the weaker half of the values that are not zero.
    """
    rank = int(np.sum(values > 1e-9 * values[0]))
    pixels = len(data)
    weak = values[rank // 2 : rank]
    sigma = np.sqrt(np.mean(weak**2) / pixels)
    # the weaker half of the spectrum holds less than its share: matched to the law for rank ≪ pixels
    return float(1.15 * sigma * (np.sqrt(pixels) + np.sqrt(rank)))
