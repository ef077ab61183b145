"""A simulated EIGER: a real ophyd detector that writes real HDF5 files; its frames come from a function."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from ophyd import Component as Cpt
from ophyd import Device, DeviceStatus, Signal

from ptychrome.devices.assets import Document, FrameAssets
from ptychrome.devices.clock import Clock
from ptychrome.devices.frame_file import DATA_DATASET, MASK_DATASET, FrameFile
from ptychrome.devices.signals import Quantity
from ptychrome.devices.simplon_simulator import SimplonSimulator, SimulatedSeries


class DetectorModel(Protocol):
    """The fixed properties of a detector (the twin's ``detector``).

    ``mask``: (ny, nx) uint32, 0 = good. Masked and saturated pixels read ``2**bit_depth - 1``.
    """

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def pixel_size_m(self) -> tuple[float, float]: ...
    @property
    def distance_m(self) -> float: ...
    @property
    def mask(self) -> NDArray[np.uint32]: ...
    @property
    def bit_depth(self) -> int: ...


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


class SimulatedEiger(Device):
    """Detector with one HDF5 file, or one series of its stream, per staging; one run per staging.

    Parameters
    ----------
    expose : callable
        ``expose(exposure_s)`` returns a frame, (ny, nx) uint32, counts. Called in a thread of the detector,
        never twice at a time.
    model : DetectorModel
    directory : Path
        Where the files go; it must exist.
    name : str
        Data keys start with it: ``<name>_image`` (external) and ``<name>_total``, the sum of valid pixels.
    clock : Clock
    companions : Companions
    stream : SimplonSimulator, optional
        Where the frames go instead of a file.
    """

    exposure_time = Cpt(Quantity, value=1.0, units="s", kind="config")
    threshold_energy = Cpt(Quantity, value=2710.0, units="eV", kind="config")
    bit_depth = Cpt(Signal, value=32, kind="config")
    image_mask_dataset = Cpt(Signal, value=MASK_DATASET, kind="config")
    total = Cpt(Quantity, value=0.0, units="counts", kind="hinted")

    min_free_bytes = 100_000_000  # staging refuses a disk with less than this

    def __init__(
        self,
        expose: Callable[[float], NDArray[np.uint32]],
        model: DetectorModel,
        directory: Path,
        *,
        name: str,
        clock: Clock | None = None,
        companions: Companions | None = None,
        stream: SimplonSimulator | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.companions = companions or Companions()
        self._expose = expose
        self._model = model
        self._directory = Path(directory)
        self._stream = stream
        self.bit_depth.put(int(model.bit_depth))
        self._clock = clock or Clock()
        self._closing = threading.Event()
        self._worker: ThreadPoolExecutor | None = None
        self._file: FrameFile | SimulatedSeries | None = None
        self._assets: FrameAssets | None = None

    @property
    def image_key(self) -> str:
        """Data key of the frames."""
        return f"{self.name}_image"

    @property
    def geometry(self) -> dict[str, Any]:
        """Fields of `ptychrome.schema.DetectorGeometry`."""
        return {
            "shape": [int(n) for n in self._model.shape],
            "pixel_size_m": [float(p) for p in self._model.pixel_size_m],
            "distance_m": float(self._model.distance_m),
        }

    def stage(self) -> list[object]:
        """Open a new file, or begin a series.

        Raises
        ------
        FileNotFoundError
            If the directory does not exist.
        OSError
            If the disk is (nearly) full or cannot be written; or if nobody receives the stream.
        """
        if self._stream is None:
            self._check_directory()
        staged = super().stage()
        try:
            place = self._open()
        except OSError:
            super().unstage()
            raise
        self._assets = FrameAssets(self.image_key, place, DATA_DATASET, self._model.shape)
        self._closing.clear()
        # one worker: exposures that overlap after a pause queue up instead of mixing
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=self.name)
        return staged

    def _open(self) -> Path | int:
        """Open what takes the frames; its path, or the number of the series."""
        if self._stream is not None:
            self._file = self._stream.arm(self._model.mask, self._file_fields())
            return self._file.number
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4().hex[:8]}"
        path = self._directory / f"{self.name}_{stamp}.h5"
        self._file = FrameFile(path, self._model.mask, self._file_fields())
        return path

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
        self._worker.submit(self._acquire, status)
        return status

    def _acquire(self, status: DeviceStatus) -> None:
        """One exposure (in the worker); whatever fails goes to the status, hence to the plan."""
        assert self._file is not None
        assert self._assets is not None
        try:
            started = time.monotonic()
            exposure_s = float(self.exposure_time.get())
            frame = self._expose(exposure_s)
            rest_s = self._clock.wall_s(exposure_s) - (time.monotonic() - started)
            if self._closing.wait(max(rest_s, 0.0)):
                raise RuntimeError(f"{self.name}: exposure cut short because the detector was unstaged")
            self._assets.add(self._file.append(frame))
            self.total.put(self._sum(frame))
        except Exception as error:  # a thread has nobody else to tell
            status.set_exception(error)
        else:
            status.set_finished()

    def _sum(self, frame: NDArray[np.uint32]) -> float:
        valid = (self._model.mask == 0) & (frame < 2**self._model.bit_depth - 1)
        return float(frame.sum(where=valid, dtype=np.uint64))

    def unstage(self) -> list[object]:
        """Cut a running exposure short and close the file."""
        self._closing.set()
        if self._worker is not None:
            self._worker.shutdown(wait=True, cancel_futures=True)
        file, self._worker, self._file, self._assets = self._file, None, None, None
        try:
            if file is not None:
                file.close()
        finally:
            unstaged = super().unstage()
        return unstaged

    def describe(self) -> dict[str, Any]:
        """Data keys of an event; the frames are external."""
        image = {
            "source": f"SIM:{self.name}",
            "dtype": "array",
            "dtype_numpy": "<u4",
            "shape": [int(n) for n in self._model.shape],
            "units": "counts",
            "external": "STREAM:",
        }
        return {**super().describe(), self.image_key: image}

    def collect_asset_docs(self) -> Iterator[tuple[str, Document]]:
        """stream_resource and stream_datum of the frames taken since the last event."""
        if self._assets is not None:
            yield from self._assets.collect()

    def _check_directory(self) -> None:
        if not self._directory.is_dir():
            raise FileNotFoundError(
                f"{self.name} cannot write to {self._directory}: no such directory; "
                "create it or set another one"
            )
        free = shutil.disk_usage(self._directory).free
        if free < self.min_free_bytes:
            raise OSError(
                f"{self.name} cannot write to {self._directory}: {free / 1e6:.0f} MB left on the disk, "
                f"expected at least {self.min_free_bytes / 1e6:.0f} MB; make room or set another directory"
            )

    def _file_fields(self) -> dict[str, Any]:
        y_m, x_m = self._model.pixel_size_m
        return {
            "count_time": float(self.exposure_time.get()),
            "bit_depth_image": int(self.bit_depth.get()),
            "threshold_energy": float(self.threshold_energy.get()),
            "detector_distance": float(self._model.distance_m),
            "x_pixel_size": float(x_m),
            "y_pixel_size": float(y_m),
        }
