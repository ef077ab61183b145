"""DECTRIS' FileWriter as ADEiger presents it: files made in the detector, and fetched when they are whole."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from ptychrome.devices.frame_file import DATA_DATASET, DETECTOR_GROUP, MASK_DATASET
from ptychrome.devices.ioc.channels import Database, choice, count, label, setting, text

DISABLE_ENABLE = "Disable|Enable"
MOST_LINKS = 4096  # of a master file; a real one has links to all files that its triggers could fill


class FileWriterRecords:
    """The FileWriter's part of the driver's records.

    Parameters
    ----------
    database : dict
        Takes the records.
    prefix : str
        Of the driver.
    mask : (ny, nx) uint32
        Pixel mask, 0 = good.
    fields : callable
        Scalars of ``/entry/instrument/detector`` at the time it is called.
    planned : callable
        Frames that a series which begins now could have.

    Attributes
    ----------
    series : int
        Number of the series that has begun; the driver knows of it when it arms.
    """

    def __init__(
        self,
        database: Database,
        prefix: str,
        mask: NDArray[np.uint32],
        fields: Callable[[], Mapping[str, Any]],
        planned: Callable[[], int],
    ) -> None:
        self._mask, self._fields, self._planned = mask, fields, planned
        self._frames: list[NDArray[np.unsignedinteger]] = []
        self._files = self.series = 0
        self._name = ""

        def add(name: str, make: Callable[[], Any], on_put: Any = None) -> Any:
            return setting(database, prefix + name, make, on_put)

        self._enabled = add("FWEnable", lambda: choice(DISABLE_ENABLE))
        self._save = add("SaveFiles", lambda: choice(DISABLE_ENABLE))
        self._pattern = add("FWNamePattern", lambda: text("series_$id"))
        self._per_file = add("FWNImagesPerFile", lambda: count(1000))
        self._compress = add("FWCompression", lambda: choice(DISABLE_ENABLE, 1))
        self._directory = add("FilePath", lambda: text("/tmp/"), self._put_path)
        self._path_exists = database[f"{prefix}FilePathExists_RBV"] = choice("No|Yes", 1)
        self._full_name = database[f"{prefix}FullFileName_RBV"] = text()
        self._message = database[f"{prefix}StatusMessage_RBV"] = label()
        self._sequence = database[f"{prefix}SequenceId"] = count(0)

    async def _put_path(self, path: str) -> None:
        await self._path_exists.post("Yes" if Path(path).is_dir() else "No")

    async def arm(self) -> None:
        """Begin a series, and write its master file."""
        self.series += 1
        await self._sequence.post(self.series)
        self._frames, self._files = [], 0
        self._name = ""
        if self._enabled.value == "Enable" and self._save.value == "Enable":
            self._name = self._pattern.value.replace("$id", str(self._sequence.value))
            await self._fetch(f"{self._name}_master.h5", self._master())

    async def append(self, frame: NDArray[np.unsignedinteger]) -> None:
        """Take a frame; with the last one that fits, its file is written."""
        if self._name:
            self._frames.append(frame)
            if len(self._frames) >= self._per_file.value:
                await self._write()

    async def disarm(self) -> None:
        """Write what has no full file."""
        if self._frames:
            await self._write()

    async def _write(self) -> None:
        frames, self._frames = np.stack(self._frames), []
        self._files += 1
        await self._fetch(_data_name(self._name, self._files), self._data(frames))

    async def _fetch(self, name: str, content: bytes) -> None:
        path = Path(self._directory.value) / name
        await self._full_name.post(str(path))
        try:
            path.write_bytes(content)
        except OSError as error:
            await self._message.post(str(error)[:39])

    def _data(self, frames: NDArray[np.unsignedinteger]) -> bytes:
        first = 1 + (self._files - 1) * self._per_file.value
        compressed = self._compress.value == "Enable"
        codec: Mapping[str, Any] = hdf5plugin.Bitshuffle(cname="lz4") if compressed else {}
        memory = io.BytesIO()
        with h5py.File(memory, "w") as file:
            dataset = file.create_dataset(DATA_DATASET, data=frames, chunks=(1, *frames.shape[1:]), **codec)
            dataset.attrs["image_nr_low"], dataset.attrs["image_nr_high"] = first, first + len(frames) - 1
            file["entry"].attrs["NX_class"], file["entry/data"].attrs["NX_class"] = "NXentry", "NXdata"
        return memory.getvalue()

    def _master(self) -> bytes:
        files = min(math.ceil(self._planned() / self._per_file.value), MOST_LINKS)
        memory = io.BytesIO()
        with h5py.File(memory, "w") as file:
            for group, kind in (
                ("entry", "NXentry"),
                ("entry/data", "NXdata"),
                (DETECTOR_GROUP, "NXdetector"),
            ):
                file.require_group(group).attrs["NX_class"] = kind
            for name, value in self._fields().items():
                file[f"{DETECTOR_GROUP}/{name}"] = value
            file[MASK_DATASET] = np.asarray(self._mask, np.uint32)
            for number in range(1, files + 1):
                target = h5py.ExternalLink(_data_name(self._name, number), DATA_DATASET)
                file[f"entry/data/data_{number:06d}"] = target
        return memory.getvalue()


def _data_name(series: str, number: int) -> str:
    return f"{series}_data_{number:06d}.h5"
