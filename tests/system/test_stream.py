"""Whole sessions whose frames come through the detector's stream: the same as with files. Takes 2 minutes."""

import h5py
import hdf5plugin  # noqa: F401  registers the frames' compression
import numpy as np

from ptychrome.callbacks.raw import replay
from ptychrome.callbacks.sinks.nexus import load_result
from ptychrome.devices.simplon_simulator import SimplonSimulator
from ptychrome.plans import spectro_ptycho, square
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


def test_a_scan_over_channel_access_through_the_stream_gives_the_maps_of_one_through_files(
    ca, connect, ioc, simulate, tmp_path, fast_recipe, energies
):
    """Frames leave the IOC by its stream alone. Nuisances depend on the order of exposures only."""
    reports, uids = [], []
    stream = ioc.options.stream
    with open_session(tmp_path, fast_recipe, workers=0, stream=stream, report=reports.append) as session:
        streamed = {"writer": "stream", "stream": stream}
        for eiger in (streamed, {"read_directory": session.frames}):
            simulate("Sample", "P1")
            beamline = connect(session.arrivals, eiger=eiger)
            uids += session.RE(
                spectro_ptycho(
                    [beamline.eiger],
                    beamline.dcm,
                    beamline.stage,
                    energies=energies[::2] + energies[-1:],
                    trajectory=square(1.2e-6, 2e-7),
                    exposure_s=0.1,
                    sample_name="P1",
                )
            )
        assert session.finish(240)
        assert reports == []
        raw = session.client()["raw"]
        frames = [raw[uid]["primary", "eiger_image"].read() for uid in uids]
    assert len(frames[0]) == 5 * 49
    np.testing.assert_array_equal(frames[0], frames[1])
    files = [path.name.split("_")[0] for path in sorted(session.frames.glob("*.h5"))]
    assert files == ["eiger", "series"]
    results = [load_result(session.directory / f"P1_{uid[:8]}.nxs").arrays for uid in uids]
    for name in MAPS:
        np.testing.assert_array_equal(results[0][name], results[1][name])
