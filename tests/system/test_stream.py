"""A whole session whose frames come through the detector's stream: the same as with files. Takes a minute."""

import h5py
import hdf5plugin  # noqa: F401  registers the frames' compression
import numpy as np

from ptychrome.callbacks.raw import replay
from ptychrome.callbacks.sinks.nexus import load_result
from ptychrome.devices.simplon_simulator import SimplonSimulator
from ptychrome.profiles.session import DOCUMENTS, open_session

MAPS = ("absorbance", "phase", "maps/edge_jump")


def stored_frames(session, scan):
    """Frames in the order of their positions, as the stored documents refer to them."""
    resources, frames = {}, {}
    for name, doc in replay(session.directory / DOCUMENTS / f"{scan.uid}.jsonl"):
        if name == "stream_resource":
            resources[doc["uid"]] = doc
        elif name == "stream_datum":
            frames[doc["seq_nums"]["start"]] = (resources[doc["stream_resource"]], doc["indices"]["start"])
    (path,) = {resource["uri"].removeprefix("file://localhost") for resource, _ in frames.values()}
    with h5py.File(path) as file:
        dataset = file[next(iter(frames.values()))[0]["parameters"]["dataset"]][()]
    return dataset[[frames[number][1] for number in sorted(frames)]]


def test_a_scan_through_the_stream_gives_the_frames_and_maps_of_one_through_files(
    tmp_path, fast_recipe, measure, energies
):
    reports = []
    # no workers: with them the order in which energies finish decides what starts from what
    with (
        SimplonSimulator() as stream,
        open_session(
            tmp_path, fast_recipe, workers=0, stream=stream.address, report=reports.append
        ) as session,
    ):
        scans = [
            measure(session.RE, session.frames, energies=energies[::2] + energies[-1:], stream=source)
            for source in (stream, None)
        ]
        assert session.finish(240)
        assert reports == []
        raw = session.client()["raw"]
        streamed, filed = (stored_frames(session, scan) for scan in scans)
        np.testing.assert_array_equal(streamed, filed)
        np.testing.assert_array_equal(raw[scans[0].uid]["primary", "eiger_image"].read(), filed)
        names = [name for name, _ in scans[0].documents]
        assert names == [name for name, _ in scans[1].documents]
        results = [load_result(session.directory / f"P1_{scan.uid[:8]}.nxs").arrays for scan in scans]
        for name in MAPS:
            np.testing.assert_array_equal(results[0][name], results[1][name])
