"""Start an energy from a finished neighbour: one sample, one probe, another wavelength and a little drift."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from ptychrome.analysis.engines import Reconstruction, start
from ptychrome.analysis.engines.forward import ForwardModel
from ptychrome.analysis.options import MlOptions
from ptychrome.analysis.scan import DiffractionData, ScanGeometry

DRIFT_STEPS_PX = (0.8, 0.4)
EVERY = 3  # share of the positions that the drift is measured on


def continue_from(
    data: DiffractionData,
    geometry: ScanGeometry,
    finished: Reconstruction,
    finished_geometry: ScanGeometry,
    backend: str = "auto",
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
    backend : str
        Where the drift is searched, see `backend_of`.

    Returns
    -------
    Reconstruction
    """
    guess = start(data, finished.probe)
    scale = np.asarray(geometry.pixel_m) / np.asarray(finished_geometry.pixel_m)

    def moved(shift: NDArray[np.float64]) -> NDArray[np.complex64]:
        # one interpolation of high order: each one costs fine detail, which takes many sweeps to come back
        centre = np.asarray(data.object_shape) // 2 + shift
        offset = np.asarray(finished.object.shape) // 2 - scale * centre
        change = ndimage.affine_transform(
            finished.object - 1, scale, offset, output_shape=data.object_shape, order=5, mode="constant"
        )
        return (1 + change).astype(np.complex64)

    here = replace(guess, object=moved(np.zeros(2)))
    return replace(guess, object=moved(drift_px(data, here, backend)))


def drift_px(data: DiffractionData, guess: Reconstruction, backend: str = "auto") -> NDArray[np.float64]:
    """How far the sample moved against the scan since the neighbour was measured.

    The error of the model is a parabola of the object's shift near its minimum; a third of the positions
    tells it. Without this step the shift ends up shared between object and probe, a mode that engines
    take tens of sweeps to settle and that trebles the error of the edge energy after twelve.

    Parameters
    ----------
    data : DiffractionData
    guess : Reconstruction
        Probe, and the neighbour's object on the pixels of `data`.
    backend : str

    Returns
    -------
    (2,) float64
        What the object must be shifted by, rows and columns, pixels.
    """
    options = MlOptions(backend=backend)
    # points for pixels: a third of the work, and at most 0.02 pixels from what integrating ones find
    model = ForwardModel(_thinned(data), options, 1, options.motion_points)
    state, ops = model.begin(guess), model.backend
    spectrum = ops.fft2(state.object - 1)

    def error(shift: NDArray[np.float64]) -> float:
        rows, columns = (
            np.exp(-2j * np.pi * fft.fftfreq(n) * by).astype(np.complex64)
            for n, by in zip(data.object_shape, shift, strict=True)
        )
        moved = ops.ifft2(spectrum * ops.asarray(rows[:, None] * columns))
        moments = model.moments(replace(state, object=moved + 1))
        return float(np.sum(moments[:, 0], dtype=np.float64))

    shift = np.zeros(2)
    for step in DRIFT_STEPS_PX:
        here = error(shift)
        move = np.zeros(2)
        for axis in (0, 1):
            unit = step * np.eye(2)[axis]
            ahead, behind = (error(shift + sign * unit) for sign in (1, -1))
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
        scale=data.scale[::EVERY],
    )
