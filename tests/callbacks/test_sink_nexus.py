"""Result files: whole or absent, readable by name, and with something to look at by default."""

import json

import h5py
import numpy as np
import pytest
from scipy.constants import electron_volt

from ptychrome.callbacks.files import OBJECT_PROBE_SUFFIX, WriteError, write_atomically
from ptychrome.callbacks.sinks.memory import MemorySink
from ptychrome.callbacks.sinks.nexus import NexusSink, load_result
from ptychrome.schema import MAPS


@pytest.fixture
def sink(tmp_path):
    return NexusSink(lambda revision: tmp_path / f"{revision.sample_name}.nxs")


@pytest.fixture
def written(tmp_path, sink, revision):
    """A final revision and its file."""
    one = revision()
    sink.write(one)
    return one, tmp_path / "P1.nxs"


def default_plot(file):
    """The NXdata group that a viewer opens, found as viewers do."""
    node = file
    while node.attrs.get("NX_class") != "NXdata":
        node = node[node.attrs["default"]]
    return node


def test_what_is_written_is_read_back(written):
    one, path = written
    back = load_result(path)
    assert (back.raw_uid, back.sample_name, back.final) == (one.raw_uid, "P1", True)
    assert back.attributes == one.attributes
    assert list(back.arrays) == list(one.arrays)
    for name, array in one.arrays.items():
        assert back.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(back.arrays[name], array)
    (name,) = one.tables
    assert list(back.tables[name]) == list(one.tables[name])
    for column, values in one.tables[name].items():
        np.testing.assert_array_equal(back.tables[name][column], values)


def test_names_units_and_attributes_for_readers_without_ptychrome(written):
    one, path = written
    with h5py.File(path) as file:
        for name, units in {
            "energy": "eV", "y": "m", "phase": "rad", "maps/n_v": "m⁻²", "maps/edge_energy_sigma": "eV",
            "quality/energies/energy_eV": "eV",
        }.items():  # fmt: skip
            assert file[f"entry/{name}"].attrs["units"] == units
        for node in (file, file["entry"]):
            assert node.attrs["recipe"] == "live"
            assert json.loads(node.attrs["options"]) == one.attributes["options"]
            assert node.attrs["software"] == one.attributes["software"]
            assert node.attrs["raw_uid"] == one.raw_uid
            assert (node.attrs["energies_done"], node.attrs["energies_planned"]) == (40, 40)


def test_viewers_open_on_the_edge_energy_with_all_maps_beside_it(written):
    one, path = written
    with h5py.File(path) as file:
        plot = default_plot(file)
        assert plot.name == "/entry/maps"
        assert plot.attrs["signal"] == "edge_energy"
        assert {plot.attrs["signal"], *plot.attrs["auxiliary_signals"]} == set(MAPS)
        axes = [plot[name] for name in plot.attrs["axes"]]
        assert tuple(len(axis) for axis in axes) == plot["edge_energy"].shape
        np.testing.assert_array_equal(axes[0], one.arrays["y"])
        np.testing.assert_array_equal(axes[1], one.arrays["x"])


def test_viewers_open_on_the_phase_of_a_single_energy(tmp_path, sink, single_energy):
    sink.write(single_energy)
    with h5py.File(tmp_path / "star.nxs") as file:
        plot = default_plot(file)
        signal = plot[plot.attrs["signal"]]
        np.testing.assert_array_equal(signal, single_energy.arrays["phase"])
        assert [len(plot[name]) for name in plot.attrs["axes"]] == list(signal.shape)


def test_object_and_probe_as_cxi(tmp_path, sink, revision):
    one = revision(energies_done=3, maps=False)
    sink.write(one)
    with h5py.File(tmp_path / f"P1{OBJECT_PROBE_SUFFIX}") as file:
        assert file["cxi_version"][()] == 160
        assert sorted(key for key in file if key.startswith("entry")) == ["entry_1", "entry_2", "entry_3"]
        for place in range(3):
            entry = file[f"entry_{place + 1}"]
            energy_J = entry["instrument_1/source_1/energy"][()]
            assert energy_J / electron_volt == pytest.approx(one.arrays["energy"][place], rel=1e-12)
            np.testing.assert_array_equal(entry["image_1/data"], one.arrays["object"][place])
            np.testing.assert_array_equal(
                entry["instrument_1/beam_1/probe_guess"], one.arrays["probe"][place]
            )
        assert default_plot(file).attrs["signal"] == "data"


def test_nothing_is_written_before_the_end(tmp_path, sink, revision):
    sink.write(revision(energies_done=12, final=False))
    assert list(tmp_path.iterdir()) == []
    sink.close()
    back = load_result(tmp_path / "P1.nxs")
    assert not back.final
    assert back.attributes["energies_done"] == 12


def test_closing_does_not_write_again(tmp_path, sink, written):
    _, path = written
    before = path.stat().st_mtime_ns
    sink.close()
    assert path.stat().st_mtime_ns == before


def test_a_full_disk_leaves_the_earlier_result_and_nothing_else(tmp_path, sink, written, full_disk, revision):
    _, path = written
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with full_disk(), pytest.raises(WriteError, match=r"cannot write .*P1\.nxs.*expected .* space"):
        sink.write(revision(seed=1))
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before

    sink.close()  # there is space again
    assert load_result(path).raw_uid == revision(seed=1).raw_uid


def test_a_folder_that_cannot_be(tmp_path, revision):
    (tmp_path / "file").write_text("in the way")
    sink = NexusSink(lambda revision: tmp_path / "file" / "result.nxs")
    with pytest.raises(WriteError, match=r"cannot write .*result\.nxs: Not a directory"):
        sink.write(revision())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_is_no_result(tmp_path, write_cxi, cxi):
    with pytest.raises(ValueError, match=r"none\.nxs.*expected a \.nxs file"):
        load_result(tmp_path / "none.nxs")
    with pytest.raises(ValueError, match=r"raw\.cxi: not a result"):
        load_result(write_cxi(tmp_path / "raw.cxi", cxi()))


def test_an_atomic_write_replaces_and_makes_folders(tmp_path):
    path = tmp_path / "new" / "file"
    for content in (b"one", b"two"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_memory_keeps_the_newest_of_each_run(revision):
    sink = MemorySink()
    first, second, other = revision(energies_done=1, maps=False), revision(), revision(seed=1)
    for one in (first, other, second):
        sink.write(one)
    sink.close()
    assert list(sink.latest) == [first.raw_uid, other.raw_uid]
    assert sink.latest[first.raw_uid] is second
    assert sink.revisions == {first.raw_uid: 2, other.raw_uid: 1}
