"""How good the results of a run are: figures of every energy, and one check of a whole reconstruction."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ptychrome.analysis.engines import Reconstruction, run, start
from ptychrome.analysis.engines.forward import ForwardModel
from ptychrome.analysis.normalise import normalise
from ptychrome.analysis.options import EngineOptions, EpieOptions, MlOptions, Stage
from ptychrome.analysis.quality import dose_Gy, fluence_per_m2, residual_map
from ptychrome.analysis.recipe import PRTF_LEAST_STARTS, Recipe
from ptychrome.analysis.resolution import (
    RingCorrelation,
    TransferFunction,
    checkerboard_halves,
    fourier_ring_correlation,
    phase_retrieval_transfer_function,
)
from ptychrome.analysis.scan import DataError, DiffractionData
from ptychrome.callbacks.intake import EnergyJob
from ptychrome.callbacks.reconstruct import ReconstructedEnergy, calculated_probe, load

PRTF_POSITIONS = 64  # whose far fields are kept of every start; rings hold pixels enough
SEEDS_APART = 1000  # stages count on from their seed


@dataclass(frozen=True, eq=False)
class QualityTask:
    """One finished energy to be checked.

    Attributes
    ----------
    job : EnergyJob
    energy : ReconstructedEnergy
        Its result.
    stage : Stage
        The last one that it went through: what the far field is compared with is that stage's model.
    """

    job: EnergyJob
    energy: ReconstructedEnergy
    stage: Stage


@dataclass(frozen=True, eq=False)
class QualityCheck:
    """What the check of one energy found.

    Attributes
    ----------
    energy_eV : float
    detector_residual : (ny, nx) float32
        Mean of 4 (√I − |Ψ|)² over positions as the detector sees it, 1: photon noise; NaN: not measured.
    correlation : RingCorrelation or None
        Of two independent halves of the scan.
    transfer : TransferFunction or None
        Of several starts.
    starts : int
        How many.
    """

    energy_eV: float
    detector_residual: NDArray[np.float32]
    correlation: RingCorrelation | None = None
    transfer: TransferFunction | None = None
    starts: int = 0

    def arrays(self) -> dict[str, np.ndarray]:
        """For ``quality/``."""
        return {"quality/detector_residual": self.detector_residual}

    def tables(self) -> dict[str, dict[str, np.ndarray]]:
        """Curves, for ``quality/``; frequencies in 1/m."""
        tables = {}
        if (curve := self.correlation) is not None:
            tables["quality/frc"] = {
                "frequency": curve.frequency,
                "correlation": curve.correlation,
                "half_bit": curve.half_bit,
                "one_bit": curve.one_bit,
            }
        if self.transfer is not None:
            tables["quality/prtf"] = {"frequency": self.transfer.frequency, "prtf": self.transfer.prtf}
        return tables

    def attributes(self) -> dict[str, float]:
        """The energy and the resolutions, full periods in m; those that could not be told are left out."""
        found = {"quality_energy_eV": self.energy_eV}
        if self.correlation is not None:
            found["resolution_half_bit_m"] = self.correlation.resolution_m("half_bit")
            found["resolution_one_bit_m"] = self.correlation.resolution_m("one_bit")
        if self.transfer is not None and self.starts >= PRTF_LEAST_STARTS:
            found["resolution_prtf_m"] = self.transfer.resolution_m()
        return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def energy_figures(energy: ReconstructedEnergy, element: str, lit_fraction: float) -> Mapping[str, float]:
    """Fluence, dose, residual and position shifts of one energy; NaN where unknown.

    Parameters
    ----------
    energy : ReconstructedEnergy
    element : str
        What the dose is told for, as a pure element: the compound is not known.
    lit_fraction : float
        Of the largest Σ|P|²: pixels with less are not in the field, of which the median is taken.

    Returns
    -------
    mapping of str to float
        ``fluence`` (photons/m²), ``dose_Gy``, ``residual`` (median over frames of 4 (√I − |Ψ|)², 1: photon
        noise) and ``position_rms_m`` (length of the refined shifts).
    """
    result, pixel_m = energy.reconstruction, energy.geometry.pixel_m
    lit = result.illumination > lit_fraction * result.illumination.max()
    fluence = residual = np.nan
    if lit.any():
        fluence = float(np.median(fluence_per_m2(result.illumination[lit], pixel_m)))
    if result.frame_error is not None:
        residual = float(np.median(result.frame_error))
    shift_m = np.zeros((1, 2)) if result.shift_px is None else result.shift_px * np.asarray(pixel_m)
    return {
        "fluence": fluence,
        "dose_Gy": fluence * _dose_per_fluence(energy.geometry.energy_eV, element),
        "residual": residual,
        "position_rms_m": float(np.sqrt(np.mean(np.sum(shift_m**2, axis=1)))),
    }


@lru_cache(maxsize=1024)
def _dose_per_fluence(energy_eV: float, element: str) -> float:
    """Gy per photon/m² in a pure element, NaN if it has no tables; looking them up takes milliseconds."""
    try:
        return float(dose_Gy(1.0, energy_eV, element))
    except DataError:
        return float("nan")


def assess(task: QualityTask, recipe: Recipe) -> QualityCheck:
    """Check one energy as far as the recipe asks; runs in any worker.

    Parameters
    ----------
    task : QualityTask
    recipe : Recipe
        Its options ``quality``, and its stages ``reconstruct`` for the halves and the starts.

    Returns
    -------
    QualityCheck

    Raises
    ------
    DataError
        If the frames cannot be read any more, or an image or a recipe is not fit for what is asked.
    ptychrome.analysis.engines.ReconstructionError
        If a half or a start cannot be reconstructed.
    """
    data, stored = load(task.job, task.energy.geometry)
    probe = calculated_probe(task.job.metadata, task.energy.geometry) if stored is None else stored
    residual = detector_residual(data, task.energy.reconstruction, task.stage)
    correlation = transfer = None
    if recipe.quality.halves:
        halves = checkerboard_halves(task.job.stage_yx_m)
        correlation = halves_correlation(data, probe, halves, recipe)
    if recipe.quality.prtf_starts:
        transfer = transfer_of_starts(data, probe, recipe)
    return QualityCheck(task.energy.geometry.energy_eV, residual, correlation, transfer,
                        recipe.quality.prtf_starts)  # fmt: skip


def detector_residual(
    data: DiffractionData, reconstruction: Reconstruction, stage: Stage
) -> NDArray[np.float32]:
    """Where on the detector the model fails.

    Parameters
    ----------
    data : DiffractionData
    reconstruction : Reconstruction
    stage : Stage
        Whose model of the measurement it is.

    Returns
    -------
    (ny, nx) float32
        Mean of 4 (√I − |Ψ|)² over positions, zero frequency in the middle; 1 is photon noise.
    """
    points = (stage.pixel_points, stage.motion_points) if isinstance(stage, MlOptions) else ()
    model = ForwardModel(data, stage, *points)
    of_pixels, _ = residual_map(data.amplitude, model.amplitudes(model.begin(reconstruction)))
    return fft.fftshift(of_pixels).astype(np.float32)


def halves_correlation(
    data: DiffractionData,
    probe: NDArray[np.complex64],
    halves: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    recipe: Recipe,
) -> RingCorrelation:
    """Ring correlation of two reconstructions that share no frame, each from unity and the start probe.

    What they do share shows as agreement: the start probe, the positions where they are not refined and
    the pixels of the detector.

    Parameters
    ----------
    data : DiffractionData
    probe : (modes, my, mx) or (my, mx) complex64
        Start probe.
    halves : two of (n,) bool
        Positions of each half.
    recipe : Recipe
        Stages ``reconstruct``, and the share of light that a pixel needs to be compared.

    Returns
    -------
    RingCorrelation

    Raises
    ------
    DataError
        If too few pixels are lit in both.
    ptychrome.analysis.engines.ReconstructionError
        If a half cannot be reconstructed.
    """
    images, fields = [], []
    for members in halves:
        result = _from_scratch(part(data, members), probe, recipe.reconstruct)
        lit = result.illumination > recipe.stack.lit_fraction * result.illumination.max()
        images.append(normalise(result.object, lit).object)
        fields.append(lit)
    return fourier_ring_correlation(images[0], images[1], data.pixel_m, fields[0] & fields[1])


def transfer_of_starts(
    data: DiffractionData, probe: NDArray[np.complex64], recipe: Recipe
) -> TransferFunction:
    """Transfer function of reconstructions of the same frames with other random orders of the positions.

    Parameters
    ----------
    data : DiffractionData
    probe : (modes, my, mx) or (my, mx) complex64
        Start probe of all.
    recipe : Recipe
        Stages ``reconstruct`` and the number of starts.

    Returns
    -------
    TransferFunction
        From at most 64 positions spread over the scan.

    Raises
    ------
    DataError
        If no stage has a random order, so that all starts would be one and the same.
    ptychrome.analysis.engines.ReconstructionError
        If a start cannot be reconstructed.
    """
    if not any(_in_random_order(stage) for stage in recipe.reconstruct):
        raise DataError(
            "prtf_starts needs starts that differ, and no stage has a random order of positions; "
            "expected one with engine 'epie' or 'rpie', or 'ml' in groups"
        )
    count = len(data.amplitude)
    some = np.unique(np.linspace(0, count - 1, min(count, PRTF_POSITIONS)).astype(np.int64))
    seen, waves = part(data, some), []
    for number in range(recipe.quality.prtf_starts):
        result = _from_scratch(data, probe, _reseeded(recipe.reconstruct, number))
        assert result.shift_px is not None
        assert result.scale is not None
        result = replace(result, shift_px=result.shift_px[some], scale=result.scale[some])
        waves.append(far_fields(seen, result, recipe.reconstruct[-1].backend))
    return phase_retrieval_transfer_function(waves, seen.amplitude, data.pixel_m)


def part(data: DiffractionData, members: NDArray) -> DiffractionData:
    """Some positions of a scan on the same grid; `members` are (n,) bool or (k,) int64."""
    return replace(
        data,
        amplitude=data.amplitude[members],
        corner=data.corner[members],
        fraction=data.fraction[members],
        scale=data.scale[members],
    )


def far_fields(
    data: DiffractionData, reconstruction: Reconstruction, backend: str = "auto"
) -> NDArray[np.complex64]:
    """Far fields of the strongest probe mode at the centres of the pixels.

    Parameters
    ----------
    data : DiffractionData
    reconstruction : Reconstruction
    backend : str

    Returns
    -------
    (n, ny, nx) complex64, √photons
        Zero frequency at [0, 0].
    """
    model = ForwardModel(data, EngineOptions(backend=backend))
    state = model.begin(replace(reconstruction, probe=reconstruction.probe[:1]))
    probe_hat = model.transformed(model.central(state.probe))
    found = []
    for index in model.batches():
        probes = model.probes(probe_hat, model.ramps(state, index))
        waves = model.backend.fft2(model.exit_waves(state.object, probes, index))
        found.append(model.backend.to_host(waves)[:, 0] * state.scale[index, None, None])
    return np.concatenate(found)


def _from_scratch(
    data: DiffractionData, probe: NDArray[np.complex64], stages: tuple[Stage, ...]
) -> Reconstruction:
    (result,) = deque(run(data, start(data, probe), stages), maxlen=1)
    return result


def _in_random_order(stage: Stage) -> bool:
    return isinstance(stage, EpieOptions) or (isinstance(stage, MlOptions) and stage.groups > 1)


def _reseeded(stages: tuple[Stage, ...], number: int) -> tuple[Stage, ...]:
    return tuple(
        stage.model_copy(update={"seed": stage.seed + SEEDS_APART * number})
        if isinstance(stage, EpieOptions | MlOptions)
        else stage
        for stage in stages
    )
