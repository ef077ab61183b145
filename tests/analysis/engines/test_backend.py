"""The default backend is the truth: Numba overrides it, other libraries run it, and all give the same."""

from dataclasses import replace

import array_api_strict
import numpy as np
import pytest

from ptychrome.analysis.engines import Prior, run, start
from ptychrome.analysis.engines.backend import BACKENDS, Backend, BackendError, Unscattered, backend_of
from ptychrome.analysis.engines.numba_backend import NumbaBackend
from ptychrome.analysis.options import EpieOptions, MlOptions, RaarOptions, RpieOptions
from ptychrome.analysis.scan import prepare

SHAPES = [(1, 1, 1), (3, 1, 1), (1, 2, 1), (2, 1, 4), (3, 2, 4)]  # positions, probe modes, points in a pixel
NY, NX = 12, 16
OBJECT = (20, 25)
LIKE = {"rtol": 2e-5, "atol": 2e-5}


def wave(rng, *shape):
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def phase(rng, *shape):
    return np.exp(2j * np.pi * rng.random(shape)).astype(np.complex64)


class Case:
    """Random input of every operation."""

    def __init__(self, b, m, k):
        rng = np.random.default_rng(100 * b + 10 * m + k)
        self.obj, self.probe_hat = wave(rng, *OBJECT), wave(rng, m, NY, NX)
        self.rows, self.columns = phase(rng, b, NY), phase(rng, b, NX)
        self.weights = np.ones((1, NY, NX), np.complex64) if k == 1 else phase(rng, k, NY, NX)
        self.corner = rng.integers(0, (OBJECT[0] - NY + 1, OBJECT[1] - NX + 1), (b, 2))
        self.probes, self.residual = wave(rng, b, m, NY, NX), wave(rng, b, m, NY, NX)
        self.waves = wave(rng, b, m * k, NY, NX)
        self.amplitude = rng.uniform(0, 3, (b, NY, NX)).astype(np.float32)
        self.amplitude[:, 2:4] = -1  # a gap
        self.amplitude[0, 5, 5] = 0
        self.scale = rng.uniform(0.8, 1.2, b).astype(np.float32)
        self.far, self.phases = wave(rng, m * k, NY, NX), phase(rng, b, m * k)
        self.slopes = wave(rng, *OBJECT), wave(rng, *OBJECT)
        self.gradient, self.gradient_hat = wave(rng, *OBJECT), wave(rng, m, NY, NX)


@pytest.fixture(params=SHAPES, ids=str)
def case(request):
    return Case(*request.param)


@pytest.fixture
def both():
    return Backend(np.empty(0)), NumbaBackend()


def same(both, operation):
    """Both backends, each with copies of its own, return and leave the same."""
    default, ours = (operation(backend) for backend in both)
    for expected, found in zip(default, ours, strict=True):
        np.testing.assert_allclose(found, expected, **LIKE)
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape


def test_transforms(both, case):
    same(both, lambda b: (b.fft2(case.waves.copy()).copy(), b.ifft2(case.waves.copy()).copy()))


def test_shifted(both, case):
    same(both, lambda b: [b.shifted(case.probe_hat, case.rows, case.columns)])


def test_exit_waves(both, case):
    same(both, lambda b: [b.exit_waves(case.obj, case.probes, case.weights, case.corner)])


@pytest.mark.parametrize("likelihood", ["gaussian", "poisson"])
@pytest.mark.parametrize("separate", [False, True])
def test_residual(both, case, likelihood, separate):
    def operation(backend):
        gradient = np.zeros_like(case.far)
        alone = Unscattered(case.far, case.rows, case.columns, case.phases, gradient) if separate else None
        found = backend.residual(case.waves.copy(), alone, case.amplitude, case.scale, likelihood, 1e-6)
        return *found, gradient

    same(both, operation)


def test_pixels_not_measured_have_no_residual(both, case):
    for backend in both:
        residual, _ = backend.residual(case.waves.copy(), None, case.amplitude, case.scale, "gaussian", 1e-6)
        assert (residual[:, :, 2:4] == 0).all()
        assert (residual[:, :, 4] != 0).any()


def test_combine(both, case):
    same(both, lambda b: [b.combine(case.waves.copy(), case.weights)])


@pytest.mark.parametrize("positions", [False, True])
def test_add_object(both, case, positions):
    def operation(backend):
        gradient = case.gradient.copy()
        slopes = case.slopes if positions else None
        return backend.add_object(gradient, case.probes, case.residual, slopes, case.corner), gradient

    # sums of 200 products of order one
    default, ours = (operation(backend) for backend in both)
    for expected, found in zip(default, ours, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=3e-4)


def test_add_probe(both, case):
    def operation(backend):
        gradient_hat = case.gradient_hat.copy()
        residual = case.residual.copy()
        backend.add_probe(gradient_hat, case.obj, residual, case.corner, case.rows, case.columns)
        return [gradient_hat]

    same(both, operation)


