"""The spectral model: what Kramers–Kronig allows, how many components, how much noise, and a rare state.

Images are those of the simulation's particle with white noise on ln O. Takes 15 s.
"""

import numpy as np
import pytest
from scipy import ndimage

from ptychrome.analysis.optics import wavelength_m
from ptychrome.analysis.scan import DataError
from ptychrome.analysis.spectral import (
    LARGEST_RANK,
    SPARE,
    SpectralOptions,
    kramers_kronig_projector,
    spectral_model,
)
from ptychrome.analysis.xanes import XanesModel, fit_xanes
from ptychrome.devices.twin.states import LIVO3, OXIDE_STATES, ChemicalState, scattering_factors

ENERGIES_EV = np.r_[
    np.linspace(5420, 5460, 5), np.arange(5463, 5472), np.arange(5473, 5486), np.linspace(5490, 5540, 13)
].astype(float)
N = len(ENERGIES_EV)
REDUCED = ChemicalState("V2+ octahedral", 5474.6, 0.2, 5466.5, 1.0, 1.0)
OTHER_PRE_EDGE = ChemicalState("pre-edge 2 eV higher", 5478.0, 2.5, 5469.5, 1.0, 2.0)
STATES = {"LiVO3": LIVO3, "V2+": REDUCED, "pre-edge": OTHER_PRE_EDGE}


def spectra_of(states):
    """(−ln|O|, −φ) of unit areal density, (n_states, 2 n)."""
    factors = scattering_factors(states, ENERGIES_EV) * wavelength_m(ENERGIES_EV)
    return np.concatenate([factors.imag, factors.real], axis=1)


def model_of(images, obj, **options):
    return spectral_model(images.energy_eV, obj, images.particle, "V", SpectralOptions(**options))


def standing_out(model):
    return int(np.argmin(model.strength > 1))


def edge_energy_eV(log_object, true_log_object):
    """Of (n, pixels) ln O, by eq. (1), started at the truth: the white line can pass for the edge."""
    model = XanesModel.for_edge("V")
    start = fit_xanes(ENERGIES_EV, -2 * np.real(true_log_object).T, model=model, sigma=2e-3).parameters
    start = np.median(start, axis=0)
    return fit_xanes(ENERGIES_EV, -2 * np.real(log_object).T, model=model, sigma=2e-3, start=start)["b2"]


def robust(values):
    return 1.4826 * np.median(np.abs(values - np.median(values)))


class TestProjector:
    def test_it_is_an_orthogonal_projector_on_n_plus_2_dimensions(self):
        projector = kramers_kronig_projector(ENERGIES_EV, "V")
        np.testing.assert_allclose(projector @ projector, projector, atol=1e-12)
        np.testing.assert_allclose(projector, projector.T, atol=1e-14)
        assert np.trace(projector) == pytest.approx(N + 2)

    @pytest.mark.parametrize("states", [OXIDE_STATES, tuple(STATES.values())])
    def test_spectra_of_matter_pass(self, states):
        """Measured 1e-4 to 6e-4 of the spectrum: f″ is not a spline and light elements' f′ not constant."""
        spectra = spectra_of(states)
        lost = spectra - spectra @ kramers_kronig_projector(ENERGIES_EV, "V")
        assert (np.linalg.norm(lost, axis=1) < 1e-3 * np.linalg.norm(spectra, axis=1)).all()

    def test_weights_change_what_counts_not_what_is_allowed(self):
        weight = np.r_[np.ones(N), np.full(N, 0.3)]
        projector = kramers_kronig_projector(ENERGIES_EV, "V", weight)
        np.testing.assert_allclose(projector, projector.T, atol=1e-14)
        spectra = spectra_of(OXIDE_STATES) * weight
        lost = np.linalg.norm(spectra - spectra @ projector, axis=1)
        assert (lost < 1e-3 * np.linalg.norm(spectra, axis=1)).all()

    def test_random_spectra_lose_what_is_not_in_the_n_plus_2_dimensions(self):
        noise = np.random.default_rng(0).normal(size=(4000, 2 * N))
        kept = noise @ kramers_kronig_projector(ENERGIES_EV, "V")
        assert np.sum(kept**2) / np.sum(noise**2) == pytest.approx((N + 2) / (2 * N), rel=0.01)

    @pytest.mark.parametrize("part", ["absorption", "phase"])
    def test_an_error_of_one_energy_loses_most_of_itself(self, part):
        """70 % of the amplitude is √½: an error has no partner in the other half."""
        one = np.zeros((N, 2 * N))
        one[:, (0 if part == "absorption" else N) :][:, :N] = np.eye(N)
        lost = one - one @ kramers_kronig_projector(ENERGIES_EV, "V")
        share = np.linalg.norm(lost, axis=1)[5:-5]  # where the scan is dense
        assert np.median(share) > 0.6
        assert share.min() > 0.4


