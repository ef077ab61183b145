"""CXI sets become documents that the pipeline understands, or one clear line."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from event_model import DocumentNames, schema_validators

from ptychrome.callbacks.files import OBJECT_PROBE_SUFFIX
from ptychrome.callbacks.intake import Intake
from ptychrome.callbacks.reconstruct import geometry_at, load
from ptychrome.callbacks.sources import cxi_file
from ptychrome.callbacks.sources.cxi import CxiError, documents, read_cxi_set
from ptychrome.schema import ProbeModel, scan_metadata

DETECTOR = "/entry_1/instrument_1/detector_1"
DATA = f"{DETECTOR}/data"
TRANSLATION = "/entry_1/sample_1/geometry_1/translation"
ENERGY = "/entry_1/instrument_1/source_1/energy"
BASIS = f"{DETECTOR}/basis_vectors"
MASK = f"{DETECTOR}/mask"
PROBE = "/entry_1/instrument_1/beam_1/probe_guess"
MONITOR = "/entry_1/instrument_1/monitor_1/data"
STAR = Path(__file__).parents[2].parent / "shared/data/siemens_star.cxi"


def jobs_of(cxi_set, **options):
    """The energies that the intake makes of a set's documents."""
    found = []
    for name, doc in documents(cxi_set, probe=ProbeModel(), **options):
        if name == "start":
            intake = Intake.from_start(doc)
        found += intake(name, doc)
    return found


def frames_of(job):
    """All frames of a job, read where the documents say."""
    stacks = []
    for file, frame in job.frames:
        with h5py.File(file.path) as handle:
            stacks.append(handle[file.dataset][frame])
    return np.array(stacks)


@pytest.fixture
def one_file(tmp_path, cxi, write_cxi):
    """Writes one file with some fields changed and reads it as a set."""

    def read(**changes):
        return read_cxi_set([write_cxi(tmp_path / "one.cxi", cxi() | changes.pop("fields", {}))])

    return read


def test_every_document_is_valid_and_frames_keep_their_positions(tmp_path, cxi, write_cxi):
    fields = [cxi(5480.25, 4, seed=1), cxi(5420.0, 7, seed=2)]
    paths = [write_cxi(tmp_path / f"{i}.cxi", one) for i, one in enumerate(fields)]
    cxi_set = read_cxi_set(paths)
    stream = list(documents(cxi_set, probe=ProbeModel(fwhm_m=2e-7), sample_name="P1"))
    for name, doc in stream:
        schema_validators[DocumentNames[name]].validate(doc)
    names = [name for name, _ in stream]
    assert names[:2] == ["start", "descriptor"]
    assert names[-1] == "stop"
    start, stop = stream[0][1], stream[-1][1]
    assert start["sample_name"] == "P1"
    assert stop["num_events"] == {"primary": 11}
    metadata = scan_metadata(start)
    # an energy goes to J and back in float64
    assert metadata.energies_eV == pytest.approx((5420.0, 5480.25), rel=1e-12)
    assert metadata.positions_per_energy == (7, 4)
    assert metadata.probe.fwhm_m == 2e-7

    jobs = jobs_of(cxi_set)
    assert [job.index for job in jobs] == [0, 1]
    for job, one in zip(jobs, reversed(fields), strict=True):
        np.testing.assert_array_equal(frames_of(job), one[DATA])
        np.testing.assert_array_equal(job.stage_yx_m, one[TRANSLATION][:, 1::-1])
        assert job.i0 is None


def test_the_planned_extent_spans_all_energies(tmp_path, cxi, write_cxi):
    fields = [cxi(5420.0, seed=1), cxi(5430.0, seed=2)]
    cxi_set = read_cxi_set([write_cxi(tmp_path / f"{i}.cxi", one) for i, one in enumerate(fields)])
    x, y = np.concatenate([one[TRANSLATION] for one in fields])[:, :2].T
    assert cxi_set.extent_m == ((y.min(), y.max()), (x.min(), x.max()))


