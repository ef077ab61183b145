"""The documents by which a detector tells where its frames lie: stream_resource and stream_datum."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptychrome.schema import STREAM_MIMETYPE

Document = dict[str, Any]


class FrameAssets:
    """Announces every frame of one file or series exactly once, also when a scan is paused and rewound.

    The RunEngine drops documents that it has collected when a pause comes between the reading of a
    detector and the saving of the event. It fills ``run_start`` and ``descriptor`` in place into those
    that it does emit, so the others are known by their gap and are handed over again. A frame whose event
    was dropped is thus announced together with its successor under one seq_num: the last one counts.

    Parameters
    ----------
    data_key : str
        The image's key in the events' descriptor.
    place : Path or int
        The HDF5 file, or the number of the series in the detector's stream.
    dataset : str
        The frames in it, shape (n, ny, nx).
    frame_shape : (ny, nx)
    """

    def __init__(self, data_key: str, place: Path | int, dataset: str, frame_shape: tuple[int, int]) -> None:
        if isinstance(place, Path):
            mimetype, series = "application/x-hdf5", {}
            uri = place.resolve().as_uri().replace("file://", "file://localhost", 1)
        else:
            mimetype, series, uri = STREAM_MIMETYPE, {"series": place}, f"simplon://localhost/{place}"
        self._resource: Document = {
            "uid": str(uuid.uuid4()),
            "data_key": data_key,
            "mimetype": mimetype,
            "uri": uri,
            "parameters": {
                "dataset": dataset,
                "chunk_shape": [1, *frame_shape],
                "join_method": "stack",
                "swmr": True,
                **series,
            },
        }
        self._waiting: list[Document] = []

    def add(self, index: int, count: int = 1) -> None:
        """So many frames lie at `index` of the dataset and behind it, each of an event of its own."""
        self._waiting.append(
            {
                "uid": f"{self._resource['uid']}/{index}",
                "stream_resource": self._resource["uid"],
                "descriptor": "",
                "indices": {"start": index, "stop": index + count},
                "seq_nums": {"start": 0, "stop": 0},
            }
        )

    def collect(self) -> Iterator[tuple[str, Document]]:
        """Documents, as (name, document), of all frames that no event has taken yet."""
        self._waiting = [datum for datum in self._waiting if not datum["descriptor"]]
        if self._waiting and "run_start" not in self._resource:
            yield "stream_resource", self._resource
        for datum in self._waiting:
            yield "stream_datum", datum
