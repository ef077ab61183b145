"""The detector's file: frames appended one by one to an HDF5 dataset that others read at the same time.

The layout is that of DECTRIS' FileWriter as far as readers look at it. Single writer, multiple readers
(SWMR): everything but the frames must be in the file before the first frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

DATA_DATASET = "/entry/data/data"
DETECTOR_GROUP = "/entry/instrument/detector"
MASK_DATASET = f"{DETECTOR_GROUP}/detectorSpecific/pixel_mask"


class FrameFile:
    """A new HDF5 file that takes frames, bitshuffle/LZ4 compressed, one chunk a frame.

    Parameters
    ----------
    path : Path
        File to create; it must not exist.
    mask : (ny, nx) uint32
        Pixel mask, 0 = good; its shape is that of the frames.
    fields : mapping
        Scalars and short arrays stored in ``/entry/instrument/detector``.
    bit_depth : int
        Of the frames: 8, 16 or 32.

    Raises
    ------
    OSError
        If the file exists or cannot be written.
    """

    def __init__(
        self, path: Path, mask: NDArray[np.uint32], fields: Mapping[str, Any], bit_depth: int = 32
    ) -> None:
        self.path = path
        self._file = h5py.File(path, "x", libver="latest")
        for group, kind in (
            ("entry", "NXentry"),
            ("entry/data", "NXdata"),
            ("entry/instrument", "NXinstrument"),
        ):
            self._file.create_group(group).attrs["NX_class"] = kind
        detector = self._file.create_group(DETECTOR_GROUP)
        detector.attrs["NX_class"] = "NXdetector"
        for name, value in fields.items():
            detector[name] = value
        self._file[MASK_DATASET] = np.asarray(mask, np.uint32)
        self._frames = self._file.create_dataset(
            DATA_DATASET,
            shape=(0, *mask.shape),
            maxshape=(None, *mask.shape),
            chunks=(1, *mask.shape),
            dtype=f"<u{bit_depth // 8}",
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        self._file["entry/data"].attrs["signal"] = "data"
        self._file.swmr_mode = True
        self._count = 0
        self._failure = ""

    def append(self, frame: NDArray[np.unsignedinteger]) -> int:
        """Write a frame and make it visible to readers.

        Parameters
        ----------
        frame : (ny, nx) uint8, uint16 or uint32, counts

        Returns
        -------
        int
            Index of the frame in the dataset.

        Raises
        ------
        ValueError
            If the frame has another shape or bit depth.
        OSError
            If it cannot be written, or an earlier frame could not: HDF5 calls a chunk that it failed to
            write written when it is tried again, with half of its bytes.
        """
        if frame.shape != self._frames.shape[1:] or frame.dtype != self._frames.dtype:
            raise ValueError(
                f"frame has shape {frame.shape} and dtype {frame.dtype}; {self.path.name} takes "
                f"{self._frames.shape[1:]} {self._frames.dtype}"
            )
        index = self._count
        if self._failure:
            raise OSError(f"frame {index} is not written: {self._failure}; go on in another file")
        try:
            self._frames.resize(index + 1, axis=0)
            self._frames[index] = frame
            self._frames.flush()
        except (OSError, RuntimeError) as error:  # h5py raises either, depending on which step fails
            self._failure = f"frame {index} could not be written to {self.path}: {error}"
            raise OSError(self._failure) from error
        self._count = index + 1
        return index

    def close(self) -> None:
        """Close the file.

        Raises
        ------
        OSError
            If its last bytes cannot be written; the frames appended so far can be read all the same, by a
            reader that opens the file with ``swmr=True``.
        """
        try:
            self._file.close()
        except (OSError, RuntimeError) as error:
            raise OSError(f"{self.path} with {self._count} frames could not be closed: {error}") from error
