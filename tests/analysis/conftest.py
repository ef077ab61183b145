"""A small scan made with plain NumPy, written apart from the engines that reconstruct it."""

from dataclasses import dataclass

import numpy as np
import pytest

from ptychrome.analysis.optics import kb_probe
from ptychrome.analysis.scan import ScanGeometry

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
