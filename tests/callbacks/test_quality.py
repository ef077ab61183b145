"""Quality of the results: figures of every energy, and the check of one. Takes 30 s."""

import pickle
from collections import deque
from concurrent.futures import Executor, Future
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from ptychrome.analysis import spectral
from ptychrome.analysis.engines import Reconstruction, run
from ptychrome.analysis.engines.forward import ForwardModel
from ptychrome.analysis.options import EngineOptions, EpieOptions, MlOptions
from ptychrome.analysis.recipe import Recipe
from ptychrome.analysis.resolution import checkerboard_halves
from ptychrome.analysis.scan import DataError, DiffractionData, ScanGeometry
from ptychrome.callbacks import pipeline as pipeline_module
from ptychrome.callbacks.executors import InlineExecutor
from ptychrome.callbacks.pipeline import Pipeline
from ptychrome.callbacks.quality import (
    QualityCheck,
    detector_residual,
    energy_figures,
    far_fields,
    halves_correlation,
    part,
    transfer_of_starts,
)
from ptychrome.callbacks.reconstruct import ReconstructedEnergy
from ptychrome.callbacks.sinks.nexus import load_result, write_nexus

ENERGIES = 6
WINDOW, SIDE, STEP_PX, PIXEL_M, PHOTONS = 32, 9, 4, (30e-9, 30e-9), 1e7
OBJECT = (WINDOW + STEP_PX * (SIDE - 1),) * 2
CURVES = ("quality/frc", "quality/prtf")


def recipe(**quality):
    return Recipe.model_validate(
        {
            "name": "fast",
            "n_clusters": 2,
            "reconstruct": [{"engine": "epie", "sweeps": 3}],
            "warm": [{"engine": "ml", "sweeps": 2, "pixel_points": 1}],
            "quality": quality,
        }
    )


CHECKED = recipe(halves=True)
SYNTHETIC = Recipe.model_validate(
    {
        "name": "synthetic",
        "reconstruct": [
            {"engine": "epie", "sweeps": 5},
            {"engine": "ml", "sweeps": 15, "pixel_points": 1},
        ],
        "quality": {"halves": True, "prtf_starts": 8},
    }
)


def texture(seed):
    """A phase object that fills the field, with periods down to some four pixels."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=OBJECT), 1.2)
    return np.exp(0.4j * noise / noise.std()).astype(np.complex64)


def probe_of(photons=PHOTONS):
    y, x = np.indices((WINDOW, WINDOW)) - WINDOW // 2
    probe = np.exp(-(y**2 + x**2) / (2 * 4.0**2) + 0.02j * (y**2 + x**2)).astype(np.complex64)[None]
    return probe * np.float32(np.sqrt(photons / np.sum(np.abs(probe) ** 2)))


def measured(obj, stage=None, seed=0):
    """Frames with photon noise of a raster scan over an object, and the state that they are of."""
    stage = EpieOptions() if stage is None else stage
    corner = np.array([(STEP_PX * i, STEP_PX * j) for i in range(SIDE) for j in range(SIDE)], np.int64)
    count = len(corner)
    data = DiffractionData(
        amplitude=np.zeros((count, WINDOW, WINDOW), np.float32),
        corner=corner,
        fraction=np.zeros((count, 2), np.float32),
        object_shape=OBJECT,
        photons=PHOTONS,
        scale=np.ones(count, np.float32),
        pixel_m=PIXEL_M,
    )
    truth = Reconstruction(obj, probe_of(), np.zeros(OBJECT, np.float32))
    model = ForwardModel(data, stage, getattr(stage, "pixel_points", 0))
    expected = model.amplitudes(model.begin(truth)).astype(np.float64)
    counts = np.random.default_rng(seed).poisson(expected**2)
    return replace(data, amplitude=np.sqrt(counts).astype(np.float32)), truth, expected


# --- the check of one energy


@pytest.mark.parametrize("stage", [EpieOptions(), MlOptions(pixel_points=2)], ids=["points", "pixels"])
def test_predicted_amplitudes_are_those_that_the_engines_compare(stage):
    """The engines add 1e-6 of a pixel's mean intensity to each: 1e-6 of the photons over a dark frame."""
    data, truth, _ = measured(texture(0), stage)
    model = ForwardModel(data, stage, getattr(stage, "pixel_points", 0))
    state = model.begin(truth)
    predicted = np.sum((data.amplitude - model.amplitudes(state)) ** 2, axis=(1, 2))
    np.testing.assert_allclose(predicted, model.moments(state)[:, 0], rtol=1e-4, atol=1e-6 * PHOTONS)


