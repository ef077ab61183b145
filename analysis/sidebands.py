"""Object frequencies that only one side of the detector saw, as behind a gap between its modules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

from ptychrome.analysis.engines import Reconstruction, central
from ptychrome.analysis.normalise import normalise, phase_of
from ptychrome.analysis.scan import DiffractionData

SEEN = 0.5  # of the light that a frequency scatters, on measured pixels


def fill_unseen_sidebands(
    data: DiffractionData, reconstruction: Reconstruction, lit_fraction: float = 0.02
) -> Reconstruction:
    """Give frequencies that nobody measured what their opposites say.

    A frequency q of the object scatters the pupil to the detector's pixels around q, and it takes both q and
    −q to tell absorption from phase. Where a gap hides −q, engines leave there whatever they began with, and
    even without noise the absorption has an error as large as the phase at q. Where absorption and phase
    belong together, ln O = (r + i) φ, the hidden half follows:
    F[ln O](−q) = (r + i) / (r − i) · conj F[ln O](q). The ratio r of the whole sample is good enough: what
    differs from it is small against i.

    Parameters
    ----------
    data : DiffractionData
    reconstruction : Reconstruction
    lit_fraction : float
        Of the largest Σ|P|²: darker pixels stay as they are.

    Returns
    -------
    Reconstruction
        The same where every frequency or none of a pair was seen, and where no vacuum is in the field: the
        relation needs to know where ln O is zero.
    """
    hidden = one_sided(data, reconstruction.probe)
    if not hidden.any():
        return reconstruction
    lit = reconstruction.illumination > lit_fraction * reconstruction.illumination.max()
    level = normalise(reconstruction.object, lit)
    matter = lit & ~level.vacuum
    if not level.found_vacuum or not matter.any():
        return reconstruction
    log = np.log(np.maximum(np.abs(level.object), 1e-6)) + 1j * phase_of(level.object)
    log[~lit] = 0
    own = log[matter]
    r = float(np.sum(own.real * own.imag) / np.sum(own.imag**2))
    spectrum = fft.fft2(log)
    from_opposite = (r + 1j) / (r - 1j) * np.conj(_opposite(spectrum))
    filled = fft.ifft2(np.where(_on_grid(hidden, log.shape), from_opposite, spectrum))
    change = np.where(lit, np.exp(filled - log), 1)
    return replace(reconstruction, object=(reconstruction.object * change).astype(np.complex64))


def one_sided(data: DiffractionData, probe: NDArray[np.complexfloating]) -> NDArray[np.bool_]:
    """Object frequencies whose light mostly missed measured pixels, while that of their opposites hit them.

    Parameters
    ----------
    data : DiffractionData
    probe : (modes, my, mx) complex
        At least as wide as a frame's window.

    Returns
    -------
    (ny, nx) bool
        Zero frequency at ``(ny // 2, nx // 2)``, steps of the detector's pixels.
    """
    window = data.amplitude.shape[1:]
    measured = fft.fftshift(np.mean(data.amplitude >= 0, axis=0))
    if measured.all():
        return np.zeros(window, np.bool_)
    waves = fft.fftshift(fft.fft2(central(probe, window)), axes=(-2, -1))
    pupil = np.sum(np.abs(waves) ** 2, axis=0)
    full = signal.correlate(measured, pupil / pupil.sum(), method="fft")
    top, left = (n - 1 - n // 2 for n in window)  # where pupil and detector lie on each other
    seen = full[top : top + window[0], left : left + window[1]] > SEEN
    return ~seen & fft.fftshift(_opposite(fft.ifftshift(seen)))


def _opposite(spectrum: NDArray) -> NDArray:
    """Values at −q, zero frequency at [0, 0]."""
    return np.roll(spectrum[::-1, ::-1], (1, 1), axis=(0, 1))


def _on_grid(of_window: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """What is known per pixel of the detector at the frequencies of an object of `shape`, zero at [0, 0]."""
    rows, columns = (
        np.minimum(np.rint(fft.fftfreq(count) * n).astype(np.int64) + n // 2, n - 1)
        for count, n in zip(shape, of_window.shape, strict=True)
    )
    return of_window[np.ix_(rows, columns)]
