"""Ophyd classes of the beamline and of its simulation."""
