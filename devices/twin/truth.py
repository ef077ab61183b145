"""What the chemical maps ought to be: for scoring, and only there.

Edge energy and pre-edge ratio are what eq. (1) of the paper gives for the noise-free spectrum of each pixel,
so that neither gradients nor the shortcomings of eq. (1) count as errors of a reconstruction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.optimize import least_squares
from scipy.special import erf

from ptychrome.devices.twin.particle import ParticleShape, particle_shape
from ptychrome.devices.twin.states import (
    CLASSICAL_ELECTRON_RADIUS_M,
    EDGE_STEP,
    ChemicalState,
    scattering_factors,
    wavelength_m,
)

Float = NDArray[np.float64]

SAMPLING_M = 6e-9  # a pixel is averaged over points no farther apart than this
LEAST_SHARE = 0.01  # pixels thinner than this share of the thickest are outside
# Parameters of eq. (1): a, b1, b2, b3, c11, c12, c13, c21, c22, c23; energies relative to ORIGIN_EV.
ORIGIN_EV = 5470.0
START = np.array([0.15, 1.0, 8.0, 3.0, 0.4, -2.7, 1.2, 0.4, 15.0, 5.0])


@dataclass(frozen=True)
class Truth:
    """True maps of one particle; NaN (label −1, border 0) outside of it.

    Attributes
    ----------
    pixel_m : float
    y_m, x_m : (ny,), (nx,) float64, m
        Sample coordinates of rows and columns, CXI frame, descending.
    states : tuple of str
        Names of the states, by label.
    edge_energy : (ny, nx) float64, eV
        b2 of eq. (1).
    pre_edge_ratio : (ny, nx) float64, eV
        PE/Δμt of eq. (1).
    edge_jump : (ny, nx) float64
        Δμt = 2 r_e λ Δf″ N_V with Δf″ = 3.53, λ at the edge energy.
    n_v : (ny, nx) float64, m⁻²
        Areal density of vanadium.
    n_eff : (ny, nx) float64, m⁻²
        Re[N_eff] at the lowest energy.
    n_eff_ratio : (ny, nx) float64
        Re[N_eff]/N_V.
    label : (ny, nx) int32
        The state with the majority of V.
    border_m : (ny, nx) float64, m
        Distance from the pixel's centre to the nearest pixel of another state; infinite if there is none.
    """

    pixel_m: float
    y_m: Float
    x_m: Float
    states: tuple[str, ...]
    edge_energy: Float
    pre_edge_ratio: Float
    edge_jump: Float
    n_v: Float
    n_eff: Float
    n_eff_ratio: Float
    label: NDArray[np.int32]
    border_m: Float


@lru_cache(maxsize=16)
def particle_truth(name: str, seed: int, pixel_m: float, energies_eV: tuple[float, ...]) -> Truth:
    """True maps of a particle on a grid of given pixel size.

    Parameters
    ----------
    name, seed :
        See `ptychrome.devices.twin.particle.particle_shape`.
    pixel_m : float
        Areal densities are averaged over such pixels before anything else is calculated.
    energies_eV : tuple of float, eV
        Energies of the scan, at least as many as eq. (1) has parameters.

    Returns
    -------
    Truth

    Raises
    ------
    ValueError
        If there are too few energies, one is outside the twin's window, or the particle is unknown.
    """
    if len(energies_eV) < len(START):
        raise ValueError(f"{len(energies_eV)} energies; expected at least {len(START)} to fit eq. (1)")
    shape = particle_shape(name, seed)
    axis, density = pixel_density(shape, pixel_m)
    n_v = density.sum(axis=0)
    inside = n_v > LEAST_SHARE * shape.peak_density
    energy = np.sort(np.array(energies_eV))
    share = (density[:, inside] / n_v[inside]).T
    parameters = fit_eq1(energy, share, shape.states)
    edge_energy = parameters[:, 2] + ORIGIN_EV
    pre_edge_ratio = np.pi * parameters[:, 4] * parameters[:, 6] / parameters[:, 1]
    n_eff_ratio = share @ scattering_factors(shape.states, energy[0])[:, 0].real
    edge_jump = 2 * CLASSICAL_ELECTRON_RADIUS_M * wavelength_m(edge_energy) * EDGE_STEP * n_v[inside]

    def painted(values: Float) -> Float:
        image = np.full(inside.shape, np.nan)
        image[inside] = values
        return image

    label = np.where(inside, density.argmax(axis=0), -1).astype(np.int32)
    return Truth(
        pixel_m,
        axis,
        axis,
        tuple(state.name for state in shape.states),
        painted(edge_energy),
        painted(pre_edge_ratio),
        painted(edge_jump),
        painted(n_v[inside]),
        painted(n_eff_ratio * n_v[inside]),
        painted(n_eff_ratio),
        label,
        border_distance(label, pixel_m),
    )


def pixel_density(shape: ParticleShape, pixel_m: float) -> tuple[Float, Float]:
    """Areal densities averaged over the pixels of a square grid centred on the origin.

    Returns
    -------
    axis_m : (n,) float64, m
        Coordinate of rows and of columns, descending.
    density : (n_states, n, n) float64, m⁻²
    """
    half = int(np.ceil(shape.reach_m / pixel_m))
    axis = pixel_m * np.arange(half, -half - 1, -1, dtype=np.float64)
    points = int(np.ceil(pixel_m / SAMPLING_M))
    within = pixel_m * ((np.arange(points) + 0.5) / points - 0.5)
    fine = (axis[:, None] - within).ravel()
    density = shape.density(*np.meshgrid(fine, fine, indexing="ij"))
    blocks = density.reshape(len(shape.states), axis.size, points, axis.size, points)
    return axis, blocks.mean(axis=(2, 4))


def border_distance(label: NDArray[np.int32], pixel_m: float) -> Float:
    """Distance from each labelled pixel's centre to the edge of the nearest pixel with another label.

    Parameters
    ----------
    label : (ny, nx) int32
        −1 outside, which is no border.
    pixel_m : float

    Returns
    -------
    (ny, nx) float64, m
    """
    distance = np.zeros(label.shape)
    for state in np.unique(label[label >= 0]):
        here, elsewhere = label == state, (label >= 0) & (label != state)
        distance[here] = distance_transform_edt(~elsewhere)[here] - 0.5 if elsewhere.any() else np.inf
    return distance * pixel_m


def eq1(parameters: Float, energy: Float) -> tuple[Float, Float]:
    """Eq. (1) of the paper and its derivatives.

    Parameters
    ----------
    parameters : (n, 10) float64
        a, b1, b2, b3 and c1, c2, c3 of the pre-edge peak and of the white line.
    energy : (m,) float64, eV
        From the same origin as b2 and c2.

    Returns
    -------
    value : (n, m) float64
    derivative : (n, m, 10) float64
    """
    a, b1, b2, b3, *peaks = (column[:, None] for column in parameters.T)
    u = (energy - b2) / b3
    step = 0.5 * (1 + erf(u))
    slope = b1 * np.exp(-(u**2)) / np.sqrt(np.pi) / b3
    value = a + b1 * step
    columns = [np.ones_like(u), step, -slope, -slope * u]
    for c1, c2, c3 in (peaks[:3], peaks[3:]):
        v = (energy - c2) / c3
        lorentzian = 1 / (1 + v**2)
        value = value + c1 * lorentzian
        steep = 2 * c1 * v * lorentzian**2 / c3
        columns += [lorentzian, steep, steep * v]
    return value, np.stack(columns, axis=-1)


def fit_eq1(energy_eV: Float, share: Float, states: tuple[ChemicalState, ...]) -> Float:
    """Least-squares fit of eq. (1) to the noise-free spectra of mixtures of states.

    Parameters
    ----------
    energy_eV : (m,) float64, eV
    share : (n, n_states) float64
        Share of V in each state, rows adding up to 1.
    states : tuple of ChemicalState

    Returns
    -------
    (n, 10) float64
        Parameters of `eq1`, in units of 2 r_e λ N_V Δf″ at each energy, energies from `ORIGIN_EV`.
    """
    energy = energy_eV - ORIGIN_EV
    wavelength = ORIGIN_EV / energy_eV  # μt = 2 r_e λ Σ N f″
    pure = scattering_factors(states, energy_eV).imag * wavelength / EDGE_STEP
    starts = [
        least_squares(
            lambda p, spectrum=spectrum: eq1(p[None], energy)[0][0] - spectrum,
            START,
            jac=lambda p: eq1(p[None], energy)[1][0],
            method="lm",
        ).x
        for spectrum in pure
    ]
    return levenberg_marquardt(lambda p: eq1(p, energy), share @ pure, share @ np.array(starts))


def levenberg_marquardt(
    model: Callable[[Float], tuple[Float, Float]], data: Float, start: Float, iterations: int = 60
) -> Float:
    """Many small least-squares problems at once.

    Parameters
    ----------
    model : callable
        (n, p) parameters → (n, m) values and (n, m, p) derivatives.
    data : (n, m) float64
    start : (n, p) float64
    iterations : int
        At most; it stops when no problem improves by more than 1e-6 of its cost.

    Returns
    -------
    (n, p) float64
    """
    best = start.copy()
    value, derivative = model(best)
    residual = data - value
    cost = np.sum(residual**2, axis=1)
    damping = np.full(len(data), 1e-3)
    for _ in range(iterations):
        normal = np.swapaxes(derivative, 1, 2) @ derivative
        diagonal = np.einsum("nii->ni", normal)  # a view
        diagonal *= 1 + damping[:, None]
        gradient = np.einsum("nmp,nm->np", derivative, residual)
        trial = best + np.linalg.solve(normal, gradient[..., None])[..., 0]
        value, slopes = model(trial)
        trial_cost = np.sum((data - value) ** 2, axis=1)
        better = trial_cost < cost
        gain = np.where(better, cost - trial_cost, 0.0)
        damping = np.where(better, damping / 5, damping * 8)
        best[better], derivative[better] = trial[better], slopes[better]
        residual[better] = (data - value)[better]
        finished = gain <= 1e-6 * cost
        cost = np.where(better, trial_cost, cost)
        if np.all(finished & better):
            break
    return best
