"""What step scans and fly scans share: which devices, what the start document says, one run over energies.

Knows devices by what they can do, not by class: see `FrameDetector` for what a detector brings along.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.protocols import NamedMovable, Readable
from bluesky.utils import MsgGenerator

from ptychrome.edges import edge_near, tabulated_edge_eV
from ptychrome.plans.energies import check_energies
from ptychrome.plans.trajectories import Positions, positions
from ptychrome.schema import START_KEY, DetectorGeometry, ProbeModel, ScanMetadata, SignalKeys

FARTHEST_DRIFT_M = 2e-6  # beyond this a scan follows an error, not a sample


@runtime_checkable
class FrameDetector(Protocol):
    """What makes a detector one for ptychography.

    ``geometry``: fields of `ptychrome.schema.DetectorGeometry`; ``image_key``: data key of its frames;
    ``exposure_time``: settable, s; ``companions``: with ``monitors`` (readables that belong into each event),
    ``shutter`` (set to "open" and "closed") and ``probe`` (fields of `ptychrome.schema.ProbeModel`), the last
    two possibly None.
    """

    name: str
    geometry: Mapping[str, Any]
    image_key: str
    exposure_time: Any
    companions: Any


class Axes(NamedTuple):
    """What the scan moves."""

    energy: Any
    x: Any
    y: Any


@dataclass(frozen=True)
class Scan:
    """A scan of one particle that was found possible, before anything moves.

    Attributes
    ----------
    detector : FrameDetector
    axes : Axes
    energies : list of float, eV
    points : (n, 2) float64, m
        Positions (x, y) at each energy.
    exposure_s : float
    drift : pair of signals or None
        By how much the sample stands beside where it was.
    start : dict
        Start document.
    """

    detector: Any
    axes: Axes
    energies: list[float]
    points: Positions
    exposure_s: float
    drift: tuple[Any, Any] | None
    start: dict[str, Any]


def planned(
    plan_name: str,
    devices: Mapping[str, Any],
    detectors: list[Any],
    dcm: NamedMovable,
    stage: Any,
    *,
    energies: list[float],
    trajectory: Mapping[str, Any],
    exposure_s: float,
    sample_name: str,
    element: str,
    edge: str,
    energy_offset_eV: float | None,
    recentre: Readable | None,
    probe: dict[str, Any] | None,
    md: Mapping[str, Any] | None,
    travel_m: tuple[float, float] = (0.0, 0.0),
) -> MsgGenerator[Scan]:
    """Check what a user asks for and put it into a start document.

    Parameters
    ----------
    plan_name : str
    devices : mapping
        Names of the devices among the plan's arguments.
    detectors, dcm, stage
        Devices, of which exactly one detector takes frames.
    energies, trajectory, exposure_s, sample_name, element, edge, energy_offset_eV, recentre, probe, md
        See `ptychrome.plans.spectro_ptycho`.
    travel_m : (float, float)
        Way (y, x) of the sample during one exposure.

    Raises
    ------
    ValueError
        If anything does not fit.
    """
    energies = check_energies(energies)
    points = positions(trajectory)
    if not (math.isfinite(exposure_s) and exposure_s > 0):
        raise ValueError(f"exposure_s is {exposure_s!r}; expected a positive number of seconds")
    detector = find_frame_detector(detectors)
    axes = Axes(find_axis(dcm, "energy"), find_axis(stage, "x"), find_axis(stage, "y"))
    _check_reach(axes, energies, points)
    absorber = (element, edge) if element else edge_near(energies)
    tabulated_edge_eV(*absorber)  # refused here if there is no such edge
    drift = None if recentre is None else (find_axis(recentre, "x"), find_axis(recentre, "y"))
    if energy_offset_eV is None:
        energy_offset_eV = (yield from bps.rd(dcm.energy_offset)) if hasattr(dcm, "energy_offset") else 0.0
    block = _scan_metadata(detector, axes, energies, points, probe, absorber, energy_offset_eV, travel_m)
    start = {
        **_start_document(plan_name, detectors, axes, block),
        **({"sample_name": sample_name} if sample_name else {}),
        "plan_args": {
            **devices,
            "energies": energies,
            "trajectory": dict(trajectory),
            "exposure_s": exposure_s,
            "sample_name": sample_name,
            "element": absorber[0],
            "edge": absorber[1],
            "energy_offset_eV": energy_offset_eV,
            "recentre": None if recentre is None else recentre.name,
            "probe": probe,
        },
        **(md or {}),
        START_KEY: block.model_dump(mode="json"),
    }
    return Scan(detector, axes, energies, points, exposure_s, drift, start)


def recorded(
    scan: Scan,
    staged: list[Any],
    at_energy: Callable[[Positions], MsgGenerator[None]],
    opening: Callable[[], MsgGenerator[Any]] = bps.null,
) -> MsgGenerator[str]:
    """One run: energies outside, what `at_energy` does at positions inside; the shutter is open meanwhile.

    Parameters
    ----------
    scan : Scan
    staged : list
        Devices to be staged.
    at_energy : callable
        ``at_energy(points)`` is a plan that records all positions, (n, 2) float64, m, at the energy reached.
    opening : callable
        ``opening()`` is a plan for the beginning of the run.

    Returns
    -------
    str
        uid of the run.
    """
    shutter = scan.detector.companions.shutter

    @bpp.stage_decorator(staged)
    @bpp.run_decorator(md=scan.start)
    def scan_all() -> MsgGenerator[None]:
        yield from opening()
        if shutter is not None:
            yield from bps.mv(shutter, "open")
        for index, energy in enumerate(scan.energies):
            yield from bps.checkpoint()
            if index:
                yield from bps.mv(scan.axes.energy, energy)
            here = scan.points if scan.drift is None else scan.points - (yield from _drifted(scan.drift))
            yield from at_energy(here)

    def leave_dark() -> MsgGenerator[None]:
        if shutter is not None:
            yield from bps.mv(shutter, "closed")

    def whole() -> MsgGenerator[str]:
        yield from bps.mv(scan.detector.exposure_time, scan.exposure_s)
        # before the detector is staged, which sets its threshold by it
        yield from bps.mv(scan.axes.energy, scan.energies[0])
        return (yield from scan_all())

    return (yield from bpp.finalize_wrapper(whole(), leave_dark))


def _drifted(drift: tuple[Any, Any]) -> MsgGenerator[Positions]:
    """By how much the sample stands beside where it was, (x, y) float64, m."""
    x, y = drift
    found = np.array([(yield from bps.rd(x)), (yield from bps.rd(y))])
    if not np.hypot(*found) <= FARTHEST_DRIFT_M:
        raise RuntimeError(
            f"the sample has drifted by x {found[0] * 1e9:+.0f} nm, y {found[1] * 1e9:+.0f} nm, more than "
            f"{FARTHEST_DRIFT_M * 1e9:.0f} nm; find_particle before the scan goes on without knowing where"
        )
    return found


def find_frame_detector(detectors: list[Readable]) -> Any:
    """The one detector whose frames are to be reconstructed.

    Raises
    ------
    ValueError
        If there is none, or more than one.
    """
    found = [device for device in detectors if isinstance(device, FrameDetector)]
    if len(found) != 1:
        raise ValueError(
            f"{len(found)} of the detectors {[getattr(each, 'name', each) for each in detectors]} take "
            "diffraction frames; "
            f"expected exactly one with {', '.join(sorted(FrameDetector.__annotations__))}"
        )
    return found[0]


def find_axis(device: Any, name: str) -> Any:
    """An axis of a device.

    Raises
    ------
    ValueError
        If it has none of that name.
    """
    if not hasattr(device, name):
        raise ValueError(
            f"{getattr(device, 'name', device)} has no axis {name!r}; expected a device with one"
        )
    return getattr(device, name)


def _check_reach(axes: Axes, energies: list[float], points: Positions) -> None:
    """Refuse what an axis cannot reach before anything moves (ophyd's LimitError is a ValueError)."""
    for axis, values in zip(axes, (energies, *points.T.tolist()), strict=True):
        for value in (min(values), max(values)):
            axis.check_value(value)


def _scan_metadata(
    detector: Any,
    axes: Axes,
    energies: list[float],
    points: Positions,
    probe: dict[str, Any] | None,
    absorber: tuple[str, str],
    energy_offset_eV: float,
    travel_m: tuple[float, float],
) -> ScanMetadata:
    """The block the analysis starts from; pydantic's ValidationError is a ValueError."""
    (x_low, y_low), (x_high, y_high) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    names = {monitor.name for monitor in detector.companions.monitors}
    return ScanMetadata(
        element=absorber[0],
        edge=absorber[1],
        energies_eV=tuple(energies),
        energy_offset_eV=energy_offset_eV,
        positions_per_energy=(len(points),) * len(energies),
        extent_m=((y_low, y_high), (x_low, x_high)),
        travel_m=travel_m,
        geometry=DetectorGeometry(**detector.geometry),
        probe=ProbeModel(**(detector.companions.probe or {} if probe is None else probe)),
        keys=SignalKeys(
            image=detector.image_key,
            energy=axes.energy.setpoint.name,  # the planned number to the bit, unlike the readback
            x=axes.x.name,
            y=axes.y.name,
            i0="i0" if "i0" in names else None,
            ring_current="ring_current" if "ring_current" in names else None,
        ),
    )


def _start_document(
    plan_name: str, detectors: list[Readable], axes: Axes, scan: ScanMetadata
) -> dict[str, Any]:
    """What Bluesky's own tools look for in a start document."""
    shape = [len(scan.energies_eV), scan.positions_per_energy[0]]
    return {
        "plan_name": plan_name,
        "detectors": [device.name for device in detectors],
        "motors": [axis.name for axis in axes],
        "num_points": math.prod(shape),
        "num_intervals": math.prod(shape) - 1,
        "shape": shape,
        "hints": {
            "dimensions": [[[axes.energy.name], "primary"], [[axes.x.name, axes.y.name], "primary"]],
        },
    }
