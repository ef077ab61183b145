"""The scans, utilities of daily use, energy grids, trajectories, and Bluesky's own plans as bp and bps."""
# ruff: noqa: F401  (the imports are what this file is for)

from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky.plan_stubs import mv
from bluesky.plans import count

from ptychrome.plans import (
    align_focus,
    calibrate_energy,
    choose_exposure,
    fermat,
    find_particle,
    fly_spectro_ptycho,
    jittered,
    k_edge,
    positions,
    rows,
    segments,
    spectro_ptycho,
    square,
    v_k_edge,
)
