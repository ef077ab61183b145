"""A scan through Channel Access says the same as one of the in-process twin, and its frames are the same."""

import h5py
import hdf5plugin  # noqa: F401  (the filter that the frames are compressed with)
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.preprocessors import SupplementalData

from ptychrome.devices.simulated import simulated_beamline
from ptychrome.devices.twin import TwinBeamline
from ptychrome.plans.spectro_ptycho import spectro_ptycho

ENERGIES = [5420.0, 5465.5, 5480.25]
TRAJECTORY = {"kind": "points", "x": [-1e-7, 0.0, 1e-7, 2e-7], "y": [0.0, 3e-7, 0.0, -3e-7]}


def record(beamline, documents):
    engine = RunEngine({})
    engine.subscribe(documents)
    engine.preprocessors.append(SupplementalData(baseline=beamline.baseline))
    engine(
        spectro_ptycho(
            [beamline.eiger],
            beamline.dcm,
            beamline.stage,
            energies=ENERGIES,
            trajectory=TRAJECTORY,
            exposure_s=0.1,
            sample_name="P1",
        )
    )
    return documents


@pytest.fixture
def twin_and_ioc(ca, tmp_path, collect):
    twin = simulated_beamline(TwinBeamline("P1", frame_pixels=48), tmp_path)
    return record(twin, collect()), record(ca, collect())


def stored(documents):
    (resource,) = documents.of("stream_resource")
    with h5py.File(resource["uri"].removeprefix("file://localhost")) as file:
        mask = file["/entry/instrument/detector/detectorSpecific/pixel_mask"][()]
        return file[resource["parameters"]["dataset"]][()], mask


def meaning(key):
    """What a consumer relies on in a data key; an EPICS signal adds precision and limits."""
    fields = ("dtype", "dtype_numpy", "shape", "units", "external")
    found = {field: key.get(field) for field in fields if field != "dtype_numpy" or "external" in key}
    return found | {"shape": list(key["shape"])}


def test_documents_and_frames_are_those_of_the_twin(twin_and_ioc):
    """One scan of each, twelve frames, nuisances on: all of them depend on the order of exposures only."""
    twin, ioc = twin_and_ioc
    assert [name for name, _ in ioc.all] == [name for name, _ in twin.all]
    assert ioc.stop["exit_status"] == twin.stop["exit_status"] == "success"
    assert ioc.stop["num_events"] == twin.stop["num_events"] == {"primary": 12, "baseline": 2}

    personal = {"uid", "time", "ptychrome"}
    assert {k: v for k, v in ioc.start.items() if k not in personal} == {
        k: v for k, v in twin.start.items() if k not in personal
    }
    blocks = [dict(documents.start["ptychrome"]) for documents in (twin, ioc)]
    probes = [block.pop("probe") for block in blocks]
    assert blocks[0] == blocks[1]
    assert probes[0].keys() == probes[1].keys()  # the IOC's site gives another nominal defocus

    for ours, theirs in zip(ioc.of("descriptor"), twin.of("descriptor"), strict=True):
        assert ours["name"] == theirs["name"]
        assert {k: meaning(v) for k, v in ours["data_keys"].items()} == {
            k: meaning(v) for k, v in theirs["data_keys"].items()
        }
        assert ours["hints"] == theirs["hints"]
        if ours["name"] == "primary":
            expected = theirs["configuration"]["eiger"]["data"]
            assert expected.items() <= ours["configuration"]["eiger"]["data"].items()

    (ours,), (theirs,) = ioc.of("stream_resource"), twin.of("stream_resource")
    for field in ("data_key", "mimetype", "parameters"):
        assert ours[field] == theirs[field]
    assert ioc.frames() == twin.frames()
    for number, event in twin.events().items():
        assert ioc.events()[number]["data"] == event["data"]  # to the bit: Channel Access carries doubles

    for ours, theirs in zip(stored(ioc), stored(twin), strict=True):
        np.testing.assert_array_equal(ours, theirs)
