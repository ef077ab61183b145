"""What all energies say together: few spectral components, whose absorption and phase obey Kramers–Kronig."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from ptychrome.analysis.kramers_kronig import kramers_kronig_operator
from ptychrome.analysis.normalise import absorbance_of, phase_of
from ptychrome.analysis.optics import wavelength_m
from ptychrome.analysis.options import Options
from ptychrome.analysis.scan import DataError
from ptychrome.analysis.similar import shared_among_similar

Float = NDArray[np.float64]
FEWEST_ENERGIES = 8
LARGEST_RANK = 12
EDGE_MARGIN = 5.0  # standard deviations of the largest singular value of noise
LARGEST_LEAK = 0.02  # of a component of matter, into what Kramers–Kronig forbids
NOTHING = 1e-7  # of the largest singular value: what is not there
SPARE = 1  # components more than stand out: one too few costs per cent, one too many a tenth of the noise
LOCAL_MARGIN = 1.4  # by which a place must exceed the worst place of what Kramers–Kronig forbids


class SpectralOptions(Options):
    """The spectral model.

    Attributes
    ----------
    low_rank : bool
        Whether the spectra are sums of few components.
    rank : int or None
        Their number; None: as many as stand out of noise and artefacts, and one more.
    kramers_kronig : bool
        Whether absorption and phase of each component must belong together.
    phase_weight : float
        Weight of the phase beside the absorption; its errors of long period are larger than its noise.
    reach_px : float
        Distance over which pixels that do not differ beyond noise share their composition, see
        `shared_among_similar`; 0: none.
    """

    low_rank: bool = True
    rank: Annotated[int, Field(ge=1, le=40)] | None = None
    kramers_kronig: bool = True
    phase_weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    reach_px: Annotated[float, Field(ge=0, le=10)] = 0.0


@dataclass(frozen=True)
class SpectralModel:
    """Spectra of all pixels of a particle as sums of few components.

    Attributes
    ----------
    log_object : (n_energy, ny, nx) complex64
        ln O of the model; 0 outside of the particle.
    rank : int
        Components in use.
    principal : int
        How many of them are principal components; the others are spectra of single places.
    strength : (n,) float64
        Singular values of the principal components of absorption and phase with equal weights, in units of
        what noise and artefacts would reach; the leading ones above 1 stand out.
    residual : (ny, nx) float32
        rms over energies of what the model leaves of a possible spectrum, in units of its median over the
        particle: a rare state that the model lacks stands out. Where the model has all components, of what
        is not possible. NaN outside.
    """

    log_object: NDArray[np.complex64]
    rank: int
    principal: int
    strength: Float
    residual: NDArray[np.float32]


def spectral_model(
    energy_eV: Float,
    obj: NDArray[np.complexfloating],
    particle: NDArray[np.bool_],
    element: str,
    options: SpectralOptions,
    most: int = LARGEST_RANK,
    spare: int = SPARE,
) -> SpectralModel:
    """Estimate the model from the images of all energies.

    ln O = −μt/2 + iφ of each pixel, 2 n numbers with equal noise, is projected on what a Kramers–Kronig pair
    can be and then on the strongest principal components, and on the spectra of places that these miss.

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
    most : int
        Principal components at most, where the data decide. Images that were pulled towards a model have
        lost the noise that the model lacks, not that which it has: more would seem to stand out.
    spare : int
        Principal components beyond those that stand out, where the data decide.

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
    spectra = np.concatenate([absorbance_of(obj[:, particle]) / 2, -phase_of(obj[:, particle])]).T

    def allowed(weight: Float) -> Float:
        if not options.kramers_kronig:
            return np.eye(2 * n)
        return kramers_kronig_projector(energy_eV, element, weight)

    principal, strength = _principal(spectra, spectra @ allowed(np.ones(2 * n)), options, most, spare)
    weight = np.concatenate([np.ones(n), np.full(n, options.phase_weight)])
    data = spectra * weight
    possible = data @ allowed(weight)
    basis = _components(possible, data - possible, particle, principal, options)
    coefficients = possible @ basis.T
    if options.reach_px > 0:
        coefficients = shared_among_similar(coefficients, particle, options.reach_px)
    fitted = coefficients @ basis
    left_over = np.sqrt(np.mean(((possible if options.low_rank else data) - fitted) ** 2, axis=1))
    log_object = np.zeros(obj.shape, np.complex64)
    log_object[:, particle] = -(fitted[:, :n] + 1j * fitted[:, n:] / options.phase_weight).T
    residual = np.full(particle.shape, np.nan, np.float32)
    if np.median(left_over) > 0:
        residual[particle] = left_over / np.median(left_over)
    return SpectralModel(log_object, len(basis), principal, strength, residual)


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


