"""Frames per second from a simulated detector's stream to disk: sender, receiver and HDF5 on one machine.

    python tests/benchmarks/bench_stream.py [--frames 300] [--repeats 5]

The frames are compressed beforehand, so what is measured is sockets, parser and file. The clock runs from the
first message until the last frame can be read.
"""

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from ptychrome.callbacks.sources.simplon import Ended, Spooler
from ptychrome.devices import simplon_encoding as messages
from ptychrome.devices.simplon_simulator import SimplonSimulator

SIZES = {"128²": (128, 128), "1M (1062 × 1028)": (1062, 1028)}


def frames_per_s(parts: list[list[bytes]], header: list[bytes], directory: Path) -> float:
    ended, reports = threading.Event(), []
    spooler = Spooler(directory, lambda event: ended.set() if event == Ended(1) else None, reports.append)
    with SimplonSimulator(patience_s=120) as simulator:
        receiver = threading.Thread(target=spooler.receive, args=(simulator.address,))
        receiver.start()
        simulator.send(header)
        started = time.perf_counter()
        for image in parts:
            simulator.send(image)
        simulator.send(messages.end_v1(1))
        ended.wait()
        elapsed_s = time.perf_counter() - started
        spooler.stop()
        receiver.join()
    assert not reports, reports
    return len(parts) / elapsed_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    for name, shape in SIZES.items():
        for encoding in ("bslz4", "lz4", "none"):
            frame = rng.poisson(2.0, shape).astype(np.uint16)
            image = messages.image_v1(1, 0, frame, (0, 1, 1), encoding)
            megabytes = len(image[2]) / 1e6
            parts = [
                [image[0].replace(b'"frame": 0', b'"frame": %d' % n), *image[1:]]
                for n in range(options.frames)
            ]
            header = messages.header_v1(1, {}, np.zeros(shape, np.uint32), "basic")
            rates = []
            for _ in range(options.repeats):
                with tempfile.TemporaryDirectory() as directory:
                    rates.append(frames_per_s(parts, header, Path(directory)))
            rate = statistics.median(rates)
            print(
                f"{name:18} {encoding:6} {megabytes:7.3f} MB a frame: {rate:7.0f} frames/s "
                f"({rate * megabytes:.0f} MB/s), {min(rates):.0f} to {max(rates):.0f}"
            )


if __name__ == "__main__":
    main()
