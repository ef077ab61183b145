"""Scan trajectories: plain dicts of numbers and strings that describe one, and their expansion to positions.

A queue server can carry the dicts; `positions` turns any of them into an array of sample translations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positions = NDArray[np.float64]
MAX_POSITIONS = 1_000_000  # more is a slip in a unit, not a scan
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


def square(
    width_m: float, step_m: float, *, center_m: Sequence[float] = (0.0, 0.0), snake: bool = True
) -> dict[str, Any]:
    """Square raster: rows along x, every other one backwards when `snake`.

    Parameters
    ----------
    width_m : float
        Side of the square; rounded down to a whole number of steps.
    step_m : float
        Distance of neighbours in x and y.
    center_m : (x, y)
    snake : bool

    Returns
    -------
    dict
        For `positions`; ``square(3e-6, 150e-9)`` has 21 × 21 of them.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    return _describe(kind="square", width_m=width_m, step_m=step_m, center_m=center_m, snake=snake)


def rows(
    width_m: float,
    step_m: float,
    row_m: float,
    *,
    center_m: Sequence[float] = (0.0, 0.0),
    snake: bool = True,
) -> dict[str, Any]:
    """Raster of a square with rows along x that are finer than their distance, for fly scans.

    Parameters
    ----------
    width_m, step_m, center_m, snake
        See `square`; the step is along a row.
    row_m : float
        Distance of neighbouring rows.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    return _describe(kind="rows", width_m=width_m, step_m=step_m, row_m=row_m, center_m=center_m, snake=snake)


def jittered(
    width_m: float,
    step_m: float,
    *,
    jitter: float = 0.25,
    seed: int = 0,
    center_m: Sequence[float] = (0.0, 0.0),
    snake: bool = True,
) -> dict[str, Any]:
    """Square raster whose points are displaced at random, against raster-grid artefacts.

    Parameters
    ----------
    jitter : float
        Largest displacement per axis as a fraction of the step, at most 0.5; uniformly distributed.
    seed : int
        Equal seeds give equal displacements.
    width_m, step_m, center_m, snake
        See `square`.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    return _describe(
        kind="jittered",
        width_m=width_m,
        step_m=step_m,
        jitter=jitter,
        seed=seed,
        center_m=center_m,
        snake=snake,
    )


