"""Start an energy from a finished neighbour: one sample, one probe, another wavelength and a little drift."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ptychrome.analysis.engines import Reconstruction, start
from ptychrome.analysis.forward import ForwardModel
from ptychrome.analysis.scan import DiffractionData, ScanGeometry

DRIFT_STEPS_PX = (0.8, 0.4)
EVERY = 3  # share of the positions that the drift is measured on
PIXEL_MODES = 3


def continue_from(
    data: DiffractionData, geometry: ScanGeometry, finished: Reconstruction, finished_geometry: ScanGeometry
) -> Reconstruction:
    """First guess from a finished neighbour in energy.

    The window and the probe both scale with the wavelength, so the probe fits as it is; the object is
    brought from the neighbour's pixel to this one's and to where the sample has drifted.

    Parameters
    ----------
    data : DiffractionData
    geometry : ScanGeometry
        Of `data`.
    finished : Reconstruction
    finished_geometry : ScanGeometry

    Returns
    -------
    Reconstruction
    """
    guess = start(data, finished.probe)
    scale = np.asarray(geometry.pixel_m) / np.asarray(finished_geometry.pixel_m)
    offset = np.asarray(finished.object.shape) // 2 - scale * (np.asarray(data.object_shape) // 2)
    change = ndimage.affine_transform(
        finished.object - 1, scale, offset, output_shape=data.object_shape, order=3, mode="constant"
    )
    shift = drift_px(data, change, guess.probe[0])
    return replace(guess, object=_shifted(change, shift))


def drift_px(
    data: DiffractionData, change: NDArray[np.complex64], probe: NDArray[np.complex64]
) -> NDArray[np.float64]:
    """How far the sample moved against the scan since the neighbour was measured.

    The error of the model is a parabola of the object's shift near its minimum; a third of the positions
    tells it. Without this step the shift ends up shared between object and probe, a mode that engines
    take tens of sweeps to settle and that trebles the error of the edge energy after twelve.

    Parameters
    ----------
    data : DiffractionData
    change : (ny, nx) complex64
        Object minus one.
    probe : (n, n) complex64

    Returns
    -------
    (2,) float64
        Rows and columns, pixels.
    """
    model = ForwardModel(_thinned(data), PIXEL_MODES, batch=8)
    shift = np.zeros(2)
    for step in DRIFT_STEPS_PX:
        here = model.error(_shifted(change, shift), probe)
        move = np.zeros(2)
        for axis in (0, 1):
            unit = step * np.eye(2)[axis]
            ahead, behind = (model.error(_shifted(change, shift + sign * unit), probe) for sign in (1, -1))
            curvature = ahead + behind - 2 * here
            slope = (ahead - behind) / 2
            move[axis] = -slope / curvature if curvature > 0 else -2 * np.sign(slope)
        shift += step * np.clip(move, -2, 2)
    return shift


def _thinned(data: DiffractionData) -> DiffractionData:
    return replace(
        data,
        amplitude=data.amplitude[::EVERY],
        corner=data.corner[::EVERY],
        fraction=data.fraction[::EVERY],
    )


def _shifted(change: NDArray[np.complex64], shift: NDArray[np.float64]) -> NDArray[np.complex64]:
    moved = ndimage.shift(change, shift, order=3, mode="constant")
    return (1 + moved).astype(np.complex64)
