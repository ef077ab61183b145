"""A small scan made with plain NumPy, apart from the engines that reconstruct it, and a particle's images."""

from dataclasses import dataclass

import numpy as np
import pytest

from ptychrome.analysis.optics import kb_probe
from ptychrome.analysis.scan import ScanGeometry
from ptychrome.devices.twin.particle import make_particle
from ptychrome.devices.twin.states import transmission as matter

N = 64


@dataclass(frozen=True)
class SmallScan:
    geometry: ScanGeometry
    stage_yx_m: np.ndarray
    frames: np.ndarray
    probe: np.ndarray
    object_of: object  # callable (y_m, x_m) -> complex transmission


def transmission(y_m, x_m):
    """An asymmetric phase-and-absorption object in sample coordinates."""
    body = np.clip(1 - (y_m / 350e-9) ** 2 - (x_m / 250e-9) ** 2, 0, None) ** 0.5
    spot = np.exp(-((y_m - 150e-9) ** 2 + (x_m - 100e-9) ** 2) / (60e-9) ** 2)
    return np.exp((-0.9j - 0.12) * (body + 0.7 * spot * (body > 0)))


@pytest.fixture(scope="session")
def small_scan() -> SmallScan:
    """Point pixels, 1e7 photons, exact positions off the pixel grid; direct sums instead of engine code."""
    geometry = ScanGeometry(5480.0, (N, N), (75e-6, 75e-6), 0.64)
    dy, dx = geometry.pixel_m
    probe = kb_probe(
        (N, N), (dy, dx), 5480.0, fwhm_m=200e-9, fwhm_energy_eV=5480.0, defocus_m=1e-4, photons=1e7
    )
    rng = np.random.default_rng(3)
    line = np.arange(-4, 5) * 90e-9
    stage = np.array([(y, x) for y in line for x in line]) + rng.uniform(-2e-8, 2e-8, (81, 2))
    rows, columns = np.indices((N, N)) - N // 2
    q = np.fft.fftfreq(N)
    spectrum = np.fft.fft2(probe)
    frames = np.empty((len(stage), N, N))
    for j, (ty, tx) in enumerate(stage):
        # default orientation: rows run along -y, columns along -x; the probe hits the sample at -T
        whole = np.round(np.array([ty / dy, tx / dx]))
        fraction = np.array([ty / dy, tx / dx]) - whole
        shifted = np.fft.ifft2(spectrum * np.exp(-2j * np.pi * (q[:, None] * fraction[0] + q * fraction[1])))
        y = -(rows + whole[0]) * dy
        x = -(columns + whole[1]) * dx
        wave = shifted * transmission(y, x)
        frames[j] = np.abs(np.fft.fftshift(np.fft.fft2(wave, norm="ortho"))) ** 2
    return SmallScan(geometry, stage, rng.poisson(frames).astype(np.uint32), probe, transmission)


ENERGIES_EV = np.r_[
    np.linspace(5420, 5460, 5), np.arange(5463, 5472), np.arange(5473, 5486), np.linspace(5490, 5540, 13)
].astype(float)


@dataclass(frozen=True)
class ParticleImages:
    """Noise-free transmission of a particle of the simulation at 40 energies, averaged over pixels of 30 nm.

    Attributes: energy_eV (n,); object (n, ny, nx) complex128; particle (ny, nx) bool; rare (ny, nx) bool.
    """

    energy_eV: np.ndarray
    object: np.ndarray
    particle: np.ndarray
    rare: np.ndarray

    def noisy(self, sigma: float, seed: int = 0) -> np.ndarray:
        """With white noise of `sigma` on ln|O| and on the phase."""
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=self.object.shape) + 1j * rng.normal(size=self.object.shape)
        return (self.object * np.exp(sigma * noise)).astype(np.complex64)


def _images_of(rare_state=None, rare_pixels: int = 50, fine: int = 3, margin: int = 4) -> ParticleImages:
    particle = make_particle("P1", 30e-9 / fine)
    density, states = particle.areal_density, particle.states
    pad = [(margin * fine, margin * fine + -size % fine) for size in density.shape[1:]]
    density = np.pad(density, ((0, 0), *pad))
    shape = tuple(size // fine for size in density.shape[1:])
    rows, columns = np.indices(shape)
    distance = np.hypot(rows - 0.4 * shape[0], columns - 0.4 * shape[1]).ravel()
    rare = np.zeros(shape, bool)
    if rare_state is not None:
        rare.flat[np.argsort(distance, kind="stable")[:rare_pixels]] = True
        share = np.kron(rare, np.ones((fine, fine)))
        density = np.concatenate([density * (1 - share), [density.sum(axis=0) * share]])
        states = (*states, rare_state)

    def averaged(image):
        return image.reshape(shape[0], fine, shape[1], fine).mean(axis=(1, 3))

    images = np.array([averaged(matter(density, states, energy)) for energy in ENERGIES_EV])
    return ParticleImages(ENERGIES_EV, images, averaged(density.sum(axis=0)) > 1e21, rare)


@pytest.fixture(scope="session")
def particle_images() -> ParticleImages:
    return _images_of()


@pytest.fixture(scope="session")
def images_with():
    """The same with a rare state in some of its pixels: call (state, pixels)."""
    return _images_of
