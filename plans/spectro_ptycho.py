"""The spectro-ptychography scan: one run per particle, energies outside, positions inside.

Annotations are real objects (no postponed evaluation), so that a queue server can resolve them.
"""

from typing import Any

from bluesky.protocols import NamedMovable, Preparable, Readable
from bluesky.utils import Msg, MsgGenerator, separate_devices

from ptychrome.plans.scan import Axes, planned, recorded
from ptychrome.plans.trajectories import Positions


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
        With axes ``x`` and ``y``: translation of the sample, m. One that can be prepared for a position sets
        out for (x, y) of the next one while the event is made.
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
        If the sample has drifted farther than `ptychrome.plans.scan.FARTHEST_DRIFT_M`; the scan ends there.

    Examples
    --------
    The V K-edge in 40 steps, 21 × 21 positions each::

        RE(spectro_ptycho([eiger], dcm, stage, energies=v_k_edge(), trajectory=square(3e-6, 150e-9)))
    """
    scan = yield from planned(
        "spectro_ptycho",
        {"detectors": [device.name for device in detectors], "dcm": dcm.name, "stage": stage.name},
        detectors,
        dcm,
        stage,
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
    )
    triggered = separate_devices([*detectors, *scan.detector.companions.monitors])
    read = separate_devices([*triggered, stage, dcm])

    def at_energy(points: Positions) -> MsgGenerator[None]:
        places = points.tolist()
        for place, following in zip(places, [*places[1:], None], strict=True):
            departing = None if following is None or not isinstance(stage, Preparable) else stage
            yield from _record(scan.axes, place, triggered, read, departing, following)

    return (yield from recorded(scan, detectors, at_energy))


def _record(
    axes: Axes,
    place: list[float],
    triggered: list[Any],
    read: list[Any],
    departing: Preparable | None,
    following: list[float] | None,
) -> MsgGenerator[None]:
    """One position: checkpoint, move, expose, one event.

    What departs does so when all is read. After the checkpoint it is set to where it is going, which costs
    nothing unless a pause has stopped it meanwhile.

    Messages as from ``bps.mv`` and ``bps.trigger_and_read``, but bare: each of those stubs formats a stack
    trace when called (bluesky's ``@plan``), sixteen times a point, more than all the rest of a point costs.
    """
    yield Msg("checkpoint")
    for axis, position in zip((axes.x, axes.y), place, strict=True):
        yield Msg("set", axis, position, group="position")
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
    if departing is not None:
        yield Msg("prepare", departing, following, group="position")
    yield Msg("save")
