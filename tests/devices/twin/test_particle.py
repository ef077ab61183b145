"""The twin's particles."""

import numpy as np
import pytest

from ptychrome.devices.twin.particle import PARTICLES, make_particle, particle_shape
from ptychrome.devices.twin.states import (
    CLASSICAL_ELECTRON_RADIUS_M,
    EDGE_STEP,
    scattering_factors,
    transmission,
    wavelength_m,
)


@pytest.mark.parametrize("name", sorted(PARTICLES.keys() - {"V"}))
def test_size_jump_and_phase_are_those_of_the_paper(name):
    """Edge jump 0.1–0.3 and phase −0.5…−1.5 rad where thickest, 1.1–1.5 µm across, domains included."""
    particle = make_particle(name, 15e-9, seed=3)
    n_v = particle.areal_density.sum(axis=0)
    jump = 2 * CLASSICAL_ELECTRON_RADIUS_M * wavelength_m(5478.0) * EDGE_STEP * n_v.max()
    phase = np.angle(transmission(particle.areal_density, particle.states, 5420.0)).min()
    diameter = 2 * np.sqrt(np.count_nonzero(n_v) / np.pi) * particle.pixel_m
    assert 0.15 < jump < 0.3
    assert -1.6 < phase < -0.8
    assert 1.1e-6 < diameter < 1.5e-6


def test_thin_edges():
    """A particle has no cliff: the thickness falls to a tenth over several pixels of 15 nm."""
    n_v = make_particle("P1", 15e-9).areal_density.sum(axis=0)
    steps = np.abs(np.diff(n_v, axis=0)).max()
    assert steps < 0.15 * n_v.max()
    assert np.count_nonzero((n_v > 0) & (n_v < 0.25 * n_v.max())) > 0.1 * np.count_nonzero(n_v)


def test_main_states_change_places_on_delithiation():
    """3 %: a domain is worth about 5 % of a particle."""
    shares = {name: np.zeros(4) for name in "PD"}
    for name in ("P1", "P2", "P3", "D1", "D2", "D3"):
        amount = make_particle(name, 20e-9).areal_density.sum(axis=(1, 2))
        shares[name[0]] += amount / amount.sum() / 3
    assert shares["P"] == pytest.approx([0.45, 0.2, 0.15, 0.2], abs=0.03)
    assert shares["D"] == pytest.approx([0.2, 0.45, 0.15, 0.2], abs=0.03)


def test_same_object_on_every_grid():
    """Points common to a 15 nm and a 7.5 nm grid carry the same densities."""
    coarse, fine = make_particle("D2", 15e-9, seed=7), make_particle("D2", 7.5e-9, seed=7)
    rows = [int(np.argmin(np.abs(fine.y_m - y))) for y in coarse.y_m]
    columns = [int(np.argmin(np.abs(fine.x_m - x))) for x in coarse.x_m]
    assert coarse.y_m == pytest.approx(fine.y_m[rows], abs=1e-15)
    common = fine.areal_density[:, rows][:, :, columns]
    assert np.allclose(common, coarse.areal_density, rtol=1e-9, atol=1e-9 * common.max())


def test_name_and_seed_decide():
    first, again = make_particle("P1", 30e-9, seed=1), make_particle("P1", 30e-9, seed=1)
    assert np.array_equal(first.areal_density, again.areal_density)
    for other in (make_particle("P1", 30e-9, seed=2), make_particle("P2", 30e-9, seed=1)):
        assert other.areal_density.shape != first.areal_density.shape or not np.allclose(
            other.areal_density, first.areal_density
        )


def test_outline_has_no_symmetry():
    """Flipped, rotated or transposed, the particle differs from itself: no orientation error can hide."""
    shape = particle_shape("P1")
    axis = np.linspace(-shape.reach_m, shape.reach_m, 81)
    state = shape.density(*np.meshgrid(axis, axis, indexing="ij")).argmax(axis=0) + 1
    n_v = shape.total_density(*np.meshgrid(axis, axis, indexing="ij"))[0]
    image = n_v * state
    turned = image[::-1, ::-1]
    for other in (image[::-1], image[:, ::-1], turned, image.T, np.rot90(image), turned.T):
        assert np.corrcoef(image.ravel(), other.ravel())[0, 1] < 0.95


def test_domains_are_larger_than_the_resolution():
    """The mean domain is 150–350 nm across (its circle's diameter)."""
    shape = particle_shape("P3", seed=4)
    area = np.pi * shape.radius_m**2
    inside = np.hypot(*shape.centres_m.T) < shape.radius_m
    assert 150e-9 < 2 * np.sqrt(area / np.count_nonzero(inside) / np.pi) < 350e-9


def test_the_surface_is_different():
    """Near the outline the surface state takes over a part; scattering differs from the core's."""
    shape = particle_shape("P1")
    axis = np.linspace(-shape.reach_m, shape.reach_m, 101)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    density, (total, depth) = shape.density(y, x), shape.total_density(y, x)
    share = density[1] / np.where(total > 0, total, 1)
    in_other_domains = density.argmax(axis=0) != 1
    skin = share[(total > 0) & (depth < 30e-9) & in_other_domains].mean()
    core = share[(depth > 200e-9) & in_other_domains].mean()
    assert skin > core + 0.1


def test_standards_are_one_state():
    particle = make_particle("LiVO3", 30e-9)
    assert [state.name for state in particle.states] == ["LiVO3"]
    assert scattering_factors(particle.states, 5420.0).shape == (1, 1)


def test_unknown_particle_is_named():
    with pytest.raises(ValueError, match="'P9' is unknown; expected one of P1, P2"):
        make_particle("P9")
