"""The spectro-ptychography scan without stops: the stage flies along every line of the raster.

Annotations are real objects (no postponed evaluation), so that a queue server can resolve them.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from bluesky import plan_stubs as bps
from bluesky.protocols import Flyable, NamedMovable, Readable
from bluesky.utils import Msg, MsgGenerator, short_uid

from ptychrome.plans.scan import planned, recorded
from ptychrome.plans.trajectories import Positions, lines

STREAM = "primary"
COLLECT_S = 0.5  # between events of a flight under way


class LineFlyer(Protocol):
    """What makes a flyer one for ptychography, beside Bluesky's methods of flyers.

    ``detector``: a `ptychrome.plans.scan.FrameDetector`; ``stage_axes``: a device with axes ``x`` and ``y``;
    ``readout_s``: from the end of an exposure to the beginning of the next. ``prepare(lines)`` and
    ``check_value(line)``, which raises a ValueError, take ``first_m`` and ``last_m``, (x, y) of the stage in
    the middle of the first and the last exposure, the number of ``frames`` and ``exposure_s`` of a line. A
    flight may end before its time, at a pause: ``lines_left`` counts the lines for another one.
    ``uncollected`` counts those that can be collected at the moment.
    """

    name: str
    detector: Any
    stage_axes: Any
    readout_s: float
    lines_left: int
    uncollected: int

    def check_value(self, line: Mapping[str, Any]) -> None: ...


def fly_spectro_ptycho(
    flyer: Flyable,
    dcm: NamedMovable,
    *,
    energies: list[float],
    trajectory: dict[str, Any],
    exposure_s: float = 0.01,
    sample_name: str = "",
    element: str = "",
    edge: str = "K",
    energy_offset_eV: float | None = None,
    recentre: Readable | None = None,
    probe: dict[str, Any] | None = None,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Record one particle as `spectro_ptycho` does, with a stage that does not stop for exposures.

    The stage moves along each line of the raster at constant speed while the detector takes one frame after
    the other; events carry the position in the middle of the exposure, and come while the next lines are
    flown. Between two lines the stage turns around. A line that is interrupted, or loses a frame, is flown
    again.

    During an exposure the stage moves by nearly the step between two frames, which blurs the frame. How far
    is in the start document (``travel_m``), and recipes with the engine ``ml`` take it into account; up to a
    quarter of the focus (75 nm) it hardly matters.

    Parameters
    ----------
    flyer : flyable
        Flies lines with a stage and a detector of its own (`LineFlyer`).
    dcm : movable
        Monochromator with an ``energy`` axis in eV.
    energies : list of float
        eV, in the order of the scan; see `ptychrome.plans.energies`.
    trajectory : dict
        One that consists of lines: see `ptychrome.plans.trajectories.square` and `rows`.
    exposure_s : float
        Exposure of a frame.
    sample_name : str
        Name of the particle, for people; by default that of ``RE.md``, if any.
    element, edge : str
        The absorption edge of interest; by default the one that the energies step over.
    energy_offset_eV : float, optional
        What the analysis adds to the energies; by default what the monochromator keeps from
        `calibrate_energy`.
    recentre : readable, optional
        A device such as the session's ``drift``, by which the lines follow the sample; see `spectro_ptycho`.
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
        If anything does not fit, such as a trajectory without lines or a stage that would have to move faster
        than it can; raised before the run is opened.
    RuntimeError
        If the sample has drifted farther than `ptychrome.plans.scan.FARTHEST_DRIFT_M`; the scan ends there.

    Examples
    --------
    A frame every 75 nm, lines 150 nm apart, 100 frames per second::

        RE(fly_spectro_ptycho(flyer, dcm, energies=v_k_edge(), trajectory=rows(3e-6, 75e-9, 150e-9)))
    """
    pilot: Any = _as_line_flyer(flyer)
    parts = lines(trajectory)
    ends = np.cumsum([len(part) for part in parts])[:-1]
    scan = yield from planned(
        "fly_spectro_ptycho",
        {"flyer": pilot.name, "dcm": dcm.name},
        [pilot.detector],
        dcm,
        pilot.stage_axes,
        energies=energies,
        trajectory=trajectory,
        exposure_s=exposure_s,
        sample_name=sample_name,
        element=element,
        edge=edge,
        energy_offset_eV=energy_offset_eV,
        recentre=recentre,
        probe=probe,
        md=md,
        travel_m=_travel_m(parts[0], exposure_s, pilot.readout_s),
    )
    for part in parts:
        pilot.check_value(_line(part, exposure_s))

    def declare() -> MsgGenerator[Any]:
        return (yield from bps.declare_stream(pilot, name=STREAM, collect=True))

    def at_energy(points: Positions) -> MsgGenerator[None]:
        return (yield from _fly(pilot, [_line(part, exposure_s) for part in np.split(points, ends)]))

    return (yield from recorded(scan, [pilot], at_energy, declare))


def _as_line_flyer(flyer: Any) -> Any:
    missing = [name for name in LineFlyer.__annotations__ if not hasattr(flyer, name)]
    if missing:
        raise ValueError(
            f"{getattr(flyer, 'name', flyer)} does not fly lines: it has no {', '.join(missing)}; expected a "
            "flyer such as the session's flyer"
        )
    return flyer


def _travel_m(part: Positions, exposure_s: float, readout_s: float) -> tuple[float, float]:
    """(y, x) by which the stage moves during an exposure; lines there and back count as one."""
    x, y = np.abs(part[1] - part[0]) * exposure_s / (exposure_s + readout_s)
    return float(y), float(x)


def _line(part: Positions, exposure_s: float) -> dict[str, Any]:
    first, last = part[[0, -1]].tolist()
    return {
        "first_m": tuple(first),
        "last_m": tuple(last),
        "frames": len(part),
        "exposure_s": exposure_s,
    }


def _fly(flyer: Any, lines: list[dict[str, Any]]) -> MsgGenerator[None]:
    """All lines of an energy, with their events meanwhile; whatever ends the run, what was flown is kept."""
    yield Msg("checkpoint")
    yield Msg("prepare", flyer, lines, group="lines")
    yield Msg("wait", None, group="lines")
    try:
        yield from _fly_and_collect(flyer)
        while flyer.lines_left:  # a pause has cut the flight short
            yield from _fly_and_collect(flyer)
    except Exception:
        yield Msg("stop", flyer)
        yield from _collect(flyer)
        raise
    # from kickoff on nothing is repeated after a pause; this one, which finds nothing left, ends that
    yield Msg("collect", flyer, name=STREAM, return_payload=False)


def _fly_and_collect(flyer: Any) -> MsgGenerator[None]:
    group = short_uid("flight")
    yield Msg("kickoff", flyer, group=group)
    yield Msg("complete", flyer, group=group)
    # None after a pause
    while (yield Msg("wait", None, group=group, error_on_timeout=False, timeout=COLLECT_S)) is False:
        yield from _collect(flyer)
    yield from _collect(flyer)


def _collect(flyer: Any) -> MsgGenerator[None]:
    while flyer.uncollected:
        yield Msg("collect", flyer, name=STREAM, return_payload=False)
    yield Msg("checkpoint")
