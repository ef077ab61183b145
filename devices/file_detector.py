"""What every area detector here has in common, whoever takes and writes the frames."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ophyd import Device, DeviceStatus

from ptychrome.devices.assets import Document, FrameAssets


@dataclass(frozen=True)
class Companions:
    """What belongs to every frame of a detector though nobody wants to name it in each plan.

    Attributes
    ----------
    monitors : tuple of readable devices
        Read into the frame's event.
    shutter : movable device or None
        Set to ``"open"`` for a scan and to ``"closed"`` after it.
    probe : mapping or None
        The beamline's nominal probe, fields of `ptychrome.schema.ProbeModel`.
    """

    monitors: tuple[Any, ...] = ()
    shutter: Any = None
    probe: Mapping[str, Any] | None = None


class FileDetector(Device):
    """Detector that writes one HDF5 file (or sends one series) per staging; one run per staging.

    Subclasses open the file in `stage`, then call `_begin`; they take one frame in `_take` and close the
    file in `unstage`, after `_end`. Data key of the frames, which are external: ``<name>_image``.
    """

    def __init__(self, *args: Any, companions: Companions | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.companions = companions or Companions()
        self._exposing: set[DeviceStatus] = set()
        self._abandoned: set[DeviceStatus] = set()
        self._closing = threading.Event()
        self._worker: ThreadPoolExecutor | None = None
        self._assets: FrameAssets | None = None

    @property
    def image_key(self) -> str:
        """Data key of the frames."""
        return f"{self.name}_image"

    @property
    def geometry(self) -> dict[str, Any]:
        """Fields of `ptychrome.schema.DetectorGeometry`."""
        raise NotImplementedError

    def trigger(self) -> DeviceStatus:
        """Expose and hand on the frame; returns at once, done when the frame is in the file or sent.

        Raises
        ------
        RuntimeError
            If the detector is not staged.
        """
        if self._worker is None:
            raise RuntimeError(f"{self.name} has no open file; stage it before it is triggered")
        status = DeviceStatus(self)
        self._exposing.add(status)
        self._worker.submit(self._acquire, status)
        return status

    def pause(self) -> None:
        """The plan will repeat exposures that are under way, or end: it matters no more if they fail."""
        self._abandoned |= self._exposing

    def describe(self) -> dict[str, Any]:
        """Data keys of an event; the frames are external."""
        image = {
            "source": self._source(),
            "dtype": "array",
            "dtype_numpy": self._dtype(),
            "shape": [int(n) for n in self.geometry["shape"]],
            "units": "counts",
            "external": "STREAM:",
        }
        return {**super().describe(), self.image_key: image}

    def collect_asset_docs(self) -> Iterator[tuple[str, Document]]:
        """stream_resource and stream_datum of the frames taken since the last event."""
        if self._assets is not None:
            yield from self._assets.collect()

    def announce(self, first: int, count: int = 1) -> int:
        """Hand over documents of frames with the next events; for flyers.

        Parameters
        ----------
        first, count : int
            The frames, counted since staging.

        Returns
        -------
        int
            How many were: those that lie in the same file or series as the first one.
        """
        if self._assets is not None:
            count = self._assets.together(first, count)
            self._assets.add(first, count)
        return count

    def _begin(self, assets: FrameAssets) -> None:
        self._assets = assets
        self._closing.clear()
        # one worker: exposures that overlap after a pause queue up instead of mixing
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=self.name)

    def _end(self) -> None:
        """Cut a running exposure short; safe to call when there is none."""
        self._closing.set()
        if self._worker is not None:
            self._worker.shutdown(wait=True, cancel_futures=True)
        self._worker, self._assets = None, None
        for status in list(self._exposing):  # those that waited for their turn
            self._fail(status, self._cut_short())

    def _acquire(self, status: DeviceStatus) -> None:
        """One exposure (in the worker); whatever fails goes to the status, hence to the plan."""
        assert self._assets is not None
        try:
            self._assets.add(self._take())
        except Exception as error:  # a thread has nobody else to tell
            self._fail(status, error)
        else:
            self._exposing.discard(status)
            self._abandoned.discard(status)
            status.set_finished()

    def _fail(self, status: DeviceStatus, error: Exception) -> None:
        self._exposing.discard(status)
        if status in self._abandoned:
            self._abandoned.discard(status)
            status.set_finished()
        else:
            status.set_exception(error)

    def _take(self) -> int:
        """Expose one frame into the file or series; its number. Gives up when `_closing` is set."""
        raise NotImplementedError

    def _cut_short(self) -> RuntimeError:
        return RuntimeError(f"{self.name}: exposure cut short because the detector was unstaged")

    def _source(self) -> str:
        raise NotImplementedError

    def _dtype(self) -> str:
        """Of the frames, as numpy names it."""
        raise NotImplementedError
