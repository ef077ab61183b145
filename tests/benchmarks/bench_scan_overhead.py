"""What control and analysis cost a scan: ``python tests/benchmarks/bench_scan_overhead.py --help``.

The same scan in real time, with and without the analysis of a full session subscribed (Tiled, analysis
process, reconstructing workers). Order alternates, so that whatever else the machine does meets both alike.
The requirement is a ratio of the medians of at most 1.05.

The overhead per point is the median time between events of a row, without the exposure and without what the
step of the stage takes by itself (velocity and settling). The simulation's frame is computed during the
exposure, as a real one is exposed then, and is not counted; ``--control-only`` refuses exposures that are too
short for that. Counted is what is left: messages and documents of the RunEngine, devices, Channel Access,
writing the frame so that others can read it, and the IOC (in Python), which handles requests and posts.
The requirement, without analysis: at most 5 ms in-process, 15 ms through Channel Access, be it motors. With
``--control-only`` there is no session, and nothing but that is measured, in about a minute; ``--parts`` then
says where the time goes: the median time of each message of a point, of which exposure and step are a part.

With ``--fly``, the dead time of fly scans without analysis: the share of an energy's time beyond frames ×
exposure, within lines (from the first to the last frame of each) and with turn-arounds and documents.
The requirement is 5 % at 100 frames per second, turn-arounds included. The stage's own turn-around is printed
apart. The simulation must keep up with the pace, so frames are small.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptychrome.profiles.ioc import IOCOptions, IOCProcess, ioc_settings, search_on_a_free_port

PORT = search_on_a_free_port()  # before ophyd is imported

from bluesky import RunEngine  # noqa: E402
from bluesky import plan_stubs as bps  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from ptychrome.devices.flyer import RAMP_S  # noqa: E402
from ptychrome.devices.simulated import simulated_beamline  # noqa: E402
from ptychrome.devices.twin import TwinBeamline  # noqa: E402
from ptychrome.plans import fly_spectro_ptycho, rows, spectro_ptycho, square  # noqa: E402
from ptychrome.profiles.beamline import beamline  # noqa: E402
from ptychrome.profiles.channel_access import prepare_channel_access  # noqa: E402
from ptychrome.profiles.session import Session, open_session  # noqa: E402
from ptychrome.profiles.settings import load_recipe  # noqa: E402
from ptychrome.schema import validate_start  # noqa: E402

FIRST_EV, STEP_EV, STEP_M = 5474.0, 0.75, 150e-9
STEP_S = STEP_M / 20e-6 + 0.005  # of the simulated stage, both ways of control: velocity and settling
TURN_S = max(STEP_S, 2 * RAMP_S)  # of the flyers: step to the next line, run-down and run-up meanwhile


def scan_s(RE: RunEngine, beamline: Any, arguments: argparse.Namespace) -> tuple[float, float]:
    """Wall seconds of one scan, once the monochromator stands at its first energy, and overhead per point."""
    RE(bps.mv(beamline.dcm.energy, FIRST_EV))
    begin = time.perf_counter()
    events: list[float] = []
    RE(
        spectro_ptycho(
            [beamline.eiger],
            beamline.dcm,
            beamline.stage,
            energies=[FIRST_EV + STEP_EV * i for i in range(arguments.energies)],
            trajectory=square((arguments.side - 1) * STEP_M, STEP_M),
            exposure_s=arguments.exposure_s,
            sample_name="P1",
        ),
        {"event": lambda name, event: events.append(time.perf_counter())},
    )
    steps = [later - earlier for earlier, later in itertools.pairwise(events)]
    return time.perf_counter() - begin, statistics.median(steps) - arguments.exposure_s - STEP_S


@contextmanager
def beamline_for(arguments: argparse.Namespace, frames: Path) -> Iterator[Any]:
    """The devices, in-process or behind an IOC."""
    if arguments.control == "twin":
        twin = TwinBeamline("P1", frame_pixels=arguments.frame_pixels)
        yield simulated_beamline(twin, frames, clock=1.0)
        return
    options = IOCOptions(frame_pixels=arguments.frame_pixels, port=PORT)
    prefix = {"piezo": "SIM:Piezo:", "motors": "SIM:Stage:"}[arguments.control]
    settings = ioc_settings(options, stage={"kind": arguments.control, "prefix": prefix})
    prepare_channel_access(settings.channel_access)
    with IOCProcess(options):
        devices = beamline(settings, frames)
        assert devices.wait(60.0) == {}
        yield devices


def measure(
    session: Session, beamline: Any, arguments: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds and overheads of every scan; each ``with`` starts with an idle analysis, then a busy one."""
    engines = {"without": RunEngine(md_validator=validate_start), "with": session.RE}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    overheads: dict[str, list[float]] = {name: [] for name in engines}
    for repeat in range(arguments.repeats + 1):
        for name in sorted(engines, reverse=not repeat % 2):
            duration, overhead = scan_s(engines[name], beamline, arguments)
            behind = len(session.runs.unfinished)
            session.wait()
            if repeat:  # the first round starts the workers and fills caches
                seconds[name].append(duration)
                overheads[name].append(overhead)
            print(
                f"round {repeat} {name:8s}{duration:8.3f} s, {1e3 * overhead:5.1f} ms overhead per point"
                + (", analysis still busy at the end" if behind else ""),
                flush=True,
            )
    return seconds, overheads


