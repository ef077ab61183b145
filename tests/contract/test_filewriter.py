"""A scan whose frames the detector's own FileWriter writes: those that HDF1 writes, in many files."""

import operator
from collections import Counter
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (the filter that the frames are compressed with)
import numpy as np
import pytest
from bluesky import Msg, RunEngine
from bluesky.utils import RunEngineInterrupted

from ptychrome.callbacks.intake import Intake
from ptychrome.callbacks.reconstruct import geometry_at, load
from ptychrome.plans.spectro_ptycho import spectro_ptycho

ENERGIES = [5420.0, 5465.5, 5480.25]
TRAJECTORY = {"kind": "points", "x": [-1e-7, 0.0, 1e-7, 2e-7], "y": [0.0, 3e-7, 0.0, -3e-7]}
MASK = "/entry/instrument/detector/detectorSpecific/pixel_mask"
SETTINGS = "acquire trigger_mode manual_trigger num_triggers num_images fw_enable fw_name_pattern save_files"
SETTINGS += " fw_num_images_per_file fw_compression file_path data_source stream_enable"
PER_FILE = 5  # does not divide the positions of an energy: files and energies overlap


@pytest.fixture(scope="module")
def filewriter(connect):
    return connect(eiger={"writer": "filewriter", "images_per_file": PER_FILE})


def record(beamline, documents, *preprocessors):
    engine = RunEngine({})
    engine.subscribe(documents)
    engine.preprocessors.extend(preprocessors)
    plan = spectro_ptycho(
        [beamline.eiger],
        beamline.dcm,
        beamline.stage,
        energies=ENERGIES,
        trajectory=TRAJECTORY,
        exposure_s=0.1,
        sample_name="P1",
    )
    try:
        engine(plan)
    except RunEngineInterrupted:
        engine.resume()
    return documents


def path_of(uri):
    return Path(uri.removeprefix("file://localhost"))


def frames_of(documents):
    """Frame of each seq_num, the last one of each, as it lies in its file."""
    resources = {resource["uid"]: resource for resource in documents.of("stream_resource")}
    where = {
        datum["seq_nums"]["start"]: (resources[datum["stream_resource"]], datum["indices"]["start"])
        for datum in documents.of("stream_datum")
    }
    found = {}
    for number, (resource, index) in where.items():
        with h5py.File(path_of(resource["uri"])) as file:
            found[number] = file[resource["parameters"]["dataset"]][index]
    return found


def check_sums(documents):
    """Every event has the frame whose sum it carries."""
    frames, events = frames_of(documents), documents.events()
    assert sorted(frames) == sorted(events) == list(range(1, 13))
    master = path_of(documents.of("stream_resource")[0]["parameters"]["master"])
    with h5py.File(master) as file:
        good = file[MASK][()] == 0
    for number, frame in frames.items():
        total = frame.sum(where=good & (frame < 2**32 - 1), dtype=np.uint64)
        assert events[number]["data"]["eiger_total"] == total > 0


def check_every_frame_is_announced(documents):
    """What joins the files (Tiled's reader) counts frames; it must not find one that it was not told of."""
    announced = Counter(datum["stream_resource"] for datum in documents.of("stream_datum"))
    for resource in documents.of("stream_resource"):
        with h5py.File(path_of(resource["uri"])) as file:
            assert len(file[resource["parameters"]["dataset"]]) == announced[resource["uid"]]


def jobs_of(documents):
    intake = Intake.from_start(documents.start)
    return [job for name, doc in documents.all for job in intake(name, doc)]


def found(beamline):
    return {name: operator.attrgetter(f"cam.{name}")(beamline.eiger).get() for name in SETTINGS.split()}


@pytest.mark.parametrize("roi", [{}, {"shape": [24, 20], "roi_origin": [12, 14]}])
def test_frames_are_those_that_hdf1_writes(ca, connect, collect, simulate, roi):
    """Nuisances on: they depend on the order of exposures only. The analysis reads the same data."""
    files = connect(eiger={"writer": "filewriter", "images_per_file": PER_FILE, **roi})
    at_first = found(files)
    theirs = record(connect(eiger=roi), collect())
    simulate("Sample", "P1")
    ours = record(files, collect())
    assert found(files) == at_first
    if not roi:
        check_sums(ours)
    check_every_frame_is_announced(ours)
    names = [path_of(resource["uri"]).name for resource in ours.of("stream_resource")]
    assert [name[-14:] for name in names] == [f"data_00000{n}.h5" for n in (1, 2, 3)]
    for number, event in theirs.events().items():
        assert ours.events()[number]["data"] == event["data"]
    for mine, other in zip(jobs_of(ours), jobs_of(theirs), strict=True):
        geometry = geometry_at(mine.metadata, mine.energy_eV)
        (data, _), (expected, _) = load(mine, geometry), load(other, geometry)
        np.testing.assert_array_equal(data.amplitude, expected.amplitude)  # negative where masked


def test_master_links_to_the_data_files(ca, filewriter, collect):
    documents = record(filewriter, collect())
    first, *_ = documents.of("stream_resource")
    with h5py.File(path_of(first["parameters"]["master"])) as file:
        linked = np.concatenate([file[f"entry/data/data_00000{n}"][()] for n in (1, 2, 3)])
        assert "32008" in file["entry/data/data_000001"]._filters  # bitshuffle, HDF5's registry of filters
    np.testing.assert_array_equal(linked, [frame for _, frame in sorted(frames_of(documents).items())])


def test_pause_loses_and_doubles_nothing(ca, filewriter, collect, before):
    documents = record(filewriter, collect(), before("trigger", 13, lambda: Msg("pause", None, defer=False)))
    assert documents.stop["exit_status"] == "success"
    check_sums(documents)
    check_every_frame_is_announced(documents)


@pytest.mark.parametrize(("fault", "value"), [("DropFrames", 1), ("DelayFrame", 3.0)])
def test_frame_that_the_stream_lost_is_taken_again(ca, connect, collect, before, simulate, fault, value):
    """Or that comes through it too late. It is in the file: indices must not shift by it."""
    files = connect(
        eiger={"writer": "filewriter", "images_per_file": PER_FILE, "patience_s": 2.0, "retries": 1}
    )
    at_first = found(files)
    documents = record(files, collect(), before("trigger", 13, lambda: simulate(fault, value)))
    assert found(files) == at_first
    assert documents.stop["exit_status"] == "success"
    check_sums(documents)
    check_every_frame_is_announced(documents)
    series = {resource["parameters"]["master"] for resource in documents.of("stream_resource")}
    assert len(series) == 2


def test_directory_that_is_not_there_is_refused(ca, connect):
    eiger = connect(eiger={"writer": "filewriter", "write_directory": "/nowhere/at/all"}).eiger
    at_first = eiger.cam.fw_enable.get(), eiger.cam.file_path.get()
    with pytest.raises(RuntimeError, match="cannot write to /nowhere/at/all: no such directory"):
        eiger.stage()
    assert (eiger.cam.fw_enable.get(), eiger.cam.file_path.get()) == at_first
