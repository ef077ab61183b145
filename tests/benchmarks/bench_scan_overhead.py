"""How much the live analysis slows a scan: ``python tests/benchmarks/bench_scan_overhead.py --help``.

The same scan in real time, with and without the analysis of a full session subscribed (Tiled, analysis
process, reconstructing workers). Order alternates, so that whatever else the machine does meets both alike.
The requirement is a ratio of the medians of at most 1.05.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from bluesky import RunEngine
from bluesky import plan_stubs as bps

from ptychrome.devices.simulated import SimulatedBeamline, simulated_beamline
from ptychrome.devices.twin import TwinBeamline
from ptychrome.plans import spectro_ptycho, square
from ptychrome.profiles.session import Session, open_session
from ptychrome.profiles.settings import load_recipe
from ptychrome.schema import validate_start

FIRST_EV, STEP_EV, STEP_M = 5474.0, 0.75, 150e-9


def scan_s(RE: RunEngine, beamline: SimulatedBeamline, arguments: argparse.Namespace) -> float:
    """Wall seconds of one scan, once the monochromator stands at its first energy."""
    RE(bps.mv(beamline.dcm.energy, FIRST_EV))
    begin = time.perf_counter()
    RE(
        spectro_ptycho(
            [beamline.eiger],
            beamline.dcm,
            beamline.stage,
            energies=[FIRST_EV + STEP_EV * i for i in range(arguments.energies)],
            trajectory=square((arguments.side - 1) * STEP_M, STEP_M),
            exposure_s=arguments.exposure_s,
            sample_name="P1",
        )
    )
    return time.perf_counter() - begin


def measure(session: Session, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every scan; each ``with`` starts with an idle analysis and runs beside a busy one."""
    twin = TwinBeamline("P1", frame_pixels=arguments.frame_pixels)
    beamline = simulated_beamline(twin, session.frames, clock=1.0)
    engines = {"without": RunEngine(md_validator=validate_start), "with": session.RE}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for repeat in range(arguments.repeats + 1):
        for name in sorted(engines, reverse=not repeat % 2):
            duration = scan_s(engines[name], beamline, arguments)
            behind = len(session.runs.unfinished)
            session.wait()
            if repeat:  # the first round starts the workers and fills caches
                seconds[name].append(duration)
            print(
                f"round {repeat} {name:8s}{duration:8.3f} s"
                + (", analysis still busy at the end" if behind else ""),
                flush=True,
            )
    return seconds


def main() -> None:
    """Measure and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--energies", type=int, default=4)
    parser.add_argument("--side", type=int, default=8, help="positions: side × side")
    parser.add_argument("--frame-pixels", type=int, default=128)
    parser.add_argument("--exposure-s", type=float, default=0.05)
    parser.add_argument("--repeats", type=int, default=4)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="ptychrome-bench-") as folder,
        open_session(Path(folder), load_recipe("live")) as session,
    ):
        seconds = measure(session, arguments)
        session.progress()
        session.finish()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    frames = arguments.energies * arguments.side**2
    print(f"{frames} frames of {arguments.frame_pixels}², {arguments.exposure_s * 1e3:g} ms exposures")
    for name, median in medians.items():
        print(f"{name:8s} median {median:.3f} s, from {min(seconds[name]):.3f} to {max(seconds[name]):.3f} s")
    print(f"ratio {medians['with'] / medians['without']:.3f} (expected at most 1.05)")


if __name__ == "__main__":
    main()
