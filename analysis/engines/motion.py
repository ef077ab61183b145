"""Motion during an exposure: the probe at several places along its way, one beside the other."""

from __future__ import annotations

import numpy as np
from scipy import fft

from ptychrome.analysis.engines.backend import Array, Backend


class Motion:
    """The probe at Gauss–Legendre points of its way, as modes that do not interfere.

    The intensity of an exposure is the mean of |F[P(r − c − s) O(r)]|² over the way s. As a function of s it
    holds no frequency beyond the width of the aperture, so that two points do up to half the width of the
    focus. They lie on both sides of the middle: the ways there and back are one.

    Parameters
    ----------
    travel_px : (float, float)
        (row, column) way during an exposure, object pixels.
    count : int
        Points.
    backend : Backend
    """

    def __init__(self, travel_px: tuple[float, float], count: int, backend: Backend) -> None:
        nodes, weights = np.polynomial.legendre.leggauss(count if any(travel_px) else 1)
        self._places = [(node / 2 * travel_px[0], node / 2 * travel_px[1]) for node in nodes]
        self._roots = np.sqrt(weights / 2)
        self._backend = backend
        self._ramps: Array | None = None  # made for the first probe, whose size nobody knows before

    @property
    def count(self) -> int:
        """Points; 1 when nothing moves."""
        return len(self._places)

    def spread(self, probe: Array) -> Array:
        """Modes (m, ny, nx) at each point of the way: (m k, ny, nx)."""
        if self.count == 1:
            return probe
        waves = self._backend.fft2(probe + 0)[:, None, ...] * self._ramps_for(probe)[None, ...]
        return self._backend.ifft2(self._backend.xp.reshape(waves, (-1, *probe.shape[1:])))

    def gathered(self, gradient: Array) -> Array:
        """The adjoint of `spread`: gradient of the modes, (m, ny, nx), from that of (m k, ny, nx)."""
        if self.count == 1:
            return gradient
        xp, shape = self._backend.xp, gradient.shape[1:]
        waves = xp.reshape(self._backend.fft2(gradient), (-1, self.count, *shape))
        return self._backend.ifft2(xp.sum(waves * xp.conj(self._ramps_for(gradient)), axis=1))

    def _ramps_for(self, probe: Array) -> Array:
        if self._ramps is None:
            qy, qx = (fft.fftfreq(n) for n in probe.shape[1:])
            ramps = [
                root * np.exp(-2j * np.pi * (qy[:, None] * row + qx * column))
                for root, (row, column) in zip(self._roots, self._places, strict=True)
            ]
            self._ramps = self._backend.asarray(np.array(ramps, np.complex64))
        return self._ramps
