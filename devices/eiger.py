"""A simulated EIGER: a real ophyd detector that writes real HDF5 files; its frames come from a function."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ophyd import Component as Cpt
from ophyd import DeviceStatus, Signal

from ptychrome.devices.assets import FrameAssets
from ptychrome.devices.clock import Clock
from ptychrome.devices.detector_model import DetectorModel, as_stored
from ptychrome.devices.file_detector import FileDetector
from ptychrome.devices.frame_file import DATA_DATASET, MASK_DATASET, FrameFile
from ptychrome.devices.signals import Quantity
from ptychrome.devices.simplon_simulator import SimplonSimulator, SimulatedSeries


class SimulatedEiger(FileDetector):
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
        Beside these: ``brightest``, the counts of the brightest pixel or the flag of a saturated one.
    clock : Clock
    companions : Companions
        See `ptychrome.devices.file_detector`.
    stream : SimplonSimulator, optional
        Where the frames go instead of a file.
    """

    exposure_time = Cpt(Quantity, value=1.0, units="s", kind="config")
    threshold_energy = Cpt(Quantity, value=2710.0, units="eV", kind="config")
    bit_depth = Cpt(Signal, value=32, kind="config")
    image_mask_dataset = Cpt(Signal, value=MASK_DATASET, kind="config")
    total = Cpt(Quantity, value=0.0, units="counts", kind="hinted")
    brightest = Cpt(Quantity, value=0.0, units="counts", kind="omitted")

    min_free_bytes = 100_000_000  # staging refuses a disk with less than this

    def __init__(
        self,
        expose: Callable[[float], NDArray[np.uint32]],
        model: DetectorModel,
        directory: Path,
        *,
        name: str,
        clock: Clock | None = None,
        stream: SimplonSimulator | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._expose = expose
        self._model = model
        self._directory = Path(directory)
        self._stream = stream
        self.bit_depth.put(int(model.bit_depth))
        self._clock = clock or Clock()
        self._file: FrameFile | SimulatedSeries | None = None
        self._triggered = self._ended = 0.0

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
        self._begin(FrameAssets(self.image_key, place, DATA_DATASET, self._model.shape))
        return staged

    def _open(self) -> Path | int:
        """Open what takes the frames; its path, or the number of the series."""
        if self._stream is not None:
            self._file = self._stream.arm(self._model.mask, self._file_fields())
            return self._file.number
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4().hex[:8]}"
        path = self._directory / f"{self.name}_{stamp}.h5"
        self._file = FrameFile(path, self._model.mask, self._file_fields(), self._model.bit_depth)
        return path

    def trigger(self) -> DeviceStatus:
        """As of every `FileDetector`; the exposure begins now, or when the one before has ended."""
        self._triggered = time.monotonic()
        return super().trigger()

    def _take(self) -> int:
        began = max(self._triggered, self._ended)
        return self.record(began + self._clock.wall_s(float(self.exposure_time.get())))

    def record(self, until: float) -> int:
        """Expose one frame into the file or series, now.

        Parameters
        ----------
        until : float
            By the monotonic clock, when the exposure ends.

        Returns
        -------
        int
            Its index there.

        Raises
        ------
        RuntimeError
            If the detector was unstaged meanwhile, or is not staged.
        OSError
            If the frame cannot be written.
        """
        if self._file is None:
            raise self._cut_short()
        # all that takes computing is done during the exposure
        frame = self._expose(float(self.exposure_time.get()))
        total = self._sum(frame)
        brightest = float(frame.max(where=self._model.mask == 0, initial=0))
        stored = as_stored(frame, self._model.bit_depth)
        if self._closing.wait(max(until - time.monotonic(), 0.0)):
            raise self._cut_short()
        self._ended = time.monotonic()
        index = self._file.append(stored)
        self.total.put(total)
        self.brightest.put(brightest)
        return index

    def _sum(self, frame: NDArray[np.uint32]) -> float:
        valid = (self._model.mask == 0) & (frame < 2**self._model.bit_depth - 1)
        return float(frame.sum(where=valid, dtype=np.uint64))

    def unstage(self) -> list[object]:
        """Cut a running exposure short and close the file."""
        self._end()
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        finally:
            unstaged = super().unstage()
        return unstaged

    def _source(self) -> str:
        return f"SIM:{self.name}"

    def _dtype(self) -> str:
        return f"<u{self._model.bit_depth // 8}"

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
