"""Data with a known truth for the benchmarks, and the figures by which a reconstruction is judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from ptychrome.analysis.engines import Reconstruction, start
from ptychrome.analysis.normalise import normalise
from ptychrome.analysis.optics import kb_probe
from ptychrome.analysis.resolution import align_ambiguities
from ptychrome.analysis.scan import DiffractionData, ScanGeometry, prepare
from ptychrome.devices.twin import TwinBeamline
from ptychrome.devices.twin.nuisances import Disturbances, Nuisances
from ptychrome.devices.twin.states import transmission
from ptychrome.plans import fermat, positions, square

ENERGY_EV, FWHM_M, STEP_M, DEFOCUS_M = 5540.0, 300e-9, 150e-9, 0.4e-3
LEAST_LIGHT = 0.1  # of the brightest object pixel: darker ones are not judged
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """One energy with its start and its truth.

    Attributes
    ----------
    data : DiffractionData
    guess : Reconstruction
        Object of unity, calculated probe.
    truth : (ny, nx) complex128
        On the object's pixels, without the frequencies that these cannot hold.
    """

    data: DiffractionData
    guess: Reconstruction
    truth: NDArray[np.complex128]


@dataclass(frozen=True)
class Difference:
    """Result against truth, on the truth's pixels.

    Attributes
    ----------
    absorbance, phase : (ny, nx) float64
        Of −ln|O| and of the phase, rad.
    vacuum, particle, flat : (ny, nx) bool
        Lit pixels outside the particle, inside it, and those inside it where its phase is flattest.
    object : (ny, nx) complex128
        The result, normalised and registered.
    """

    absorbance: NDArray[np.float64]
    phase: NDArray[np.float64]
    vacuum: Mask
    particle: Mask
    flat: Mask
    object: NDArray[np.complex128]


def plain(n: int, side: int, photons: float = 1e7, seed: int = 0) -> Case:
    """side² frames of n² with 15 nm pixels, a jittered raster and point pixels, by plain NumPy."""
    rng = np.random.default_rng(seed)
    pixel = 15e-9
    places = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2)
    places = places * STEP_M / pixel + rng.uniform(-2, 2, (side**2, 2))
    whole = np.floor(places + 0.5).astype(np.int64)
    corner = whole - whole.min(axis=0) + 2
    shape = tuple(fft.next_fast_len(int(v) + n + 2) for v in corner.max(axis=0))
    probe = kb_probe(
        (n, n),
        (pixel, pixel),
        ENERGY_EV,
        fwhm_m=FWHM_M,
        fwhm_energy_eV=5420.0,
        defocus_m=DEFOCUS_M,
        photons=photons,
    )
    truth = _texture(rng, shape)
    fraction = (places - whole).astype(np.float32)
    amplitude = np.stack([_frame(rng, truth, probe, c, f) for c, f in zip(corner, fraction, strict=True)])
    ones = np.ones(side**2, np.float32)
    data = DiffractionData(amplitude, corner, fraction, shape, photons, ones, (pixel, pixel))
    return Case(data, start(data, probe), truth)


def _texture(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.complex128]:
    blurred = [ndimage.gaussian_filter(rng.standard_normal(shape), 3, mode="wrap") for _ in range(2)]
    thickness, contrast = (np.clip(0.5 + 0.2 * v / v.std(), 0, 1) for v in blurred)
    return np.exp(-thickness * (0.1 * contrast + 0.8j))


def _frame(
    rng: np.random.Generator, truth: NDArray, probe: NDArray, corner: NDArray, fraction: NDArray
) -> NDArray[np.float32]:
    n = len(probe)
    moved = fft.ifft2(ndimage.fourier_shift(fft.fft2(probe.astype(np.complex128)), fraction))
    window = truth[corner[0] : corner[0] + n, corner[1] : corner[1] + n]
    intensity = np.abs(fft.fft2(moved * window, norm="ortho")) ** 2
    return np.sqrt(rng.poisson(intensity)).astype(np.float32)


def twin(
    integration: bool,
    raster: bool = False,
    width_m: float = 13 * STEP_M,
    photons: float = 1e8,
    draw: int = 0,
) -> Case:
    """One energy of the twin with photon noise alone, 128² frames of 30 nm pixels.

    The paper's raster, or a Fermat spiral of the same density, which leaves no trace of its grid. Another
    `draw` has other photons of the same particle.
    """
    nuisances = replace(Nuisances.none(), poisson=True, pixel_integration=integration)
    beamline = TwinBeamline("P1", nuisances=nuisances, flux=photons)
    beamline._disturbances = Disturbances(nuisances, draw, "P1")
    beamline.energy_eV = ENERGY_EV
    stage = positions((square if raster else fermat)(width_m, STEP_M))
    frames = []
    for x, y in stage:
        beamline.stage_m = (x, y)
        frames.append(beamline.expose(1.0).counts)
    detector, probe = beamline.detector, beamline.nominal_probe
    geometry = ScanGeometry(ENERGY_EV, detector.shape, detector.pixel_size_m, detector.distance_m)
    data = prepare(np.array(frames), geometry, stage[:, ::-1].copy(), mask=detector.mask)
    wide = kb_probe(
        tuple(2 * n for n in detector.shape),
        geometry.pixel_m,
        ENERGY_EV,
        fwhm_m=probe.fwhm_m,
        fwhm_energy_eV=probe.fwhm_energy_eV,
        defocus_m=probe.defocus_m,
        softness=probe.softness,
    )
    return Case(data, start(data, wide), _truth(beamline, data))


def _truth(beamline: TwinBeamline, data: DiffractionData) -> NDArray[np.complex128]:
    """The particle's transmission through the ideal low pass of the object's pixels."""
    particle = beamline.particle
    change = transmission(particle.areal_density, particle.states, ENERGY_EV) - 1
    kernels = [
        np.sinc((-(np.arange(n) - n // 2)[:, None] * pixel - fine) / pixel) * particle.pixel_m / pixel
        for n, pixel, fine in zip(data.object_shape, data.pixel_m, (particle.y_m, particle.x_m), strict=True)
    ]
    return 1 + kernels[0] @ change @ kernels[1].T


def difference(case: Case, result: Reconstruction) -> Difference:
    """A reconstruction of the twin, its vacuum set to one, against the truth."""
    truth, lit = case.truth, result.illumination > LEAST_LIGHT * result.illumination.max()
    matter = np.abs(truth - 1)
    vacuum = lit & ~ndimage.binary_dilation(matter > 0.03, iterations=5)
    level = normalise(result.object, lit, vacuum).object
    found, _ = align_ambiguities(level, truth, lit.astype(np.float64))
    found = _registered(found, truth, lit)
    ratio = found / truth
    particle = lit & ndimage.binary_erosion(matter > 0.1, iterations=3)
    slope = ndimage.gaussian_gradient_magnitude(np.angle(truth), 1.0)
    flat = particle & (slope < np.median(slope[particle]))
    return Difference(-np.log(np.abs(ratio)), np.angle(ratio), vacuum, particle, flat, found)


def _registered(
    found: NDArray[np.complex128], truth: NDArray[np.complex128], lit: Mask
) -> NDArray[np.complex128]:
    """Without what one more shift, factor and ramp explain: 0.01 pixels cost as much as all noise does."""
    spectrum = fft.fft2(truth - 1)
    waves = [2j * np.pi * fft.fftfreq(n) for n in truth.shape]
    along, across = fft.ifft2(spectrum * waves[0][:, None]), fft.ifft2(spectrum * waves[1])
    y, x = np.indices(truth.shape)
    moves = [along, across, truth, 1j * truth, 1j * truth * y, 1j * truth * x]
    design, rest = np.stack([move[lit] for move in moves], axis=1), (found - truth)[lit]
    best, *_ = np.linalg.lstsq(_real(design), _real(rest), rcond=None)
    return found - np.tensordot(best, moves, axes=1)


def _real(values: NDArray[np.complex128]) -> NDArray[np.float64]:
    return np.concatenate([values.real, values.imag])


def object_error(case: Case, obj: NDArray[np.complexfloating], lit: Mask) -> float:
    """Relative rms difference to the truth, after what ptychography leaves open was aligned."""
    found, _ = align_ambiguities(obj, case.truth, lit.astype(np.float64))
    rest, power = np.abs(found - case.truth)[lit], np.abs(case.truth)[lit]
    return float(np.sqrt(np.sum(rest**2) / np.sum(power**2)))


def robust(values: NDArray[np.float64]) -> tuple[float, float]:
    """(error, bias) as in physics.md: 1.4826 × median deviation from the median, and the median."""
    middle = float(np.median(values))
    return 1.4826 * float(np.median(np.abs(values - middle))), middle


def table(title: str, *columns: str) -> Any:
    """An empty table of rich."""
    from rich.table import Table

    made = Table(title=title, title_justify="left")
    for column in columns:
        made.add_column(column, justify="right" if made.columns else "left")
    return made