class TestNoise:
    @pytest.mark.parametrize("seed", range(2))
    def test_noise_falls_as_counted(self, particle_images, seed):
        """p × 2n numbers on the manifold of rank r in d dimensions keep r (p + d − r) / (2 n p) of σ²."""
        sigma, rank, d = 2e-3, 5, N + 2
        images = particle_images
        model = model_of(images, images.noisy(sigma, seed), rank=rank)
        clean = model_of(images, images.object, rank=rank)
        pixels = int(images.particle.sum())
        left = (model.log_object - clean.log_object)[:, images.particle]
        expected = np.sqrt(rank * (pixels + d - rank) / (2 * N * pixels)) * sigma
        measured = np.sqrt(np.mean(np.abs(left) ** 2) / 2)
        assert expected == pytest.approx(0.253 * sigma, rel=0.01)
        assert measured == pytest.approx(expected, rel=0.05)

    def test_it_is_not_biased(self, particle_images):
        """What is left of the mean is the projector's: 4e-4 of a phase of 1 rad."""
        images, truth = particle_images, np.log(particle_images.object[:, particle_images.particle])
        model = model_of(images, images.noisy(2e-3)).log_object[:, images.particle]
        assert np.abs((model - truth).mean(axis=1)).max() < 5e-4
        for part in (np.real, np.imag):
            slope = np.vdot(part(truth), part(model)) / np.vdot(part(truth), part(truth))
            assert slope == pytest.approx(1, abs=2e-3)

    def test_vacuum_is_left_alone(self, particle_images):
        model = model_of(particle_images, particle_images.noisy(2e-3))
        assert (model.log_object[:, ~particle_images.particle] == 0).all()
        assert np.isnan(model.residual[~particle_images.particle]).all()
        assert np.median(model.residual[particle_images.particle]) == pytest.approx(1)


class TestRank:
    @pytest.mark.parametrize(("sigma", "ranks"), [(3e-4, {5}), (2e-3, {4, 5}), (7e-3, {4})])
    def test_it_is_that_of_the_particle(self, particle_images, sigma, ranks):
        """Four states and the pixels of the outline, which are the smallest part."""
        for seed in range(3):
            model = model_of(particle_images, particle_images.noisy(sigma, seed))
            assert standing_out(model) in ranks
            assert (model.strength[standing_out(model) : N + 2] < 1).all()
            assert model.rank == model.principal == standing_out(model) + SPARE

    @pytest.mark.parametrize("sigma", [3e-4, 7e-3])
    def test_noise_makes_no_component(self, particle_images, sigma):
        """One spectrum and a map of its thickness: every second component would be noise."""
        images = particle_images
        thickness = -np.angle(images.object[0])
        (spectrum,) = spectra_of((LIVO3,)) / spectra_of((LIVO3,))[0, N]
        pure = np.exp(-(spectrum[:N] + 1j * spectrum[N:])[:, None, None] * thickness)
        for seed in range(10):
            rng = np.random.default_rng(seed)
            noise = rng.normal(size=pure.shape) + 1j * rng.normal(size=pure.shape)
            assert standing_out(model_of(images, pure * np.exp(sigma * noise))) == 1

    def test_without_kramers_kronig_the_bulk_tells(self, particle_images):
        model = model_of(particle_images, particle_images.noisy(2e-3), kramers_kronig=False)
        assert standing_out(model) in {4, 5}

    def test_a_phase_of_less_weight_makes_no_more_components(self, particle_images):
        model = model_of(particle_images, particle_images.noisy(2e-3), phase_weight=0.3)
        assert standing_out(model) in {4, 5}

    @pytest.mark.parametrize("seed", range(3))
    def test_errors_of_single_energies_make_few(self, particle_images, seed):
        """Clouds of 3e-3 rad, another at each energy: far above the bulk of noise, but as much forbidden."""
        images, rng = particle_images, np.random.default_rng(seed)
        clouds = ndimage.gaussian_filter(rng.normal(size=images.object.shape), (0, 5, 5))
        obj = images.noisy(5e-4) * np.exp(3e-3j * clouds / clouds.std())
        model = model_of(images, obj)
        assert 3 <= standing_out(model) <= 8
        assert model_of(images, obj, kramers_kronig=False).rank == LARGEST_RANK

    def test_a_pull_towards_a_model_adds_no_component(self, particle_images):
        """Its own noise stays where the rest shrinks fivefold: a wider model would seem to stand out."""
        images, options = particle_images, SpectralOptions()
        obj, wide = images.noisy(7e-3), model_of(images, images.noisy(7e-3), rank=8)
        log_object = np.log(np.abs(obj)) + 1j * np.angle(obj)
        pulled = np.exp(wide.log_object + (log_object - wide.log_object) / 5)
        once = model_of(images, obj)
        again = spectral_model(images.energy_eV, pulled, images.particle, "V", options, most=once.principal)
        assert model_of(images, pulled).rank >= 8
        assert again.principal == once.principal == 4 + SPARE

    def test_all_components(self, particle_images):
        model = model_of(particle_images, particle_images.noisy(2e-3), low_rank=False)
        assert model.rank == 2 * N
        assert np.isfinite(model.residual[particle_images.particle]).all()

    def test_too_little_is_told(self, particle_images):
        images = particle_images
        with pytest.raises(DataError, match="7 energies"):
            spectral_model(images.energy_eV[:7], images.object[:7], images.particle, "V", SpectralOptions())
        few = np.zeros_like(images.particle)
        few[20, 20:40] = True
        with pytest.raises(DataError, match="20 pixels"):
            spectral_model(images.energy_eV, images.object, few, "V", SpectralOptions())