def dead_time(beamline: Any, arguments: argparse.Namespace) -> tuple[float, float]:
    """Share of dead time within lines and of whole energies, of one fly scan."""
    pages: list[list[float]] = []  # of each line, when each frame was taken

    def take(name: str, doc: Any) -> None:
        if name == "event_page":
            pages.append(doc["timestamps"]["eiger_total"])

    RE = RunEngine(md_validator=validate_start)
    RE(
        fly_spectro_ptycho(
            beamline.flyer,
            beamline.dcm,
            energies=[FIRST_EV + STEP_EV * i for i in range(arguments.energies)],
            trajectory=rows((arguments.side - 1) * STEP_M, STEP_M / 2, STEP_M),
            exposure_s=arguments.exposure_s,
        ),
        take,
    )
    within = statistics.median(
        (times[-1] - times[0]) / ((len(times) - 1) * arguments.exposure_s) for times in pages
    )
    # from the first frame of a line to that of the line below it, within an energy
    lines = [
        later[0] - earlier[0]
        for number, (earlier, later) in enumerate(itertools.pairwise(pages), 1)
        if number % arguments.side
    ]
    return within - 1, statistics.median(lines) / (len(pages[0]) * arguments.exposure_s) - 1


def fly(arguments: argparse.Namespace) -> None:
    """Measure and print the dead time of fly scans."""
    with (
        threadpool_limits(1),
        tempfile.TemporaryDirectory(prefix="ptychrome-bench-") as folder,
        beamline_for(arguments, Path(folder)) as devices,
    ):
        shares = []
        for repeat in range(arguments.repeats):
            shares.append(dead_time(devices, arguments))
            print(f"scan {repeat + 1} of {arguments.repeats}: {shares[-1][1]:.2%}", flush=True)
    frames = 2 * arguments.side - 1
    print(f"{frames} frames a line, {arguments.frame_pixels}², {1 / arguments.exposure_s:g} Hz")
    for name, values in zip(("within lines", "with turn-arounds"), zip(*shares, strict=True), strict=True):
        print(f"dead time {name:18s} median {statistics.median(values):.2%}, at most {max(values):.2%}")
    print(f"of which the stage's turn-around takes {TURN_S / (frames * arguments.exposure_s):.2%}")


def check_exposure(arguments: argparse.Namespace) -> None:
    """Refuse exposures during which the frame could not be computed."""
    twin = TwinBeamline("P1", frame_pixels=arguments.frame_pixels)
    twin.energy_eV = FIRST_EV
    seconds = []
    for _ in range(20):
        begin = time.perf_counter()
        twin.expose(arguments.exposure_s)
        seconds.append(time.perf_counter() - begin)
    frame_s = statistics.median(seconds[1:])  # the first one makes the forward model
    print(f"a frame of {arguments.frame_pixels}² takes {1e3 * frame_s:.1f} ms to compute", flush=True)
    if 2 * frame_s > arguments.exposure_s:  # twice: processors have other things to do too
        raise SystemExit(f"expected exposures of at least {2e3 * frame_s:.0f} ms, or smaller frames")