@pytest.mark.parametrize("stage", [EpieOptions(), MlOptions(pixel_points=2)], ids=["points", "pixels"])
def test_the_residual_of_the_truth_is_photon_noise(stage):
    """4 (√I − √λ)² is χ² of one degree of freedom where bright, 2 % more at λ = 20 photons: a pixel's mean
    over m frames scatters by √(2/m), the mean of p pixels by √(2/mp)."""
    data, truth, expected = measured(texture(0), stage)
    residual = np.fft.ifftshift(detector_residual(data, truth, stage))
    bright = (expected**2).min(axis=0) > 20
    assert bright.sum() > 50
    scatter = np.sqrt(2 / len(data.amplitude))
    assert residual[bright].mean() == pytest.approx(1, abs=0.02 + 4 * scatter / np.sqrt(bright.sum()))
    assert np.abs(residual[bright] - 1).max() < 6 * scatter
    assert residual.dtype == np.float32


def test_the_residual_on_the_detector_is_that_of_the_frames():
    """Both are means over all pixels, the frames' of the state one sweep before: the error squared falls by
    no more than a tenth in the last of these sweeps."""
    data, truth, _ = measured(texture(0))
    stage = MlOptions(sweeps=30, pixel_points=1)
    (result,) = deque(run(data, truth, (stage,)), maxlen=1)
    assert result.error[-1] ** 2 > 0.9 * result.error[-2] ** 2
    assert detector_residual(data, result, stage).mean() == pytest.approx(result.frame_error.mean(), rel=0.1)


def test_a_bad_pixel_stands_out_where_the_detector_has_it():
    data, truth, _ = measured(texture(0))
    amplitude = data.amplitude.copy()
    middle = WINDOW // 2
    amplitude[:, 2, -3] += 20  # zero frequency is at [0, 0]
    amplitude[:, 1, 1] = -1
    residual = detector_residual(replace(data, amplitude=amplitude), truth, EpieOptions())
    assert np.unravel_index(np.nanargmax(residual), residual.shape) == (middle + 2, middle - 3)
    assert np.isnan(residual[middle + 1, middle + 1])
    assert np.isnan(residual).sum() == 1


def halves_of(data):
    return checkerboard_halves(data.corner * 30e-9)


