"""The EIGER whose frames DECTRIS' own FileWriter writes, through areaDetector's ADEiger.

The detector makes the files and ADEiger fetches each one when it is full, or when the series has ended: a
master ``NAME_master.h5`` with the pixel mask, and the frames in ``NAME_data_000001.h5`` and so on. The sums
of frames come through the detector's stream meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
from ophyd.status import SubscriptionStatus

from ptychrome.devices.assets import FrameAssets, file_uri
from ptychrome.devices.epics_eiger import YES, EpicsEiger
from ptychrome.devices.frame_file import DATA_DATASET


class FileWriterEiger(EpicsEiger):
    """EIGER driven by areaDetector's ADEiger, frames written by the detector itself.

    Documents announce a frame as soon as it is measured, and its file is there up to `images_per_file`
    frames later (``swmr`` is false in the stream_resource: wait for the whole file). A series begins anew
    when a frame did not come through the stream, since its file may hold it nevertheless.

    Parameters
    ----------
    images_per_file : int
        Frames of a data file.
    prefix, site, energy, name, companions
        See `EpicsEiger`. Files hold the camera's whole frame; with ``site.roi_origin`` readers cut it out.
    """

    hdf1 = None

    def __init__(self, prefix: str = "", *, images_per_file: int, **kwargs: Any) -> None:
        super().__init__(prefix, **kwargs)
        self._images_per_file = images_per_file
        self._run_name, self._series = "", 1
        # of the series, and frames since staging: what the documents know of
        self._files = self._in_files = 0

    @property
    def _writer(self) -> Any:
        return self.cam

    @property
    def _counter(self) -> Any:
        # of the driver, which has waited for its plugins (they block) when it counts a frame
        return self.cam.num_images_counter

    @property
    def _pattern(self) -> str:
        return f"{self._run_name}_{self._series}"

    def _settings(self, file_name: str) -> Mapping[str, Any]:
        self._run_name, self._series = file_name, 1
        self._files = self._in_files = 0
        common = super()._settings(file_name)
        return {name: value for name, value in common.items() if not name.startswith("hdf1.")} | {
            "roi1.blocking_callbacks": YES,
            "stats1.blocking_callbacks": YES,
            "cam.stream_enable": YES,
            "cam.fw_enable": YES,
            "cam.save_files": YES,
            "cam.fw_compression": YES,
            "cam.fw_num_images_per_file": self._images_per_file,
            "cam.fw_name_pattern": self._pattern,
            "cam.file_path": self._site.write_directory,
        }

    def _open_file(self) -> None:
        """Arming does."""

    def _close_file(self) -> None:
        """Disarming does."""

    def _arm(self) -> None:
        super()._arm()
        # the driver forgets the count of the series before when the detector is armed
        SubscriptionStatus(self.cam.armed, lambda value, **_: value == 1).wait(self._site.patience_s)

    def _arm_anew(self) -> None:
        """Frames that did not come through the stream and are in a file nevertheless are announced.

        They precede the frame that is taken again under its number, and the last one counts.
        """
        assert self._assets is not None
        for number in self.give_up(1):
            self._assets.add(number)

    def give_up(self, count: int) -> Sequence[int]:
        """See `EpicsEiger`; whoever joins the files wants to hear of every frame that is in one."""
        self._put_and_see(self.cam.acquire, 0, "stop")
        first, end = self._taken, self._end_of_files()
        self._turn_to_file_of(end - 1)
        self._series += 1
        self.cam.fw_name_pattern.set(self._pattern).wait(self._site.patience_s)
        self._arm()
        self._earlier = self._written = self._taken = self._in_files = end
        self._files = 0
        return range(first, end)

    def _end_of_files(self) -> int:
        """Number of the first frame that is in no file of the series."""
        file, index = divmod(self._taken - self._earlier, self._images_per_file)
        end = self._taken - index
        # the driver has fetched all files when it says that it has stopped
        while (path := self._data_file(file)).exists():
            with h5py.File(path) as handle:
                end += len(handle[DATA_DATASET])
            file += 1
        return max(end, self._taken)

    def accept(self, count: int) -> int:
        """See `EpicsEiger`."""
        first = super().accept(count)
        self._turn_to_file_of(first + count - 1)
        return first

    def _turn_to_file_of(self, number: int) -> None:
        """Have documents say where this frame lies, and all before it."""
        assert self._assets is not None
        while self._in_files <= number:
            self._assets.turn_to(self._in_files, self._data_file(self._files), master=self._master)
            self._files += 1
            self._in_files += self._images_per_file

    def _data_file(self, number: int) -> Path:
        """File of the series, counted from 0."""
        return Path(self._site.read_directory) / f"{self._pattern}_data_{number + 1:06d}.h5"

    @property
    def _master(self) -> str:
        return file_uri(Path(self._site.read_directory) / f"{self._pattern}_master.h5")

    def _assets_of(self, name: str) -> FrameAssets:
        return FrameAssets(
            self.image_key,
            self._data_file(0),
            DATA_DATASET,
            self._site.shape,
            swmr=False,
            master=self._master,
            **self._site.window,
        )

    def _source(self) -> str:
        return f"PV:{self.prefix}cam1:FullFileName_RBV"
