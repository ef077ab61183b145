"""How far a live analysis is: one small record, and how it is shown in a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@dataclass(frozen=True)
class Status:
    """How far the analysis of one run is.

    Attributes
    ----------
    raw_uid, sample_name : str
        The run.
    energies_done, energies_planned : int
        Energies whose maps are out.
    frames_written, frames_reconstructed, frames_lost : int
        Frames announced by the detector; those that are part of the results; those that never will be.
    lag_s, lag_s_max : float
        Seconds from the last frame of an energy to its maps: of the newest energy, and the worst so far.
    elapsed_s : float
        Seconds since the start document.
    drift_m : (float, float)
        (x, y) by which the sample stands beside where it was at the first energy, as of the newest one.
    finished : bool
        Nothing more will come of this run.
    """

    raw_uid: str
    sample_name: str
    energies_done: int
    energies_planned: int
    frames_written: int
    frames_reconstructed: int
    frames_lost: int
    lag_s: float
    lag_s_max: float
    elapsed_s: float
    drift_m: tuple[float, float] = (0.0, 0.0)
    finished: bool = False

    @property
    def frames_behind(self) -> int:
        """Frames on disk that the results do not hold yet."""
        return self.frames_written - self.frames_reconstructed - self.frames_lost

    @property
    def frames_per_s(self) -> float:
        """Frames reconstructed per second since the start."""
        return self.frames_reconstructed / self.elapsed_s if self.elapsed_s > 0 else 0.0


class ProgressDisplay:
    """One line per run in a terminal: energies, frames per second, lag and time left."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} energies"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> ProgressDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def show(self, status: Status) -> None:
        """Redraw the line of one run."""
        if status.raw_uid not in self._tasks:
            name = status.sample_name or status.raw_uid[:8]
            self._tasks[status.raw_uid] = self._progress.add_task(
                name, total=status.energies_planned, note=""
            )
        lost = f", {status.frames_lost} LOST" if status.frames_lost else ""
        note = (
            f"{status.frames_per_s:5.1f} frames/s, lag {status.lag_s:.1f} s, "
            f"{status.frames_behind} frames behind{lost}"
        )
        self._progress.update(self._tasks[status.raw_uid], completed=status.energies_done, note=note)

    def stop(self) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def message(self, text: str) -> None:
        """Print a line above the bars."""
        self.console.print(text, soft_wrap=True, markup=False)

    def warn(self, text: str) -> None:
        """Print a line that something failed above the bars."""
        self.console.print(text, soft_wrap=True, markup=False, style="bold red")
