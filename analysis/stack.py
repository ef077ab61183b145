"""The stack of reconstructed energies on one grid, grown one energy at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptychrome.analysis.engines import Reconstruction
from ptychrome.analysis.grid import CommonGrid, pixel_average
from ptychrome.analysis.normalise import absorbance_of, normalise, phase_of
from ptychrome.analysis.options import StackOptions
from ptychrome.analysis.registration import register
from ptychrome.analysis.scan import ScanGeometry


@dataclass(frozen=True)
class EnergyStack:
    """What is known so far of the sample at all planned energies.

    Attributes
    ----------
    energy_eV : (n_energy,) float64
        Planned energies, ascending, eV.
    grid : CommonGrid
        Grid of the images.
    object : (n_energy, ny, nx) complex64
        Normalised transmission, vacuum = 1; NaN where not yet measured.
    field : (ny, nx) bool
        Pixels well lit at every energy so far.
    vacuum : (ny, nx) bool
        Pixels taken as vacuum.
    found_vacuum : bool
        Whether vacuum could be told from matter at the first energy.
    shift_m : (n_energy, 2) float64
        Shift applied to each energy along rows and columns, m; NaN where not yet measured.
    reference : (ny, nx) float64
        Sum of the registered phases, rad: the mean is what the next energy is registered on.
    """

    energy_eV: NDArray[np.float64]
    grid: CommonGrid
    object: NDArray[np.complex64]
    field: NDArray[np.bool_]
    vacuum: NDArray[np.bool_]
    found_vacuum: bool
    shift_m: NDArray[np.float64]
    reference: NDArray[np.float64]

    @classmethod
    def empty(cls, energy_eV: NDArray[np.float64], grid: CommonGrid) -> EnergyStack:
        """A stack with nothing measured yet."""
        n = len(energy_eV)
        return cls(
            energy_eV=np.asarray(energy_eV, dtype=np.float64),
            grid=grid,
            object=np.full((n, *grid.shape), np.nan + 1j * np.nan, np.complex64),
            field=np.ones(grid.shape, bool),
            vacuum=np.zeros(grid.shape, bool),
            found_vacuum=False,
            shift_m=np.full((n, 2), np.nan),
            reference=np.zeros(grid.shape),
        )

    @property
    def done(self) -> NDArray[np.bool_]:
        """(n_energy,) bool, the energies measured so far."""
        return np.isfinite(self.shift_m[:, 0])

    @property
    def particle(self) -> NDArray[np.bool_]:
        """(ny, nx) bool, pixels of the field that hold matter."""
        return self.field & ~self.vacuum

    @property
    def absorbance(self) -> NDArray[np.float32]:
        """(n_energy, ny, nx) float32, μt = −2 ln|O|; NaN where not yet measured."""
        return absorbance_of(self.object)

    @property
    def phase(self) -> NDArray[np.float32]:
        """(n_energy, ny, nx) float32, rad, vacuum = 0 and negative in matter; NaN where not yet measured."""
        return phase_of(self.object)


def add_energy(
    stack: EnergyStack,
    index: int,
    geometry: ScanGeometry,
    reconstruction: Reconstruction,
    options: StackOptions,
) -> EnergyStack:
    """A new stack with one more energy: brought to the common grid, normalised and registered.

    Parameters
    ----------
    stack : EnergyStack
    index : int
        Place on the energy axis.
    geometry : ScanGeometry
        Geometry of that energy.
    reconstruction : Reconstruction
        Its result on the free-running grid.
    options : StackOptions

    Returns
    -------
    EnergyStack
    """
    grid = stack.grid
    lit = reconstruction.illumination / reconstruction.illumination.max()
    obj = pixel_average(reconstruction.object) if options.pixel_average else reconstruction.object
    first = normalise(obj, lit > options.lit_fraction, light=lit)
    light = grid.resample(lit, geometry, order=1, outside=0.0)
    field = light > options.lit_fraction
    shift = np.zeros(2)
    count = int(stack.done.sum())
    if count:
        mean_phase = stack.reference / count
        for _ in range(options.registration_passes):
            moved = grid.resample(first.object, geometry, (shift[0], shift[1]))
            moved = normalise(moved, field, stack.vacuum if stack.found_vacuum else None, light=light).object
            both = field & stack.field
            shift += grid.pixel_m * np.array(register(mean_phase * both, phase_of(moved) * both))
    obj = grid.resample(first.object, geometry, (shift[0], shift[1]))
    final = normalise(obj, field, stack.vacuum if count and stack.found_vacuum else None, light=light)
    objects, shifts = stack.object.copy(), stack.shift_m.copy()
    replaced = np.nan_to_num(phase_of(objects[index])) if np.isfinite(shifts[index, 0]) else 0.0
    objects[index], shifts[index] = final.object, shift
    return replace(
        stack,
        object=objects,
        shift_m=shifts,
        field=stack.field & field,
        vacuum=stack.vacuum if count else final.vacuum,
        found_vacuum=stack.found_vacuum if count else final.found_vacuum,
        reference=stack.reference + phase_of(final.object) - replaced,
    )
