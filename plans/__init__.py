"""Bluesky plans, energy grids and scan trajectories."""

from ptychrome.plans.energies import k_edge, segments, v_k_edge
from ptychrome.plans.spectro_ptycho import spectro_ptycho
from ptychrome.plans.trajectories import fermat, jittered, positions, square

__all__ = ["fermat", "jittered", "k_edge", "positions", "segments", "spectro_ptycho", "square", "v_k_edge"]
