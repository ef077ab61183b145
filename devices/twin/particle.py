"""Particles of disordered-rocksalt vanadium oxide: thickness, nanoscale domains, surface gradient.

A particle is a set of continuous functions, so that it is the same object on every grid.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychrome.devices.twin.states import LIVO2, LIVO3, METAL, OXIDE_STATES, ChemicalState

Float = NDArray[np.float64]

AS_PREPARED = (0.45, 0.2, 0.15, 0.2)  # share of each of OXIDE_STATES
DELITHIATED = (0.2, 0.45, 0.15, 0.2)  # the two main states change places
PARTICLES: dict[str, tuple[tuple[ChemicalState, ...], tuple[float, ...]]] = {
    **dict.fromkeys(("P1", "P2", "P3"), (OXIDE_STATES, AS_PREPARED)),
    **dict.fromkeys(("D1", "D2", "D3"), (OXIDE_STATES, DELITHIATED)),
    "LiVO2": ((LIVO2,), (1.0,)),
    "LiVO3": ((LIVO3,), (1.0,)),
    "V": ((METAL,), (1.0,)),  # a flake of the metal, which serves as a foil
}
DOMAIN_M = 270e-9  # mean distance of domain centres
BORDER_M = 8e-9  # decay length of a state across a domain border
IMPURITY = 0.06  # share of the mean composition within a domain
SURFACE_M = 50e-9  # depth of the surface layer
SURFACE_SHARE = 0.3  # of the surface state at the very surface
SURFACE_STATE = 1  # V4+ octahedral
OUTLINE_ORDERS = np.arange(2, 6)


@dataclass(frozen=True)
class ParticleShape:
    """The continuous functions of one particle (all drawn from its name and seed).

    Attributes
    ----------
    states : tuple of ChemicalState
    peak_density : float
        Areal density of V where the particle is thickest, m⁻².
    radius_m : float
        Mean radius of the outline.
    outline : (4,) complex128
        Relative amplitude and phase of the angular orders 2–5 of the outline.
    bumps : (3, 3) float64
        Wave vectors (y, x) [rad/m] and phases of the undulation of the thickness.
    centres_m : (n, 2) float64
        Domain centres (y, x), m.
    domain_state : (n,) int64
        State of each domain.
    share : (n_states,) float64
        Mean composition.
    """

    states: tuple[ChemicalState, ...]
    peak_density: float
    radius_m: float
    outline: NDArray[np.complex128]
    bumps: Float
    centres_m: Float
    domain_state: NDArray[np.int64]
    share: Float

    @property
    def reach_m(self) -> float:
        """Half side of a square around the origin that holds the particle."""
        return self.radius_m * (1 + float(np.abs(self.outline).sum()))

    def total_density(self, y_m: Float, x_m: Float) -> tuple[Float, Float]:
        """Areal density of vanadium and depth below the outline.

        Parameters
        ----------
        y_m, x_m : (...) float64, m
            Sample coordinates, CXI frame.

        Returns
        -------
        density : (...) float64, m⁻²
        depth_m : (...) float64, m
            Projected distance to the outline; 0 outside.
        """
        angle = np.arctan2(y_m, x_m)
        wave = np.exp(1j * angle[..., None] * OUTLINE_ORDERS) @ self.outline
        edge = self.radius_m * (1 + wave.real)
        inside = np.clip(1 - np.hypot(y_m, x_m) / edge, 0, None)  # 1 − s
        profile = (inside * (2 - inside)) ** 0.8  # (1 − s²)^0.8: thin edges, nearly an ellipsoid
        undulation = sum(0.04 * np.sin(ky * y_m + kx * x_m + phase) for ky, kx, phase in self.bumps)
        return self.peak_density * profile * (1 + undulation), inside * edge

    def density(self, y_m: Float, x_m: Float) -> Float:
        """Areal density of the vanadium in each state, (n_states, ...) m⁻²; arguments as `total_density`."""
        total, depth = self.total_density(y_m, x_m)
        pure = np.zeros((len(self.states), *total.shape))
        for state, weight in zip(self.domain_state, self._domains(y_m, x_m), strict=True):
            pure[state] += weight
        mean = self.share.reshape(-1, *[1] * total.ndim)
        composition = (1 - IMPURITY) * pure + IMPURITY * mean
        if len(self.states) > 1:
            surface = SURFACE_SHARE * np.exp(-depth / SURFACE_M)
            composition *= 1 - surface
            composition[SURFACE_STATE] += surface
        return total * composition

    def _domains(self, y_m: Float, x_m: Float) -> Float:
        """Soft Voronoi cells, (n_domains, ...), adding up to 1."""
        # Shearing the coordinates by waves makes the borders wind.
        y = y_m + 20e-9 * np.sin(2 * np.pi * x_m / 310e-9)
        x = x_m + 20e-9 * np.sin(2 * np.pi * y_m / 270e-9)
        squared = np.stack([(y - cy) ** 2 + (x - cx) ** 2 for cy, cx in self.centres_m])
        # |r − a|² − |r − b|² = 2·(distance to the border)·|a − b|
        weights = np.exp((squared.min(axis=0) - squared) / (2 * DOMAIN_M * BORDER_M))
        return weights / weights.sum(axis=0)


@dataclass(frozen=True)
class Particle:
    """A particle sampled on a grid.

    Attributes
    ----------
    name : str
    shape : ParticleShape
        The continuous functions.
    states : tuple of ChemicalState
    pixel_m : float
    y_m, x_m : (ny,), (nx,) float64, m
        Sample coordinates of rows and columns, CXI frame, descending.
    areal_density : (n_states, ny, nx) float64, m⁻²
        Of vanadium, per state.
    """

    name: str
    shape: ParticleShape
    states: tuple[ChemicalState, ...]
    pixel_m: float
    y_m: Float
    x_m: Float
    areal_density: Float


def particle_shape(name: str, seed: int = 0) -> ParticleShape:
    """Draw a particle.

    Parameters
    ----------
    name : str
        P1–P3 (as-prepared), D1–D3 (delithiated), LiVO2 or LiVO3.
    seed : int
        Together with the name it decides everything.

    Returns
    -------
    ParticleShape

    Raises
    ------
    ValueError
        If there is no such particle.
    """
    if name not in PARTICLES:
        raise ValueError(f"particle {name!r} is unknown; expected one of {', '.join(PARTICLES)}")
    states, share = PARTICLES[name]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    amplitude = np.array([0.10, 0.06, 0.03, 0.02]) * rng.uniform(0.8, 1.2, 4)
    direction = rng.uniform(0, 2 * np.pi, 3)
    wavenumber = 2 * np.pi / rng.uniform(0.4e-6, 0.8e-6, 3)
    bumps = np.column_stack(
        [wavenumber * np.sin(direction), wavenumber * np.cos(direction), rng.uniform(0, 2 * np.pi, 3)]
    )
    outline = amplitude * np.exp(1j * rng.uniform(0, 2 * np.pi, 4))
    radius, peak = rng.uniform(0.58e-6, 0.66e-6), rng.uniform(4.0e22, 4.6e22)
    centres = _domain_centres(radius, rng)
    undecided = ParticleShape(
        states, peak, radius, outline, bumps, centres, np.zeros(len(centres), dtype=np.int64), np.array(share)
    )
    return _with_states(undecided, rng)


def _domain_centres(radius_m: float, rng: np.random.Generator) -> Float:
    """A hexagonal lattice, turned, shifted and shaken, that covers the particle: (n, 2) m."""
    count = int(np.ceil(1.4 * radius_m / DOMAIN_M)) + 1
    row, column = np.mgrid[-count : count + 1, -count : count + 1].astype(float)
    lattice = np.stack([row * np.sqrt(3) / 2, column + row / 2 - np.trunc(row / 2)], axis=-1).reshape(-1, 2)
    angle = rng.uniform(0, np.pi / 3)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centres = lattice @ turn.T + rng.uniform(-0.5, 0.5, 2) + rng.uniform(-0.18, 0.18, lattice.shape)
    centres *= DOMAIN_M
    return centres[np.hypot(*centres.T) < 1.3 * radius_m]


def _with_states(undecided: ParticleShape, rng: np.random.Generator) -> ParticleShape:
    """Give each domain a state so that the states take up their shares of the vanadium."""
    axis = np.arange(-undecided.reach_m, undecided.reach_m, 20e-9)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    amount = (undecided._domains(y, x) * undecided.total_density(y, x)[0]).sum(axis=(1, 2))
    missing = undecided.share * amount.sum()
    domain_state = np.zeros(len(amount), dtype=np.int64)
    for domain in np.argsort(-amount * rng.uniform(0.6, 1.0, len(amount))):
        state = int(np.argmax(missing))
        domain_state[domain] = state
        missing[state] -= amount[domain]
    return ParticleShape(**{**vars(undecided), "domain_state": domain_state})


def make_particle(name: str, pixel_m: float = 15e-9, seed: int = 0) -> Particle:
    """Sample a particle on a square grid that just holds it.

    Parameters
    ----------
    name : str
        See `particle_shape`.
    pixel_m : float
        Pixel of the grid, m; the particle itself does not depend on it.
    seed : int

    Returns
    -------
    Particle

    Raises
    ------
    ValueError
        If there is no such particle.
    """
    shape = particle_shape(name, seed)
    half = int(np.ceil(shape.reach_m / pixel_m))
    axis = pixel_m * np.arange(half, -half - 1, -1, dtype=np.float64)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    density = shape.density(y, x)
    rows, columns = (np.flatnonzero(density.sum(axis=0).any(axis=other)) for other in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return Particle(
        name, shape, shape.states, pixel_m, axis[box[0]], axis[box[1]], density[:, box[0], box[1]]
    )
