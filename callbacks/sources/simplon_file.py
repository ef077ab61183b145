"""The local file of one series of a detector's stream: frames go in compressed as they came.

The layout is that of DECTRIS' FileWriter as far as readers look at it, single writer, multiple readers.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from ptychrome.callbacks.files import write_atomically
from ptychrome.callbacks.sources.simplon_messages import Chunk, Image, MessageError, SeriesStart

DATA_DATASET = "/entry/data/data"
DETECTOR_GROUP = "/entry/instrument/detector"
SPECIFIC_GROUP = f"{DETECTOR_GROUP}/detectorSpecific"
MASK_DATASET = f"{SPECIFIC_GROUP}/pixel_mask"
TIMES_DATASET = f"{DETECTOR_GROUP}/frame_times_s"
FILTERS: dict[str, Any] = {"none": {}, "lz4": hdf5plugin.LZ4(), "bslz4": hdf5plugin.Bitshuffle(cname="lz4")}


class SeriesFile:
    """A new HDF5 file whose frame n is frame n of the series, whichever comes first.

    Pixels of a frame that never came read as the largest number, which is how the detector marks a pixel
    without a measurement; its times are NaN. The frames of the first threshold are ``/entry/data/data``,
    those of others ``/entry/data/data_<channel>``.

    Parameters
    ----------
    path : Path
        File to create; one that exists is replaced.
    start : SeriesStart
        Where it holds no pixel mask, all pixels are good.
    first : Image
        The first frame that came: it says the shape, dtype and compression of all.

    Raises
    ------
    OSError
        If the file cannot be written; nothing is left of it then.
    """

    def __init__(self, path: Path, start: SeriesStart, first: Image) -> None:
        self.path = path
        self.numbers: set[int] = set()
        self._length = 0
        self._fresh_times_s: dict[int, tuple[float, float, float]] = {}
        self._chunks = {channel: replace(chunk, data=b"") for channel, chunk in first.channels.items()}
        self._paths = {
            channel: DATA_DATASET + (f"_{channel}" if place else "")
            for place, channel in enumerate(first.channels)
        }
        # HDF5 may take the process with it where a file cannot be written, so it begins in memory
        with h5py.File(path, "w", driver="core", backing_store=False, libver="latest") as file:
            self._create(file, start)
            file.flush()
            image = file.id.get_file_image()
        write_atomically(path, image)
        self._open()

    def _open(self) -> None:
        self._file = h5py.File(self.path, "r+", libver="latest")
        self._file.swmr_mode = True
        self._frames = {channel: self._file[name] for channel, name in self._paths.items()}
        self._times = self._file[TIMES_DATASET]
        self._failed = False

    def _writable(self) -> None:
        """After an error HDF5 takes a frame again and does not store it, unless the file is opened anew."""
        if self._failed:
            self._file.close()
            self._open()

    def _create(self, file: h5py.File, start: SeriesStart) -> None:
        for group, kind in (
            ("entry", "NXentry"),
            ("entry/data", "NXdata"),
            ("entry/instrument", "NXinstrument"),
            (DETECTOR_GROUP, "NXdetector"),
            (SPECIFIC_GROUP, "NXcollection"),
        ):
            file.create_group(group).attrs["NX_class"] = kind
        file["entry/data"].attrs["signal"] = "data"
        file[f"{SPECIFIC_GROUP}/config"] = json.dumps(dict(start.config), default=str)
        shape = next(iter(self._chunks.values())).shape
        mask = start.arrays.get("pixel_mask", np.zeros(shape, np.uint32))
        file[MASK_DATASET] = np.asarray(mask, np.uint32)
        for name in start.arrays.keys() - {"pixel_mask"}:
            file[f"{SPECIFIC_GROUP}/{name}"] = start.arrays[name]
        for channel, chunk in self._chunks.items():
            file.create_dataset(
                self._paths[channel],
                shape=(0, *chunk.shape),
                maxshape=(None, *chunk.shape),
                chunks=(1, *chunk.shape),
                dtype=chunk.dtype,
                fillvalue=np.iinfo(chunk.dtype).max,
                **FILTERS[chunk.filter],
            )
        file.create_dataset(
            TIMES_DATASET, (0, 3), "f8", maxshape=(None, 3), chunks=(512, 3), fillvalue=np.nan
        )

    def write(self, image: Image) -> None:
        """Take a frame; readers see it after the next `flush`.

        May be repeated after an error, once the disk takes data again.

        Raises
        ------
        MessageError
            If the frame is there already, or its channels, shape, dtype or compression are others than those
            of the first frame.
        OSError
            If it cannot be written.
        """
        if image.number in self.numbers:
            raise MessageError(f"frame {image.number} came twice; the first one stays")
        if image.channels.keys() != self._chunks.keys():
            raise MessageError(f"frame {image.number} has channels {list(image.channels)}; expected "
                               f"{list(self._chunks)} as in the first frame")  # fmt: skip
        for channel, chunk in image.channels.items():
            came, expected = _kind(chunk), _kind(self._chunks[channel])
            if came != expected:
                raise MessageError(f"frame {image.number} is {came}; expected {expected} as the first frame")
        try:
            self._writable()
            length = max(self._length, image.number + 1)
            for channel, chunk in image.channels.items():
                dataset = self._frames[channel].id
                if length > self._length:
                    dataset.set_extent((length, *chunk.shape))
                dataset.write_direct_chunk((image.number, 0, 0), chunk.data)
        except (OSError, RuntimeError) as error:  # h5py raises either, depending on which step fails
            self._failed = True
            raise OSError(
                f"frame {image.number} could not be written to {self.path}: {_reason(error)}"
            ) from error
        self._length = length
        self.numbers.add(image.number)
        self._fresh_times_s[image.number] = image.times_s

    def flush(self) -> None:
        """Let readers see what was written.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        try:
            self._writable()
            if self._fresh_times_s:
                numbers = sorted(self._fresh_times_s)
                self._times.resize(self._length, axis=0)
                self._times[numbers] = [self._fresh_times_s[number] for number in numbers]
            for dataset in (*self._frames.values(), self._times):
                dataset.flush()
        except (OSError, RuntimeError) as error:
            self._failed = True
            raise OSError(f"{self.path} could not be written: {_reason(error)}") from error
        self._fresh_times_s.clear()

    @property
    def missing(self) -> int:
        """How many numbers below the largest one did not come."""
        return self._length - len(self.numbers)

    @property
    def first_missing(self) -> int:
        """The smallest number that did not come."""
        return next(number for number in count() if number not in self.numbers)

    def close(self) -> None:
        """Close the file.

        Raises
        ------
        OSError
            If its last bytes cannot be written; what was flushed can be read all the same, by a reader that
            opens the file with ``swmr=True``.
        """
        try:
            self._file.close()
        except (OSError, RuntimeError) as error:
            raise OSError(f"{self.path} could not be closed: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """HDF5 tells many lines; the system's own word for it is enough where there is one."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error)


def _kind(chunk: Chunk) -> str:
    return f"{chunk.shape[0]} × {chunk.shape[1]} {chunk.dtype.str} ({chunk.filter})"
