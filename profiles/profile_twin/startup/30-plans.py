"""The scan, energy grids and trajectories, and Bluesky's own plans as bp and bps."""
# ruff: noqa: F401  (the imports are what this file is for)

from bluesky import plan_stubs as bps
from bluesky import plans as bp

from ptychrome.plans import fermat, jittered, k_edge, positions, segments, spectro_ptycho, square, v_k_edge
