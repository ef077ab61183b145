"""What an engine starts from and what it yields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychrome.analysis.scan import DiffractionData


class ReconstructionError(RuntimeError):
    """A reconstruction that diverged; the message names the engine and the sweep."""


@dataclass(frozen=True)
class Prior:
    """What is known of the object beside the frames: a vacuum region, or what the other energies say.

    Attributes
    ----------
    object : (ny, nx) complex64
        Expected transmission.
    weight : (ny, nx) float32
        Weight of the expectation in units of the weight that the frames have in each pixel; 0: none,
        infinite: the pixel is what is expected.
    """

    object: NDArray[np.complex64]
    weight: NDArray[np.float32]


@dataclass(frozen=True)
class Reconstruction:
    """State of a reconstruction after some sweeps.

    Attributes
    ----------
    object : (ny, nx) complex64
        Transmission on the free-running grid, not yet normalised.
    probe : (modes, n, n) complex64
        √photons, centred on pixel ``(ny // 2, nx // 2)``.
    illumination : (ny, nx) float32
        Σ|P|² over all positions, photons; shows where the object was seen.
    error : tuple of float
        R-factor √(Σ(√I − |Ψ|)² / ΣI) of each sweep so far.
    shift_px : (n, 2) float32 or None
        Refined minus nominal position (row, column), pixels.
    scale : (n,) float32 or None
        Refined amplitude of each frame relative to the probe.
    frame_error : (n,) float32 or None
        4 Σ(√I − |Ψ|)² of each frame over its measured pixels: 1 where only photon noise is left.
    """

    object: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    illumination: NDArray[np.float32]
    error: tuple[float, ...] = ()
    shift_px: NDArray[np.float32] | None = None
    scale: NDArray[np.float32] | None = None
    frame_error: NDArray[np.float32] | None = None


def start(data: DiffractionData, probe: NDArray[np.complex64]) -> Reconstruction:
    """First guess: an object of unity and the given probe, scaled to the measured photons.

    Parameters
    ----------
    data : DiffractionData
    probe : (ny, nx) or (modes, ny, nx) complex64
        Calculated or warm-start probe; the array itself is not altered.

    Raises
    ------
    ReconstructionError
        If the probe does not have the frames' shape, holds NaN, or is empty.
    """
    probe = np.array(probe, dtype=np.complex64, ndmin=3)
    if min(np.subtract(probe.shape[1:], data.amplitude.shape[1:])) < 0:
        raise ReconstructionError(
            f"the start probe has shape {probe.shape[1:]}; expected that of the frames, {data.amplitude.shape[1:]}"
        )
    power = float(np.sum(np.abs(probe) ** 2))
    if not np.isfinite(power) or power == 0:
        raise ReconstructionError("the start probe is empty or holds NaN; expected a wave")
    probe *= np.float32(np.sqrt(data.photons / power))
    shape = data.object_shape
    return Reconstruction(np.ones(shape, np.complex64), probe, np.zeros(shape, np.float32))


def with_modes(probe: NDArray[np.complex64], count: int) -> NDArray[np.complex64]:
    """Probe modes of a wanted number: the first ones, or new ones that are slopes of the first.

    Parameters
    ----------
    probe : (modes, n, n) complex64
    count : int

    Returns
    -------
    (count, n, n) complex64
        Of the same power; new modes carry 2 % each.
    """
    modes = list(probe[:count])
    ny, nx = probe.shape[1:]
    y, x = np.linspace(-1, 1, ny)[:, None], np.linspace(-1, 1, nx)[None, :]
    power = float(np.sum(np.abs(probe) ** 2))
    for order in range(len(modes), count):
        slope = probe[0] * (x if order % 2 else y) ** ((order + 1) // 2)
        modes.append(slope * np.sqrt(0.02 * power / np.sum(np.abs(slope) ** 2)))
    found = np.array(modes, np.complex64)
    return found * np.float32(np.sqrt(power / np.sum(np.abs(found) ** 2)))


def orthogonal(probe: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """The same incoherent sum as orthogonal modes, the strongest first, (modes, n, n) complex64."""
    if len(probe) == 1:
        return probe
    flat = probe.reshape(len(probe), -1)
    _, vectors = np.linalg.eigh(flat.conj() @ flat.T)
    mixed = vectors[:, ::-1].T @ flat
    return mixed.reshape(probe.shape).astype(np.complex64)
