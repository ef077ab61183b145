"""The state of one run while its energies arrive, and its results under their names."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptychrome import __version__
from ptychrome.analysis.engines import central
from ptychrome.analysis.grid import CommonGrid
from ptychrome.analysis.interpretation import Interpretation, interpret
from ptychrome.analysis.options import Stage
from ptychrome.analysis.recipe import Recipe
from ptychrome.analysis.stack import EnergyStack, add_energy
from ptychrome.callbacks.intake import EnergyJob, Intake
from ptychrome.callbacks.joint import JointRefinement
from ptychrome.callbacks.progress import Status
from ptychrome.callbacks.quality import QualityCheck, QualityTask, energy_figures
from ptychrome.callbacks.reconstruct import ReconstructedEnergy, Refinement, geometry_at
from ptychrome.callbacks.results import Revision
from ptychrome.schema import PREPARATION_KEY, ScanMetadata


@dataclass(eq=False)
class RunAnalysis:
    """What is known of one run; plain values, replaced as energies arrive.

    Attributes
    ----------
    intake : Intake
        Documents of the run.
    sample_name : str
    preparation : str
        What was done to the sample, such as "as-prepared"; empty where the start document does not say.
    recipe : Recipe
        As it is used: without an i0 monitor, `Recipe.without_monitor`.
    stack : EnergyStack
        Images on the common grid.
    energies : dict of int to ReconstructedEnergy
        Finished energies by their place on the ascending energy axis.
    interpretation : Interpretation or None
        Newest maps and clusters.
    outstanding : int
        Tasks whose outcome is not part of the results yet: complete energies, then those of joint rounds and
        the check.
    started : int
        How many of these are with a worker.
    concluded : list of EnergyJob
        Those whose outcome the maps do not show yet.
    stopped : bool
        Whether the stop document came.
    joint : JointRefinement or None
        The refinement of all energies together, once it has begun.
    check : QualityCheck or None
        Of the highest energy, once it is done.
    """

    intake: Intake
    sample_name: str
    preparation: str
    recipe: Recipe
    stack: EnergyStack
    energies: dict[int, ReconstructedEnergy] = field(default_factory=dict)
    interpretation: Interpretation | None = None
    outstanding: int = 0
    started: int = 0
    concluded: list[EnergyJob] = field(default_factory=list)
    stopped: bool = False
    joint: JointRefinement | None = None
    check: QualityCheck | None = None
    _started_s: float = field(default_factory=time.monotonic)
    _last_frame_s: dict[int, float] = field(default_factory=dict)
    _lag_s: dict[int, float] = field(default_factory=dict)
    _failed_frames: int = 0
    _jobs: dict[int, EnergyJob] = field(default_factory=dict)
    _joint_over: bool = False
    _check_begun: bool = False

    @classmethod
    def from_start(cls, start: Mapping[str, Any], recipe: Recipe) -> RunAnalysis:
        """Begin with a start document.

        Raises
        ------
        ptychrome.schema.SchemaError
            If the start document does not describe a spectro-ptychography scan.
        ptychrome.analysis.scan.DataError
            If the detector is not aligned with the laboratory.
        """
        intake = Intake.from_start(start)
        metadata = intake.metadata
        if metadata.keys.i0 is None:
            recipe = recipe.without_monitor()
        energies = np.sort(np.asarray(metadata.energies_eV))
        geometries = [geometry_at(metadata, energy) for energy in energies]
        grid = CommonGrid.covering(metadata.extent_m, geometries, recipe.stack.margin_m)
        stack = EnergyStack.empty(energies + _energy_offset(metadata, recipe), grid)
        preparation = str(start.get(PREPARATION_KEY) or "")
        return cls(intake, start.get("sample_name", ""), preparation, recipe, stack)

    @property
    def metadata(self) -> ScanMetadata:
        """The validated start document."""
        return self.intake.metadata

    @property
    def finished(self) -> bool:
        """Nothing more will come of this run."""
        left = self.outstanding or self.concluded or self._rounds_left or self._check_left
        return self.stopped and not left

    @property
    def _rounds_left(self) -> bool:
        return self.recipe.joint is not None and not self._joint_over

    @property
    def _check_left(self) -> bool:
        return self.recipe.quality.wanted and bool(self.energies) and not self._check_begun

    def next_round(self) -> list[Refinement]:
        """Tasks of the next joint round once all energies are in; none before, after the last, or without.

        The round before ends here: its energies are aligned with a common model and the maps derived anew.

        Raises
        ------
        ptychrome.analysis.scan.DataError
            If the energies do not allow a common model; the results stay those of the single energies.
        """
        options = self.recipe.joint
        if options is None or self._joint_over or not self.stopped or self.outstanding:
            return []
        self._joint_over = True  # unless the model can be had and there is another round
        if self.joint is None:
            self.joint = JointRefinement(options, self.metadata.element)
        self.stack = self.joint.align(self.stack, self.energies)
        self.interpret()
        tasks = self.joint.tasks(self._jobs, self.energies)
        self._joint_over = not tasks
        self.outstanding += len(tasks)
        return tasks

    def refined(self, task: Refinement, result: ReconstructedEnergy) -> None:
        """Take one energy of a joint round."""
        self.energies[self._place(task.job.index)] = result

    def next_check(self) -> QualityTask | None:
        """The check of the highest energy, once all else is over; None before, after, or without."""
        if not (self.stopped and self._check_left) or self.outstanding or self._rounds_left:
            return None
        self._check_begun = True
        self.outstanding += 1
        place = max(self.energies)
        return QualityTask(self._jobs[place], self.energies[place], self._last_stage(place))

    def _last_stage(self, place: int) -> Stage:
        recipe = self.recipe
        if recipe.joint is not None and self.joint is not None and self.joint.rounds_done:
            return recipe.joint.refine[-1]
        from_scratch = not recipe.warm or place == next(iter(self.energies))
        return (recipe.reconstruct if from_scratch else recipe.warm)[-1]

    @property
    def label(self) -> str:
        """What people call the run."""
        return self.sample_name or self.intake.raw_uid[:8]

    def take(self, name: str, doc: Mapping[str, Any]) -> list[EnergyJob]:
        """Take one document; return the energies it completed."""
        jobs = self.intake(name, doc)
        for job in jobs:
            self._jobs[self._place(job.index)] = job
            self._last_frame_s[job.index] = time.monotonic()
        self.outstanding += len(jobs)
        self.stopped = self.stopped or name == "stop"
        return jobs

    def neighbour(self, job: EnergyJob) -> ReconstructedEnergy | None:
        """The finished energy that is nearest to a job's."""
        if not self.energies:
            return None
        target = self._place(job.index)
        return self.energies[min(self.energies, key=lambda place: abs(place - target))]

    def add(self, result: ReconstructedEnergy) -> None:
        """Take one finished energy into the stack."""
        place = self._place(result.index)
        self.stack = add_energy(self.stack, place, result.geometry, result.reconstruction, self.recipe.stack)
        self.energies[place] = result

    def places_of(self, jobs: Sequence[EnergyJob]) -> tuple[int, ...]:
        """Places on the energy axis of those jobs that were reconstructed."""
        return tuple(place for job in jobs if (place := self._place(job.index)) in self.energies)

    def interpret(self) -> None:
        """Fit the spectra anew and derive maps and clusters."""
        stack = self.stack if self.joint is None else self.joint.modelled(self.stack)
        self.interpretation = interpret(
            stack, self.recipe, self.metadata.element, self.metadata.edge, self.interpretation
        )

    def failed(self, job: EnergyJob) -> None:
        """Note that an energy could not be reconstructed."""
        self._failed_frames += len(job.frames)

    def shown(self, jobs: Sequence[EnergyJob]) -> None:
        """Note that these energies' maps are out."""
        for job in jobs:
            self._lag_s[job.index] = time.monotonic() - self._last_frame_s[job.index]

    def _place(self, index: int) -> int:
        planned = self.metadata.energies_eV
        return int(np.searchsorted(np.sort(planned), planned[index]))

    def status(self) -> Status:
        """How far the run is."""
        reconstructed = sum(energy.frames for energy in self.energies.values())
        seen = self.intake.frames_seen
        return Status(
            raw_uid=self.intake.raw_uid,
            sample_name=self.label,
            energies_done=len(self.energies),
            energies_planned=len(self.stack.energy_eV),
            frames_written=seen,
            frames_reconstructed=reconstructed,
            frames_lost=seen - reconstructed if self.finished else self._failed_frames,
            lag_s=next(reversed(self._lag_s.values()), 0.0),
            lag_s_max=max(self._lag_s.values(), default=0.0),
            elapsed_s=time.monotonic() - self._started_s,
            drift_m=self._drift_m(),
            finished=self.finished,
        )

    def revision(self, changed: tuple[int, ...]) -> Revision:
        """The results as they are now, under the names of the vocabulary."""
        stack = self.stack
        arrays: dict[str, np.ndarray] = {
            "energy": stack.energy_eV,
            "y": stack.grid.y_m,
            "x": stack.grid.x_m,
            "object": stack.object,
            "absorbance": stack.absorbance,
            "phase": stack.phase,
        }
        if self.energies:
            arrays |= self._probes_and_errors()
        if self.interpretation is not None:
            arrays |= self.interpretation.arrays()
        if self.joint is not None:
            arrays |= self.joint.arrays()
        tables = {"quality/energies": self._quality()} if self.energies else {}
        status = self.status()
        attributes: dict[str, Any] = {
            "recipe": self.recipe.name,
            "options": self.recipe.model_dump(mode="json"),
            "software": f"ptychrome {__version__}",
            "raw_uid": self.intake.raw_uid,
            "sample_name": self.sample_name,
            "preparation": self.preparation,
            "element": self.metadata.element,
            "edge": self.metadata.edge,
            "energies_done": len(self.energies),
            "energies_planned": len(stack.energy_eV),
            "energy_offset_eV": _energy_offset(self.metadata, self.recipe),
            "found_vacuum": bool(stack.found_vacuum),
            "joint_rounds": 0 if self.joint is None else self.joint.rounds_done,
            "frames_written": status.frames_written,
            "frames_reconstructed": status.frames_reconstructed,
            "frames_lost": status.frames_lost,
            "lag_s_max": status.lag_s_max,
            "elapsed_s": status.elapsed_s,
            "dose_material": self.metadata.element,
        }
        if self.check is not None:
            arrays |= self.check.arrays()
            tables |= self.check.tables()
            attributes |= self.check.attributes()
        return Revision(
            self.intake.raw_uid, self.sample_name, attributes, arrays, tables, changed, self.finished
        )

    def _probes_and_errors(self) -> dict[str, np.ndarray]:
        first = next(iter(self.energies.values()))
        n = len(self.stack.energy_eV)
        window = first.geometry.shape
        probe = np.full((n, len(first.reconstruction.probe), *window), np.nan, np.complex64)
        sweeps = max(len(energy.reconstruction.error) for energy in self.energies.values())
        error = np.full((n, sweeps), np.nan, np.float32)
        for place, energy in self.energies.items():
            probe[place] = central(energy.reconstruction.probe, window)
            error[place, : len(energy.reconstruction.error)] = energy.reconstruction.error
        return {"probe": probe, "quality/error": error}

    def _shift_m(self, places: list[int]) -> dict[str, np.ndarray]:
        """What aligns these energies, along y and x in the CXI frame, (n,) float64 each, m."""
        orientation, shift = self.stack.grid.orientation, self.stack.shift_m[places]
        return {"y": shift[:, 0] * orientation.row_sign, "x": shift[:, 1] * orientation.column_sign}

    def _drift_m(self) -> tuple[float, float]:
        """(x, y) of the newest energy's sample against the first one's, m."""
        if not self.energies:
            return 0.0, 0.0
        shift = self._shift_m([next(iter(self.energies)), next(reversed(self.energies))])
        return float(shift["x"][0] - shift["x"][1]), float(shift["y"][0] - shift["y"][1])

    def _quality(self) -> dict[str, np.ndarray]:
        places = sorted(self.energies)
        energies = [self.energies[place] for place in places]
        element, lit_fraction = self.metadata.element, self.recipe.stack.lit_fraction
        figures = [energy_figures(energy, element, lit_fraction) for energy in energies]
        lag = {self._place(index): seconds for index, seconds in self._lag_s.items()}
        return {
            "energy_eV": self.stack.energy_eV[places],
            "r_factor": np.array([energy.reconstruction.error[-1] for energy in energies]),
            **{f"shift_{axis}_m": self._shift_m(places)[axis] for axis in "yx"},
            "photons": np.array([energy.photons for energy in energies]),
            "frames": np.array([energy.frames for energy in energies]),
            "lag_s": np.array([lag.get(place, np.nan) for place in places]),
            **{name: np.array([each[name] for each in figures]) for name in figures[0]},
        }


def _energy_offset(metadata: ScanMetadata, recipe: Recipe) -> float:
    """What the foil says, by the recipe or else by the start document, eV."""
    own = recipe.stack.energy_offset_eV
    return metadata.energy_offset_eV if own is None else own
