"""The scan, energy grids and trajectories, and Bluesky's own plans: all as bp and bps, the commonest by name."""
# ruff: noqa: F401  (the imports are what this file is for)

from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky.plan_stubs import mv
from bluesky.plans import count

from ptychrome.plans import fermat, jittered, positions, segments, spectro_ptycho, square, v_k_edge
