"""The EIGER whose frames DECTRIS' own FileWriter writes, through areaDetector's ADEiger.

The detector makes the files and ADEiger fetches each one when it is full, or when the series has ended: a
master ``NAME_master.h5`` with the pixel mask, and the frames in ``NAME_data_000001.h5`` and so on. The sums
of frames come through the detector's stream meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
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

    def arm_anew(self) -> None:
        self._put_and_see(self.cam.acquire, 0, "stop")
        self._announce_frames_that_did_not_come()
        self._series += 1
        self.cam.fw_name_pattern.set(self._pattern).wait(self._site.patience_s)
        self._arm()
        self._written = self._taken = 0

    def _announce_frames_that_did_not_come(self) -> None:
        """Those that are in a file nevertheless: whoever joins the files finds an index for each frame.

        They precede the frame that is taken again under its number, and the last one counts.
        """
        assert self._assets is not None
        file, first = divmod(self._taken, self._images_per_file)
        path = self._data_file(file)
        if path.exists():  # the driver has fetched all files when it says that it has stopped
            self._turn_to(file)
            with h5py.File(path) as handle:
                for index in range(first, len(handle[DATA_DATASET])):
                    self._assets.add(index)

    def _take(self) -> int:
        file, index = divmod(super()._take(), self._images_per_file)
        self._turn_to(file)
        return index

    def _turn_to(self, file: int) -> None:
        assert self._assets is not None
        self._assets.turn_to(self._data_file(file), master=self._master)

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
            **self._window(),
        )

    def _source(self) -> str:
        return f"PV:{self.prefix}cam1:FullFileName_RBV"
