"""The simulated beamline: physics only, no ophyd, and no code shared with the analysis."""
