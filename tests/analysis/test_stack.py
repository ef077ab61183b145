"""The stack of energies: aligned whatever the order they come in, and revised when one comes again."""

import numpy as np
import pytest

from ptychrome.analysis.engines import Reconstruction
from ptychrome.analysis.grid import CommonGrid
from ptychrome.analysis.options import StackOptions
from ptychrome.analysis.scan import ScanGeometry
from ptychrome.analysis.stack import EnergyStack, add_energy

ENERGIES = np.array([5420.0, 5470.0, 5480.0, 5540.0])
DRIFT_M = np.array([(0.0, 0.0), (21e-9, -34e-9), (-40e-9, 8e-9), (55e-9, 47e-9)])  # of the sample, (y, x)
EXTENT = ((-0.6e-6, 0.6e-6), (-0.6e-6, 0.6e-6))
OPTIONS = StackOptions()
NOISE = 2e-3


def geometry(energy):
    return ScanGeometry(energy, (128, 128), (75e-6, 75e-6), 1.27)


def transmission(y_m, x_m, energy):
    y, x = y_m - 60e-9, x_m + 90e-9
    body = np.clip(1 - (y / 400e-9) ** 2 - (x / 470e-9) ** 2, 0, None) ** 0.8
    domains = 1 + 0.1 * np.sin(y / 70e-9) * np.cos(x / 90e-9)
    jump = 0.2 if energy > 5475 else 0.0
    return np.exp((-1j - 0.05 - jump / 2) * body * domains)


def reconstruction(index, seed=0):
    """What an engine would return: ramp, amplitude and offset of its own, drift, noise, a lit square."""
    energy, rng = ENERGIES[index], np.random.default_rng([seed, index])
    dy, dx = geometry(energy).pixel_m
    rows, columns = np.indices((170, 170)) - 85
    wave = transmission(-rows * dy - DRIFT_M[index, 0], -columns * dx - DRIFT_M[index, 1], energy)
    wave = wave + NOISE * (rng.standard_normal(wave.shape) + 1j * rng.standard_normal(wave.shape))
    wave *= rng.uniform(0.5, 2) * np.exp(1j * (rng.uniform(-3, 3) + 0.004 * rows - 0.007 * columns))
    lit = (np.hypot(rows * dy, columns * dx) < 0.85e-6).astype(np.float32)
    return Reconstruction(wave.astype(np.complex64), np.ones((1, 128, 128), np.complex64), lit)


def empty():
    return EnergyStack.empty(
        ENERGIES, CommonGrid.covering(EXTENT, [geometry(e) for e in ENERGIES], OPTIONS.margin_m)
    )


def stacked(order, seed=0):
    stack = empty()
    for index in order:
        stack = add_energy(stack, index, geometry(ENERGIES[index]), reconstruction(index, seed), OPTIONS)
    return stack


def test_an_empty_stack_has_nothing():
    stack = empty()
    assert not stack.done.any()
    assert np.isnan(stack.absorbance).all()
    assert np.isnan(stack.phase).all()


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_any_order_gives_the_same_alignment(order):
    """The drift against the first energy to come is undone: 1 nm = 0.03 px, the noise of the registration."""
    stack = stacked(order)
    assert stack.done.all()
    found = stack.shift_m - stack.shift_m[0]
    # rows and columns run against y and x; the content is moved back, hence twice minus
    np.testing.assert_allclose(found, DRIFT_M - DRIFT_M[0], atol=1e-9)


def test_every_energy_is_the_sample_in_the_frame_of_the_first():
    stack = stacked((2, 0, 3, 1))
    assert stack.found_vacuum
    y, x = stack.grid.y_m[:, None] - DRIFT_M[2, 0], stack.grid.x_m - DRIFT_M[2, 1]
    inner = stack.field & (np.hypot(stack.grid.y_m[:, None], stack.grid.x_m) < 0.8e-6)
    for index, energy in enumerate(ENERGIES):
        truth = transmission(y, x, energy)
        difference = (stack.object[index] / truth)[inner]
        assert np.abs(np.median(np.abs(difference)) - 1) < 5e-4
        # noise, and what remains of the edge's slope times the error of the shift and of the spline
        assert np.sqrt(np.mean(np.angle(difference) ** 2)) < 3 * NOISE


def test_an_energy_that_comes_again_replaces_the_former():
    """As in a repeated scan: the stack is the one that never saw the former."""
    once = stacked((0, 1, 2))
    again = add_energy(stacked((0, 1, 2), seed=5), 1, geometry(ENERGIES[1]), reconstruction(1), OPTIONS)
    assert again.done.tolist() == [True, True, True, False]
    np.testing.assert_allclose(again.object[1][again.field], once.object[1][again.field], atol=5e-3)
    total = np.nansum(again.phase, axis=0)
    np.testing.assert_allclose(again.reference[again.field], total[again.field], atol=1e-4)


def test_stacks_are_values():
    """Adding an energy leaves the former stack as it was."""
    first = stacked((0,))
    before = first.object.copy()
    add_energy(first, 1, geometry(ENERGIES[1]), reconstruction(1), OPTIONS)
    np.testing.assert_array_equal(first.object, before)
    assert first.done.tolist() == [True, False, False, False]


def test_the_field_shrinks_to_what_every_energy_saw():
    stack = stacked((0, 1))
    narrow = reconstruction(2)
    narrow.illumination[:, :70] = 0.0
    less = add_energy(stack, 2, geometry(ENERGIES[2]), narrow, OPTIONS)
    assert not (less.field & ~stack.field).any()
    assert less.field.sum() < 0.95 * stack.field.sum()


def test_without_vacuum_it_is_told_and_goes_on():
    """A slab that fills the field."""
    stack = empty()
    for index in (0, 1, 2):
        given = reconstruction(index)
        rows, columns = np.indices(given.object.shape)
        bumps = 1 + 0.2 * np.sin(rows / 5) * np.cos(columns / 7) + 0.1 * np.sin(columns / 3)
        full = Reconstruction(
            np.exp((-1j - 0.1) * bumps).astype(np.complex64), given.probe, given.illumination
        )
        stack = add_energy(stack, index, geometry(ENERGIES[index]), full, OPTIONS)
    assert not stack.found_vacuum
    assert not stack.vacuum.any()
    assert np.isfinite(stack.object[:3]).all()
