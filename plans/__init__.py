"""Bluesky plans, energy grids and scan trajectories."""

from ptychrome.plans.daily import align_focus, calibrate_energy, choose_exposure, find_particle
from ptychrome.plans.energies import k_edge, segments, v_k_edge
from ptychrome.plans.fly_spectro_ptycho import fly_spectro_ptycho
from ptychrome.plans.spectro_ptycho import spectro_ptycho
from ptychrome.plans.trajectories import fermat, jittered, positions, rows, square

__all__ = [
    "align_focus",
    "calibrate_energy",
    "choose_exposure",
    "fermat",
    "find_particle",
    "fly_spectro_ptycho",
    "jittered",
    "k_edge",
    "positions",
    "rows",
    "segments",
    "spectro_ptycho",
    "square",
    "v_k_edge",
]
