"""A simulated stream of an EIGER: pushes over 0MQ what the detector's own interface would.

pyzmq is an extra (``ptychrome[simplon]``), needed only where a simulator is made.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptychrome.devices import simplon_encoding as messages
from ptychrome.devices.simplon_encoding import NS_PER_S, Encoding, HeaderDetail, Parts

QUEUED_MESSAGES = 100  # the detector's buffer for a receiver that is slow


class SimplonSimulator:
    """The sending end of a detector's stream; thread-safe.

    Parameters
    ----------
    address : str
        Where it listens; the default takes a free port.
    version : int
        1: multi-part JSON, 2: CBOR.
    encoding : str
        ``bslz4``, ``lz4`` or ``none``.
    header_detail : str
        ``none``, ``basic`` or ``all``.
    patience_s : float
        Time for which a full queue may make a frame wait.

    Raises
    ------
    OSError
        If the address cannot be used.
    """

    def __init__(
        self,
        address: str = "tcp://127.0.0.1:*",
        *,
        version: Literal[1, 2] = 1,
        encoding: Encoding = "bslz4",
        header_detail: HeaderDetail = "all",
        patience_s: float = 10.0,
    ) -> None:
        import zmq

        self.version = version
        self.encoding = encoding
        self.header_detail = header_detail
        self._lock = threading.Lock()
        self._series = 0
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.sndhwm = QUEUED_MESSAGES
        self._socket.sndtimeo = int(patience_s * 1000)
        self._again = zmq.Again
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise OSError(f"cannot stream at {address}: {error}") from error
        self._address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    @property
    def address(self) -> str:
        """Where a receiver connects to."""
        return self._address

    def arm(
        self, mask: NDArray[np.uint32], config: Mapping[str, Any], number: int | None = None
    ) -> SimulatedSeries:
        """Begin a series.

        Parameters
        ----------
        mask : (ny, nx) uint32
            Its shape is that of the frames.
        config : mapping
            The detector's configuration.
        number : int, optional
            Of the series; by default the next one.

        Raises
        ------
        OSError
            If nobody receives.
        """
        with self._lock:
            self._series = self._series + 1 if number is None else number
            number = self._series
        header = messages.header_v1 if self.version == 1 else messages.header_v2
        self.send(header(number, config, mask, self.header_detail))
        return SimulatedSeries(self, number, float(config.get("count_time", 0.0)))

    def send(self, parts: Parts) -> None:
        """Send one message.

        Raises
        ------
        OSError
            If nobody receives.
        """
        with self._lock:
            try:
                self._socket.send_multipart(parts)
            except self._again:
                raise OSError(
                    f"nobody receives the detector's stream at {self.address}; "
                    "expected a receiver that keeps up"
                ) from None

    def close(self) -> None:
        """Stop listening; what is queued for a receiver is still sent, for a second."""
        self._context.destroy(linger=1000)

    def __enter__(self) -> SimplonSimulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SimulatedSeries:
    """One series, from arming to disarming the detector; takes frames as a file would."""

    def __init__(self, simulator: SimplonSimulator, number: int, exposure_s: float) -> None:
        self.number = number
        self._simulator = simulator
        self._exposure_ns = round(exposure_s * NS_PER_S)
        self._count = 0

    def append(self, frame: NDArray[np.unsignedinteger]) -> int:
        """Send a frame; its number in the series.

        Parameters
        ----------
        frame : (ny, nx) uint8, uint16 or uint32, counts

        Raises
        ------
        OSError
            If nobody receives; the number is then used again.
        """
        number, exposure = self._count, self._exposure_ns
        times = (number * exposure, (number + 1) * exposure, exposure)
        image = messages.image_v1 if self._simulator.version == 1 else messages.image_v2
        self._simulator.send(image(self.number, number, frame, times, self._simulator.encoding))
        self._count = number + 1
        return number

    def skip(self) -> None:
        """A frame that gets lost: nobody receives its number."""
        self._count += 1

    def close(self) -> None:
        """Disarm.

        Raises
        ------
        OSError
            If nobody receives.
        """
        end = messages.end_v1 if self._simulator.version == 1 else messages.end_v2
        self._simulator.send(end(self.number))
