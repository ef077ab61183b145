"""The probe of the Kirkpatrick–Baez mirrors: separable, exact at any position, with its wide tails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from ptychrome.devices.twin.states import wavelength_m

Complex = NDArray[np.complex128]
Float = NDArray[np.float64]

FWHM_TIMES_APERTURE = 0.886  # of sinc², the focus of a slit
QUADRATURE_POINTS = 512  # the trapezoidal rule repeats the probe every 512 / (1.6 aperture) > 90 µm


@dataclass(frozen=True)
class KBProbe:
    """Focus of a soft-edged rectangular aperture, fixed in angle because mirrors are achromatic.

    The far field of the probe is its aperture a(q_y)·a(q_x), with
    a(q) = ½[1 + erf((q_h − |q|)/(s q_h))]·exp(−iπ λ z q²), q_h = 0.886 / (2 FWHM(E)) the half aperture in
    cycles/m and z the defocus.

    Attributes
    ----------
    fwhm_m : float
        Intensity FWHM of the focus at `fwhm_energy_eV`; it scales with the wavelength.
    fwhm_energy_eV : float
    defocus_m : float
        Distance of the sample downstream of the focus, m.
    softness : float
        Width of each edge of the aperture as a fraction s of its full width; not 0.
    """

    fwhm_m: float = 300e-9
    fwhm_energy_eV: float = 5420.0
    defocus_m: float = 0.4e-3
    softness: float = 0.1

    def half_aperture(self, energy_eV: float) -> float:
        """Half width of the aperture at the sample, cycles/m."""
        return FWHM_TIMES_APERTURE / (2 * self.fwhm_m) * energy_eV / self.fwhm_energy_eV

    def reach(self, energy_eV: float) -> float:
        """Beyond this, ± cycles/m, the far field of the probe is nothing."""
        return self.half_aperture(energy_eV) * (1 + 6 * self.softness)  # erf(6) = 1 in float64

    def aperture(self, q: Float, energy_eV: float) -> Complex:
        """One factor of the far field, ∫|a|² dq = 1.

        Parameters
        ----------
        q : (n,) float64, cycles/m
        energy_eV : float

        Returns
        -------
        (n,) complex128, √m
        """
        support, step = self._support(energy_eV)
        norm = np.sqrt(np.sum(self._edges(support, energy_eV) ** 2) * step)
        phase = -np.pi * wavelength_m(energy_eV) * self.defocus_m * q**2
        return self._edges(q, energy_eV) / norm * np.exp(1j * phase)

    def factors(self, coordinates_m: Float, energy_eV: float) -> ProbeFactors:
        """Prepare one factor of the probe on given coordinates, for any position of its centre."""
        q, step = self._support(energy_eV)
        spectrum = self.aperture(q, energy_eV) * step
        return ProbeFactors(q, spectrum * np.exp(2j * np.pi * np.outer(coordinates_m, q)))

    def _edges(self, q: Float, energy_eV: float) -> Float:
        half = self.half_aperture(energy_eV)
        return 0.5 * (1 + erf((half - np.abs(q)) / (self.softness * half)))

    def _support(self, energy_eV: float) -> tuple[Float, float]:
        reach = self.reach(energy_eV)
        q = np.linspace(-reach, reach, QUADRATURE_POINTS)
        return q, float(q[1] - q[0])


@dataclass(frozen=True)
class ProbeFactors:
    """One factor of the probe, p(x − c) = ∫ a(q) exp(2πi q (x − c)) dq, by quadrature.

    Attributes
    ----------
    q : (m,) float64, cycles/m
    kernel : (n, m) complex128
        Integrand at the n coordinates for c = 0, times the step of q.
    """

    q: Float
    kernel: Complex

    def at(self, centre_m: float) -> Complex:
        """The factor on the prepared coordinates with its centre at `centre_m`: (n,) complex128, 1/√m."""
        return self.kernel @ np.exp(-2j * np.pi * self.q * centre_m)
