"""Stream V2 of DECTRIS detectors: one CBOR map per message, arrays as in RFC 8746, compression tag 56500."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cbor2
import numpy as np

from ptychrome.callbacks.sources.simplon_messages import (
    Chunk,
    Image,
    Message,
    MessageError,
    SeriesEnd,
    SeriesStart,
    plain_chunk,
)

ARRAY_TAG, COMPRESSION_TAG = 40, 56500
TYPED_ARRAYS = {
    64: ">u1", 65: ">u2", 66: ">u4", 67: ">u8", 68: ">u1", 69: "<u2", 70: "<u4", 71: "<u8",
    81: ">f4", 82: ">f8", 85: "<f4", 86: "<f8",
}  # fmt: skip
FRAME_ITEM_BYTES = (1, 2, 4)


@dataclass(frozen=True)
class _Typed:
    """A typed array, still compressed where ``algorithm`` is not empty."""

    dtype: np.dtype
    data: bytes
    algorithm: str = ""
    item_bytes: int = 0


def parse_cbor(content: bytes | memoryview) -> Message:
    """Read one message of stream V2.

    Raises
    ------
    MessageError
        If the message is not CBOR, of an unknown type, or its frames are of an unknown kind.
    """
    try:
        message = cbor2.loads(bytes(content), tag_hook=_tag)
    except cbor2.CBORDecodeError as error:
        raise MessageError(f"a message that is not CBOR: {error}") from error
    series = int(message["series_id"])
    match message["type"]:
        case "start":
            return _start(series, message)
        case "image":
            channels = {name: _chunk(array) for name, array in message["data"].items()}
            times = [message[f"{name}_time"] for name in ("start", "stop", "real")]
            start, stop, real = (ticks / frequency for ticks, frequency in times)
            return Image(series, int(message["image_id"]), channels, (start, stop, real))
        case "end":
            return SeriesEnd(series)
        case other:
            raise MessageError(f"a message of type {other!r}; expected start, image or end")


def _tag(*arguments: Any) -> Any:
    """Hook of cbor2; of its arguments only the tag has kept its meaning over the versions."""
    (tag,) = (argument for argument in arguments if isinstance(argument, cbor2.CBORTag))
    if tag.tag in TYPED_ARRAYS:
        dtype = np.dtype(TYPED_ARRAYS[tag.tag])
        return _Typed(dtype, *tag.value) if isinstance(tag.value, tuple) else _Typed(dtype, tag.value)
    if tag.tag == COMPRESSION_TAG:
        algorithm, item_bytes, data = tag.value
        return data, algorithm, item_bytes
    return tag


def _start(series: int, message: Mapping[str, Any]) -> SeriesStart:
    """Of several thresholds the mask and the flatfield of the first one count."""
    config = {key: value for key, value in message.items() if isinstance(value, str | int | float | list)}
    arrays = {}
    for name in ("pixel_mask", "flatfield"):
        for array in list(message.get(name, {}).values())[:1]:
            shape, typed = _array(array)
            if typed.algorithm:
                raise MessageError(f"a compressed {name}; expected compression of frames only")
            arrays[name] = np.frombuffer(typed.data, typed.dtype).reshape(shape)
    return SeriesStart(series, config, arrays)


def _array(array: Any) -> tuple[tuple[int, int], _Typed]:
    if not (isinstance(array, cbor2.CBORTag) and array.tag == ARRAY_TAG):
        raise MessageError("data that are no array; expected a multi-dimensional array, tag 40")
    (ny, nx), typed = array.value
    if not isinstance(typed, _Typed):
        raise MessageError("an array of unknown type; expected a typed array of integers or floats")
    return (int(ny), int(nx)), typed


def _chunk(array: Any) -> Chunk:
    shape, typed = _array(array)
    if typed.dtype.kind != "u" or typed.dtype.itemsize not in FRAME_ITEM_BYTES:
        raise MessageError(f"frames of {typed.dtype}; expected 8, 16 or 32-bit unsigned integers")
    match typed.algorithm:
        case "":
            return plain_chunk(shape, typed.dtype, typed.data)
        case "lz4":
            return Chunk(shape, typed.dtype, "lz4", typed.data)
        case "bslz4" if typed.item_bytes == typed.dtype.itemsize:
            return Chunk(shape, typed.dtype, "bslz4", typed.data)
    raise MessageError(
        f"compression {typed.algorithm!r} of {typed.item_bytes}-byte elements for {typed.dtype}; "
        "expected lz4, or bslz4 of elements of the same size"
    )
