"""The EIGER behind areaDetector: camera, ROI, statistics and HDF5 file writer, through Channel Access.

The detector is armed once per staging and triggered by software for every frame, since arming takes an EIGER
most of a second. The plugins form one chain, camera → ROI1 → Stats1 → HDF1, so that the sum of a frame is
there when the frame is in the file.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ophyd import ADComponent as ADCpt
from ophyd import Component as Cpt
from ophyd import EigerDetectorCam, EpicsSignal, EpicsSignalRO, EpicsSignalWithRBV, Signal
from ophyd.areadetector.plugins import HDF5Plugin_V34, PluginBase, ROIPlugin_V34, StatsPlugin_V34

from ptychrome.devices.assets import FrameAssets
from ptychrome.devices.detector_site import DetectorError, DetectorSite
from ptychrome.devices.file_detector import FileDetector
from ptychrome.devices.frame_file import DATA_DATASET

INTERNAL_SERIES, EXTERNAL_SERIES, YES = 0, 2, 1
STREAM_SOURCE = 2  # DataSource: None, FileWriter, Stream
STREAM_TO_FILE = 2  # FileWriteMode: Single, Capture, Stream
MANY_TRIGGERS = 100_000  # more than a run has, and few enough for ADEiger's list of files


class FrameWriter(HDF5Plugin_V34):
    """HDF1, opening its file with the first frame: it need not have seen a frame before (no "priming")."""

    def stage(self) -> Any:
        """As ophyd's, without asking for an earlier frame."""
        return PluginBase.stage(self)


