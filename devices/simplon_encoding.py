"""The messages that a DECTRIS detector sends over its stream: V1 (multi-part JSON) and V2 (CBOR)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

Encoding = Literal["bslz4", "lz4", "none"]
HeaderDetail = Literal["none", "basic", "all"]
Parts = list[bytes]

TYPED_ARRAY_TAGS = {"|u1": 64, "<u2": 69, "<u4": 70, "<f4": 85}
CHANNEL = "threshold_1"
NS_PER_S = 1_000_000_000
LZ4_FRAMING_BYTES = 16  # of a single block in an HDF5 chunk


def header_v1(
    series: int, config: Mapping[str, Any], mask: NDArray[np.uint32], detail: HeaderDetail = "all"
) -> Parts:
    """Message at the start of a series, V1.

    Parameters
    ----------
    series : int
    config : mapping
    mask : (ny, nx) uint32
    detail : str
        ``none``, ``basic`` (with the configuration) or ``all`` (with mask, flatfield and count rate table).
    """
    parts = [_json(header_detail=detail, htype="dheader-1.0", series=series)]
    if detail != "none":
        parts.append(_json(**config))
    if detail == "all":
        tables = {
            "dflatfield-1.0": np.ones(mask.shape, "<f4"),
            "dpixelmask-1.0": mask.astype("<u4"),
            "dcountrate_table-1.0": np.tile(np.arange(16, dtype="<f4")[:, None], 2),
        }
        for htype, table in tables.items():
            parts.append(_json(htype=htype, shape=table.shape[::-1], type=table.dtype.name))
            parts.append(table.tobytes())
    return parts


def image_v1(
    series: int,
    number: int,
    frame: NDArray[np.unsignedinteger],
    times_ns: tuple[int, int, int],
    encoding: Encoding = "bslz4",
) -> Parts:
    """One frame, V1.

    Parameters
    ----------
    series, number : int
    frame : (ny, nx) uint8, uint16 or uint32, counts
    times_ns : (start, stop, real)
    encoding : str
    """
    little = frame.astype(frame.dtype.newbyteorder("<"), order="C")
    bits = 8 * little.itemsize
    name = {"bslz4": f"bs{bits}-lz4<", "lz4": "lz4<", "none": "<"}[encoding]
    data = compress(little, encoding)
    if encoding == "lz4":
        data = data[LZ4_FRAMING_BYTES:]  # V1 sends the bare block
    start, stop, real = times_ns
    return [
        _json(htype="dimage-1.0", series=series, frame=number, hash=hashlib.md5(data).hexdigest()),
        _json(
            htype="dimage_d-1.0",
            shape=little.shape[::-1],
            type=little.dtype.name,
            encoding=name,
            size=len(data),
        ),
        data,
        _json(htype="dconfig-1.0", start_time=start, stop_time=stop, real_time=real),
    ]


def end_v1(series: int) -> Parts:
    """Message at the end of a series, V1."""
    return [_json(htype="dseries_end-1.0", series=series)]


def header_v2(
    series: int, config: Mapping[str, Any], mask: NDArray[np.uint32], detail: HeaderDetail = "all"
) -> Parts:
    """Message at the start of a series, V2; parameters as in `header_v1`."""
    ny, nx = mask.shape
    message = {"image_size_x": nx, "image_size_y": ny, "channels": [CHANNEL], **config}
    if detail == "all":
        message["pixel_mask"] = {CHANNEL: _array(mask.astype("<u4"), "none")}
    return _cbor("start", series, message)


def image_v2(
    series: int,
    number: int,
    frame: NDArray[np.unsignedinteger],
    times_ns: tuple[int, int, int],
    encoding: Encoding = "bslz4",
) -> Parts:
    """One frame, V2; parameters as in `image_v1`."""
    times = {
        f"{name}_time": [t, NS_PER_S] for name, t in zip(("start", "stop", "real"), times_ns, strict=True)
    }
    little = frame.astype(frame.dtype.newbyteorder("<"), order="C")
    return _cbor("image", series, {"image_id": number, "data": {CHANNEL: _array(little, encoding)}, **times})


def end_v2(series: int) -> Parts:
    """Message at the end of a series, V2."""
    return _cbor("end", series, {})


def compress(frame: NDArray, encoding: Encoding) -> bytes:
    """A frame as HDF5's filters compress it: those of the detector are the same."""
    if encoding == "none":
        return frame.tobytes()
    size = frame.nbytes
    filters = {"bslz4": hdf5plugin.Bitshuffle(cname="lz4"), "lz4": hdf5plugin.LZ4(nbytes=size)}
    with h5py.File("frame.h5", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset(
            "frame", frame.shape, frame.dtype, chunks=frame.shape, **filters[encoding]
        )
        dataset[...] = frame
        _, data = dataset.id.read_direct_chunk((0,) * frame.ndim)
        return bytes(data)


def _json(**content: Any) -> bytes:
    return json.dumps(content).encode()


def _array(array: NDArray, encoding: Encoding) -> Any:
    import cbor2

    data: Any = compress(array, encoding)
    if encoding != "none":
        data = cbor2.CBORTag(56500, [encoding, array.itemsize if encoding == "bslz4" else 0, data])
    return cbor2.CBORTag(40, [list(array.shape), cbor2.CBORTag(TYPED_ARRAY_TAGS[array.dtype.str], data)])


def _cbor(kind: str, series: int, content: Mapping[str, Any]) -> Parts:
    import cbor2

    head = {"type": kind, "series_id": series, "series_unique_id": f"simulated-{series}"}
    return [cbor2.dumps({**head, **content})]
