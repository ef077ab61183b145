"""Where the focus is: a reconstructed probe propagated to its waists."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, optimize

from ptychrome.analysis.optics import wavelength_m
from ptychrome.analysis.scan import DataError

Float = NDArray[np.float64]
REACH_M = 2e-3
STEP_M = 50e-6  # of the search; a tenth of the depth of a 300 nm focus in the tender range
PRECISION_M = 0.1e-6


@dataclass(frozen=True)
class Focus:
    """The waists of a probe, one for each mirror of a Kirkpatrick–Baez pair.

    Attributes
    ----------
    defocus_m : (float, float)
        Distance of the sample downstream of the focus in y and in x, m.
    fwhm_m : (float, float)
        Full width at half maximum of the intensity's projection on y and on x, each at its waist, m.
    """

    defocus_m: tuple[float, float]
    fwhm_m: tuple[float, float]


def focus_of(
    probe: NDArray[np.complexfloating],
    pixel_m: tuple[float, float],
    energy_eV: float,
    *,
    reach_m: float = REACH_M,
) -> Focus:
    """Propagate a probe to where it is sharpest, in y and x each for itself.

    The far field is multiplied by exp(iπλ(z_y q_y² + z_x q_x²)), and Σ|probe|⁴ is maximised over z_y and z_x
    (Muller & Buffington, J. Opt. Soc. Am. 64, 1200 (1974): the sum of squared intensities has its maximum
    where there is no aberration).

    Parameters
    ----------
    probe : (ny, nx) complex
        At the sample.
    pixel_m : (float, float)
        Along rows and columns, m.
    energy_eV : float
    reach_m : float
        How far up- and downstream the focus is looked for.

    Returns
    -------
    Focus

    Raises
    ------
    DataError
        If the probe is not an image of finite numbers, or is not sharpest within the reach.
    """
    wave = np.asarray(probe, dtype=np.complex128)
    if wave.ndim != 2 or not np.isfinite(wave).all() or not wave.any():
        raise DataError(f"probe {wave.shape}; expected an image of finite numbers, not all of them 0")
    power = float(np.sum(np.abs(wave) ** 2))
    spectrum = fft.fft2(wave / np.sqrt(power))
    wavelength = float(wavelength_m(energy_eV))
    curvature = [
        np.pi * wavelength * fft.fftfreq(n, pixel) ** 2 for n, pixel in zip(wave.shape, pixel_m, strict=True)
    ]

    def intensity(defocus_m: Float) -> Float:
        y, x = (np.exp(1j * z * each) for z, each in zip(defocus_m, curvature, strict=True))
        return np.abs(fft.ifft2(spectrum * y[:, None] * x)) ** 2

    def blur(defocus_m: Float) -> float:
        return -float(np.sum(intensity(defocus_m) ** 2))

    tried = np.arange(-reach_m, reach_m + STEP_M / 2, STEP_M)
    start = tried[np.argmin([blur(np.array([z, z])) for z in tried])]
    simplex = start + STEP_M * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = optimize.minimize(
        blur,
        simplex[0],
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": PRECISION_M, "fatol": 0.0, "maxfev": 400},
    ).x
    if np.abs(found).max() > reach_m:
        raise DataError(f"no focus within {reach_m * 1e3:g} mm of the sample; search farther or scan nearer")
    sharp = intensity(found)
    widths = [_fwhm(sharp.sum(axis=1 - axis)) * pixel_m[axis] for axis in (0, 1)]
    return Focus((float(found[0]), float(found[1])), (widths[0], widths[1]))


def _fwhm(profile: Float) -> float:
    """Full width at half maximum, in points, interpolated linearly; the profile is periodic."""
    centred = np.roll(profile, len(profile) // 2 - int(np.argmax(profile)))
    half, middle = centred.max() / 2, len(profile) // 2
    edges = []
    for side in (centred[middle:], centred[middle::-1]):
        outside = int(np.argmax(side < half))  # the maximum itself is not
        edges.append(outside - (half - side[outside]) / (side[outside - 1] - side[outside]))
    return float(sum(edges))