class EpicsEiger(FileDetector):
    """EIGER driven by areaDetector's ADEiger, frames written by its HDF5 plugin.

    Staging stops the camera, sets it up and opens a file; unstaging closes the file and puts back every
    setting as it was found. Photon energy and threshold (half of it) are set from the monochromator.

    Parameters
    ----------
    prefix : str
        Of the detector's records; below it ``cam1:``, ``ROI1:``, ``Stats1:`` and ``HDF1:``.
    site : DetectorSite
    energy : positioner, optional
        Photon energy, eV; without it the camera's energy and threshold are left alone.
    name : str
        Data keys start with it: ``<name>_image`` (external) and ``<name>_total``, the sum of the frame.
        Beside these: ``brightest``, the counts of its brightest pixel; ``totals``, the sums of all frames
        since ``totals_acquire`` was set.
    companions : Companions
        See `ptychrome.devices.file_detector`.

    Attributes
    ----------
    external_triggers : bool
        Whether staging prepares for triggers from outside, one for each frame.
    """

    cam = ADCpt(EigerDetectorCam, "cam1:", kind="omitted")
    roi1 = ADCpt(ROIPlugin_V34, "ROI1:", kind="omitted")
    stats1 = ADCpt(StatsPlugin_V34, "Stats1:", kind="omitted")
    hdf1 = ADCpt(FrameWriter, "HDF1:", kind="omitted")

    exposure_time = Cpt(EpicsSignalWithRBV, "cam1:AcquireTime", kind="config")
    photon_energy = Cpt(EpicsSignalWithRBV, "cam1:PhotonEnergy", kind="config")
    threshold_energy = Cpt(EpicsSignalWithRBV, "cam1:ThresholdEnergy", kind="config")
    bit_depth = Cpt(EpicsSignalRO, "cam1:BitDepthImage_RBV", kind="config")
    image_mask_dataset = Cpt(Signal, value="", kind="config")
    # updates come in order: that of a frame's sum precedes that of the number of frames in the file
    total = Cpt(EpicsSignalRO, "Stats1:Total_RBV", auto_monitor=True, kind="hinted")
    brightest = Cpt(EpicsSignalRO, "Stats1:MaxValue_RBV", kind="omitted")
    totals = Cpt(EpicsSignalRO, "Stats1:TSTotal", kind="omitted", lazy=True)  # nobody needs it but flyers
    totals_acquire = Cpt(EpicsSignal, "Stats1:TS:TSAcquire", kind="omitted", lazy=True)

    def __init__(
        self, prefix: str = "", *, site: DetectorSite, energy: Any = None, name: str, **kwargs: Any
    ) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self.image_mask_dataset.put(site.mask_dataset)
        self._site = site
        self._energy = energy
        self.external_triggers = False
        self._news = threading.Condition()
        # frames since staging: of the earlier series, that have come, that have been accounted for
        self._earlier = self._written = self._taken = 0
        self._lost: str | None = None
        self._exposure_s = 0.0

    @property
    def geometry(self) -> dict[str, Any]:
        """Fields of `ptychrome.schema.DetectorGeometry`."""
        return {
            "shape": [int(n) for n in self._site.shape],
            "pixel_size_m": [float(p) for p in self._site.pixel_size_m],
            "distance_m": float(self._site.distance_m),
        }

    @property
    def retries(self) -> int:
        """How often what was lost is taken again."""
        return self._site.retries

    def stage(self) -> list[object]:
        """Set the detector up, open a file and arm.

        Raises
        ------
        DetectorError
            If the file cannot be opened, the frame has another shape or bit depth than the settings say, or
            the detector does not arm. Everything is put back then.
        """
        self._put_and_see(self.cam.acquire, 0, "stop")
        name = f"{self.name}_{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4().hex[:8]}"
        self._exposure_s = float(self.exposure_time.get())
        self.stage_sigs.clear()
        self.stage_sigs.update(self._settings(name))
        staged = super().stage()
        self._closing.clear()  # since the last unstaging; arming may wait
        try:
            self._check()
            self._open_file()
            self._arm()
            self._watch()
        except Exception:
            self.unstage()
            raise
        self._begin(self._assets_of(name))
        return staged

    def unstage(self) -> list[object]:
        """Cut a running exposure short, disarm, close the file and put back all settings."""
        self._end()
        try:
            self._unwatch()
            self._put_and_see(self.cam.acquire, 0, "stop")
        finally:
            try:
                self._close_file()
            finally:
                unstaged = super().unstage()
        return unstaged

    @property
    def _writer(self) -> Any:
        """What writes the files."""
        return self.hdf1

    @property
    def _counter(self) -> Any:
        """Signal that counts the frames that have come, sums included."""
        return self.hdf1.num_captured

    def _watch(self) -> None:
        """Count the frames that come from now on."""
        # run=False: what was heard last is the number of frames of the file before
        self._counter.subscribe(self._on_written, run=False)
        self._earlier = self._taken = 0
        self._written, self._lost = int(self._counter.get()), None

    def _unwatch(self) -> None:
        self._counter.clear_sub(self._on_written)

    def _open_file(self) -> None:
        self._put_and_see(self.hdf1.capture, 1, "open its file")

    def _close_file(self) -> None:
        self._put_and_see(self.hdf1.capture, 0, "close its file")

    def _arm(self) -> None:
        self._put_and_see(self.cam.acquire, 1, "arm")

    def _arm_anew(self) -> None:
        """End the series and begin another one; what was late in the old one has come then."""
        self._put_and_see(self.cam.acquire, 0, "stop")
        self._arm()

    def _assets_of(self, name: str) -> FrameAssets:
        path = Path(self._site.read_directory) / f"{name}.h5"
        return FrameAssets(self.image_key, path, DATA_DATASET, self._site.shape)

    def _settings(self, file_name: str) -> Mapping[str, Any]:
        """What to set, in this order; unstaging goes the other way."""
        return {**self._camera_settings(), **self._plugin_settings(file_name)}

    def _camera_settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        if self._energy is not None:
            energy_eV = float(self._energy.position)
            settings["photon_energy"] = energy_eV
            settings["threshold_energy"] = energy_eV / 2
        settings |= {
            "cam.trigger_mode": EXTERNAL_SERIES if self.external_triggers else INTERNAL_SERIES,
            "cam.manual_trigger": int(not self.external_triggers),
            "cam.num_triggers": MANY_TRIGGERS,
            "cam.num_images": 1,
            "cam.acquire_period": self._exposure_s,
            "cam.data_source": STREAM_SOURCE,
            "cam.array_callbacks": 1,
        }
        return settings

    def _plugin_settings(self, file_name: str) -> dict[str, Any]:
        site, rows, columns = self._site, *self._site.shape
        settings: dict[str, Any] = {
            "roi1.nd_array_port": self.cam.port_name.get(),
            "stats1.nd_array_port": self.roi1.port_name.get(),
            "stats1.compute_statistics": "Yes",
            "hdf1.nd_array_port": self.stats1.port_name.get(),
            "hdf1.file_path": site.write_directory,
            "hdf1.file_name": file_name,
            "hdf1.file_template": "%s%s.h5",
            "hdf1.file_write_mode": STREAM_TO_FILE,
            "hdf1.auto_increment": 0,
            "hdf1.num_capture": 0,
            "hdf1.lazy_open": "Yes",
            "hdf1.swmr_mode": "On",
            "hdf1.num_frames_chunks": 1,
            "hdf1.num_frames_flush": 1,
        }
        whole = site.roi_origin is None
        row, column = site.roi_origin or (0, 0)
        crop = "Disable" if whole else "Enable"
        settings |= {"roi1.roi_enable.x": crop, "roi1.roi_enable.y": crop}
        if not whole:
            settings |= {
                "roi1.min_xyz.min_x": column,
                "roi1.size.x": columns,
                "roi1.min_xyz.min_y": row,
                "roi1.size.y": rows,
            }
        return settings

    def _check(self) -> None:
        """Refuse what would only show with the first frame or, worse, in the analysis."""
        site = self._site
        self._check_directory()
        size = self.cam.max_size
        camera = int(size.max_size_y.get()), int(size.max_size_x.get())
        row, column = site.roi_origin or (0, 0)
        fits = row + site.shape[0] <= camera[0] and column + site.shape[1] <= camera[1]
        if not fits or (site.roi_origin is None and tuple(site.shape) != camera):
            raise DetectorError(
                f"{self.name} has frames of {camera[0]} × {camera[1]} pixels; the settings expect "
                f"{site.shape} at {site.roi_origin or 'its origin'}: correct shape or roi_origin"
            )
        bits = int(self.bit_depth.get())
        if site.bit_depth not in (None, bits):
            raise DetectorError(
                f"{self.name} has frames of {bits} bits at an exposure of {self._exposure_s:g} s; the "
                f"settings expect {site.bit_depth}: choose another exposure (long ones have 32 bits), or "
                "correct bit_depth"
            )

    def _check_directory(self) -> None:
        if not self._writer.file_path_exists.get():
            raise DetectorError(
                f"{self.name} cannot write to {self._site.write_directory}: no such directory on the file "
                "plugin's computer; create it or set another one"
            )

    def _put_and_see(self, signal: EpicsSignalWithRBV, value: int, what: str) -> None:
        """Write, and wait until it is so."""
        try:
            signal.set(value, timeout=self._site.patience_s).wait(timeout=2 * self._site.patience_s)
        except Exception as error:
            message = signal.parent.write_message.get() if isinstance(signal.parent, FrameWriter) else ""
            raise DetectorError(
                f"{self.name} did not {what} within {self._site.patience_s:g} s ({signal.pvname}): "
                f"{message or error or type(error).__name__}"
            ) from error

    def _on_written(self, value: int, **_: Any) -> None:
        with self._news:
            self._written = self._earlier + int(value)
            self._news.notify_all()

    def _end(self) -> None:
        self._closing.set()
        with self._news:
            self._news.notify_all()
        super()._end()

    def _take(self) -> int:
        for retries_left in reversed(range(self._site.retries + 1)):
            self._trigger_once()
            if self._written <= self._taken and retries_left:
                self.log.warning("%s: frame %d did not come; it is taken again", self.name, self._taken)
                self._arm_anew()
            if self._written > self._taken:
                break
        self._refuse_unless(self._taken + 1)
        return self.accept(1)

    def _trigger_once(self) -> None:
        """Take one frame, and wait until it is in the file or late."""
        self._refuse_unless(self._taken)
        self.cam.special_trigger_button.put(1, wait=False)
        self._wait_for(lambda: self._written > self._taken, self._exposure_s + self._site.patience_s)
        if self._closing.is_set() and self._written <= self._taken:
            raise self._cut_short()

    def _refuse_unless(self, expected: int) -> None:
        """Stop for good where it can no longer be told which frame belongs to which position."""
        if self._written != expected and not self._lost:
            self._lost = (
                f"{self.name}: {self._written} frames in the file, expected {expected} "
                f"({self._site.patience_s:g} s after the last exposure, {self._site.retries} retries); "
                "a frame was lost, or something else triggers. The frames so far are good; look at the "
                "detector and its DroppedArrays, then scan again"
            )
        if self._lost:
            raise DetectorError(self._lost)

    @property
    def line_settings(self) -> Mapping[Any, Any]:
        """What to set before triggers come from outside, for `sums`; by signal."""
        return {self.totals_acquire: 1}

    def come(self, count: int, patience_s: float) -> int:
        """Of so many frames triggered from outside, how many have come; waits for all, but not longer."""
        self._wait_for(lambda: self._written - self._taken >= count, patience_s)
        return self._written - self._taken

    def sums(self, count: int) -> list[float]:
        """Of each of so many frames that have come."""
        return [float(total) for total in self.totals.get()[:count]]

    def accept(self, count: int) -> int:
        """So many frames that have come count; the number of the first one."""
        first, self._taken = self._taken, self._taken + count
        return first

    def give_up(self, count: int) -> Sequence[int]:
        """Of so many frames that were triggered none counts; the series ends and another one begins.

        Returns
        -------
        sequence of int
            Numbers of those that are in a file all the same.
        """
        self._arm_anew()
        strays, self._taken = range(self._taken, self._written), self._written
        return strays

    def _wait_for(self, there: Callable[[], bool], limit_s: float) -> None:
        with self._news:
            self._news.wait_for(lambda: there() or self._closing.is_set(), limit_s)

    def _source(self) -> str:
        return f"PV:{self.prefix}HDF1:FullFileName_RBV"

    def _dtype(self) -> str:
        return f"<u{int(self.bit_depth.get()) // 8}"
