"""Bluesky plans, energy grids and scan trajectories."""
