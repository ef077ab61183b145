"""Utilities of daily use: find the particle, choose the exposure, calibrate the energy, measure the focus."""

import math
from typing import Any

import numpy as np
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.protocols import NamedMovable, Readable
from bluesky.utils import MsgGenerator
from numpy.typing import NDArray

from ptychrome.edges import tabulated_edge_eV
from ptychrome.plans.energies import segments
from ptychrome.plans.scan import find_axis, find_frame_detector
from ptychrome.plans.spectro_ptycho import spectro_ptycho
from ptychrome.plans.trajectories import positions, square
from ptychrome.plans.transmission import Transmission

SIGNIFICANT = 5.0  # standard deviations above the empty field, of what may be a particle
BACKGROUND = 0.5  # quantile: at least half of a map should be empty
MAD_TO_SIGMA = 1.4826  # of a normal distribution
SHORTEST_S, LONGEST_S = 1e-3, 100.0  # exposures that are tried
SHORTER = 0.1  # factor of the next try after a saturated frame
CALIBRATION = "calibrate_energy"


def find_particle(
    detectors: list[Readable],
    stage: Readable,
    *,
    width_m: float = 8e-6,
    step_m: float = 400e-9,
    center_m: list[float] | None = None,
    exposure_s: float = 0.1,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[list[float]]:
    """Map the absorption coarsely, and move the stage to where the particle's centre is in the beam.

    The absorbance of each position is −ln(counts of the frame / counts of the i0 monitor) above the median of
    the map: at least half of it must be empty. The particle is what stands 5 standard deviations above that,
    its centre the centre of mass of the absorbance there. The energy is what it was.

    Parameters
    ----------
    detectors : list
        Exactly one area detector with a monitor ``i0``.
    stage : readable
        With axes ``x`` and ``y``: translation of the sample, m.
    width_m, step_m : float
        Side of the square that is searched, and the distance of its points, m.
    center_m : list of two floats, optional
        Middle (x, y) of the square, m; by default where the stage stands.
    exposure_s : float
        Exposure per position.
    md : dict, optional
        More for the start document.

    Yields
    ------
    Msg

    Returns
    -------
    list of two floats
        (x, y) of the stage with the particle in the beam, m.

    Raises
    ------
    ValueError
        If anything does not fit; raised before the run is opened.
    RuntimeError
        If nothing stands out; the stage is moved to the middle of the square.

    Examples
    --------
    Search 20 × 20 µm around the origin::

        RE(find_particle([eiger], stage, width_m=20e-6, step_m=500e-9, center_m=[0, 0]))
    """
    measurement = Transmission(detectors)
    x_axis, y_axis = find_axis(stage, "x"), find_axis(stage, "y")
    if center_m is None:
        center_m = yield from _position(stage)
    points = positions(square(width_m, step_m, center_m=center_m))
    for axis, reach in zip((x_axis, y_axis), points.T, strict=True):
        for value in (reach.min(), reach.max()):
            axis.check_value(value)

    absorbance: list[float] = []

    def map_field() -> MsgGenerator[None]:
        for x, y in points.tolist():
            yield from bps.mv(x_axis, x, y_axis, y)
            absorbance.append((yield from measurement.expose(stage)))

    start = {
        "plan_name": "find_particle",
        "detectors": [device.name for device in detectors],
        "motors": [x_axis.name, y_axis.name],
        "plan_args": {"width_m": width_m, "step_m": step_m, "center_m": center_m, "exposure_s": exposure_s},
        "num_points": len(points),
        **(md or {}),
    }
    yield from measurement.exposing(map_field(), exposure_s, start)
    try:
        x, y = _centre_of_mass(points, np.array(absorbance))
    except RuntimeError:
        yield from bps.mv(x_axis, center_m[0], y_axis, center_m[1])
        raise
    yield from bps.mv(x_axis, x, y_axis, y)
    return [x, y]


def _position(stage: Readable) -> MsgGenerator[list[float]]:
    """Where a stage stands, (x, y), m."""
    x = yield from bps.rd(find_axis(stage, "x"))
    y = yield from bps.rd(find_axis(stage, "y"))
    return [float(x), float(y)]


def _centre_of_mass(points: NDArray[np.float64], absorbance: NDArray[np.float64]) -> list[float]:
    """Centre (x, y), m, of what stands out of a map's background.

    The noise is told from what lies below the median, where no particle is.
    """
    background = np.nanquantile(absorbance, BACKGROUND)
    above = np.nan_to_num(absorbance - background)
    sigma = MAD_TO_SIGMA * float(np.median(-above[above < 0])) if (above < 0).any() else 0.0
    weight = np.where(above > SIGNIFICANT * sigma, above, 0.0)
    if not weight.any():
        raise RuntimeError(
            f"no particle: nothing stands out of the map by {SIGNIFICANT:g} σ = {SIGNIFICANT * sigma:.1e} in "
            "absorbance; search a wider field, expose longer, or measure behind the edge"
        )
    x, y = (weight @ points / weight.sum()).tolist()
    return [x, y]


def choose_exposure(
    detectors: list[Readable],
    *,
    photons: float = 1e7,
    share: float = 0.5,
    ceiling_hz: float = 2e6,
    start_s: float = 0.01,
    longest_s: float = 10.0,
) -> MsgGenerator[float]:
    """Choose the exposure from frames of the direct beam, and set it.

    It is the time for so many photons per frame, or less where the counter of the brightest pixel would be
    filled to more than `share`. The rate of the brightest pixel must stay below `share` of the detector's
    ceiling, which no exposure can mend. Have nothing in the beam: the direct beam is the brightest.

    Parameters
    ----------
    detectors : list
        Exactly one area detector, with signals ``total``, ``brightest`` and ``bit_depth``.
    photons : float
        Wanted in a frame.
    share : float
        Of the ceiling and of the counter that the brightest pixel may reach, below 1.
    ceiling_hz : float
        Highest count rate of a pixel that the detector counts well, 1/s.
    start_s : float
        First exposure that is tried; while a pixel saturates it is shortened tenfold.
    longest_s : float
        Longest exposure that is chosen.

    Yields
    ------
    Msg

    Returns
    -------
    float
        Exposure that is set now, s.

    Raises
    ------
    ValueError
        If a number is out of range.
    RuntimeError
        If the beam is too bright for the detector, with the factor to attenuate it by, or there is none.

    Examples
    --------
    >>> RE(choose_exposure([eiger], photons=1e8))  # doctest: +SKIP
    """
    detector = find_frame_detector(detectors)
    for name in ("total", "brightest", "bit_depth"):
        if not hasattr(detector, name):
            raise ValueError(f"{detector.name} has no signal {name!r}; expected one")
    limits = {"photons": (photons, math.inf), "share": (share, 1.0), "ceiling_hz": (ceiling_hz, math.inf)}
    limits |= {"start_s": (start_s, LONGEST_S), "longest_s": (longest_s, LONGEST_S)}
    for name, (value, highest) in limits.items():
        if not (0 < value <= highest and math.isfinite(value)):
            raise ValueError(f"{name} is {value!r}; expected a number above 0, at most {highest:g}")
    tried_s, brightest, full = start_s, math.inf, 0.0
    while brightest >= full:
        if tried_s < SHORTEST_S:
            raise RuntimeError(
                f"{detector.name} saturates even at {tried_s / SHORTER:g} s: attenuate the beam tenfold"
            )
        total, brightest = yield from _direct_beam(detector, tried_s)
        full = yield from _largest_count(detector)
        exposed_s, tried_s = tried_s, tried_s * SHORTER
    if not total > 0:
        raise RuntimeError(f"{detector.name} counts nothing in {exposed_s:g} s: is there beam?")
    rate_hz = brightest / exposed_s
    if rate_hz > share * ceiling_hz:
        raise RuntimeError(
            f"the brightest pixel of {detector.name} counts {rate_hz:.2g} / s, more than {share:g} × "
            f"{ceiling_hz:.2g} / s; no exposure helps: attenuate the beam "
            f"{rate_hz / share / ceiling_hz:.2g}-fold"
        )
    wanted_s = min(photons * exposed_s / total, longest_s)
    yield from bps.mv(detector.exposure_time, wanted_s)  # an EIGER chooses its bit depth by that
    chosen_s = min(wanted_s, share * (yield from _largest_count(detector)) / rate_hz)
    yield from bps.mv(detector.exposure_time, chosen_s)
    return chosen_s


def _largest_count(detector: Any) -> MsgGenerator[float]:
    """Of a pixel, at the exposure that is set."""
    return 2.0 ** (yield from bps.rd(detector.bit_depth)) - 1


def _direct_beam(detector: Any, exposure_s: float) -> MsgGenerator[tuple[float, float]]:
    """Counts of a frame and of its brightest pixel; outside of any run."""
    shutter = detector.companions.shutter

    def one_frame() -> MsgGenerator[tuple[float, float]]:
        yield from bps.mv(detector.exposure_time, exposure_s)
        yield from bps.stage(detector)
        if shutter is not None:
            yield from bps.mv(shutter, "open")
        yield from bps.trigger(detector, wait=True)
        return (yield from bps.rd(detector.total)), (yield from bps.rd(detector.brightest))

    def leave() -> MsgGenerator[None]:
        if shutter is not None:
            yield from bps.mv(shutter, "closed")
        yield from bps.unstage(detector)

    return (yield from bpp.finalize_wrapper(one_frame(), leave))


def calibrate_energy(
    detectors: list[Readable],
    dcm: NamedMovable,
    *,
    element: str,
    edge: str = "K",
    range_eV: float = 15.0,
    step_eV: float = 0.5,
    exposures: int = 5,
    exposure_s: float = 0.2,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Scan a metal foil over its edge; the session then says and keeps the offset of the energy scale.

    Put the foil into the beam first, and nothing else. When the run ends, the session compares the first
    steep inflection of the absorption with the tabulated edge, sets ``dcm.energy_offset`` and keeps it in
    ``RE.md``; the scans that follow carry it with them. Nothing moves for it: energies stay those of the
    monochromator.

    Parameters
    ----------
    detectors : list
        Exactly one area detector with a monitor ``i0``.
    dcm : movable
        Monochromator with an ``energy`` axis in eV.
    element, edge : str
        Of the foil.
    range_eV, step_eV : float
        How far to scan before and behind the tabulated edge, and the distance of the points.
    exposures : int
        How many at each point: their mean counts, against the noise of the i0 monitor.
    exposure_s : float
        Of each.
    md : dict, optional
        More for the start document.

    Yields
    ------
    Msg

    Returns
    -------
    str
        uid of the run.

    Raises
    ------
    ValueError
        If anything does not fit; raised before the run is opened.

    Examples
    --------
    >>> RE(calibrate_energy([eiger], dcm, element="V"))  # doctest: +SKIP
    """
    measurement = Transmission(detectors)
    axis = find_axis(dcm, "energy")
    edge_eV = tabulated_edge_eV(element, edge)
    if exposures < 1:
        raise ValueError(f"exposures is {exposures!r}; expected at least 1")
    energies = segments([(edge_eV - range_eV, edge_eV + range_eV, step_eV)])
    for energy in (energies[0], energies[-1]):
        axis.check_value(energy)
    start = {
        "plan_name": CALIBRATION,
        "detectors": [device.name for device in detectors],
        "motors": [axis.name],
        "plan_args": {
            "element": element,
            "edge": edge,
            "range_eV": range_eV,
            "step_eV": step_eV,
            "exposures": exposures,
            "exposure_s": exposure_s,
        },
        "num_points": len(energies) * exposures,
        **(md or {}),
        "foil": {
            "edge_eV": edge_eV,
            "energy": axis.name,
            "before": measurement.i0_key,
            "behind": measurement.total_key,
        },
    }

    def scan() -> MsgGenerator[None]:
        for energy in energies:
            yield from bps.mv(axis, energy)
            for _ in range(exposures):
                yield from measurement.expose(dcm)

    yield from bps.mv(axis, energies[0])
    return (yield from measurement.exposing(scan(), exposure_s, start))


def align_focus(
    detectors: list[Readable],
    dcm: NamedMovable,
    stage: Readable,
    *,
    width_m: float = 1.5e-6,
    step_m: float = 150e-9,
    center_m: list[float] | None = None,
    exposure_s: float = 1.0,
    probe: dict[str, Any] | None = None,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Record a small ptychographic scan at the present energy, from whose probe the session tells the focus.

    Any sample with structure serves. Then ``focus()`` waits for the reconstruction, propagates the probe to
    its waists and says how far the sample stands from the focus of each mirror: move it, or bend the mirrors,
    and repeat. This plan moves nothing but what a scan does.

    Parameters
    ----------
    detectors, dcm, stage, exposure_s, probe, md
        See `spectro_ptycho`.
    width_m, step_m : float
        Side of the scanned square, and the distance of its points, m.
    center_m : list of two floats, optional
        Middle (x, y) of the square, m; by default where the stage stands.

    Yields
    ------
    Msg

    Returns
    -------
    str
        uid of the run.

    Raises
    ------
    ValueError
        If anything does not fit; raised before the run is opened.

    Examples
    --------
    >>> RE(align_focus([eiger], dcm, stage)); focus()  # doctest: +SKIP
    """
    energy = yield from bps.rd(find_axis(dcm, "energy"))
    if center_m is None:
        center_m = yield from _position(stage)
    return (
        yield from spectro_ptycho(
            detectors,
            dcm,
            stage,
            energies=[float(energy)],
            trajectory=square(width_m, step_m, center_m=center_m),
            exposure_s=exposure_s,
            sample_name="focus",
            probe=probe,
            md=md,
        )
    )
