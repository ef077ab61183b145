"""The EIGER: a window of it around the direct beam, its mask and how it counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GAP = 1  # bits of the mask
DEAD = 2


@dataclass(frozen=True)
class Eiger:
    """Fixed properties of the detector.

    Attributes
    ----------
    shape : (int, int)
        Rows (along −y) and columns (along −x) of a frame; the beam hits the centre of pixel ``shape // 2``.
    pixel_size_m : (float, float)
        Pitch per row and per column, m.
    distance_m : float
        Sample to detector, m.
    mask : (ny, nx) uint32
        0 = good.
    ceiling_hz : float
        Highest count rate of a pixel, 1/s; beyond it the pixel is flagged. Infinite: never.
    bit_depth : int
        16 or 32; the largest number is the flag of saturated and of masked pixels.
    """

    shape: tuple[int, int]
    pixel_size_m: tuple[float, float]
    distance_m: float
    mask: NDArray[np.uint32]
    ceiling_hz: float
    bit_depth: int

    @property
    def flag(self) -> int:
        """The number a saturated or masked pixel reads."""
        return 2**self.bit_depth - 1

    def read(
        self, expected: NDArray[np.float32], exposure_s: float, rng: np.random.Generator | None
    ) -> NDArray[np.uint32]:
        """Count photons.

        Parameters
        ----------
        expected : (ny, nx) float32, photons
            Mean number per pixel during the exposure.
        exposure_s : float
        rng : Generator or None
            For Poisson noise; None rounds the expected counts instead.

        Returns
        -------
        (ny, nx) uint32, photons
        """
        counts = (np.rint(expected) if rng is None else rng.poisson(expected)).astype(np.int64)
        limit = min(self.ceiling_hz * exposure_s, self.flag)
        blind = (counts >= limit) | (self.mask != 0)
        return np.where(blind, self.flag, counts).astype(np.uint32)


def eiger(
    frame_pixels: int = 128,
    *,
    distance_m: float = 1.273,
    gap: bool = True,
    gap_offset: int = 48,
    dead_pixels: int = 5,
    ceiling_hz: float = 2e6,
    bit_depth: int = 32,
    seed: int = 0,
) -> Eiger:
    """A square window of an EIGER 1M.

    Parameters
    ----------
    frame_pixels : int
        Pixels per axis.
    distance_m : float
        1.273 m makes the window λz/p 3.8 µm at the V K-edge.
    gap : bool
        Whether the dead rows between the two modules are there.
    gap_offset : int
        First of the 37 gap rows, counted from the beam's row.
    dead_pixels : int
        How many single pixels are dead.
    ceiling_hz, bit_depth :
        See `Eiger`.
    seed : int
        Decides which pixels are dead.

    Returns
    -------
    Eiger

    Raises
    ------
    ValueError
        If the bit depth is neither 16 nor 32.
    """
    if bit_depth not in (16, 32):
        raise ValueError(f"bit_depth is {bit_depth}; expected 16 or 32")
    shape = (frame_pixels, frame_pixels)
    mask = np.zeros(shape, dtype=np.uint32)
    if gap:
        first = frame_pixels // 2 + gap_offset
        mask[first : first + 37] |= GAP
    rng = np.random.default_rng([seed, 0xDEAD])
    mask.flat[rng.choice(mask.size, dead_pixels, replace=False)] |= DEAD
    return Eiger(shape, (75e-6, 75e-6), distance_m, mask, ceiling_hz, bit_depth)
