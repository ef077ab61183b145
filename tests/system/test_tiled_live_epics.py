"""Frames of a scan over Channel Access, read from Tiled while it goes on, and mapped. Takes 60 s."""

import h5py
import hdf5plugin  # noqa: F401  registers the frames' compression
import numpy as np
import pytest
from bluesky import RunEngine

from ptychrome.analysis.recipe import Recipe
from ptychrome.callbacks.dispatch import ConsumerThread
from ptychrome.callbacks.sinks.nexus import load_result
from ptychrome.plans import spectro_ptycho, square
from ptychrome.profiles.live import LiveSettings, build_consumers
from ptychrome.profiles.tiled_server import TiledServer, raw_container

ENERGIES = [5420.0, 5450.0, 5480.25, 5531.0]
SIDE = 3
WINDOW = (slice(None), slice(8, 40), slice(10, 42))  # of the filewriter's frames
READ_AFTER = 20  # events, of 36


def stored_frames(documents):
    """All frames in the order in which they were announced, from the detector's files."""
    frames = []
    for name, doc in documents:
        if name == "stream_resource":
            with h5py.File(doc["uri"].removeprefix("file://localhost"), swmr=True) as file:
                whole = file[doc["parameters"]["dataset"]][()]
            frames.append(whole[WINDOW] if "slice" in doc["parameters"] else whole)
    return np.concatenate(frames)


@pytest.mark.parametrize(
    "eiger",
    [
        {"writer": "hdf1"},
        {"writer": "filewriter", "images_per_file": 4, "shape": [32, 32], "roi_origin": [8, 10]},
    ],
    ids=lambda eiger: eiger["writer"],
)
def test_frames_are_read_from_tiled_in_mid_scan_and_mapped(
    ca, connect, tmp_path, fast_recipe: Recipe, until, eiger
):
    frames = tmp_path / "frames"
    frames.mkdir()
    beamline = connect(eiger={"read_directory": frames, **eiger})
    documents, seen, reports = [], [], []

    def read_by_another(name, doc):
        documents.append((name, doc))
        if name == "event" and doc["seq_num"] == READ_AFTER:
            uid = documents[0][1]["uid"]
            until(lambda: uid in raw and "primary" in raw[uid], "the run in Tiled")
            until(lambda: "eiger_image" in raw[uid]["primary"], "frames in Tiled")
            # all of them: Tiled refuses to read an array that has grown since the client looked at it
            until(lambda: len(raw[uid]["primary", "eiger_image"]) == READ_AFTER, "the frames so far")
            assert not raw[uid].metadata.get("stop")
            seen.append(raw[uid]["primary", "eiger_image"].read())

    with TiledServer.start(tmp_path / "tiled", readable=[frames]) as server:
        raw = raw_container(server.client())
        settings = LiveSettings(
            fast_recipe,
            tmp_path,
            workers=0,
            raw_batch=1,
            tiled_uri=server.uri,
            tiled_api_key=server.api_key,
        )
        # the threads of the analysis process, in this one
        consumers = [
            ConsumerThread(build, reports.append)
            for build in build_consumers(settings, reports.append, lambda status: None)
        ]
        engine = RunEngine({})
        for consumer in consumers:
            engine.subscribe(consumer)
        engine.subscribe(read_by_another)
        trajectory = square((SIDE - 1) * 150e-9, 150e-9)
        (uid,) = engine(
            spectro_ptycho(
                [beamline.eiger],
                beamline.dcm,
                beamline.stage,
                energies=ENERGIES,
                trajectory=trajectory,
                exposure_s=0.1,
                sample_name="P1",
            )
        )
        assert all(consumer.close(300) for consumer in consumers)
        (early,) = seen
        whole = stored_frames(documents)
        assert len(whole) == len(ENERGIES) * SIDE**2
        np.testing.assert_array_equal(early, whole[: len(early)])
        np.testing.assert_array_equal(raw[uid]["primary", "eiger_image"].read(), whole)
    assert reports == []
    (result,) = tmp_path.glob("P1_*.nxs")
    assert load_result(result).attributes["energies_done"] == len(ENERGIES)
