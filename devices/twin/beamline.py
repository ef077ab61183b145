"""The simulated beamline: energy, stage and shutter in, frames out.

The forward model is wider and finer than any reconstruction: the probe's far field is its aperture, exact
and unbounded; only what the particle changes, P·(O − 1), is transformed, over the particle's bounding box,
to several points within each detector pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from numpy.typing import NDArray

from ptychrome.devices.twin.detector import Eiger, eiger
from ptychrome.devices.twin.nuisances import FULL_CURRENT_MA, Disturbances, Nuisances
from ptychrome.devices.twin.optics import KBProbe, ProbeFactors
from ptychrome.devices.twin.particle import Particle, make_particle
from ptychrome.devices.twin.states import transmission, wavelength_m
from ptychrome.devices.twin.truth import Truth, particle_truth

Complex64 = NDArray[np.complex64]
Float = NDArray[np.float64]

DEFAULT_NUISANCES = Nuisances()
HIGHEST_EV = 5600.0  # the default object pixel is half the reconstruction's up to here


@dataclass(frozen=True)
class Exposure:
    """What one exposure measured.

    Attributes
    ----------
    counts : (ny, nx) uint32, photons
    i0 : float
        Incident photons as the monitor upstream of the sample counts them; 0 behind a closed shutter.
    ring_current_mA : float
    """

    counts: NDArray[np.uint32]
    i0: float
    ring_current_mA: float


@dataclass(frozen=True)
class _Axis:
    """Everything separable along one axis, at one energy.

    Attributes
    ----------
    q : (s n,) float64, cycles/m
        Points within the detector pixels; s blocks of n pixels.
    aperture : (s n,) complex64
        Far field of the probe times the root of each point's quadrature weight.
    transform : (s n, n_object) complex64
        Discrete Fourier transform from object pixels, with the same weights and the object pixel's width.
    probe : ProbeFactors
        On the object pixels.
    """

    q: Float
    aperture: Complex64
    transform: Complex64
    probe: ProbeFactors


class ForwardModel:
    """Expected frames of one particle at one energy.

    Parameters
    ----------
    particle : Particle
    probe : KBProbe
    detector : Eiger
    energy_eV : float
    points : int
        Gauss–Legendre points per detector pixel and axis; 1 is an ideal point pixel.
    """

    def __init__(
        self, particle: Particle, probe: KBProbe, detector: Eiger, energy_eV: float, points: int = 3
    ) -> None:
        self._shape = detector.shape
        self._points = points
        self._probe, self._detector, self._energy_eV = probe, detector, energy_eV
        self._y, self._x = (
            self._axis(axis, coordinates, particle.pixel_m)
            for axis, coordinates in enumerate((particle.y_m, particle.x_m))
        )
        change = transmission(particle.areal_density, particle.states, energy_eV) - 1
        self._change = change.astype(np.complex64)

    def _axis(self, axis: int, coordinates_m: Float, object_pixel_m: float) -> _Axis:
        count = self._detector.shape[axis]
        nodes, weights = np.polynomial.legendre.leggauss(self._points)
        pixels = np.arange(count) - count // 2 + nodes[:, None] / 2
        # Rows run along −y and columns along −x: hence the sign.
        pitch = self._detector.pixel_size_m[axis] / (
            wavelength_m(self._energy_eV) * self._detector.distance_m
        )
        q = -pitch * pixels.ravel()
        root = np.sqrt(pitch * np.repeat(weights / 2, count))
        aperture = root * self._probe.aperture(q, self._energy_eV)
        wave = np.exp(-2j * np.pi * np.outer(q, coordinates_m))
        transform = (root * object_pixel_m)[:, None] * wave
        return _Axis(
            q,
            aperture.astype(np.complex64),
            transform.astype(np.complex64),
            self._probe.factors(coordinates_m, self._energy_eV),
        )

    def expected(self, y_m: float, x_m: float) -> NDArray[np.float32]:
        """Share of the incident photons that each detector pixel receives.

        Parameters
        ----------
        y_m, x_m : float
            Where the probe's centre hits the sample, sample coordinates, m.

        Returns
        -------
        (ny, nx) float32
        """
        rows, columns = self._y, self._x
        probe_y = rows.probe.at(y_m).astype(np.complex64)
        probe_x = columns.probe.at(x_m).astype(np.complex64)
        exit_change = probe_y[:, None] * self._change * probe_x
        # The vacuum term is of rank one: one more column and row of the product.
        left = np.column_stack([rows.transform @ exit_change, _shifted(rows, y_m)])
        right = np.column_stack([columns.transform, _shifted(columns, x_m)])
        wave = left @ right.T
        squares = wave.view(np.float32)
        np.square(squares, out=squares)
        # Adding slices is ten times faster than ndarray.sum over axes this short.
        rows_done = reduce(np.add, np.split(squares, self._points, axis=0))
        power = reduce(np.add, np.split(rows_done, self._points, axis=1))
        return power[:, 0::2] + power[:, 1::2]

    def expected_in_motion(
        self, y_m: float, x_m: float, travel_m: tuple[float, float]
    ) -> NDArray[np.float32]:
        """Mean of `expected` over the way of the probe during an exposure at constant speed.

        I = (1/T) ∫ |F[P(r − c − v t) O(r)]|² dt, t from −T/2 to T/2: no interference between the moments of
        an exposure. As a function of the probe's place c a frame holds no frequency beyond the width of the
        aperture, so that few Gauss–Legendre points make the integral exact, however fine the object is.

        Parameters
        ----------
        y_m, x_m : float
            Where the probe's centre hits the sample in the middle of the exposure, m.
        travel_m : (float, float)
            Way (y, x) of the probe over the sample during the exposure, m.

        Returns
        -------
        (ny, nx) float32
        """
        nodes, weights = np.polynomial.legendre.leggauss(self._moments(travel_m))
        frames = (
            weight / 2 * self.expected(y_m + node / 2 * travel_m[0], x_m + node / 2 * travel_m[1])
            for node, weight in zip(nodes, weights, strict=True)
        )
        return reduce(np.add, frames).astype(np.float32)

    def _moments(self, travel_m: tuple[float, float]) -> int:
        """Points of the integral over the way of the probe."""
        if not any(travel_m):
            return 1
        width = 2 * self._probe.reach(self._energy_eV)
        return 2 + math.ceil(2 * width * math.hypot(*travel_m))


def _shifted(axis: _Axis, centre_m: float) -> Complex64:
    return axis.aperture * np.exp(-2j * np.pi * axis.q * centre_m).astype(np.complex64)


class TwinBeamline:
    """A beamline with one sample mounted.

    Set `energy_eV`, `stage_m`, `stage_velocity_m_s` and `shutter_open`, then `expose`. Everything that
    happens is determined by (seed, sample) and by the order of the calls (see `Disturbances`).

    Parameters
    ----------
    sample : str
        P1–P3, D1–D3, LiVO2, LiVO3, or V, a flake of the metal.
    seed : int
        Of the particle and of the nuisances.
    frame_pixels : int
        Rows and columns of a frame.
    object_pixel_m : float or None
        Pixel of the object in the forward model; None: half the pixel of a reconstruction.
    nuisances : Nuisances
    flux : float
        Photons per second at full ring current.

    Attributes
    ----------
    energy_eV : float
        What the monochromator believes it delivers.
    stage_m : (float, float)
        Translation (x, y) of the sample, CXI frame, m, as read back. The probe hits the sample at minus this.
    stage_velocity_m_s : (float, float)
        (x, y), m/s; a moving sample is at `stage_m` in the middle of an exposure.
    shutter_open : bool
    clock_s : float
        Simulated time: the sum of all exposures.
    detector : Eiger
    probe : KBProbe
        The true probe; for tests and scoring.
    particle : Particle
        The true sample; for tests and scoring.
    """

    def __init__(
        self,
        sample: str = "P1",
        *,
        seed: int = 0,
        frame_pixels: int = 128,
        object_pixel_m: float | None = None,
        nuisances: Nuisances = DEFAULT_NUISANCES,
        flux: float = 1e8,
    ) -> None:
        self.energy_eV = 5420.0
        self.stage_m = (0.0, 0.0)
        self.stage_velocity_m_s = (0.0, 0.0)
        self.shutter_open = True
        self.clock_s = 0.0
        self.sample = sample
        self.seed = seed
        self.nuisances = nuisances
        self.flux = flux
        self.detector = eiger(
            frame_pixels,
            gap=nuisances.detector_gap,
            dead_pixels=nuisances.dead_pixels,
            ceiling_hz=nuisances.count_rate_ceiling_hz,
            seed=seed,
        )
        self.probe = KBProbe()
        window = wavelength_m(HIGHEST_EV) * self.detector.distance_m / self.detector.pixel_size_m[0]
        self.particle = make_particle(sample, object_pixel_m or window / frame_pixels / 2, seed)
        self._disturbances = Disturbances(nuisances, seed, sample)
        self._model: tuple[float, ForwardModel] | None = None

    @cached_property
    def nominal_probe(self) -> KBProbe:
        """The probe as the beamline's staff know it; its defocus is off by a nuisance."""
        true = self.probe
        defocus = true.defocus_m + self.nuisances.defocus_error_m
        return KBProbe(true.fwhm_m, true.fwhm_energy_eV, defocus, true.softness)

    def truth(self, pixel_m: float, energies_eV: Iterable[float]) -> Truth:
        """True maps of the sample, for scoring.

        Parameters
        ----------
        pixel_m : float
            Pixel of the result to be scored, m.
        energies_eV : iterable of float, eV
            Energies of the scan.

        Returns
        -------
        Truth
        """
        return particle_truth(self.sample, self.seed, pixel_m, tuple(map(float, energies_eV)))

    def expose(self, exposure_s: float) -> Exposure:
        """Take one frame; of a moving sample, see `ForwardModel.expected_in_motion`.

        Parameters
        ----------
        exposure_s : float

        Returns
        -------
        Exposure

        Raises
        ------
        ValueError
            If the exposure time is not positive or the energy is not one of the V K-edge.
        """
        if not exposure_s > 0:
            raise ValueError(f"exposure_s is {exposure_s}; expected a positive time in s")
        model = self._forward_model()
        ring = self._disturbances.ring_current_mA(self.clock_s)
        offset_x, offset_y = self._disturbances.sample_offset_m(self.clock_s)
        fluctuation, monitor = self._disturbances.intensity()
        self.clock_s += exposure_s
        photons = self.flux * exposure_s * ring / FULL_CURRENT_MA * fluctuation if self.shutter_open else 0.0
        x_m, y_m = -(self.stage_m[0] + offset_x), -(self.stage_m[1] + offset_y)
        speed_x, speed_y = self.stage_velocity_m_s
        travel_m = (-speed_y * exposure_s, -speed_x * exposure_s)
        expected = photons * model.expected_in_motion(y_m, x_m, travel_m)
        rng = self._disturbances.photon_rng if self.nuisances.poisson else None
        counts = self.detector.read(expected, exposure_s, rng)
        return Exposure(counts, photons * monitor, ring)

    def _forward_model(self) -> ForwardModel:
        if self._model is None or abs(self._model[0] - self.energy_eV) > 1e-3:  # eV, far below the resolution
            energy = self.energy_eV + self.nuisances.energy_offset_eV
            points = 3 if self.nuisances.pixel_integration else 1
            self._model = (
                self.energy_eV,
                ForwardModel(self.particle, self.probe, self.detector, energy, points),
            )
            self._disturbances.next_energy()
        return self._model[1]