def test_frames_and_positions_are_found_in_data_1_too(one_file, cxi):
    plain = cxi()
    moved = {
        DATA: None,
        TRANSLATION: None,
        "/entry_1/data_1/data": plain[DATA],
        "/entry_1/data_1/translation": h5py.SoftLink("/entry_1/positions"),
        "/entry_1/positions": plain[TRANSLATION],
    }
    (job,) = jobs_of(one_file(fields=moved))
    assert job.frames[0][0].dataset == "/entry_1/data_1/data"
    np.testing.assert_array_equal(frames_of(job), plain[DATA])
    np.testing.assert_array_equal(job.stage_yx_m, plain[TRANSLATION][:, 1::-1])


def test_frames_behind_an_external_link(tmp_path, one_file, cxi, write_cxi):
    plain = cxi()
    write_cxi(tmp_path / "frames.h5", {"/elsewhere": plain[DATA]})
    (job,) = jobs_of(one_file(fields={DATA: h5py.ExternalLink("frames.h5", "/elsewhere")}))
    np.testing.assert_array_equal(frames_of(job), plain[DATA])


def test_without_basis_vectors_rows_run_down_and_columns_against_x(one_file):
    geometry = one_file().files[0].geometry
    assert geometry.pixel_size_m == (55e-6, 75e-6)
    assert geometry.row_step == (0.0, -1.0, 0.0)
    assert geometry.column_step == (-1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("row_step", "column_step"), [((0, 1, 0), (1, 0, 0)), ((1, 0, 0), (0, -1, 0)), ((0, -1, 0), (-1, 0, 0))]
)
def test_basis_vectors_give_directions_and_pixel_sizes(one_file, row_step, column_step):
    basis = np.stack([np.multiply(row_step, 55.2e-6), np.multiply(column_step, 75e-6)], axis=1)
    geometry = one_file(fields={BASIS: basis}).files[0].geometry
    assert geometry.row_step == row_step
    assert geometry.column_step == column_step
    assert geometry.pixel_size_m == pytest.approx((55.2e-6, 75e-6), rel=1e-12)


def test_static_arrays_are_announced_and_used(one_file):
    mask = np.zeros((6, 8), np.uint32)
    mask[2, 3] = 1
    probe = np.ones((1, 2, 6, 8), np.complex64)
    cxi_set = one_file(fields={MASK: mask, f"{DETECTOR}/dark": np.full((6, 8), 0.5), PROBE: probe})
    (job,) = jobs_of(cxi_set)
    file = job.frames[0][0]
    assert (file.mask, file.dark, file.probe) == (MASK, f"{DETECTOR}/dark", PROBE)
    data, stored_probe = load(job, geometry_at(job.metadata, job.energy_eV))
    np.testing.assert_array_equal(stored_probe, probe[0])
    # amplitudes of pixels not measured are negative, in every frame (zero frequency moved to the corner)
    assert np.sum(data.amplitude < 0) == len(job.frames)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (MONITOR, np.arange(1.0, 6.0), np.arange(1.0, 6.0)),
        ("/entry_1/instrument_1/beam_1/flux", 3.5, np.full(5, 3.5)),
    ],
)
def test_incident_intensity(one_file, name, value, expected):
    (job,) = jobs_of(one_file(fields={name: value}))
    np.testing.assert_array_equal(job.i0, expected)


def test_the_sample_is_named_by_the_file_or_after_it(one_file, tmp_path, cxi, write_cxi):
    assert one_file(fields={"/entry_1/sample_1/name": "D3"}).name == "D3"
    assert one_file().name == "one"
    folder = tmp_path / "particle_7"
    folder.mkdir()
    for i in range(2):
        write_cxi(folder / f"{i}.cxi", cxi(5420.0 + i))
    assert read_cxi_set([folder]).name == "particle_7"


