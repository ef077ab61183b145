"""Reconstruction engines: ``(data, guess, options) -> Iterator[Reconstruction]``.

The caller decides how often to look, to show progress and when to stop. All engines see the same forward
model: the probe, shifted to the exact sub-pixel position, times the object window, times the pixel modes,
propagated to the detector by a unitary FFT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ptychrome.analysis.engines.likelihood import ml
from ptychrome.analysis.engines.pie import pie
from ptychrome.analysis.engines.projections import raar
from ptychrome.analysis.engines.reconstruction import (
    Prior,
    Reconstruction,
    ReconstructionError,
    central,
    start,
)
from ptychrome.analysis.options import Stage
from ptychrome.analysis.scan import DiffractionData

__all__ = ["ENGINES", "Prior", "Reconstruction", "ReconstructionError", "central", "run", "start"]

ENGINES: dict[str, Callable[..., Iterator[Reconstruction]]] = {
    "epie": pie,
    "rpie": pie,
    "raar": raar,
    "ml": ml,
}
STALLED_AFTER = 5  # sweeps over which a stage must improve


def run(
    data: DiffractionData, guess: Reconstruction, stages: tuple[Stage, ...], prior: Prior | None = None
) -> Iterator[Reconstruction]:
    """Run the engines of a recipe one after the other, each starting from the result before.

    Parameters
    ----------
    data : DiffractionData
    guess : Reconstruction
    stages : tuple of Stage
    prior : Prior, optional
        What is known of the object beside the frames.

    Yields
    ------
    Reconstruction
        After each sweep.

    Raises
    ------
    ReconstructionError
        If a sweep ends with an error, an object or a probe that is not finite.
    """
    state = guess
    for stage in stages:
        first = len(state.error)
        for step in ENGINES[stage.engine](data, state, stage, prior):
            state = step
            if not _finite(state):
                raise ReconstructionError(
                    f"{stage.engine} diverged in sweep {len(state.error)}; "
                    "check the frames, the positions and the start probe"
                )
            yield state
            if _stalled(state.error[first:], stage.tolerance):
                break


def _finite(state: Reconstruction) -> bool:
    return bool(
        np.isfinite(state.error[-1]) and np.isfinite(state.object).all() and np.isfinite(state.probe).all()
    )


def _stalled(errors: tuple[float, ...], tolerance: float) -> bool:
    if not tolerance or len(errors) <= STALLED_AFTER:
        return False
    return errors[-1] > (1 - tolerance) * errors[-1 - STALLED_AFTER]
