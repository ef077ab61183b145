"""The EIGER's records: driver, ROI, statistics and HDF5 file plugin, as far as a scan looks at them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptychrome.devices.detector_model import DetectorModel, as_stored
from ptychrome.devices.frame_file import FrameFile
from ptychrome.devices.ioc.channels import (
    MAX_SERIES,
    Database,
    choice,
    count,
    label,
    number,
    series,
    setting,
    text,
)
from ptychrome.devices.ioc.file_writer import FileWriterRecords
from ptychrome.devices.ioc.stream import StreamRecords
from ptychrome.devices.simplon_simulator import SimplonSimulator

NO_SOURCE = "None"
OFF_ON, NO_YES, ENABLE = "Off|On", "No|Yes", "Disable|Enable"
# an EIGER2 500K's, by ADEiger's manual: no counter of 16 bits for longer exposures, 8 bits at high rates
LONGEST_16_BIT_S, SHORTEST_16_BIT_S = 6.6e-3, 0.45e-3
TRIGGER_MODES = "Internal Series|Internal Enable|External Series|External Enable"


class Exposure(Protocol):
    """One frame, (ny, nx) uint32 counts, and what was measured along with it."""

    @property
    def counts(self) -> NDArray[np.uint32]: ...


class EigerRecords:
    """The detector of a simulated beamline.

    Parameters
    ----------
    database : dict
        Takes the records.
    prefix : str
    model : DetectorModel
    expose : coroutine function
        ``await expose(exposure_s)`` takes a frame and posts what was measured along with it.
    wall_s : callable
        Seconds to wait for something that physically takes so many.
    stream : SimplonSimulator, optional
        Sends the frames while the driver's ``DataSource`` is ``None``; its plugins see none then.

    Attributes
    ----------
    frames_to_drop : int
        So many of the next frames get lost on their way to the plugins or in the stream; the detector's own
        files hold them.
    delay_s : float
        So long the next frame is on its way there, s of this machine.
    hanging : bool
        Triggers are ignored.
    """

    def __init__(
        self,
        database: Database,
        prefix: str,
        model: DetectorModel,
        expose: Callable[[float], Awaitable[Exposure]],
        wall_s: Callable[[float], float],
        stream: SimplonSimulator | None = None,
    ) -> None:
        self.frames_to_drop = 0
        self.delay_s = 0.0
        self.hanging = False
        self._expose = expose
        self._wall_s = wall_s
        self._model = model
        self._file: FrameFile | None = None
        self._frames = 0
        self._totals_so_far: list[float] = []
        self._armed = self._triggered = False
        self._disarming = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stream = StreamRecords(database, f"{prefix}cam1:", stream)
        self._add_camera(database, f"{prefix}cam1:")
        self._add_roi(database, f"{prefix}ROI1:")
        self._add_statistics(database, f"{prefix}Stats1:")
        self._add_file_plugin(database, f"{prefix}HDF1:")

    def _add_camera(self, database: Database, prefix: str) -> None:
        def add(name: str, make: Callable[[], Any], on_put: Any = None) -> Any:
            return setting(database, prefix + name, make, on_put)

        rows, columns = self._model.shape
        self._acquire = add("Acquire", lambda: choice("Done|Acquire"), self._put_acquire)
        self._exposure_s = add("AcquireTime", lambda: number(1.0, units="s"), self._put_exposure)
        self._period_s = add("AcquirePeriod", lambda: number(1.0, units="s"), self._put_period)
        self._photon_energy = add("PhotonEnergy", lambda: number(8047.8, units="eV", precision=2))
        self._threshold = add("ThresholdEnergy", lambda: number(4023.9, units="eV", precision=2))
        self._trigger_mode = add("TriggerMode", lambda: choice(TRIGGER_MODES))
        add("ManualTrigger", lambda: choice(NO_YES))
        self._n_triggers = add("NumTriggers", lambda: count(1))
        n_images = add("NumImages", lambda: count(1))
        self._source = add("DataSource", lambda: choice("None|FileWriter|Stream", 2))
        add("ArrayCallbacks", lambda: choice(ENABLE, 1))
        self._array_counter = add("ArrayCounter", lambda: count(0))
        trigger = choice("Done|Trigger")
        trigger.on_put = self._put_trigger
        database |= {
            f"{prefix}{name}": channel
            for name, channel in {
                "Trigger": trigger,
                "MaxSizeX_RBV": count(columns),
                "MaxSizeY_RBV": count(rows),
                "ArraySizeX_RBV": count(columns),
                "ArraySizeY_RBV": count(rows),
                "PortName_RBV": label("EIGER"),
                "Manufacturer_RBV": label("Dectris"),
                "Model_RBV": label("EIGER 1M (simulated)"),
                "Armed": choice("Unarmed|Armed"),
            }.items()
        }
        self._bit_depth = database[f"{prefix}BitDepthImage_RBV"] = count(32)
        self._armed_record = database[f"{prefix}Armed"]
        self._images = database[f"{prefix}NumImagesCounter_RBV"] = count(0)
        self._file_writer = FileWriterRecords(
            database,
            prefix,
            self._model.mask,
            self._fields,
            lambda: n_images.value * self._n_triggers.value,
        )

    def _add_plugin(
        self, database: Database, prefix: str, kind: str, port: str, source: str
    ) -> Callable[..., Any]:
        """What every plugin has; returns a function that adds a setting."""

        def add(name: str, make: Callable[[], Any], on_put: Any = None) -> Any:
            return setting(database, prefix + name, make, on_put)

        add("EnableCallbacks", lambda: choice(ENABLE))
        add("BlockingCallbacks", lambda: choice(NO_YES))
        add("NDArrayPort", lambda: label(source))
        add("DroppedArrays", lambda: count(0))
        database[f"{prefix}PluginType_RBV"] = label(kind)
        database[f"{prefix}PortName_RBV"] = label(port)
        return add

    def _add_roi(self, database: Database, prefix: str) -> None:
        add = self._add_plugin(database, prefix, "NDPluginROI", "ROI1", "EIGER")
        rows, columns = self._model.shape
        # bounds of each axis: enabled, first pixel, pixels
        self._roi = [
            (
                add(f"Enable{axis}", lambda: choice(ENABLE)),
                add(f"Min{axis}", lambda: count(0)),
                add(f"Size{axis}", lambda size=size: count(size)),
            )
            for axis, size in (("Y", rows), ("X", columns))
        ]

    def _add_statistics(self, database: Database, prefix: str) -> None:
        add = self._add_plugin(database, prefix, "NDPluginStats", "STATS1", "EIGER")
        add("ComputeStatistics", lambda: choice(NO_YES))
        database[f"{prefix}TS:TSAcquire"] = erase = count(0)
        erase.on_put = self._erase_totals
        self._totals = database[f"{prefix}TSTotal"] = series()
        self._total = database[f"{prefix}Total_RBV"] = number(0.0, units="counts", precision=0)
        self._brightest = database[f"{prefix}MaxValue_RBV"] = number(0.0, units="counts", precision=0)

    def _add_file_plugin(self, database: Database, prefix: str) -> None:
        add = self._add_plugin(database, prefix, "NDFileHDF5 ver1.10.6", "HDF1", "EIGER")
        self._path_exists = database[f"{prefix}FilePathExists_RBV"] = choice(NO_YES)
        self._directory = add("FilePath", lambda: text("/tmp/"), self._put_path)
        self._file_name = add("FileName", text)
        self._template = add("FileTemplate", lambda: text("%s%s_%3.3d.h5"))
        for name, make in {
            "FileWriteMode": lambda: choice("Single|Capture|Stream"),
            "AutoIncrement": lambda: choice(NO_YES, 1),
            "NumCapture": lambda: count(1),
            "LazyOpen": lambda: choice(NO_YES),
            "SWMRMode": lambda: choice(OFF_ON),
            "NumFramesChunks": lambda: count(1),
            "NumFramesFlush": lambda: count(1),
        }.items():
            add(name, make)
        self._capture = add("Capture", lambda: choice("Done|Capture"), self._put_capture)
        self._captured = database[f"{prefix}NumCaptured_RBV"] = count(0)
        self._full_name = database[f"{prefix}FullFileName_RBV"] = text()
        self._message = database[f"{prefix}WriteMessage"] = text()
        self._dropped = database[f"{prefix}DroppedArrays_RBV"]

    def restart(self) -> None:
        """Count series anew."""
        self._file_writer.series = 0

    async def _put_exposure(self, exposure_s: float) -> None:
        await self._choose_bit_depth(exposure_s, self._period_s.value)

    async def _put_period(self, period_s: float) -> None:
        await self._choose_bit_depth(self._exposure_s.value, period_s)

    async def _choose_bit_depth(self, exposure_s: float, period_s: float) -> None:
        """As the detector does, which nobody can tell it to do otherwise."""
        if exposure_s > LONGEST_16_BIT_S:
            await self._bit_depth.post(32)
        else:
            await self._bit_depth.post(8 if period_s < SHORTEST_16_BIT_S else 16)

    async def _put_path(self, path: str) -> None:
        await self._path_exists.post("Yes" if Path(path).is_dir() else "No")

    async def _put_acquire(self, state: str) -> None:
        if state == "Acquire":
            self._armed, self._triggered, self._frames = True, False, 0
            self._disarming.clear()
            await self._array_counter.post(0)
            await self._images.post(0)
            await self._file_writer.arm()
            if self._source.value == NO_SOURCE:
                await self._stream.arm(self._file_writer.series, self._model.mask, self._fields())
            await self._armed_record.post("Armed")
        else:
            await self._disarm()

    async def _disarm(self) -> None:
        self._armed = False
        self._disarming.set()
        if self._task is not None:
            await self._task
        await self._stream.disarm()
        await self._file_writer.disarm()
        await self._armed_record.post("Unarmed")

    async def trigger_from_outside(self, ends: float) -> bool:
        """One frame, whose exposure ends then by the loop's clock, for a trigger at the detector's input.

        False where it is ignored.
        """
        if not self._armed or self.hanging or self._trigger_mode.value != "External Series":
            return False
        await self._take_frame(ends)
        return True

    async def _erase_totals(self, _: Any) -> None:
        self._totals_so_far.clear()
        await self.post_totals()

    async def post_totals(self) -> None:
        """Bring the time series of the sums up to date, which does not happen with every frame."""
        await self._totals.post(self._totals_so_far[-MAX_SERIES:])

    async def _put_trigger(self, _: Any) -> None:
        """As the driver: ignored unless armed; one that comes during an exposure is remembered."""
        if self._armed and not self.hanging:
            self._triggered = True
            if self._task is None or self._task.done():
                self._task = asyncio.get_running_loop().create_task(self._answer_triggers())

    async def _answer_triggers(self) -> None:
        while self._armed and self._triggered:
            self._triggered = False
            await self._take_frame()

    async def _take_frame(self, ends: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        exposure_s = self._exposure_s.value
        if ends is None:
            ends = loop.time() + self._wall_s(exposure_s)
        # all that takes computing is done during the exposure
        counts = as_stored((await self._expose(exposure_s)).counts, self._bit_depth.value)
        frame, mask, total, brightest = self._in_window(counts)
        if (rest := ends - loop.time()) > 0:
            try:
                await asyncio.wait_for(self._disarming.wait(), rest)
            except TimeoutError:
                pass
            else:
                return  # cut short
        self._frames += 1
        await self._array_counter.post(self._frames)
        await self._file_writer.append(counts)
        if self.frames_to_drop > 0:
            self.frames_to_drop -= 1
            self._stream.lose()
            await self._dropped.post(self._dropped.value + 1)
            return
        delay_s, self.delay_s = self.delay_s, 0.0
        await asyncio.sleep(delay_s)
        await self._stream.send(counts)
        if self._source.value == NO_SOURCE:
            return
        await self._brightest.post(brightest)
        await self._total.post(total)
        self._totals_so_far.append(total)
        if self._capture.value == "Capture":
            await self._write(frame, mask)
        await self._images.post(self._images.value + 1)

    def _in_window(
        self, counts: NDArray[np.unsignedinteger]
    ) -> tuple[NDArray[np.unsignedinteger], NDArray[np.uint32], float, float]:
        """Frame and mask of the ROI, the sum of its valid pixels and the counts of its brightest one."""
        window = tuple(
            slice(first.value, first.value + size.value) if enabled.value == "Enable" else slice(None)
            for enabled, first, size in self._roi
        )
        frame, mask = counts[window], self._model.mask[window]
        valid = (mask == 0) & (frame < np.iinfo(frame.dtype).max)
        total = float(frame.sum(where=valid, dtype=np.uint64))
        return frame, mask, total, float(frame.max(where=mask == 0, initial=0))

    async def _write(self, frame: NDArray[np.unsignedinteger], mask: NDArray[np.uint32]) -> None:
        try:
            if self._file is None:
                depth = 8 * frame.itemsize
                self._file = FrameFile(Path(self._full_name.value), mask, self._fields(), depth)
            written = self._file.append(frame) + 1
        except (OSError, ValueError) as error:
            await self._message.post(str(error)[:200])
        else:
            await self._captured.post(written)

    async def _put_capture(self, state: str) -> None:
        if state == "Capture":
            await self._captured.post(0)
            await self._message.post("")
            folder = self._directory.value.rstrip("/")
            name = self._template.value.replace("%s%s", f"{folder}/{self._file_name.value}")
            await self._full_name.post(name)
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def close(self) -> None:
        """Close the file, if one is open."""
        if self._file is not None:
            self._file.close()

    def _fields(self) -> dict[str, Any]:
        y_m, x_m = self._model.pixel_size_m
        return {
            "count_time": float(self._exposure_s.value),
            "bit_depth_image": int(self._bit_depth.value),
            "threshold_energy": float(self._threshold.value),
            "photon_energy": float(self._photon_energy.value),
            "detector_distance": float(self._model.distance_m),
            "x_pixel_size": float(x_m),
            "y_pixel_size": float(y_m),
        }
