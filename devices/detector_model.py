"""What a simulated detector must know of the one it simulates; the twin's has it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class DetectorModel(Protocol):
    """The fixed properties of a detector (the twin's ``detector``).

    ``mask``: (ny, nx) uint32, 0 = good. Masked and saturated pixels read ``2**bit_depth - 1``.
    """

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def pixel_size_m(self) -> tuple[float, float]: ...
    @property
    def distance_m(self) -> float: ...
    @property
    def mask(self) -> NDArray[np.uint32]: ...
    @property
    def bit_depth(self) -> int: ...


def as_stored(counts: NDArray[np.uint32], bit_depth: int) -> NDArray[np.unsignedinteger]:
    """A frame in the detector's number format, whose largest number flags what was not measured.

    Parameters
    ----------
    counts : (ny, nx) uint32
        Masked and saturated pixels read the largest number of `bit_depth` or of 32 bits.
    bit_depth : int
        8, 16 or 32.

    Returns
    -------
    (ny, nx) uint8, uint16 or uint32
    """
    flag = 2**bit_depth - 1
    return np.minimum(counts, flag).astype(f"<u{bit_depth // 8}")