def test_a_folder_means_its_cxi_files_but_not_our_own_results(tmp_path, cxi, write_cxi):
    write_cxi(tmp_path / "b.h5", cxi(5430.0))
    write_cxi(tmp_path / "a.cxi", cxi(5420.0))
    write_cxi(tmp_path / f"a{OBJECT_PROBE_SUFFIX}", {})
    (tmp_path / "notes.txt").write_text("no data")
    assert [file.path.name for file in read_cxi_set([tmp_path]).files] == ["a.cxi", "b.h5"]


def test_pixels_not_measured_may_hold_minus_one_or_under_the_mask_anything(one_file, cxi):
    frames = cxi()[DATA].astype(np.float32)
    frames[1, 0, 0], frames[:, 2, 2] = -1.0, np.nan
    mask = np.zeros((6, 8), np.uint32)
    mask[2, 2] = 4
    assert one_file(fields={DATA: frames, MASK: mask}).files[0].dtype == np.float32


def _with(value, dtype):
    frames = np.ones((5, 6, 8), dtype)
    frames[3, 4, 5] = value
    return frames


PIXEL = "frame 3, row 4, column 5; expected counts ≥ 0"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({ENERGY: None}, [ENERGY, "missing", "photon energy in J"]),
        ({ENERGY: 5420.0}, [ENERGY, "5420", "in J"]),
        ({ENERGY: np.nan}, [ENERGY, "nan", "in J"]),
        ({ENERGY: [1e-16, 2e-16]}, [ENERGY, "(2,)", "one photon energy"]),
        ({ENERGY: "5420 eV"}, [ENERGY, "photon energy in J"]),
        ({DATA: None}, [DATA, "/entry_1/data_1/data", "missing", "(n, ny, nx)"]),
        ({DATA: np.zeros((6, 8), np.uint16)}, [DATA, "(6, 8)", "(n, ny, nx)"]),
        ({DATA: np.zeros((1, 6, 8), np.uint16)}, [DATA, "(1, 6, 8)", "at least two frames"]),
        ({DATA: np.zeros((5, 6, 8), complex)}, [DATA, "complex128", "counts"]),
        ({DATA: _with(np.nan, np.float32)}, [DATA, "nan", PIXEL]),
        ({DATA: _with(np.inf, np.float64)}, [DATA, "inf", PIXEL]),
        ({DATA: _with(-7, np.int32)}, [DATA, "-7", PIXEL]),
        ({TRANSLATION: None}, [TRANSLATION, "/entry_1/data_1/translation", "missing"]),
        ({TRANSLATION: np.zeros((4, 3))}, [TRANSLATION, "4 positions", "expected 5", DATA]),
        ({TRANSLATION: np.zeros((5, 2))}, [TRANSLATION, "(5, 2)", "(n, 3)"]),
        ({TRANSLATION: np.full((5, 3), np.inf)}, [TRANSLATION, "inf", "position 0"]),
        ({f"{DETECTOR}/distance": None}, [f"{DETECTOR}/distance", "missing", "in m"]),
        ({f"{DETECTOR}/distance": -1.0}, [f"{DETECTOR}/distance", "-1.0", "in m"]),
        ({f"{DETECTOR}/x_pixel_size": None}, [f"{DETECTOR}/x_pixel_size", "missing", "in m"]),
        ({BASIS: np.eye(3)}, [BASIS, "(3, 2)"]),
        ({BASIS: [[0, 76e-6], [55e-6, 0], [0, 0]]}, [BASIS, "7.6e-05", "x_pixel_size 7.5e-05", "1 %"]),
        ({BASIS: [[3.3e-5, 75e-6], [4.4e-5, 0], [0, 0]]}, [BASIS, "aligned with the laboratory"]),
        ({MASK: np.zeros((8, 6), np.uint32)}, [MASK, "(8, 6)", "(6, 8)"]),
        ({f"{DETECTOR}/data_dark": np.full((6, 8), np.nan)}, [f"{DETECTOR}/data_dark", "finite"]),
        ({PROBE: np.ones((6, 8))}, [PROBE, "float64", "complex"]),
        ({PROBE: np.ones((4, 4), complex)}, [PROBE, "(4, 4)", "(modes, 6, 8)"]),
        ({MONITOR: np.ones(4)}, [MONITOR, "4 values", "5 frames"]),
        ({MONITOR: np.zeros(5)}, [MONITOR, "0", "positive"]),
    ],
)
def test_a_bad_field_is_one_line_with_file_path_and_expectation(one_file, fields, words):
    with pytest.raises(CxiError) as error:
        one_file(fields=fields)
    message = str(error.value)
    assert "\n" not in message
    for word in ["one.cxi", "expected", *words]:
        assert word in message