def test_halves_of_one_object_correlate():
    """1e7 photons a frame are 1e5 a pixel: noise of 0.002 beside a phase of 0.4 rad is nothing. What is left
    is that 65 sweeps have not converged at fine periods and at the border: 0.91 was seen at half of them."""
    data, _, _ = measured(texture(0))
    stages = (EpieOptions(sweeps=5), MlOptions(sweeps=60, pixel_points=1))
    longer = SYNTHETIC.model_copy(update={"reconstruct": stages})
    curve = halves_correlation(data, probe_of(), halves_of(data), longer)
    assert curve.correlation[: len(curve.correlation) // 4].min() > 0.99
    assert curve.correlation[: len(curve.correlation) // 2].min() > 0.85
    assert curve.resolution_m() < 3 * PIXEL_M[0]


def test_halves_have_no_frame_in_common():
    """Where the second half saw another object nothing correlates, whatever else is shared: 5 % of the rings
    at most are above the half-bit curve (1 % of noise, and the factor and ramp that are fitted)."""
    one, other = measured(texture(0))[0], measured(texture(1), seed=1)[0]
    first, second = halves_of(one)
    amplitude = np.where(first[:, None, None], one.amplitude, other.amplitude)
    curve = halves_correlation(replace(one, amplitude=amplitude), probe_of(), (first, second), SYNTHETIC)
    assert np.mean(curve.correlation > curve.half_bit) <= 0.05
    assert not np.any(curve.correlation > 0.8)


def test_a_part_of_a_scan():
    data, _, _ = measured(texture(0))
    data = replace(data, scale=np.arange(len(data.amplitude), dtype=np.float32))
    some = part(data, np.array([3, 7]))
    np.testing.assert_array_equal(some.amplitude, data.amplitude[[3, 7]])
    assert some.corner.tolist() == data.corner[[3, 7]].tolist()
    assert some.scale.tolist() == [3, 7]
    assert len(some.fraction) == 2
    assert (some.object_shape, some.photons) == (data.object_shape, data.photons)


def test_far_fields_have_the_predicted_amplitudes():
    """Single precision: 1e-5 of the brightest pixel."""
    data, truth, expected = measured(texture(0))
    strongest = replace(truth, probe=np.concatenate([truth.probe, 0.1 * truth.probe]))
    waves = far_fields(data, strongest)
    np.testing.assert_allclose(np.abs(waves), expected, atol=1e-5 * expected.max())


def test_starts_agree_where_there_is_light_and_fall_off_where_there_is_none():
    data, _, _ = measured(texture(0))
    curve = transfer_of_starts(data, probe_of(), SYNTHETIC)
    low = curve.prtf[: len(curve.prtf) // 4]
    # the mean of equal waves has the measured amplitudes but for what 20 sweeps leave, an R-factor of 5 %
    assert np.abs(low - 1).max() < 0.05
    assert curve.prtf.max() < 1.05


def test_starts_must_differ():
    data, _, _ = measured(texture(0))
    same = Recipe.model_validate(
        {"name": "same", "reconstruct": [{"engine": "ml", "sweeps": 1}], "quality": {"prtf_starts": 8}}
    )
    with pytest.raises(DataError, match="random order"):
        transfer_of_starts(data, probe_of(), same)
    in_groups = same.model_copy(update={"reconstruct": (MlOptions(sweeps=1, pixel_points=1, groups=3),)})
    assert transfer_of_starts(data, probe_of(), in_groups).prtf.size


@pytest.mark.parametrize(("starts", "told"), [(7, False), (8, True)])
def test_the_resolution_of_few_starts_is_not_told(starts, told):
    """Unrelated phases of seven starts leave 1/√7 = 0.378, above 1/e = 0.368."""
    data, _, _ = measured(texture(0))
    quick = SYNTHETIC.model_copy(update={"reconstruct": (EpieOptions(sweeps=1),)})
    quick = quick.model_copy(update={"quality": quick.quality.model_copy(update={"prtf_starts": starts})})
    curve = transfer_of_starts(data, probe_of(), quick)
    check = QualityCheck(5500.0, np.ones((4, 4), np.float32), transfer=curve, starts=starts)
    assert ("resolution_prtf_m" in check.attributes()) is told
    assert list(check.tables()) == ["quality/prtf"]


# --- figures of every energy


def energy(**fields):
    geometry = ScanGeometry(5500.0, (4, 4), (75e-6, 75e-6), 1.0)
    state = Reconstruction(
        np.ones((20, 20), np.complex64), np.ones((1, 4, 4), np.complex64), np.zeros((20, 20), np.float32)
    )
    return ReconstructedEnergy(0, geometry, replace(state, **fields), 1e6, 10)


def test_figures_by_hand():
    """V at 5500 eV: μ/ρ = 57.6316 m²/kg (photoelectric, Elam), so 1e20 photons/m² are 5.078 MGy."""
    illumination = np.full((20, 20), 10.0, np.float32)
    illumination[5:15, 5:15] = 400.0
    shifts = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    one = energy(
        illumination=illumination, frame_error=np.array([1.0, 1.5, 9.0], np.float32), shift_px=shifts
    )
    row, column = one.geometry.pixel_m
    figures = energy_figures(one, "V", 0.05)
    assert figures["fluence"] == pytest.approx(400 / (row * column), rel=1e-6)
    per_photon = 5500 * 1.602177e-19 * 57.6316
    assert figures["dose_Gy"] == pytest.approx(figures["fluence"] * per_photon, rel=1e-4)
    assert figures["residual"] == 1.5
    assert figures["position_rms_m"] == pytest.approx(5 * row / np.sqrt(2), rel=1e-6)


def test_unknown_figures():
    figures = energy_figures(energy(), "V", 0.05)  # no light, nothing refined, as the first guess is
    assert np.isnan([figures["fluence"], figures["dose_Gy"], figures["residual"]]).all()
    assert figures["position_rms_m"] == 0
    lit = energy(illumination=np.ones((20, 20), np.float32))
    assert np.isfinite(energy_figures(lit, "V", 0.05)["dose_Gy"])
    assert np.isnan(energy_figures(lit, "Xx", 0.05)["dose_Gy"])


# --- in the pipeline


class Sink:
    def __init__(self):
        self.revisions = []

    def write(self, revision):
        self.revisions.append(revision)

    def close(self):
        pass


class LateExecutor(Executor):
    """Keeps tasks until they are run one by one."""

    def __init__(self):
        self.tasks = deque()

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.tasks.append((fn.__name__, future, lambda: fn(*args, **kwargs)))
        return future

    def finish_one(self):
        name, future, task = self.tasks.popleft()
        future.set_result(task())
        return name


def through(documents, recipe, executor=None, **options):
    sink, reports, statuses = Sink(), [], []
    pipeline = Pipeline(
        recipe,
        executor or InlineExecutor(),
        [sink],
        report=reports.append,
        on_status=statuses.append,
        **options,
    )
    for name, doc in documents:
        pipeline(name, doc)
    pipeline.close()
    return sink.revisions, reports, statuses


@pytest.fixture(scope="module")
def checked(twin_run):
    return through(twin_run, CHECKED)


def test_the_final_revision_has_the_check_and_none_before(checked):
    revisions, reports, statuses = checked
    assert reports == []
    assert [r.changed for r in revisions] == [*((k,) for k in range(ENERGIES)), ()]
    assert [r.final for r in revisions] == [False] * ENERGIES + [True]
    assert [s.finished for s in statuses[-2:]] == [False, True]
    before, final = revisions[-2:]
    assert "quality/detector_residual" not in before.arrays
    assert set(before.tables) == {"quality/energies"}
    assert set(final.tables) == {"quality/energies", "quality/frc"}
    frc = final.tables["quality/frc"]
    assert list(frc) == ["frequency", "correlation", "half_bit", "one_bit"]
    assert (np.diff(frc["frequency"]) > 0).all()
    assert (frc["one_bit"] > frc["half_bit"]).all()
    residual = final.arrays["quality/detector_residual"]
    assert (residual.shape, residual.dtype) == ((48, 48), np.float32)
    assert final.attributes["quality_energy_eV"] == 5501.0
    bound_m = 2 * abs(final.arrays["x"][1] - final.arrays["x"][0]) * 0.97  # pixels grow by 1.5 % from 5501 eV
    told = [final.attributes[name] for name in final.attributes if name.startswith("resolution_")]
    assert all(value > bound_m for value in told)
    for name in ("absorbance", "maps/edge_energy"):
        np.testing.assert_array_equal(final.arrays[name], before.arrays[name])


def test_figures_of_every_energy_are_in_the_table(checked):
    final = checked[0][-1]
    assert final.attributes["dose_material"] == "V"
    table = final.tables["quality/energies"]
    assert len(table["residual"]) == ENERGIES
    assert np.all(table["residual"] > 1)
    assert np.all(table["position_rms_m"] == 0)
    assert np.all(np.isfinite(table["fluence"]) & (table["dose_Gy"] > 0))
    ratio = table["dose_Gy"] / table["fluence"]
    assert ratio[-1] > 4 * ratio[0]  # the V K edge multiplies μ/ρ by 8


def test_a_recipe_that_asks_for_nothing_has_no_check(twin_run):
    revisions, reports, _ = through(twin_run, recipe())
    assert reports == []
    assert len(revisions) == ENERGIES + 1
    assert set(revisions[-1].tables) == {"quality/energies"}
    assert "quality/detector_residual" not in revisions[-1].arrays


def test_maps_are_out_before_the_check_begins(twin_run):
    executor, sink = LateExecutor(), Sink()
    pipeline = Pipeline(CHECKED, executor, [sink], report=pytest.fail)
    for name, doc in twin_run:
        pipeline(name, doc)
    for _ in range(ENERGIES):
        assert executor.finish_one() == "reconstruct"
        pipeline.poll()
    assert [name for name, *_ in executor.tasks] == ["assess"]
    assert "maps/edge_energy" in sink.revisions[-1].arrays
    assert not sink.revisions[-1].final
    assert executor.finish_one() == "assess"
    pipeline.drain()
    assert sink.revisions[-1].final
    assert len(sink.revisions) == ENERGIES + 1


def test_a_check_waits_for_the_energies_of_the_next_run(twin_run, another_run):
    executor = LateExecutor()
    pipeline = Pipeline(CHECKED, executor, [], report=pytest.fail)
    for name, doc in [*twin_run, *another_run]:
        pipeline(name, doc)
    done = []
    while executor.tasks:
        done.append(executor.finish_one())
        pipeline.poll()
    assert done == ["reconstruct"] * 2 * ENERGIES + ["assess"] * 2


def test_a_check_that_fails_is_told_in_a_line_and_the_run_is_finished(twin_run, monkeypatch):
    def assess(task, recipe):
        raise DataError("half of the frames are gone")

    monkeypatch.setattr(pipeline_module, "assess", assess)
    revisions, reports, statuses = through(twin_run, CHECKED)
    assert reports == ["P1: quality not checked: half of the frames are gone"]
    assert revisions[-1].final
    assert statuses[-1].finished
    assert set(revisions[-1].tables) == {"quality/energies"}


def test_a_run_without_an_energy_is_finished_without_a_check(twin_run):
    revisions, reports, statuses = through([twin_run[0], twin_run[-1]], CHECKED)
    assert (revisions, reports) == ([], [])
    assert statuses[-1].finished


def test_the_check_comes_after_the_joint_rounds(twin_run, monkeypatch):
    monkeypatch.setattr(spectral, "FEWEST_ENERGIES", ENERGIES)
    joint = {"rounds": 1, "refine": [{"engine": "ml", "sweeps": 1, "pixel_points": 1}]}
    both = Recipe.model_validate({**CHECKED.model_dump(), "joint": joint})
    executor, sink, reports, done = LateExecutor(), Sink(), [], []
    pipeline = Pipeline(both, executor, [sink], report=reports.append)
    for name, doc in twin_run:
        pipeline(name, doc)
    while executor.tasks:
        done.append(executor.finish_one())
        pipeline.poll()
    assert reports == []
    assert done == ["reconstruct"] * ENERGIES + ["refine"] * ENERGIES + ["assess"]
    final, maps = sink.revisions[-1], sink.revisions[-2]
    assert final.final
    assert maps.attributes["joint_rounds"] == 1
    assert maps.changed == tuple(range(ENERGIES))
    assert "quality/frc" in final.tables


def test_tasks_and_checks_go_through_a_file_and_between_processes(checked, tmp_path):
    final = checked[0][-1]
    write_nexus(tmp_path / "P1.nxs", final)
    loaded = load_result(tmp_path / "P1.nxs")
    for name, column in final.tables["quality/frc"].items():
        np.testing.assert_array_equal(loaded.tables["quality/frc"][name], column)
    name = "quality/detector_residual"
    np.testing.assert_array_equal(loaded.arrays[name], final.arrays[name])
    data, truth, _ = measured(texture(0))
    curve = halves_correlation(data, probe_of(), halves_of(data), SYNTHETIC)
    check = QualityCheck(5500.0, detector_residual(data, truth, EngineOptions()), curve)
    copy = pickle.loads(pickle.dumps(check))
    np.testing.assert_array_equal(copy.tables()["quality/frc"]["correlation"], curve.correlation)
    assert copy.attributes() == check.attributes()
