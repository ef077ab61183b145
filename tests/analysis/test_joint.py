"""Alignment with a common model, and what the model says of each energy. Takes 20 s."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import ndimage

from ptychrome.analysis.engines import Prior, Reconstruction
from ptychrome.analysis.grid import CommonGrid, pixel_average
from ptychrome.analysis.joint import Energy, JointOptions, align, expectation, replacement
from ptychrome.analysis.normalise import normalise
from ptychrome.analysis.options import MlOptions
from ptychrome.analysis.scan import DataError, Orientation, ScanGeometry
from ptychrome.analysis.spectral import SpectralOptions
from ptychrome.analysis.stack import EnergyStack

SIGNS = [(-1, -1), (1, 1)]
SIGMA = 1e-3
MARGIN = 12  # pixels of vacuum around the particle's images
OPTIONS = JointOptions(refine=(MlOptions(),), weight=3.0, vacuum_weight=100.0)


@dataclass(frozen=True)
class Moved:
    """Energies as reconstructions leave them: each with a shift, a factor and a phase ramp of its own.

    Attributes
    ----------
    stack : EnergyStack
        As `add_energy` would have made it, had it missed the last third of a pixel.
    energies : dict of int to Energy
    shift_px : (n, 2) float64
        What was missed.
    gauge : (n, 4) float64
        Log amplitude, phase and its slopes (rad/pixel).
    truth : (n, ny, nx) complex128
        On the common grid.
    """

    stack: EnergyStack
    energies: dict[int, Energy]
    shift_px: np.ndarray
    gauge: np.ndarray
    truth: np.ndarray


def moved(images, signs=(-1, -1), noise=SIGMA, size=1.0) -> Moved:
    """`size` scales shifts and gauges."""
    rng = np.random.default_rng(7)
    n = len(images.energy_eV)
    orientation = Orientation(False, *signs)
    geometries = [ScanGeometry(e, (96, 96), (75e-6, 75e-6), 0.9, orientation) for e in images.energy_eV]
    truth = np.pad(images.object, ((0, 0), (MARGIN,) * 2, (MARGIN,) * 2), constant_values=1)
    truth = truth[:, : truth.shape[1] // 2 * 2 - 1, : truth.shape[2] // 2 * 2 - 1]
    grid = CommonGrid(geometries[0].pixel_m[0], truth.shape[1:], (0.0, 0.0), orientation)
    field = np.zeros(grid.shape, bool)
    field[6:-6, 6:-6] = True
    vacuum = field & ~ndimage.binary_dilation(np.abs(truth[0] - 1) > 1e-3, iterations=2)
    shifts = size * rng.uniform(-0.3, 0.3, (n, 2))
    gauge = size * np.column_stack(
        [rng.uniform(-0.01, 0.01, n), rng.uniform(-0.05, 0.05, n), rng.uniform(-1e-3, 1e-3, (n, 2))]
    )
    stack = replace(EnergyStack.empty(images.energy_eV, grid), field=field, vacuum=vacuum, found_vacuum=True)
    energies, shape = {}, (grid.shape[0] + 10, grid.shape[1] + 8)
    for k, geometry in enumerate(geometries):
        own = grid.restore(truth[k] - 1, geometry, shape, (0.0, 0.0), order=5) + 1
        # the content lies at −shift, so that adding the shift brings it back
        own = 1 + ndimage.shift(own - 1, -shifts[k] * grid.pixel_m / geometry.pixel_m, order=5)
        noisy = noise * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
        rows, columns = (np.indices(shape)[axis] - shape[axis] // 2 for axis in (0, 1))
        ramp = gauge[k, 2] * rows + gauge[k, 3] * columns  # rad per free-running pixel
        obj = sharpened(own) * np.exp(noisy + gauge[k, 0] + 1j * (gauge[k, 1] + ramp))
        probe = wide_probe(48)
        light = np.ones(shape, np.float32)
        state = Reconstruction(obj.astype(np.complex64), probe[None], light, (0.1,))
        energies[k] = Energy(geometry, state)
        image = grid.resample(pixel_average(state.object), geometry)
        stack.object[k] = normalise(image, field, vacuum).object
        stack.shift_m[k] = 0.0
    return Moved(stack, energies, shifts, gauge, truth)


def sharpened(obj):
    """What `pixel_average` makes `obj` of."""
    rows, columns = (np.sinc(np.fft.fftfreq(n)) for n in obj.shape)
    return np.fft.ifft2(np.fft.fft2(obj) / rows[:, None] / columns[None, :])


def wide_probe(n):
    rows, columns = np.indices((n, n)) - n // 2
    return np.exp(-(rows**2 + columns**2) / 9.0**2 + 0.02j * rows * columns).astype(np.complex64)


@pytest.fixture(scope="module", params=SIGNS, ids=str)
def scan(request, particle_images):
    return moved(particle_images, request.param)


@pytest.fixture(scope="module")
def aligned(scan):
    return align(scan.stack, scan.energies, "V", SpectralOptions())


class TestAlign:
    def test_shifts_come_back(self, scan, aligned):
        """To 0.02 pixel, up to a common one that no energy can tell."""
        found = aligned.stack.shift_m / scan.stack.grid.pixel_m - scan.shift_px
        assert np.abs(found - np.median(found, axis=0)).max() < 0.02

    def test_the_gauge_comes_back(self, scan, aligned):
        """Images agree with the truth, moved by what is common, to the noise; vacuum is one."""
        pixels = scan.stack.vacuum
        mean = np.log(aligned.stack.object[:, pixels]).mean(axis=1)
        assert np.abs(mean.real).max() < 1e-3
        assert np.abs(mean.imag - mean.imag.mean()).max() < 1e-3
        slopes = [
            np.gradient(np.angle(image))[axis][pixels].mean()
            for image in aligned.stack.object
            for axis in (0, 1)
        ]
        assert np.abs(slopes).max() < 5e-5

    def test_images_become_the_same_but_for_the_noise(self, scan, aligned):
        """rms of the difference to the truth over the particle, without what is common."""
        part = scan.stack.particle
        left = np.log(aligned.stack.object[:, part]) - np.log(scan.truth[:, part])
        left -= left.mean(axis=0)
        before = np.log(scan.stack.object[:, part]) - np.log(scan.truth[:, part])
        before -= before.mean(axis=0)
        assert np.sqrt(np.mean(np.abs(left) ** 2)) < 2.2 * SIGMA
        assert np.sqrt(np.mean(np.abs(before) ** 2)) > 10 * SIGMA

    def test_the_stack_given_is_not_altered(self, particle_images):
        scan = moved(particle_images)
        before = scan.stack.object.copy(), scan.stack.shift_m.copy()
        align(scan.stack, scan.energies, "V", SpectralOptions(), passes=1)
        np.testing.assert_array_equal(scan.stack.object, before[0])
        np.testing.assert_array_equal(scan.stack.shift_m, before[1])

    @pytest.mark.parametrize("offset", [(0, 0), (9, -13), (-16, 6)])
    def test_exit_waves_keep_their_modulus(self, scan, aligned, offset):
        """A ramp that goes from the object to the probe only moves the phase of the far field."""
        for place in (0, 17, 39):
            frames = [
                far_field(energy.reconstruction, offset)
                for energy in (scan.energies[place], aligned.energies[place])
            ]
            assert np.abs(frames[1] - frames[0]).max() < 2e-6 * frames[0].max()

    def test_too_few_energies_are_told(self, scan):
        with pytest.raises(DataError, match="5 energies"):
            align(scan.stack, {k: scan.energies[k] for k in range(5)}, "V", SpectralOptions())

    def test_energies_that_failed_are_left_out(self, scan):
        """The rows of the model are those of the energies that are there."""
        energies = {k: energy for k, energy in scan.energies.items() if k not in (3, 20)}
        stack = replace(scan.stack, object=scan.stack.object.copy(), shift_m=scan.stack.shift_m.copy())
        stack.object[[3, 20]], stack.shift_m[[3, 20]] = np.nan, np.nan
        state = align(stack, energies, "V", SpectralOptions(), passes=1)
        assert np.isnan(state.stack.object[[3, 20]]).all()
        part, modelled = stack.particle, state.modelled.object
        assert np.isnan(modelled[[3, 20]]).all()
        rest = [k for k in energies if k not in (3, 20)]
        left = np.abs(np.log(modelled[rest][:, part]) - np.log(state.stack.object[rest][:, part]))
        assert np.median(left) < 3 * SIGMA


def far_field(state, offset):
    """|FFT| of probe times object around a place."""
    n = state.probe.shape[-1]
    row, column = (size // 2 - n // 2 + shift for size, shift in zip(state.object.shape, offset, strict=True))
    window = state.object[row : row + n, column : column + n].astype(complex)
    return np.abs(np.fft.fft2(state.probe[0] * window))


@pytest.fixture(scope="module")
def state(particle_images):
    """Aligned from the start."""
    scan = moved(particle_images, size=0.0)
    return align(scan.stack, scan.energies, "V", SpectralOptions(), passes=1)


class TestExpectation:
    def test_nothing_changes_where_model_and_image_agree(self, state):
        images = state.stack.object.copy()
        agreeing = np.exp(state.model.log_object)
        agreeing = replace(
            state, stack=replace(state.stack, object=np.where(state.stack.field, agreeing, images))
        )
        prior = expectation(agreeing, 20, OPTIONS)
        np.testing.assert_allclose(prior.object, state.energies[20].reconstruction.object, rtol=1e-5)

    def test_what_is_expected_is_nearer_to_the_model(self, state):
        """The prior's image, brought to the grid again, is the model's; 0.4: the spline smooths noise."""
        place, stack = 20, state.stack
        prior = expectation(state, place, OPTIONS)
        energy = state.energies[place]
        image = stack.grid.resample(pixel_average(prior.object), energy.geometry, tuple(stack.shift_m[place]))
        inside = ndimage.binary_erosion(stack.field, iterations=3)
        before = np.log(stack.object[place]) - state.model.log_object[place]
        after = np.log(image) - state.model.log_object[place]
        assert np.std(after[inside]) < 0.5 * np.std(before[inside])

    def test_weights_are_those_of_particle_and_vacuum(self, state):
        place, stack = 0, state.stack  # the energy whose pixels are those of the grid
        weight = expectation(state, place, OPTIONS).weight
        shape = state.energies[place].reconstruction.object.shape
        shift = tuple(stack.shift_m[place])
        share = [
            stack.grid.restore(
                region.astype(np.float32), state.energies[place].geometry, shape, shift, order=1
            )
            for region in (
                ndimage.binary_erosion(stack.particle),
                ndimage.binary_erosion(stack.field & stack.vacuum),
            )
        ]
        np.testing.assert_allclose(weight[share[0] > 0.99], OPTIONS.weight, rtol=1e-4)
        np.testing.assert_allclose(weight[share[1] > 0.99], OPTIONS.vacuum_weight, rtol=1e-4)
        assert (weight >= 0).all()
        assert weight[0, 0] == 0

    def test_vacuum_only_leaves_the_particle_alone(self, state):
        stack, energy = state.stack, state.energies[0]
        prior = expectation(state, 0, OPTIONS, vacuum_only=True)
        inside = stack.grid.restore(
            ndimage.binary_erosion(stack.particle, iterations=2).astype(np.float32),
            energy.geometry,
            energy.reconstruction.object.shape,
            tuple(stack.shift_m[0]),
            order=1,
        )
        assert (prior.weight[inside > 0.99] == 0).all()
        assert prior.weight.max() == pytest.approx(OPTIONS.vacuum_weight)

    def test_types_are_those_of_a_prior(self, state):
        prior = expectation(state, 5, OPTIONS)
        assert prior.object.dtype == np.complex64
        assert prior.weight.dtype == np.float32
        assert prior.object.shape == prior.weight.shape == state.energies[5].reconstruction.object.shape

    def test_the_modelled_stack_is_the_model_within_the_particle(self, state):
        stack = state.modelled
        part = stack.particle
        np.testing.assert_allclose(stack.object[:, part], np.exp(state.model.log_object[:, part]), rtol=1e-6)
        np.testing.assert_array_equal(stack.object[:, ~part], state.stack.object[:, ~part])


def test_a_replacement_takes_what_is_expected_and_nothing_else():
    obj = np.full((4, 4), 2 + 1j, np.complex64)
    weight = np.zeros((4, 4), np.float32)
    weight[1:3, 1:3] = 0.5
    state = Reconstruction(obj, wide_probe(4)[None], np.ones((4, 4), np.float32), (0.2, 0.1))
    result = replacement(state, Prior(np.full((4, 4), 0.7 + 0j, np.complex64), weight))
    assert (result.object[weight > 0] == np.complex64(0.7)).all()
    assert (result.object[weight == 0] == 2 + 1j).all()
    assert result.object.dtype == np.complex64
    assert result.error == state.error
    assert (state.object == 2 + 1j).all()
