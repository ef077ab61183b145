"""The spectro-ptychography scan without stops: the stage flies along every line of the raster.

Annotations are real objects (no postponed evaluation), so that a queue server can resolve them.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from bluesky import plan_stubs as bps
from bluesky.protocols import Flyable, NamedMovable, Readable
from bluesky.utils import Msg, MsgGenerator

from ptychrome.plans.scan import planned, recorded
from ptychrome.plans.trajectories import Positions, lines

STREAM = "primary"


class LineFlyer(Protocol):
    """What makes a flyer one for ptychography, beside Bluesky's methods of flyers.

    ``detector``: a `ptychrome.plans.scan.FrameDetector`; ``stage_axes``: a device with axes ``x`` and ``y``;
    ``readout_s``: from the end of an exposure to the beginning of the next; ``prepare(line)`` and
    ``check_value(line)``, which raises a ValueError, take ``first_m`` and ``last_m``, (x, y) of the stage in
    the middle of the first and the last exposure, the number of ``frames`` and ``exposure_s``;
    ``collections(frames)``: in how many parts events of a line of so many come at most.
    """

    name: str
    detector: Any
    stage_axes: Any
    readout_s: float

    def check_value(self, line: Mapping[str, Any]) -> None: ...

    def collections(self, frames: int) -> int: ...


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
    the other; events carry the position in the middle of the exposure. Between two lines it turns around. A
    line that is interrupted, or loses a frame, is flown again.

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
        planned_lines = [_line(part, exposure_s) for part in np.split(points, ends)]
        for line, following in zip(planned_lines, [*planned_lines[1:], None], strict=True):
            yield from _fly(pilot, line, following)

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


def _fly(flyer: Any, line: Mapping[str, Any], following: Mapping[str, Any] | None) -> MsgGenerator[None]:
    """One line: checkpoint, run-up, flight, its events; what an interrupted run has of a line is kept.

    The stage sets out for the following line while events are made. After the checkpoint that line is
    prepared again, which costs nothing unless a pause has stopped the stage meanwhile.
    """
    yield Msg("checkpoint")
    try:
        yield Msg("prepare", flyer, line, group="line")
        yield Msg("wait", None, group="line")
        yield Msg("kickoff", flyer, group="flight")
        yield Msg("complete", flyer, group="flight")
        yield Msg("wait", None, group="flight")
        if following is not None:
            yield Msg("prepare", flyer, following, group="line")
    except Exception:
        yield from _collect(flyer, line)
        raise
    yield from _collect(flyer, line)


def _collect(flyer: Any, line: Mapping[str, Any]) -> MsgGenerator[None]:
    """As often as it may take, whatever it takes: when a pause has the line repeated, it may take more."""
    for _ in range(flyer.collections(line["frames"])):
        yield Msg("collect", flyer, name=STREAM, return_payload=False)
