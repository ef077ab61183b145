"""The spectro-ptychography scan: one run per particle, energies outside, positions inside.

Knows devices by what they can do, not by class: see `FrameDetector` for what a detector brings along.
Annotations are real objects (no postponed evaluation), so that a queue server can resolve them.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.protocols import NamedMovable, Readable
from bluesky.utils import Msg, MsgGenerator, separate_devices

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


def spectro_ptycho(
    detectors: list[Readable],
    dcm: NamedMovable,
    stage: Readable,
    *,
    energies: list[float],
    trajectory: dict[str, Any],
    exposure_s: float = 1.0,
    sample_name: str = "",
    element: str = "",
    edge: str = "K",
    energy_offset_eV: float | None = None,
    recentre: Readable | None = None,
    probe: dict[str, Any] | None = None,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Record one particle: a ptychographic scan at every energy, in one run.

    Parameters
    ----------
    detectors : list
        Exactly one area detector (`FrameDetector`) and what else is to be read at every position.
    dcm : movable
        Monochromator with an ``energy`` axis in eV.
    stage : readable
        With axes ``x`` and ``y``: translation of the sample, m.
    energies : list of float
        eV, in the order of the scan; see `ptychrome.plans.energies`.
    trajectory : dict
        See `ptychrome.plans.trajectories`.
    exposure_s : float
        Exposure per position.
    sample_name : str
        Name of the particle, for people; by default that of ``RE.md``, if any.
    element, edge : str
        The absorption edge of interest; by default the one that the energies step over.
    energy_offset_eV : float, optional
        What the analysis adds to the energies, because a foil says so; nothing moves for it. By default what
        the monochromator keeps from `calibrate_energy`.
    recentre : readable, optional
        A device such as the session's ``drift``, with signals ``x`` and ``y``: by how much the sample stands
        beside where it was at the first energy, m, as far as is known. Looked at before each energy, whose
        positions then follow the sample.
    probe : dict, optional
        Fields of `ptychrome.schema.ProbeModel`; by default the nominal probe the detector knows of.
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
    RuntimeError
        If the sample has drifted farther than `FARTHEST_DRIFT_M`; the scan ends there.

    Examples
    --------
    The V K-edge in 40 steps, 21 × 21 positions each::

        RE(spectro_ptycho([eiger], dcm, stage, energies=v_k_edge(), trajectory=square(3e-6, 150e-9)))
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
    scan = _scan_metadata(detector, axes, energies, points, probe, absorber, energy_offset_eV)
    start = {
        **_start_document(detectors, axes, scan),
        **({"sample_name": sample_name} if sample_name else {}),
        "plan_args": {
            "detectors": [device.name for device in detectors],
            "dcm": dcm.name,
            "stage": stage.name,
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
        START_KEY: scan.model_dump(mode="json"),
    }
    triggered = separate_devices([*detectors, *detector.companions.monitors])
    read = separate_devices([*triggered, stage, dcm])
    shutter = detector.companions.shutter

    @bpp.stage_decorator(detectors)
    @bpp.run_decorator(md=start)
    def scan_all() -> MsgGenerator[None]:
        if shutter is not None:
            yield from bps.mv(shutter, "open")
        for index, energy in enumerate(energies):
            yield from bps.checkpoint()
            if index:
                yield from bps.mv(axes.energy, energy)
            here = points if drift is None else points - (yield from _drifted(drift))
            for x, y in here.tolist():
                yield from _record(axes, x, y, triggered, read)

    def leave_dark() -> MsgGenerator[None]:
        if shutter is not None:
            yield from bps.mv(shutter, "closed")

    def whole() -> MsgGenerator[str]:
        yield from bps.mv(detector.exposure_time, exposure_s)
        yield from bps.mv(axes.energy, energies[0])  # when staged, a detector sets its threshold by it
        return (yield from scan_all())

    return (yield from bpp.finalize_wrapper(whole(), leave_dark))


def _record(axes: Axes, x: float, y: float, triggered: list[Any], read: list[Any]) -> MsgGenerator[None]:
    """One position: checkpoint, move, expose, one event.

    Messages as from ``bps.mv`` and ``bps.trigger_and_read``, but bare: each of those stubs formats a stack
    trace when called (bluesky's ``@plan``), sixteen times a point, more than all the rest of a point costs.
    """
    yield Msg("checkpoint")
    yield Msg("set", axes.x, x, group="position")
    yield Msg("set", axes.y, y, group="position")
    yield Msg("wait", None, group="position")
    for device in triggered:
        yield Msg("trigger", device, group="exposure")
    yield Msg("wait", None, group="exposure")
    yield Msg("create", None, name="primary")
    try:
        for device in read:
            yield Msg("read", device)
    except Exception:
        yield Msg("drop")
        raise
    yield Msg("save")


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


def _start_document(detectors: list[Readable], axes: Axes, scan: ScanMetadata) -> dict[str, Any]:
    """What Bluesky's own tools look for in a start document."""
    shape = [len(scan.energies_eV), scan.positions_per_energy[0]]
    return {
        "plan_name": "spectro_ptycho",
        "detectors": [device.name for device in detectors],
        "motors": [axis.name for axis in axes],
        "num_points": math.prod(shape),
        "num_intervals": math.prod(shape) - 1,
        "shape": shape,
        "hints": {
            "dimensions": [[[axes.energy.name], "primary"], [[axes.x.name, axes.y.name], "primary"]],
        },
    }
