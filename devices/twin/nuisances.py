"""What makes a beamline real: drifts, jitter, noise and faults, each with a named size and an off switch."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Nuisances:
    """Sizes of all nuisances; 0 (or False) switches one off, `Nuisances.none` all.

    Attributes
    ----------
    energy_drift_m : float
        rms step of the sample, per axis, from one energy to the next.
    energy_drift_limit_m : float
        The sum of these steps stays within ± this.
    slow_drift_m : float
        Amplitude of the drift with time, per axis.
    position_error_m : float
        rms error of each position, per axis; the readback does not show it.
    i0_fluctuation : float
        Relative rms of the incident intensity from frame to frame.
    i0_noise : float
        Relative rms error of the i0 monitor.
    ring_decay : float
        Share of the ring current lost between two top-ups.
    defocus_error_m : float
        By how much the nominal defocus exceeds the true one.
    energy_offset_eV : float
        By how much the true energy exceeds the monochromator's.
    poisson : bool
        Photon noise; otherwise expected counts are rounded.
    pixel_integration : bool
        Whether a detector pixel integrates over its area; otherwise it samples its centre.
    detector_gap : bool
        Dead rows between the modules.
    dead_pixels : int
        How many single pixels are dead.
    count_rate_ceiling_hz : float
        Highest rate of a pixel, 1/s; infinite: never saturates.
    """

    energy_drift_m: float = 20e-9
    energy_drift_limit_m: float = 100e-9
    slow_drift_m: float = 3e-9
    position_error_m: float = 4e-9
    i0_fluctuation: float = 0.01
    i0_noise: float = 0.001
    ring_decay: float = 0.005
    defocus_error_m: float = 20e-6
    energy_offset_eV: float = 0.0
    poisson: bool = True
    pixel_integration: bool = True
    detector_gap: bool = True
    dead_pixels: int = 5
    count_rate_ceiling_hz: float = 2e6

    @classmethod
    def none(cls) -> Nuisances:
        """An ideal beamline."""
        return cls(
            energy_drift_m=0.0,
            slow_drift_m=0.0,
            position_error_m=0.0,
            i0_fluctuation=0.0,
            i0_noise=0.0,
            ring_decay=0.0,
            defocus_error_m=0.0,
            poisson=False,
            pixel_integration=False,
            detector_gap=False,
            dead_pixels=0,
            count_rate_ceiling_hz=np.inf,
        )


TOP_UP_S = 300.0  # time between two top-ups of the ring
FULL_CURRENT_MA = 100.0
RETURN = 0.9  # what remains of the offset after one energy: bounds the random walk
SLOW_PERIODS_S = (900.0, 2300.0)


class Disturbances:
    """The course of the nuisances, determined by (seed, sample) alone.

    Each kind has a random generator of its own, so switching one off leaves the others as they were. Drift
    between energies depends on how many energies were visited, slow drift and ring current on the
    simulated time, everything else on the number of exposures made.
    """

    def __init__(self, nuisances: Nuisances, seed: int, sample: str) -> None:
        self._nuisances = nuisances
        root = [seed, zlib.crc32(sample.encode())]
        self.photon_rng, self._position_rng, self._i0_rng, self._monitor_rng, self._drift_rng = (
            np.random.default_rng([*root, kind]) for kind in range(1, 6)
        )
        self._phases = np.random.default_rng([*root, 6]).uniform(0, 2 * np.pi, (2, len(SLOW_PERIODS_S)))
        self._offset_m = np.zeros(2)

    def next_energy(self) -> None:
        """The monochromator has moved on."""
        limit = self._nuisances.energy_drift_limit_m
        step = self._nuisances.energy_drift_m * self._drift_rng.standard_normal(2)
        self._offset_m = np.clip(RETURN * self._offset_m + step, -limit, limit)

    def sample_offset_m(self, clock_s: float) -> tuple[float, float]:
        """(x, y) by which the sample stands beside its readback in the next exposure."""
        slow = np.sin(2 * np.pi * clock_s / np.array(SLOW_PERIODS_S) + self._phases).mean(axis=1)
        jitter = self._nuisances.position_error_m * self._position_rng.standard_normal(2)
        x, y = self._offset_m + self._nuisances.slow_drift_m * slow + jitter
        return float(x), float(y)

    def ring_current_mA(self, clock_s: float) -> float:
        """Ring current: it decays and is topped up."""
        return FULL_CURRENT_MA * (1 - self._nuisances.ring_decay * ((clock_s % TOP_UP_S) / TOP_UP_S))

    def intensity(self) -> tuple[float, float]:
        """Relative incident intensity of the next exposure, and the relative error of its measurement."""
        fluctuation = 1 + self._nuisances.i0_fluctuation * self._i0_rng.standard_normal()
        return fluctuation, 1 + self._nuisances.i0_noise * self._monitor_rng.standard_normal()
