"""Truth maps."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime, least_squares
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from ptychrome.devices.twin import TwinBeamline, truth
from ptychrome.devices.twin.particle import particle_shape
from ptychrome.devices.twin.states import OXIDE_STATES, scattering_factors

FAR_BELOW, FAR_ABOVE = (5420, 5435, 5450, 5460), (5486, 5489, 5493, 5498, 5506, 5518, 5530, 5540)
ENERGIES = tuple(
    map(float, [*FAR_BELOW, *np.arange(5464, 5471, 0.5), *np.arange(5473, 5484, 0.75), *FAR_ABOVE])
)


@pytest.fixture(scope="module")
def p1():
    return TwinBeamline("P1").truth(30e-9, ENERGIES)


def test_derivatives_of_eq1():
    """Analytic against forward differences of 1e-7: agree to 1e-5."""
    energy = np.linspace(-50, 70, 40)
    numeric = approx_fprime(truth.START, lambda p: truth.eq1(p[None], energy)[0][0], 1e-7)
    assert truth.eq1(truth.START[None], energy)[1][0] == pytest.approx(numeric, abs=1e-5)


def test_batched_fit_finds_scipys_minimum():
    """Mixtures of states: edge energy and pre-edge ratio as from scipy and a distant start, to 1e-3 eV."""
    share = np.random.default_rng(0).dirichlet(np.ones(4), 20)
    ours = truth.fit_eq1(np.array(ENERGIES), share, OXIDE_STATES)
    energy = np.array(ENERGIES) - truth.ORIGIN_EV
    spectra = share @ (scattering_factors(OXIDE_STATES, ENERGIES).imag * truth.ORIGIN_EV / ENERGIES / 3.53)
    for spectrum, fitted in zip(spectra, ours, strict=True):
        scipys = least_squares(
            lambda p, spectrum=spectrum: truth.eq1(p[None], energy)[0][0] - spectrum, truth.START, method="lm"
        ).x
        assert fitted[2] == pytest.approx(scipys[2], abs=1e-3)
        assert fitted[4] * fitted[6] / fitted[1] == pytest.approx(scipys[4] * scipys[6] / scipys[1], abs=1e-3)


def test_maps_are_where_the_particle_is(p1):
    inside = p1.label >= 0
    for name in ("edge_energy", "pre_edge_ratio", "edge_jump", "n_v", "n_eff", "n_eff_ratio"):
        assert np.array_equal(np.isfinite(getattr(p1, name)), inside), name
    assert np.all(np.diff(p1.y_m) < 0)
    assert np.all(np.diff(p1.x_m) < 0)


def test_maps_lie_in_the_papers_ranges(p1):
    """b2 5476–5481 eV, PE/Δμt 0–3.5 eV, the ratio 30–50 (physics.md's colour scales and constants)."""
    thick = p1.edge_jump > 0.05
    limits = {"edge_energy": (5476, 5481), "pre_edge_ratio": (0, 3.5), "n_eff_ratio": (30, 50)}
    for name, (low, high) in limits.items():
        values = getattr(p1, name)
        assert low < values[thick].min()
        assert values[thick].max() < high
    assert np.nanmax(p1.edge_jump) == pytest.approx(0.2, abs=0.1)


def test_areal_density_is_averaged_over_pixels(p1):
    """Coarse pixels hold what their fine pixels hold: total V agrees to 1 % (the thin rim left out)."""
    fine = TwinBeamline("P1").truth(15e-9, ENERGIES)
    assert np.nansum(fine.n_v) * 15e-9**2 == pytest.approx(np.nansum(p1.n_v) * 30e-9**2, rel=0.01)
    shape = particle_shape("P1")
    axis, density = truth.pixel_density(shape, 30e-9)
    y, x = np.meshgrid(axis[20] + np.linspace(-15e-9, 15e-9, 61), axis[25] + np.linspace(-15e-9, 15e-9, 61))
    assert density[:, 20, 25] == pytest.approx(shape.density(y, x).mean(axis=(1, 2)), rel=0.01)


def test_border_distance():
    """Two halves with a border between columns 3 and 4; outside is no border."""
    label = np.array([[0, 0, 0, 0, 1, 1, 1, -1]] * 3, dtype=np.int32)
    distance = truth.border_distance(label, 10e-9)
    assert distance[1] == pytest.approx(np.array([35, 25, 15, 5, 5, 15, 25, 0]) * 1e-9)
    assert np.all(np.isinf(truth.border_distance(np.zeros((2, 2), dtype=np.int32), 1.0)))


@pytest.mark.parametrize("name", ["P1", "P2", "P3", "D1", "D2", "D3"])
def test_states_are_distinguishable(name):
    """k-means on the robustly scaled noise-free maps finds the states away from borders."""
    maps = TwinBeamline(name, seed=1).truth(30e-9, ENERGIES)
    chosen = (maps.edge_jump > 0.05) & (maps.border_m > 45e-9)
    features = np.stack([maps.edge_energy, maps.pre_edge_ratio, maps.n_eff_ratio], axis=-1)[chosen]
    centred = features - np.median(features, axis=0)
    scaled = centred / np.median(np.abs(centred), axis=0)
    found = KMeans(4, n_init=10, random_state=0).fit_predict(scaled)
    assert set(maps.label[chosen]) == {0, 1, 2, 3}
    assert adjusted_rand_score(maps.label[chosen], found) >= 0.97


def test_surface_gradient_counts_with_its_own_value(p1):
    """Within one state the edge energy still varies, for the skin differs from the core."""
    core = p1.edge_energy[(p1.label == 0) & (p1.border_m > 45e-9) & (p1.edge_jump > 0.12)]
    skin = p1.edge_energy[(p1.label == 0) & (p1.border_m > 45e-9) & (p1.edge_jump < 0.05)]
    assert np.median(skin) > np.median(core) + 0.02


def test_too_few_energies_are_refused():
    with pytest.raises(ValueError, match="3 energies; expected at least 10"):
        TwinBeamline("P1").truth(30e-9, ENERGIES[:3])