@pytest.fixture(scope="module", params=[(name, pixels) for name in STATES for pixels in (50, 12)], ids=str)
def images(request, images_with):
    name, pixels = request.param
    return images_with(STATES[name], pixels)


class TestRareState:
    @pytest.mark.parametrize("sigma", [3e-4, 2e-3, 7e-3])
    def test_it_keeps_its_edge_energy(self, images, sigma):
        """No further off in the median than one pixel's noise without a model; a dozen pixels nearly so."""
        obj, own = images.noisy(sigma), images.rare & images.particle
        true = np.log(images.object[:, own])
        single, modelled = (
            edge_energy_eV(spectra, true) - edge_energy_eV(true, true)
            for spectra in (np.log(obj[:, own]), model_of(images, obj).log_object[:, own])
        )
        assert abs(np.median(modelled)) < max(robust(single) * (1 if own.sum() > 40 else 1.5), 0.03)
        assert robust(modelled) < max(robust(single), 0.01)

    @pytest.mark.parametrize("sigma", [2e-3, 7e-3])
    def test_sharing_among_similar_pixels_leaves_its_spectrum(self, images, sigma):
        obj, own = images.noisy(sigma), images.rare & images.particle
        true = np.log(images.object[:, own])
        errors = [model_of(images, obj, reach_px=reach).log_object[:, own] - true for reach in (0, 2)]
        alone, shared = (np.sqrt(np.mean(np.abs(error) ** 2)) for error in errors)
        alone_mean, shared_mean = (np.sqrt(np.mean(np.abs(error.mean(axis=1)) ** 2)) for error in errors)
        assert shared < alone
        assert shared_mean < 1.02 * alone_mean  # what the components lack is there without sharing

    @pytest.mark.parametrize("reach_px", [0, 2])
    def test_it_is_missed_when_the_rank_is_too_low_and_shows_in_the_residual(self, images, reach_px):
        model = model_of(images, images.noisy(2e-3), rank=2, reach_px=reach_px)
        own, others = images.rare & images.particle, images.particle & ~images.rare
        assert np.median(model.residual[own]) > 2
        assert np.median(model.residual[others]) < 1.01

    @pytest.mark.parametrize("reach_px", [0, 2])
    def test_it_does_not_show_when_the_model_has_it(self, images, reach_px):
        model = model_of(images, images.noisy(2e-3), reach_px=reach_px)
        assert 0.9 < np.median(model.residual[images.rare & images.particle]) < 1.1

    def test_a_place_that_principal_components_miss_adds_its_own_spectrum(self, images_with):
        """Five pixels under clouds of errors, whose strongest component is stronger than the state's."""
        images, rng = images_with(REDUCED, 5), np.random.default_rng(1)
        clouds = ndimage.gaussian_filter(rng.normal(size=(*images.object.shape, 2)), (0, 5, 5, 0))
        clouds *= 1.5e-3 / clouds.std()
        obj = images.noisy(3e-4) * np.exp(clouds[..., 0] + 1j * clouds[..., 1])
        model = model_of(images, obj)
        principal = model.principal
        assert model.rank == principal + 1
        true = np.log(images.object[:, images.rare])
        with_it, without = (
            np.abs(edge_energy_eV(m.log_object[:, images.rare], true) - edge_energy_eV(true, true))
            for m in (model, model_of(images, obj, rank=principal))
        )
        assert with_it.max() < 0.15  # 0.07 measured; 0.08 without a model
        assert without.max() > 0.4  # 0.73 measured
