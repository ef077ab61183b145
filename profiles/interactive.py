"""A session for people at an IPython prompt: what it says, and how it ends."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any

from bluesky import RunEngine

from ptychrome.callbacks.progress import Status
from ptychrome.profiles.runs import describe
from ptychrome.profiles.session import DOCUMENTS, Session, open_session
from ptychrome.profiles.settings import SessionSettings, load_recipe
from ptychrome.schema import RESULT_ROOT, START_KEY

if TYPE_CHECKING:
    from bluesky.callbacks.best_effort import BestEffortCallback
    from bluesky.utils import PersistentDict

    from ptychrome.profiles.beamline import Beamline
    from ptychrome.profiles.beamline_settings import BeamlineSettings

METADATA = "metadata"
LEAVE_FIRST = 100  # above what multiprocessing itself tidies up
SHOWN = 3  # so many missing records of a device are named


def start_session(settings: SessionSettings, *, stream: str | None = None) -> Session:
    """Open a session that says little and ends in order when Python does.

    It prints the address of the results, a line when a run starts, one when its analysis is finished, and
    one for whatever fails.

    Parameters
    ----------
    settings : SessionSettings
    stream : str, optional
        Address of a detector's stream, ``tcp://host:port``, for frames that do not come as files.

    Raises
    ------
    ptychrome.profiles.errors.UserError
        If the recipe is unknown, the folder cannot be used, the port is taken, or what a stream needs is not
        installed.
    """
    session = open_session(
        settings.directory,
        load_recipe(settings.recipe),
        workers=settings.workers,
        port=settings.tiled_port,
        tiled_uri=settings.tiled_uri,
        frames=settings.frames,
        stream=stream,
        report=_say,
        on_status=_announce,
    )
    # like atexit, and also where Python is a child of multiprocessing, as the worker of a queue server is:
    # there it would wait for ever for the analysis process to end
    Finalize(None, leave, (session,), exitpriority=LEAVE_FIRST)
    session.RE.subscribe(lambda name, start: _say(_heading(session, start)), "start")
    _say(f"raw runs and results appear live at {session.server.web_address()}")
    return session


def best_effort_callback(RE: RunEngine) -> BestEffortCallback:
    """Bluesky's terminal output, subscribed but silent: a scan has thousands of points.

    ``bec.enable_table()``, ``bec.enable_plots()`` and ``bec.enable_baseline()`` bring it back.
    """
    from bluesky.callbacks.best_effort import BestEffortCallback

    bec = BestEffortCallback()
    bec.disable_plots()
    bec.disable_table()
    bec.disable_baseline()
    RE.subscribe(bec)
    return bec


def persistent_metadata(session: Session) -> PersistentDict:
    """Metadata of all runs, kept in the session's folder: what is put there and the scan number stay."""
    from bluesky.utils import PersistentDict

    metadata = PersistentDict(session.directory / METADATA)
    metadata.update(session.RE.md)  # versions
    return metadata


def offer_magics() -> None:
    """Bluesky's magics (``%wa``, ``%mov``, ``%ct``, …) at an IPython prompt; a queue server has none."""
    from bluesky.magics import BlueskyMagics
    from IPython import get_ipython

    if shell := get_ipython():
        shell.register_magics(BlueskyMagics)


def connect_beamline(session: Session, settings: BeamlineSettings) -> Beamline:
    """Make the devices and say which of them are off-line; those connect by themselves later."""
    from ptychrome.profiles.beamline import beamline

    devices = beamline(settings, session.frames, session.arrivals)
    for name, records in devices.wait(settings.channel_access.connect_s).items():
        more = f" and {len(records) - SHOWN} more" if len(records) > SHOWN else ""
        _say(f"{name} is OFF-LINE, nobody serves {', '.join(records[:SHOWN])}{more}")
    return devices


def leave(session: Session) -> None:
    """Wait for the analysis, then stop the server; Ctrl-C leaves at once."""
    try:
        if waiting := session.runs.unfinished:
            _say(f"waiting for the analysis of {len(waiting)} run(s); Ctrl-C leaves at once")
        session.finish()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever presses it again need not see where
        session.finish(0)
        for uid in session.runs.unfinished:
            file = session.directory / DOCUMENTS / f"{uid}.jsonl"
            _say(f"not analysed to the end: ptychrome process {file} --out result.nxs does it anew")
    finally:
        session.close()


def _heading(session: Session, start: Mapping[str, Any]) -> str:
    title = f"scan {start['scan_id']}, {start.get('sample_name', '')} ({start['uid'][:8]})"
    if START_KEY not in start:
        return title
    maps = session.server.web_address(RESULT_ROOT, start["uid"], "maps", "edge_energy")
    return f"{title}: {' energies × '.join(map(str, start['shape']))} positions; map of the edge: {maps}"


def _announce(status: Status) -> None:
    if status.finished:
        _say(describe(status))


def _say(text: str) -> None:
    print(f"[ptychrome] {text}")
