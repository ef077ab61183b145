"""What an engine starts from and what it yields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ptychrome.analysis.scan import DiffractionData, nearest

MOSTLY_SEEN = 0.5  # of the probe's light on measured pixels
OFF_CENTRE = 0.5  # detector pixels that the light may lie beside that of the start probe
LEAST_SEEN = 0.03  # of the probe's light on measured pixels: with less the power of the beam is a guess
LEAST_COMMON = 0.1  # Bhattacharyya coefficient of two distributions of light
NEW_MODE = 0.1  # of the probe's power
EXTENT_SHARE = 0.9  # of the probe's power within its extent


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
    """First guess: an object of unity and the given probe, scaled to the photons of the beam.

    These are `data.photons` over the share of the probe's light that falls on measured pixels: where the
    direct beam saturates, most of the light is not in the frames, and from a tenth of the power an object
    takes hundreds of sweeps to come back.

    Where the light of the frames lies beside that of the probe by more than `OFF_CENTRE`, the probe is tilted
    to meet it: a beam off the middle of the frames. Engines would bring that to the object, too, whose outer
    pixels do not follow.

    Parameters
    ----------
    data : DiffractionData
    probe : (ny, nx) or (modes, ny, nx) complex64
        Calculated or warm-start probe; the array itself is not altered.

    Raises
    ------
    ReconstructionError
        If the probe is smaller than the frames, holds NaN, is empty, sends its light elsewhere than where
        the frames have it or where nearly none of it is measured, or is narrower than the distance of
        neighbouring positions.
    """
    probe = np.array(probe, dtype=np.complex64, ndmin=3)
    window = data.amplitude.shape[1:]
    if probe.ndim != 3 or min(np.subtract(probe.shape[1:], window)) < 0:
        raise ReconstructionError(
            f"the start probe has shape {probe.shape}; expected (modes, ny, nx) with at least the {window} "
            "of the frames"
        )
    power = float(np.sum(np.abs(probe) ** 2))
    if not np.isfinite(power) or power == 0:
        raise ReconstructionError("the start probe is empty or holds NaN; expected a wave")
    light = _Light.of(data, probe)
    photons = data.photons / light.measured_share()
    _check_overlap(data, probe)
    if light.mostly_seen:  # behind a beam stop, scattered light tells nothing of the probe
        light.check_common()
        probe = _tilted(probe, light.off_centre(), window)
    probe *= np.float32(np.sqrt(photons / power))
    shape = data.object_shape
    return Reconstruction(np.ones(shape, np.complex64), probe, np.zeros(shape, np.float32))


def beam_photons(data: DiffractionData, probe: NDArray[np.complex64]) -> float:
    """Photons per frame of the unattenuated beam, with those that fell on unmeasured pixels.

    Parameters
    ----------
    data : DiffractionData
    probe : (modes, ny, nx) complex64
        Of any power; its far field tells the share of the light on measured pixels.

    Raises
    ------
    ReconstructionError
        If less than `LEAST_SEEN` of it is measured.
    """
    return data.photons / _Light.of(data, probe).measured_share()


@dataclass(frozen=True)
class _Light:
    """Where the probe sends its light and where the frames have it; zero frequency at [0, 0].

    Attributes
    ----------
    far : (ny, nx) float32
        Far field of the probe, any unit.
    mean : (ny, nx) float32
        Mean of the frames where measured, photons.
    seen : (ny, nx) float64
        Share of the frames in which a pixel was measured.
    """

    far: NDArray[np.float32]
    mean: NDArray[np.float32]
    seen: NDArray[np.float64]

    @classmethod
    def of(cls, data: DiffractionData, probe: NDArray[np.complex64]) -> _Light:
        far = np.sum(np.abs(fft.fft2(wrapped(probe, data.amplitude.shape[1:]))) ** 2, axis=0)
        measured = data.amplitude >= 0
        seen = np.count_nonzero(measured, axis=0)
        mean = np.sum(data.amplitude**2, axis=0, where=measured) / np.maximum(seen, 1)
        return cls(far, mean, seen / len(data.amplitude))

    def measured_share(self) -> float:
        """Share of the probe's light on pixels that were measured, mean over frames."""
        share = float(np.sum(self.far * self.seen) / np.sum(self.far))
        if share < LEAST_SEEN:
            raise ReconstructionError(
                f"only {share:.2g} of the direct beam falls on measured pixels, the rest on masked, flagged "
                f"or saturated ones; expected at least {LEAST_SEEN:g}, or the beam's power and the contrast "
                "of the sample cannot be told apart; expose shorter, attenuate, or check mask and start probe"
            )
        return share

    @property
    def mostly_seen(self) -> bool:
        """Whether most of the probe's light falls on pixels that some frame measured."""
        return bool(np.sum(self.far[self.seen > 0]) >= MOSTLY_SEEN * np.sum(self.far))

    def check_common(self) -> None:
        """Mean frame and far field, as distributions, must have something in common."""
        seen = self.seen > 0
        norm = np.sqrt(np.sum(self.mean) * np.sum(self.far[seen]))
        common = np.sum(np.sqrt(self.mean * self.far)[seen]) / norm
        if common < LEAST_COMMON:
            raise ReconstructionError(
                f"the start probe and the frames send their light to different pixels (overlap "
                f"{common:.2g}); check the beam's centre on the detector, its distance and pixel, and the "
                "width of the focus"
            )

    def off_centre(self) -> NDArray[np.float64]:
        """From the centroid of the far field to that of the mean frame, (row, column) pixels; or zero."""
        centroids = []
        for light in (self.far * (self.seen > 0), self.mean):
            sums = light.sum(axis=1), light.sum(axis=0)
            total = max(float(light.sum()), 1e-30)
            centroids.append([fft.fftfreq(len(v), 1 / len(v)) @ v / total for v in sums])
        offset = np.subtract(centroids[1], centroids[0])
        return np.where(np.abs(offset).max() > OFF_CENTRE, offset, 0.0)


