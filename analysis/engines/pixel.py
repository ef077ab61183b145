"""Detector pixels that integrate over their area, sampled at points within each pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychrome.analysis.engines.backend import Array, Backend
from ptychrome.analysis.engines.reconstruction import wrapped

WIDTH = 2  # of the array of a probe with its tails, in windows


class PixelPoints:
    """Gauss–Legendre points within a pixel, and the wide probe that their far field comes from.

    The far field half a pixel beside the pixels' centres is that of the exit wave times a phase ramp. One
    point is an ideal point pixel; there the tails of the probe wrap around the window, as they do in the
    measurement.

    Parameters
    ----------
    window : (int, int)
        Rows and columns of a frame.
    count : int
        Points per axis.
    backend : Backend
    """

    def __init__(self, window: tuple[int, int], count: int, wide: bool, backend: Backend) -> None:
        self._window, self._backend = window, backend
        self._width = WIDTH if wide else 1
        nodes, weights = np.polynomial.legendre.leggauss(count)
        self._points = [(a / 2, b / 2) for a in nodes for b in nodes]
        roots = [np.sqrt(a * b) / 2 for a in weights for b in weights]
        ramps = [self._ramps(root, point) for root, point in zip(roots, self._points, strict=True)]
        self._wide = backend.asarray(np.array(ramps, np.complex64))
        self.weights = self._central(self._wide)
        # one point cannot tell the tails from what they wrap onto: they stay as they were given
        inner = np.ones([self._width * n for n in window], np.float32)
        if count == 1 and wide:
            inner *= 0
            self._central(inner)[...] = 1
        self._inner = backend.asarray(inner)

    def _ramps(self, root: float, point: tuple[float, float]) -> NDArray[np.complex128]:
        axes = [
            np.exp(-2j * np.pi * d * (np.arange(self._width * n) - self._width * n // 2) / n)
            for d, n in zip(point, self._window, strict=True)
        ]
        return np.asarray(root * np.outer(axes[0], axes[1]), np.complex128)

    def fitting(self, probe: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """A probe (m, …) of any width brought to the one that is refined: tails wrapped, or room for them."""
        ny, nx = (self._width * n for n in self._window)
        return wrapped(probe, (ny, nx))  # where it is narrower, that is padding

    @staticmethod
    def padded(probe: NDArray[np.complex64], shape: tuple[int, ...]) -> NDArray[np.complex64]:
        """A probe (m, my, mx) in the middle of zeros."""
        out = np.zeros((len(probe), *shape), np.complex64)
        top, left = (n // 2 - m // 2 for n, m in zip(shape, probe.shape[1:], strict=True))
        out[:, top : top + probe.shape[1], left : left + probe.shape[2]] = probe
        return out

    def central(self, probe: Array) -> Array:
        """The window in the middle of wide arrays (…, ny, nx)."""
        return probe if self._width == 1 else self._central(probe)

    def _central(self, wide: Array) -> Array:
        (ny, nx), (my, mx) = self._window, wide.shape[-2:]
        top, left = my // 2 - ny // 2, mx // 2 - nx // 2
        return wide[..., top : top + ny, left : left + nx]

    def far_field(self, probe: Array) -> Array | None:
        """Far field of the probe alone at each point, (m k, ny, nx); None with point pixels."""
        if self._width == 1:
            return None
        xp, (ny, nx), w = self._backend.xp, self._window, self._width
        waves = probe[:, None, ...] * self._wide[None, ...]
        folded = xp.sum(xp.reshape(waves, (-1, w, ny, w, nx)), axis=(1, 3))
        back = ny // 2 - w * ny // 2, nx // 2 - w * nx // 2
        return self._backend.fft2(xp.roll(folded, back, axis=(-2, -1)))

    def phases(self, shift: NDArray[np.float32], modes: int) -> Array:
        """exp(−2πi δ·s/n) of positions (b, 2) [pixels] and points δ: (b, m k) complex64."""
        scaled = shift / np.array(self._window)
        angle = np.tile(scaled @ np.array(self._points).T, (1, modes))
        return self._backend.asarray(np.exp(-2j * np.pi * angle).astype(np.complex64))

    def probe_gradient(self, central: Array, far: Array | None) -> Array:
        """Gradient of the wide probe from that in the window and that of its far field."""
        if far is None:
            return central
        xp, (ny, nx), w = self._backend.xp, self._window, self._width
        top, left = w * ny // 2 - ny // 2, w * nx // 2 - nx // 2
        near = xp.roll(self._backend.ifft2(far), (top, left), axis=(-2, -1))
        near = xp.reshape(near, (central.shape[0], -1, 1, ny, 1, nx))  # the same in every window
        wide = xp.reshape(xp.conj(self._wide), (-1, w, ny, w, nx))
        total = xp.reshape(xp.sum(near * wide, axis=1), (-1, w * ny, w * nx)) * self._inner
        total[:, top : top + ny, left : left + nx] += central
        return total

    def object_power(self, central: Array, count: int) -> Array:
        """Σ|O|² over `count` positions for a wide probe: outside the window the object is one."""
        if self._width == 1:
            return central
        (ny, nx), w = self._window, self._width
        total = self._backend.zeros((w * ny, w * nx), "float32") + count
        top, left = w * ny // 2 - ny // 2, w * nx // 2 - nx // 2
        total[top : top + ny, left : left + nx] = central
        return total