def _principal(
    data: Float, possible: Float, options: SpectralOptions, most: int, spare: int
) -> tuple[int, Float]:
    """How many principal components the model has, and the strength of all.

    Those that stand out of noise and artefacts, and a spare one: a component as strong as the artefacts may
    be a state.

    Absorption and phase have equal noise here and count equally, whatever weight the phase has in the model:
    only then is what Kramers–Kronig forbids as noisy as what it allows.
    """
    left, values, _ = _decomposed(possible)
    strength = values / _noise_edge(left, values, data - possible)
    if not options.low_rank:
        return len(values), strength
    return options.rank or int(np.clip(np.argmin(strength > 1) + spare, 1, most)), strength


def _components(
    possible: Float, forbidden: Float, particle: NDArray[np.bool_], principal: int, options: SpectralOptions
) -> Float:
    """Spectra (rank, 2 n), orthonormal, of the model.

    So many principal components; then, while a place of 3 × 3 pixels stands out of what they leave, the
    spectrum of that place: a rare state has a say of its own.
    """
    left, _, right = _decomposed(possible)
    basis, others = right[:principal], left[:, :principal]
    if options.rank is not None or not (options.low_rank and options.kramers_kronig):
        return basis
    _, usual = _standing_out(forbidden - others @ (others.T @ forbidden), particle)
    while len(basis) < LARGEST_RANK:
        rest = possible - possible @ basis.T @ basis
        place, height = _standing_out(rest, particle)
        if height <= LOCAL_MARGIN * usual:
            break
        basis = np.vstack([basis, _decomposed(rest[place])[2][:1]])
    return basis


def _decomposed(spectra: Float) -> tuple[Float, Float, Float]:
    """Left vectors, values and right vectors of a singular value decomposition.

    From the small matrix of inner products, several times faster; exact to `NOTHING` of the largest value.
    """
    squares, vectors = np.linalg.eigh(spectra.T @ spectra)
    right, values = vectors.T[::-1], np.sqrt(np.maximum(squares[::-1], 0))
    return spectra @ right.T / np.maximum(values, NOTHING * values[0]), values, right


def _standing_out(spectra: Float, particle: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], float]:
    """The 3 × 3 pixels with the largest rms: which of the spectra, and the rms in units of its median."""
    squares = np.zeros(particle.shape)
    squares[particle] = np.mean(spectra**2, axis=1)
    rms = np.sqrt(np.maximum(ndimage.uniform_filter(squares, 3, mode="constant"), 0))
    rms[~particle] = 0
    peak = np.zeros(particle.shape, bool)
    peak.flat[np.argmax(rms)] = True
    place = ndimage.binary_dilation(peak, np.ones((3, 3)))[particle]
    return place, float(rms.max() / max(np.median(rms[particle]), 1e-12))


def _noise_edge(left: Float, values: Float, forbidden: Float) -> Float:
    """Largest singular value that each component must exceed: what noise and artefacts alone would reach.

    What Kramers–Kronig forbids holds no matter, but as much noise, and of the errors of single energies about
    half: its largest singular value tells how strong such things get. The little that matter leaves there,
    because the relation is not exact, has the map of its own component and is taken out with it. Without the
    constraint the bulk of the values decides: Marchenko and Pastur, Math. USSR Sb. 1, 457 (1967).
    """
    pixels, rank = len(left), int(np.sum(values > NOTHING * values[0]))
    beta = rank / pixels
    # median of the law for rank < pixels / 2, within 1 %; components of matter among the values raise it
    bulk = np.median(values[:rank]) / np.sqrt(1 - beta / 3) * (1 + np.sqrt(beta))
    gram, shares = forbidden.T @ forbidden, left[:, :LARGEST_RANK].T @ forbidden
    edge = np.full(len(values), bulk)
    for place, (share, value) in enumerate(zip(shares, values, strict=False)):
        leak = min(1.0, (LARGEST_LEAK * value) ** 2 / max(share @ share, 1e-300))
        gram = gram - leak * np.outer(share, share)
        edge[place:] = max(bulk, np.sqrt(max(np.linalg.eigvalsh(gram)[-1], 0.0)))
    # Tracy and Widom, Commun. Math. Phys. 177, 727 (1996): the relative spread of a largest singular value
    spread = 0.63 * (pixels**-0.5 + rank**-0.5) ** (1 / 3) / (pixels**0.5 + rank**0.5)
    return edge * (1 + EDGE_MARGIN * spread)