def _tilted(
    probe: NDArray[np.complex64], pixels: NDArray[np.float64], window: tuple[int, ...]
) -> NDArray[np.complex64]:
    """The probe with its far field moved by (row, column) detector pixels of a window."""
    y, x = (
        np.exp(2j * np.pi * move / n * (np.arange(m) - m // 2))
        for move, n, m in zip(pixels, window, probe.shape[1:], strict=True)
    )
    return (probe * (y[:, None] * x)).astype(np.complex64)


def _check_overlap(data: DiffractionData, probe: NDArray[np.complex64]) -> None:
    power = np.sum(np.abs(probe) ** 2, axis=0, dtype=np.float64)
    y, x = np.indices(power.shape) - np.array(power.shape)[:, None, None] // 2
    y, x = y - np.average(y, weights=power), x - np.average(x, weights=power)
    distance = np.hypot(y * data.pixel_m[0], x * data.pixel_m[1]).ravel()
    order = np.argsort(distance)
    share = np.cumsum(power.ravel()[order]) / np.sum(power)
    extent_m = 2 * float(distance[order][np.searchsorted(share, EXTENT_SHARE)])
    apart_m = nearest((data.corner + data.fraction) * np.asarray(data.pixel_m))
    if apart_m > extent_m:
        raise ReconstructionError(
            f"neighbouring positions are {apart_m:.2e} m apart, but {EXTENT_SHARE:.0%} of the start probe "
            f"lie within {extent_m:.2e} m; ptychography needs overlap: check the step and the probe"
        )


def with_modes(probe: NDArray[np.complex64], count: int) -> NDArray[np.complex64]:
    """Probe modes of a wanted number: the first ones, or new ones that are derivatives of the first.

    A source of finite size, or a beam or sample that trembles, adds up shifted probes: its modes are close
    to the derivatives of the probe, along x first.

    Parameters
    ----------
    probe : (modes, n, n) complex64
    count : int

    Returns
    -------
    (count, n, n) complex64
        Of the same power; new modes carry 10 % each.
    """
    modes = list(probe[:count])
    power = float(np.sum(np.abs(probe) ** 2))
    far = fft.fft2(probe[0])
    q = [fft.fftfreq(n) for n in probe.shape[1:]]
    for order in range(len(modes), count):
        along = q[1][None, :] if order % 2 else q[0][:, None]
        derivative = fft.ifft2(far * (1j * along) ** ((order + 1) // 2))
        modes.append(derivative * np.sqrt(NEW_MODE * power / np.sum(np.abs(derivative) ** 2)))
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


def wrapped(probe: NDArray[np.complex64], shape: tuple[int, int]) -> NDArray[np.complex64]:
    """A probe (m, my, mx) as a window of `shape` sees it: what lies beyond comes in on the other side."""
    (ny, nx), (my, mx) = shape, probe.shape[1:]
    out = np.zeros((len(probe), ny, nx), np.complex64)
    rows = (np.arange(my) - my // 2 + ny // 2) % ny
    columns = (np.arange(mx) - mx // 2 + nx // 2) % nx
    for total, mode in zip(out, probe, strict=True):
        np.add.at(total, (rows[:, None], columns[None, :]), mode)
    return out


def central(probe: NDArray[np.complex64], window: tuple[int, int]) -> NDArray[np.complex64]:
    """The middle of wide probe modes (modes, my, mx): (modes, ny, nx), the part within a frame's window."""
    (ny, nx), (my, mx) = window, probe.shape[1:]
    top, left = my // 2 - ny // 2, mx // 2 - nx // 2
    return probe[:, top : top + ny, left : left + nx]
