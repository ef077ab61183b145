"""Messages of a DECTRIS detector's stream, as they come from the socket, to what they mean.

Stream V1 is the multi-part JSON of the SIMPLON API 1.8, stream V2 (see `simplon_cbor`) one CBOR map per
message; the first byte tells which. Frames stay compressed: what is handed on is the content of an HDF5
chunk, because bitshuffle/LZ4 frames have the framing of its filter already and LZ4 frames only lack it.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Filter = Literal["none", "lz4", "bslz4"]

DTYPES = {"uint8": "u1", "uint16": "u2", "uint32": "u4"}
ENCODING = re.compile(r"(?:bs(?P<bits>8|16|32)-)?(?P<lz4>lz4)?(?P<order>[<>])")
TABLES = {"dflatfield-1.0": "flatfield", "dpixelmask-1.0": "pixel_mask", "dcountrate_table-1.0": "countrate"}
LARGEST_NUMBER = 2_000_000_000  # of images in a series, by the detector's own rules
HEADER_PARTS = {"none": 1, "basic": 2, "all": 8}  # an appendix may follow


class MessageError(ValueError):
    """A message that cannot be understood; it names what was expected."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """One frame as the content of an HDF5 chunk.

    Attributes
    ----------
    shape : (ny, nx)
    dtype : numpy dtype
        uint8, uint16 or uint32 with its byte order.
    filter : str
        ``none``, ``lz4`` (HDF5 filter 32004) or ``bslz4`` (32008).
    data : bytes-like
    """

    shape: tuple[int, int]
    dtype: np.dtype
    filter: Filter
    data: bytes | memoryview


@dataclass(frozen=True, eq=False)
class SeriesStart:
    """The detector was armed.

    Attributes
    ----------
    series : int
    config : mapping
        The detector's configuration, empty with header detail ``none``.
    arrays : mapping
        ``pixel_mask`` (ny, nx) uint32, ``flatfield`` (ny, nx) float32, ``countrate`` where they were sent.
    """

    series: int
    config: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Image:
    """One exposure: its number in the series, from 0, and a frame per threshold.

    ``times_s``: start, stop and real exposure time since the start of the series.
    """

    series: int
    number: int
    channels: Mapping[str, Chunk]
    times_s: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not 0 <= self.number <= LARGEST_NUMBER or not self.channels:
            raise MessageError(f"frame {self.number} with {len(self.channels)} channels; expected a frame "
                               f"with a number from 0 to {LARGEST_NUMBER}")  # fmt: skip


@dataclass(frozen=True)
class SeriesEnd:
    """The detector was disarmed."""

    series: int


Message = SeriesStart | Image | SeriesEnd


def parse(parts: Sequence[bytes | memoryview]) -> Message:
    """Read one message of either version.

    Parameters
    ----------
    parts : sequence of bytes-like
        The parts of the 0MQ message.

    Raises
    ------
    MessageError
        If it is no message of a DECTRIS stream, a field is missing or wrong, or its encoding is unknown.
    """
    if not parts or not len(parts[0]):
        raise MessageError("an empty message; expected one of a DECTRIS stream")
    try:
        if parts[0][0] >> 5 == 5:  # a CBOR map
            from ptychrome.callbacks.sources.simplon_cbor import parse_cbor

            return parse_cbor(parts[0])
        return _parse_json(parts)
    except MessageError:
        raise
    except KeyError as error:
        raise MessageError(f"a message without the field {error}") from None
    except (ValueError, TypeError, IndexError, struct.error) as error:
        raise MessageError(f"a message that cannot be read: {error}") from error


def _parse_json(parts: Sequence[bytes | memoryview]) -> Message:
    head = _json(parts[0])
    match head["htype"]:
        case "dheader-1.0":
            return _header(head, parts)
        case "dimage-1.0":
            return _image(head, parts)
        case "dseries_end-1.0":
            return SeriesEnd(int(head["series"]))
        case other:
            raise MessageError(f"a message of type {other!r}; expected dheader, dimage or dseries_end 1.0")


def _json(part: bytes | memoryview) -> dict[str, Any]:
    content = json.loads(bytes(part))
    if not isinstance(content, dict):
        raise MessageError(f"a message part that is {type(content).__name__}; expected a JSON object")
    return content


def _header(head: Mapping[str, Any], parts: Sequence[bytes | memoryview]) -> SeriesStart:
    detail = head["header_detail"]
    if detail not in HEADER_PARTS:
        raise MessageError(f"header_detail {detail!r}; expected none, basic or all")
    expected = HEADER_PARTS[detail]
    if len(parts) < expected:
        raise MessageError(f"a header of {len(parts)} parts; expected {expected} with detail {detail!r}")
    config = _json(parts[1]) if expected > 1 else {}
    arrays = {}
    for description, blob in zip(parts[2:expected:2], parts[3:expected:2], strict=True):
        about = _json(description)
        shape = tuple(int(n) for n in reversed(about["shape"]))  # x runs fastest and is named first
        arrays[TABLES[about["htype"]]] = np.frombuffer(blob, f"<{about['type'][0]}4").reshape(shape)
    return SeriesStart(int(head["series"]), config, arrays)


def _image(head: Mapping[str, Any], parts: Sequence[bytes | memoryview]) -> Image:
    if len(parts) < 4:
        raise MessageError(f"an image of {len(parts)} parts; expected dimage, dimage_d, data and dconfig")
    about, data, config = _json(parts[1]), parts[2], _json(parts[3])
    if len(data) != int(about["size"]):
        raise MessageError(f"{len(data)} bytes of data; the header announces {about['size']}")
    shape = [int(n) for n in about["shape"]]
    if len(shape) == 3 and shape[2] == 1:
        shape.pop()
    if len(shape) != 2:
        raise MessageError(f"a frame of shape {about['shape']}; expected [x, y]")
    chunk = _chunk((shape[1], shape[0]), about["type"], about["encoding"], data)
    start, stop, real = (float(config[f"{name}_time"]) * 1e-9 for name in ("start", "stop", "real"))
    return Image(int(head["series"]), int(head["frame"]), {"": chunk}, (start, stop, real))


def _chunk(shape: tuple[int, int], kind: str, encoding: str, data: bytes | memoryview) -> Chunk:
    found = ENCODING.fullmatch(encoding)
    if kind not in DTYPES or found is None or (found["bits"] and not found["lz4"]):
        raise MessageError(
            f"frames of type {kind!r} and encoding {encoding!r}; "
            "expected uint8, uint16 or uint32 and [bs<BIT>-][lz4]< or >"
        )
    dtype = np.dtype(found["order"] + DTYPES[kind])
    if found["bits"]:
        if int(found["bits"]) != 8 * dtype.itemsize:
            raise MessageError(f"encoding {encoding!r} with type {kind!r}; expected the same number of bits")
        return Chunk(shape, dtype, "bslz4", data)
    size = dtype.itemsize * shape[0] * shape[1]
    if not found["lz4"]:
        return plain_chunk(shape, dtype, data)
    if len(data) == size:  # the framing would call such a block uncompressed
        import lz4.block

        return plain_chunk(shape, dtype, lz4.block.decompress(data, uncompressed_size=size), "lz4")
    return Chunk(shape, dtype, "lz4", _lz4_framing(size, len(data)) + bytes(data))


def plain_chunk(
    shape: tuple[int, int], dtype: np.dtype, data: bytes | memoryview, filter_: Filter = "none"
) -> Chunk:
    """A frame that is not compressed, for a dataset with no filter or with ``lz4``.

    Raises
    ------
    MessageError
        If the size is not that of the frame.
    """
    size = dtype.itemsize * shape[0] * shape[1]
    if len(data) != size:
        raise MessageError(
            f"{len(data)} bytes for a frame of {shape[0]} × {shape[1]} {dtype}; expected {size}"
        )
    framing = _lz4_framing(size, size) if filter_ == "lz4" else b""
    return Chunk(shape, dtype, filter_, framing + bytes(data) if framing else data)


def _lz4_framing(size: int, compressed: int) -> bytes:
    """What precedes one LZ4 block in an HDF5 chunk: both sizes of the whole, then that of the block."""
    return struct.pack(">QII", size, size, compressed)
