"""The joint refinement of a run: rounds of tasks, and what has been found so far."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from ptychrome.analysis.joint import Energy, JointOptions, JointState, align, expectation, replacement
from ptychrome.analysis.spectral import LARGEST_RANK
from ptychrome.analysis.stack import EnergyStack
from ptychrome.callbacks.intake import EnergyJob
from ptychrome.callbacks.reconstruct import ReconstructedEnergy, Refinement


class JointRefinement:
    """Rounds in which every energy is refined with what the others say.

    Parameters
    ----------
    options : JointOptions
    element : str
        Whose edge the scan covers.
    """

    def __init__(self, options: JointOptions, element: str) -> None:
        self._options, self._element = options, element
        self._state: JointState | None = None
        self._most = LARGEST_RANK
        self._begun = self.rounds_done = 0

    def align(self, stack: EnergyStack, energies: dict[int, ReconstructedEnergy]) -> EnergyStack:
        """Align all energies with a common model; returns the aligned stack and updates the energies.

        Raises
        ------
        ptychrome.analysis.scan.DataError
            If there are too few energies or pixels for a model.
        """
        plain = {place: Energy(e.geometry, e.reconstruction) for place, e in energies.items()}
        self._state = align(stack, plain, self._element, self._options.spectral, most=self._most)
        self.rounds_done = self._begun
        for place, energy in self._state.energies.items():
            energies[place] = energies[place].with_reconstruction(energy.reconstruction)
        return self._state.stack

    def tasks(
        self, jobs: Mapping[int, EnergyJob], energies: Mapping[int, ReconstructedEnergy]
    ) -> list[Refinement]:
        """Tasks of the next round; none after the last."""
        if self._state is None or self._begun == self._options.rounds:
            return []
        vacuum_only = self._begun < self._options.vacuum_rounds
        self._begun += 1
        if not vacuum_only:
            self._most = self._state.model.principal
        places, tasks = sorted(energies), []
        expected = partial(expectation, self._state, options=self._options, vacuum_only=vacuum_only)
        with ThreadPoolExecutor() as pool:  # interpolations hold no Python lock
            priors = list(pool.map(expected, places))
        for place, prior in zip(places, priors, strict=True):
            energy = energies[place]
            if self._options.apply == "replace":
                replaced = energy.with_reconstruction(replacement(energy.reconstruction, prior))
                tasks.append(Refinement(jobs[place], replaced, None))
            else:
                tasks.append(Refinement(jobs[place], energy, prior))
        return tasks

    def modelled(self, stack: EnergyStack) -> EnergyStack:
        """The stack that maps are derived from: the model within the particle."""
        return stack if self._state is None else self._state.modelled

    def arrays(self) -> dict[str, np.ndarray]:
        """What the model leaves, for ``quality/``."""
        if self._state is None:
            return {}
        model = self._state.model
        return {"quality/spectral_residual": model.residual, "quality/spectral_strength": model.strength}
