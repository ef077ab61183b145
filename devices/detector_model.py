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
