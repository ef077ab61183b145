"""The EIGER controlled through areaDetector's ADEiger, its frames taken from its own stream by the session.

ADEiger leaves the stream to others while its ``DataSource`` is ``None``, and then its plugins and its counter
of images see no frame. Whether a frame has come is asked of the receiver, and sums are taken from its files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray
from ophyd import Component as Cpt
from ophyd import EpicsSignalWithRBV
from ophyd.status import SubscriptionStatus
from ophyd.utils.errors import WaitTimeoutError

from ptychrome.devices.assets import FrameAssets
from ptychrome.devices.epics_eiger import YES, DetectorError, EpicsEiger
from ptychrome.devices.frame_file import DATA_DATASET, MASK_DATASET
from ptychrome.devices.signals import Quantity

NO_SOURCE = 0  # DataSource: None, FileWriter, Stream


class FrameArrivals(Protocol):
    """What the receiver of the stream knows, `ptychrome.callbacks.sources.streamed.Arrivals`."""

    def subscribe(self, listener: Callable[[], None]) -> None: ...
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
        self._series: int | None = None
        self._good: tuple[Path, NDArray[np.bool_]] | None = None
        arrivals.subscribe(self._on_arrival)

    def _on_arrival(self) -> None:
        with self._news:
            self._news.notify_all()

    def _watch(self) -> None:
        """Nothing more than `_on_arrival`."""

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
        before = self.cam.sequence_id.get()
        super()._arm()
        begun = SubscriptionStatus(self.cam.sequence_id, lambda value, **_: value != before)
        try:
            begun.wait(self._site.patience_s)
        except WaitTimeoutError as error:
            raise DetectorError(
                f"{self.name} did not begin a series within {self._site.patience_s:g} s "
                f"({self.cam.sequence_id.pvname} is still {before}); look at the detector's State and Error"
            ) from error
        self._series, self._taken = int(self.cam.sequence_id.get()), 0

    def _assets_of(self, name: str) -> FrameAssets:
        assert self._series is not None
        return FrameAssets(self.image_key, self._series, DATA_DATASET, self._site.shape, **self._window())

    def _take(self) -> int:
        assert self._assets is not None
        for retries_left in reversed(range(self._site.retries + 1)):
            if self._series is None:
                self._arm()
                assert self._series is not None
                self._assets.turn_to(self._series)
            index = self._taken
            path = self._take_once(self._series) or self._end_series(self._series)
            if path is not None:
                self._taken = index + 1
                self._sum(path, index)
                return index
            if retries_left:
                self.log.warning("%s: frame %d did not come; it is taken again", self.name, index)
        raise DetectorError(
            f"{self.name}: a frame did not come through the stream ({self._site.patience_s:g} s after the "
            f"last exposure, {self._site.retries} retries). The frames so far are good; look at the "
            "detector, its StreamDropped and who else receives its stream, then scan again"
        )

    def _take_once(self, series: int) -> Path | None:
        """Take one frame, and wait until it is on disk; None if it is late."""
        if self._found(series) is not None:
            raise DetectorError(
                f"{self.name}: frame {self._taken} of series {series} came without a trigger; something else "
                "triggers. The frames so far are good"
            )
        self.cam.special_trigger_button.put(1, wait=False)
        self._wait_for(lambda: self._found(series) is not None, self._exposure_s + self._site.patience_s)
        path = self._found(series)
        if path is None and self._closing.is_set():
            raise self._cut_short()
        return path

    def _end_series(self, series: int) -> Path | None:
        """Have the detector send what it still holds; where the frame is now, None if it is lost."""
        assert self._assets is not None
        owner = self._assets.uid
        self._series = None
        self._put_and_see(self.cam.acquire, 0, "stop")
        self._wait_for(lambda: self._arrivals.ended(series, owner), self._site.patience_s)
        return self._found(series)

    def _found(self, series: int) -> Path | None:
        assert self._assets is not None
        return self._arrivals.find(series, self._taken, self._assets.uid)

    def _wait_for(self, there: Callable[[], bool], limit_s: float) -> None:
        with self._news:
            self._news.wait_for(lambda: there() or self._closing.is_set(), limit_s)

    def _sum(self, path: Path, index: int) -> None:
        """Post the sum of a frame's valid pixels, and the counts of its brightest one."""
        row, column = self._site.roi_origin or (0, 0)
        window = slice(row, row + self._site.shape[0]), slice(column, column + self._site.shape[1])
        with h5py.File(path, "r", swmr=True, locking=False) as file:
            frame = file[DATA_DATASET][(index, *window)]
            if self._good is None or self._good[0] != path:
                self._good = path, file[MASK_DATASET][window] == 0
        good = self._good[1]
        valid = good & (frame < np.iinfo(frame.dtype).max)
        self.total.put(float(frame.sum(where=valid, dtype=np.uint64)))
        self.brightest.put(float(frame.max(where=good, initial=0)))

    def _source(self) -> str:
        return f"PV:{self.prefix}cam1:SequenceId"
