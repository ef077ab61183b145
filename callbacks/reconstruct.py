"""From a job to a reconstruction: reads the frames and calls the engines; runs in any worker."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import h5py
import hdf5plugin  # noqa: F401  (registers the detector's compression filters)
import numpy as np
from numpy.typing import NDArray

from ptychrome.analysis.engines import Prior, Reconstruction, run, start
from ptychrome.analysis.optics import kb_probe
from ptychrome.analysis.options import Stage
from ptychrome.analysis.recipe import Recipe
from ptychrome.analysis.scan import DataError, DiffractionData, Orientation, ScanGeometry, prepare
from ptychrome.analysis.sidebands import fill_unseen_sidebands
from ptychrome.analysis.warm_start import continue_from
from ptychrome.callbacks.intake import EnergyJob, FrameFile
from ptychrome.schema import ScanMetadata

PROBE_WINDOWS = 2  # width of the calculated probe: what engines with integrating pixels make use of


@dataclass(frozen=True)
class ReconstructedEnergy:
    """One finished energy.

    Attributes
    ----------
    index : int
        Place on the planned energy axis.
    geometry : ScanGeometry
    reconstruction : Reconstruction
    photons : float
        Photons per frame of the unattenuated beam.
    frames : int
        Frames that went in.
    """

    index: int
    geometry: ScanGeometry
    reconstruction: Reconstruction
    photons: float
    frames: int

    def with_reconstruction(self, reconstruction: Reconstruction) -> ReconstructedEnergy:
        """The same energy, reconstructed further."""
        return replace(self, reconstruction=reconstruction)


@dataclass(frozen=True, eq=False)
class Refinement:
    """One energy of a joint refinement, to be refined once more.

    Attributes
    ----------
    job : EnergyJob
    energy : ReconstructedEnergy
        Where it stands.
    prior : Prior or None
        What all energies together say of its object.
    """

    job: EnergyJob
    energy: ReconstructedEnergy
    prior: Prior | None

    @property
    def energy_eV(self) -> float:
        """Planned photon energy, eV."""
        return self.job.energy_eV


def refine(task: Refinement, recipe: Recipe) -> ReconstructedEnergy:
    """Refine one energy with what the others say, also of what its own frames do not show.

    Parameters
    ----------
    task : Refinement
    recipe : Recipe
        With options ``joint``.

    Raises
    ------
    DataError
        If the frames cannot be read any more.
    ptychrome.analysis.engines.ReconstructionError
        If an engine diverges.
    """
    assert recipe.joint is not None
    data, _ = load(task.job, task.energy.geometry)
    (result,) = deque(run(data, task.energy.reconstruction, recipe.joint.refine, task.prior), maxlen=1)
    return task.energy.with_reconstruction(result)


def _result(
    data: DiffractionData, guess: Reconstruction, stages: tuple[Stage, ...], recipe: Recipe
) -> Reconstruction:
    result = guess
    for stage in stages:
        (result,) = deque(run(data, result, (stage,)), maxlen=1)
        if recipe.fill_sidebands:
            result = fill_unseen_sidebands(data, result)
    return result


def geometry_at(metadata: ScanMetadata, energy_eV: float) -> ScanGeometry:
    """Geometry of one planned energy, with frames whose rows run along x transposed.

    Raises
    ------
    DataError
        If the detector is not aligned with the laboratory.
    """
    detector = metadata.geometry
    orientation = Orientation.from_steps(detector.row_step, detector.column_step)
    (rows, columns), (row_pixel_m, column_pixel_m) = detector.shape, detector.pixel_size_m
    if orientation.transpose:
        rows, columns, row_pixel_m, column_pixel_m = columns, rows, column_pixel_m, row_pixel_m
    (y_low, y_high), (x_low, x_high) = metadata.extent_m
    return ScanGeometry(
        energy_eV=energy_eV,
        shape=(rows, columns),
        detector_pixel_m=(row_pixel_m, column_pixel_m),
        distance_m=detector.distance_m,
        orientation=orientation,
        center_m=(-(y_low + y_high) / 2, -(x_low + x_high) / 2),
    )


def reconstruct(
    job: EnergyJob, recipe: Recipe, neighbour: ReconstructedEnergy | None = None
) -> ReconstructedEnergy:
    """Reconstruct one energy.

    Parameters
    ----------
    job : EnergyJob
    recipe : Recipe
        Its stages ``reconstruct``, or ``warm`` where it has them and a finished energy is given.
    neighbour : ReconstructedEnergy, optional
        A finished energy close by.

    Raises
    ------
    DataError
        If the frames cannot be read or do not fit the positions.
    ptychrome.analysis.engines.ReconstructionError
        If an engine diverges.
    """
    geometry = geometry_at(job.metadata, job.energy_eV)
    data, stored_probe = load(job, geometry)
    if neighbour is not None and recipe.warm:
        stages, finished = recipe.warm, neighbour.reconstruction
        guess = continue_from(data, geometry, finished, neighbour.geometry, stages[0].backend)
    else:
        probe = calculated_probe(job.metadata, geometry) if stored_probe is None else stored_probe
        guess, stages = start(data, probe), recipe.reconstruct
    result = _result(data, guess, stages, recipe)
    photons = float(np.sum(np.abs(guess.probe) ** 2))  # with those on unmeasured pixels
    return ReconstructedEnergy(job.index, geometry, result, photons, len(job.frames))


def calculated_probe(metadata: ScanMetadata, geometry: ScanGeometry) -> NDArray[np.complex64]:
    """(2 ny, 2 nx) complex64, the KB focus that the metadata describes, with its tails beyond the window."""
    model, (ny, nx) = metadata.probe, geometry.shape
    return kb_probe(
        (PROBE_WINDOWS * ny, PROBE_WINDOWS * nx),
        geometry.pixel_m,
        geometry.energy_eV,
        fwhm_m=model.fwhm_m,
        fwhm_energy_eV=model.fwhm_energy_eV or min(metadata.energies_eV),
        defocus_m=model.defocus_m,
    )


def load(job: EnergyJob, geometry: ScanGeometry) -> tuple[DiffractionData, NDArray[np.complex64] | None]:
    """Read the frames of a job and prepare them; also the stored start probe, if there is one.

    Raises
    ------
    DataError
        If a file or a dataset is missing, a frame is not there, or data do not fit together.
    """
    by_file: dict[FrameFile, list[tuple[int, int]]] = {}
    for position, (file, frame) in enumerate(job.frames):
        by_file.setdefault(file, []).append((position, frame))
    frames: NDArray | None = None
    mask = dark = probe = None
    for file, pairs in by_file.items():
        stack, mask, dark, probe = _read(file, [frame for _, frame in pairs])
        if frames is None:
            frames = np.empty((len(job.frames), *stack.shape[1:]), stack.dtype)
        frames[[position for position, _ in pairs]] = stack
    if frames is None:
        raise DataError(f"no frame arrived at {job.energy_eV:.2f} eV; check the detector")
    if geometry.orientation.transpose:
        frames = frames.swapaxes(1, 2)
        mask, dark, probe = (None if a is None else np.swapaxes(a, -1, -2) for a in (mask, dark, probe))
    data = prepare(
        frames,
        geometry,
        job.stage_yx_m,
        mask=mask,
        dark=dark,
        i0=job.i0,
        travel_yx_m=job.metadata.travel_m,
    )
    return data, probe


def _read(
    file: FrameFile, indices: list[int]
) -> tuple[NDArray, NDArray | None, NDArray | None, NDArray | None]:
    """The frames of `indices`, in that order, then mask, dark and start probe."""
    top, bottom, left, right = file.window or (None,) * 4
    window = (..., slice(top, bottom), slice(left, right))
    try:
        with h5py.File(file.path, "r", swmr=True, locking=False) as handle:
            dataset = handle[file.dataset]
            order = np.argsort(indices)
            wanted = np.asarray(indices)[order]
            if wanted[-1] >= len(dataset):
                raise DataError(
                    f"{file.path}: {file.dataset} holds {len(dataset)} frames; "
                    f"frame {wanted[-1]} was announced"
                )
            contiguous = wanted[-1] - wanted[0] + 1 == len(wanted)
            which = slice(wanted[0], wanted[-1] + 1) if contiguous else wanted
            read = dataset[(which, *window[1:])]
            stack = np.empty_like(read)
            stack[order] = read
        with h5py.File(file.master or file.path, "r", swmr=True, locking=False) as handle:
            mask, dark, probe = (
                None if path is None else handle[path][()] for path in (file.mask, file.dark, file.probe)
            )
    except (OSError, KeyError) as error:
        raise DataError(f"{file.path}: cannot read {file.dataset}: {error}") from error
    mask, dark = (None if array is None else array[window] for array in (mask, dark))
    if probe is not None:
        probe = np.reshape(probe, (-1, *probe.shape[-2:])).astype(np.complex64)
    return stack, mask, dark, probe
