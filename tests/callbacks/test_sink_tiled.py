"""Results in a real Tiled server: names, units, what is sent and what is not. Takes about 15 s."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from ptychrome.callbacks.results import Revision
from ptychrome.callbacks.sinks.tiled import TiledSink
from ptychrome.callbacks.tiled_client import TiledUnavailable
from ptychrome.callbacks.tiled_results import read_results
from ptychrome.profiles.tiled_server import TiledServer, results_container
from ptychrome.schema import RESULT_SPEC

N_ENERGY, NY, NX = 4, 5, 6
AXES = {
    "energy": (["energy"], "eV"),
    "y": (["y"], "m"),
    "x": (["x"], "m"),
    "object": (["energy", "y", "x"], "1"),
    "absorbance": (["energy", "y", "x"], "1"),
    "phase": (["energy", "y", "x"], "rad"),
    "probe": (["energy", "mode", "probe_y", "probe_x"], "sqrt(photons)"),
    "maps/edge_energy": (["y", "x"], "eV"),
    "maps/edge_energy_sigma": (["y", "x"], "eV"),
    "maps/fitted": (["y", "x"], "1"),
    "clusters/label": (["y", "x"], "1"),
    "clusters/probability": (["y", "x"], "1"),
    "clusters/centers": (["cluster", "feature"], "eV eV 1"),
    "clusters/fractions": (["cluster"], "1"),
    "clusters/fractions_sigma": (["cluster"], "1"),
    "clusters/spectra": (["cluster", "energy"], "1"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with TiledServer.start(tmp_path_factory.mktemp("tiled")) as server:
        yield server


@pytest.fixture
def uid(request):
    return request.node.name


@pytest.fixture
def read(server, uid):
    """Reads as another client would."""
    return lambda name: server.client()["ptychrome", uid, *name.split("/")].read()


@pytest.fixture
def sink(server):
    return TiledSink(results_container(server.client()), rest_s=0)


def revision(uid, done=1, clusters=0, changed=None, all_arrays=False, **overrides):
    """Results after `done` energies; the values of a slice are its place + 1. Every array costs 0.1 s."""
    stack = np.full((N_ENERGY, NY, NX), np.nan, np.float32)
    stack[:done] = np.arange(1, done + 1)[:, None, None]
    arrays = {
        "absorbance": stack,
        "phase": -stack,
        "maps/edge_energy": np.full((NY, NX), 5470 + done, np.float32),
    }
    if clusters:
        arrays |= {
            "clusters/centers": np.ones((clusters, 3)),
            "clusters/spectra": np.ones((clusters, N_ENERGY)),
        }
    if all_arrays:
        arrays |= {
            "energy": np.linspace(5460, 5480, N_ENERGY),
            "y": -np.arange(NY) * 1e-8,
            "x": -np.arange(NX) * 1e-8,
            "object": stack * np.complex64(1 + 1j),
            "probe": np.ones((N_ENERGY, 2, 8, 8), np.complex64),
            "maps/edge_energy_sigma": np.full((NY, NX), 0.1, np.float32),
            "maps/fitted": np.ones((NY, NX), np.uint8),
            "clusters/label": np.zeros((NY, NX), np.int32),
            "clusters/probability": np.ones((NY, NX), np.float32),
            "clusters/fractions": np.full(clusters, 1 / clusters),
            "clusters/fractions_sigma": np.full(clusters, 0.01),
        }
    energies = {"place": np.arange(done), "error": np.ones(done)}
    fields = {
        "raw_uid": uid,
        "sample_name": "P1",
        "attributes": {"recipe": "live", "energies_done": done, "energies_planned": N_ENERGY},
        "arrays": arrays,
        "tables": {"quality/energies": energies},
        "changed": (done - 1,) if changed is None else changed,
        "final": False,
    }
    return Revision(**fields | overrides)


def test_names_values_dimensions_units_and_attributes(server, sink, uid):
    content = revision(uid, done=2, clusters=3, all_arrays=True)
    sink.write(content)
    run = server.client()["ptychrome", uid]
    assert [spec.name for spec in run.specs] == [RESULT_SPEC]
    assert dict(run.metadata) == {
        "recipe": "live",
        "energies_done": 2,
        "energies_planned": N_ENERGY,
        "raw_uid": uid,
        "sample_name": "P1",
        "final": False,
        "revision": 1,
    }
    assert set(run) == {name.split("/")[0] for name in [*content.arrays, *content.tables]}
    for name, array in content.arrays.items():
        node = run[tuple(name.split("/"))]
        np.testing.assert_array_equal(node.read(), array, err_msg=name)
        assert node.dtype == array.dtype, name
        dims, unit = AXES[name]
        assert (node.metadata["dims"], list(node.dims), node.metadata["units"]) == (dims, dims, unit), name
    assert run["object"].chunks[0] == (1,) * N_ENERGY
    table = run["quality", "energies"].read()
    for name, column in content.tables["quality/energies"].items():
        np.testing.assert_array_equal(table[name], column)


def test_a_result_is_read_back_by_the_address_of_its_page(server, sink, uid):
    content = revision(uid, done=4, clusters=3, all_arrays=True, final=True)
    sink.write(content)
    (found,) = read_results(server.web_address("ptychrome", uid))
    assert (found.raw_uid, found.sample_name, found.final) == (uid, "P1", True)
    assert found.attributes["recipe"] == "live"
    assert set(found.arrays) == set(content.arrays)
    for name, array in content.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)
    for name, column in content.tables["quality/energies"].items():
        np.testing.assert_array_equal(found.tables["quality/energies"][name], column)
    assert uid in [each.raw_uid for each in read_results(server.web_address())]
    with pytest.raises(ValueError, match="no result 'nothing'"):
        read_results(server.web_address("ptychrome", "nothing"))


def test_only_changed_slices_of_a_stack_are_sent(sink, uid, read):
    sink.write(revision(uid, done=1))
    second = revision(uid, done=3, changed=(1,))  # place 2 differs, too, but is not said to
    sink.write(second)
    np.testing.assert_array_equal(read("absorbance")[:2], second.arrays["absorbance"][:2])
    assert np.isnan(read("absorbance")[2:]).all()
    assert (read("maps/edge_energy") == 5473).all()
    assert len(read("quality/energies")) == 3


def test_arrays_that_change_their_shape(sink, uid, read):
    for clusters in (2, 3, 2):
        sink.write(revision(uid, clusters=clusters))
        assert read("clusters/centers").shape == (clusters, 3)
        assert read("clusters/spectra").shape == (clusters, N_ENERGY)


def test_a_table_with_new_columns(sink, uid, read):
    sink.write(revision(uid))
    sink.write(revision(uid, tables={"quality/energies": {"dose": np.arange(2)}}))
    assert list(read("quality/energies").columns) == ["dose"]


def test_a_new_sink_goes_on_where_another_stopped(server, sink, uid, read):
    sink.write(revision(uid, done=1))
    sink.write(revision(uid, done=2, final=True))
    TiledSink(results_container(server.client()), rest_s=0).write(revision(uid, done=3, changed=()))
    np.testing.assert_array_equal(read("phase"), revision(uid, done=3).arrays["phase"])
    assert server.client()["ptychrome", uid].metadata["revision"] == 3


def test_after_a_failure_nothing_is_missing(server, uid, read):
    sink = TiledSink(results_container(server.client(timeout_s=2)), rest_s=0)
    sink.write(revision(uid, done=1))
    os.kill(server.pid, signal.SIGSTOP)  # a server that hangs
    try:
        with pytest.raises(TiledUnavailable, match="no answer from Tiled"):
            sink.write(revision(uid, done=2))
    finally:
        os.kill(server.pid, signal.SIGCONT)
    sink.write(revision(uid, done=3))
    np.testing.assert_array_equal(read("phase"), revision(uid, done=3).arrays["phase"])


def test_pooled(server, sink):
    labels = {uid: {"clusters/label": np.full((NY, NX), place, np.int32)} for place, uid in enumerate("ab")}
    sink.write_pooled("all", labels)
    sink.write_pooled("all", {"b": {"clusters/label": np.full((NY, NX), 7, np.int32)}})
    pool = server.client()["ptychrome", "pooled", "all"]
    assert (pool["a", "clusters", "label"].read() == 0).all()
    assert (pool["b", "clusters", "label"].read() == 7).all()


def test_maps_go_first_and_the_rest_waits_for_its_turn(server, uid, read):
    sink = TiledSink(results_container(server.client()), rest_s=3600)
    first, later = (
        revision(uid, done=done, changed=(done - 1,), clusters=2, all_arrays=True) for done in (3, 4)
    )
    sink.write(first)
    sink.write(later)
    np.testing.assert_array_equal(read("maps/edge_energy"), later.arrays["maps/edge_energy"])
    np.testing.assert_array_equal(read("object"), first.arrays["object"])
    sink.write(replace(later, changed=(), final=True))
    np.testing.assert_array_equal(read("object"), later.arrays["object"])
