"""Lines that a stage flies, and what a flight brings home."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """A line to be flown, and the times of its exposures.

    Attributes
    ----------
    first_m, last_m : (float, float)
        (x, y) of the stage in the middle of the first and of the last exposure.
    frames : int
        At equal distances.
    exposure_s : float
    readout_s : float
        From the end of one exposure to the beginning of the next.
    """

    first_m: tuple[float, float]
    last_m: tuple[float, float]
    frames: int
    exposure_s: float
    readout_s: float

    @property
    def period_s(self) -> float:
        """From frame to frame."""
        return self.exposure_s + self.readout_s

    @property
    def velocity_m_s(self) -> tuple[float, float]:
        """(x, y) of the stage."""
        seconds = (self.frames - 1) * self.period_s
        x, y = ((last - first) / seconds for first, last in zip(self.first_m, self.last_m, strict=True))
        return x, y

    def at(self, seconds: float) -> tuple[float, float]:
        """(x, y) of the stage, m, so long after the middle of the first exposure."""
        x, y = (first + v * seconds for first, v in zip(self.first_m, self.velocity_m_s, strict=True))
        return x, y

    def ends_m(self, ramp_s: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """(x, y) where the stage sets out and where it comes to rest, when it takes `ramp_s` to its speed."""
        margin_s = (self.exposure_s + ramp_s) / 2  # a constant acceleration makes half the way
        return self.at(-margin_s), self.at((self.frames - 1) * self.period_s + margin_s)


@dataclass(frozen=True)
class Taken:
    """One frame: its number since staging, when it ended, and what was measured, by data key."""

    number: int
    time: float
    values: Mapping[str, float]
