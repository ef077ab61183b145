"""How long simulated things take: one clock that all devices of a simulated beamline share."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """Turns physical seconds (of motion, of exposure) into seconds of waiting.

    Parameters
    ----------
    factor : float
        0: never wait; 1: real time; 0.1: ten times faster than real.

    Raises
    ------
    ValueError
        If the factor is negative or not finite.
    """

    factor: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.factor) and self.factor >= 0):
            raise ValueError(
                f"clock is {self.factor!r}; expected a finite number >= 0 (0: no waiting, 1: real time)"
            )

    def wall_s(self, seconds: float) -> float:
        """Seconds to wait for something that physically takes `seconds`."""
        return self.factor * seconds