def test_frames_are_looked_through_in_blocks(one_file, monkeypatch):
    monkeypatch.setattr(cxi_file, "BLOCK_BYTES", 6 * 8 * 4 * 2)  # two frames at once
    with pytest.raises(CxiError, match=PIXEL):
        one_file(fields={DATA: _with(-2, np.int32)})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({DATA: np.ones((5, 8, 8), np.uint16)}, [DATA, "(8, 8)", "(6, 8)"]),
        ({f"{DETECTOR}/distance": 1.28}, [f"{DETECTOR}/distance", "1.28", "1.27"]),
        ({f"{DETECTOR}/y_pixel_size": 75e-6}, ["y_pixel_size"]),
        ({BASIS: [[0, 75e-6], [55e-6, 0], [0, 0]]}, [BASIS]),
        ({MASK: np.zeros((6, 8), np.uint32)}, [MASK, "missing"]),
        ({MONITOR: np.ones(5)}, [MONITOR, "missing"]),
    ],
)
def test_files_of_a_set_must_be_alike(tmp_path, cxi, write_cxi, fields, words):
    write_cxi(tmp_path / "a.cxi", cxi(5420.0) | fields)
    write_cxi(tmp_path / "b.cxi", cxi(5430.0))
    with pytest.raises(CxiError) as error:
        read_cxi_set([tmp_path])
    for word in [".cxi", "expected", *words]:
        assert word in str(error.value)


def test_the_same_energy_twice(tmp_path, cxi, write_cxi):
    for name in "ab":
        write_cxi(tmp_path / f"{name}.cxi", cxi(5420.0))
    with pytest.raises(CxiError, match=r"b\.cxi.*5420\.000 eV.*a\.cxi; expected one file per energy"):
        read_cxi_set([tmp_path])


def test_what_is_no_file_or_no_cxi_file(tmp_path):
    with pytest.raises(CxiError, match=r"none\.cxi: no such file"):
        read_cxi_set([tmp_path / "none.cxi"])
    (tmp_path / "text.cxi").write_text("not HDF5")
    with pytest.raises(CxiError, match=r"text\.cxi: not an HDF5 file"):
        read_cxi_set([tmp_path / "text.cxi"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(CxiError, match="no CXI file in this folder"):
        read_cxi_set([tmp_path / "empty"])
    with pytest.raises(CxiError, match="no CXI file named"):
        read_cxi_set([])


def test_a_truncated_file(tmp_path, cxi, write_cxi):
    whole = write_cxi(tmp_path / "whole.cxi", cxi()).read_bytes()
    (tmp_path / "cut.cxi").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CxiError, match=r"cut\.cxi: cannot be read"):
        read_cxi_set([tmp_path / "cut.cxi"])


@pytest.mark.skipif(not STAR.is_file(), reason="no measured dataset beside the repository")
def test_a_measured_dataset():
    cxi_set = read_cxi_set([STAR])
    assert cxi_set.name == "siemens_star"
    (job,) = jobs_of(cxi_set)
    assert job.energy_eV == pytest.approx(8800.0)
    data, probe = load(job, geometry_at(job.metadata, job.energy_eV))
    assert data.amplitude.shape == (516, 128, 128)
    assert probe.shape == (1, 128, 128)