@pytest.mark.parametrize("damping", [(1.0, 1.0), (0.1, 0.3)])
@pytest.mark.parametrize("probe_step", [0.0, 0.8])
def test_pie_update(both, case, damping, probe_step):
    def operation(backend):
        obj = case.obj.copy()
        one = slice(0, 1)
        change = backend.pie_update(
            obj,
            case.probes[one],
            case.residual[one],
            case.corner[one],
            0.9,
            damping[0],
            probe_step,
            damping[1],
        )
        return change, obj

    same(both, operation)


def test_every_operation_of_the_numba_backend_overrides_one():
    own = {name for name in vars(NumbaBackend) if not name.startswith("_")}
    assert own <= set(vars(Backend))


MOVING = {"position_error_m": 5e-9, "intensity_error": 0.01}
ENGINES = {
    "epie": EpieOptions(sweeps=2, probe_start=0),
    "rpie, two modes, moving": RpieOptions(sweeps=2, probe_start=1, probe_modes=2, **MOVING),
    "raar": RaarOptions(sweeps=2, probe_start=0),
    "raar, two modes, moving": RaarOptions(sweeps=2, probe_start=1, probe_modes=2, **MOVING),
    "ml": MlOptions(sweeps=2),
    "ml, point pixels": MlOptions(sweeps=2, pixel_points=1),
    "ml, two modes, moving, power": MlOptions(sweeps=2, probe_modes=2, fixed_power=True, **MOVING),
    "ml, poisson in groups": MlOptions(sweeps=2, likelihood="poisson", groups=3),
}


@pytest.fixture(scope="module")
def few(small_scan):
    """Every fourth position of the small scan."""
    return prepare(small_scan.frames[::4], small_scan.geometry, small_scan.stage_yx_m[::4])


def outcome(data, probe, options, backend):
    shape = data.object_shape
    weight = np.zeros(shape, np.float32)
    weight[:4], weight[4:8] = np.inf, 1.0
    prior = Prior(np.ones(shape, np.complex64), weight)
    stage = options.model_copy(update={"backend": backend})
    guess = start(data, probe)
    # where the far field of the guess is 0, rounding would decide the phase of what is measured there
    grain = np.random.default_rng(0).normal(0, 0.3, shape)
    guess = replace(guess, object=np.exp(1j * grain).astype(np.complex64))
    *_, last = run(data, guess, (stage,), prior)
    return last


def _strict():
    return Backend(array_api_strict.empty(0))


@pytest.mark.parametrize("options", ENGINES.values(), ids=list(ENGINES))
@pytest.mark.parametrize("other", ["numpy", "strict", "torch", "torch-cuda", "cupy"])
def test_every_engine_gives_the_same_with_every_library(few, small_scan, monkeypatch, options, other):
    monkeypatch.setitem(BACKENDS, "strict", _strict)
    try:
        backend_of(other)
    except BackendError as error:
        pytest.skip(str(error))
    ours = outcome(few, small_scan.probe, options, "numba")
    theirs = outcome(few, small_scan.probe, options, other)
    lit = ours.illumination > 0.01 * ours.illumination.max()
    assert theirs.error == pytest.approx(ours.error, rel=2e-4)
    np.testing.assert_allclose(theirs.object[lit], ours.object[lit], atol=2e-3)
    brightest = np.abs(ours.probe).max()
    power = [np.sum(np.abs(r.probe) ** 2, axis=0) for r in (ours, theirs)]
    np.testing.assert_allclose(power[1], power[0], atol=2e-3 * brightest**2)
    np.testing.assert_allclose(theirs.shift_px, ours.shift_px, atol=2e-3)
    np.testing.assert_allclose(theirs.scale, ours.scale, atol=2e-4)
    np.testing.assert_allclose(theirs.frame_error, ours.frame_error, rtol=5e-3)


def test_without_a_driver_no_library_of_a_gpu_is_imported(monkeypatch):
    monkeypatch.setattr("ptychrome.analysis.engines.backend._cuda_driver", lambda: False)
    for name in ("cupy", "torch-cuda"):
        monkeypatch.setitem(BACKENDS, name, pytest.fail)
    assert isinstance(backend_of("auto"), NumbaBackend)


def test_without_a_usable_gpu_numba_is_taken(monkeypatch):
    def broken():
        raise RuntimeError("no device")

    monkeypatch.setattr("ptychrome.analysis.engines.backend._cuda_driver", lambda: True)
    for name in ("cupy", "torch-cuda"):
        monkeypatch.setitem(BACKENDS, name, broken)
    assert isinstance(backend_of("auto"), NumbaBackend)
    with pytest.raises(BackendError, match=r"no device.*install ptychrome\[cupy\]"):
        backend_of("cupy")


def test_an_unknown_backend_names_the_known_ones():
    with pytest.raises(BackendError, match="auto, numba, numpy, torch"):
        backend_of("fortran")
