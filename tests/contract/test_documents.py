"""What a scan says: schema, names and numbers, and which frame belongs to which event."""

import json

import bluesky.plans as bp
import h5py
import hdf5plugin  # noqa: F401  (the filter that the frames are compressed with)
import numpy as np
import pytest
from bluesky.preprocessors import SupplementalData
from bluesky_tiled_plugins.writing.consolidators import consolidator_factory

from ptychrome.plans.trajectories import positions
from ptychrome.schema import MASK_SUFFIX, scan_metadata


def file_of(documents):
    (resource,) = documents.of("stream_resource")
    assert resource["uri"].startswith("file://localhost/")
    return resource["uri"].removeprefix("file://localhost"), resource["parameters"]["dataset"]


def test_start_document_tells_the_whole_scan(RE, documents, scan, beamline):
    RE(scan(md={"proposal": "2026A1"}))
    start = documents.start
    assert start["plan_name"] == "spectro_ptycho"
    assert start["sample_name"] == "P1"
    assert start["proposal"] == "2026A1"
    assert (start["num_points"], start["shape"]) == (12, [3, 4])
    assert start["detectors"] == ["eiger"]
    assert json.loads(json.dumps(start)) == start
    block = scan_metadata(start)
    assert block.energies_eV == (5420.0, 5465.5, 5480.25)
    assert block.positions_per_energy == (4, 4, 4)
    assert block.extent_m == ((-3e-7, 3e-7), (-1e-7, 2e-7))
    assert block.geometry.model_dump(mode="json")["shape"] == beamline.eiger.geometry["shape"]
    assert block.probe.model_dump() == beamline.eiger.companions.probe
    assert documents.stop["exit_status"] == "success"
    assert documents.stop["num_events"] == {"primary": 12}


def test_keys_in_the_start_document_exist(RE, documents, scan):
    RE(scan())
    keys = scan_metadata(documents.start).keys
    (descriptor,) = documents.of("descriptor")
    data_keys = descriptor["data_keys"]
    assert set(keys.model_dump().values()) <= set(data_keys)
    assert data_keys[keys.image]["external"] == "STREAM:"
    assert data_keys[keys.image]["dtype_numpy"] == "<u4"
    assert data_keys[keys.energy]["units"] == "eV"
    assert data_keys[keys.x]["units"] == data_keys[keys.y]["units"] == "m"
    configuration = descriptor["configuration"]["eiger"]["data"]
    assert configuration["eiger_exposure_time"] == 0.1
    path, _ = file_of(documents)
    with h5py.File(path) as file:
        mask = file[configuration[f"{keys.image}_{MASK_SUFFIX}"]]
        assert mask.dtype == np.uint32
        assert list(mask.shape) == data_keys[keys.image]["shape"]


def test_every_event_has_its_own_frame_position_and_monitors(RE, documents, scan, twin):
    RE(scan())
    keys = scan_metadata(documents.start).keys
    events, frames = documents.events(), documents.frames()
    assert sorted(events) == sorted(frames) == list(range(1, 13))
    assert len(documents.of("event")) == len(documents.of("stream_datum")) == len(twin.exposures) == 12
    path, dataset = file_of(documents)
    with h5py.File(path) as file:
        stored = file[dataset][()]
    planned = positions(documents.start["plan_args"]["trajectory"])
    for seq_num, event in events.items():
        energy_index, position_index = divmod(seq_num - 1, 4)
        energy_eV, stage_m, shutter_open, exposure = twin.exposures[frames[seq_num]]
        data = event["data"]
        assert shutter_open
        assert data[keys.energy] == documents.start["plan_args"]["energies"][energy_index]
        assert data["dcm_energy"] == energy_eV == pytest.approx(data[keys.energy], rel=1e-12)  # via the angle
        assert (data[keys.x], data[keys.y]) == stage_m == tuple(planned[position_index])
        assert data[keys.i0] == exposure.i0
        assert data[keys.ring_current] == exposure.ring_current_mA
        np.testing.assert_array_equal(stored[frames[seq_num]], exposure.counts)


def test_plan_can_be_submitted_again_from_its_own_arguments(RE, documents, scan):
    RE(scan())
    arguments = json.loads(json.dumps(documents.start["plan_args"]))
    for name in ("detectors", "dcm", "stage"):
        del arguments[name]
    documents.all.clear()
    RE(scan(**arguments))
    assert documents.start["plan_args"]["energies"] == arguments["energies"]


def test_other_probe_and_the_beamlines_baseline(RE, documents, scan, beamline):
    RE.preprocessors.append(SupplementalData(baseline=[beamline.kb, beamline.dcm]))
    RE(scan(probe={"fwhm_m": 1e-7}))
    assert scan_metadata(documents.start).probe.fwhm_m == 1e-7
    assert documents.stop["num_events"] == {"primary": 12, "baseline": 2}
    assert len(documents.events()) == 12


def test_shutter_is_open_during_the_run_only(RE, scan, beamline, twin):
    assert beamline.shutter.is_open.get() == 0
    RE(scan())
    assert all(shutter_open for _, _, shutter_open, _ in twin.exposures)
    assert beamline.shutter.is_open.get() == 0


def test_plain_count_works_and_extra_detectors_are_read(RE, documents, scan, beamline):
    RE(bp.count([beamline.eiger], 3))
    assert documents.frames() == {1: 0, 2: 1, 3: 2}
    documents.all.clear()
    RE(scan(energies=[5500.0]))
    assert len(documents.events()) == 4


def test_tiled_reads_the_frames_while_the_scan_runs(RE, documents, scan, twin):
    """The consolidator is what TiledWriter builds its nodes from."""
    read = []

    def watch(name, doc):
        if name != "event" or doc["seq_num"] != 7:
            return
        (resource,), (descriptor,) = documents.of("stream_resource"), documents.of("descriptor")
        consolidator = consolidator_factory(resource, descriptor)
        for datum in documents.of("stream_datum"):
            consolidator.consume_stream_datum(datum)
        read.append(np.asarray(consolidator.init_adapter().read()))

    RE.subscribe(watch)
    RE(scan())
    (frames,) = read
    np.testing.assert_array_equal(frames, [exposure.counts for *_, exposure in twin.exposures[:7]])