class Parts:
    """Time from each message of a point to the next one, as a `RunEngine.msg_hook`."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._last: tuple[float, str] | None = None

    def __call__(self, msg: Any) -> None:
        now = time.perf_counter()
        if self._last is not None:
            begin, name = self._last
            self.seconds[name].append(now - begin)
        what = msg.obj.name if msg.obj is not None else msg.kwargs.get("group") or ""
        self._last = (now, f"{msg.command} {what}")

    def report(self, points: int) -> None:
        """Print medians of what there is at (nearly) every point."""
        for name, values in self.seconds.items():
            if len(values) > points / 2:
                print(f"  {name:24s}{1e3 * statistics.median(values):8.2f} ms")


def control_only(arguments: argparse.Namespace) -> None:
    """Measure and print the overhead per point where no analysis runs."""
    engine = RunEngine(md_validator=validate_start)
    values = []
    with (
        threadpool_limits(1),
        tempfile.TemporaryDirectory(prefix="ptychrome-bench-") as folder,
        beamline_for(arguments, Path(folder)) as devices,
    ):
        check_exposure(arguments)
        parts = Parts()
        for repeat in range(arguments.repeats + 1):
            engine.msg_hook = parts if repeat and arguments.parts else None
            _, overhead = scan_s(engine, devices, arguments)
            print(f"scan {repeat} of {arguments.repeats}: {1e3 * overhead:.1f} ms", flush=True)
            if repeat:  # the first one fills caches
                values.append(1e3 * overhead)
    print(f"{arguments.control}, {arguments.frame_pixels}², {arguments.exposure_s * 1e3:g} ms exposures")
    print(f"overhead per point, median {statistics.median(values):.1f} ms, at most {max(values):.1f} ms")
    if arguments.parts:
        parts.report(arguments.repeats * arguments.energies * arguments.side**2)


def main() -> None:
    """Measure and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control", choices=("twin", "piezo", "motors"), default="twin")
    parser.add_argument("--energies", type=int, help="default 4, with --control-only and --fly 1")
    parser.add_argument("--side", type=int, default=8, help="positions: side × side")
    parser.add_argument("--frame-pixels", type=int, help="default 128, with --fly 32")
    parser.add_argument("--exposure-s", type=float, help="default 0.05, with --fly 0.01")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--fly", action="store_true", help="dead time of fly scans instead")
    parser.add_argument("--control-only", action="store_true", help="overhead per point, without a session")
    parser.add_argument("--parts", action="store_true", help="with --control-only: where the time goes")
    arguments = parser.parse_args()
    if arguments.energies is None:
        arguments.energies = 1 if arguments.control_only or arguments.fly else 4
    if arguments.frame_pixels is None:
        arguments.frame_pixels = 32 if arguments.fly else 128
    if arguments.exposure_s is None:
        arguments.exposure_s = 0.01 if arguments.fly else 0.05
    if arguments.fly:
        fly(arguments)
        return
    if arguments.control_only:
        control_only(arguments)
        return
    with (
        tempfile.TemporaryDirectory(prefix="ptychrome-bench-") as folder,
        open_session(Path(folder), load_recipe("live")) as session,
        beamline_for(arguments, session.frames) as devices,
    ):
        seconds, overheads = measure(session, devices, arguments)
        session.progress()
        session.finish()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    frames = arguments.energies * arguments.side**2
    print(f"{frames} frames of {arguments.frame_pixels}², {arguments.exposure_s * 1e3:g} ms exposures")
    for name, median in medians.items():
        print(f"{name:8s} median {median:.3f} s, from {min(seconds[name]):.3f} to {max(seconds[name]):.3f} s")
        print(f"         overhead per point, median {1e3 * statistics.median(overheads[name]):.1f} ms")
    print(f"ratio {medians['with'] / medians['without']:.3f} (expected at most 1.05)")


if __name__ == "__main__":
    main()