def fermat(
    width_m: float, step_m: float, *, center_m: Sequence[float] = (0.0, 0.0), snake: bool = True
) -> dict[str, Any]:
    """Fermat spiral r = c √(n + ½), θ = n · 137.5°, cut to a square; no direction of a grid is left.

    Parameters
    ----------
    width_m : float
        Side of the square.
    step_m : float
        One point per step² (c = step / √π), hence as many points as a raster of this step.
    center_m : (x, y)
    snake : bool
        Visit the points in bands of one step, back and forth along x, which saves way; otherwise from the
        centre outwards.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    return _describe(kind="fermat", width_m=width_m, step_m=step_m, center_m=center_m, snake=snake)


def positions(trajectory: Mapping[str, Any]) -> Positions:
    """Expand a trajectory.

    Parameters
    ----------
    trajectory : mapping
        From `square`, `rows`, `jittered` or `fermat`, or ``{"kind": "points", "x": […], "y": […]}``.

    Returns
    -------
    (n, 2) float64, m
        Translations of the sample, x first, then y, in the CXI frame, in the order of the scan.

    Raises
    ------
    ValueError
        If the kind is unknown, a field is missing, unknown or out of range, or if there are fewer than two
        positions or more than a million; the message names the field.
    """
    return _parse(trajectory).positions()


def lines(trajectory: Mapping[str, Any]) -> list[Positions]:
    """The straight lines of equal steps that a trajectory consists of, for a stage that does not stop.

    Parameters
    ----------
    trajectory : mapping
        From `square` or `rows`.

    Returns
    -------
    list of (n, 2) float64, m
        As `positions` has them, line by line.

    Raises
    ------
    ValueError
        As for `positions`, or if the trajectory does not consist of lines.
    """
    parsed = _parse(trajectory)
    if not isinstance(parsed, _Square | _Rows):
        raise ValueError(
            f"trajectory: {trajectory['kind']!r} cannot be flown; expected a kind that consists of lines: "
            "'square' or 'rows'"
        )
    return parsed.lines()


class _Trajectory(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def positions(self) -> Positions:
        raise NotImplementedError


class _Points(_Trajectory):
    kind: Literal["points"]
    x: list[Finite] = Field(min_length=2)
    y: list[Finite] = Field(min_length=2)

    def positions(self) -> Positions:
        if len(self.x) != len(self.y):
            raise ValueError(f"trajectory points: {len(self.x)} x but {len(self.y)} y; expected equally many")
        return np.column_stack([self.x, self.y]).astype(np.float64)


class _Area(_Trajectory):
    width_m: Positive
    step_m: Positive
    center_m: tuple[Finite, Finite] = (0.0, 0.0)
    snake: bool = True

    def _steps(self, name: str = "step_m") -> int:
        step_m = getattr(self, name)
        steps = math.floor(self.width_m / step_m + 1e-6)
        if steps < 1:
            raise ValueError(f"trajectory: {name} {step_m:g} exceeds width_m {self.width_m:g}")
        if steps**2 > MAX_POSITIONS:
            raise ValueError(
                f"trajectory: width_m {self.width_m:g} by {name} {step_m:g} makes more than "
                f"{MAX_POSITIONS} positions"
            )
        return steps


class _Raster(_Area):
    def _axis(self, name: str) -> NDArray[np.float64]:
        steps = self._steps(name)
        return (np.arange(steps + 1) - steps / 2) * getattr(self, name)

    def _rows(self) -> NDArray[np.float64]:
        return self._axis("step_m")

    def lines(self) -> list[Positions]:
        x = self._axis("step_m")
        ways = (x[::-1] if self.snake and row % 2 else x for row in range(len(self._rows())))
        return [
            np.column_stack([way, np.full(len(way), y)]) + self.center_m
            for way, y in zip(ways, self._rows(), strict=True)
        ]

    def positions(self) -> Positions:
        return np.concatenate(self.lines())


class _Square(_Raster):
    kind: Literal["square"]


class _Rows(_Raster):
    kind: Literal["rows"]
    row_m: Positive

    def _rows(self) -> NDArray[np.float64]:
        return self._axis("row_m")


class _Jittered(_Raster):
    kind: Literal["jittered"]
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.25
    seed: Annotated[int, Field(ge=0)] = 0

    def positions(self) -> Positions:
        grid = super().positions()
        return grid + np.random.default_rng(self.seed).uniform(-1, 1, grid.shape) * self.jitter * self.step_m


class _Fermat(_Area):
    kind: Literal["fermat"]

    def positions(self) -> Positions:
        self._steps()
        half = self.width_m / 2
        # the corners of the square lie at r = half √2, and r² = (n + ½) step² / π
        n = np.arange(math.ceil(2 * math.pi * (half / self.step_m) ** 2) + 1)
        radius, angle = self.step_m * np.sqrt((n + 0.5) / math.pi), n * GOLDEN_ANGLE
        points = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
        points = points[(np.abs(points) <= half).all(axis=1)]
        if self.snake:
            band = np.floor((points[:, 1] + half) / self.step_m)
            way = np.where(band % 2 == 0, points[:, 0], -points[:, 0])
            points = points[np.lexsort([way, band])]
        return points + self.center_m


_ADAPTER: TypeAdapter[_Trajectory] = TypeAdapter(
    Annotated[_Square | _Rows | _Jittered | _Fermat | _Points, Field(discriminator="kind")]
)


def _parse(trajectory: Mapping[str, Any]) -> _Trajectory:
    try:
        return _ADAPTER.validate_python(trajectory)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["trajectory", *(str(part) for part in first["loc"])])
        raise ValueError(f"{where}: {first['msg']} (got {first['input']!r:.80})") from None


def _describe(**fields: Any) -> dict[str, Any]:
    checked = _parse(fields)
    checked.positions()
    return checked.model_dump(mode="json")
