"""The EIGER controlled through areaDetector's ADEiger, its frames taken from its own stream by the session.

ADEiger leaves the stream to others while its ``DataSource`` is ``None``, and then its plugins and its counter
of images see no frame. Whether a frame has come is asked of the receiver, and sums are taken from its files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray
from ophyd import Component as Cpt
from ophyd import EpicsSignalWithRBV

from ptychrome.devices.assets import FrameAssets
from ptychrome.devices.detector_site import DetectorError
from ptychrome.devices.epics_eiger import YES, EpicsEiger
from ptychrome.devices.frame_file import DATA_DATASET, MASK_DATASET
from ptychrome.devices.signals import Quantity

NO_SOURCE = 0  # DataSource: None, FileWriter, Stream


class FrameArrivals(Protocol):
    """What the receiver of the stream knows, `ptychrome.callbacks.sources.streamed.Arrivals`."""

    def subscribe(self, listener: Callable[[], None]) -> None: ...
    def begun(self, since: int = 0) -> list[int]: ...
    def find(self, series: int, number: int, owner: str) -> Path | None: ...
    def ended(self, series: int, owner: str) -> bool: ...


class StreamEiger(EpicsEiger):
    """EIGER driven by areaDetector's ADEiger, frames received from its stream.

    A trigger is done when its frame is on the receiver's disk. When one does not come, the series is ended
    and the frame taken again as the first one of another.

    Parameters
    ----------
    arrivals : FrameArrivals
    prefix, site, energy, name, companions
        See `EpicsEiger`. The stream holds the camera's whole frame; with ``site.roi_origin`` readers cut it
        out.
    """

    hdf1 = roi1 = stats1 = totals = totals_acquire = None

    header_detail = Cpt(EpicsSignalWithRBV, "cam1:StreamHdrDetail", string=True, kind="omitted")
    total = Cpt(Quantity, value=0.0, units="counts", kind="hinted")
    brightest = Cpt(Quantity, value=0.0, units="counts", kind="omitted")

    def __init__(self, prefix: str = "", *, arrivals: FrameArrivals, **kwargs: Any) -> None:
        super().__init__(prefix, **kwargs)
        self.image_mask_dataset.put(MASK_DATASET)
        self._arrivals = arrivals
        self._series, self._over = -1, True
        self._good: tuple[Path, NDArray[np.bool_]] | None = None
        arrivals.subscribe(self._on_arrival)

    def _on_arrival(self) -> None:
        with self._news:
            self._news.notify_all()

    def _watch(self) -> None:
        """Nothing more than `_on_arrival`."""
        self._earlier = self._taken = 0

    def _unwatch(self) -> None:
        """As `_watch`."""

    def _settings(self, file_name: str) -> Mapping[str, Any]:
        # header_detail by name: EIGER and EIGER2 count its states in opposite ways
        camera = self._camera_settings() | {"cam.data_source": NO_SOURCE, "cam.stream_enable": YES}
        return camera | {"header_detail": "All"}

    def _check_directory(self) -> None:
        """The receiver looks after its own."""

    def _open_file(self) -> None:
        """The receiver does."""

    def _close_file(self) -> None:
        """As `_open_file`."""

    def _arm(self) -> None:
        """Arm; the series is the one whose header comes then, under the number that the driver names.

        A detector that was restarted may give the number of the series before once more.
        """
        before, named = len(self._arrivals.begun()), -1

        def hear(value: int, **_: Any) -> None:
            nonlocal named
            named = int(value)
            self._on_arrival()

        super()._arm()
        self.cam.sequence_id.subscribe(hear)
        try:
            self._wait_for(lambda: named in self._arrivals.begun(before), self._site.patience_s)
        finally:
            self.cam.sequence_id.clear_sub(hear)
        begun = self._arrivals.begun(before)
        if named not in begun:
            if self._closing.is_set():
                raise self._cut_short()
            raise DetectorError(
                f"{self.name} began no series that is received within {self._site.patience_s:g} s "
                f"({self.cam.sequence_id.pvname} is {named}, headers came of {begun or 'none'}); look at the "
                "detector's State and Error, its StreamEnable and who else receives its stream"
            )
        self._series, self._over = named, False

    def _assets_of(self, name: str) -> FrameAssets:
        return FrameAssets(self.image_key, self._series, DATA_DATASET, self._site.shape, **self._site.window)

    def _take(self) -> int:
        for retries_left in reversed(range(self._site.retries + 1)):
            if self._over:
                self._begin_series()
            if not self._take_once():
                self._end_series()
            if self._found(self._taken) is not None:
                [(total, brightest)] = self._measured(1)
                self.total.put(total)
                self.brightest.put(brightest)
                return self.accept(1)
            if retries_left:
                self.log.warning("%s: frame %d did not come; it is taken again", self.name, self._taken)
        raise DetectorError(
            f"{self.name}: a frame did not come through the stream ({self._site.patience_s:g} s after the "
            f"last exposure, {self._site.retries} retries). The frames so far are good; look at the "
            "detector, its StreamDropped and who else receives its stream, then scan again"
        )

    def _take_once(self) -> bool:
        """Take one frame, and wait until it is on disk; False if it is late."""
        if self._found(self._taken) is not None:
            raise DetectorError(
                f"{self.name}: frame {self._taken - self._earlier} of series {self._series} came without a "
                "trigger; something else triggers. The frames so far are good"
            )
        self.cam.special_trigger_button.put(1, wait=False)
        self._wait_for(lambda: self._found(self._taken) is not None, self._exposure_s + self._site.patience_s)
        came = self._found(self._taken) is not None
        if not came and self._closing.is_set():
            raise self._cut_short()
        return came

    def _end_series(self) -> None:
        """Have the detector send what it still holds."""
        assert self._assets is not None
        owner = self._assets.uid
        self._put_and_see(self.cam.acquire, 0, "stop")
        self._wait_for(lambda: self._arrivals.ended(self._series, owner), self._site.patience_s)
        self._over = True

    def _begin_series(self) -> None:
        assert self._assets is not None
        self._arm()
        self._earlier = self._taken
        self._assets.turn_to(self._taken, self._series)

    def _found(self, number: int) -> Path | None:
        """The file of a frame of the series, by its number since staging; None where it is not there."""
        assert self._assets is not None
        return self._arrivals.find(self._series, number - self._earlier, self._assets.uid)

    @property
    def line_settings(self) -> Mapping[Any, Any]:
        """None: sums are taken from the frames."""
        return {}

    def come(self, count: int, patience_s: float) -> int:
        """See `EpicsEiger`."""

        def come() -> int:
            # one more than expected: something else triggers
            numbers = range(self._taken, self._taken + count + 1)
            return sum(self._found(number) is not None for number in numbers)

        self._wait_for(lambda: come() >= count, patience_s)
        return come()

    def sums(self, count: int) -> list[float]:
        """See `EpicsEiger`."""
        return [total for total, _ in self._measured(count)]

    def give_up(self, count: int) -> Sequence[int]:
        """See `EpicsEiger`."""
        self._end_series()
        triggered = range(self._taken, self._taken + count)
        strays = [number for number in triggered if self._found(number) is not None]
        self._taken += count
        self._begin_series()
        return strays

    def _measured(self, count: int) -> list[tuple[float, float]]:
        """Sum of the valid pixels, and counts of the brightest one, of so many frames that have come."""
        path, first = self._found(self._taken), self._taken - self._earlier
        if path is None:
            return []
        row, column = self._site.roi_origin or (0, 0)
        window = slice(row, row + self._site.shape[0]), slice(column, column + self._site.shape[1])
        measured = []
        with h5py.File(path, "r", swmr=True, locking=False) as file:
            if self._good is None or self._good[0] != path:
                self._good = path, file[MASK_DATASET][window] == 0
            good = self._good[1]
            for index in range(first, first + count):
                frame = file[DATA_DATASET][(index, *window)]
                valid = good & (frame < np.iinfo(frame.dtype).max)
                total, brightest = frame.sum(where=valid, dtype=np.uint64), frame.max(where=good, initial=0)
                measured.append((float(total), float(brightest)))
        return measured

    def _source(self) -> str:
        return f"PV:{self.prefix}cam1:SequenceId"
