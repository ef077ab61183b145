"""The documents by which a detector tells where its frames lie: stream_resource and stream_datum."""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptychrome.schema import STREAM_MIMETYPE

Document = dict[str, Any]


class FrameAssets:
    """Announces every frame of files or of a series exactly once, also when a scan is paused and rewound.

    The RunEngine drops documents that it has collected when a pause comes between the reading of a
    detector and the saving of the event. It fills ``run_start`` and ``descriptor`` in place into those
    that it does emit, so the others are known by their gap and are handed over again. A frame whose event
    was dropped is thus announced together with its successor under one seq_num: the last one counts.

    Frames are counted through, over all files and series that a detector fills one after the other.

    Parameters
    ----------
    data_key : str
        The image's key in the events' descriptor.
    place : Path or int
        Of the first frames: the HDF5 file, or the number of the series in the detector's stream.
    dataset : str
        The frames in it, shape (n, ny, nx).
    frame_shape : (ny, nx)
    **parameters
        More for the ``parameters`` of the stream_resource documents, or other than by default: ``swmr``
        is true, for a file that grows while it is read.
    """

    def __init__(
        self,
        data_key: str,
        place: Path | int,
        dataset: str,
        frame_shape: tuple[int, int],
        **parameters: Any,
    ) -> None:
        self._data_key = data_key
        self._parameters: Document = {
            "dataset": dataset,
            "chunk_shape": [1, *frame_shape],
            "join_method": "stack",
            "swmr": True,
            **parameters,
        }
        self._firsts = [0]  # number of the first frame of each resource
        self._resources = [self._resource_of(place)]
        self._waiting: list[tuple[Document, Document]] = []  # stream_resource, stream_datum

    def _resource_of(self, place: Path | int, **parameters: Any) -> Document:
        if isinstance(place, Path):
            mimetype, series, uri = "application/x-hdf5", {}, file_uri(place)
        else:
            mimetype, series, uri = STREAM_MIMETYPE, {"series": place}, f"simplon://localhost/{place}"
        return {
            "uid": str(uuid.uuid4()),
            "data_key": self._data_key,
            "mimetype": mimetype,
            "uri": uri,
            "parameters": {**self._parameters, **parameters, **series},
        }

    @property
    def uid(self) -> str:
        """Of the stream_resource of the frames to come."""
        return str(self._resources[-1]["uid"])

    def turn_to(self, first: int, place: Path | int, **parameters: Any) -> None:
        """Frames from `first` on lie in this file or series; `parameters` differ from those of the others."""
        if first == self._firsts[-1]:  # the one before remains without a frame
            del self._firsts[-1], self._resources[-1]
        self._resources.append(self._resource_of(place, **parameters))
        self._firsts.append(first)  # last: another thread may be looking

    def together(self, first: int, count: int) -> int:
        """How many of so many frames from `first` on lie in the same file or series."""
        behind = bisect_right(self._firsts, first)
        return min([count, *(beginning - first for beginning in self._firsts[behind : behind + 1])])

    def add(self, first: int, count: int = 1) -> None:
        """So many frames, which lie together, are to be announced, each of an event of its own."""
        which = bisect_right(self._firsts, first) - 1
        resource, index = self._resources[which], first - self._firsts[which]
        datum = {
            "uid": f"{resource['uid']}/{index}",
            "stream_resource": resource["uid"],
            "descriptor": "",
            "indices": {"start": index, "stop": index + count},
            "seq_nums": {"start": 0, "stop": 0},
        }
        self._waiting.append((resource, datum))

    def collect(self) -> Iterator[tuple[str, Document]]:
        """Documents, as (name, document), of all frames that no event has taken yet."""
        self._waiting = [pair for pair in self._waiting if not pair[1]["descriptor"]]
        handed_over: set[str] = set()
        for resource, datum in self._waiting:
            if "run_start" not in resource and resource["uid"] not in handed_over:
                handed_over.add(resource["uid"])
                yield "stream_resource", resource
            yield "stream_datum", datum


def file_uri(path: Path) -> str:
    """How documents name a file."""
    return path.resolve().as_uri().replace("file://", "file://localhost", 1)
