"""Far-field geometry and the calculated KB probe."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft
from scipy.special import erf

HC_EV_M = 12398.42e-10  # Planck's constant times the speed of light, eV m (physics.md)
CLASSICAL_ELECTRON_RADIUS_M = 2.8179403e-15
FWHM_TO_APERTURE = 0.886  # FWHM of sinc² in units of 1 / (full width of its rectangle)


def wavelength_m(energy_eV: ArrayLike) -> NDArray[np.float64]:
    """Photon wavelength in m of a photon energy in eV (any shape)."""
    return HC_EV_M / np.asarray(energy_eV, dtype=np.float64)


def pixel_size_m(
    energy_eV: float, distance_m: float, detector_pixel_m: tuple[float, float], shape: tuple[int, int]
) -> tuple[float, float]:
    """Pixel size of a far-field reconstruction, dx = λ z / (n p).

    Parameters
    ----------
    energy_eV : float
        Photon energy, eV.
    distance_m : float
        Sample to detector, m.
    detector_pixel_m : (float, float)
        Pitch of the detector along rows and columns, m.
    shape : (int, int)
        Rows and columns of a frame.

    Returns
    -------
    (float, float)
        Object pixel along rows and columns, m.
    """
    scale = float(wavelength_m(energy_eV)) * distance_m
    return scale / (shape[0] * detector_pixel_m[0]), scale / (shape[1] * detector_pixel_m[1])


def kb_probe(
    shape: tuple[int, int],
    pixel_m: tuple[float, float],
    energy_eV: float,
    *,
    fwhm_m: float,
    fwhm_energy_eV: float,
    defocus_m: float = 0.0,
    photons: float = 1.0,
    softness: float = 0.1,
) -> NDArray[np.complex64]:
    """Focus of a Kirkpatrick–Baez pair: the Fourier transform of a soft-edged rectangular aperture.

    The aperture is fixed in angle (mirrors are achromatic), so the focus width scales with the wavelength.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the probe array.
    pixel_m : (float, float)
        Object pixel along rows and columns, m.
    energy_eV : float
        Photon energy, eV.
    fwhm_m : float
        Intensity FWHM of the focus at `fwhm_energy_eV`, m.
    fwhm_energy_eV : float
        Energy at which the FWHM holds, eV.
    defocus_m : float
        Distance of the sample downstream of the focus, m.
    photons : float
        Sum of the probe's intensity, photons per frame.
    softness : float
        Width of each aperture edge as a fraction of the full aperture.

    Returns
    -------
    (ny, nx) complex64
        Wave in √photons, centred on pixel ``(ny // 2, nx // 2)``.
    """
    wavelength = float(wavelength_m(energy_eV))
    width = FWHM_TO_APERTURE / (fwhm_m * wavelength / float(wavelength_m(fwhm_energy_eV)))  # cycles/m
    axes = []
    for n, pixel in zip(shape, pixel_m, strict=True):
        q = fft.fftfreq(n, pixel)
        edge = softness * width / 2
        aperture = 0.5 * (1 + erf((width / 2 - np.abs(q)) / edge))
        axes.append(fft.fftshift(fft.ifft(aperture * np.exp(-1j * np.pi * wavelength * defocus_m * q**2))))
    probe = np.outer(axes[0], axes[1])
    return (probe * np.sqrt(photons / np.sum(np.abs(probe) ** 2))).astype(np.complex64)
