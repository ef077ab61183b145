"""Six particles from their spectra: the two main states change places on delithiation, by as much as is true.

Noise and blur of the spectra are those that the recipe `live` leaves at 1e8 photons per frame, judged by the
errors of the maps (README).
"""

import zlib
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ptychrome.analysis.clustering import cluster_fractions
from ptychrome.analysis.grid import CommonGrid
from ptychrome.analysis.interpretation import interpret
from ptychrome.analysis.stack import EnergyStack
from ptychrome.callbacks.results import Revision
from ptychrome.devices.twin.particle import particle_shape
from ptychrome.devices.twin.states import transmission
from ptychrome.devices.twin.truth import particle_truth, pixel_density
from ptychrome.plans import v_k_edge
from ptychrome.profiles.pooled import pool_clusters
from ptychrome.profiles.scoring import score
from ptychrome.profiles.settings import load_recipe

AS_PREPARED, DELITHIATED = ("P1", "P2", "P3"), ("D1", "D2", "D3")
PIXEL_M = 30e-9
ENERGIES_EV = np.array(v_k_edge())
NOISE, PHASE_NOISE, BLUR = 1.2e-3, 1.2e-3, 0.7  # of μt; rad; pixels
V3, V4 = 0, 1  # the main states, by edge energy


def stack_of(name: str, margin: int = 4) -> EnergyStack:
    """The particle's true transmission, blurred and noisy."""
    shape = particle_shape(name)
    density = np.pad(pixel_density(shape, PIXEL_M)[1], ((0, 0), (margin, margin), (margin, margin)))
    wave = np.stack([transmission(density, shape.states, energy) for energy in ENERGIES_EV])
    blurred = [gaussian_filter(part, (0, BLUR, BLUR)) for part in (wave.real, wave.imag)]
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal((2, *wave.shape))
    seen = (blurred[0] + 1j * blurred[1]) * np.exp(NOISE / 2 * noise[0] + 1j * PHASE_NOISE * noise[1])
    grid = CommonGrid(PIXEL_M, density.shape[1:], (0.0, 0.0))
    return replace(
        EnergyStack.empty(ENERGIES_EV, grid),
        object=seen.astype(np.complex64),
        shift_m=np.zeros((len(ENERGIES_EV), 2)),
        vacuum=density.sum(axis=0) == 0,
        found_vacuum=True,
    )


@pytest.fixture(scope="module")
def stacks():
    return {name: stack_of(name) for name in AS_PREPARED + DELITHIATED}


@pytest.fixture(scope="module")
def pooled(stacks):
    results, recipe = {}, load_recipe("live")
    for name, stack in stacks.items():
        axis = PIXEL_M * (stack.grid.shape[0] // 2 - np.arange(stack.grid.shape[0]))
        known = {"energy": ENERGIES_EV, "y": axis, "x": axis, "absorbance": stack.absorbance}
        arrays = {**known, **interpret(stack, recipe, "V", "K").arrays()}
        results[name] = Revision(name, name, {}, arrays, {}, (), True)
    return pool_clusters(results, 4, recipe.clusters)


def truth_of(name):
    return particle_truth(name, 0, PIXEL_M, tuple(ENERGIES_EV))


def true_fractions(name):
    """Share of V by the state with the majority in each pixel, in the order of the edge energies."""
    truth = truth_of(name)
    middle = [np.nanmedian(truth.edge_energy[truth.label == state]) for state in range(4)]
    return cluster_fractions(truth.label.ravel(), truth.n_v.ravel(), 4)[np.argsort(middle)]


def test_the_errors_are_those_of_a_reconstruction(pooled):
    """Else this test would be easier than the beamline: README, recipe `live`, 1e8 photons."""
    errors = score(pooled["P1"].arrays, truth_of("P1")).errors
    for name, measured in {"edge_energy_eV": 0.064, "pre_edge_ratio_eV": 0.065, "n_eff_ratio": 0.31}.items():
        assert errors[name] == pytest.approx(measured, rel=0.25)  # 1000 pixels, noise of three figures


@pytest.mark.parametrize("name", AS_PREPARED + DELITHIATED)
def test_fractions_are_within_three_points_and_their_errors(pooled, name):
    arrays = pooled[name].arrays
    off = np.abs(arrays["clusters/fractions"] - true_fractions(name))
    assert off.max() < 0.03  # what is asked for; 0.012 measured
    assert np.all(off < 3 * arrays["clusters/fractions_sigma"])
    assert score(arrays, truth_of(name)).errors["cluster_ari"] >= 0.95


def test_the_main_states_change_places(pooled):
    fractions = {name: result.arrays["clusters/fractions"] for name, result in pooled.items()}
    for name in AS_PREPARED:
        assert fractions[name][V3] > fractions[name][V4] + 0.2  # 0.45 and 0.2 are true
    for name in DELITHIATED:
        assert fractions[name][V4] > fractions[name][V3] + 0.2


def test_labels_hold_while_energies_are_added(stacks):
    """Once the edge is covered: from the white line's far side on; the energy before it flips 2 %."""
    stack, recipe, previous, flips = stacks["P1"], load_recipe("live"), None, []
    for last in np.flatnonzero(ENERGIES_EV >= 5500.0):
        done = np.arange(len(ENERGIES_EV)) <= last
        part = replace(
            stack,
            object=np.where(done[:, None, None], stack.object, np.nan).astype(np.complex64),
            shift_m=np.where(done[:, None], 0.0, np.nan),
        )
        now = interpret(part, recipe, "V", "K", previous)
        if previous is not None:
            seen = (previous.clusters.labels >= 0) & (now.clusters.labels >= 0)
            flips.append(np.mean(previous.clusters.labels[seen] != now.clusters.labels[seen]))
        previous = now
    assert len(flips) >= 3
    assert max(flips) < 0.02  # what is asked for; 0.011 measured, then 0.005


def test_labels_hold_while_particles_are_added(pooled):
    names = ["P1", "D1", "P2", "D2", "P3", "D3"]
    before = pool_clusters({"P1": pooled["P1"]}, 4)
    for count in range(2, len(names) + 1):
        after = pool_clusters({name: pooled[name] for name in names[:count]}, 4)
        pairs = [
            (before[name].arrays["clusters/label"], after[name].arrays["clusters/label"]) for name in before
        ]
        old, new = (
            np.concatenate([label.ravel() for label in labels]) for labels in zip(*pairs, strict=True)
        )
        assert np.mean(old[old >= 0] != new[old >= 0]) < 0.02  # what is asked for
        before = after
