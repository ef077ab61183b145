"""The simulated beamline: physics only, no ophyd, and no code shared with the analysis."""

from ptychrome.devices.twin.beamline import Exposure, TwinBeamline
from ptychrome.devices.twin.nuisances import Nuisances
from ptychrome.devices.twin.truth import Truth

__all__ = ["Exposure", "Nuisances", "Truth", "TwinBeamline"]
